"""Reading what is still readable out of a damaged buffer, into a new one."""

from __future__ import annotations

import contextlib
import logging
import sqlite3
from bisect import bisect_left
from typing import TYPE_CHECKING

from agent.buffer import carving
from agent.buffer.disk import DiskError
from agent.buffer.ledger import Saved
from agent.buffer.rows import DamagedRow, Header, Kind, check, pack, read_header, recovered
from agent.buffer.store import DATABASE

if TYPE_CHECKING:
    from collections.abc import Iterable, Iterator
    from pathlib import Path

    from agent.buffer.store import Store

log = logging.getLogger(__name__)

LOST_LOG = DATABASE + "-wal.lost"
"""The log as it was, when SQLite would have gone on without part of it."""
_CHUNK = 200
_CHUNK_BYTES = 2**20
_SELECT = "SELECT rowid, key, tag, value FROM Cache WHERE rowid >= ? ORDER BY rowid LIMIT ?"
_FAR = 2**40
_WAL_HEADER = 32
_KEYS, _LAST_KEY = 2**62, 2**53
"""Keys of points, and of dead letters above 2**62, are never greater than the last."""
Item = tuple[object, object, object]
"""Key, header and value of a row, as unchecked as they are found."""


def refill(store: Store, home: Path, ledger_key: str) -> Saved | None:
    """Copy what is readable in the damaged files in `home`. Returns their latest ledger, should one be readable.

    First what SQLite reads, then what is left in single pages; the other way round where SQLite knows only the
    beginning of the log.
    """
    known = dict(_present(store))
    ledgers: list[Saved] = []
    lost_log = (home / LOST_LOG).exists()
    if lost_log:
        ledgers += _carve(store, home, ledger_key, known)
    whole = _query(store, home, ledger_key, known, ledgers)
    if not whole and not lost_log:
        ledgers += _carve(store, home, ledger_key, known)
    return max(ledgers, key=lambda saved: saved.generation, default=None)


def _present(store: Store) -> Iterator[tuple[int, Header]]:
    """The rows that are there already: from a start that was interrupted."""
    for found in store.scan():
        with contextlib.suppress(DamagedRow):
            yield found.key, read_header(found.tag)


def _query(store: Store, home: Path, ledger_key: str, known: dict[int, Header], ledgers: list[Saved]) -> bool:
    """Copy what SQLite reads. False if that is not all."""
    for mode in ("mode=ro", "immutable=1"):  # with the log if that can be, else without
        uri = (home / DATABASE).absolute().as_uri() + "?" + mode
        damage: list[int] = []
        before = len(known)
        try:
            with contextlib.closing(sqlite3.connect(uri, uri=True, timeout=5)) as connection:
                connection.execute("PRAGMA cache_size=-500")
                connection.execute("SELECT name FROM sqlite_master").fetchall()
                with contextlib.suppress(Exception):
                    query = "SELECT value FROM Cache WHERE key = ? AND raw = 1"
                    ledgers.append(Saved.decode(connection.execute(query, (ledger_key,)).fetchone()[0]))
                refill_from(store, items(connection, damage), known)
        except DiskError:
            raise  # the new database's
        except Exception as error:  # noqa: BLE001 - even the message of an error can be undecodable
            log.debug("buffer: %s in %s", type(error).__name__, home)
            continue
        if len(known) > before or not damage:
            return not damage
    return False


def _carve(store: Store, home: Path, ledger_key: str, known: dict[int, Header]) -> list[Saved]:
    """Copy what stands in single pages, as far as it is not `known`. Returns the ledgers among it."""
    try:
        rows, saved = carving.carve(home, ledger_key)
    except Exception:
        log.exception("buffer: the pages in %s could not be read one by one", home)
        return []
    refill_from(store, rows, known)
    return saved


def broken_log(folder: Path) -> bytes | None:
    """The whole log, if SQLite reads only the beginning of it and more than the last transaction is behind that.

    Moves what SQLite can read into the database.
    """
    path = folder / (DATABASE + "-wal")
    try:
        if path.stat().st_size <= _WAL_HEADER:
            return None
        wal = path.read_bytes()
        if (folder / DATABASE).stat().st_size < 512:
            return wal  # SQLite would delete the log of an empty database
        with contextlib.closing(sqlite3.connect(folder / DATABASE, timeout=5)) as connection:
            _, read, _ = connection.execute("PRAGMA wal_checkpoint(PASSIVE)").fetchone()
            with path.open("rb") as file:  # gone, or begun anew: a command beside the agent is at work
                if file.read(_WAL_HEADER) != wal[:_WAL_HEADER]:
                    return None
    except Exception:  # noqa: BLE001 - then opening it fails too, and says why
        return None
    return wal if carving.lost_transactions(wal, read) > 1 else None


def items(connection: sqlite3.Connection, damage: list[int]) -> Iterator[Item]:
    """The rows of a database with damaged pages: what cannot be read is stepped over, ever farther, and the first
    readable row after it is found by halving.
    """

    def fetch(rowid: int, limit: int) -> list[tuple[int, object, object, object]] | None:
        try:
            return connection.execute(_SELECT, (rowid, limit)).fetchall()
        except Exception:  # noqa: BLE001 - as above
            return None

    at = 0
    while at < _FAR:
        rows = fetch(at, _CHUNK)
        if rows is None:
            rows = fetch(at, 1)
        if rows is None:
            damage.append(at)
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


def refill_from(store: Store, rows: Iterable[Item], known: dict[int, Header] | None = None) -> None:
    """Store the sound ones of these rows under their keys; of others, the lines that still unpack.

    Left out are rows that are `known`, and the remains of rows that were merged into a known one. What is stored is
    known from then on.
    """
    known = {} if known is None else known
    keys = sorted(known)
    waiting: list[tuple[int, bytes, bytes]] = []
    fresh: dict[int, Header] = {}

    def write() -> None:
        with store.transaction():
            for key, tag, value in waiting:
                store.put(key, value, tag)
        waiting.clear()

    cover: tuple[int, Header] | None = None
    for key, found, content in rows:
        if (
            type(key) is not int
            or key <= 0
            or key % _KEYS > _LAST_KEY
            or not isinstance(content, bytes)
            or key in known
        ):
            continue
        tag, value = found, content
        try:
            header = check(tag, value)
            assert isinstance(tag, bytes)
        except DamagedRow:
            try:
                row = pack(recovered(content), Kind.PENDING)
            except (DamagedRow, ValueError):
                continue
            header, tag, value = row.header, row.tag, row.value
        place = bisect_left(keys, key)
        if place and _covers(known[keys[place - 1]], header):
            continue
        if cover is not None and key > cover[0] and _covers(cover[1], header):
            continue
        cover = key, header
        fresh[key] = header
        waiting.append((key, tag, value))
        if len(waiting) >= _CHUNK or sum(len(value) for _, _, value in waiting) > _CHUNK_BYTES:
            write()
    write()
    known |= fresh


def _covers(merged: Header, row: Header) -> bool:
    """Whether a row's points are in the merged row before it: merging keeps the first key."""
    return (
        merged.kind == row.kind
        and merged.count > row.count
        and merged.first_ns <= row.first_ns
        and merged.last_ns >= row.last_ns
    )
