"""Reading what is still readable out of a damaged buffer, into a new one."""

from __future__ import annotations

import contextlib
import logging
import sqlite3
from typing import TYPE_CHECKING

from agent.ledger import Saved
from agent.rows import DamagedRow, Kind, check, decompress, pack
from agent.storage import DATABASE, DiskError

if TYPE_CHECKING:
    from collections.abc import Iterable, Iterator
    from pathlib import Path

    from agent.storage import Store

log = logging.getLogger(__name__)

_CHUNK = 200
_CHUNK_BYTES = 2**20
_SELECT = "SELECT rowid, key, tag, value FROM Cache WHERE rowid >= ? ORDER BY rowid LIMIT ?"
_FAR = 2**40
Item = tuple[object, object, object]
"""Key, header and value of a row, as unchecked as they are found."""


def refill(store: Store, home: Path, ledger_key: str) -> Saved | None:
    """Copy what is readable in the damaged files in `home`. Returns their ledger, should that be readable."""
    saved: Saved | None = None
    for mode in ("mode=ro", "immutable=1"):  # with the log if that can be, else without
        uri = (home / DATABASE).absolute().as_uri() + "?" + mode
        try:
            with contextlib.closing(sqlite3.connect(uri, uri=True, timeout=5)) as connection:
                connection.execute("PRAGMA cache_size=-500")
                connection.execute("SELECT name FROM sqlite_master").fetchall()
                with contextlib.suppress(sqlite3.Error, ValueError):
                    query = "SELECT value FROM Cache WHERE key = ? AND raw = 1"
                    saved = Saved.decode(connection.execute(query, (ledger_key,)).fetchone()[0])
                copied = refill_from(store, items(connection))
        except (sqlite3.Error, TypeError, OverflowError):
            continue
        if copied:
            break
    return saved


def items(connection: sqlite3.Connection) -> Iterator[Item]:
    """The rows of a database with damaged pages: what cannot be read is stepped over, ever farther, and the first
    readable row after it is found by halving.
    """

    def fetch(rowid: int, limit: int) -> list[tuple[int, object, object, object]] | None:
        try:
            return connection.execute(_SELECT, (rowid, limit)).fetchall()
        except (sqlite3.Error, OverflowError, UnicodeDecodeError):
            return None

    at = 0
    while at < _FAR:
        rows = fetch(at, _CHUNK)
        if rows is None:
            rows = fetch(at, 1)
        if rows is None:
            step = 1
            while at + step < _FAR and fetch(at + step, 1) is None:
                step *= 2
            low, high = at + step // 2, at + step
            while high - low > 1:
                middle = (low + high) // 2
                low, high = (low, middle) if fetch(middle, 1) is not None else (middle, high)
            at = high
            continue
        if not rows:
            return
        for _, *item in rows:
            yield item[0], item[1], item[2]
        at = rows[-1][0] + 1


def through(store: Store) -> Iterator[Item]:
    """The rows of a database that was deleted, through the connection that still has it open."""
    with contextlib.suppress(DiskError):
        for found in store.scan():
            yield (found.key, *(store.read(found.key) or (None, None)))


def refill_from(store: Store, rows: Iterable[Item]) -> int:
    """Store the sound ones of these rows under their keys; of others, the lines that still unpack. Returns how many."""
    copied = 0
    waiting: list[tuple[int, bytes, bytes]] = []

    def write() -> None:
        with store.transaction():
            for key, tag, value in waiting:
                store.put(key, value, tag)
        waiting.clear()

    for key, tag, value in rows:
        if type(key) is not int or key <= 0 or not isinstance(value, bytes):
            continue
        try:
            check(tag, value)
            assert isinstance(tag, bytes)
            waiting.append((key, tag, value))
        except DamagedRow:
            with contextlib.suppress(DamagedRow, ValueError):
                row = pack(decompress(value).split(b"\n")[:-1], Kind.PENDING)
                waiting.append((key, row.tag, row.value))
        if len(waiting) >= _CHUNK or sum(len(value) for _, _, value in waiting) > _CHUNK_BYTES:
            copied += len(waiting)
            write()
    copied += len(waiting)
    write()
    return copied
