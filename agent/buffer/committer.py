"""The thread that keeps the loss window: it writes what is due, whatever the others wait for."""

from __future__ import annotations

import logging
from typing import TYPE_CHECKING

if TYPE_CHECKING:
    import threading

    from agent.buffer.buffer import Buffer

log = logging.getLogger(__name__)

NOTICE_S = 2.0
"""How often it looks whether another process has changed the database."""

MOST_S = 30.0
"""The longest wait after errors that nobody foresaw."""


class Committer:
    """run() is the thread. `tick` is the longest sleep, in seconds."""

    def __init__(self, buffer: Buffer, tick: float = NOTICE_S) -> None:
        self.buffer = buffer
        self.tick = tick
        self.alive_boot_ns = buffer.clock.boot_ns()
        """When the loop last went round, for the watchdog."""
        self._noticed_ns = 0

    def run(self, stop: threading.Event) -> None:
        """Commit what is due until `stop` is set; then the caller closes the buffer. Set buffer.wake to end a wait.

        Nothing ends it but `stop`: an error that nobody foresaw is logged, and the points wait in memory.
        """
        opened = checked = False
        pause, failures = 0.0, 0
        while not stop.is_set():
            try:
                if not opened:
                    opened = True
                    self.buffer.open()  # at once, and not with the first commit: a backlog waits there to be delivered
                pause = self.step()
                if not checked and self.buffer.snapshot().disk_ok:
                    checked = True
                    self.buffer.check_in_background()
                failures = 0
            except Exception:
                failures += 1
                pause = min(2.0**failures / 2, MOST_S)
                if failures == 1:
                    log.exception("buffer: a commit failed in a way that was not foreseen: trying again")
            self.buffer.wake.wait(pause)
        self.buffer.release()

    def step(self) -> float:
        """One round. Returns the seconds until the next, unless the buffer wakes it."""
        buffer = self.buffer
        buffer.wake.clear()
        now = self.alive_boot_ns = buffer.clock.boot_ns()
        if buffer.commit_due(now):
            buffer.commit()
        elif now - self._noticed_ns >= NOTICE_S * 1e9:
            self._noticed_ns = now
            buffer.notice()
        deadline = buffer.next_deadline()
        return min(max((deadline - buffer.clock.boot_ns()) / 1e9, 0.005), self.tick)
