"""What was damaged comes back: all that can still be read of files that were set aside, a part at a time, beside the
running agent. Bounded by what the files hold, stopped between two parts, and each row once, however often that is.
"""

from __future__ import annotations

import contextlib
import logging
from collections.abc import Callable, Iterator
from dataclasses import dataclass, field, replace
from pathlib import Path

from agent.buffer import carving, dead_letters
from agent.buffer import folder as folders
from agent.buffer import ledger as counters
from agent.buffer.disk import Disk
from agent.buffer.disk_error import DiskError
from agent.buffer.ledger import Saved
from agent.buffer.plan import Plan, Rewrite
from agent.buffer.queue import Queue
from agent.buffer.recovery import LEDGER
from agent.buffer.rows import DamagedRow, Header, Kind, Row, check
from agent.buffer.store import Store

log = logging.getLogger(__name__)

_PART_ROWS, _PART_BYTES = 200, 2**20
"""In one transaction."""


@dataclass(frozen=True, slots=True)
class Part:
    """Rows that came back, by rising key up to `upto`, or the ledger that stands before all of them."""

    upto: int = 0
    rows: list[tuple[int, Header, bytes]] = field(default_factory=list)
    ledger: Saved | None = None


def parts(home: Path, after: int | None) -> Iterator[Part | None]:
    """What can be read of the damaged files in `home`, page by page, as SQLite itself may give up anywhere: first the
    latest ledger (`after` None: nothing of it was taken yet), then the rows behind key `after`. None: a moment's work.
    """
    carved = carving.Carved(home, LEDGER)
    yield from carved.fill()
    if after is None:
        yield Part(ledger=max(carved.ledgers, key=lambda saved: saved.generation, default=Saved()))
    places = (place for place in carved.places if after is None or place.key > after)
    rows = ((place.key, *found) for place in places if (found := carved.read(place)) is not None)
    yield from _in_parts(rows)


def parts_of(store: Store) -> Iterator[Part | None]:
    """The rows of a database that was deleted, through the connection that still has it open."""
    yield from _in_parts(_rows_of(store))


def _rows_of(store: Store) -> Iterator[tuple[int, Header, bytes]]:
    with contextlib.suppress(DiskError):
        for found in store.scan():
            tag, value = store.read(found.key)
            with contextlib.suppress(DamagedRow):
                header = check(tag, value, found.key)
                assert isinstance(value, bytes)
                yield found.key, header, value


def _in_parts(rows: Iterator[tuple[int, Header, bytes]]) -> Iterator[Part]:
    some: list[tuple[int, Header, bytes]] = []
    size = 0
    for row in rows:
        some.append(row)
        size += len(row[2])
        if len(some) >= _PART_ROWS or size > _PART_BYTES:
            yield Part(row[0], some)
            some, size = [], 0
    if some:
        yield Part(some[-1][0], some)


class Salvage:
    """Where it stands is in the ledger: with each part the key up to which a set is done."""

    def __init__(self, disk: Disk, queue: Queue, write: Callable[[Plan], None]) -> None:
        self._disk, self._queue, self._write = disk, queue, write
        self._unread = True
        """Whether there may be damaged files that are not read yet."""
        self._under_way: tuple[str, Iterator[Part | None]] | None = None
        self._points = 0

    def begin_again(self) -> None:
        """After what is on disk by then: something was damaged, or could not be written."""
        self._under_way, self._unread = None, True
        self._queue.rows_to_come = True

    def step(self) -> bool:
        """A moment's work, or a transaction. False: there is nothing left to do. Raises DiskError."""
        if not self._unread:
            return False
        if self._under_way is None:
            self._under_way = self._begin()
            self._unread = self._queue.rows_to_come = self._under_way is not None
            return self._unread
        name, parts = self._under_way
        for part in parts:
            if part is not None:
                self._take_back(name, part)
            break
        else:
            self._end(name)
        return True

    def _begin(self) -> tuple[str, Iterator[Part | None]] | None:
        self._points = 0
        if self._disk.orphan is not None:
            return "", parts_of(self._disk.orphan)
        homes = folders.unread_sets(self._disk.folder)
        if not homes:
            return None
        home = homes[-1]  # the newest: its ledger says what of the others is in it
        log.warning("buffer: reading what can be read of %s", home)
        return home.name, parts(home, self._queue.saved.recovering.get(home.name))

    def _take_back(self, name: str, part: Part) -> None:
        now = self._queue.counters
        plan = Plan(recovered={name: part.upto} if name else {})
        if part.ledger is not None:  # its points are given up, until they are found
            self._queue.join(part.ledger)
            unread, known = {home.name for home in folders.unread_sets(self._disk.folder)}, self._queue.saved.recovering
            plan.recovered |= {n: key for n, key in part.ledger.recovering.items() if n in unread and n not in known}
            plan.found = part.ledger.counters + counters.balance(part.ledger.counters, 0, 0)
        for key, header, value in part.rows:
            if header.kind == Kind.DEAD:
                plan.back += dead_letters.letters_of(value)
                continue
            if not self._queue.wants(key):
                continue
            back = counters.regained(now, header.count, header.health)
            now += back
            self._points += header.count
            plan.rewrites.append(Rewrite((key,), Row(replace(header, replaced=()), value), back, back=True))
        self._write(plan)

    def _end(self, name: str) -> None:
        self._under_way = None
        log.warning("buffer: %d points were read back", self._points)
        if name:  # first for good: read again after its points were delivered, they would count twice
            folders.mark_read(self._disk.folder / folders.DAMAGED / name)
            self._write(Plan(recovered={name: None}))
        else:
            self._disk.forget_orphan()
