"""The disk under the buffer: a diskcache on one SQLite file, made so that a row that was committed stays committed.

Each setting and rule here avoids a trap that was met or read in diskcache 5.6.3: tests/buffer/test_store.py has them.
"""

from __future__ import annotations

import contextlib
import os
import sqlite3
import threading
import time
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path
from typing import Any, NamedTuple

import diskcache

from agent.buffer import database
from agent.buffer import folder as folders
from agent.buffer.database import DATABASE, FILES
from agent.buffer.disk_error import DiskError, disk_error, writable
from agent.buffer.mapped import MappedIndex

_SCAN_ROWS = 500


MODE_RAW = 1
"""diskcache's mode of a value that stands in the database as it is."""


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


class Found(NamedTuple):
    """A row as a scan finds it: everything but the value."""

    key: int
    tag: object
    size: int


class Store:
    """An open buffer on disk. `owner`: the agent itself, which holds the folder; else a command beside it.

    Writes go through transaction() and one thread at a time; close() it in each thread that wrote. Reads have a
    connection of their own, guarded by a lock. Every method raises DiskError.
    """

    def __init__(self, folder: Path, *, owner: bool = True, read_only: bool = False, immutable: bool = False) -> None:
        """`immutable`: read without changing a byte in the folder; what stands in the log alone is not seen then."""
        self.folder = folder
        self.read_only = read_only or immutable
        self._modes = ("immutable=1",) if immutable else ("mode=ro", "immutable=1") if read_only else ("mode=ro",)
        self._read_lock = threading.Lock()
        self._closed = False
        self._reader: sqlite3.Connection | None = None
        self._cache: Any = None
        self._keeper: sqlite3.Connection | None = None
        """Open as long as the store is: the last connection to close takes the log's index with it."""
        self._index = MappedIndex(folder / DATABASE)
        if self.read_only:
            return
        try:
            self._keeper = database.connect(folder / DATABASE, self._index)
            # Each setting is stored, one sync apiece: on a slow card seconds, so the syncs begin after the opening. A
            # second process must not do that, as the agent's next connection would take it over.
            settings = database.SETTINGS | ({"sqlite_synchronous": 1} if owner else {})
            self._cache = database.Rows.__new__(database.Rows)  # so that it can be closed if opening fails
            self._cache.__init__(str(folder), timeout=5, disk=RowDisk, **settings)
            self._cache.reset("sqlite_synchronous", 2)
            if owner:
                self._keeper.execute("PRAGMA wal_checkpoint(PASSIVE)")  # so that the database is one without its log
            self._identity = self._stat()
            folders.sync_folder(folder)
        except Exception as error:  # what stands in the file is unchecked input
            self.close()
            raise disk_error(error, folder) from error

    def _stat(self) -> list[tuple[int, int] | None]:
        """Which files stand there."""
        found: list[tuple[int, int] | None] = []
        for name in FILES[:3]:
            try:
                status = os.stat(self.folder / name)  # noqa: PTH116 - twice as fast, and called with every commit
                found.append((status.st_dev, status.st_ino))
            except FileNotFoundError:
                found.append(None)
        return found

    def _check_identity(self) -> None:
        """A deleted file goes on taking rows, and all are lost in the end."""
        if self._stat() != self._identity:
            raise DiskError("unlinked", "the database, its log or the index of that was deleted under the agent")

    @contextmanager
    def transaction(self) -> Iterator[None]:
        """All or nothing, synced at the end. After an error the connection is given up: a failed COMMIT or ROLLBACK
        would leave it inside a transaction for ever.
        """
        if self.read_only:
            raise DiskError("readonly", "the disk can only be read")
        try:
            self._check_identity()
            self._cache.reset("sqlite_synchronous", 2, update=False)
            with self._cache.transact(retry=False):
                yield
        except (DiskError, sqlite3.Error, OSError, diskcache.Timeout) as error:
            self.release()
            raise disk_error(error, self.folder) from error
        except BaseException:
            self.release()
            raise

    @contextmanager
    def _using(self) -> Iterator[Any]:
        """The cache, inside a transaction: whatever it raises was caused by what stands in the file, or by the disk."""
        try:
            yield self._cache
        except Exception as error:
            raise disk_error(error, self.folder) from error

    def put(self, key: int | str, value: bytes, tag: bytes | None = None) -> None:
        """Store a row; inside a transaction."""
        if type(value) is not bytes:
            raise TypeError(f"a value is bytes, not {type(value).__name__}")
        with self._using() as cache:
            cache.set(key, value, tag=tag, retry=False)  # c[k] = v would retry for ever

    def delete(self, key: int | str) -> None:
        with self._using() as cache:
            cache.delete(key, retry=False)

    def get(self, key: int | str) -> bytes | None:
        """The value of a row as the transaction sees it."""
        with self._using() as cache:
            value = cache.get(key, retry=False)  # ValueError: a pickle, or a file
        return value if isinstance(value, bytes) else None

    def _connect(self) -> sqlite3.Connection:
        """A connection that reads. On a read-only disk SQLite cannot read the log if its index is not there: then what
        is in the database file alone. Elsewhere that file may be half of a checkpoint, which is none without its log.
        """
        for mode in self._modes[:-1]:
            try:
                return self._connected(mode)
            except (sqlite3.Error, OSError):
                if self._logged() and writable(self.folder):
                    raise
        return self._connected(self._modes[-1])

    def _connected(self, mode: str) -> sqlite3.Connection:
        if self.read_only and mode == "mode=ro":
            self._index.reserve()
        uri = (self.folder / DATABASE).absolute().as_uri() + "?" + mode
        connection = sqlite3.connect(uri, uri=True, timeout=5, isolation_level=None, check_same_thread=False)
        try:
            connection.execute("PRAGMA cache_size=-500")
            connection.execute("SELECT key FROM Cache LIMIT 1").fetchall()
        except BaseException:
            connection.close()
            raise
        return connection

    def _logged(self) -> bool:
        log = self.folder / f"{DATABASE}-wal"
        return log.exists() and log.stat().st_size > 0

    @contextmanager
    def _reading(self) -> Iterator[sqlite3.Connection]:
        try:
            with self._read_lock:
                if self._closed:
                    raise DiskError("io", "the buffer's disk is closed")  # noqa: TRY301
                if self._reader is None:
                    self._reader = self._connect()
                yield self._reader
        except Exception as error:
            self._close_reader()
            raise disk_error(error, self.folder) from error

    def find(self, key: int | str) -> tuple[object, object] | None:
        """Tag and value of a row, as last committed. Rows that name a file or a pickle are as good as damaged."""
        with self._reading() as reader:
            rows = reader.execute(
                "SELECT tag, value, mode, filename FROM Cache WHERE key = ? AND raw = 1", (key,)
            ).fetchall()
        if not rows:
            return None
        tag, value, mode, filename = rows[0]
        return (tag, value) if mode == MODE_RAW and filename is None else (tag, None)

    def read(self, key: int) -> tuple[object, object]:
        """The same of a row that must be there: where it is not found, the index that leads to it is damaged."""
        found = self.find(key)
        if found is None:
            raise DiskError("damaged", f"row {key} is not found any more")
        return found

    def read_named(self, key: str) -> object:
        """The value of a row with a name; None where there is none, or a damaged one."""
        found = self.find(key)
        return None if found is None else found[1]

    def scan(self, after: int = 0, before: int = 2**63 - 1) -> Iterator[Found]:
        """The rows with after < key < before, by rising key, values unread, in short queries."""
        while True:
            with self._reading() as reader:  # an open cursor would keep the log from being reused
                rows = reader.execute(
                    "SELECT key, tag, length(value) FROM Cache"
                    " WHERE key > ? AND key < ? AND raw = 1 ORDER BY key LIMIT ?",
                    (after, before, _SCAN_ROWS),
                ).fetchall()
            for key, tag, size in rows:
                if type(key) is int:
                    yield Found(key, tag, size if type(size) is int else 0)
            if len(rows) < _SCAN_ROWS:
                return
            after = rows[-1][0]

    def version(self) -> int:
        """Changes when any connection but the reader's commits."""
        with self._reading() as reader:
            return int(reader.execute("PRAGMA data_version").fetchone()[0])

    def usage(self) -> tuple[int, int]:
        """Bytes in use, and bytes of the file, which never shrinks but is filled again."""
        with self._reading() as reader:
            size, pages, free = (
                int(reader.execute(f"PRAGMA {name}").fetchone()[0])
                for name in ("page_size", "page_count", "freelist_count")
            )
        return size * (pages - free), size * pages

    def sound(self, seconds: float | None = None) -> str | None:
        """What `PRAGMA quick_check` finds, on a connection of its own; None when all is well, or was until so many
        seconds were over: it takes some for 100 MB.
        """
        until = None if seconds is None else time.monotonic() + seconds
        try:
            with contextlib.closing(self._connect()) as connection:
                if until is not None:
                    connection.set_progress_handler(lambda: time.monotonic() > until, 10_000)
                found = str(connection.execute("PRAGMA quick_check(1)").fetchone()[0])
        except Exception as error:  # noqa: BLE001 - a check that fails is a finding
            problem = disk_error(error)
            return str(problem) if problem.trouble == "damaged" else None
        return None if found == "ok" else found

    def _close_reader(self) -> None:
        if self._reader is not None:
            with contextlib.suppress(Exception):
                self._reader.close()
            self._reader = None

    def release(self) -> None:
        """Close the connection that this thread writes with."""
        with contextlib.suppress(Exception):
            self._cache.close()

    def close(self) -> None:
        """Close this thread's connection and the reader."""
        with self._read_lock:
            self._closed = True
            self._close_reader()
        self.release()
        if self._keeper is not None:
            with contextlib.suppress(Exception):
                self._keeper.close()
            self._keeper = None
        self._index.let_go()
