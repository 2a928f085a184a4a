"""When a sensor is read, and which readings make one report."""

from __future__ import annotations

from dataclasses import dataclass


@dataclass(frozen=True, slots=True)
class Schedule:
    """Moments `origin + index * period` for index 1, 2, …; `each` of them make one report. Nanoseconds."""

    origin: int
    period: int
    each: int = 1

    @classmethod
    def starting(cls, first: int, interval: float, sample_every: float | None) -> Schedule:
        """The first moment at `first`, reports every `interval` seconds of samples every `sample_every`.

        The center may set an interval below sample_every: then each sample is a report.
        """
        each = max(1, round(interval / sample_every)) if sample_every else 1
        period = max(1, round(interval / each * 1e9))
        return cls(first - period, period, each)

    def index(self, now: int) -> int:
        """The last moment that has come."""
        return (now - self.origin) // self.period

    def moment(self, index: int) -> int:
        return self.origin + index * self.period

    def report(self, index: int) -> int:
        """The number of the report that a moment counts for."""
        return (index - 1) // self.each

    def completes(self, index: int) -> bool:
        """Is it the last moment of its report?"""
        return index % self.each == 0
