"""Opening the buffer's folder, whatever it is like: what is readable is used, what is not is set aside and counted, and
of damaged files what can still be read moves into a new database.
"""

from __future__ import annotations

import contextlib
import logging
import os
import sqlite3
from bisect import bisect_left
from dataclasses import dataclass, replace
from typing import TYPE_CHECKING

from agent.buffer import carving, dead_letters
from agent.buffer import folder as folders
from agent.buffer.index import RowIndex
from agent.buffer.ledger import Saved, balance
from agent.buffer.rows import DamagedRow, Header, Kind, check, pack, read_header, recovered
from agent.buffer.store import DATABASE, FILES, DiskError, Store

if TYPE_CHECKING:
    from collections.abc import Iterable, Iterator
    from pathlib import Path

log = logging.getLogger(__name__)

LEDGER = "ledger"
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


@dataclass(frozen=True, slots=True)
class Opened:
    """A store, its rows, those whose header is not readable, and its ledger."""

    store: Store
    rows: RowIndex
    bad: set[int]
    saved: Saved
    note: str = ""


def open_store(folder: Path, max_size: int, known: Saved | None) -> Opened:
    """The store of this folder, its rows and its ledger. `known` is the ledger when the agent has it in memory.

    Raises DiskError or OSError when the disk gives nothing to work with.
    """
    folders.make(folder)
    log_bytes: bytes | None = None
    try:
        _check_files(folder)
        log_bytes = broken_log(folder)
        if log_bytes is not None:
            raise DiskError("damaged", "its log is damaged in the middle")  # noqa: TRY301 - handled like any damage
        store = Store(folder)
        try:
            scan(store)
        except DiskError:
            store.close()
            raise
    except DiskError as error:
        if error.trouble == "full" or (error.trouble != "damaged" and not cut_short(folder) and not _unusable(folder)):
            raise
        log.error("buffer: %s is damaged (%s): saving what is readable", folder / DATABASE, error)  # noqa: TRY400
        _put_aside(folder, max_size, log_bytes)
        store = Store(folder)
    try:
        return _taken_up(store, folder, known)
    except BaseException:
        store.close()
        raise


def _put_aside(folder: Path, max_size: int, log_bytes: bytes | None = None) -> None:
    """Move the files of a damaged buffer away, marked as not read yet, so that nothing else need succeed now."""
    home = folders.set_aside(folder, FILES, max_size)
    if home is not None and log_bytes is not None:
        (home / LOST_LOG).write_bytes(log_bytes)


def _taken_up(store: Store, folder: Path, known: Saved | None) -> Opened:
    """What the store holds, after what can be read of damaged files was moved into it: also of those that an earlier
    start could not finish.
    """
    homes = folders.unread_sets(folder)
    for home in homes:
        found = refill(store, home)
        known = known or found
    rows, bad = scan(store)
    saved, note = _ledger(store, rows, known, unequal=bool(homes))
    if homes:
        with store.transaction():
            store.put(LEDGER, saved.encode())
        for home in homes:
            folders.mark_read(home)
        note = f"{rows.points} points wait, after what could be read was moved from {homes[-1]}; {note}"
    return Opened(store, rows, bad, saved, note.rstrip("; "))


def open_reader(folder: Path) -> Opened | None:
    """The store of a folder that cannot be written, for reading; None if it cannot be read either."""
    store = Store(folder, read_only=True)
    try:
        rows, bad = scan(store)
        return Opened(store, rows, bad, Saved.decode(store.read_named(LEDGER)))
    except (DiskError, ValueError):
        store.close()
        return None


def _ledger(store: Store, rows: RowIndex, known: Saved | None, *, unequal: bool) -> tuple[Saved, str]:
    """The ledger in the store, else the `known` one. Balanced where it belonged to a damaged buffer or was lost."""
    top = max((e.key for q, _, _ in rows.waiting() for e in [next(reversed(q), None)] if e is not None), default=0)
    note = ""
    try:
        saved = Saved.decode(store.get(LEDGER))
    except ValueError:
        unequal = True
        saved = known or Saved()
        note = "the counters were lost and start again with the points that wait" if rows.points and not known else ""
    saved = replace(saved, last_key=max(saved.last_key, top))
    if unequal:
        change = balance(saved.counters, rows.points, rows.health)
        saved = replace(saved, counters=saved.counters + change, generation=saved.generation + 1)
    return saved, note


def scan(store: Store) -> tuple[RowIndex, set[int]]:
    """The index of all rows, and the keys of rows whose header is not readable. Values are not read."""
    rows, bad = RowIndex(), set()
    for found in store.scan():
        try:
            if found.key % dead_letters.BASE > _LAST_KEY:  # never given out
                raise DamagedRow("impossible key")  # noqa: TRY301
            rows.add(found.key, read_header(found.tag), found.size)
        except DamagedRow:
            bad.add(found.key)
    return rows, bad


def _check_files(folder: Path) -> None:
    """Raises DiskError for something that is no file where one should be, and for a log without its database."""
    for name in FILES:
        path = folder / name
        if os.path.lexists(path) and (path.is_symlink() or not path.is_file()):
            raise DiskError("damaged", f"{path} is not a file")
    if not (folder / DATABASE).exists() and any((folder / name).exists() for name in FILES):
        raise DiskError("damaged", f"{folder / DATABASE} is gone, its log is not")


def _unusable(folder: Path) -> bool:
    """Whether the file has an owner or a mode that keeps us out, in a folder that is ours."""
    path = folder / DATABASE
    return path.exists() and os.access(folder, os.W_OK) and not os.access(path, os.R_OK | os.W_OK)


def cut_short(folder: Path) -> bool:
    """Whether the database is shorter than its header says, which SQLite reports as an I/O error."""
    try:
        with (folder / DATABASE).open("rb") as file:
            head = file.read(100)
            size = file.seek(0, os.SEEK_END)
    except OSError:
        return False
    page = int.from_bytes(head[16:18], "big") or 1
    page = 65536 if page == 1 else page
    return size < 512 or size % page != 0 or size < page * int.from_bytes(head[28:32], "big")


def rescue(store: Store, folder: Path, max_size: int, known: Saved, *, deleted: bool) -> None:
    """Start a new database in the place of one that was damaged or `deleted` in use; what is readable moves over.

    The open connection still reads a deleted file. Raises DiskError or OSError.
    """
    folders.make(folder)
    _put_aside(folder, max_size)
    new = Store(folder)
    try:
        if deleted:
            refill_from(new, through(store))
        opened = _taken_up(new, folder, known)
        with new.transaction():
            new.put(LEDGER, opened.saved.encode())
        log.warning("buffer: a new database was begun; %d points wait in it", opened.rows.points)
    finally:
        new.close()


def refill(store: Store, home: Path) -> Saved | None:
    """Copy what is readable in the damaged files in `home`. Returns their latest ledger, should one be readable.

    First what SQLite reads, then what is left in single pages; the other way round where SQLite knows only the
    beginning of the log.
    """
    known = dict(_present(store))
    ledgers: list[Saved] = []
    lost_log = (home / LOST_LOG).exists()
    if lost_log:
        ledgers += _carve(store, home, known)
    whole = _query(store, home, known, ledgers)
    if not whole and not lost_log:
        ledgers += _carve(store, home, known)
    return max(ledgers, key=lambda saved: saved.generation, default=None)


def _present(store: Store) -> Iterator[tuple[int, Header]]:
    """The rows that are there already: from a start that was interrupted."""
    for found in store.scan():
        with contextlib.suppress(DamagedRow):
            yield found.key, read_header(found.tag)


def _query(store: Store, home: Path, known: dict[int, Header], ledgers: list[Saved]) -> bool:
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
                    ledgers.append(Saved.decode(connection.execute(query, (LEDGER,)).fetchone()[0]))
                refill_from(store, items(connection, damage), known)
        except DiskError:
            raise  # the new database's
        except Exception as error:  # noqa: BLE001 - even the message of an error can be undecodable
            log.debug("buffer: %s in %s", type(error).__name__, home)
            continue
        if len(known) > before or not damage:
            return not damage
    return False


def _carve(store: Store, home: Path, known: dict[int, Header]) -> list[Saved]:
    """Copy what stands in single pages, as far as it is not `known`. Returns the ledgers among it."""
    try:
        rows, saved = carving.carve(home, LEDGER)
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


def readable(folder: Path, key: int, tag: object, value: object) -> list[bytes]:
    """The lines that can still be read of a damaged row; where there are none, what stood there is kept as a file."""
    raw = value if isinstance(value, bytes) else repr(tag).encode()
    try:
        return recovered(raw)
    except DamagedRow:
        folders.keep_row(folder, key, raw)
        return []
