"""How the parts of an agent that work on their own are run: one runner for all, each in a thread of its own, unless the
caller knows better (fleet/simulate.py).
"""

from __future__ import annotations

import logging
import threading
import time
from collections.abc import Callable, Sequence
from typing import Protocol

from agent.util.backoff import growing

log = logging.getLogger(__name__)

MOST_S = 30.0
"""The longest wait after errors that nobody foresaw."""
_SOON_S = 0.05


class Loop(Protocol):
    """A part that works in steps. `wakeup` ends the wait for the next one."""

    wakeup: threading.Event
    problem: str | None = None
    """What a person should know of it, in a sentence; None: nothing."""

    def step(self) -> float:
        """Do what is due. Returns the seconds until the next step."""
        ...

    def finish(self) -> None:
        """After the last step, in the same thread. As it stands: nothing is left to do."""
        return


class Running(Protocol):
    """A loop at work: a thread, or something like it."""

    name: str
    problem: str | None
    """What goes wrong in it, in a way that nobody foresaw or as it says itself; None: nothing."""

    def stop(self) -> None:
        """Ask it to end, and return at once."""
        ...

    def join(self, timeout: float | None = None) -> None: ...

    def is_alive(self) -> bool:
        """Whether it has not ended yet."""
        ...


Spawn = Callable[[str, Loop], Running]
"""Sets a loop to work under a name."""


def end(loops: Sequence[Running], seconds: float) -> None:
    """Stop these loops, and wait for them as long as they may take together: a call may hang."""
    for loop in loops:
        loop.stop()
    deadline = time.monotonic() + seconds
    for loop in loops:
        loop.join(max(0.0, deadline - time.monotonic()))


class After(Loop):
    """A loop whose first step waits until another one has ended, which has what this one needs."""

    def __init__(self, loop: Loop, before: Running) -> None:
        self.wakeup, self._loop, self._before = loop.wakeup, loop, before

    def step(self) -> float:
        return _SOON_S if self._before.is_alive() else self._loop.step()

    def finish(self) -> None:
        self._loop.finish()


class Steps:
    """The steps of a loop. Nothing that goes wrong in one ends the loop: it is logged when it begins, and tried again
    ever more slowly.
    """

    def __init__(self, name: str, loop: Loop) -> None:
        self.name = name
        self.problem: str | None = None
        self._loop = loop
        self._failures = 0

    def step(self) -> float:
        try:
            pause = self._loop.step()
        except Exception as error:
            self._failures += 1
            if self._failures == 1:
                log.exception("%s failed in a way that was not foreseen: trying again", self.name)
            self.problem = f"{self.name} fails in a way that was not foreseen ({type(error).__name__}): see the log"
            return growing(self._failures - 1, 1.0, MOST_S)
        self._failures, self.problem = 0, self._loop.problem
        return pause

    def finish(self) -> None:
        try:
            self._loop.finish()
        except Exception:
            log.exception("%s did not end as it should", self.name)


class LoopThread(Steps):
    """A loop in a thread of its own, which does not keep the process alive: a call may hang."""

    def __init__(self, name: str, loop: Loop) -> None:
        super().__init__(name, loop)
        self._wakeup = loop.wakeup
        self._stop = threading.Event()
        self._thread = threading.Thread(target=self._run, name=name, daemon=True)
        self._thread.start()

    def stop(self) -> None:
        self._stop.set()
        self._wakeup.set()

    def join(self, timeout: float | None = None) -> None:
        self._thread.join(timeout)

    def is_alive(self) -> bool:
        return self._thread.is_alive()

    def _run(self) -> None:
        while not self._stop.is_set():
            self._wakeup.clear()
            pause = self.step()
            if not self._stop.is_set():
                self._wakeup.wait(pause)
        self.finish()
