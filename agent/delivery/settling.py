"""What becomes of a batch, and of those after it, by the outcome of sending it."""

from __future__ import annotations

import time
from collections import OrderedDict
from dataclasses import replace
from typing import TYPE_CHECKING

from agent.buffer.batch import Part
from agent.delivery.outcome import Delivered, Park, Reauthorise, Retry, Slow, Split, Wait, is_blind
from agent.delivery.pacing import LEAST_POINTS, SLOW_BASE_S

if TYPE_CHECKING:
    from collections.abc import Callable

    from agent.buffer.batch import Batch
    from agent.buffer.buffer import Buffer
    from agent.delivery.outage_log import OutageLog
    from agent.delivery.outcome import Outcome
    from agent.delivery.pacing import Pace

MAX_HALVINGS = 64
"""Halvings with nothing accepted in between, before refused batches are parked whole: 13 find one line in 5,000, and
some more come before the first good part when there are many bad lines and parts are not yet on disk, in order."""


class Settling:
    """Does what outcomes ask for, to the buffer and to the pace. For the delivery thread only.

    `success` is when points last got through (boot clock, Unix; ns), `delivered` how many did.
    """

    def __init__(
        self,
        buffer: Buffer,
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
        self._same: OrderedDict[int, int] = OrderedDict()  # first key of a batch → how often it got a 500
        self._refused_again: list[Batch] = []
        self._token_refused = False
        self.success: tuple[int, int] | None = None
        self.delivered = 0

    @property
    def may_halve(self) -> bool:
        return self._halvings < MAX_HALVINGS

    def again(self, batch: Batch | None) -> int:
        """How often a 500 came for these bytes."""
        return self._same.get(batch.keys[0], 0) if batch else 0

    def start_again(self) -> None:
        """There is another target."""
        self.end_round()
        self._pace.start_again()
        self._halvings = 0

    def next_parked(self) -> Batch | None:
        """Each parked row once a round: those that were refused again stay out until the round is over."""
        batch = self._buffer.take_parked()
        if batch is None and self._refused_again:
            self.end_round()
            self._pace.parked.fail(self._now())
        return batch

    def end_round(self) -> None:
        for batch in self._refused_again:
            self._buffer.keep(batch)
        self._refused_again.clear()

    def apply(self, outcome: Outcome, batch: Batch | None) -> bool:
        """Do what an outcome asks for. Whether the batch is settled; else it has to be kept."""
        now, pace = self._now(), self._pace
        match outcome:
            case Delivered():
                self._succeed(now, batch)
                return batch is not None
            case Split() | Park():
                assert batch is not None
                return self._set_apart(outcome, batch, now)
            case Retry(server=False) if batch is not None:
                self._try_again(outcome, batch, now)
            case Retry():
                self._outage.begin(now, outcome.kind, outcome.text)
                if batch is not None and outcome.kind == "timeout":
                    pace.shrink(batch.count, LEAST_POINTS)
                pace.server.fail(now)
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
        key = batch.keys[0]
        self._same[key] = self._same.pop(key, 0) + 1
        while len(self._same) > 64:
            self._same.popitem(last=False)
        if batch.live:
            self._outage.begin(now, outcome.kind, outcome.text)
        else:
            self._outage.held(now, batch.count, outcome.text)
        self._pace.own_gate(batch).fail(now)

    def _succeed(self, now: int, batch: Batch | None) -> None:
        if self._token_refused:
            self._token_refused = False
            self._on_authorised()
        self._outage.end(now)
        if batch is None:
            self._pace.server.clear()
            return
        self._buffer.delivered(batch)
        self.success = (now, time.time_ns())
        self.delivered += batch.count
        self._halvings = 0
        self._same.pop(batch.keys[0], None)
        self._pace.accepted(now, batch)

    def _set_apart(self, outcome: Split | Park, batch: Batch, now: int) -> bool:
        self._same.pop(batch.keys[0], None)
        self._pace.server.clear()
        if is_blind(outcome):
            self._halvings += 1
        if self._halvings > MAX_HALVINGS:
            self._outage.begin(now, "all refused", f"nothing is accepted: {outcome.text}", loud=True)
        else:
            self._outage.end(now)
        if isinstance(outcome, Split):
            if outcome.kind == "413":
                self._pace.shrink(batch.count)
            self._buffer.replace(batch, outcome.parts, outcome.dead)
            self._outage.refused(now, len(outcome.dead), outcome.text)
            return True
        self._pace.parked.fail(now)
        if batch.parked:
            self._refused_again.append(replace(batch, body=b""))
            return True
        self._buffer.replace(batch, (Part(tuple(batch.lines()), "parked"),), ())
        self._outage.parked(now, batch.count, outcome.text)
        return True
