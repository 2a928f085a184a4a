"""The database file of the buffer: made with its page size, vetted, and first connected to."""

from __future__ import annotations

import os
import sqlite3
from collections.abc import Callable
from pathlib import Path
from typing import Any

import diskcache

from agent.buffer.mapped import MappedIndex

DATABASE = "cache.db"
FILES = (DATABASE, DATABASE + "-wal", DATABASE + "-shm", DATABASE + "-journal")

PAGE_BYTES = 512
"""A commit writes whole pages: of 4096 bytes more than twice as much. Must be set before diskcache makes its tables; a
database of 0.1.0 keeps its 1024.
"""
SETTINGS: dict[str, int | str] = {
    "eviction_policy": "none",  # the default drops rows
    "cull_limit": 0,
    "size_limit": 2**62,
    "statistics": 0,  # else every read is a write
    "tag_index": 0,
    "sqlite_auto_vacuum": 0,
    "sqlite_cache_size": -2000,  # KiB; with the default, memory grows by 97 MB
    "sqlite_journal_mode": "wal",
    "sqlite_journal_size_limit": 2**20,
    "sqlite_mmap_size": 0,
    "sqlite_synchronous": 2,  # FULL: each commit is synced
    **dict.fromkeys(("count", "size", "hits", "misses"), 0),
}
_SCHEMA = {
    "Settings": "CREATE TABLE Settings ( key TEXT NOT NULL UNIQUE, value)",
    "sqlite_autoindex_Settings_1": None,
    "Cache": (
        "CREATE TABLE Cache ( rowid INTEGER PRIMARY KEY, key BLOB, raw INTEGER, store_time REAL, expire_time REAL,"
        " access_time REAL, access_count INTEGER DEFAULT 0, tag BLOB, size INTEGER DEFAULT 0, mode INTEGER DEFAULT 0,"
        " filename TEXT, value BLOB)"
    ),
    "Cache_key_raw": "CREATE UNIQUE INDEX Cache_key_raw ON Cache(key, raw)",
}
"""Word for word as diskcache makes it, also in 0.1.0: with one letter changed, rows go astray without an error."""
_UNUSED = {
    "Cache_expire_time": "INDEX",
    "Settings_count_insert": "TRIGGER",
    "Settings_count_delete": "TRIGGER",
    "Settings_size_insert": "TRIGGER",
    "Settings_size_update": "TRIGGER",
    "Settings_size_delete": "TRIGGER",
}
"""What diskcache keeps of the count and size of all rows, and of when they expire. Nobody asks, and none ever does: two
pages less a commit.
"""


class Rows(diskcache.Cache):  # type: ignore[misc] # untyped
    """diskcache without what is unused here, which it would make again at each opening."""

    @property
    def _sql_retry(self) -> Callable[..., Any]:
        run: Callable[..., Any] = super()._sql_retry

        def unless_unused(statement: str, *values: Any) -> Any:
            return None if any(f"EXISTS {name} " in statement for name in _UNUSED) else run(statement, *values)

        return unless_unused


def connect(path: Path, index: MappedIndex) -> sqlite3.Connection:
    """The first connection to a database, which is made where there is none. What is mapped is reserved before.

    Raises OSError and sqlite3.Error of the disk, and anything else for what is no buffer's database.
    """
    if not path.exists():  # closing it would end the locks of this process's other connections to it (fcntl(2))
        os.close(os.open(path, os.O_CREAT | os.O_RDWR | os.O_NOFOLLOW, 0o600))  # readable by its owner only
    index.reserve(give_up_ballast=True)
    connection = sqlite3.connect(path, isolation_level=None, timeout=60, check_same_thread=False)
    try:
        if not path.stat().st_size:  # new, or a full disk took no more than its name
            _create(connection)
        _vet(connection)
    except BaseException:
        connection.close()
        raise
    return connection


def _create(connection: sqlite3.Connection) -> None:
    """The database with its page size and its tables, before diskcache sees it."""
    connection.execute(f"PRAGMA page_size={PAGE_BYTES}")
    connection.execute("PRAGMA auto_vacuum=0")
    connection.execute("PRAGMA journal_mode=wal")
    connection.execute("BEGIN IMMEDIATE")
    for name, text in _SCHEMA.items():
        if text is not None:
            connection.execute(text.replace(name, f"IF NOT EXISTS {name}", 1))  # `buffer import` may begin it too
    connection.execute("COMMIT")


def _vet(connection: sqlite3.Connection) -> None:
    """Refuse a database of another make, and clear the settings of what diskcache would believe.

    A row named `volume` there replaces the method, `sqlite_…` runs as a PRAGMA, a count may be -7.
    """
    there = dict(connection.execute("SELECT name, sql FROM sqlite_master").fetchall())
    unused = sorted(there.keys() & _UNUSED.keys())  # made by 0.1.0
    if there.items() - _SCHEMA.items() != {(name, there[name]) for name in unused} or "Settings" not in there:
        raise ValueError(f"not a buffer: it has {sorted(map(str, there.items() ^ _SCHEMA.items()))[:3]}")
    for key, value in connection.execute("SELECT key, value FROM Settings").fetchall():
        if SETTINGS.get(key) != value:
            connection.execute("DELETE FROM Settings WHERE key = ?", (key,))
    for name in unused:
        connection.execute(f"DROP {_UNUSED[name]} IF EXISTS {name}")
