"""Gives points their time once it is known: this boot's by its offset, earlier boots' as `[clock] unanchored` says.

Dating.step() is the only one who needs to call clock.poll(): every second, and at once when an answer of a server
settled the time. delivery and registration call clock.observe() for every answer that is proven to be the server's own
and has a Date header or a serverTime; and delivery, while clock.probe_in() is not None, makes an empty write after that
many seconds, before it sends the first points and also when no point can be sent because none is dated. At the end
clock.close() comes last: when the loop is joined and the buffer closed.
"""

from __future__ import annotations

import logging
from collections.abc import Callable, Sequence
from dataclasses import dataclass
from threading import RLock
from typing import Protocol

from agent.clock.boots import Boot
from agent.clock.clock import Clock, ClockState
from agent.clock.manual_times import read, remove
from agent.clock.sources import DAY, SECOND, VOUCHER, shown
from agent.clock.timeline import Stretch, Wrong, stamp_offset
from agent.config.settings import Unanchored
from agent.config.units import counted, rough_duration
from agent.util.loops import Loop

log = logging.getLogger(__name__)

LOOK_GOOD_NS = 60 * SECOND
LOOK_S = 1.0
_DOUBT_NS = 2 * SECOND
NO_TIME = "no_time"
_CALM_LOOKS = 10


class Waiting(Protocol):
    """A boot of which `count` points have no time yet, the last one at `last_ns` on the boot clock."""

    @property
    def boot_id(self) -> str: ...
    @property
    def count(self) -> int: ...
    @property
    def last_ns(self) -> int: ...


class Disk(Protocol):
    @property
    def disk_ok(self) -> bool: ...


class Undated(Protocol):
    """What dating needs of the buffer. undated() gives the oldest first, without those that it was told the time of."""

    def undated(self) -> Sequence[Waiting]: ...
    def date_boot(self, boot_id: str, offset_ns: int, *, estimated: bool) -> object: ...
    def discard_boot(self, boot_id: str, reason: str) -> object: ...
    def withdraw(self, boot_id: str, stretches: Sequence[Stretch]) -> Wrong: ...
    def snapshot(self) -> Disk: ...


@dataclass(frozen=True, slots=True)
class Placed:
    """Where a boot goes: Unix time when its boot clock read 0, and whether that is only estimated."""

    boot_id: str
    offset_ns: int
    estimated: bool


def merged(order: Sequence[Boot], waiting: Sequence[Waiting]) -> list[tuple[str, Boot | None]]:
    """The boots in order with those that only the buffer knows, each before the next that both know."""
    known = {b.id: b for b in order}
    result: list[tuple[str, Boot | None]] = [(b.id, b) for b in order]
    at = len(result) - 1  # the last one is the present boot
    for boot_id in reversed([w.boot_id for w in waiting]):
        if boot_id in known:
            at = min(at, next(i for i, (name, _) in enumerate(result) if name == boot_id))
        else:
            result.insert(at, (boot_id, None))
    return result


def place(order: Sequence[Boot], waiting: Sequence[Waiting]) -> list[Placed]:
    """Where the earlier boots go that points wait of. The last of `order` is the present boot, and good.

    A boot whose own offset is known is dated by it. Others lie in boot order between the last moment that a boot before
    them is known to have dated and the start of the next good boot; the time that the board was off is unknown and
    shared out evenly. Without a good boot before them they end where the next good one starts.
    """
    spans = {w.boot_id: w.last_ns for w in waiting}
    placed: list[Placed] = []
    before: Boot | None = None
    run: list[str] = []
    for boot_id, boot in merged(order, waiting):
        if boot is None or not boot.good:
            if boot and boot.placed_ns and boot_id in spans:
                placed.append(Placed(boot_id, stamp_offset(boot.placed_ns, 0), estimated=True))
            elif boot_id in spans:
                run.append(boot_id)
            continue
        placed += _between(before, boot, [(name, spans[name]) for name in run])
        if boot_id in spans and boot is not order[-1]:
            placed.append(Placed(boot_id, boot.first_stamp_offset_ns, estimated=False))
        before, run = boot, []
    return placed


def _between(before: Boot | None, after: Boot, run: Sequence[tuple[str, int]]) -> list[Placed]:
    end = after.offset_ns
    total = sum(span for _, span in run)
    if before is None:
        start = end - total
    else:
        start = before.known_until_ns
        if start + total > end:  # it may have ended before what was reserved for it
            start = max(before.saved_boot_ns + before.offset_ns, end - total)
    gap = max(0, end - start - total) // (len(run) + 1)
    placed = []
    for boot_id, span in run:
        start += gap
        placed.append(Placed(boot_id, stamp_offset(start, 0), estimated=True))
        start += span
    return placed


class Dating(Loop):
    """Applies what the clock knows to what waits in the buffer. A util.loops.Loop.

    `on_dated` is called when this boot's points were dated: they have waited long enough to be sent at once. `wrong`:
    what was delivered with a time that turned out to be wrong, since the agent started.
    """

    def __init__(
        self,
        clock: Clock,
        buffer: Undated,
        unanchored: Unanchored = "estimate",
        on_dated: Callable[[], None] = lambda: None,
    ) -> None:
        self._clock, self._buffer, self._unanchored, self._on_dated = clock, buffer, unanchored, on_dated
        self.wakeup = clock.changed
        self._healed: tuple[int | None, int] | None = None
        self._held: set[str] = set()
        self._calm = 0
        self._due_ns = self._seen = 0
        self.wrong = Wrong()
        self._lock = RLock()  # between asking the clock for a time and dating by it nothing is withdrawn
        clock.on_wrong(self._withdraw)

    @property
    def warning(self) -> str | None:
        """What a person should know of points that have a wrong time on the server."""
        wrong = self.wrong
        if not wrong.delivered:
            return None
        span = f"{shown(wrong.first_ns)} to {shown(wrong.last_ns)}"
        return f"{counted(wrong.delivered, 'point')} delivered with a time that was wrong, dated {span}"

    def step(self) -> float:
        """Look at the clock, and date what can be dated if it is time or there is news."""
        state, now, changes = self._clock.poll(), self._clock.boot_ns(), self._clock.changes
        if changes != self._seen or now >= self._due_ns:
            self.apply()
            # once more soon after news, as a reading may have been on its way without a time; and until the disk is
            # open, as nobody knows yet what waits there
            calm = state.good and changes == self._seen and self._buffer.snapshot().disk_ok
            self._due_ns = now + LOOK_GOOD_NS if calm else now
            self._seen = changes
        return LOOK_S

    def apply(self) -> None:
        """Date what can be dated: by hand what a person gave the time of, and all else if the time is known."""
        boots = self._clock.boots
        by_hand = read(boots.folder) if boots.folder else {}
        for waiting in self._buffer.undated():
            if waiting.boot_id in by_hand:
                self._buffer.date_boot(waiting.boot_id, stamp_offset(by_hand[waiting.boot_id], 0), estimated=True)
                log.info("%d points of an earlier boot are dated by hand (clock=estimated)", waiting.count)
        state = self._clock.state()
        offset = self._clock.undated_offset_ns()
        if offset is None:
            self._healed = None
            return
        self._doubt(boots.order())
        waits = self._buffer.undated()
        here = self._clock.boot_id
        known = state.since_boot_ns, offset
        if self._healed != known or any(w.boot_id == here for w in waits):
            with self._lock:
                if self._clock.undated_offset_ns() != offset:
                    return  # another thread has learned better meanwhile: there is news
                self._buffer.date_boot(here, offset, estimated=False)
            self._healed = known
            self._on_dated()
        order = boots.order()
        if earlier := [w for w in waits if w.boot_id != here]:
            self._earlier(earlier, place(order, earlier))
        self._tidy(order)

    def _withdraw(self, boot_id: str, stretches: tuple[Stretch, ...]) -> None:
        """Points with these times wait for others, unless they were sent."""
        with self._lock:
            wrong = self._buffer.withdraw(boot_id, stretches)
        if not wrong.delivered:
            log.warning("The time so far was wrong: %d points that wait are dated anew", wrong.waiting)
            return
        log.warning(
            "The time so far was wrong: %d points that wait are dated anew; %d were delivered with a wrong time, "
            "from %s to %s",
            wrong.waiting,
            wrong.delivered,
            shown(wrong.first_ns),
            shown(wrong.last_ns),
        )
        first = min(wrong.first_ns, self.wrong.first_ns or wrong.first_ns)
        last = max(wrong.last_ns, self.wrong.last_ns)
        self.wrong = Wrong(0, self.wrong.delivered + wrong.delivered, first, last)

    def _doubt(self, order: Sequence[Boot]) -> None:
        """A boot that lasted until after this one began, by servers' word, had a wrong time."""
        here = order[-1]
        if not (self._clock.proven and here.good):
            return
        for boot in order[:-1]:
            into = boot.saved_boot_ns + boot.offset_ns - here.first_offset_ns
            better = boot.evidence == "kernel" and here.evidence == "servers"  # as in sources.py: unless it is absurd
            if boot.good and into > boot.error_ns + here.error_ns + (DAY if better else _DOUBT_NS):
                self._withdraw(boot.id, self._clock.boots.doubt(boot.id).stretches)

    def configure(self, unanchored: Unanchored) -> None:
        """Another `[clock] unanchored`: held points are dealt with at the next look."""
        self._unanchored, self._due_ns = unanchored, 0
        self._clock.changed.set()

    def _earlier(self, waiting: Sequence[Waiting], placed: Sequence[Placed]) -> None:
        points = {w.boot_id: w.count for w in waiting}
        if self._unanchored == "estimate":
            self._clock.boots.place({p.boot_id: p.offset_ns for p in placed if p.estimated})
        for where in placed:
            count = points[where.boot_id]
            if not where.estimated:
                self._buffer.date_boot(where.boot_id, where.offset_ns, estimated=False)
            elif self._unanchored == "estimate":
                self._buffer.date_boot(where.boot_id, where.offset_ns, estimated=True)
                log.warning(
                    "%d points of an earlier boot, whose time was never known, are dated by estimate (clock=estimated)",
                    count,
                )
            elif self._unanchored == "discard":
                self._buffer.discard_boot(where.boot_id, NO_TIME)
                log.warning("%d points of an earlier boot, whose time was never known, are dropped", count)
            elif where.boot_id not in self._held:
                self._held.add(where.boot_id)
                log.warning("%d points of an earlier boot wait for a time: iot-agent buffer date", count)

    def _tidy(self, order: Sequence[Boot]) -> None:
        """Forget boots that nothing waits for, once it is sure that the disk was read and written since."""
        left = {w.boot_id for w in self._buffer.undated()}
        self._calm = self._calm + 1 if self._buffer.snapshot().disk_ok else 0
        if self._calm >= _CALM_LOOKS:
            boots = self._clock.boots
            boots.forget(b.id for b in order[:-1] if b.id not in left)
            if boots.folder:
                remove(boots.folder)


def words(state: ClockState, now_boot_ns: int) -> str:
    """One line for `status` and `doctor`: good or not, by what evidence, since when, how well."""
    if not state.good or state.evidence is None:
        text = "not good yet: nobody vouches for the time; points wait without one"
    else:
        since = rough_duration((now_boot_ns - (state.since_boot_ns or 0)) / SECOND)
        text = f"good by {VOUCHER[state.evidence]} for {since}, within {(state.error_ns or 0) / SECOND:.3f} s"
    return f"{text}; {state.warning}" if state.warning else text
