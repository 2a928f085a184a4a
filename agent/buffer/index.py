"""What rows there are on disk, as kept in memory: key, points and size of each in compact arrays, so that taking the
next batch, the bounds and the number of waiting points cost nothing (37 bytes a row; values are never read for it).
"""

from __future__ import annotations

from array import array
from bisect import bisect_left
from collections.abc import Callable, Iterable, Iterator
from dataclasses import dataclass, field
from itertools import compress
from typing import NamedTuple

from agent.buffer.batch import BufferStatus, UndatedBoot
from agent.buffer.rows import Header, Kind

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


def entry_of(key: int, header: Header, size: int) -> Entry:
    first, last = header.first_ns // 1_000_000, header.last_ns // 1_000_000
    return Entry(key, header.count, header.health, size, header.thin, first, last)


def entries_of(columns: tuple[array[int], ...]) -> list[Entry]:
    """The rows that Index.columns() gave."""
    return [entry for entry in map(Entry, *columns) if entry.points >= 0]


class Index:
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
        """Rows by rising key. The index must not change meanwhile."""
        for at in range(self._head, len(self._keys)):
            if self._counts[at] >= 0:
                yield self._entry(at)

    def __reversed__(self) -> Iterator[Entry]:
        for at in range(len(self._keys) - 1, self._head - 1, -1):
            if self._counts[at] >= 0:
                yield self._entry(at)


@dataclass(slots=True)
class RowIndex:
    """The rows on disk, by kind; undated ones by boot, with the first and last stamp of each boot."""

    by_kind: dict[Kind, Index] = field(
        default_factory=lambda: {k: Index() for k in (Kind.PENDING, Kind.SUSPECT, Kind.PARKED, Kind.DEAD)}
    )
    undated: dict[str, Index] = field(default_factory=dict)
    spans: dict[str, tuple[int, int]] = field(default_factory=dict)

    def add(self, key: int, header: Header, size: int) -> None:
        self.remove(key)
        if header.kind == Kind.UNDATED:
            first, last = self.spans.get(header.boot, (header.first_ns, header.last_ns))
            self.spans[header.boot] = min(first, header.first_ns), max(last, header.last_ns)
            self.undated.setdefault(header.boot, Index()).add(entry_of(key, header, size))
        else:
            self.by_kind[header.kind].add(entry_of(key, header, size))

    def remove(self, key: int) -> Entry | None:
        for index in self.by_kind.values():
            if (entry := index.remove(key)) is not None:
                return entry
        for boot, index in self.undated.items():
            if (entry := index.remove(key)) is not None:
                if not len(index):
                    del self.undated[boot], self.spans[boot]
                return entry
        return None

    def __contains__(self, key: object) -> bool:
        return isinstance(key, int) and any(key in index for index in (*self.by_kind.values(), *self.undated.values()))

    def waiting(self) -> Iterator[tuple[Index, Kind, str]]:
        """The indexes of points that wait, all but the dead letters, with their kind and, of undated ones, the boot."""
        yield from ((index, kind, "") for kind, index in self.by_kind.items() if kind != Kind.DEAD)
        yield from ((index, Kind.UNDATED, boot) for boot, index in self.undated.items())

    @property
    def points(self) -> int:
        return sum(index.points for index, _, _ in self.waiting())

    @property
    def health(self) -> int:
        return sum(index.health for index, _, _ in self.waiting())

    def next_of(self, kinds: Iterable[Kind], limit: int, free: Callable[[int], bool]) -> tuple[Kind, list[int]]:
        """The next free rows of the first kind that has some older than the others': one, or up to `limit` points of
        pending ones.
        """
        heads: list[tuple[int, Kind]] = []
        for kind in kinds:
            first = next((e for e in self.by_kind[kind] if free(e.key)), None)
            if first is not None:
                heads.append((first.key, kind))
        if not heads:
            return Kind.PENDING, []
        start, kind = min(heads)
        stop = min((key for key, other in heads if other != kind), default=None)
        keys: list[int] = []
        points = 0
        for entry in self.by_kind[kind]:
            if entry.key < start or not free(entry.key):
                continue
            if keys and (kind != Kind.PENDING or points + entry.points > limit or (stop and entry.key > stop)):
                break
            keys.append(entry.key)
            points += entry.points
        return kind, keys

    def boots(self) -> list[UndatedBoot]:
        """The boots of undated rows, the oldest first."""
        found = [
            UndatedBoot(boot, index.points, *self.spans[boot], next(iter(index)).key)
            for boot, index in self.undated.items()
        ]
        return sorted(found, key=lambda boot: boot.key)

    def status(self) -> BufferStatus:
        """What the rows alone tell of a buffer."""
        stamped = (self.by_kind[kind] for kind in (Kind.PENDING, Kind.SUSPECT, Kind.PARKED))
        oldest = [e.first_ms for index in stamped for e in [next(iter(index), None)] if e is not None]
        return BufferStatus(
            pending_disk=self.points,
            undated=sum(index.points for index in self.undated.values()),
            suspect=self.by_kind[Kind.SUSPECT].points,
            parked=self.by_kind[Kind.PARKED].points,
            dead_letters=self.by_kind[Kind.DEAD].points,
            oldest_ns=min(oldest) * 1_000_000 if oldest else None,
            rows=sum(len(index) for index, _, _ in self.waiting()),
        )
