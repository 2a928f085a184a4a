"""Rows of the backlog that are more than one request may hold go in portions.

Such a row stays on disk as it is, and out, until its last point is settled: nothing is written for it, its points keep
their turn, and after a power cut it is sent again from its beginning, which overwrites what is there. Only at an end,
or where its time turns out to be wrong, what is left of it takes its place.
"""

from __future__ import annotations

from collections.abc import Sequence
from typing import Literal

from agent.buffer.batch import Batch, BufferStatus, DeadLetter, Part
from agent.buffer.buffer import Buffer
from agent.buffer.rows import compress, count_health
from agent.delivery.bad_lines import head
from agent.delivery.pacing import Pace


class Portions:
    """The buffer, as delivery sees it: what waits is given out in batches of `pace.most` points at most. Not for
    several threads.
    """

    def __init__(self, buffer: Buffer, pace: Pace) -> None:
        self._buffer, self._pace = buffer, pace
        self._whole: Batch | None = None  # the row that goes in portions now
        self._settled = 0  # so many of its points, the first ones, the server has,
        self._unsure = 0  # and so many of those after them it may have
        self._portion: Batch | None = None
        self._withdrawals = buffer.withdrawals

    def take_backlog(self, points: int) -> Batch | None:
        """The oldest that wait, as the buffer gives them out, or a portion of what is too much. Where a time turned out
        to be wrong meanwhile, nothing more of a row goes by it.
        """
        if self._withdrawals != self._buffer.withdrawals:
            self._withdrawals = self._buffer.withdrawals
            self.end()
        if self._whole is None:
            batch = self._buffer.take_backlog(points)
            if batch is None or batch.count <= self._pace.most:
                return batch
            if batch.suspect:
                self._cut(batch, "suspect")
                return self.take_backlog(points)
            self._whole, self._settled, self._unsure = batch, 0, 0
        lines = head(self._left(self._whole), self._pace.most)
        body = compress(b"\n".join(lines) + b"\n")
        self._portion = Batch(self._whole.keys, body, len(lines), health=count_health(lines))
        return self._portion

    def take_parked(self) -> Batch | None:
        """The oldest that are parked."""
        batch = self._buffer.take_parked()
        if batch is None or batch.count <= self._pace.most:
            return batch
        self._cut(batch, "parked")
        return self.take_parked()

    def _cut(self, batch: Batch, state: Literal["suspect", "parked"]) -> None:
        """What was refused is written anew in smaller parts: it has no turn to keep, and is little."""
        parts: list[Part] = []
        try:
            lines = batch.lines()
            while lines:
                parts.append(Part(tuple(head(lines, self._pace.most)), state))
                del lines[: len(parts[-1].lines)]
        except BaseException:
            self._buffer.keep(batch)
            raise
        self._buffer.replace(batch, parts, ())

    def delivered(self, batch: Batch) -> None:
        """The server has it."""
        whole = self._whole_of(batch)
        if whole is None:
            self._buffer.delivered(batch)
            return
        self._buffer.delivered_lines(self._left(whole)[: batch.count])
        self._settled, self._unsure = self._settled + batch.count, max(0, self._unsure - batch.count)
        if self._settled == whole.count:
            self._whole = None
            self._buffer.replace(whole, (), (), whole.count)

    def keep(self, batch: Batch, *, sent: bool = False) -> None:
        """It is tried again later. `sent`: the server may have it, and has not said so."""
        if self._whole_of(batch) is None:
            self._buffer.keep(batch, sent=sent)
        elif sent:
            self._unsure = max(self._unsure, batch.count)

    def replace(self, batch: Batch, parts: Sequence[Part], dead: Sequence[DeadLetter], delivered: int = 0) -> None:
        """Put parts and dead letters in the place of a batch; `delivered` of its points the server has."""
        whole = self._whole_of(batch)
        if whole is None:
            self._buffer.replace(batch, parts, dead, delivered)
        else:
            rest = self._left(whole)[batch.count :]
            self._whole = None
            self._buffer.replace(whole, (*parts, _pending(rest)), dead, self._settled + delivered)

    def end(self) -> None:
        """Give back what has not gone yet."""
        whole = self._whole
        if whole is None:
            return
        left = self._left(whole)
        self._whole = None
        if self._settled or self._unsure:
            parts = Part(tuple(left[: self._unsure]), "pending", sent=True), _pending(left[self._unsure :])
            self._buffer.replace(whole, parts, (), self._settled)
        else:
            self._buffer.keep(whole)

    def snapshot(self) -> BufferStatus:
        return self._buffer.snapshot()

    def _whole_of(self, batch: Batch) -> Batch | None:
        return self._whole if batch is self._portion else None

    def _left(self, whole: Batch) -> list[bytes]:
        return whole.lines()[self._settled :]


def _pending(lines: Sequence[bytes]) -> Part:
    return Part(tuple(lines), "pending")
