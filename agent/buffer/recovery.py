"""Opening the buffer's folder, whatever it is like: what is readable is used, what is not is set aside, counted and
replaced at once. What can still be read of it comes back later: salvage.py.
"""

from __future__ import annotations

import contextlib
import errno
import logging
import os
import shutil
import sqlite3
from dataclasses import dataclass, replace
from pathlib import Path

from agent.buffer import dead_letters, mapped, wal
from agent.buffer import folder as folders
from agent.buffer.database import DATABASE, FILES
from agent.buffer.disk_error import DiskError
from agent.buffer.index import RowIndex
from agent.buffer.ledger import Saved
from agent.buffer.rows import LAST_KEY, DamagedRow, read_header, recovered
from agent.buffer.store import Store
from agent.buffer.wal import LOST_LOG

log = logging.getLogger(__name__)

LEDGER = "ledger"
_A_SET = 2**32
"""Keys that a database gives out, at most: the next one begins above, so that old rows keep their keys."""


@dataclass(frozen=True, slots=True)
class Opened:
    """A store, its rows, those whose header is not readable, and its ledger."""

    store: Store
    rows: RowIndex
    bad: set[int]
    saved: Saved


def open_store(folder: Path, max_size: int, known: Saved) -> Opened:
    """The store of this folder, its rows and its ledger. `known` is the ledger as the agent has it in memory.

    Raises DiskError or OSError when the disk gives nothing to work with.
    """
    folders.make(folder)
    try:
        _check_files(folder)
        if broken_log(folder):
            raise DiskError("damaged", "its log is damaged in the middle")  # noqa: TRY301 - handled like any damage
        return _opened(folder, known)
    except DiskError as error:
        if error.trouble == "full" or (error.trouble != "damaged" and not cut_short(folder) and not _unusable(folder)):
            raise
        log.error("buffer: %s is damaged (%s): it is set aside and replaced", folder / DATABASE, error)  # noqa: TRY400
        set_aside(folder, max_size)
        return _opened(folder, known)


def _opened(folder: Path, known: Saved) -> Opened:
    store = Store(folder)
    try:
        rows, bad = scan(store)
        saved = _ledger(store, rows, bad, known, folders.unread_sets(folder))
    except BaseException:
        store.close()
        raise
    forget_log(folder)
    return Opened(store, rows, bad, saved)


def set_aside(folder: Path, max_size: int) -> Path | None:
    """Move the files of a damaged buffer away, marked as not read yet, so that nothing else need succeed now. On a full
    disk the index of the log, from which nothing is read, and the ballast make room for that.
    """
    index = folder / (DATABASE + "-shm")
    if index.is_file() and not index.is_symlink():
        index.unlink()
    try:
        return folders.set_aside(folder, (*FILES, LOST_LOG), max_size)
    except OSError as error:
        if error.errno not in (errno.ENOSPC, errno.EDQUOT) or not folders.drop_ballast(folder):
            raise
    return folders.set_aside(folder, (*FILES, LOST_LOG), max_size)


def open_reader(folder: Path) -> Opened | None:
    """The store of a folder that cannot be written, for reading; None if it cannot be read either."""
    store = Store(folder, read_only=True)
    try:
        rows, bad = scan(store)
        return Opened(store, rows, bad, Saved.decode(store.read_named(LEDGER)))
    except (DiskError, ValueError):
        store.close()
        return None


def _ledger(store: Store, rows: RowIndex, bad: set[int], known: Saved, unread: list[Path]) -> Saved:
    """The ledger in the store. Where it is lost or not begun: the `known` one; else one that knows of nothing, to which
    that of an `unread` set is added once it is found. The queue balances it with what is there.
    """
    try:
        saved = Saved.decode(store.read_named(LEDGER))
    except ValueError:
        if known.generation:
            saved = replace(known, recovering={**{home.name: 0 for home in unread}, **known.recovering})
        else:
            saved = Saved()
            if rows.points:
                log.warning("buffer: the counters were lost and start again with the points that wait")
        above = _A_SET * max((int(home.name) for home in unread), default=0)
        saved = replace(saved, last_key=max(saved.last_key, above))
    return numbered(saved, rows, bad)


def numbered(saved: Saved, rows: RowIndex, bad: set[int]) -> Saved:
    """The ledger, with the keys of all rows and dead letters that are there as given out: none is written over."""
    last = [next(reversed(index), None) for index in (*rows.by_kind.values(), *rows.undated.values())]
    keys = {entry.key for entry in last if entry} | {key for key in bad if key % dead_letters.BASE <= LAST_KEY}
    return replace(
        saved,
        last_key=max(saved.last_key, *(key for key in keys if key < dead_letters.BASE), 0),
        last_dead=max(saved.last_dead, *(key - dead_letters.BASE for key in keys), 0),
    )


def scan(store: Store) -> tuple[RowIndex, set[int]]:
    """The index of all rows, and the keys of rows whose header is not readable. Values are not read."""
    rows, bad = RowIndex(), set()
    for found in store.scan():
        try:
            if found.key % dead_letters.BASE > LAST_KEY:  # never given out
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
    if not (folder / DATABASE).exists() and any((folder / name).exists() for name in (*FILES, LOST_LOG)):
        raise DiskError("damaged", f"{folder / DATABASE} is gone, its log is not")


def _unusable(folder: Path) -> bool:
    """Whether the file has an owner or a mode that keeps us out, in a folder that is ours."""
    path = folder / DATABASE
    return path.exists() and os.access(folder, os.W_OK) and not os.access(path, os.R_OK | os.W_OK)


def cut_short(folder: Path) -> bool:
    """Whether the database is shorter than its header says, which SQLite reports as an I/O error. With a log it may be:
    a checkpoint that a full or failing disk broke off writes the header first, and the log has the rest.
    """
    try:
        if (folder / f"{DATABASE}-wal").exists() and (folder / f"{DATABASE}-wal").stat().st_size > wal.HEADER:
            return False
        with (folder / DATABASE).open("rb") as file:
            head = file.read(100)
            size = file.seek(0, os.SEEK_END)
    except OSError:
        return False
    page = int.from_bytes(head[16:18], "big") or 1
    page = 65536 if page == 1 else page
    return size < 512 or size % page != 0 or size < page * int.from_bytes(head[28:32], "big")


def broken_log(folder: Path) -> bool:
    """Whether SQLite reads only the beginning of the log, and more than the last transaction is behind that. Moves what
    it can read into the database.

    Closing the connection deletes the log: LOST_LOG, a second name of it, keeps it until forget_log().
    """
    path, lost = folder / (DATABASE + "-wal"), folder / LOST_LOG
    try:
        if os.path.lexists(lost) and not os.path.lexists(path):
            lost.rename(path)  # the start before this one did not come to its end
        lost.unlink(missing_ok=True)
        if path.stat().st_size <= wal.HEADER:
            return False
        try:
            os.link(path, lost, follow_symlinks=False)
        except OSError:  # not every file system has links
            shutil.copyfile(path, lost)
        folders.sync_folder(folder)
        if (folder / DATABASE).stat().st_size < 512:
            return True  # SQLite would delete the log of an empty database
        kept = wal.File(lost)
        header, transactions = kept[: wal.HEADER], wal.transactions(kept)
        with (
            mapped.reserved(folder / DATABASE),
            contextlib.closing(sqlite3.connect(folder / DATABASE, timeout=5)) as connection,
        ):
            _, read, _ = connection.execute("PRAGMA wal_checkpoint(PASSIVE)").fetchone()
            with path.open("rb") as file:  # gone, or begun anew: a command beside the agent is at work
                if file.read(wal.HEADER) != header:
                    return False
    except Exception:  # noqa: BLE001 - then opening it fails too, and says why
        return False
    return sum(frame > int(read) for frame in transactions) > 1


def forget_log(folder: Path) -> None:
    """All that was in the log is in the database."""
    with contextlib.suppress(OSError):
        (folder / LOST_LOG).unlink(missing_ok=True)


def readable(folder: Path, key: int, tag: object, value: object) -> list[bytes]:
    """The lines that can still be read of a damaged row; where there are none, what stood there is kept as a file."""
    raw = value if isinstance(value, bytes) else repr(tag).encode()
    try:
        return recovered(raw)
    except DamagedRow:
        folders.keep_row(folder, key, raw)
        return []
