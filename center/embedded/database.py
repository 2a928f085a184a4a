"""One SQLite file: one writing thread that commits what waits together, and a reading connection for each thread.

synchronous=FULL, so what run() returned from is on the disk. Requests that arrive while the disk syncs share the next
sync: many devices can write at once. Another process may use the file at the same time (`iot-center enroll`).
"""

from __future__ import annotations

import contextlib
import logging
import os
import queue
import sqlite3
import threading
import time
from collections.abc import Callable, Iterator, Mapping
from concurrent.futures import Future
from math import inf
from pathlib import Path
from sqlite3 import SQLITE_BUSY, SQLITE_CANTOPEN, SQLITE_CORRUPT, SQLITE_FULL, SQLITE_IOERR, SQLITE_NOTADB
from typing import Any, TypeVar

from center.errors import StoreError
from center.faults import Faults

T = TypeVar("T")
Job = Callable[[sqlite3.Connection], Any]
IdleJob = Callable[[sqlite3.Connection], Exception | None]

log = logging.getLogger(__name__)
MAX_JOBS = 256
BUSY_TIMEOUT_S = 30
IDLE_EVERY_S = 30.0
READ_S = 10.0  # of the processor, for all that is read at one moment
STEPS = 20_000  # of SQLite's machine, between two looks at the time
# What is wrong with the file or its disk, and not with what was asked.
OF_THE_FILE = {SQLITE_BUSY, SQLITE_CANTOPEN, SQLITE_CORRUPT, SQLITE_FULL, SQLITE_IOERR, SQLITE_NOTADB}


class Database:
    """Opens (and creates) the file. `run` writes, `read` gives this thread's connection; close() twice is fine.

    `gone`: whether whoever asked, in the calling thread, does not wait any more.
    """

    def __init__(self, path: Path, schema: str, gone: Callable[[], bool] = lambda: False) -> None:
        self.path = path
        try:
            path.parent.mkdir(mode=0o700, parents=True, exist_ok=True)
        except (FileExistsError, NotADirectoryError):
            raise StoreError(
                f"{path.parent} cannot be a folder, a file is in its place: name another by --data"
            ) from None
        with contextlib.suppress(FileExistsError):
            os.close(os.open(path, os.O_CREAT | os.O_EXCL | os.O_RDWR, 0o600))
        self._gone = gone
        self._faults = Faults()
        self._reset: list[Callable[[], None]] = []
        self._idle: list[tuple[str, IdleJob]] = []
        self._failing: dict[str, tuple[str, int]] = {}
        self._jobs: queue.SimpleQueue[tuple[Job, Future[Any]] | None] = queue.SimpleQueue()
        self._local = threading.local()
        self._readers: list[tuple[threading.Thread, sqlite3.Connection]] = []
        self._lock = threading.Lock()
        self._closed = False
        try:
            self._connection = self._connect(cache_kb=16_000)
            self._connection.executescript(schema)
        except sqlite3.Error as error:
            raise StoreError(f"{path}: {error}{_of_another(path)}") from error
        self._version: int | None = None
        self._thread = threading.Thread(target=self._work, name="center-writer", daemon=True)
        self._thread.start()

    def _connect(self, cache_kb: int = 2000) -> sqlite3.Connection:
        """A connection whose pages and statements take little: there is one for each thread."""
        connection = sqlite3.connect(
            self.path, timeout=BUSY_TIMEOUT_S, isolation_level=None, check_same_thread=False, cached_statements=64
        )
        connection.execute("PRAGMA journal_mode=WAL")
        connection.execute("PRAGMA synchronous=FULL")
        connection.execute(f"PRAGMA cache_size=-{cache_kb}")
        connection.execute("PRAGMA journal_size_limit=67108864")
        return connection

    def on_reset(self, callback: Callable[[], None]) -> None:
        """Called by the writing thread when what was remembered of the tables may be wrong."""
        self._reset.append(callback)

    def on_idle(self, name: str, job: IdleJob) -> None:
        """A job for every half minute, in a transaction of its own: keep it short. `name` is for the log. What it
        raises undoes it; what it returns failed beside the rest, which is kept.
        """
        self._idle.append((name, job))

    @property
    def failing(self) -> Mapping[str, str]:
        """Idle jobs that failed when they last ran, and why."""
        return {name: text for name, (text, _) in self._failing.items()}

    def rehearse(self) -> Mapping[str, str]:
        """Idle jobs that would fail now, and why: each is run and undone."""
        found = {}
        with self._reading(), contextlib.closing(self._connect()) as connection:
            for name, job in self._idle:
                try:
                    connection.execute("BEGIN IMMEDIATE")
                    if error := job(connection):
                        found[name] = _text(error)
                except Exception as error:  # noqa: BLE001 - whatever it is, it is what was asked for
                    found[name] = _text(_explained(error, self.path))
                with contextlib.suppress(sqlite3.Error):  # a full disk undoes it before
                    connection.execute("ROLLBACK")
        return found

    def read(self) -> sqlite3.Connection:
        """The calling thread's connection, for reading only. Those of threads that ended are closed: `flask run` has a
        thread for each request.
        """
        connection: sqlite3.Connection | None = getattr(self._local, "connection", None)
        if connection is None:
            connection = self._connect()
            connection.execute("PRAGMA query_only=1")
            connection.set_progress_handler(self._late, STEPS)
            self._local.connection, self._local.until = connection, inf
            with self._lock:
                ended = [reader for reader in self._readers if not reader[0].is_alive()]
                self._readers = [reader for reader in self._readers if reader not in ended]
                self._readers.append((threading.current_thread(), connection))
            for _, old in ended:
                old.close()
        return connection

    @contextlib.contextmanager
    def moment(self) -> Iterator[sqlite3.Connection]:
        """The calling thread's connection, on which all queries within see the file as it is now. Not to be nested.

        StoreError where they take more than READ_S: what one request may cost has a bound.
        """
        try:
            with self._reading():
                connection = self.read()
                connection.execute("BEGIN")
                self._local.until = time.thread_time() + READ_S
                try:
                    yield connection
                finally:
                    self._local.until = inf
                    connection.rollback()  # nothing was written; an error of the disk may have ended it before
        except sqlite3.OperationalError as error:
            if getattr(error, "sqlite_errorcode", None) != sqlite3.SQLITE_INTERRUPT:  # by _late()
                raise
            late = StoreError(f"this takes more than {READ_S:.0f} s: ask for a shorter range, or for less at once")
            late.known = True  # it is no fault of the store
            raise late from error

    @contextlib.contextmanager
    def _reading(self) -> Iterator[None]:
        """Around all that is read: StoreError for what is wrong with the file; a query that is wrong is a mistake."""
        try:
            yield
        except sqlite3.Error as error:
            text = isinstance(error, sqlite3.OperationalError)  # without a code: a text is no UTF-8
            code = getattr(error, "sqlite_errorcode", SQLITE_CORRUPT if text else sqlite3.SQLITE_ERROR)
            if code & 0xFF in OF_THE_FILE:
                raise _explained(error, self.path) from error
            raise

    def _late(self) -> bool:
        """Whether the calling thread has read for too long, or for nobody: SQLite then gives up."""
        until: float = self._local.until
        return time.thread_time() > until or (until < inf and self._gone())

    def run(self, job: Callable[[sqlite3.Connection], T]) -> T:
        """The job's result once its changes are synced to the disk. What the job raises undoes the job alone."""
        future: Future[T] = Future()
        with self._lock:
            if self._closed:
                raise StoreError("the store is closed")
            self._jobs.put((job, future))
        with self._faults.noted("writing"):
            return future.result()

    def rows(self, sql: str, *values: object) -> list[Any]:
        """What a query answers, read by the calling thread."""
        with self._reading():
            return self.read().execute(sql, values).fetchall()

    def row(self, sql: str, *values: object) -> Any:
        """Its first row; None if there is none."""
        return next(iter(self.rows(sql, *values)), None)

    def change(self, sql: str, *values: object) -> int:
        """Runs one statement as a job: how many rows it changed."""
        return self.run(lambda connection: connection.execute(sql, values).rowcount)

    def close(self) -> None:
        with self._lock:
            if self._closed:
                return
            self._closed = True
            self._jobs.put(None)
        self._thread.join()
        for connection in (*(reader for _, reader in self._readers), self._connection):
            connection.close()

    def _work(self) -> None:
        closing = False
        idle_at = time.monotonic() + IDLE_EVERY_S
        while not closing:
            jobs: list[tuple[Job, Future[Any]]] = []
            try:
                item = self._jobs.get(timeout=IDLE_EVERY_S)
                while item is not None:
                    jobs.append(item)
                    if len(jobs) == MAX_JOBS:
                        break
                    item = self._jobs.get_nowait()
                else:
                    closing = True
            except queue.Empty:
                pass  # nothing else waits
            if jobs:
                self._transaction(jobs)
            if time.monotonic() >= idle_at:
                for name, job in self._idle:
                    future: Future[Exception | None] = Future()
                    self._transaction([(job, future)])
                    self._note(name, future.exception() or future.result())
                idle_at = time.monotonic() + IDLE_EVERY_S

    def _note(self, name: str, error: BaseException | None) -> None:
        """How an idle job ended. Logged when it begins to fail, fails otherwise, and works again."""
        failing = dict(self._failing)
        before, count = failing.pop(name, ("", 0))
        if error is not None:
            text = _text(error)
            if text != before:
                unforeseen = None if isinstance(error, StoreError) else error
                now = f"now fails otherwise (after {count} times)" if count else "fails, and is tried again"
                log.error("%s %s: %s", name, now, text, exc_info=unforeseen)
            failing[name] = text, count + 1
        elif count:
            log.info("%s works again after failing %d times", name, count)
        self._failing = failing  # another one each time: requests read it

    def _transaction(self, jobs: list[tuple[Job, Future[Any]]]) -> None:
        """Runs jobs and syncs. Each job's end is in its future."""
        connection = self._connection
        done: list[tuple[Future[Any], Any]] = []
        try:
            connection.execute("BEGIN IMMEDIATE")
            version = connection.execute("PRAGMA data_version").fetchone()[0]
            if version != self._version:
                self._forget()
                self._version = version
            for job, future in jobs:
                connection.execute("SAVEPOINT job")
                try:
                    result = job(connection)
                except Exception as error:  # whatever it is, it is the caller's
                    if not connection.in_transaction:  # disk full: SQLite has undone it all
                        raise
                    connection.execute("ROLLBACK TO job")
                    self._forget()
                    future.set_exception(_explained(error, self.path))
                else:
                    done.append((future, result))
                connection.execute("RELEASE job")
            connection.execute("COMMIT")
        except Exception as error:  # noqa: BLE001 - as above
            self._forget()
            with contextlib.suppress(sqlite3.Error):
                connection.execute("ROLLBACK")
            for _, future in jobs:
                if not future.done():
                    future.set_exception(_explained(error, self.path))
            return
        for future, result in done:
            future.set_result(result)

    def _forget(self) -> None:
        for callback in self._reset:
            callback()


def _of_another(path: Path) -> str:
    """What SQLite does not say: which of its files, copied by root or elsewhere, belongs to another user."""
    for file in (path, *(path.with_name(path.name + end) for end in ("-wal", "-shm"))):
        if file.exists() and not os.access(file, os.R_OK | os.W_OK):
            return f": {file.name} belongs to user {file.stat().st_uid}, this runs as {os.geteuid()}: sudo chown it"
    return ""


def _explained(error: Exception, path: Path) -> Exception:
    return StoreError(f"{path}: {error}") if isinstance(error, sqlite3.Error) else error


def _text(error: BaseException) -> str:
    return str(error) if isinstance(error, StoreError) else f"{type(error).__name__}: {error}"
