"""By what offset a moment of this boot is dated, and how to know again what was dated by which.

Stamps are whole milliseconds and a lane: a few microseconds that tell the stamps of one stretch of time from those of
another that lies over it. A clock that is put back goes twice over the same time; on a lane of its own no point gets
the stamp of one that was dated before, so nobody has to remember every stamp, and the true time counts at once.
"""

from __future__ import annotations

from collections.abc import Callable, Sequence
from dataclasses import dataclass, replace

from agent.clock.sources import MOVED_NS, SECOND, Anchor, aged

MILLISECOND = 1_000_000
LANE_NS = 1000
LANES = MILLISECOND // LANE_NS
JITTER_NS, CATCH_UP_NS = SECOND // 10, 2 * SECOND
"""Back by no more than the error that was stated (or by the first, at most by the second) time goes on at half speed,
and points keep their order; beyond it the true time counts at once."""
_SEGMENTS = 64


@dataclass(frozen=True, slots=True)
class Stretch:
    """Points of a boot that were dated by one offset: their stamps lie in [first_ns, last_ns] (Unix) on its lane."""

    first_ns: int
    last_ns: int
    offset_ns: int

    @property
    def lane(self) -> int:
        return self.offset_ns % MILLISECOND // LANE_NS

    def holds(self, stamp_ns: int) -> bool:
        return self.first_ns <= stamp_ns <= self.last_ns and (stamp_ns - self.offset_ns) % MILLISECOND == 0


@dataclass(frozen=True, slots=True)
class Wrong:
    """How many points had a time that was wrong: `waiting` ones get another, `delivered` ones were sent with it since
    the agent started, from `first_ns` to `last_ns` (Unix, as they were dated).
    """

    waiting: int = 0
    delivered: int = 0
    first_ns: int = 0
    last_ns: int = 0


@dataclass(frozen=True, slots=True)
class Segment:
    """From `start_ns` (boot clock) on this offset holds; `anchor` is the latest that confirmed it.

    Where it is a little less than the one before, time goes on from `floor_ns` (Unix) at half speed until it is right.
    """

    start_ns: int
    offset_ns: int
    lane: int
    floor_ns: int
    anchor: Anchor

    def time_of(self, boot_ns: int) -> int:
        time_ns = boot_ns + self.offset_ns
        if boot_ns < self.start_ns:
            return time_ns
        return max(time_ns, self.floor_ns + (boot_ns - self.start_ns) // 2)

    def stamp_of(self, boot_ns: int) -> int:
        """The time to the millisecond, on the lane."""
        return stamp_offset(self.time_of(boot_ns), self.lane)

    def error_of(self, boot_ns: int) -> int:
        """The bound of the error of this time: far from the evidence, the crystal has drifted more."""
        ahead = self.time_of(boot_ns) - (boot_ns + self.offset_ns)
        return aged(self.anchor, boot_ns).error_ns + ahead + abs(self.offset_ns - self.anchor.offset_ns)


def stamp_offset(offset_ns: int, lane: int) -> int:
    """Unix time less boot clock as stamps have it: whole milliseconds and the lane."""
    return (offset_ns + MILLISECOND // 2) // MILLISECOND * MILLISECOND + lane * LANE_NS


def segment_at(segments: tuple[Segment, ...], boot_ns: int) -> Segment | None:
    """The segment of a moment; the first one also holds for all before it."""
    return next((s for s in reversed(segments) if s.start_ns <= boot_ns), segments[0]) if segments else None


def contradicts(segments: tuple[Segment, ...], anchor: Anchor, now: int) -> bool:
    """Whether an anchor says that the time so far was wrong, by more than was stated and than a leap second."""
    if not segments or anchor.evidence == "always":
        return False
    last = segments[-1]
    return abs(last.time_of(now) - (now + anchor.offset_ns)) > last.error_of(now) + anchor.error_ns + CATCH_UP_NS


def extended(
    segments: tuple[Segment, ...], anchor: Anchor, start: int, free_lane: Callable[[int], int]
) -> tuple[Segment, ...]:
    """The segments with what the anchor says from `start` on: the last one confirmed, or a new one.

    `free_lane` gives a lane on which no stamp is later than this Unix time.
    """
    if not segments:
        return (Segment(start, anchor.offset_ns, free_lane(anchor.offset_ns), 0, anchor),)
    last = segments[-1]
    if abs(last.offset_ns - anchor.offset_ns) < MOVED_NS:
        return (*segments[:-1], replace(last, anchor=anchor))
    given, lane, floor = last.time_of(start), last.lane, 0
    ahead = given - (start + anchor.offset_ns)
    if ahead > max(JITTER_NS, min(CATCH_UP_NS, last.error_of(start) + anchor.error_ns)):
        lane = free_lane(start + anchor.offset_ns)
    elif ahead >= 0:
        floor = given
    new = Segment(start, anchor.offset_ns, lane, floor, anchor)
    return (segments[0], *segments[1:][-_SEGMENTS:], new)


def stretches(segments: Sequence[Segment], from_ns: int, until_ns: int) -> tuple[Stretch, ...]:
    """What was dated by these segments between two moments of the boot clock."""
    found = []
    for at, (segment, following) in enumerate(zip(segments, (*segments[1:], None), strict=True)):
        last = segment.stamp_of(following.start_ns if following else until_ns)
        # points of one moment get stamps after each other; where another lane follows, or nothing, these are its own
        same = following is not None and following.lane == segment.lane
        last += -MILLISECOND if same else SECOND
        first = segment.stamp_of(segment.start_ns if at else from_ns)
        found.append(Stretch(first, last, stamp_offset(segment.offset_ns, segment.lane)))
    return tuple(found)
