"""SQLite's index of its log, the -shm file, which all connections map: reserved on the disk before it is mapped.

SQLite extends it by one byte in each 4096 (os_unix.c, unixShmMap). On blocks of 1 KiB that leaves three holes in four,
and touching a hole when no block is left is SIGBUS: the process ends. So the file is made whole before SQLite sees it.
"""

from __future__ import annotations

import contextlib
import errno
import fcntl
import os
import struct
import threading
from collections.abc import Iterator
from dataclasses import dataclass
from pathlib import Path

from agent.buffer import folder as folders

_REGION_BYTES = 32 * 1024
"""What SQLite begins with, and extends it by."""
RESERVED_BYTES = 8 * _REGION_BYTES
"""On small blocks: the index of a log of 16 MB, which is begun anew at 1 MB. They are allocated, not written."""
_HEADER_BYTES = 136
"""Both copies of the header and the state of the checkpoint (walformat.html, 2.1): zeros mean an index to be made."""
_IN_USE = 128
"""The byte that every connection holds a lock on (os_unix.c, UNIX_SHM_DMS): one that finds none truncates it."""
_STEP_BYTES = 4096
"""SQLite itself leaves no hole in blocks of this size or more."""


@dataclass(slots=True)
class _Open:
    """A file's one descriptor in this process: closing any would end all locks that SQLite has on it (fcntl(2))."""

    number: int
    users: int = 0


_open: dict[tuple[int, int], _Open] = {}
_guard = threading.Lock()


class MappedIndex:
    """The index of one database, for as long as somebody has connections to that. Thread-safe."""

    def __init__(self, database: Path) -> None:
        self._database = database
        self._path = database.with_name(f"{database.name}-shm")
        self._held: tuple[int, int] | None = None

    def reserve(self, *, give_up_ballast: bool = False) -> None:
        """To be called before connecting: makes the file, whole, unless it is in use, and keeps SQLite from truncating
        it. Raises OSError where the disk is full; what else is wrong with the file, SQLite will say.
        """
        try:
            self._reserve()
        except OSError:
            if not (give_up_ballast and folders.drop_ballast(self._path.parent)):
                raise
            self._reserve()

    def _reserve(self) -> None:
        with _guard:
            there = _identity(self._path)
            if there is not None and there == self._held:
                return
            self._let_go()
            if there is None or there not in _open:
                try:
                    there = _make(self._path, self._database.stat())
                except OSError as error:
                    if error.errno in (errno.ENOSPC, errno.EDQUOT):
                        raise OSError(error.errno, "the disk is full: no room for the index of the log") from error
                    return
            _open[there].users += 1
            self._held = there

    def let_go(self) -> None:
        """After the last connection is closed. Twice is fine."""
        with _guard:
            self._let_go()

    def _let_go(self) -> None:
        if self._held is None:
            return
        found = _open[self._held]
        found.users -= 1
        if not found.users:
            os.close(found.number)
            del _open[self._held]
        self._held = None


@contextlib.contextmanager
def reserved(database: Path) -> Iterator[None]:
    """For a connection inside. Gives up the ballast where it must; raises OSError where the disk is full even so."""
    index = MappedIndex(database)
    index.reserve(give_up_ballast=True)
    try:
        yield
    finally:
        index.let_go()


def _identity(path: Path) -> tuple[int, int] | None:
    with contextlib.suppress(OSError):
        found = path.lstat()
        return found.st_dev, found.st_ino
    return None


def _make(path: Path, like: os.stat_result) -> tuple[int, int]:
    """The file, whole, with owner and mode of the database, as SQLite makes it."""
    disk = os.statvfs(path.parent)
    size = RESERVED_BYTES if min(disk.f_bsize, disk.f_frsize) < _STEP_BYTES else _REGION_BYTES
    number = os.open(path, os.O_RDWR | os.O_CREAT | os.O_NOFOLLOW | os.O_CLOEXEC, like.st_mode & 0o777)
    try:
        if _lock(number, fcntl.F_WRLCK):  # nobody uses it: what is in it is a dead process's
            os.posix_fallocate(number, 0, size)
            os.pwrite(number, bytes(_HEADER_BYTES), 0)
            if os.geteuid() == 0:
                os.fchown(number, like.st_uid, like.st_gid)
    except OSError:
        os.close(number)
        raise
    _lock(number, fcntl.F_RDLCK)
    found = os.fstat(number)
    _open[found.st_dev, found.st_ino] = _Open(number)
    return found.st_dev, found.st_ino


def _lock(number: int, kind: int) -> bool:
    """Lock the byte by the open file, not the process: so SQLite's own look at it, from here too, finds it in use.

    False where others hold it, or where there are no such locks: then SQLite decides, as ever.
    """
    if not hasattr(fcntl, "F_OFD_SETLK"):
        return False
    with contextlib.suppress(OSError):
        fcntl.fcntl(number, fcntl.F_OFD_SETLK, struct.pack("hhqqi4x", kind, os.SEEK_SET, _IN_USE, 1, 0))
        return True
    return False
