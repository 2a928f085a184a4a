"""One transaction of the buffer: rows, what is gone, dead letters and the counters, whole or not at all."""

from __future__ import annotations

import time
from collections.abc import Sequence
from dataclasses import dataclass, replace

from agent.buffer import dead_letters, recovery
from agent.buffer.index import RowIndex
from agent.buffer.ledger import Counters, Saved
from agent.buffer.plan import Plan, Stored
from agent.buffer.queue import Queue
from agent.buffer.recovery import LEDGER
from agent.buffer.rows import MAX_LINES, Row, pack
from agent.buffer.store import Store
from agent.buffer.tail import Group

_DOUBTS = 8
"""Each commit that fails is built on the last one that did not: more never come into question."""


@dataclass(frozen=True, slots=True)
class Doubt:
    """A transaction that failed while it was committed: it may be on disk all the same. The ledger that it wrote, what
    it counted, and the keys of its new rows, but for what came from damaged files and is done with if it is there.

    Its points stay in memory and may be delivered or dropped from there. When the ledger on disk shows that it is
    there, its rows are removed and its numbers taken back with the next one: so no point is there twice.
    """

    saved: Saved
    change: Counters
    keys: tuple[int, ...]

    def undone(self, found: Saved) -> Saved:
        return replace(found, counters=found.counters - self.change)


class Transactions:
    """Writes what the queue plans. For one thread at a time."""

    def __init__(self, queue: Queue) -> None:
        self._queue = queue
        self._doubts: list[Doubt] = []
        self.behind = False
        """Whether what another process has changed is still to be read."""

    def write(self, store: Store, plan: Plan, *, clean: bool) -> float:
        """Write a plan, and tell the queue. Returns the seconds it took.

        Raises DiskError: nothing has changed, or all is written and what another process has changed cannot be read.
        """
        packed = [_pack(group) for group in plan.groups]
        letters, returning = dead_letters.pack(plan.letters), dead_letters.pack(plan.back)
        doubt: Doubt | None = None
        began = time.monotonic()
        try:
            with store.transaction():
                found, foreign = self._found(store)
                places = _Places(store, found, set(plan.gone))
                for gone in plan.gone:
                    store.delete(gone)
                rows = [
                    [places.row(row, group.place) for row in some]
                    for group, some in zip(plan.groups, packed, strict=True)
                ]
                dead = [places.letters(row) for row in letters]
                back = [places.letters(row) for row in returning]
                for rewrite in plan.rewrites:
                    for key in rewrite.keys[bool(rewrite.row.header.count) :]:
                        store.delete(key)
                    if rewrite.row.header.count:
                        places.put(rewrite.keys[0], rewrite.row)
                saved = self._queue.to_save(places.ledger, plan, clean=clean, wall_s=time.time())
                store.put(LEDGER, saved.encode())
                doubt = Doubt(saved, plan.change, (*places.taken, *(key for key, _, _ in dead)))
        except BaseException:
            if doubt is not None:
                self._doubts = [*self._doubts, doubt][-_DOUBTS:]
            raise
        seconds = time.monotonic() - began
        self._doubts.clear()
        fresh = None
        try:
            if foreign:
                self.behind = True
                fresh = self.all_of_it(store)
        finally:  # it is on disk, whatever else cannot be read now
            self._queue.written(plan, rows, [*dead, *back], saved, fresh)
        return seconds

    def _found(self, store: Store) -> tuple[Saved, bool]:
        """The ledger as it stands on disk, inside a transaction, and whether it is not the one that we wrote last:
        another process was there, or a transaction in doubt, which is undone.
        """
        known = self._queue.saved
        try:
            found = Saved.decode(store.get(LEDGER))
        except ValueError:
            return recovery.numbered(known, *recovery.scan(store)), True
        doubt = self._shown_by(found)
        if doubt is not None:
            for key in doubt.keys:
                store.delete(key)
            return doubt.undone(found), True
        return found, self.behind or found.generation != known.generation

    def _shown_by(self, found: Saved) -> Doubt | None:
        return next((doubt for doubt in self._doubts if doubt.saved == found), None)

    def believed(self, rows: RowIndex, found: Saved) -> Saved:
        """Index and ledger as read, without a transaction in doubt."""
        doubt = self._shown_by(found)
        if doubt is None:
            return found
        for key in doubt.keys:
            rows.remove(key)
        return doubt.undone(found)

    def all_of_it(self, store: Store) -> tuple[RowIndex, set[int], Saved]:
        """Index and ledger as they are on disk now."""
        with store.transaction():  # nothing changes in between
            rows, bad = recovery.scan(store)
            try:
                saved = self.believed(rows, Saved.decode(store.get(LEDGER)))
            except ValueError:
                saved = self._queue.saved
        self.behind = False
        return rows, bad, saved


class _Places:
    """Where the rows of one transaction go."""

    def __init__(self, store: Store, found: Saved, free: set[int]) -> None:
        self._store, self._free = store, free
        self.ledger = found
        self.taken: list[int] = []

    def row(self, row: Row, places: Sequence[int]) -> Stored:
        """Store a row, in one of these places if that is free, else under a new key."""
        key = next((k for k in places if k in self._free), None)
        if key is None:
            key = self.ledger.last_key + 1
            self.ledger = replace(self.ledger, last_key=key)
        self._free.discard(key)
        self.taken.append(key)
        return self.put(key, row)

    def letters(self, row: Row) -> Stored:
        self.ledger = replace(self.ledger, last_dead=self.ledger.last_dead + 1)
        return self.put(dead_letters.BASE + self.ledger.last_dead, row)

    def put(self, key: int, row: Row) -> Stored:
        self._store.put(key, row.value, row.header.encode(row.value, key, self.ledger.generation + 1))
        return key, row.header, len(row.value)


def _pack(group: Group) -> list[Row]:
    """One row for what is in flight or was refused, else rows of up to MAX_LINES."""
    lines = group.lines
    step = len(lines) if group.single else MAX_LINES
    return [pack(lines[n : n + step], group.kind, boot=group.boot) for n in range(0, len(lines), step)]
