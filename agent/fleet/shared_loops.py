"""The loops of many agents in a few threads: each takes its step when it is due.

`iot-agent simulate` runs a thousand agents in one process with it. A single agent has a thread for each loop instead
(util.loops.LoopThread), because a call to a server or a disk may hang and must not hold up another.
"""

from __future__ import annotations

import heapq
import threading
import time
from typing import TYPE_CHECKING

from agent.util.loops import Steps

if TYPE_CHECKING:
    from agent.util.loops import Loop

LONGEST_S = 2.0
"""A loop looks at least so often whether it was woken; stop() makes it look at once."""


class SharedLoop:
    """One loop among many; guarded by the pool's lock."""

    def __init__(self, pool: SharedLoops, name: str, loop: Loop) -> None:
        self.name, self.stopped, self.ended = name, threading.Event(), threading.Event()
        self.steps = Steps(name, loop)
        self.due = 0.0
        self.busy = False
        self._pool = pool

    def stop(self) -> None:
        self.stopped.set()
        self._pool.hurry(self)

    def join(self, timeout: float | None = None) -> None:
        self.ended.wait(timeout)


class SharedLoops:
    """`workers` threads for any number of loops. Its spawn() is what Service takes."""

    def __init__(self, workers: int) -> None:
        self._ready = threading.Condition()
        self._heap: list[tuple[float, int, SharedLoop]] = []
        self._number = 0
        for number in range(workers):
            threading.Thread(target=self._work, name=f"loops-{number}", daemon=True).start()

    def spawn(self, name: str, loop: Loop) -> SharedLoop:
        shared = SharedLoop(self, name, loop)
        with self._ready:
            self._push(shared, time.monotonic())
        return shared

    def hurry(self, shared: SharedLoop) -> None:
        with self._ready:
            if not shared.ended.is_set():
                self._push(shared, 0.0)

    def _push(self, shared: SharedLoop, due: float) -> None:
        shared.due = due
        self._number += 1
        heapq.heappush(self._heap, (due, self._number, shared))
        self._ready.notify()

    def _take(self) -> SharedLoop:
        """The next loop that is due. An entry whose time was changed since, or whose loop is at work, is stale."""
        with self._ready:
            while True:
                while self._heap and (self._heap[0][2].busy or self._heap[0][0] != self._heap[0][2].due):
                    heapq.heappop(self._heap)
                if not self._heap:
                    self._ready.wait()
                    continue
                wait = self._heap[0][0] - time.monotonic()
                if wait <= 0:
                    shared = heapq.heappop(self._heap)[2]
                    shared.busy = True
                    return shared
                self._ready.wait(wait)

    def _work(self) -> None:
        while True:
            shared = self._take()
            due = shared.due
            pause = self._step(shared)
            with self._ready:
                shared.busy = False
                if pause is None:
                    shared.ended.set()
                else:  # hurried meanwhile: its new time stays
                    self._push(shared, shared.due if shared.due != due else time.monotonic() + pause)

    def _step(self, shared: SharedLoop) -> float | None:
        if shared.stopped.is_set():
            shared.steps.finish()
            return None
        return min(max(0.0, shared.steps.step()), LONGEST_S)
