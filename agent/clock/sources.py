"""Who vouches for the time: the kernel, or servers whose dates agree. Pure functions over offsets.

An offset is Unix time minus boot clock, in nanoseconds: the Unix time at which the boot clock read 0. A date in an
answer (a Date header holds whole seconds, cut off) says that the offset lies in an interval; the largest number of
intervals that share a point (Marzullo's algorithm) is what the servers agree on.
"""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from dataclasses import dataclass, replace
from typing import Literal

from agent.clock.kernel import KernelClock

Trust = Literal["auto", "always"]
Evidence = Literal["kernel", "servers", "always"]
VOUCHER: Mapping[Evidence, str] = {
    "kernel": "the kernel",
    "servers": "the servers' dates",
    "always": 'trust = "always"',
}

SECOND = 1_000_000_000
DAY = 86_400 * SECOND
BUILT_NS = 1_767_225_600 * SECOND  # 2026-01-01: no clock that shows less is right
DRIFT_PPM = 100  # crystals of small boards: 50 ppm, and as much for the cold
SLACK_NS = SECOND // 20  # servers cache their Date header for some milliseconds
SPREAD_NS = SECOND  # answers of one moment agree by being copies; a second apart they agree by being right
OBSERVED_AGE_NS = 3600 * SECOND
MOVED_NS = SECOND // 1000  # smaller changes of the offset are noise
DISAGREE_NS = 2 * SECOND  # what is worth telling the user


@dataclass(frozen=True, slots=True)
class Observation:
    """A server's date: it was in [date_ns, date_ns + resolution_ns) between sending and receiving (boot clock)."""

    date_ns: int
    resolution_ns: int
    sent_boot_ns: int
    received_boot_ns: int

    def offsets(self, now_boot_ns: int) -> tuple[int, int]:
        """The lowest and highest offset this allows now, widened by the drift since."""
        slack = SLACK_NS + drift_ns(now_boot_ns - self.received_boot_ns)
        return self.date_ns - self.received_boot_ns - slack, (
            self.date_ns + self.resolution_ns - self.sent_boot_ns + slack
        )


@dataclass(frozen=True, slots=True)
class Consensus:
    """The offsets that a majority of the answers allow; `coarseness_ns` is their resolution."""

    low_ns: int
    high_ns: int
    coarseness_ns: int

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
    """An offset with its evidence. `error_ns` bounds it at `boot_ns`, the moment it was found."""

    offset_ns: int
    evidence: Evidence
    error_ns: int
    boot_ns: int


@dataclass(frozen=True, slots=True)
class Verdict:
    anchor: Anchor | None
    warning: str | None = None


def drift_ns(span_ns: int) -> int:
    """The most that a crystal goes wrong in this time."""
    return abs(span_ns) * DRIFT_PPM // 1_000_000


def consensus(observations: Sequence[Observation], now_boot_ns: int) -> Consensus | None:
    """What more than half of the answers agree on, if those lie at least SPREAD_NS apart; else None."""
    spans = [o.offsets(now_boot_ns) for o in observations]
    best: tuple[int, int, list[Observation]] | None = None
    for low, _ in spans:  # an intersection begins where one of the intervals does
        members = [(o, s) for o, s in zip(observations, spans, strict=True) if s[0] <= low <= s[1]]
        if best is None or len(members) > len(best[2]):
            best = low, min(s[1] for _, s in members), [o for o, _ in members]
    if best is None or len(best[2]) * 2 <= len(observations) or len(best[2]) < 2:
        return None
    times = [o.received_boot_ns for o in best[2]]
    if max(times) - min(times) < SPREAD_NS:
        return None
    return Consensus(best[0], best[1], min(o.resolution_ns for o in best[2]))


def judge(
    *,
    now_boot_ns: int,
    wall_offset_ns: int,
    kernel: KernelClock | None,
    observations: Sequence[Observation],
    held: Anchor | None,
    trust: Trust = "auto",
) -> Verdict:
    """Which offset is good now, if any.

    The kernel's word counts unless the time is absurd (before this program was written, or over a day from a server's
    date). Else servers that agree win: with the wall clock where it lies within what they allow, else against it.
    Else what was good before in this boot stays good, with an error that grows by the drift.
    """
    servers = consensus(observations, now_boot_ns)
    if trust == "always":
        shown = wall_offset_ns + now_boot_ns
        early = f'the wall clock shows {_date(shown)}, and trust = "always" takes it' if shown < BUILT_NS else None
        return Verdict(Anchor(wall_offset_ns, "always", 0, now_boot_ns), early or _differs(wall_offset_ns, servers))
    warning = None
    if kernel is not None and kernel.vouches:
        offset = wall_offset_ns + kernel.remaining_ns
        warning = _absurd(offset, now_boot_ns, observations, servers)
        if warning is None:
            error = kernel.max_error_ns + abs(kernel.remaining_ns)
            if held is not None and abs(held.offset_ns - offset) < MOVED_NS:
                error = min(error, aged(held, now_boot_ns).error_ns)  # maxerror grows by 500 ppm, a crystal does not
            return Verdict(Anchor(offset, "kernel", error, now_boot_ns), _differs(offset, servers))
        if held is not None and abs(held.offset_ns - offset) < DAY:
            held = None  # it comes from the same absurd clock
    if servers is None:
        return Verdict(held, warning or (_stepped(wall_offset_ns, held) if held else None))
    return _by_servers(servers, now_boot_ns, wall_offset_ns, held, warning)


def _by_servers(
    servers: Consensus, now_boot_ns: int, wall_offset_ns: int, held: Anchor | None, warning: str | None
) -> Verdict:
    if servers.nearest(wall_offset_ns) == wall_offset_ns:
        error = servers.error_ns(wall_offset_ns)
        near = held is not None and abs(held.offset_ns - wall_offset_ns) < SLACK_NS
        if held is not None and near and aged(held, now_boot_ns).error_ns <= error:
            return Verdict(held, warning)  # what the kernel said before is still the better word
        return Verdict(Anchor(wall_offset_ns, "servers", error, now_boot_ns), warning)
    if held is None:
        offset = servers.middle_ns
    else:
        offset = servers.nearest(held.offset_ns)
        if offset == held.offset_ns and aged(held, now_boot_ns).error_ns <= servers.error_ns(offset):
            return Verdict(held, warning or _stepped(wall_offset_ns, held))
    anchor = Anchor(offset, "servers", servers.error_ns(offset), now_boot_ns)
    return Verdict(anchor, warning or _stepped(wall_offset_ns, anchor))


def aged(anchor: Anchor, boot_ns: int) -> Anchor:
    """The same anchor with the error that it has for a point of this moment."""
    return replace(anchor, error_ns=anchor.error_ns + drift_ns(boot_ns - anchor.boot_ns), boot_ns=boot_ns)


def _absurd(
    offset_ns: int, now_boot_ns: int, observations: Sequence[Observation], servers: Consensus | None
) -> str | None:
    shown = offset_ns + now_boot_ns
    if shown < BUILT_NS:
        return f"the wall clock counts as synchronised but shows {_date(shown)}: it is not believed"
    away = 0
    if servers is not None:
        away = offset_ns - servers.nearest(offset_ns)
    elif observations:
        low, high = observations[-1].offsets(now_boot_ns)
        away = offset_ns - min(max(offset_ns, low), high)
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
    seconds = abs(away_ns) / SECOND
    for unit, size in (("days", 2 * 86_400), ("h", 7200), ("min", 120)):
        if seconds >= size:
            seconds /= {"days": 86_400, "h": 3600, "min": 60}[unit]
            break
    else:
        unit = "s"
    return f"{seconds:.1f} {unit} {'ahead of' if away_ns > 0 else 'behind'}"


def _date(unix_ns: int) -> str:
    import datetime as dt  # noqa: PLC0415 - only for a message

    try:
        return f"{dt.datetime.fromtimestamp(unix_ns // SECOND, dt.UTC):%Y-%m-%d}"
    except (ValueError, OverflowError, OSError):
        return f"{unix_ns / SECOND:.0f} s since 1970"
