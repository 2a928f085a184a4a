"""What rows there are, in memory: key, points and size of each in compact arrays, so that taking the next batch, the
bounds and the number of waiting points cost nothing (37 bytes a row; values are never read for it).
"""

from __future__ import annotations

from array import array
from bisect import bisect_left
from itertools import compress
from typing import TYPE_CHECKING, NamedTuple

if TYPE_CHECKING:
    from collections.abc import Iterator

_COMPACT_AFTER = 4096


class Entry(NamedTuple):
    """`size` is the length of the value in bytes; `thin` how often it was thinned; the first and last stamp in ms."""

    key: int
    points: int
    health: int
    size: int
    thin: int = 0
    first_ms: int = 0
    last_ms: int = 0


def entries_of(columns: tuple[array[int], ...]) -> list[Entry]:
    """The rows that Queue.columns() gave."""
    return [entry for entry in map(Entry, *columns) if entry.points >= 0]


class Queue:
    """Rows of one kind by rising key. A removed row leaves a gap (count -1) that is closed now and then."""

    def __init__(self) -> None:
        self._keys, self._counts, self._health = array("q"), array("i"), array("i")
        self._sizes, self._thin, self._first, self._last = array("i"), array("B"), array("q"), array("q")
        self._head = 0
        self._gaps = 0
        self.points = self.health = self.bytes = 0

    def __len__(self) -> int:
        return len(self._keys) - self._gaps

    def _find(self, key: int) -> int:
        """The position of a present key, or -1."""
        at = bisect_left(self._keys, key)
        return at if at < len(self._keys) and self._keys[at] == key and self._counts[at] >= 0 else -1

    def __contains__(self, key: int) -> bool:
        return self._find(key) >= 0

    def _entry(self, at: int) -> Entry:
        return Entry(*(column[at] for column in self._columns))

    @property
    def _columns(self) -> tuple[array[int], ...]:
        return self._keys, self._counts, self._health, self._sizes, self._thin, self._first, self._last

    def get(self, key: int) -> Entry | None:
        at = self._find(key)
        return self._entry(at) if at >= 0 else None

    def add(self, entry: Entry) -> None:
        """Enter a row, or change what is known of it."""
        self.remove(entry.key)
        at = len(self._keys) if not self._keys or entry.key > self._keys[-1] else bisect_left(self._keys, entry.key)
        if at < len(self._keys) and self._keys[at] == entry.key:
            self._gaps -= 1
            for column, number in zip(self._columns, entry, strict=True):
                column[at] = number
        else:
            for column, number in zip(self._columns, entry, strict=True):
                column.insert(at, number)
        self._head = min(self._head, at)
        self.points += entry.points
        self.health += entry.health
        self.bytes += entry.size

    def remove(self, key: int) -> Entry | None:
        at = self._find(key)
        if at < 0:
            return None
        entry = self._entry(at)
        self._counts[at] = -1
        self._gaps += 1
        self.points -= entry.points
        self.health -= entry.health
        self.bytes -= entry.size
        while self._head < len(self._keys) and self._counts[self._head] < 0:
            self._head += 1
        if self._gaps > _COMPACT_AFTER and self._gaps * 2 > len(self._keys):
            self._compact()
        return entry

    def _compact(self) -> None:
        """Close the gaps. Those of a drained backlog lie at the front and cost nothing; the lock is held."""
        if self._head * 2 > len(self._keys):
            for column in self._columns:
                del column[: self._head]
            self._gaps -= self._head
            self._head = 0
            return
        present = [count >= 0 for count in self._counts]
        for column in self._columns:
            column[:] = array(column.typecode, compress(column, present))
        self._head = self._gaps = 0

    def columns(self) -> tuple[array[int], ...]:
        """A copy of the arrays, for entries_of(): taken in no time, so that the lock need not be held for more."""
        return tuple(column[self._head :] for column in self._columns)

    def __iter__(self) -> Iterator[Entry]:
        """Rows by rising key. The queue must not change meanwhile."""
        for at in range(self._head, len(self._keys)):
            if self._counts[at] >= 0:
                yield self._entry(at)

    def __reversed__(self) -> Iterator[Entry]:
        for at in range(len(self._keys) - 1, self._head - 1, -1):
            if self._counts[at] >= 0:
                yield self._entry(at)
