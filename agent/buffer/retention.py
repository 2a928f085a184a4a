"""How the buffer stays within its bounds: which points become coarser, and which go. Pure: a view in, a plan out."""

from __future__ import annotations

from array import array
from collections.abc import Iterable, Iterator, Sequence
from dataclasses import dataclass
from typing import Literal, NamedTuple

from agent.buffer.compaction import fit
from agent.buffer.index import Entry, entries_of
from agent.buffer.rows import Kind
from agent.buffer.tail import Block
from agent.points.schema import series_of

RESERVE_BYTES = 2_000_000
"""Of the configured size, what the log and the ballast take."""
POINT_BYTES = 40
"""What a point in memory may take on disk."""
_DROPPED_ROWS = 1000
"""In one transaction."""
_COARSEST = 60
"""Times that points are thinned, at most: 2**60 seconds are enough."""


class FreeRow(NamedTuple):
    """A row that waits, and may be changed: what the index says of it, its kind, and the boot of an undated one."""

    entry: Entry
    kind: Kind
    boot: str


@dataclass(frozen=True, slots=True)
class View:
    """The rows that wait: of each queue the columns (Index.columns()), the kind, and the boot of undated ones. Those
    `taken` are not to be touched.
    """

    queues: Sequence[tuple[tuple[array[int], ...], Kind, str]]
    taken: frozenset[int]

    def oldest_first(self) -> list[FreeRow]:
        """Over all kinds and boots: keys rise with time."""
        rows = [
            FreeRow(entry, kind, boot)
            for columns, kind, boot in self.queues
            for entry in entries_of(columns)
            if entry.key not in self.taken
        ]
        return sorted(rows, key=lambda row: row.entry.key)


def budget(max_size: int) -> int:
    """Bytes of the database that may be in use."""
    return max(max_size - RESERVE_BYTES, max_size // 2)


def excess(used: int, memory_points: int, letter_bytes: int, max_size: int) -> int:
    """Bytes beyond the bound once what is in memory is on disk; below 0 there is room.

    Dead letters have a bound of their own: no point that waits makes room for them.
    """
    return used + memory_points * POINT_BYTES - letter_bytes - budget(max_size)


def oldest(view: View, over: int) -> list[int]:
    """Keys of the oldest rows, of `over` bytes or one."""
    chosen: list[int] = []
    freed = 0
    for row in view.oldest_first():
        if freed > over or len(chosen) == _DROPPED_ROWS:
            break
        chosen.append(row.entry.key)
        freed += row.entry.size
    return chosen


def aged(view: View, before_ms: int) -> list[int]:
    """Keys of rows whose points are all older than this (Unix ms); undated ones have no age."""
    dated = (row for row in view.oldest_first() if row.kind != Kind.UNDATED)
    return [row.entry.key for row in dated if row.entry.last_ms < before_ms]


def next_to_thin(rows: Sequence[FreeRow], limit: int) -> list[FreeRow]:
    """Which of these rows, oldest first, are thinned next: of the older half of all points, the oldest run (of one kind
    and boot) among those that were thinned least, up to `limit` points. So the older half becomes evenly coarse over
    all kinds and boots, and the newer stays as it was. Empty where nothing can become coarser any more.
    """
    half = sum(row.entry.points for row in rows) // 2
    older = rows[: len(fit((row.entry for row in rows), half))]
    least = min((row.entry.thin for row in older), default=_COARSEST)
    if least >= _COARSEST:
        return []
    first = next(row for row in older if row.entry.thin == least)
    run: list[FreeRow] = []
    points = 0
    for row in older:
        if row[1:] != first[1:]:  # another kind or boot may lie between
            continue
        if row.entry.thin != least or (run and points + row.entry.points > limit):
            if run:
                break
            continue
        run.append(row)
        points += row.entry.points
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
    """What is left of blocks in memory, given oldest first, so that `excess` points or more go: where they become
    coarser, those first that were thinned least.
    """
    for block in sorted(blocks, key=lambda block: block.thin) if policy == "thin" else ():
        if excess <= 0:
            return
        kept = thinned(block.lines)
        excess -= len(block.lines) - len(kept)
        if len(kept) < len(block.lines):
            yield block, kept
    for block in reversed(blocks) if policy == "drop_newest" else blocks:
        if excess <= 0:
            return
        kept = block.lines[:-excess] if policy == "drop_newest" else block.lines[excess:]
        excess -= len(block.lines) - len(kept)
        yield block, kept
