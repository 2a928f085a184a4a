"""The loops of many agents in a few threads."""

from __future__ import annotations

import heapq
import threading
import time

from agent.util.loops import Loop, Steps

LONGEST_S = 2.0
"""A loop looks at least so often whether it was woken; stop() makes it look at once."""


class SharedLoop(Steps):
    """One loop among many; guarded by the pool's lock."""

    def __init__(self, pool: SharedLoops, name: str, loop: Loop) -> None:
        super().__init__(name, loop)
        self.stopped, self.ended = threading.Event(), threading.Event()
        self.due = 0.0
        self.busy = False
        self._pool = pool

    def stop(self) -> None:
        self.stopped.set()
        self._pool.hurry(self)

    def join(self, timeout: float | None = None) -> None:
        self.ended.wait(timeout)

    def is_alive(self) -> bool:
        return not self.ended.is_set()


class SharedLoops:
    """The loops of many agents in `workers` threads: each takes its step when it is due. Service takes its spawn().

    A single agent has a thread for each loop instead (util.loops.LoopThread), because a call to a server or a disk may
    hang and must not hold up another.
    """

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
            if shared.stopped.is_set():
                shared.finish()
                shared.ended.set()
                continue
            pause = min(max(0.0, shared.step()), LONGEST_S)
            with self._ready:
                shared.busy = False  # hurried meanwhile: its new time stays
                self._push(shared, shared.due if shared.due != due else time.monotonic() + pause)
