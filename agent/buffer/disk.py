"""What stands between diskcache and its values, and what an error of the disk means."""

from __future__ import annotations

import sqlite3
from typing import Any, Literal

import diskcache

MODE_RAW = 1
"""diskcache's mode of a value that stands in the database as it is."""

Trouble = Literal["full", "readonly", "damaged", "locked", "unlinked", "io"]


class DiskError(Exception):
    """The disk refused. `trouble` says why; nothing was changed."""

    def __init__(self, trouble: Trouble, message: str) -> None:
        super().__init__(message)
        self.trouble: Trouble = trouble


def disk_error(error: BaseException) -> DiskError:
    """What an exception of sqlite3, diskcache or the system means. diskcache's Timeout hides its cause."""
    text = str(error) or str(error.__context__ or "") or type(error).__name__
    low = ((error.strerror if isinstance(error, OSError) else None) or text).lower()  # not a path's words
    trouble: Trouble = "io"
    if isinstance(error, DiskError):
        return error
    if "full" in low or "no space" in low or "quota" in low:
        trouble = "full"
    elif "readonly" in low or "read-only" in low or isinstance(error, PermissionError):
        trouble = "readonly"
    elif "locked" in low:
        trouble = "locked"
    elif isinstance(error, sqlite3.ProgrammingError):
        pass  # a connection that was closed meanwhile
    elif (
        not isinstance(error, sqlite3.OperationalError | OSError | diskcache.Timeout)
        or "malformed" in low
        or "no such table" in low
        or "no such column" in low
    ):
        trouble = "damaged"
    return DiskError(trouble, text)


class RowDisk(diskcache.Disk):  # type: ignore[misc] # untyped
    """Takes and gives bytes only: no pickle is ever stored or loaded, no file outside the database touched."""

    def put(self, key: Any) -> tuple[Any, bool]:
        if type(key) not in (bytes, str, int, float):
            raise TypeError(f"a key is bytes, str, int or float, not {type(key).__name__}")
        raw: tuple[Any, bool] = super().put(key)
        if not raw[1]:
            raise ValueError("this key would be pickled")
        return raw

    def get(self, key: Any, raw: Any) -> Any:
        if not raw:
            raise ValueError("a pickled key is not loaded")
        return super().get(key, raw)

    def store(self, value: Any, read: bool, key: Any = None) -> tuple[int, int, None, Any]:
        del key
        if type(value) is not bytes or read:
            raise TypeError(f"a value is bytes, not {type(value).__name__}")
        return 0, MODE_RAW, None, sqlite3.Binary(value)

    def fetch(self, mode: Any, filename: Any, value: Any, read: bool) -> bytes:
        if mode != MODE_RAW or filename is not None or read or not isinstance(value, bytes):
            raise ValueError("neither pickles nor files are read")
        return value

    def remove(self, file_path: Any) -> None:
        """Nothing: no row has a file, whatever its file name column says."""
