"""The boot clock, the wall clock, and when a reading was taken in Unix time.

Readings carry CLOCK_BOOTTIME, which no step touches. Unix time is boot time plus an offset, which is known once the
kernel or the servers vouch for it (sources.py) and is then kept for the boot. How it is wired: see backdating.py.
"""

from __future__ import annotations

import logging
import time
from collections.abc import Callable
from dataclasses import dataclass
from functools import partial
from pathlib import Path
from threading import Event, Lock

from agent.clock.boots import Boot, Boots, current_boot_id
from agent.clock.kernel import KernelClock, kernel_clock
from agent.clock.servers import Servers
from agent.clock.sources import (
    DAY,
    DISAGREE_NS,
    SECOND,
    VOUCHER,
    Anchor,
    Evidence,
    Observation,
    aged,
    judge,
)
from agent.clock.timeline import (
    Segment,
    Stretch,
    contradicts,
    extended,
    segment_at,
    stamp_offset,
    stretches,
)
from agent.config.settings import ClockSettings, Trust
from drivers.base import boot_ns

log = logging.getLogger(__name__)


@dataclass(frozen=True, slots=True)
class ClockState:
    """Whether Unix time is known, by what evidence, since when (boot clock), and how well.

    Unix time = boot clock + `offset_ns`. `error_ns` is the bound of its error now. `warning` is for the user.
    """

    good: bool
    evidence: Evidence | None = None
    since_boot_ns: int | None = None
    offset_ns: int | None = None
    error_ns: int | None = None
    warning: str | None = None


class Clock:
    """Thread-safe. `boot_ns`, `wall_ns` and `kernel` are the clocks to read; tests pass their own.

    Points whose time can be wrong by more than `max_error_ns` get none.
    """

    def __init__(
        self,
        boots: Boots,
        *,
        trust: Trust = "auto",
        max_error_ns: int = 300 * SECOND,
        boot_ns: Callable[[], int] = boot_ns,
        wall_ns: Callable[[], int] = time.time_ns,
        kernel: Callable[[], KernelClock | None] = kernel_clock,
    ) -> None:
        self.boots = boots
        self.boot_id = boots.boot_id
        self.changed = Event()  # set when the state became good or another: whoever dates waits for it
        self.changes = 0  # how often that was
        self._trust, self._max_error_ns = trust, max_error_ns
        self._boot_ns, self._wall_ns, self._kernel = boot_ns, wall_ns, kernel
        self._polling = Lock()  # one look at a time; held while a child process or the disk is waited for
        self._lock = Lock()
        self._servers = Servers()
        self._anchor: Anchor | None = None
        self._since: int | None = None
        self._warning: str | None = None
        self._confirmed: int | None = None  # the kernel's offset that a server last agreed with, to the day
        self._agreed: int | None = None  # and to the second
        self._era_ns = 0  # what was dated before this moment is right, whatever turns out
        self._segments: tuple[Segment, ...] = ()  # none exactly while there is no anchor
        self._unsure_since: int | None = None  # the anchor is too old for max_error: nothing is dated from then on
        self._undated_offset_ns = 0
        self._on_wrong: Callable[[str, tuple[Stretch, ...]], None] = lambda *_: None
        self._resume(boots.order()[-1])

    def _resume(self, here: Boot) -> None:
        """Go on with what an earlier run in this boot knew."""
        if here.evidence is None or (here.evidence == "always") > (self._trust == "always"):
            return
        if here.saved_boot_ns <= self._boot_ns():
            first = Anchor(here.first_offset_ns, here.evidence, here.first_error_ns, here.since_boot_ns)
            anchor = Anchor(here.offset_ns, here.evidence, here.error_ns, here.saved_boot_ns, stored=True)
            self._anchor, self._since = anchor, here.since_boot_ns
            self._undated_offset_ns = here.first_stamp_offset_ns
            self._segments = (
                Segment(here.since_boot_ns, first.offset_ns, here.first_lane, 0, first),
                Segment(here.saved_boot_ns, anchor.offset_ns, here.lane, here.given_ns, anchor),
            )

    def on_wrong(self, tell: Callable[[str, tuple[Stretch, ...]], None]) -> None:
        """Have `tell` called with a boot and its stretches when what was dated so turns out to be wrong, before
        anybody can learn the right time from here.
        """
        self._on_wrong = tell

    def configure(self, trust: Trust, max_error_ns: int) -> None:
        """Other settings. What was good only because of "always" is good no more."""
        with self._polling:
            with self._lock:
                self._trust, self._max_error_ns = trust, max_error_ns
                always = self._anchor is not None and self._anchor.evidence == "always"
                wrong = self._forget(self._boot_ns()) if trust == "auto" and always else ()
            self._tell_wrong(wrong)
        self._tell()

    def boot_ns(self) -> int:
        """Nanoseconds since boot."""
        return self._boot_ns()

    def state(self) -> ClockState:
        with self._lock:
            anchor = self._anchor
            if anchor is None:
                return ClockState(good=False, warning=self._warning)
            error = aged(anchor, self._boot_ns()).error_ns
            good, warning = self._unsure_since is None, self._warning
            if not good:
                warning = f"the time is known within {error / SECOND:.0f} s only, over [clock] max_error: points wait"
            return ClockState(good, anchor.evidence, self._since, anchor.offset_ns, error, warning)

    def date(self, boot_ns: int) -> int | None:
        """Unix nanoseconds, a whole millisecond and a lane (timeline.py), of a moment of this boot; None while the
        time is not known. Of points of one series on one lane, later ones are given a later time by the buffer.
        """
        segment = segment_at(self._segments, boot_ns)
        if segment is None or (self._unsure_since is not None and boot_ns >= self._unsure_since):
            return None
        return segment.stamp_of(boot_ns)

    def undated_offset_ns(self) -> int | None:
        """By what the points are dated that were measured while the time was not known; None as long as it is not."""
        return self._undated_offset_ns if self._segments and self._unsure_since is None else None

    def poll(self) -> ClockState:
        """Look at the kernel and the wall clock: every second."""
        with self._polling:
            before, wall_offset, after = self._read()
            kernel = after if before and before.vouches else None
            now = self._boot_ns()
            with self._lock:
                wrong = self._judge(now, wall_offset, kernel)
                known = self._known(now)
            self._tell_wrong(wrong)
            if known is not None:
                self.boots.remember(known)
        return self.state()

    def _tell_wrong(self, wrong: tuple[Stretch, ...]) -> None:
        if wrong:
            self._on_wrong(self.boot_id, wrong)
            self.boots.doubt(self.boot_id)

    def observe(
        self, date_ns: int, resolution_ns: int, sent_boot_ns: int, received_boot_ns: int, source: str, *, written: bool
    ) -> bool:
        """A server's date from an answer that is proven to be its own: see Observation. Over plain HTTP nothing counts
        before a first one that is `written`. False: its dates are of no use, and need not be asked for so soon.

        Most are let go by while the time is known and they agree. Dates from before this program was written, or after
        any that a stamp holds, are ignored, and so are those that stand still.
        """
        with self._lock:
            known = self._anchor is not None
            seen = Observation(date_ns, resolution_ns, sent_boot_ns, received_boot_ns, source, written)
            counts = self._servers.hear(seen, self._max_error_ns, known=known)
        if counts is not None:
            self.poll()
        return counts is not False

    def close(self) -> None:
        """Remember exactly until when the time was known. After the last point was dated."""
        with self._polling, self._lock:
            now = self._boot_ns()
            known = self._known(now)
        if known is not None:
            self.boots.close(known)

    @property
    def proven(self) -> bool:
        """Whether a server has been heard in this run: what it contradicts by over a day is not believed."""
        return bool(self._servers.observations)

    def probe_in(self) -> float | None:
        """Seconds until delivery should ask a server for its date by an empty write; None: no need to ask.

        Asked for at first contact, before the first points are sent (the wall clock may be absurd), and until the
        servers' answers settle whether the clock is good.
        """
        with self._lock:
            good = self._anchor is not None and self._unsure_since is None
            if self._trust == "always" or (good and self._servers.observations):
                return None
            return self._servers.ask_in(self._boot_ns())

    def _known(self, now: int) -> Boot | None:
        """What there is to remember of this boot."""
        if self._anchor is None:
            return None
        assert self._since is not None
        first, last = self._segments[0], self._segments[-1]
        anchor, first_anchor = aged(self._anchor, now), aged(first.anchor, self._since)
        return Boot(
            self.boot_id,
            evidence=anchor.evidence,
            offset_ns=last.offset_ns,
            error_ns=anchor.error_ns,
            since_boot_ns=self._since,
            saved_boot_ns=now,
            given_ns=last.time_of(now),
            first_offset_ns=first.offset_ns,
            first_error_ns=first_anchor.error_ns,
            first_lane=first.lane,
            lane=last.lane,
        )

    def _read(self) -> tuple[KernelClock | None, int, KernelClock | None]:
        """The wall clock's offset between two looks at the kernel's word: a step between them voids the word.

        Of some readings that with the least time between them counts: a busy machine may pause within one.
        """
        before = self._kernel()
        found = []
        for _ in range(3):
            first, wall, last = self._boot_ns(), self._wall_ns(), self._boot_ns()
            found.append((last - first, wall - (first + last) // 2))
        return before, min(found)[1], self._kernel()

    def _judge(self, now: int, wall_offset_ns: int, kernel: KernelClock | None) -> tuple[Stretch, ...]:
        """Go by the evidence of this moment. What was dated by a time that it says was wrong."""
        verdict = judge(
            now_boot_ns=now,
            wall_offset_ns=wall_offset_ns,
            kernel=kernel,
            observations=self._servers.recent(now),
            held=self._anchor,
            trust=self._trust,
            known_ns=self.boots.known_ns,
            tolerance_ns=self._max_error_ns,
            confirmed_ns=self._confirmed,
        )
        was, anchor = self._anchor, verdict.anchor
        newest = self._servers.newest
        if anchor is not None and anchor.evidence == "kernel" and not anchor.stored and newest is not None:
            away = abs(newest.away_ns(anchor.offset_ns, now))
            self._confirmed = anchor.offset_ns if away <= DAY else self._confirmed
            self._agreed = anchor.offset_ns if away <= DISAGREE_NS else self._agreed
        warning = verdict.warning or self._servers.warning(now, known=anchor is not None)
        self._say(was, anchor, warning)
        self._warning = warning
        wrong: tuple[Stretch, ...] = ()
        if was is not None and (anchor is None or contradicts(self._segments, anchor, now)):
            if anchor is not None and self._agreed is not None and abs(self._agreed - was.offset_ns) <= DISAGREE_NS:
                self._turn(anchor, now)
            else:
                wrong = self._forget(now)
        if anchor is not None:
            self._believe(anchor, now)
        if self._anchor is not None and (was is None or wrong or was.evidence != self._anchor.evidence):
            self._tell()
        return wrong

    def _believe(self, anchor: Anchor, now: int) -> None:
        """Date by this from now on, and by the same what was measured since nothing could be dated."""
        fresh = self._anchor is None
        self._anchor = anchor
        if self._since is None:
            self._since = now
        sure = aged(anchor, now).error_ns <= self._max_error_ns
        if not sure and self._unsure_since is None:
            self._unsure_since = now
        before, since = self._segments, self._unsure_since
        self._segments = extended(before, anchor, now if since is None else since, partial(self._free_lane, now))
        if fresh or since is not None:
            last = self._segments[-1]
            self._undated_offset_ns = stamp_offset(last.offset_ns, last.lane)
        if sure and since is not None:
            self._unsure_since = None
            self._tell()

    def _turn(self, anchor: Anchor, now: int) -> None:
        """The time moved by more than was stated, and servers had said that it was right before: a virtual machine was
        halted, or somebody errs now. What was dated before stays.
        """
        moved_s = (anchor.offset_ns - self._segments[-1].offset_ns) / SECOND
        log.warning("The time moved by %.1f s: what was dated before stays", moved_s)
        lane = self._free_lane(now, now + anchor.offset_ns)
        self._segments, self._era_ns = (Segment(now, anchor.offset_ns, lane, 0, anchor),), now

    def _free_lane(self, now: int, from_ns: int) -> int:
        """A lane other than the present one, on which no stamp is as late as this Unix time."""
        if self._segments:
            last = self._segments[-1]
            self.boots.used(last.lane, last.stamp_of(now) + SECOND)
        return self.boots.free_lane(from_ns)

    def _forget(self, now: int) -> tuple[Stretch, ...]:
        """Nothing is known any more of the time in this boot. What was dated by it."""
        wrong = stretches(self._segments, self._era_ns, now)
        for stretch in wrong:
            self.boots.used(stretch.lane, stretch.last_ns)
        self._anchor, self._since, self._unsure_since, self._segments = None, None, None, ()
        self._tell()
        return wrong

    def _tell(self) -> None:
        self.changes += 1
        self.changed.set()

    def _say(self, was: Anchor | None, anchor: Anchor | None, warning: str | None) -> None:
        if anchor is not None and (was is None or was.evidence != anchor.evidence):
            log.info("The time is known by %s, within %.3f s", VOUCHER[anchor.evidence], anchor.error_ns / SECOND)
        elif anchor is None and was is not None:
            log.warning("The time is not known any more: points wait for it")
        if (warning is None) != (self._warning is None):
            log.warning("%s", warning) if warning else log.info("The clock's warning is over")


def open_clock(folder: Path, settings: ClockSettings) -> Clock:
    """The clock of this boot, with what the state folder remembers of it. Asks nothing yet; call poll()."""
    boots = Boots(folder, current_boot_id())
    boots.begin()
    return Clock(boots, trust=settings.trust, max_error_ns=round(settings.max_error * SECOND))
