"""The time of points: what the buffer asks of the clock, and stamps that keep a series in order."""

from __future__ import annotations

from typing import Protocol

_MS = 1_000_000
_FAR_MS = 43_200_000
"""A last stamp half a day ahead was given by a clock that turned out to be wrong: nothing is put after it."""


class BootClock(Protocol):
    """What the buffer asks of agent.clock.clock.Clock."""

    @property
    def boot_id(self) -> str: ...
    def boot_ns(self) -> int: ...
    def date(self, boot_ns: int) -> int | None: ...


class Stamps:
    """Strictly rising stamps, in whole milliseconds, for each live series.

    Two points of a series with one stamp count once on the server, so a stamp that would not rise becomes the last
    one plus 1 ms. Stamps on the boot clock rise in the same way, so that adding one offset to all of them is enough
    to date them, wherever they lie.
    """

    def __init__(self) -> None:
        self._unix: dict[bytes, int] = {}
        self._boot: dict[bytes, int] = {}
        self.floor_ms = 0
        """No stamp is earlier: the latest one that an earlier run in this boot is known to have given out."""
        self.latest_ms = 0

    def dated(self, series: bytes, time_ns: int) -> int:
        """The stamp, in Unix nanoseconds, for a point of this time."""
        stamp, last = (time_ns + _MS // 2) // _MS, self._unix.get(series, self.floor_ms)
        if stamp <= last < stamp + _FAR_MS:
            stamp = last + 1
        self._unix[series] = stamp
        self.latest_ms = max(self.latest_ms, stamp)
        return stamp * _MS

    def undated(self, series: bytes, boot_ns: int) -> int:
        """The stamp, in boot-clock nanoseconds, for a point that has no time yet."""
        stamp = max((boot_ns + _MS // 2) // _MS, self._boot.get(series, -1) + 1)
        self._boot[series] = stamp
        return stamp * _MS

    def heal(self, offset_ms: int) -> None:
        """The undated stamps of this boot become Unix time by this offset: what follows must be later."""
        for series, stamp in self._boot.items():
            self._unix[series] = max(self._unix.get(series, 0), stamp + offset_ms)
            self.latest_ms = max(self.latest_ms, stamp + offset_ms)
        self._boot.clear()
