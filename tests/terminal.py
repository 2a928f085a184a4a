"""A command at a terminal where answers are typed."""

import os
import pty
import select
import subprocess
from collections.abc import Sequence
from pathlib import Path


def answered(command: Sequence[str], folder: Path, answers: Sequence[str], **environment: str) -> tuple[str, int]:
    """What it says where these are typed, one at each colon that it stops at, and its exit code."""
    terminal, theirs = pty.openpty()
    environment = {**os.environ, "PYTHONPATH": str(Path.cwd()), "TERM": "dumb", **environment}
    with subprocess.Popen(command, stdin=theirs, stdout=theirs, stderr=theirs, cwd=folder, env=environment) as process:
        os.close(theirs)
        said, asked = b"", 0
        while select.select([terminal], [], [], 60)[0]:
            try:
                said += os.read(terminal, 4096)
            except OSError:  # how a terminal tells that nobody has it open any more
                break
            if asked < len(answers) and said.rstrip(b" ").endswith(b":"):
                os.write(terminal, answers[asked].encode() + b"\n")
                said, asked = said + b" ", asked + 1
    os.close(terminal)
    return said.decode(), process.returncode
