"""What an error of the disk means for the buffer."""

from __future__ import annotations

import errno
import os
import sqlite3
from pathlib import Path
from typing import Literal

import diskcache

from agent.buffer.database import FILES

Trouble = Literal["full", "readonly", "damaged", "locked", "unlinked", "io"]


class DiskError(Exception):
    """The disk refused. `trouble` says why; nothing was changed."""

    def __init__(self, trouble: Trouble, message: str) -> None:
        super().__init__(message)
        self.trouble: Trouble = trouble


_MEANING: dict[int, Trouble] = {
    sqlite3.SQLITE_FULL: "full",
    sqlite3.SQLITE_BUSY: "locked",
    sqlite3.SQLITE_LOCKED: "locked",
    sqlite3.SQLITE_READONLY: "readonly",
    sqlite3.SQLITE_PERM: "readonly",
    sqlite3.SQLITE_AUTH: "readonly",
    sqlite3.SQLITE_IOERR: "io",
    sqlite3.SQLITE_CANTOPEN: "io",
    sqlite3.SQLITE_NOMEM: "io",
    sqlite3.SQLITE_INTERRUPT: "io",
}
_ERRNO: dict[int | None, Trouble] = {
    errno.ENOSPC: "full",
    errno.EDQUOT: "full",
    errno.EROFS: "readonly",
    errno.EACCES: "readonly",
    errno.EPERM: "readonly",
}


def disk_error(error: BaseException, folder: Path | None = None) -> DiskError:
    """What an exception of sqlite3, diskcache or the system means. Words prove nothing: a damaged file can make SQLite
    say anything, also that it is read-only. What is not proven to be a full, read-only, locked or failing disk is
    damage.
    """
    if isinstance(error, DiskError):
        return error
    if isinstance(error, diskcache.Timeout) and error.__context__ is not None:  # it hides its cause
        return disk_error(error.__context__, folder)
    text = str(error) or type(error).__name__
    trouble: Trouble = "damaged"
    if isinstance(error, OSError):
        trouble = _ERRNO.get(error.errno, "io")
    elif isinstance(error, sqlite3.ProgrammingError | diskcache.Timeout | MemoryError):
        trouble = "io"  # a connection that was closed meanwhile
    elif isinstance(error, sqlite3.Error):
        code = getattr(error, "sqlite_errorcode", None) or sqlite3.SQLITE_CORRUPT
        if code != sqlite3.SQLITE_IOERR_SHORT_READ:  # the file is shorter than it says
            trouble = _MEANING.get(code & 0xFF, "damaged")
        if trouble == "readonly" and folder is not None and writable(folder):
            trouble = "damaged"
    return DiskError(trouble, text)


def writable(folder: Path) -> bool:
    """Whether the system lets us write the folder and all files of the database in it."""
    try:
        for path in (folder / name for name in FILES if (folder / name).exists()):
            if not os.access(path, os.R_OK | os.W_OK):  # opening and closing it would end SQLite's locks on it
                return False
        return os.access(folder, os.W_OK) and not os.statvfs(folder).f_flag & os.ST_RDONLY
    except OSError:
        return False
