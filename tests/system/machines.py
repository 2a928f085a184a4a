"""Whole machines for tests: a Debian folder made by mmdebstrap, the agent's wheels, and systemd-nspawn to boot it.

What takes long (Debian, the wheels of the dependencies) is made once and kept in the system's temporary folder.
"""

import contextlib
import fcntl
import hashlib
import itertools
import os
import shutil
import subprocess
import sys
import tempfile
import time
import zipfile
from pathlib import Path

import pytest

REPOSITORY = Path(__file__).parents[2]
SUITES = {(3, 11): "bookworm", (3, 13): "trixie"}
PACKAGES = "systemd,systemd-sysv,dbus,udev,python3,python3-venv,iproute2,procps,busybox-static"
MIRROR = "http://deb.debian.org/debian"  # without the security archive, which is sometimes caught in mid-change
CLEAN = {"PATH": "/usr/local/sbin:/usr/local/bin:/usr/sbin:/usr/bin:/sbin:/bin", "LANG": "C.UTF-8", "HOME": "/root"}
NUMBERS = itertools.count(1)
KEPT = Path(tempfile.gettempdir()) / f"iot-agent-machines-{os.getuid()}"


@contextlib.contextmanager
def once(name):
    """The path of what is kept under this name, and nobody else makes it meanwhile."""
    KEPT.mkdir(mode=0o755, exist_ok=True)
    with (KEPT / f"{name}.lock").open("w") as lock:
        fcntl.flock(lock, fcntl.LOCK_EX)
        yield KEPT / name


def call(*command, **options):
    return subprocess.run([str(part) for part in command], check=True, **options)


def suite():
    """The Debian whose Python the wheels of this Python fit."""
    found = SUITES.get(sys.version_info[:2])
    if found is None:
        pytest.skip(f"no Debian has Python {sys.version_info[0]}.{sys.version_info[1]}: run with 3.11 or 3.13")
    return found


def debian():
    """A tar file with a minimal Debian that has systemd and Python."""
    with once(f"{suite()}-{hashlib.sha256(PACKAGES.encode()).hexdigest()[:8]}.tar") as path:
        if not path.exists():
            new = path.with_suffix(".new.tar")
            quiet = ["--quiet", "--aptopt=Acquire::Languages none"]
            quiet += [f"--dpkgopt=path-exclude=/usr/share/{folder}/*" for folder in ("doc", "man", "locale", "info")]
            call("mmdebstrap", *quiet, "--variant=minbase", f"--include={PACKAGES}", suite(), new, MIRROR)
            new.rename(path)
        return path


def wheelhouse():
    """The wheels of the agent as it stands here and of all it depends on."""
    pip = [sys.executable, "-m", "pip", "wheel", "--quiet", "--disable-pip-version-check"]
    constraints = REPOSITORY / "constraints.txt"
    wanted = constraints.read_bytes() + (REPOSITORY / "pyproject.toml").read_bytes()
    key = f"wheels-{sys.version_info[1]}-{hashlib.sha256(wanted).hexdigest()[:12]}"
    with once(key) as path:
        if not path.exists():
            new = path.with_name(f"{key}.new")
            shutil.rmtree(new, ignore_errors=True)
            call(*pip, "--constraint", constraints, "--wheel-dir", new, REPOSITORY)
            shutil.copy(constraints, new)
            new.rename(path)
        else:  # the dependencies are the same; the agent may have changed
            wheel = next(path.glob("iot_edge_agent-*.whl"))
            refresh(wheel)
        return path


def refresh(wheel):
    """Put the packages as they stand here into a wheel that was built before."""
    rewrite(wheel, wheel, {})


def rewrite(old, new, changes, version=None):
    """A wheel with this tree's packages, with `changes` (name → content), as another `version`."""
    files = {}
    with zipfile.ZipFile(old) as source:
        files = {name: source.read(name) for name in source.namelist() if "dist-info/" in name}
    for package in ("agent", "drivers", "center"):
        for path in (REPOSITORY / package).rglob("*"):
            if path.is_file() and "__pycache__" not in path.parts:
                files[str(path.relative_to(REPOSITORY))] = path.read_bytes()
    files |= {path.name: path.read_bytes() for path in REPOSITORY.glob("*.py")}
    files |= {name: text.encode() for name, text in changes.items()}
    if version:
        before = old.name.split("-")[1]
        files["agent/__init__.py"] = files["agent/__init__.py"].replace(before.encode(), version.encode())
        files = {name.replace(f"-{before}.dist-info", f"-{version}.dist-info"): data for name, data in files.items()}
        metadata = f"iot_edge_agent-{version}.dist-info/METADATA"
        files[metadata] = files[metadata].replace(f"\nVersion: {before}".encode(), f"\nVersion: {version}".encode())
    record = next(name for name in files if name.endswith("/RECORD"))
    files[record] = "".join(f"{name},,\n" for name in files).encode()
    with zipfile.ZipFile(f"{new}.new", "w", zipfile.ZIP_DEFLATED) as target:
        for name, data in files.items():
            target.writestr(name, data)
    Path(f"{new}.new").replace(new)


def newer(folder, version, **changes):
    """A wheelhouse in `folder` with the agent as `version`, changed (module of agent → text)."""
    folder.mkdir()
    for path in wheelhouse().iterdir():
        if not path.name.startswith("iot_edge_agent"):
            shutil.copy(path, folder)
    old = next(wheelhouse().glob("iot_edge_agent-*.whl"))
    files = {f"agent/{module}.py": text for module, text in changes.items()}
    rewrite(old, folder / f"iot_edge_agent-{version}-py3-none-any.whl", files, version)
    return folder


class Machine:
    """A Debian booted by systemd-nspawn without a network but loopback. The repository is /src, wheels /wheelhouse."""

    def __init__(self, folder, **binds):
        self.folder, self.root = folder, folder / "root"
        self.binds = {"/src": REPOSITORY, "/wheelhouse": wheelhouse(), **binds}
        self.root.mkdir(parents=True)
        call("tar", "-C", self.root, "--exclude=./dev/*", "-xf", debian())
        self.name = f"iot-agent-test-{os.getpid()}-{next(NUMBERS)}"
        self.process = self.leader = None

    def chroot(self, *command):
        """Run a program in it without booting, as who builds an image does."""
        call("systemd-nspawn", "--quiet", "-D", self.root, *self._options(), "--", *command, env=self._environment())

    def _options(self):
        binds = [f"--bind-ro={outside}:{inside}" for inside, outside in self.binds.items()]
        return [f"--machine={self.name}", "--register=no", "--keep-unit", "--private-network", *binds]

    def _environment(self):
        return {**os.environ, "SYSTEMD_NSPAWN_UNIFIED_HIERARCHY": "1"}

    def boot(self):
        with (self.folder / "console").open("ab") as console:
            self.process = subprocess.Popen(
                ["systemd-nspawn", "--quiet", "-b", "-D", str(self.root), *self._options()],
                stdin=subprocess.DEVNULL,
                stdout=console,
                stderr=console,
                env=self._environment(),
            )
        children = Path(f"/proc/{self.process.pid}/task/{self.process.pid}/children")

        def up():
            self.leader = (children.read_text().split() or ["0"])[0]  # the first ones are not yet the machine's
            return self.run("systemctl", "is-system-running", check=False).strip() in ("running", "degraded")

        wait_for(up, 120)

    def command(self, *command):
        return ["nsenter", "--target", self.leader, "--all", "--", *map(str, command)]

    def run(self, *command, check=True, seconds=120):
        """Its output and errors."""
        done = subprocess.run(
            self.command(*command),
            stdout=subprocess.PIPE,
            stderr=subprocess.STDOUT,
            text=True,
            timeout=seconds,
            check=False,
            env=CLEAN,
        )
        assert not check or done.returncode == 0, done.stdout
        self.code = done.returncode
        return done.stdout

    def show(self, key):
        return self.run("systemctl", "show", "-P", key, "iot-agent").strip()

    def off(self):
        """Without a word to anybody in it."""
        if self.process and self.process.poll() is None:
            os.kill(int(self.leader), 9)
            self.process.wait(30)

    def __enter__(self):
        return self

    def __exit__(self, *_):
        self.off()
        shutil.rmtree(self.root, ignore_errors=True)


def wait_for(condition, seconds):
    deadline = time.monotonic() + seconds
    while True:
        with contextlib.suppress(FileNotFoundError):
            if found := condition():
                return found
        assert time.monotonic() < deadline, f"it did not happen within {seconds} s"
        time.sleep(0.2)
