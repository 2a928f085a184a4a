"""How the buffer stays within its bounds: which points become coarser, and which go. Pure: a view in, a plan out."""

from __future__ import annotations

from dataclasses import dataclass
from typing import TYPE_CHECKING

from agent.buffer.index import entries_of
from agent.buffer.rows import Kind
from agent.points.schema import series_of

if TYPE_CHECKING:
    from array import array
    from collections.abc import Iterable, Iterator, Sequence
    from typing import Literal

    from agent.buffer.index import Entry
    from agent.buffer.tail import Block

RESERVE_BYTES = 2_000_000
"""Of the configured size, what the log and the ballast take."""
POINT_BYTES = 40
"""What a point in memory may take on disk."""
_DROPPED_ROWS = 1000
"""In one transaction."""
_COARSEST = 60
"""Times that points are thinned, at most: 2**60 seconds are enough."""


@dataclass(frozen=True, slots=True)
class View:
    """The rows that wait, oldest first in each queue: their columns (Index.columns()), kind, and boot of undated ones.
    Those `taken` are not to be touched.
    """

    queues: Sequence[tuple[tuple[array[int], ...], Kind, str]]
    taken: frozenset[int]

    def free(self) -> Iterator[tuple[list[Entry], Kind, str]]:
        for columns, kind, boot in self.queues:
            yield [entry for entry in entries_of(columns) if entry.key not in self.taken], kind, boot


def budget(max_size: int) -> int:
    """Bytes of the database that may be in use."""
    return max(max_size - RESERVE_BYTES, max_size // 2)


def excess(used: int, memory_points: int, letter_bytes: int, max_size: int) -> int:
    """Bytes beyond the bound once what is in memory is on disk; below 0 there is room.

    Dead letters have a bound of their own: no point that waits makes room for them.
    """
    return used + memory_points * POINT_BYTES - letter_bytes - budget(max_size)


def oldest(view: View, over: int) -> list[int]:
    """Keys of the oldest rows, of `over` bytes or one; pending ones first."""
    for entries, _, _ in view.free():
        chosen: list[int] = []
        freed = 0
        for entry in entries:
            if freed > over or len(chosen) == _DROPPED_ROWS:
                break
            chosen.append(entry.key)
            freed += entry.size
        if chosen:
            return chosen
    return []


def aged(view: View, before_ms: int) -> list[int]:
    """Keys of rows whose points are all older than this (Unix ms); undated ones have no age."""
    found: list[int] = []
    for entries, kind, _ in view.free():
        for entry in entries if kind != Kind.UNDATED else ():
            if entry.last_ms >= before_ms:
                break
            found.append(entry.key)
    return found


def next_to_thin(view: View, limit: int) -> tuple[list[Entry], Kind, str] | None:
    """Rows whose points are halved next, up to `limit` points, with their kind and boot; None where that ends."""
    for entries, kind, boot in view.free():
        run = coarsest_next(entries, limit)
        if run:
            return (run, kind, boot) if run[0].thin < _COARSEST else None
    return None


def coarsest_next(entries: Sequence[Entry], limit: int) -> list[Entry]:
    """Which of these rows, oldest first, are thinned next: of the older half, the oldest run among those that were
    thinned least, up to `limit` points. So the older half becomes evenly coarse, the newer stays as it was.
    """
    half = sum(entry.points for entry in entries) // 2
    older: list[Entry] = []
    points = 0
    for entry in entries:
        if older and points + entry.points > half:
            break
        older.append(entry)
        points += entry.points
    if not older:
        return []
    least = min(entry.thin for entry in older)
    run: list[Entry] = []
    points = 0
    for entry in older:
        if entry.thin != least:
            if run:
                break
            continue
        if run and points + entry.points > limit:
            break
        run.append(entry)
        points += entry.points
    return run


def thinned(lines: Iterable[bytes]) -> list[bytes]:
    """Every second line of each series, the first one included."""
    kept: list[bytes] = []
    skip: set[bytes] = set()
    for line in lines:
        series = series_of(line)
        if series in skip:
            skip.remove(series)
        else:
            skip.add(series)
            kept.append(line)
    return kept


def shrunk(
    blocks: Sequence[Block], excess: int, policy: Literal["thin", "drop_oldest", "drop_newest"]
) -> Iterator[tuple[Block, list[bytes]]]:
    """What is left of these blocks in memory, oldest first, so that `excess` points or more go."""
    for block in reversed(blocks) if policy == "drop_newest" else blocks:
        if excess <= 0:
            return
        kept = thinned(block.lines) if policy == "thin" else block.lines
        if len(kept) == len(block.lines):
            kept = block.lines[:-excess] if policy == "drop_newest" else block.lines[excess:]
        excess -= len(block.lines) - len(kept)
        yield block, kept
