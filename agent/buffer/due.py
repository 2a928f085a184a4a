"""When the committer has to write, on the boot clock (ns). All but pressing() is called under the buffer's lock."""

from __future__ import annotations

from typing import TYPE_CHECKING

if TYPE_CHECKING:
    from agent.buffer.commit import Flusher
    from agent.buffer.queue import State
    from agent.config.settings import BufferSettings

SETTLE_NS = 1_000_000_000
"""What was delivered is removed from disk so much later, together with what follows …"""
SETTLE_ROWS = 200
"""… or as soon as it is this many rows."""


def tail_ns(state: State, window_ns: int, commit_s: float) -> int | None:
    """When to commit what is in memory: before its deadline by three times what a commit took of late."""
    deadline = state.memory.deadline_ns()
    margin = max(min(window_ns // 10, 500_000_000), int(3e9 * commit_s))
    return None if deadline is None else deadline - min(margin, window_ns // 2)


def crowded(state: State, settings: BufferSettings) -> bool:
    """Whether half of the memory is taken: then it is committed before its time."""
    return state.memory.points > settings.memory_points // 2


def pressing(flusher: Flusher) -> bool:
    """Whether what is in memory must be committed now: then all other work on the disk waits for its next turn."""
    settings, state = flusher.settings, flusher.state
    with state.lock:
        tail = tail_ns(state, int(settings.loss_window * 1e9), flusher.health.commit_s)
        return crowded(state, settings) or (tail is not None and flusher.boot_ns() >= tail)


def next_ns(state: State, flusher: Flusher, window_ns: int, gone_ns: int | None) -> int:
    """When there is something to write next. `gone_ns`: since when rows wait to be removed."""
    health = flusher.health
    times = [flusher.save_due_ns]
    tail = tail_ns(state, window_ns, health.commit_s)
    if tail is not None:
        times.append(tail)
    if gone_ns is not None:
        times.append(gone_ns + SETTLE_NS)
    if (
        health.problem is not None  # not opened yet, or to be tried again
        or len(state.gone) >= SETTLE_ROWS
        or state.letters
        or state.bad
        or any(boot in state.dating for boot in state.rows.undated)
        or crowded(state, flusher.settings)
    ):
        times.append(0)
    return max(min(times), health.retry_ns)
