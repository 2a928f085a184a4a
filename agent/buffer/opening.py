"""Opening the buffer's folder, whatever it is like: what is readable is used, what is not is set aside and counted."""

from __future__ import annotations

import logging
import os
from dataclasses import dataclass, replace
from typing import TYPE_CHECKING

from agent.buffer import dead_letters, recovery
from agent.buffer import folder as folders
from agent.buffer.disk import DiskError
from agent.buffer.ledger import Saved
from agent.buffer.queue import Rows, State
from agent.buffer.rows import DamagedRow, read_header
from agent.buffer.store import DATABASE, FILES, Store

if TYPE_CHECKING:
    from pathlib import Path

    from agent.config.settings import BufferSettings

log = logging.getLogger(__name__)

LEDGER = "ledger"
_LAST_KEY = 2**53


@dataclass(frozen=True, slots=True)
class Opened:
    store: Store
    rows: Rows
    bad: set[int]
    saved: Saved
    note: str = ""


def open_store(folder: Path, settings: BufferSettings, known: Saved | None) -> Opened:
    """The store of this folder, its rows and its ledger. `known` is the ledger when the agent has it in memory.

    Raises DiskError or OSError when the disk gives nothing to work with.
    """
    folders.make(folder)
    log_bytes: bytes | None = None
    try:
        _check_files(folder)
        log_bytes = recovery.broken_log(folder)
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
        _put_aside(folder, settings, log_bytes)
        store = Store(folder)
    try:
        return _taken_up(store, folder, known)
    except BaseException:
        store.close()
        raise


def _put_aside(folder: Path, settings: BufferSettings, log_bytes: bytes | None = None) -> None:
    """Move the files of a damaged buffer away, marked as not read yet, so that nothing else need succeed now."""
    home = folders.set_aside(folder, FILES, settings.max_size)
    if home is not None and log_bytes is not None:
        (home / recovery.LOST_LOG).write_bytes(log_bytes)


def _taken_up(store: Store, folder: Path, known: Saved | None) -> Opened:
    """What the store holds, after what can be read of damaged files was moved into it: also of those that an earlier
    start could not finish.
    """
    homes = folders.unread_sets(folder)
    for home in homes:
        found = recovery.refill(store, home, LEDGER)
        known = known or found
    rows, bad = scan(store)
    saved, note = _ledger(store, rows, known, balance=bool(homes))
    if homes:
        with store.transaction():
            store.put(LEDGER, saved.encode())
        for home in homes:
            folders.mark_read(home)
        note = f"{rows.points} points wait, after what could be read was moved from {homes[-1]}; {note}"
    return Opened(store, rows, bad, saved, note.rstrip("; "))


@dataclass(frozen=True, slots=True)
class OnDisk:
    """What a buffer holds: its rows, the ledger as last saved, bytes in use and of the file."""

    rows: Rows
    saved: Saved
    used_bytes: int
    file_bytes: int


def on_disk(folder: Path) -> OnDisk | None:
    """What the buffer in this folder holds, None where there is none. Nothing is changed.

    Raises DiskError or ValueError where it cannot be read.
    """
    if not (folder / DATABASE).exists():
        return None
    store = Store(folder, owner=False, read_only=True)
    try:
        rows, _ = scan(store)
        return OnDisk(rows, Saved.decode(store.read_named(LEDGER)), *store.usage())
    finally:
        store.close()


def open_reader(folder: Path) -> tuple[Store, Rows, set[int], Saved] | None:
    """The store of a folder that cannot be written, for reading; None if it cannot be read either."""
    store = Store(folder, read_only=True)
    try:
        rows, bad = scan(store)
        saved = Saved.decode(store.read_named(LEDGER))
    except (DiskError, ValueError):
        store.close()
        return None
    return store, rows, bad, saved


def _ledger(store: Store, rows: Rows, known: Saved | None, *, balance: bool) -> tuple[Saved, str]:
    """The ledger in the store, else the `known` one. Balanced where it belonged to a damaged buffer or was lost."""
    top = max((e.key for q in rows.waiting() for e in [next(reversed(q), None)] if e is not None), default=0)
    note = ""
    try:
        saved = Saved.decode(store.get(LEDGER))
    except ValueError:
        balance = True
        saved = known or Saved()
        note = "the counters were lost and start again with the points that wait" if rows.points and not known else ""
    saved = replace(saved, last_key=max(saved.last_key, top))
    if balance:
        state = State("")
        state.rows, state.ledger.base = rows, saved
        state.balance()
        saved = replace(saved, counters=state.ledger.counters, generation=saved.generation + 1)
    return saved, note


def scan(store: Store) -> tuple[Rows, set[int]]:
    """The index of all rows, and the keys of rows whose header is not readable. Values are not read."""
    rows, bad = Rows(), set()
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


def rescue(store: Store, folder: Path, settings: BufferSettings, known: Saved, *, deleted: bool) -> None:
    """Start a new database in the place of one that was damaged or `deleted` in use; what is readable moves over.

    The open connection still reads a deleted file. Raises DiskError or OSError.
    """
    folders.make(folder)
    _put_aside(folder, settings)
    new = Store(folder)
    try:
        if deleted:
            recovery.refill_from(new, recovery.through(store))
        opened = _taken_up(new, folder, known)
        with new.transaction():
            new.put(LEDGER, opened.saved.encode())
        log.warning("buffer: a new database was begun; %d points wait in it", opened.rows.points)
    finally:
        new.close()
