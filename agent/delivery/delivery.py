"""The delivery thread: takes batches from the buffer, sends them, and does what each answer asks for.

A server can hold a call for as long as it likes: this thread may hang, nobody waits for it. What is decided is in
outcome.py, when it may be sent in pacing.py, what becomes of it in settling.py; here is the loop around them.
"""

from __future__ import annotations

import logging
import threading
import time
from collections.abc import Callable
from dataclasses import dataclass
from random import Random
from typing import Literal

from agent.buffer.batch import Batch
from agent.buffer.buffer import Buffer
from agent.clock.clock import Clock
from agent.config.settings import DeliverySettings
from agent.delivery.outage_log import OutageLog
from agent.delivery.outcome import Delivered, Outcome, Park, decide, is_blind, is_own, is_taken, may_be_stored
from agent.delivery.pacing import SLOW_BASE_S, Pace, flush_interval_s
from agent.delivery.portions import Portions
from agent.delivery.settling import Settling
from agent.delivery.writer import Writer
from agent.registration.target import Target, origin
from agent.util.backoff import growing
from agent.util.loops import Loop
from drivers.base import boot_ns

log = logging.getLogger(__name__)

POLL_S = 1.0
"""Longest wait without a look at the target and at stop."""
FINE_NS = 60 * 1_000_000_000
"""So long after a 204 a 400 is about the points; later, and after a 500, an empty write asks first whether it is the
request."""
# A server that has just come up may get its own time in a moment: it is asked four times, then ever more slowly.
MAX_PROBES, PROBE_GAP_S, PROBE_GROWTH, PROBE_SLOWLY_S = 4, 0.5, 1.25, 60.0
SECOND = 1_000_000_000


@dataclass(frozen=True, slots=True)
class DeliveryStatus:
    """Delivery at a moment. Moments are boot-clock nanoseconds; None: never, or not now.

    `state`: delivering (or ready to), waiting (nobody has said yet where to), failing. `backlog_rate` is points per
    second as measured, `eta_s` the seconds until the backlog is gone at that rate. `bytes_sent` counts bodies.
    `call_since_boot_ns`: a request has been on its way since then. `alive_boot_ns`: the loop last went round.
    `held`: why points were parked last.
    """

    state: Literal["delivering", "waiting", "failing"]
    since_boot_ns: int
    alive_boot_ns: int
    call_since_boot_ns: int | None
    last_success_boot_ns: int | None
    last_error: str | None
    failures: int
    next_attempt_s: float
    backlog: int
    backlog_rate: float
    eta_s: float | None
    parked: int
    held: str | None
    requests: int
    bytes_sent: int
    delivered: int


class Delivery(Loop):
    """A util.loops.Loop. hurry() and snapshot() may be called from any thread.

    `target` gives where to deliver now (another URL or token: the backlog goes there), `on_unauthorised` is told that
    the server refused the token, `on_authorised` that it takes it again.
    """

    def __init__(
        self,
        buffer: Buffer,
        target: Callable[[], Target | None],
        clock: Clock,
        settings: DeliverySettings,
        on_unauthorised: Callable[[], None],
        *,
        on_authorised: Callable[[], None] = lambda: None,
        device_id: str = "",
        loss_window: float = 10.0,
        rng: Random | None = None,
        now: Callable[[], int] = boot_ns,
        connect: Callable[[Target, float], Writer] = Writer,
    ) -> None:
        self._buffer, self._target, self._clock, self._settings = buffer, target, clock, settings
        self._now, self._connect = now, connect
        interval_s = flush_interval_s(settings.flush_interval, loss_window)
        rng = rng or Random()  # noqa: S311 - spreads load, guards nothing
        self._pace = Pace(interval_s, settings.batch_size, settings.backlog_rate, device_id, rng)
        self.wakeup = threading.Event()
        self._writer: Writer | None = None
        self._asked_at, self._dateless = 0, 0
        self._unsure = False  # whether the server may have the batch that is being sent
        self._fine_at = float("-inf")  # when the last 204 came
        self._reached: tuple[str, str] | None = None  # URL and bucket of the last one with points
        self._outage, self._portions = OutageLog(), Portions(buffer, self._pace)
        self._settling = Settling(
            self._portions, self._pace, self._outage, now, on_unauthorised=on_unauthorised, on_authorised=on_authorised
        )
        self.alive_boot_ns = self._started = now()
        """When the loop last went round, for the watchdog."""
        self._call_since: int | None = None
        self._requests = self._bytes = 0

    def step(self) -> float:
        """Send at most one batch. Seconds until there can be something to do, POLL_S at most."""
        try:
            return min(self._step(), POLL_S)
        except Exception as error:  # noqa: BLE001 - a mistake here must not end delivery: the points are kept
            now = self._now()
            self._outage.begin(now, "mistake", f"{type(error).__name__} in delivery", error=error)
            self._pace.server.fail(now, SLOW_BASE_S)
            return min(self._pace.server.left_s(now), POLL_S)

    def finish(self) -> None:
        self._settling.end_round()
        self.close()

    def hurry(self) -> None:
        """Send the live tail now and not at the next flush: measuring is over, or somebody waits."""
        self._pace.flush_at = 0
        self.wakeup.set()

    def close(self) -> None:
        """Drop the connection. Twice is fine."""
        if self._writer is not None:
            self._writer.close()

    def snapshot(self) -> DeliveryStatus:
        now, status, outage = self._now(), self._buffer.snapshot(), self._outage
        backlog = status.pending_disk - status.undated - status.parked
        rate = self._pace.flow.rate(now)
        state: Literal["delivering", "waiting", "failing"] = "delivering"
        if outage.kind is not None:
            state = "failing"
        elif self._writer is None:
            state = "waiting"
        return DeliveryStatus(
            state=state,
            since_boot_ns=outage.changed_ns or self._started,
            alive_boot_ns=self.alive_boot_ns,
            call_since_boot_ns=self._call_since,
            last_success_boot_ns=self._settling.success,
            last_error=outage.text,
            failures=outage.count,
            next_attempt_s=self._pace.server.left_s(now),
            backlog=max(0, backlog),
            backlog_rate=rate,
            eta_s=backlog / rate if backlog > 0 and rate > 0 else None,
            parked=status.parked,
            held=self._settling.held if status.parked else None,
            requests=self._requests,
            bytes_sent=self._bytes,
            delivered=self._settling.delivered,
        )

    def _step(self) -> float:
        now = self.alive_boot_ns = self._now()
        target = self._target()
        if target != (self._writer.target if self._writer else None):
            self._aim(target)
        if self._writer is None:
            return POLL_S
        if self._pace.server.until > now:
            return self._pace.server.left_s(now)
        probe_s = self._probe_in(now)
        if probe_s == 0:
            self._asked_at = now
            self._settling.apply(self._send(self._writer, None), None)
            return 0.0
        batch = self._next(now)
        if batch is not None:
            self._deliver(self._writer, batch)
            return 0.0
        wait_s = self._pace.wait_s(now)
        return wait_s if probe_s is None else min(wait_s, probe_s)

    def _next(self, now: int) -> Batch | None:
        """The live tail when it is due; else the backlog, oldest first; else, rarely, what is parked."""
        if self._pace.live_due(now):
            live = self._buffer.take_live(self._pace.limit)
            self._pace.flushed(now, live.count if live else 0)
            if live is not None:
                return live
        if self._pace.backlog_due(now):
            batch = self._settling.next_backlog(self._pace.flow.allowed(self._pace.limit))
            if batch is not None:
                return batch
        return self._settling.next_parked() if self._pace.parked_due(now) else None

    def _deliver(self, writer: Writer, batch: Batch) -> None:
        settled = False
        self._unsure = True
        try:
            outcome = self._send(writer, batch)
            fine = outcome.kind == "400" and self._now() <= self._fine_at + FINE_NS
            if outcome.kind in ("400", "500") and is_blind(outcome) and not fine:
                asked = self._send(writer, None)  # is it the request as such that is refused, and not its points?
                outcome = outcome if isinstance(asked, Delivered) else asked
            settled = self._settling.apply(outcome, batch)
        finally:
            if not settled:
                self._portions.keep(batch, sent=self._unsure)

    def _send(self, writer: Writer, batch: Batch | None) -> Outcome:
        """Write a batch; None: only ask."""
        body = batch.body if batch else b""
        sent = self._call_since = self._now()
        self._requests += 1
        self._bytes += len(body)
        try:
            answer = writer.write(body)
        finally:
            self._call_since = None
        received = self.alive_boot_ns = self._now()
        if is_own(answer):  # of others no more is believed than that nobody is there
            date_ns, helps = answer.date_ns, False
            if date_ns is not None:
                written, where = is_taken(answer, empty=batch is None), origin(writer.target.url)
                helps = self._clock.observe(date_ns, SECOND, sent, received, where, written=written)
            self._dateless = 0 if helps else self._dateless + 1
        if answer.status == 204:
            self._fine_at = received
            if batch is not None and self._reached != (reached := (writer.target.url, writer.target.bucket)):
                self._reached = reached
                log.info("first points delivered to %s, bucket %s", *reached)
        if batch is not None:
            self._unsure = may_be_stored(answer)
        settling = self._settling
        try:
            return decide(
                answer,
                batch,
                now_ns=time.time_ns(),
                again=settling.again(batch),
                may_halve=settling.may_halve,
                accepting=settling.accepting,
            )
        except Exception as error:
            if batch is None:
                raise
            log.exception("an answer of status %s was not understood", answer.status)
            return Park("mistake", f"{type(error).__name__} over an answer of status {answer.status}")

    def _aim(self, target: Target | None) -> None:
        """Deliver somewhere else from now on, or with another token: whatever was wrong may be right there."""
        self.close()
        self._writer = self._connect(target, self._settings.timeout) if target else None
        self._outage.url = target.url if target else ""
        if self._outage.kind is None:
            self._outage.changed_ns = self._now()
        self._settling.start_again()
        self._dateless = 0
        self._fine_at = float("-inf")

    def _probe_in(self, now: int) -> float | None:
        """Seconds until the clock wants a server's date. Bounded here: a server need not send one that is of use."""
        wanted = self._clock.probe_in()
        if wanted is None:
            return None
        gap = round(growing(self._dateless - MAX_PROBES, PROBE_GAP_S, PROBE_SLOWLY_S, PROBE_GROWTH), 1)
        return max(wanted, gap - (now - self._asked_at) / SECOND if self._asked_at else 0.0)
