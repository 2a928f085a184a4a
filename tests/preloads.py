"""Libraries that are loaded before a process that a test starts, so that its clock or its disk is not the machine's."""

import atexit
import functools
import shutil
import subprocess
import sys
import tempfile
from pathlib import Path

import pytest

SOURCES = Path(__file__).parent / "preload"


@functools.cache
def compiled(name):
    """The library of preload/NAME.c, made once a run."""
    if not sys.platform.startswith("linux"):
        pytest.skip("the preload is for Linux")
    compiler = shutil.which("gcc") or shutil.which("cc") or pytest.skip("install gcc")
    folder = Path(tempfile.mkdtemp(prefix="preload-"))
    atexit.register(shutil.rmtree, folder, ignore_errors=True)
    folder.chmod(0o755)  # for processes of other users, too
    library, source = folder / f"{name}.so", SOURCES / f"{name}.c"
    subprocess.run([compiler, "-O1", "-Wall", "-Werror", "-shared", "-fPIC", "-o", library, source, "-ldl"], check=True)
    return library
