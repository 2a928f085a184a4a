"""The buffer without its agent, or beside it: what `status`, `doctor` and the commands see and change of it on disk."""

from __future__ import annotations

import contextlib
from collections.abc import Callable, Iterator, Sequence
from dataclasses import dataclass, field, replace
from functools import partial
from pathlib import Path
from typing import Self

from agent.buffer import dead_letters
from agent.buffer import folder as folders
from agent.buffer import ledger as counters
from agent.buffer.batch import BufferStatus, DeadLetter, UndatedBoot
from agent.buffer.database import DATABASE
from agent.buffer.disk_error import DiskError
from agent.buffer.index import RowIndex
from agent.buffer.ledger import Counters, Saved
from agent.buffer.recovery import LEDGER, scan
from agent.buffer.rows import DamagedRow, Header, Kind, Row, count_health, joined, pack, read_header, unpack
from agent.buffer.store import Store
from agent.buffer.wal import LOST_LOG
from agent.buffer.withdrawn import Withdrawn, undated
from agent.points.line_protocol import Point, parse
from agent.util.errors import AgentError

CHECK_S = 5.0
"""quick_check of a million rows takes longer: then what was read so far is what is known."""


class BufferUnavailable(AgentError):  # noqa: N818 - says what it is
    """The buffer cannot be used from here."""


@dataclass(frozen=True, slots=True)
class Look:
    """What a buffer holds by its rows and its ledger as last saved. `clean`: it was saved at a clean stop, so that the
    numbers are equal; `unwritten`: bytes of the log that were not read; `problem`: it cannot be read, or is damaged;
    `last`: the point that was measured last, if it still waits.
    """

    status: BufferStatus = field(default_factory=BufferStatus)
    boots: tuple[UndatedBoot, ...] = ()
    clean: bool = True
    unwritten: int = 0
    problem: str | None = None
    last: Point | None = None


def look(folder: Path, *, untouched: bool = False) -> Look | None:
    """What the buffer in this folder holds; None where there is none. Raises PermissionError where we may not look.

    Reading the log makes SQLite write its index, a file beside it. With `untouched` not a byte is changed: then what
    stands in the log alone is not seen, and where there is no log, the pages are checked too.
    """
    path = folder / DATABASE
    try:
        size = path.stat().st_size
    except (FileNotFoundError, NotADirectoryError):
        return None
    log = 0
    with contextlib.suppress(FileNotFoundError):
        log = path.with_name(f"{DATABASE}-wal").stat().st_size if untouched else 0
    store = Store(folder, owner=False, read_only=True, immutable=untouched)
    known = BufferStatus(file_bytes=size)
    try:
        if untouched and not log and (found := store.sound(CHECK_S)):
            return Look(known, problem=found)
        rows, bad = scan(store)
        if bad and untouched:
            return Look(known, unwritten=log, problem=f"{len(bad)} rows are not readable")
        saved = Saved.decode(store.read_named(LEDGER))
        used, file_bytes = store.usage()
        last = _last(store, saved.last_key)
    except (DiskError, ValueError) as error:
        # all of it may still stand in the log
        return Look(known, unwritten=log, problem=None if log else str(error))
    finally:
        store.close()
    status = replace(
        rows.status(),
        disk_bytes=used,
        file_bytes=file_bytes,
        disk_ok=True,
        unaccounted=saved.counters.points.unaccounted(rows.points - rows.health),
        counters=saved.counters,
    )
    return Look(status, tuple(_boots(rows, saved)), saved.clean, log, last=last)


def _boots(rows: RowIndex, saved: Saved) -> list[UndatedBoot]:
    """The boots whose points wait for a time, as the agent will find them."""
    wrong = Withdrawn(dict(saved.withdrawn))
    for entry in rows.by_kind[Kind.PENDING] if wrong.stretches else ():
        if not any(first <= entry.key <= last for first, last in saved.fixed):
            wrong.flag(entry, wrong.stretches)
    return undated(rows, wrong, saved.dating)


def _last(store: Store, key: int) -> Point | None:
    """The last point of a row that is no health point, with time 0 where that is on the boot clock."""
    row = store.find(key)
    if row is None:
        return None
    try:
        header, lines = unpack(*row, key)
    except DamagedRow:
        return None
    line = next((line for line in reversed(lines) if not count_health([line])), b"")
    point = parse(line)
    return replace(point, stamp=0) if point and header.kind == Kind.UNDATED else point


@contextlib.contextmanager
def _reading() -> Iterator[None]:
    try:
        yield
    except DiskError as error:
        raise BufferUnavailable(f"the buffer cannot be read: {error}") from error


@dataclass(frozen=True, slots=True)
class Letter:
    """A dead letter and its number, `ROW.POSITION`, which stays the same until others of its row are removed."""

    number: str
    letter: DeadLetter


class OfflineBuffer:
    """Each change is one transaction over rows and counters; a running agent reads again. Opens no lock and no socket.

    Raises BufferUnavailable when the database is damaged, missing or refuses.
    """

    def __init__(self, folder: Path, *, create: bool = False, write: bool = True) -> None:
        """Without `write` the card is spared the 260 kB that an opening writes. `create` makes what is missing."""
        self._write = write
        try:
            if create:
                folders.make(folder)
            if not create and not (folder / DATABASE).exists():
                raise BufferUnavailable(f"there is no buffer in {folder}: has the agent run with this state folder?")
            if write and (folders.unread_sets(folder) or (folder / LOST_LOG).exists()):  # rows and counters are to come
                raise BufferUnavailable(
                    f"the buffer in {folder} is being saved from damage: try again later; if no agent runs, start it"
                )
            self._store = Store(folder, owner=False, read_only=not write)
            self._ledger()
        except (DiskError, OSError, ValueError) as error:
            raise BufferUnavailable(
                f"the buffer in {folder} cannot be used ({error}): starting the agent repairs a damaged one"
            ) from error

    def __enter__(self) -> Self:
        return self

    def __exit__(self, *_: object) -> None:
        self._store.close()

    def _ledger(self) -> Saved:
        """Raises ValueError where it is lost: only in a buffer without a row none was begun yet."""
        value = self._store.get(LEDGER) if self._write else self._store.read_named(LEDGER)
        if value is None and next(self._store.scan(), None) is None:
            return Saved()
        return Saved.decode(value)

    def _change(self, change: Callable[[Saved], tuple[Saved, Counters] | None]) -> bool:
        """Run `change` inside a transaction; it returns the ledger with the keys it gave out, and what to count. False
        if it returned None: nothing has changed.
        """
        try:
            with self._store.transaction():
                changed = change(self._ledger())
                if changed is None:
                    return False
                saved, counted = changed
                saved = replace(saved, counters=saved.counters + counted, generation=saved.generation + 1)
                self._store.put(LEDGER, saved.encode())
        except DiskError as error:
            raise BufferUnavailable(f"the disk refuses: {error}") from error
        except ValueError as error:
            raise BufferUnavailable(f"the counters cannot be read: {error}") from error
        return True

    def _put(self, key: int, row: Row, saved: Saved) -> None:
        self._store.put(key, row.value, row.header.encode(row.value, key, saved.generation + 1))

    # What waits

    def _found(self, after: int = 0, before: int = 2**63 - 1) -> Iterator[tuple[int, object, object]]:
        """Key, tag and value of the rows with after < key < before that are still there when it is their turn."""
        with _reading():
            for found in self._store.scan(after, before):
                row = self._store.find(found.key)
                if row is not None:
                    yield (found.key, *row)

    def waiting(self) -> Iterator[tuple[Header, list[bytes]]]:
        """The rows that wait and their lines, oldest first. Damaged ones are left to the agent."""
        for key, tag, value in self._found(before=dead_letters.BASE):
            with contextlib.suppress(DamagedRow):
                yield unpack(tag, value, key)

    def headers(self) -> Iterator[Header]:
        """The same, without the lines."""
        with _reading():
            for found in self._store.scan(before=dead_letters.BASE):
                with contextlib.suppress(DamagedRow):
                    yield read_header(found.tag)

    def counters(self) -> Counters:
        """As last saved."""
        try:
            return self._ledger().counters
        except (DiskError, ValueError) as error:
            raise BufferUnavailable(f"the counters cannot be read: {error}") from error

    def add(self, rows: Sequence[Row]) -> None:
        """Store rows of points that were measured elsewhere, in one transaction."""

        def change(saved: Saved) -> tuple[Saved, Counters]:
            key = saved.last_key
            counted = Counters()
            for row in rows:
                key += 1
                self._put(key, row, saved)
                counted += counters.measured(row.header.count, row.header.health)
            fixed = joined([*saved.fixed, (saved.last_key + 1, key)]) if rows else saved.fixed
            return replace(saved, last_key=key, fixed=fixed), counted

        self._change(change)

    # Dead letters

    def _letters(self) -> Iterator[tuple[int, object, list[Letter]]]:
        """Key, tag and letters of each row of them."""
        for key, tag, value in self._found(after=dead_letters.BASE):
            with contextlib.suppress(DamagedRow):
                letters = enumerate(dead_letters.unpack(tag, value, key), 1)
                yield (
                    key,
                    tag,
                    [Letter(f"{key - dead_letters.BASE}.{position}", letter) for position, letter in letters],
                )

    def letters(self) -> Iterator[Letter]:
        """Oldest first."""
        for _, _, letters in self._letters():
            yield from letters

    def remove(self, chosen: Callable[[Letter], bool], *, replay: bool) -> int:
        """Remove the chosen letters; with `replay` they wait to be delivered again. One transaction a row of letters.

        Returns how many: those of a row that somebody else has changed or removed meanwhile are left to them. Purged
        points stay counted as rejected.
        """
        done = 0
        for key, tag, letters in list(self._letters()):
            out = [item.letter for item in letters if chosen(item)]
            kept = [item.letter for item in letters if not chosen(item)]
            if out and self._change(partial(self._take, key, tag, out, kept, replay=replay)):
                done += len(out)
        return done

    def _take(
        self, key: int, tag: object, out: list[DeadLetter], kept: list[DeadLetter], saved: Saved, *, replay: bool
    ) -> tuple[Saved, Counters] | None:
        found = self._store.find(key)
        if found is None or found[0] != tag:  # the tag has a checksum and the transaction
            return None
        if kept:
            (row,) = dead_letters.pack(kept)
            self._put(key, row, saved)
        else:
            self._store.delete(key)
        if not replay:
            return saved, Counters()
        lines = [letter.line for letter in out]
        row = pack(lines, Kind.PENDING)
        self._put(saved.last_key + 1, row, saved)
        change = counters.replayed(saved.counters, len(lines), count_health(lines))
        return replace(saved, last_key=saved.last_key + 1), change
