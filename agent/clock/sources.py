"""Who vouches for the time: the kernel, or servers whose dates agree. Pure functions over offsets.

An offset is Unix time minus boot clock, in nanoseconds: the Unix time at which the boot clock read 0. A date in an
answer (a Date header holds whole seconds, cut off) says that the offset lies in an interval. Answers that contradict
the newest of as good a source are forgotten; what is left agrees, within the error that a point may have.
"""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from dataclasses import dataclass, replace
from datetime import UTC, datetime
from typing import Literal

from agent.clock.kernel import KernelClock
from agent.config.settings import Trust
from agent.config.units import rough_duration

Evidence = Literal["kernel", "servers", "always"]
VOUCHER: Mapping[Evidence, str] = {
    "kernel": "the kernel",
    "servers": "the servers' dates",
    "always": 'trust = "always"',
}

SECOND = 1_000_000_000
DAY = 86_400 * SECOND
BUILT_NS = 1_767_225_600 * SECOND  # 2026-01-01: no clock that shows less is right
LATEST_NS = 9_000_000_000 * SECOND  # 2255-03-14: no clock that shows more is; a stamp is an int64 and ends in 2262
DRIFT_PPM = 100  # crystals of small boards: 50 ppm, and as much for the cold
SLACK_NS = SECOND // 20  # servers cache their Date header for some milliseconds
SPREAD_NS = SECOND  # answers of one moment agree by being copies; a second apart they agree by being right
PERSIST_NS = 17 * SECOND // 2  # so long servers must say the same against the wall clock: some are wrong for 8 s
LONG_NS = 60 * SECOND  # and for so long, or two of them, where all else that is known is over a year away
YEAR = 365 * DAY
OBSERVED_AGE_NS = 3600 * SECOND
OBSERVATIONS = 12
MOVED_NS = SECOND // 1000  # smaller changes of the offset are noise
DISAGREE_NS = 2 * SECOND  # what is worth telling the user


@dataclass(frozen=True, slots=True)
class Observation:
    """A server's date: it was in [date_ns, date_ns + resolution_ns) between sending and receiving (boot clock).

    `source` is the server (scheme, host, port). `written`: the answer was a 204, or what InfluxDB 3 says to an empty
    write in its place, or a registration with its token, which nobody else gives; else an error in the server's own
    words.
    """

    date_ns: int
    resolution_ns: int
    sent_boot_ns: int
    received_boot_ns: int
    source: str = ""
    written: bool = True

    def offsets(self, now_boot_ns: int) -> tuple[int, int]:
        """The lowest and highest offset this allows now, widened by the drift since."""
        slack = SLACK_NS + drift_ns(now_boot_ns - self.received_boot_ns)
        return self.date_ns - self.received_boot_ns - slack, (
            self.date_ns + self.resolution_ns - self.sent_boot_ns + slack
        )

    def away_ns(self, offset_ns: int, now_boot_ns: int) -> int:
        """By how much an offset is more (or, negative, less) than this allows; 0 within."""
        low, high = self.offsets(now_boot_ns)
        return offset_ns - min(max(offset_ns, low), high)

    def apart_ns(self, other: Observation) -> int:
        """How far the times that two servers allow are from each other; 0 where they share some."""
        now = max(self.received_boot_ns, other.received_boot_ns)
        (low, high), (other_low, other_high) = self.offsets(now), other.offsets(now)
        return max(0, low - other_high, other_low - high)


@dataclass(frozen=True, slots=True)
class Consensus:
    """The offsets that all the answers allow, or, where some do not agree to the second, all that one of them does.

    `coarseness_ns` is their resolution, `span_ns` for how long they have said so, `sources` how many servers did.
    """

    low_ns: int
    high_ns: int
    coarseness_ns: int
    span_ns: int
    sources: int

    @property
    def middle_ns(self) -> int:
        return (self.low_ns + self.high_ns) // 2

    def nearest(self, offset_ns: int) -> int:
        return min(max(offset_ns, self.low_ns), self.high_ns)

    def error_ns(self, offset_ns: int) -> int:
        """How far off this offset can be if the servers are right; at least their resolution."""
        return max(self.coarseness_ns, offset_ns - self.low_ns, self.high_ns - offset_ns)


@dataclass(frozen=True, slots=True)
class Anchor:
    """An offset with its evidence. `error_ns` bounds it at `boot_ns`, the moment it was found. `stored`: an earlier
    run has left it, and nothing has confirmed it since.
    """

    offset_ns: int
    evidence: Evidence
    error_ns: int
    boot_ns: int
    stored: bool = False


@dataclass(frozen=True, slots=True)
class Verdict:
    anchor: Anchor | None
    warning: str | None = None


def drift_ns(span_ns: int) -> int:
    """The most that a crystal goes wrong in this time."""
    return abs(span_ns) * DRIFT_PPM // 1_000_000


def joined(observations: Sequence[Observation], seen: Observation, tolerance_ns: int) -> tuple[Observation, ...]:
    """The answers with one more. What is further from it than `tolerance_ns` is forgotten, unless it is of a better
    source: then the new one is. The oldest is kept with the latest: it says since when they agree. What was said before
    is forgotten, too, once the latest agree to the second without it, for PERSIST_NS and for as long as it was said.
    """
    for earlier in observations:
        late = seen.received_boot_ns - earlier.received_boot_ns > seen.resolution_ns + SLACK_NS
        if earlier.source == seen.source and earlier.date_ns == seen.date_ns and late:
            return tuple(observations)  # a date that stands still: a copy in a cache
    apart = [o for o in observations if o.apart_ns(seen) > tolerance_ns]
    if not seen.written and any(o.written for o in apart):
        return tuple(observations)
    agreeing = (*(o for o in observations if o not in apart), seen)
    return _settled((*agreeing[:1], *agreeing[1:][-OBSERVATIONS:]))


def _settled(observations: tuple[Observation, ...]) -> tuple[Observation, ...]:
    now = observations[-1].received_boot_ns
    spans = [o.offsets(now) for o in observations]
    low, high = spans[-1]
    for at in reversed(range(len(spans))):
        low, high = max(low, spans[at][0]), min(high, spans[at][1])
        if low > high:
            needed = max(PERSIST_NS, observations[at].received_boot_ns - observations[0].received_boot_ns)
            return observations[at + 1 :] if now - observations[at + 1].received_boot_ns >= needed else observations
    return observations


def consensus(observations: Sequence[Observation], now_boot_ns: int) -> Consensus | None:
    """What answers say that agree (joined), if the first and the last lie at least SPREAD_NS apart; else None."""
    times = [o.received_boot_ns for o in observations]
    if not times or max(times) - min(times) < SPREAD_NS:
        return None
    spans = [o.offsets(now_boot_ns) for o in observations]
    low, high = max(low for low, _ in spans), min(high for _, high in spans)
    if low > high:
        low, high = min(low for low, _ in spans), max(high for _, high in spans)
    coarseness = min(o.resolution_ns for o in observations)
    return Consensus(low, high, coarseness, max(times) - min(times), len({o.source for o in observations}))


def judge(
    *,
    now_boot_ns: int,
    wall_offset_ns: int,
    kernel: KernelClock | None,
    observations: Sequence[Observation],
    held: Anchor | None,
    trust: Trust,
    known_ns: int,
    tolerance_ns: int,
    confirmed_ns: int | None,
) -> Verdict:
    """Which offset is good now, if any. `known_ns` is the latest Unix time that was known before this boot,
    `confirmed_ns` the kernel's offset that a server last agreed with.

    The kernel's word counts unless the time is absurd (before this program was written, or over a day from a server's
    date; for LONG_NS, if a server agreed before). Else servers that agree win: with the wall clock where it lies within
    what they allow; against it once they have said so for PERSIST_NS, or, over a year from all that is known or before
    it, for LONG_NS. Else what was good before in this boot stays good, with an error that grows by the drift, until an
    answer contradicts it that is as good.
    """
    servers = consensus(observations, now_boot_ns)
    if trust == "always":
        at = wall_offset_ns + now_boot_ns
        early = f'the wall clock shows {shown(at)}, and trust = "always" takes it' if at < BUILT_NS else None
        return Verdict(Anchor(wall_offset_ns, "always", 0, now_boot_ns), early or _differs(wall_offset_ns, servers))
    warning = None
    if kernel is not None and kernel.vouches:
        offset = wall_offset_ns + kernel.remaining_ns
        confirmed = confirmed_ns is not None and abs(offset - confirmed_ns) < DAY
        warning = _absurd(offset, now_boot_ns, observations, confirmed=confirmed)
        if warning is None:
            error = kernel.max_error_ns + abs(kernel.remaining_ns)
            if held is not None and abs(held.offset_ns - offset) < MOVED_NS:
                error = min(error, aged(held, now_boot_ns).error_ns)  # maxerror grows by 500 ppm, a crystal does not
            return Verdict(Anchor(offset, "kernel", error, now_boot_ns), _differs(offset, servers))
    if held is not None and observations and _refuted(held, observations[-1], now_boot_ns, tolerance_ns):
        held = None
    if servers is not None and servers.span_ns >= _needed(servers, now_boot_ns, wall_offset_ns, held, known_ns):
        return _by_servers(servers, now_boot_ns, wall_offset_ns, held, warning)
    return Verdict(held, warning or (_stepped(wall_offset_ns, held) if held else None))


def _refuted(held: Anchor, newest: Observation, now_boot_ns: int, tolerance_ns: int) -> bool:
    """Whether one answer is enough not to go by what was known: of an earlier run, of servers, of the kernel."""
    away = abs(newest.away_ns(held.offset_ns, now_boot_ns)) - aged(held, now_boot_ns).error_ns
    return away > (DISAGREE_NS if held.stored else DAY if held.evidence == "kernel" else tolerance_ns)


def _needed(servers: Consensus, now: int, wall_offset_ns: int, held: Anchor | None, known_ns: int) -> int:
    """For how long servers must have said the same to be believed."""
    if held is not None:
        away = abs(servers.nearest(held.offset_ns) - held.offset_ns)
        if away <= aged(held, now).error_ns:
            return SPREAD_NS  # nothing new, only better known
    says = servers.middle_ns + now
    nearest = min(abs(says - known) for known in (BUILT_NS, known_ns, wall_offset_ns + now))
    if (nearest > YEAR or says < known_ns - DISAGREE_NS) and servers.sources < 2:
        return LONG_NS
    return SPREAD_NS if servers.nearest(wall_offset_ns) == wall_offset_ns else PERSIST_NS


def _by_servers(
    servers: Consensus, now_boot_ns: int, wall_offset_ns: int, held: Anchor | None, warning: str | None
) -> Verdict:
    if held is not None and servers.nearest(held.offset_ns) == held.offset_ns:
        held = replace(held, stored=False)
        near = abs(held.offset_ns - wall_offset_ns) < SLACK_NS or servers.nearest(wall_offset_ns) != wall_offset_ns
        if near and aged(held, now_boot_ns).error_ns <= servers.error_ns(held.offset_ns):
            return Verdict(held, warning or _stepped(wall_offset_ns, held))  # what was known before is the better word
    if servers.nearest(wall_offset_ns) == wall_offset_ns:
        return Verdict(Anchor(wall_offset_ns, "servers", servers.error_ns(wall_offset_ns), now_boot_ns), warning)
    offset = servers.middle_ns
    if held is not None and abs(servers.nearest(held.offset_ns) - held.offset_ns) <= aged(held, now_boot_ns).error_ns:
        offset = servers.nearest(held.offset_ns)
    anchor = Anchor(offset, "servers", servers.error_ns(offset), now_boot_ns)
    return Verdict(anchor, warning or _stepped(wall_offset_ns, anchor))


def aged(anchor: Anchor, boot_ns: int) -> Anchor:
    """The same anchor with the error that it has for a point of this moment."""
    return replace(anchor, error_ns=anchor.error_ns + drift_ns(boot_ns - anchor.boot_ns), boot_ns=boot_ns)


def _absurd(offset_ns: int, now_boot_ns: int, observations: Sequence[Observation], *, confirmed: bool) -> str | None:
    at = offset_ns + now_boot_ns
    if at < BUILT_NS:
        return f"the wall clock counts as synchronised but shows {shown(at)}: it is not believed"
    if not observations or (confirmed and now_boot_ns - observations[0].received_boot_ns < LONG_NS):
        return None
    away = observations[-1].away_ns(offset_ns, now_boot_ns)
    if abs(away) > DAY:
        return f"the wall clock counts as synchronised but is {_span(away)} the server's date: it is not believed"
    return None


def _differs(offset_ns: int, servers: Consensus | None) -> str | None:
    away = servers.nearest(offset_ns) - offset_ns if servers else 0
    return f"the servers' clocks are {_span(away)} the wall clock" if abs(away) > DISAGREE_NS else None


def _stepped(wall_offset_ns: int, anchor: Anchor) -> str | None:
    away = wall_offset_ns - anchor.offset_ns
    if abs(away) <= DISAGREE_NS:
        return None
    by = "by the servers' dates, within 1 s" if anchor.evidence == "servers" else "by the time known before"
    return f"the wall clock is {_span(away)} true time: points are dated {by}"


def _span(away_ns: int) -> str:
    return f"{rough_duration(abs(away_ns) / SECOND)} {'ahead of' if away_ns > 0 else 'behind'}"


def shown(unix_ns: int) -> str:
    """A moment for a person, in UTC. What nanoseconds in 64 bits can say is within the calendar."""
    return f"{datetime.fromtimestamp(unix_ns // SECOND, UTC):%Y-%m-%d %H:%M:%S} UTC"
