"""When the next thing may be sent. No clock, no thread: moments (boot-clock nanoseconds) are arguments."""

from __future__ import annotations

import hashlib
from collections import deque
from dataclasses import dataclass, field
from random import Random

from agent.buffer.batch import Batch
from agent.util.backoff import BASE_S, CAP_S, full_jitter

PROMPT_S = 1.0
"""Flush interval with a loss window of 0: points are on disk at once, and follow to the server promptly."""
SLOW_BASE_S = 8.0
"""What only a person can mend (404, redirect, token) is tried again after 0 to 8 s, then more slowly, up to 5 min."""
PARKED_S = 60.0
"""Parked points are tried again after up to this, then more slowly, up to 15 min; all of them once one goes through."""
LEAST_POINTS = 500
"""A request that gets no answer is made smaller next time, down to this: it can be too much for the line."""
MIN_WAIT_S = 0.05
SOON_S = 4.0
_RATE_WINDOW_NS = 30_000_000_000


def flush_interval_s(flush_interval: float, loss_window: float) -> float:
    """Seconds between two flushes: as configured, but at most half the loss window, so that the answer comes in it."""
    return min(flush_interval, loss_window / 2 if loss_window > 0 else PROMPT_S)


def next_flush(now: int, interval_s: float, device_id: str) -> int:
    """The next flush moment after `now`. Moments of different devices are spread evenly over the interval."""
    interval = max(round(interval_s * 1e9), 1_000_000)
    digest = hashlib.blake2b(device_id.encode(), digest_size=8).digest()
    phase = interval * int.from_bytes(digest, "big") >> 64
    return now + interval - (now - phase) % interval


@dataclass(slots=True)
class Gate:
    """Closed for a while after each failure: exponential back-off with full jitter, or as long as the server says.

    `soon`: it backs off for no longer than a quarter of the time that it has been failing for, so that a server that is
    there again after some seconds is noticed within seconds.
    """

    rng: Random
    base_s: float = BASE_S
    cap_s: float = CAP_S
    failures: int = 0
    until: int = 0
    _since: int = 0

    def fail(self, now: int, base_s: float | None = None, *, soon: bool = False) -> None:
        self._count(now)
        cap_s = min(self.cap_s, max(SOON_S, (now - self._since) / 4e9)) if soon else self.cap_s
        wait_s = full_jitter(self.failures - 1, base_s or self.base_s, cap_s, self.rng)
        self.until = now + round(max(wait_s, MIN_WAIT_S) * 1e9)

    def wait(self, now: int, seconds: float) -> None:
        """A tenth more at most, so that a fleet that was told the same does not come back at once."""
        self._count(now)
        self.until = now + round(seconds * self.rng.uniform(1, 1.1) * 1e9)

    def _count(self, now: int) -> None:
        self._since = self._since if self.failures else now
        self.failures += 1

    def left_s(self, now: int) -> float:
        return max(0, self.until - now) / 1e9

    def clear(self) -> None:
        self.failures = self.until = 0


@dataclass(slots=True)
class Flow:
    """Points of the backlog per second: as measured in the last 30 s, and held under a limit (0: none)."""

    limit: float = 0.0
    until: int = 0
    _sent: deque[tuple[int, int]] = field(default_factory=deque)

    def sent(self, now: int, points: int) -> None:
        while self._sent and self._sent[0][0] < now - _RATE_WINDOW_NS:
            self._sent.popleft()
        self._sent.append((now, points))
        if self.limit > 0:
            self.until = max(now, self.until) + round(points / self.limit * 1e9)

    def rate(self, now: int) -> float:
        """Any thread may ask."""
        sent = [(at, points) for at, points in self._sent.copy() if at >= now - _RATE_WINDOW_NS]
        seconds = (now - sent[0][0]) / 1e9 if len(sent) > 1 else 0.0
        return sum(points for _, points in sent) / seconds if seconds > 0 else 0.0

    def allowed(self, batch_size: int) -> int:
        """Points for one request: under a limit smaller ones, so that it holds over seconds too."""
        return batch_size if self.limit <= 0 else max(1, min(batch_size, round(self.limit)))


class Pace:
    """What may be sent when: the newest points at each flush, the backlog as fast as allowed, what is parked rarely.

    `server` is closed when nothing would go through, `backlog` and `parked` when only those points have trouble, so
    that the newest ones go on. `limit` is points a request: `batch_size`, or less after a 413 or no answer.
    """

    def __init__(self, interval_s: float, batch_size: int, backlog_rate: float, device_id: str, rng: Random) -> None:
        self._interval_s, self._batch_size, self._device_id = interval_s, batch_size, device_id
        self.server, self.backlog, self.parked = Gate(rng), Gate(rng), Gate(rng, PARKED_S, 15 * PARKED_S)
        self.flow = Flow(backlog_rate)
        self.limit = batch_size
        self.flush_at = 0  # the newest points go first

    @property
    def most(self) -> int:
        """Points of a row that go in one request: as `limit` says, but what is too large (413) its outcome halves."""
        return min(self._batch_size, max(self.limit, LEAST_POINTS))

    def live_due(self, now: int) -> bool:
        """At a flush moment; and first of all after a failure."""
        return now >= self.flush_at or self.server.failures > 0

    def flushed(self, now: int, points: int) -> None:
        """So many live points are on their way; a full request is followed by another."""
        if points < self.limit:
            self.flush_at = next_flush(now, self._interval_s, self._device_id)

    def backlog_due(self, now: int) -> bool:
        return self.flow.until <= now and self.backlog.until <= now

    def parked_due(self, now: int) -> bool:
        return self.flow.until <= now and self.parked.until <= now

    def wait_s(self, now: int) -> float:
        """Seconds until something can be due that was not; 0 where somebody hurried meanwhile."""
        if self.flush_at <= now:
            return 0.0
        moments = (self.flush_at, self.flow.until, self.backlog.until, self.parked.until)
        return min((moment - now) / 1e9 for moment in moments if moment > now)

    def own_gate(self, batch: Batch) -> Gate:
        """What trouble with these points alone closes."""
        return self.parked if batch.parked else self.server if batch.live else self.backlog

    def accepted(self, now: int, batch: Batch) -> None:
        self.server.clear()
        self.own_gate(batch).clear()
        if batch.count * 2 >= self.limit:  # what is small says nothing about what is large
            self.limit = min(self._batch_size, self.limit + self.limit // 8 + 1)
        if not batch.live:
            self.flow.sent(now, batch.count)

    def shrink(self, points: int, least: int = 1) -> None:
        """A request of so many points was too much: smaller ones from now on, but not under `least`."""
        if points > least:
            self.limit = max(least, min(self.limit, points) // 2)

    def start_again(self) -> None:
        """There is another target: whatever was wrong may be right there. The count of failures stays: live first."""
        for gate in (self.server, self.backlog, self.parked):
            gate.until = 0
