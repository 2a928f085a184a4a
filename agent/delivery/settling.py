"""What becomes of a batch, and of those after it, by the outcome of sending it."""

from __future__ import annotations

from collections import OrderedDict
from collections.abc import Callable
from dataclasses import replace

from agent.buffer.batch import Batch, Part
from agent.delivery.outage_log import OutageLog
from agent.delivery.outcome import (
    EITHER,
    SAME_BYTES,
    Defer,
    Delivered,
    Outcome,
    Park,
    Reauthorise,
    Retry,
    Slow,
    Split,
    Wait,
    is_blind,
)
from agent.delivery.pacing import LEAST_POINTS, SLOW_BASE_S, Gate, Pace
from agent.delivery.portions import Portions

MAX_HALVINGS = 64
"""Halvings with nothing accepted in between, before refused batches are parked whole (400, 422) or wait (413, 500): 13
find one line in 5,000, and some more come before the first good part when there are many bad lines and parts are not
yet on disk, in order."""


NOBODY = ("no answer", "timeout", "502", "504", "proxy")
"""Kinds of an outage: nobody is there, as with a 2xx that is no 204, of a captive portal. Others are there and unwell,
and asked more rarely.
"""


class Settling:
    """Does what outcomes ask for, to the buffer and to the pace. For the delivery thread only.

    `success` is when points last got through (boot clock, ns), `delivered` how many did.
    """

    def __init__(
        self,
        buffer: Portions,
        pace: Pace,
        outage: OutageLog,
        now: Callable[[], int],
        *,
        on_unauthorised: Callable[[], None],
        on_authorised: Callable[[], None],
    ) -> None:
        self._buffer, self._pace, self._outage, self._now = buffer, pace, outage, now
        self._on_unauthorised, self._on_authorised = on_unauthorised, on_authorised
        self._halvings = 0  # since the server last accepted anything
        self.accepting = False
        """Whether it has accepted anything since points were last put under suspicion."""
        self._same: OrderedDict[int, int] = OrderedDict()  # batch → how often it got a 500
        self._refused_again: list[Batch] = []
        self._deferred: list[Batch] = []
        self._token_refused = False
        self.success: int | None = None
        self.held: str | None = None
        """Why points were parked last."""
        self.delivered = 0

    @property
    def may_halve(self) -> bool:
        return self._halvings < MAX_HALVINGS

    def again(self, batch: Batch | None) -> int:
        """How often a 500 came for these bytes."""
        return self._same.get(_name(batch), 0) if batch else 0

    def start_again(self) -> None:
        """There is another target."""
        self.end_round()
        self._pace.start_again()
        self._halvings, self.accepting = 0, False

    def next_backlog(self, points: int) -> Batch | None:
        """The oldest that wait. What was deferred comes again when there is nothing else."""
        return self._in_turn(self._buffer.take_backlog(points), self._deferred, self._pace.backlog)

    def next_parked(self) -> Batch | None:
        """Each parked row once a round: those that were refused again stay out until the round is over."""
        return self._in_turn(self._buffer.take_parked(), self._refused_again, self._pace.parked)

    def _in_turn(self, batch: Batch | None, out: list[Batch], gate: Gate) -> Batch | None:
        if batch is None and out:
            self._give_back(out)
            gate.fail(self._now())
        return batch

    def _give_back(self, out: list[Batch]) -> None:
        for batch in out:
            self._buffer.keep(batch)
        out.clear()

    def end_round(self) -> None:
        """Give back all that is out."""
        self._give_back(self._refused_again)
        self._give_back(self._deferred)
        self._buffer.end()

    def apply(self, outcome: Outcome, batch: Batch | None) -> bool:
        """Do what an outcome asks for. Whether the batch is settled; else it has to be kept."""
        now, pace = self._now(), self._pace
        match outcome:
            case Delivered():
                self._succeed(now, batch)
                return batch is not None
            case Split() | Park() | Defer():
                assert batch is not None
                return self._set_apart(outcome, batch, now)
            case Retry(server=False) if batch is not None:
                self._try_again(outcome, batch, now)
            case Retry():
                self._outage.begin(now, outcome.kind, outcome.text)
                if batch is not None and outcome.kind == "timeout":
                    pace.shrink(batch.count, LEAST_POINTS)
                pace.server.fail(now, soon=outcome.kind in NOBODY or outcome.kind.startswith("2"))
            case Wait():
                self._outage.begin(now, outcome.kind, outcome.text)
                pace.server.wait(now, outcome.seconds)
            case Reauthorise():
                self._outage.begin(now, outcome.kind, outcome.text)
                pace.server.fail(now, SLOW_BASE_S)
                self._token_refused = True
                self._on_unauthorised()
            case Slow():
                self._outage.begin(now, outcome.kind, outcome.text, loud=True)
                pace.server.fail(now, SLOW_BASE_S)
        return False

    def _try_again(self, outcome: Retry, batch: Batch, now: int) -> None:
        """It can be these bytes alone."""
        key, gate = _name(batch), self._pace.own_gate(batch)
        self._same[key] = self._same.pop(key, 0) + 1
        while len(self._same) > 64:
            self._same.popitem(last=False)
        gate.fail(now)
        if batch.parked or gate.failures < SAME_BYTES:
            self._outage.tell(now, "held", batch.count, outcome.text)
        else:
            self._outage.begin(now, outcome.kind, outcome.text)

    def _succeed(self, now: int, batch: Batch | None) -> None:
        if batch is None:
            self._authorised()
            self._outage.end(now, went=not self._buffer.snapshot().pending)
            self._pace.server.clear()
            return
        self._buffer.delivered(batch)
        self._accepted(now, batch, batch.count)

    def _authorised(self) -> None:
        if self._token_refused:
            self._token_refused = False
            self._on_authorised()

    def _accepted(self, now: int, batch: Batch, points: int) -> None:
        """The server has so many points of the batch."""
        self._authorised()
        self._outage.end(now, went=True)
        self.success = now
        self.delivered += points
        self._halvings, self.accepting = 0, True
        self._same.pop(_name(batch), None)
        self._give_back(self._deferred)
        self._pace.accepted(now, batch)

    def _set_apart(self, outcome: Split | Park | Defer, batch: Batch, now: int) -> bool:
        self._same.pop(_name(batch), None)
        self._pace.server.clear()
        if not batch.parked:
            self._pace.backlog.clear()  # each part is tried at once, and whatever comes after a single point
        if outcome.kind in EITHER:
            self._halvings += not isinstance(outcome, Park)
        else:
            self._halvings += is_blind(outcome)
            if self._halvings > MAX_HALVINGS:
                self._outage.begin(now, "all refused", f"nothing is accepted: {outcome.text}", loud=True)
            else:
                self._outage.end(now)
        if isinstance(outcome, Defer):
            self._deferred.append(batch)
            return True
        if isinstance(outcome, Split):
            self.accepting = self.accepting and batch.suspect
            if outcome.kind == "413":
                self._pace.shrink(batch.count)
            self._buffer.replace(batch, outcome.parts, outcome.dead, outcome.stored)
            if outcome.stored:
                self._accepted(now, batch, outcome.stored)
            if outcome.dead:
                self._outage.tell(now, "refused", len(outcome.dead), outcome.text)
            if parked := sum(len(part.lines) for part in outcome.parts if part.state == "parked"):
                self._pace.parked.fail(now)
                self.held = outcome.text
                self._outage.tell(now, "parked", parked, outcome.text)
            return True
        self._pace.parked.fail(now)
        self.held = outcome.text
        if batch.parked:
            self._refused_again.append(replace(batch, body=b""))
            return True
        self._buffer.replace(batch, (Part(tuple(batch.lines()), "parked"),), ())
        self._outage.tell(now, "parked", batch.count, outcome.text)
        return True


def _name(batch: Batch) -> int:
    """What the same bytes are known by; of live points all, as the newest join those that were refused."""
    return 0 if batch.live else batch.keys[0]
