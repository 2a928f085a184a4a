"""Making old points coarser: of each series every second point goes, so that an outage of any length stays covered."""

from __future__ import annotations

from typing import TYPE_CHECKING

from agent.points.schema import series_of

if TYPE_CHECKING:
    from collections.abc import Iterable, Sequence

    from agent.buffer.index import Entry


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
