"""By what offset a moment of this boot is dated: one after another, so that times never go back."""

from __future__ import annotations

from dataclasses import dataclass, replace

from agent.clock.sources import MOVED_NS, Anchor, aged

_SEGMENTS = 64


@dataclass(frozen=True, slots=True)
class Segment:
    """From `start_ns` (boot clock) on this offset holds; `anchor` is the latest that confirmed it.

    Where it is less than the one before, time goes on from `floor_ns` (Unix) at half speed until it is right: points
    keep their order and a time of their own.
    """

    start_ns: int
    offset_ns: int
    floor_ns: int
    anchor: Anchor

    def time_of(self, boot_ns: int) -> int:
        time_ns = boot_ns + self.offset_ns
        if boot_ns < self.start_ns or not self.floor_ns:
            return time_ns
        return max(time_ns, self.floor_ns + (boot_ns - self.start_ns) // 2)

    def error_of(self, boot_ns: int) -> int:
        """The bound of the error of this time: far from the evidence, the crystal has drifted more."""
        ahead = self.time_of(boot_ns) - (boot_ns + self.offset_ns)
        return aged(self.anchor, boot_ns).error_ns + ahead + abs(self.offset_ns - self.anchor.offset_ns)


def segment_at(segments: tuple[Segment, ...], boot_ns: int) -> Segment | None:
    """The segment of a moment; the first one also holds for all before it."""
    return next((s for s in reversed(segments) if s.start_ns <= boot_ns), segments[0]) if segments else None


def extended(segments: tuple[Segment, ...], anchor: Anchor, now: int) -> tuple[Segment, ...]:
    """The segments with what the anchor says from now on: the last one confirmed, or a new one."""
    if not segments:
        return (Segment(now, anchor.offset_ns, 0, anchor),)
    last = segments[-1]
    if abs(last.offset_ns - anchor.offset_ns) < MOVED_NS:
        return (*segments[:-1], replace(last, anchor=anchor))
    given = last.time_of(now)
    ahead = given - (now + anchor.offset_ns)
    # a correction beyond the stated error means that the time before was wrong: no point waits for it
    floor = given if 0 < ahead <= last.error_of(now) + anchor.error_ns else 0
    new = Segment(now, anchor.offset_ns, floor, anchor)
    return (segments[0], *segments[1:][-_SEGMENTS:], new)
