"""Which rows on disk nobody may take, merge, thin or drop just now."""

from __future__ import annotations

from contextlib import contextmanager
from typing import TYPE_CHECKING

if TYPE_CHECKING:
    import threading
    from collections.abc import Collection, Container, Iterable, Iterator


class Pins:
    """A part of the queue, guarded by its lock: hold() takes it, the caller of all else has it.

    `out`: rows in batches that are given out. `flown`: points in memory that were committed while they were in flight
    (id of the block → row, which is out). `bad`: rows that cannot be read, until they are set aside.
    """

    def __init__(self, lock: threading.RLock) -> None:
        self._lock = lock
        self._held: set[int] = set()
        self.out: set[int] = set()
        self.flown: dict[int, int] = {}
        self.bad: set[int] = set()

    def free(self, key: int) -> bool:
        return key not in self._held and key not in self.out and key not in self.bad

    def taken(self) -> frozenset[int]:
        """The rows that are not free."""
        return frozenset(self._held | self.out | self.bad)

    def give_out(self, keys: Iterable[int]) -> None:
        self.out.update(keys)

    def give_back(self, key: int) -> int:
        """A key of a batch, whose row is free again. Returns the row."""
        row = self.flown.pop(key, key)
        self.out.discard(row)
        return row

    def found(self, present: Container[int], bad: set[int]) -> None:
        """The rows as they are found on disk."""
        self.out = {key for key in self.out if key in present}
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
