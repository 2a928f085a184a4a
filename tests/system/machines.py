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
    """The wheels of all that the agent depends on, and of an agent: the package takes its code from the checkout."""
    constraints = REPOSITORY / "constraints.txt"
    wanted = constraints.read_bytes() + (REPOSITORY / "pyproject.toml").read_bytes()
    key = f"wheelhouse-{sys.version_info[1]}-{hashlib.sha256(wanted).hexdigest()[:12]}"
    with once(key) as path:
        if not path.exists():
            new = path.with_name(f"{key}.new")
            shutil.rmtree(new, ignore_errors=True)
            pip = [sys.executable, "-m", "pip", "wheel", "--quiet", "--disable-pip-version-check", "--use-pep517"]
            call(*pip, "--constraint", constraints, "--wheel-dir", new, f"{REPOSITORY}[sensors,mqtt]")
            new.rename(path)
        shutil.copy(constraints, path)  # as make wheelhouse does
        return path


def checkout(folder, version, **changes):
    """A copy of this one as `version`, changed (module of agent → text)."""
    for name in ("agent", "drivers", "center", "deploy"):
        shutil.copytree(REPOSITORY / name, folder / name, ignore=shutil.ignore_patterns("__pycache__"))
    for path in (
        *REPOSITORY.glob("*.py"),
        *(REPOSITORY / name for name in ("constraints.txt", "LICENSE", "CHANGELOG.md")),
    ):
        shutil.copy(path, folder)
    for module, text in {"__init__": f'__version__ = "{version}"\n', **changes}.items():
        (folder / "agent" / f"{module}.py").write_text(text)
    return folder


def package(folder, source=REPOSITORY):
    """The Debian package of a checkout, for this Python alone, in `folder`."""
    stage = folder / "stage"
    site = stage / "opt/iot-agent/lib" / f"python3.{sys.version_info[1]}" / "site-packages"
    pip = [sys.executable, "-m", "pip", "install", "--quiet", "--disable-pip-version-check", "--no-compile"]
    call(*pip, "--no-index", "--find-links", wheelhouse(), "--target", site, "iot-edge-agent[sensors,mqtt]")
    shutil.rmtree(site / "bin")
    architecture = subprocess.run(["dpkg", "--print-architecture"], capture_output=True, text=True, check=True).stdout
    call(source / "deploy/debian/package", "iot-agent", architecture.strip(), stage, folder, "-Znone")
    return next(folder.glob("*.deb"))


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
