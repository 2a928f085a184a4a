"""A look into the buffer of an agent that does not run, without changing a byte.

Opening it as the agent does would write (settings, the log's index); so the file is read as immutable, and what stands
in the write-ahead log alone is not seen: its size is told.
"""

from __future__ import annotations

import contextlib
import sqlite3
import time
from dataclasses import dataclass
from typing import TYPE_CHECKING

from agent.buffer.ledger import Saved
from agent.buffer.opening import LEDGER
from agent.buffer.rows import DamagedRow, Kind, read_header
from agent.buffer.store import DATABASE

if TYPE_CHECKING:
    from pathlib import Path

CHECK_S = 5.0  # quick_check of a million rows takes longer: then what was read so far is what is known


@dataclass(frozen=True, slots=True)
class BufferLook:
    """Points and rows that wait, sizes in bytes; `unwritten` is the write-ahead log's. `problem`: it cannot be read."""

    there: bool = False
    points: int = 0
    rows: int = 0
    size: int = 0
    unwritten: int = 0
    unaccounted: int | None = None
    problem: str | None = None


def look_at_buffer(folder: Path) -> BufferLook:
    """Raises nothing but PermissionError, where this user may not look."""
    path = folder / DATABASE
    try:
        size = path.stat().st_size
    except (FileNotFoundError, NotADirectoryError):
        return BufferLook()
    log = 0
    with contextlib.suppress(FileNotFoundError):
        log = path.with_name(f"{DATABASE}-wal").stat().st_size
    try:
        with contextlib.closing(sqlite3.connect(f"{path.absolute().as_uri()}?immutable=1", uri=True)) as connection:
            if not log:
                _check(connection)
            return _read(connection, size, log)
    except (sqlite3.Error, ValueError, DamagedRow) as error:
        if log and not isinstance(error, DamagedRow):  # all of it may still stand in the log
            return BufferLook(True, size=size, unwritten=log)
        return BufferLook(True, size=size, unwritten=log, problem=f"{path} is damaged: {error}")


def _check(connection: sqlite3.Connection) -> None:
    until = time.monotonic() + CHECK_S
    connection.set_progress_handler(lambda: time.monotonic() > until, 10_000)
    try:
        found = connection.execute("PRAGMA quick_check(1)").fetchone()[0]
    except sqlite3.OperationalError as error:
        if "interrupted" not in str(error):
            raise
    else:
        if found != "ok":
            raise ValueError(found)
    finally:
        connection.set_progress_handler(None, 0)


def _read(connection: sqlite3.Connection, size: int, log: int) -> BufferLook:
    points = rows = pending = 0
    counters = None
    for key, tag in connection.execute("SELECT key, tag FROM Cache"):
        if isinstance(key, int):
            header = read_header(tag)
            if header.kind != Kind.DEAD:
                rows += 1
                points += header.count
                pending += header.count - header.health
        elif key == LEDGER:
            counters = key
    unaccounted = None
    if counters and not log:
        (value,) = connection.execute("SELECT value FROM Cache WHERE key = ?", (LEDGER,)).fetchone()
        saved = Saved.decode(value)
        unaccounted = saved.counters.points.unaccounted(pending) if saved.clean else None
    return BufferLook(True, points, rows, size, log, unaccounted)
