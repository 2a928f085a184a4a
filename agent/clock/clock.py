"""The boot clock, the wall clock, and when a reading was taken in Unix time.

Readings carry CLOCK_BOOTTIME, which no step touches. Unix time is boot time plus an offset, which is known once the
kernel or the servers vouch for it (sources.py) and is then kept for the boot. How it is wired: see backdating.py.
"""

from __future__ import annotations

import logging
import time
from collections.abc import Callable
from dataclasses import dataclass
from pathlib import Path
from threading import Event, Lock

from agent.clock.boots import Boot, Boots, current_boot_id
from agent.clock.kernel import KernelClock, kernel_clock
from agent.clock.sources import (
    BUILT_NS,
    OBSERVED_AGE_NS,
    SECOND,
    VOUCHER,
    Anchor,
    Evidence,
    Observation,
    Trust,
    aged,
    consensus,
    judge,
)
from agent.clock.timeline import Segment, extended, segment_at
from agent.config.settings import ClockSettings
from drivers.base import boot_ns

log = logging.getLogger(__name__)

PROBE_EVERY_S = 0.55  # three answers in 1.1 s: far enough apart to agree, within the 2 s of promise 5
PROBE_SLOWLY_S = 5.0
FIRST_WORD_NS = 5 * SECOND
_OBSERVATIONS = 12
_ENOUGH_NS = 5 * SECOND
MILLISECOND = 1_000_000
_READ_WITHIN_NS = 2 * MILLISECOND


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

    For `first_word_ns` after its start it lets a server speak before it believes the kernel: what was dated by an
    absurd clock stays so.
    """

    def __init__(
        self,
        boots: Boots,
        *,
        trust: Trust = "auto",
        first_word_ns: int = 0,
        boot_ns: Callable[[], int] = boot_ns,
        wall_ns: Callable[[], int] = time.time_ns,
        kernel: Callable[[], KernelClock | None] = kernel_clock,
    ) -> None:
        self.boots = boots
        self.boot_id = boots.boot_id
        self.changed = Event()  # set when the state became good or another: whoever dates waits for it
        self.changes = 0  # how often that was
        self._trust = trust
        self._boot_ns, self._wall_ns, self._kernel = boot_ns, wall_ns, kernel
        self._alone_until = boot_ns() + first_word_ns
        self._polling = Lock()  # one look at a time; held while a child process or the disk is waited for
        self._lock = Lock()
        self._observations: tuple[Observation, ...] = ()
        self._anchor: Anchor | None = None
        self._since: int | None = None
        self._warning: str | None = None
        self._past: int | None = None  # when a server last gave a date that cannot be
        self._segments: tuple[Segment, ...] = ()  # none exactly while the time is not known
        here = boots.order()[-1]
        if here.evidence is None or (here.evidence == "always") > (trust == "always"):
            return
        if here.saved_boot_ns <= boot_ns():
            first = Anchor(here.first_offset_ns, here.evidence, here.first_error_ns, here.since_boot_ns)
            anchor = Anchor(here.offset_ns, here.evidence, here.error_ns, here.saved_boot_ns)
            self._anchor, self._since = anchor, here.since_boot_ns
            self._segments = (
                Segment(here.since_boot_ns, first.offset_ns, 0, first),
                Segment(here.saved_boot_ns, anchor.offset_ns, here.given_ns, anchor),
            )

    def configure(self, trust: Trust) -> None:
        """Another `[clock] trust`. What was good only because of "always" is good no more."""
        with self._polling, self._lock:
            self._trust = trust
            if trust == "auto" and self._anchor is not None and self._anchor.evidence == "always":
                self._anchor, self._since, self._segments = None, None, ()
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
            return ClockState(True, anchor.evidence, self._since, anchor.offset_ns, error, self._warning)

    def date(self, boot_ns: int) -> int | None:
        """Unix nanoseconds, rounded to a millisecond, of a moment of this boot; None while the time is not known.

        Later moments never get an earlier time, however the wall clock is slewed or stepped.
        """
        segment = segment_at(self._segments, boot_ns)
        if segment is None:
            return None
        return (segment.time_of(boot_ns) + MILLISECOND // 2) // MILLISECOND * MILLISECOND

    def first_offset_ns(self) -> int | None:
        """By what the points are dated that were measured before the time was known: the same in all the boot."""
        segments = self._segments
        return segments[0].offset_ns if segments else None

    def poll(self) -> ClockState:
        """Look at the kernel and the wall clock: every second while not good, every minute after."""
        with self._polling:
            before, wall_offset, after = self._read()
            kernel = after if before and before.vouches else None
            now = self._boot_ns()
            if not self._observations and now < self._alone_until:
                kernel = None
            with self._lock:
                self._judge(now, wall_offset, kernel)
                known = self._known(now)
            if known is not None:
                self.boots.remember(known)
        return self.state()

    def observe(self, date_ns: int, resolution_ns: int, sent_boot_ns: int, received_boot_ns: int) -> None:
        """A server's date from an answer: a Date header (resolution 1 s) or a serverTime.

        Called for every answer, refused ones too; most are let go by at once while the time is known. Implausible
        dates (before this program was written) are ignored.
        """
        if date_ns < BUILT_NS or received_boot_ns < sent_boot_ns:
            self._past = received_boot_ns
            self.poll()
            return
        seen = Observation(date_ns, max(resolution_ns, MILLISECOND), sent_boot_ns, received_boot_ns)
        with self._lock:
            last = self._observations[-1].received_boot_ns if self._observations else None
            if self._anchor is not None and last is not None and 0 <= received_boot_ns - last < _ENOUGH_NS:
                return
            recent = [o for o in self._observations if received_boot_ns - o.received_boot_ns < OBSERVED_AGE_NS]
            self._observations = (*recent, seen)[-_OBSERVATIONS:]
        self.poll()

    def close(self) -> None:
        """Remember exactly until when the time was known. After the last point was dated."""
        with self._polling, self._lock:
            now = self._boot_ns()
            known = self._known(now)
        if known is not None:
            self.boots.close(known)

    def probe_in(self) -> float | None:
        """Seconds until delivery should ask a server for its date by an empty write; None: no need to ask.

        Asked for at first contact, before the first points are sent (the wall clock may be absurd), and until the
        servers' answers settle whether the clock is good.
        """
        with self._lock:
            seen, good = self._observations, self._anchor is not None
        if self._trust == "always":
            return None
        if not seen:
            return 0.0
        now = self._boot_ns()
        if good or consensus(seen, now) is not None:
            return None
        every = PROBE_EVERY_S if len(seen) < 5 else PROBE_SLOWLY_S
        return max(0.0, every - (now - seen[-1].received_boot_ns) / SECOND)

    def _known(self, now: int) -> Boot | None:
        """What there is to remember of this boot."""
        if self._anchor is None or self._since is None:
            return None
        anchor, first = aged(self._anchor, now), aged(self._segments[0].anchor, self._since)
        return Boot(
            self.boot_id,
            evidence=anchor.evidence,
            offset_ns=anchor.offset_ns,
            error_ns=anchor.error_ns,
            since_boot_ns=self._since,
            saved_boot_ns=now,
            given_ns=self._segments[-1].time_of(now),
            first_offset_ns=first.offset_ns,
            first_error_ns=first.error_ns,
        )

    def _read(self) -> tuple[KernelClock | None, int, KernelClock | None]:
        """The wall clock's offset between two looks at the kernel's word: a step between them voids the word."""
        best: tuple[int, int] | None = None
        before = self._kernel()
        for _ in range(5):
            first = self._boot_ns()
            wall = self._wall_ns()
            width = self._boot_ns() - first
            if best is None or width < best[0]:
                best = width, wall - first - width // 2
            if width <= _READ_WITHIN_NS:
                break
        assert best is not None
        return before, best[1], self._kernel()

    def _judge(self, now: int, wall_offset_ns: int, kernel: KernelClock | None) -> None:
        verdict = judge(
            now_boot_ns=now,
            wall_offset_ns=wall_offset_ns,
            kernel=kernel,
            observations=[o for o in self._observations if now - o.received_boot_ns < OBSERVED_AGE_NS],
            held=self._anchor,
            trust=self._trust,
        )
        was, anchor = self._anchor, verdict.anchor
        warning = verdict.warning
        if warning is None and self._past is not None and now - self._past < OBSERVED_AGE_NS:
            warning = "a server's date is in the past: it is ignored"
        self._say(was, anchor, warning)
        self._warning, self._anchor = warning, anchor
        if anchor is None:
            self._since, self._segments = None, ()
            return
        if self._since is None:
            self._since = now
        self._segments = extended(self._segments, anchor, now)
        if was is None or was.evidence != anchor.evidence:
            self._tell()

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
    return Clock(boots, trust=settings.trust, first_word_ns=FIRST_WORD_NS)
