"""How the parts of an agent that work on their own are run: each in a thread, unless the caller knows better."""

from __future__ import annotations

import threading
from typing import Protocol


class Loop(Protocol):
    """A part that works until `stop` is set."""

    def run(self, stop: threading.Event) -> None: ...


class Running(Protocol):
    """A loop at work: a thread, or something like it."""

    name: str

    def join(self, timeout: float | None = None) -> None: ...


class Spawn(Protocol):
    """Sets a loop to work."""

    def __call__(self, name: str, loop: Loop, stop: threading.Event) -> Running: ...


def thread_for(name: str, loop: Loop, stop: threading.Event) -> threading.Thread:
    """A loop in a thread of its own, which does not keep the process alive: a call may hang."""
    thread = threading.Thread(target=loop.run, args=(stop,), name=name, daemon=True)
    thread.start()
    return thread
