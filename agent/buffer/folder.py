"""The buffer's folder: made, locked, kept from filling up, and cleared of what is damaged."""

from __future__ import annotations

import contextlib
import fcntl
import os
from collections.abc import Iterable, Sequence
from pathlib import Path

from agent.util import atomic
from agent.util.errors import EXIT_ALREADY_RUNNING, AgentError

DAMAGED = "damaged"
BALLAST = "ballast"
BALLAST_BYTES = 512 * 1024
"""Given up when the disk is full: also removing rows needs room, for the write-ahead log."""
UNREAD = "unread"
"""Marks a damaged set that nothing was read from yet; so does the next start, should this one be interrupted."""
KEPT_SETS = 3
"""Damaged sets of files that are kept, the newest."""


class AlreadyRunning(AgentError):  # noqa: N818 - says what is the case
    """Another agent holds the folder."""

    exit_code = EXIT_ALREADY_RUNNING

    def __init__(self, folder: Path, holder: str) -> None:
        super().__init__(
            f"{folder} is in use by {holder}: stop that agent first, or give this one another state folder"
        )


def sync_folder(folder: Path) -> None:
    """Make the entries of a folder durable, where its file system can."""
    with contextlib.suppress(OSError):
        atomic.sync_folder(folder)


def make(folder: Path) -> None:
    """The folder, for its owner only, synced together with its parent. A file in its place is set aside, and what a
    stranger put there.

    Raises OSError where it cannot be made, ValueError for a path that diskcache would not take as it is.
    """
    if os.path.expandvars(os.path.expanduser(str(folder))) != str(folder):  # noqa: PTH111 - what diskcache does
        raise ValueError(f"{folder}: the path of the buffer must not contain $NAME or begin with ~")
    there = os.path.lexists(folder)
    if there and (not folder.is_dir() or atomic.is_strangers(folder.lstat(), folder.parent)):
        folder.rename(_free(folder.with_name(f"{folder.name}.{DAMAGED}")))
    if not folder.is_dir():
        if not folder.parent.exists():  # a full disk may have had no room for it
            folder.parent.mkdir(parents=True, mode=0o700)
        folder.mkdir(mode=0o700)
    with contextlib.suppress(PermissionError):
        if folder.stat().st_mode & 0o077:
            folder.chmod(0o700)
    sync_folder(folder)
    sync_folder(folder.parent)


def _free(path: Path) -> Path:
    """The path, or the first numbered one that is not taken."""
    candidate, number = path, 1
    while candidate.exists() or candidate.is_symlink():
        number += 1
        candidate = path.with_name(f"{path.name}-{number}")
    return candidate


def lock(folder: Path) -> int | None:
    """Hold the folder against a second agent, until the returned descriptor is closed.

    None where the file system knows no locks. Raises AlreadyRunning. The folder itself is locked: there is no lock
    file to be damaged or left behind.
    """
    number = os.open(folder, os.O_RDONLY | os.O_DIRECTORY)
    try:
        fcntl.flock(number, fcntl.LOCK_EX | fcntl.LOCK_NB)
    except BlockingIOError:
        os.close(number)
        raise AlreadyRunning(folder, holder(folder)) from None
    except OSError:
        os.close(number)
        return None
    return number


class Hold:
    """The lock on the folder, also on one that was made anew in the place of a deleted one."""

    def __init__(self, folder: Path) -> None:
        self._folder = folder
        self._number: int | None = None

    def take(self) -> None:
        """Hold the folder as it stands there now, unless it is held. Raises AlreadyRunning, and OSError without one."""
        if self._number is not None:
            held, there = os.fstat(self._number), self._folder.stat()
            if (held.st_dev, held.st_ino) == (there.st_dev, there.st_ino):
                return
        number = lock(self._folder)
        self.release()
        self._number = number

    def release(self) -> None:
        """Twice is fine."""
        if self._number is not None:
            os.close(self._number)
            self._number = None


def holder(folder: Path) -> str:
    """Who holds the lock, as /proc/locks tells: `process 123 (iot-agent run)`."""
    try:
        inode = folder.stat().st_ino
        for line in Path("/proc/locks").read_text(encoding="ascii").splitlines():
            fields = line.split()
            if "FLOCK" in fields and fields[-3].endswith(f":{inode}"):
                words = Path(f"/proc/{fields[-4]}/cmdline").read_bytes().replace(b"\0", b" ").decode(errors="replace")
                return f"process {fields[-4]} ({words.strip()[:200]})"
    except (OSError, IndexError):
        pass
    return "another process"


def fill_ballast(folder: Path) -> None:
    """Put the ballast in place when there is ample room. Nothing happens when there is not."""
    path = folder / BALLAST
    with contextlib.suppress(OSError):
        if path.is_file() and path.stat().st_size == BALLAST_BYTES:
            return
        free = os.statvfs(folder)
        if free.f_bavail * free.f_frsize < 4 * BALLAST_BYTES:
            return
        atomic.remove(path)
        path.write_bytes(os.urandom(4096) * (BALLAST_BYTES // 4096))
        path.chmod(0o600)


def drop_ballast(folder: Path) -> bool:
    """Give the ballast's room back. True if there was any."""
    with contextlib.suppress(OSError):
        (folder / BALLAST).unlink()
        return True
    return False


def set_aside(folder: Path, names: Sequence[str], limit: int) -> Path | None:
    """Move the named files of the folder into a folder of their own below `damaged`, together: where the first of them
    went there before a power cut, the others follow it.

    Of what was set aside before, at most KEPT_SETS sets and `limit` bytes remain with this one, the newest. None if
    none of the files is there. Raises OSError.
    """
    present = [folder / name for name in names if os.path.lexists(folder / name)]
    if not present:
        return None
    home = folder / DAMAGED
    if not home.is_dir() and os.path.lexists(home):
        home.unlink()
    home.mkdir(mode=0o700, exist_ok=True)
    sets = damaged_sets(folder)
    if not (sets and present[0].name != names[0] and _is_begun(sets[-1], names[0], present)):
        sets.append(home / str(1 + (int(sets[-1].name) if sets else 0)))
        sets[-1].mkdir(mode=0o700)
        (sets[-1] / UNREAD).touch()  # before there is anything to read: a power cut may come between any two of these
        sync_folder(sets[-1])
    target = sets[-1]
    for path in present:
        plain = path.is_file() and not path.is_symlink()
        moved = target / (path.name if plain else f"{path.name}.no-file")  # reading a pipe would wait for ever
        path.rename(moved)
        if plain:
            with contextlib.suppress(OSError):
                moved.chmod(0o600)  # what it was may be the damage
    for changed in (target, home, folder):
        sync_folder(changed)
    bound(folder, limit)
    return target


def _is_begun(home: Path, first: str, present: Iterable[Path]) -> bool:
    """Whether a set has the first of its files, and none of these."""
    there = (home / UNREAD).exists() and (home / first).exists()
    return there and not any(os.path.lexists(home / path.name) for path in present)


def unread_sets(folder: Path) -> list[Path]:
    """What was set aside and not read yet, oldest first."""
    return [home for home in damaged_sets(folder) if (home / UNREAD).exists()]


def mark_read(home: Path) -> None:
    """For good: read again after its points were delivered, they would count twice."""
    (home / UNREAD).unlink(missing_ok=True)
    sync_folder(home)


def bound(folder: Path, limit: int) -> None:
    """Remove the oldest damaged sets until at most KEPT_SETS and `limit` bytes remain; not the newest, nor what is not
    read yet.
    """
    sets = damaged_sets(folder)
    sizes = {s: sum(p.stat().st_size for p in s.rglob("*") if p.is_file()) for s in sets}
    for old in sets[:-1]:
        if (len(sizes) > KEPT_SETS or sum(sizes.values()) > limit) and not (old / UNREAD).exists():
            atomic.remove(old)
            del sizes[old]


def damaged_sets(folder: Path) -> list[Path]:
    """What was set aside, oldest first."""
    try:
        return sorted((p for p in (folder / DAMAGED).iterdir() if p.name.isdigit()), key=lambda p: int(p.name))
    except OSError:
        return []


def keep_row(folder: Path, key: int, data: bytes, limit: int = 4_000_000) -> None:
    """Keep what stood in an unreadable row, as a file below `damaged`, unless those files hold `limit` bytes."""
    with contextlib.suppress(OSError):
        home = folder / DAMAGED
        home.mkdir(mode=0o700, exist_ok=True)
        if sum(p.stat().st_size for p in home.glob("row-*")) + len(data) <= limit:
            (home / f"row-{key}").write_bytes(data)
