"""When something must be written, and the loop that keeps the loss window: it writes what is due, whatever the others
wait for.
"""

from __future__ import annotations

from typing import TYPE_CHECKING

if TYPE_CHECKING:
    import threading

    from agent.buffer.buffer import Buffer
    from agent.buffer.plan import Work

NOTICE_S = 2.0
"""How often it looks whether another process has changed the database."""
SETTLE_NS = 1_000_000_000
"""What was delivered is removed from disk so much later, together with what follows, or once it is many rows."""


def tail_ns(deadline_ns: int | None, window_ns: int, commit_s: float) -> int | None:
    """When to commit what is in memory: before its deadline by three times what a commit took of late."""
    margin = max(min(window_ns // 10, 500_000_000), int(3e9 * commit_s))
    return None if deadline_ns is None else deadline_ns - min(margin, window_ns // 2)


def crowded(points: int, memory_points: int) -> bool:
    """Whether half of the memory is taken: then it is committed before its time."""
    return points > memory_points // 2


def due_ns(work: Work, many_gone: int, memory_points: int, tail_ns: int | None, save_ns: int) -> int:
    """When there is something to write next, on the boot clock; 0: now. `save_ns`: when the counters must be saved."""
    if work.pressing or work.bad or work.gone >= many_gone or crowded(work.points, memory_points):
        return 0
    moments = [save_ns]
    if tail_ns is not None:
        moments.append(tail_ns)
    if work.gone_since_ns is not None:
        moments.append(work.gone_since_ns + SETTLE_NS)
    return min(moments)


class Committer:
    """A util.loops.Loop. `tick` is the longest sleep, in seconds."""

    def __init__(self, buffer: Buffer, tick: float = NOTICE_S) -> None:
        self.buffer = buffer
        self.tick = tick
        self.alive_boot_ns = buffer.clock.boot_ns()
        """When the loop last went round, for the watchdog."""
        self._noticed_ns = 0
        self._opened = self._checked = False

    @property
    def wakeup(self) -> threading.Event:
        return self.buffer.wake

    def finish(self) -> None:
        """The caller closes the buffer."""
        self.buffer.release()

    def step(self) -> float:
        """One round: commit what is due. Returns the seconds until the next, unless the buffer wakes it."""
        buffer = self.buffer
        if not self._opened:
            self._opened = True
            buffer.open()  # at once, and not with the first commit: a backlog waits there to be delivered
        now = self.alive_boot_ns = buffer.clock.boot_ns()
        if buffer.commit_due(now):
            buffer.commit()
        elif now - self._noticed_ns >= NOTICE_S * 1e9:
            self._noticed_ns = now
            buffer.notice()
        elif buffer.salvage():
            return 0.005
        if not self._checked and buffer.snapshot().disk_ok:
            self._checked = True
            buffer.check_in_background()
        deadline = buffer.next_deadline()
        return min(max((deadline - buffer.clock.boot_ns()) / 1e9, 0.005), self.tick)
