"""When the points of the queue get their time, and when a time that turned out to be wrong is taken from them."""

from __future__ import annotations

from collections.abc import Iterable, Sequence
from dataclasses import replace

from agent.buffer.line_times import span_of
from agent.buffer.rows import Kind
from agent.buffer.views import QueueViews
from agent.buffer.withdrawn import Spans
from agent.clock.clock import Clock
from agent.clock.timeline import LANE_NS, Stretch, Wrong


class QueueTimes(QueueViews):
    """A part of the queue."""

    def __init__(self, clock: Clock) -> None:
        super().__init__(clock)
        self._delivered = Spans()
        self.rows_to_come = True
        """Whether damaged files may hold more rows: what is known of the times of boots is kept for them."""

    def date(self, boot_id: str, offset_ns: int, *, estimated: bool) -> None:
        """Unix time is boot time plus the offset: in memory from now on, on disk with the next commits; on a lane on
        which nothing of that boot was dated wrongly, so that it is known again.
        """
        with self._lock:
            taken = {stretch.lane for stretch in self._wrong.stretches.get(boot_id, ())}
            while Stretch(0, 0, offset_ns).lane in taken:
                offset_ns += LANE_NS
            self._dating[boot_id] = offset_ns, int(estimated)
            self._wrong.given_up.pop(boot_id, None)
            if boot_id == self._clock.boot_id:
                self._tail.stamps.heal(offset_ns)
            self._tail.date(boot_id, offset_ns, estimated=estimated)

    def withdraw(self, boot_id: str, stretches: Sequence[Stretch]) -> Wrong:
        """Points that were dated so wait for another time, but those of which nobody knows whether they are sent."""
        with self._lock:
            wrong = self._wrong
            self._dating.pop(boot_id, None)
            wrong.given_up.pop(boot_id, None)
            wrong.number += 1
            wrong.stretches[boot_id] = (*wrong.stretches.get(boot_id, ()), *stretches)
            waiting = self._tail.withdraw(boot_id, stretches)
            for entry in self._rows.by_kind[Kind.PENDING]:
                if not self._may_be_there(entry.key) and wrong.flag(entry, (boot_id,)):
                    waiting += entry.points
            return replace(self._delivered.within(stretches), waiting=waiting)

    def delivered_lines(self, lines: Sequence[bytes]) -> None:
        """The server has these of a batch that is still out."""
        with self._lock:
            self._delivered.add(*span_of(lines), len(lines))

    @property
    def withdrawals(self) -> int:
        """How often a time turned out to be wrong."""
        return self._wrong.number

    def _withdraw_late(self, rows: Iterable[int]) -> None:
        """What was given out when its time turned out to be wrong was left alone. It was not sent."""
        self._catch_up()
        for key in rows:
            self._flag(key)

    def _catch_up(self) -> None:
        """What was given out or being written when a time was found wrong, or became known, was left alone."""
        for boot, stretches in self._wrong.stretches.items():
            self._tail.withdraw(boot, stretches)
        for boot, (offset_ns, guess) in self._dating.items():
            self._tail.date(boot, offset_ns, estimated=bool(guess))

    def _flag(self, key: int) -> None:
        """A row was found, or came back: it waits, if its time may be wrong."""
        entry = self._rows.by_kind[Kind.PENDING].get(key) if self._wrong.stretches else None
        if entry is not None and not self._may_be_there(key):
            self._wrong.flag(entry, self._wrong.stretches)

    def _may_be_there(self, key: int) -> bool:
        """Whether the server may have a row."""
        return key in self._pins.out or key in self._pins.fixed

    def _forget_dated(self) -> None:
        """Boots of which all points have their time."""
        if self.rows_to_come:
            return
        busy = any(block.committing or block.in_flight for block in self._tail.blocks.values())
        if not busy and not self._pins.out:
            self._wrong.done()
        for boot in set(self._dating) - {*self._rows.undated, *self._wrong.stretches, self._clock.boot_id}:
            del self._dating[boot]
