"""The loop that keeps the loss window: it writes what is due, whatever the others wait for."""

from __future__ import annotations

from agent.buffer.buffer import Buffer
from agent.util.loops import Loop

NOTICE_S = 2.0
"""How often it looks whether another process has changed the database."""


class Committer(Loop):
    """A util.loops.Loop."""

    def __init__(self, buffer: Buffer) -> None:
        self.buffer = buffer
        self.alive_boot_ns = buffer.clock.boot_ns()
        """When the loop last went round, for the watchdog."""
        self.wakeup = buffer.wake
        self._noticed_ns = 0
        self._opened = self._checked = False

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
        return min(max((deadline - buffer.clock.boot_ns()) / 1e9, 0.005), NOTICE_S)
