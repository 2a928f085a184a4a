"""What is given out or being worked on, so that nobody else takes, merges, thins or drops it just now."""

from __future__ import annotations

import threading
from collections.abc import Collection, Container, Iterable, Iterator
from contextlib import contextmanager

from agent.buffer.batch import Batch
from agent.buffer.rows import Ranges
from agent.buffer.tail import Block, Tail


class Gone:
    """Rows that are settled or given up, and still on disk; a part of the queue, guarded by its lock."""

    MANY = 200
    """They are removed with the next commit, or as soon as they are so many."""

    def __init__(self) -> None:
        self.keys: set[int] = set()
        self.since_ns: int | None = None
        self.elsewhere: set[int] = set()
        """The same of a database that was replaced: they need not come back."""

    def add(self, key: int, now_ns: int) -> None:
        self.keys.add(key)
        if self.since_ns is None:
            self.since_ns = now_ns

    def removed(self, keys: Iterable[int], now_ns: int) -> None:
        """They are off the disk."""
        self.keys.difference_update(keys)
        self.since_ns = now_ns if self.keys else None

    def is_news(self, before: int) -> bool:
        """Whether the committer must learn of them, who were `before`: of the first, and when they are many."""
        return before == 0 < len(self.keys) or len(self.keys) >= self.MANY


class Pins:
    """A part of the queue, guarded by its lock: hold() takes it, the caller of all else has it.

    `out`: rows in batches that are given out. `flown`: points in memory that were committed while they were in flight
    (id of the block → row, which is out). `fixed`: rows whose stamps stay whatever the
    clock was: the server may have them, or they came with a time of their own. `bad`: rows
    that cannot be read, until they are set aside.
    """

    def __init__(self, lock: threading.RLock, tail: Tail) -> None:
        self._lock, self._tail = lock, tail
        self._held: set[int] = set()
        self.out: set[int] = set()
        self.flown: dict[int, int] = {}
        self.fixed: set[int] = set()
        self.bad: set[int] = set()

    def free(self, key: int) -> bool:
        return key not in self._held and key not in self.out and key not in self.bad

    def taken(self) -> frozenset[int]:
        """The rows that are not free."""
        return frozenset(self._held | self.out | self.bad)

    def give_out(self, keys: Iterable[int]) -> None:
        self.out.update(keys)

    def has_out(self, batch: Batch) -> bool:
        """Whether all of a batch is still given out: an answer counts once."""
        for key in batch.keys:
            block = self._tail.blocks.get(key)
            flies = key in self.flown or (block is not None and block.in_flight)
            if not (key in self.out if key > 0 else flies):
                return False
        return True

    def sent(self, batch: Batch) -> bool:
        """Whether the server may have some of it from an earlier time."""
        blocks = (self._tail.blocks.get(key) for key in batch.keys)
        rows = (self.flown.get(key, key) for key in batch.keys)
        return any(block is not None and block.sent for block in blocks) or not self.fixed.isdisjoint(rows)

    def give_back(self, batch: Batch) -> tuple[list[int], list[Block]]:
        """A batch is given out no more. Its rows, and its points in memory, wherever they are by now."""
        rows: list[int] = []
        blocks: list[Block] = []
        for key in batch.keys:
            if key > 0 or key in self.flown:
                rows.append(self.flown.pop(key, key))
            elif (block := self._tail.blocks.get(key)) is not None:
                block.in_flight = False
                blocks.append(block)
        self.out.difference_update(rows)
        return rows, blocks

    def fix(self, ranges: Ranges, least: int = 0) -> None:
        """The stamps of these rows stay, as the ledger says; `least`: those with a smaller key are known."""
        self.fixed.update(key for first, last in ranges for key in range(max(first, least), last + 1))

    def found(self, present: Container[int], bad: set[int]) -> None:
        """The rows as they are found on disk."""
        self.out = {key for key in self.out if key in present}
        self.flown = {block: key for block, key in self.flown.items() if key in present}
        self.fixed = {key for key in self.fixed if key in present}
        self.bad = bad

    @contextmanager
    def hold(self, keys: Collection[int]) -> Iterator[None]:
        """Rows that are being read or rewritten. Whatever happens, they are free after, unless given out or bad."""
        with self._lock:
            self._held.update(keys)
        try:
            yield
        finally:
            with self._lock:
                self._held.difference_update(keys)
