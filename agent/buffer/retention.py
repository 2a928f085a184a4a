"""Keeping the buffer within its bounds: its size and the age of what it holds. Every point that goes is counted."""

from __future__ import annotations

import logging
import time
from typing import TYPE_CHECKING

from agent.buffer import compaction, due
from agent.buffer import ledger as counters
from agent.buffer.index import entries_of
from agent.buffer.rows import MAX_LINES, Kind, count_health, pack
from agent.buffer.thinning import coarsest_next, thinned

if TYPE_CHECKING:
    from collections.abc import Callable

    from agent.buffer.commit import Flusher
    from agent.buffer.index import Entry
    from agent.buffer.queue import State
    from agent.config.settings import BufferSettings

log = logging.getLogger(__name__)

RESERVE_BYTES = 2_000_000
"""Of the configured size, what the log and the ballast take."""
POINT_BYTES = 40
"""What a point in memory may take on disk."""
HURRY_S, LEISURE_S = 1.0, 2.0
"""Seconds that a commit may be spent on making room, before it and after it."""
_DROPPED_ROWS = 1000
"""In one transaction."""
_COARSEST = 60
"""Times that points are thinned, at most: 2**60 seconds are enough."""


def budget(max_size: int) -> int:
    """Bytes of the database that may be in use."""
    return max(max_size - RESERVE_BYTES, max_size // 2)


def excess(flusher: Flusher) -> int:
    """Bytes beyond the bound once what is in memory is on disk; below 0 there is room.

    Dead letters have a bound of their own: no point that waits makes room for them.
    """
    used = flusher.store.usage()[0] + flusher.state.memory.points * POINT_BYTES
    return used - flusher.state.rows.queues[Kind.DEAD].bytes - budget(flusher.settings.max_size)


def before(flusher: Flusher) -> None:
    """Before a commit: where the newest points are to go, they go now; else only an excess beyond the reserve is
    taken down at once, as the loss window runs.
    """
    over = excess(flusher)
    if over > 0 and flusher.settings.when_full == "drop_newest":
        drop_newest(flusher.state)
    elif over > RESERVE_BYTES // 2:
        _reduce(flusher, RESERVE_BYTES // 2, HURRY_S)


def after(flusher: Flusher) -> None:
    """After a commit: what is too old, and what is too much, for a while; the rest after the next one."""
    settings, clock = flusher.settings, flusher.clock
    now = clock.date(clock.boot_ns())
    if settings.max_age is not None and now is not None:
        drop_aged(flusher.state, now // 1_000_000 - int(settings.max_age * 1000))
    if settings.when_full != "drop_newest":
        _reduce(flusher, 0, LEISURE_S, lambda: due.pressing(flusher))


def _reduce(flusher: Flusher, allowed: int, seconds: float, pressing: Callable[[], bool] = lambda: False) -> None:
    """Thin or drop the oldest rows until the excess is at most `allowed` bytes, time is up or something presses."""
    state, until = flusher.state, time.monotonic() + seconds
    while (over := excess(flusher) - allowed) > 0 and time.monotonic() < until and not pressing():
        if flusher.settings.when_full == "thin" and thin(flusher):
            continue
        if not drop_oldest(state, over):
            return
        flusher.commit(state.plan(everything=False))


def drop_newest(state: State) -> None:
    """The measured points in memory are given up."""
    with state.lock:
        for block in list(state.memory.free(Kind.PENDING, Kind.UNDATED, live=True)):
            state.drop_lines(block, [], "max_size")


def drop_oldest(state: State, over: int) -> bool:
    """Give up the oldest rows, of `over` bytes or one; pending ones first. False if there is none to give."""
    with state.lock:
        for queue in list(state.rows.waiting()):
            chosen: list[Entry] = []
            freed = 0
            for entry in queue:
                if freed > over or len(chosen) == _DROPPED_ROWS:
                    break
                if entry.key not in state.pinned:
                    chosen.append(entry)
                    freed += entry.size
            for entry in chosen:
                state.drop_row(entry.key)
                state.ledger.count(counters.dropped("max_size", entry.points, entry.health))
            if chosen:
                return True
    return False


def drop_aged(state: State, before_ms: int) -> None:
    """Give up rows whose points are all older than this (Unix ms)."""
    with state.lock:
        for kind in (Kind.PENDING, Kind.SUSPECT, Kind.PARKED):
            aged = []
            for entry in state.rows.queues[kind]:
                if entry.last_ms >= before_ms:
                    break
                if entry.key not in state.pinned:
                    aged.append(entry)
            for entry in aged:
                state.drop_row(entry.key)
                state.ledger.count(counters.dropped("max_age", entry.points, entry.health))


def thin(flusher: Flusher) -> bool:
    """Halve the next of the oldest points. False if nothing can be thinned any more."""
    state = flusher.state
    with state.lock:
        copies = [queue.columns() for queue in state.rows.waiting()]
        pinned = set(state.pinned)
    run: list[Entry] = []
    for columns in copies:
        run = coarsest_next([entry for entry in entries_of(columns) if entry.key not in pinned], MAX_LINES)
        if run:
            break
    with state.lock:
        if not run or run[0].thin >= _COARSEST:
            return False
        if any(entry.key in state.pinned or entry.key not in state.rows for entry in run):
            return True  # delivery was faster
        state.pinned.update(entry.key for entry in run)
    keys = tuple(entry.key for entry in run)
    lines = compaction.read_lines(state, flusher.store, keys)
    if lines is None:
        return True
    kept = thinned(lines)
    if len(kept) == len(lines):
        with state.lock:
            state.pinned.difference_update(keys)
        return False
    lost = counters.dropped("thinned", len(lines) - len(kept), count_health(lines) - count_health(kept))
    kind, boot = kind_of(state, keys[0])
    row = pack(kept, kind, boot=boot, thin=run[0].thin + 1)
    flusher.commit(state.plan(everything=False), [compaction.Merge(keys, row, lost)])
    return True


def kind_of(state: State, key: int) -> tuple[Kind, str]:
    """The kind of a row, and the boot of an undated one."""
    with state.lock:
        for kind, queue in state.rows.queues.items():
            if key in queue:
                return kind, ""
        boots = (boot for boot, queue in state.rows.undated.items() if key in queue)
        return Kind.UNDATED, next(boots, "")


def shrink(state: State, settings: BufferSettings) -> None:
    """More points in memory than allowed: as `when_full` says. Under the lock; what is in flight stays."""
    memory, policy = state.memory, settings.when_full
    blocks = list(memory.free(Kind.PENDING, Kind.UNDATED, Kind.SUSPECT, Kind.PARKED))
    for block in reversed(blocks) if policy == "drop_newest" else blocks:
        excess = memory.points - settings.memory_points
        if excess <= 0:
            return
        kept = thinned(block.lines) if policy == "thin" else block.lines
        if len(kept) == len(block.lines):
            kept = block.lines[:-excess] if policy == "drop_newest" else block.lines[excess:]
        state.drop_lines(block, kept, "memory")
