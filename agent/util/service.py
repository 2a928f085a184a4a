"""Where a program of ours is, or becomes, a systemd service: its unit, its user, and the files that user must read."""

from __future__ import annotations

import contextlib
import os
import pwd
import shutil
import subprocess
import sys
import time
from collections.abc import Iterator
from pathlib import Path

from agent.util.atomic import write_atomic
from agent.util.errors import AgentError

UNITS = Path("/etc/systemd/system")
PACKAGED = Path("/usr/lib/systemd/system")
HIDDEN = (Path("/home"), Path("/root"), Path("/run/user"))
"""What ProtectHome=yes of the units hides from them."""


def program(name: str) -> Path:
    """The command of this Python."""
    return Path(sys.executable).with_name(name)


def fit(unit: str, name: str) -> str:
    """A unit for the program that runs here: the paths of the Debian package become those of this Python."""
    lines = []
    for line in unit.splitlines():
        if line.startswith("ExecStartPre=") and not Path(line.partition("+")[2].split()[0]).exists():
            continue  # what only the Debian package brings
        lines.append(line.replace(f"/opt/{name}/bin/{name}", str(program(name))))
    return "\n".join(lines) + "\n"


def install(unit: str, name: str, groups: tuple[str, ...] = ()) -> str:
    """Put a unit into its place and switch it on, with a user of the same name. Returns what was done.

    Raises AgentError where that cannot be.
    """
    for python in (Path(sys.executable), Path(sys.executable).resolve(), Path(sys.base_prefix)):
        if home := next((folder for folder in HIDDEN if python.is_relative_to(folder)), None):
            raise AgentError(
                f"{python} lies below {home}, which the service's sandbox hides: install into a folder such as "
                f"/opt/{name} (/usr/bin/python3 -m venv /opt/{name}, then its bin/pip), and call its {name} "
                "install-service"
            )
    if not program(name).exists():
        raise AgentError(
            f"there is no {program(name)} beside this Python: install into a folder such as /opt/{name} "
            f"(python3 -m venv /opt/{name}, then its bin/pip), and call its {name} install-service"
        )
    if (PACKAGED / f"{name}.service").exists():
        raise AgentError(f"the Debian package brings {name}.service: systemctl enable --now {name}")
    if os.geteuid() != 0:
        raise AgentError(f"needs root: sudo {program(name)} install-service")
    for group in (name, *groups):
        _call("groupadd", "--system", "--force", group)
    if user_of(name) is None:
        others = ("--groups", ",".join(groups)) if groups else ()
        home_options = ("--home-dir", f"/var/lib/{name}", "--no-create-home", "--shell", "/usr/sbin/nologin")
        _call("useradd", "--system", "--gid", name, *others, *home_options, name)
    _call("install", "-d", f"/etc/{name}")  # where init looks for it
    _call("install", "-d", "-m", "700", "-o", name, "-g", name, f"/var/lib/{name}")
    file = UNITS / f"{name}.service"
    try:
        write_atomic(file, fit(unit, name).encode(), 0o644)
    except OSError as error:
        raise AgentError(f"{file} cannot be written: {error.strerror}") from error
    if runs():
        _call("systemctl", "daemon-reload")
    _call("systemctl", "enable", "--quiet", f"{name}.service")
    return (
        f"{file} is written and enabled: it starts at boot, as the user {name}\n"
        f"next: sudo {program(name)} init, which starts it"
    )


def runs() -> bool:
    """Whether systemd runs this machine."""
    return Path("/run/systemd/system").is_dir()


def user_of(name: str) -> pwd.struct_passwd | None:
    try:
        return pwd.getpwnam(name)
    except KeyError:
        return None


@contextlib.contextmanager
def acting_as(name: str) -> Iterator[None]:
    """For root whom the packaged command let keep its rights: meanwhile with those of the service's user. Files of
    root in the service's folder would lock it out.
    """
    user = user_of(name)
    if os.geteuid() != 0 or user is None or os.environ.get("STATE_DIRECTORY") != f"/var/lib/{name}":
        yield
        return
    groups = os.getgroups()
    os.initgroups(name, user.pw_gid)
    os.setegid(user.pw_gid)
    os.seteuid(user.pw_uid)
    try:
        yield
    finally:
        os.seteuid(0)
        os.setegid(0)
        os.setgroups(groups)


def is_installed(name: str) -> bool:
    """Whether there is a unit of this name."""
    return any((folder / f"{name}.service").exists() for folder in (UNITS, PACKAGED))


def restart(name: str) -> None:
    """Start it, or again; AgentError with systemd's words where it does not run two seconds later."""
    _call("systemctl", "enable", "--quiet", f"{name}.service")
    _call("systemctl", "restart", f"{name}.service")
    time.sleep(2)  # and still there
    try:
        _call("systemctl", "is-active", f"{name}.service")
    except AgentError as error:
        raise AgentError(f"{name}.service does not run: journalctl -u {name} says why") from error


def write_private(path: Path, text: str, name: str) -> None:
    """A file that only its owner reads, and in /etc/NAME the service's group, too. Raises AgentError."""
    user = user_of(name)
    shared = user is not None and os.geteuid() == 0 and path.resolve().is_relative_to(f"/etc/{name}")
    try:
        path.parent.mkdir(parents=True, exist_ok=True)
        if shared and user is not None:
            write_atomic(path, text.encode(), 0o640, (0, user.pw_gid))
        else:
            write_atomic(path, text.encode())
    except OSError as error:
        why = f"{path} cannot be written ({error.strerror})"
        raise AgentError(f"{why}: name another by --config, or use sudo") from error


def _call(*command: str) -> None:
    program = shutil.which(command[0], path=f"{os.environ.get('PATH', '')}:/usr/sbin:/sbin")
    if program is None:
        raise AgentError(f"there is no {command[0]} on this machine")
    done = subprocess.run([program, *command[1:]], capture_output=True, text=True, check=False)  # noqa: S603
    if done.returncode:
        raise AgentError(f"{' '.join(command)}: {done.stderr.strip() or f'it ended with {done.returncode}'}")
