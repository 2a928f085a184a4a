"""Which of the many small rows had better be one. Pure."""

from __future__ import annotations

from collections.abc import Callable, Iterable

from agent.buffer.index import Entry
from agent.buffer.rows import MAX_LINES

MANY = 36
SMALL = 50
"""Rows of fewer points than SMALL are merged once there are MANY of them. A minute's worth at 1 Hz waits for more: each
time that they are merged points are written again.
"""
MEDIUM, FULL = MAX_LINES // 4, MAX_LINES * 4 // 5
"""Rows of fewer than MEDIUM points are merged once they hold FULL points together."""


def runs(entries: Iterable[Entry], free: Callable[[int], bool]) -> list[list[Entry]]:
    """Which rows to merge, given them newest first: at most one run of small and one of medium ones."""
    small: list[Entry] = []
    medium: list[Entry] = []
    for entry in entries:
        if not free(entry.key) or entry.points >= MEDIUM or (small and entry.thin != small[0].thin):
            break
        if entry.points < SMALL and not medium:
            small.append(entry)
        elif medium and (entry.thin != medium[0].thin or sum(e.points for e in medium) >= FULL):
            break
        else:
            medium.append(entry)
    chosen = []
    if len(small) >= MANY:
        chosen.append(fit(small[::-1]))
    if sum(entry.points for entry in medium) >= FULL:
        chosen.append(fit(medium[::-1]))
    return [run for run in chosen if len(run) > 1]


def fit(entries: Iterable[Entry], limit: int = MAX_LINES) -> list[Entry]:
    """The first of them that make a row of at most `limit` points; one at least."""
    run: list[Entry] = []
    points = 0
    for entry in entries:
        points += entry.points
        if run and points > limit:
            break
        run.append(entry)
    return run
