"""What becomes of a batch, and of those after it, by the outcome of sending it."""

from __future__ import annotations

import time
from collections import OrderedDict
from dataclasses import replace
from typing import TYPE_CHECKING

from agent.buffer.batch import Part
from agent.delivery.outcome import Delivered, Park, Reauthorise, Retry, Slow, Split, Wait

if TYPE_CHECKING:
    from collections.abc import Callable

    from agent.buffer.batch import Batch
    from agent.buffer.buffer import Buffer
    from agent.delivery.outage_log import Troubles
    from agent.delivery.outcome import Outcome
    from agent.delivery.pacing import Pace

MAX_HALVINGS = 64
"""Halvings with nothing accepted in between, before refused batches are parked whole: 13 find one line in 5,000, and
some more come before the first good part when there are many bad lines and parts are not yet on disk, in order."""


def is_blind(outcome: Outcome) -> bool:
    """Whether nothing told the points that are refused from the others."""
    return isinstance(outcome, Park) or (isinstance(outcome, Split) and outcome.blind)


class Settling:
    """Does what outcomes ask for, to the buffer and to the pace. For the delivery thread only.

    `success` is when points last got through (boot clock, Unix; ns), `delivered` how many did.
    """

    def __init__(
        self,
        buffer: Buffer,
        pace: Pace,
        troubles: Troubles,
        now: Callable[[], int],
        *,
        on_unauthorised: Callable[[], None],
        on_authorised: Callable[[], None],
    ) -> None:
        self._buffer, self._pace, self._troubles, self._now = buffer, pace, troubles, now
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
            self._pace.parked_failed(self._now())
        return batch

    def end_round(self) -> None:
        for batch in self._refused_again:
            self._buffer.keep(batch)
        self._refused_again.clear()

    def apply(self, outcome: Outcome, batch: Batch | None) -> bool:
        """Do what an outcome asks for. Whether the batch is settled; else it has to be kept."""
        now = self._now()
        if isinstance(outcome, Delivered):
            self._succeed(now, batch)
            return batch is not None
        if isinstance(outcome, Split | Park):
            assert batch is not None
            return self._set_apart(outcome, batch, now)
        if isinstance(outcome, Retry) and not outcome.server and batch is not None and not batch.live:
            self._troubles.held(now, batch.count, outcome.text)
        else:
            self.fail(outcome.kind, outcome.text, loud=isinstance(outcome, Slow))
        if isinstance(outcome, Wait):
            self._pace.server_waits(now, outcome.seconds)
        elif isinstance(outcome, Retry):
            self._retry(outcome, batch, now)
        else:
            self._pace.server_failed(now, slow=True)
            if isinstance(outcome, Reauthorise):
                self._token_refused = True
                self._on_unauthorised()
        return False

    def _retry(self, outcome: Retry, batch: Batch | None, now: int) -> None:
        if batch is not None and not outcome.server:
            key = batch.keys[0]
            self._same[key] = self._same.pop(key, 0) + 1
            while len(self._same) > 64:
                self._same.popitem(last=False)
        if batch is not None and outcome.kind == "timeout":
            self._pace.unanswered(batch.count)
        if batch is None or outcome.server or batch.live:
            self._pace.server_failed(now)
        elif batch.parked:
            self._pace.parked_failed(now)
        else:
            self._pace.backlog_failed(now)

    def _succeed(self, now: int, batch: Batch | None) -> None:
        if self._token_refused:
            self._token_refused = False
            self._on_authorised()
        self._troubles.end(now)
        if batch is None:
            self._pace.server.clear()
            return
        self._buffer.delivered(batch)
        self.success = (now, time.time_ns())
        self.delivered += batch.count
        self._halvings = 0
        self._same.pop(batch.keys[0], None)
        self._pace.accepted(now, batch.count, live=batch.live, parked=batch.parked)

    def _set_apart(self, outcome: Split | Park, batch: Batch, now: int) -> bool:
        self._same.pop(batch.keys[0], None)
        self._pace.server.clear()
        if is_blind(outcome):
            self._halvings += 1
        if self._halvings > MAX_HALVINGS:
            self.fail("all refused", f"nothing is accepted: {outcome.text}", loud=True)
        else:
            self._troubles.end(now)
        if isinstance(outcome, Split):
            if outcome.kind == "413":
                self._pace.too_large(batch.count)
            self._buffer.replace(batch, outcome.parts, outcome.dead)
            self._troubles.refused(now, len(outcome.dead), outcome.text)
            return True
        self._pace.parked_failed(now)
        if batch.parked:
            self._refused_again.append(replace(batch, body=b""))
            return True
        self._buffer.replace(batch, (Part(tuple(batch.lines()), "parked"),), ())
        self._troubles.parked(now, batch.count, outcome.text)
        return True

    def fail(self, kind: str, text: str, *, loud: bool = False, error: Exception | None = None) -> None:
        self._troubles.begin(self._now(), kind, text, loud=loud, error=error)
