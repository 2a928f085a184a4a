"""From readings to what is reported: mean, minimum and maximum over an interval, deadband with a heartbeat."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from dataclasses import dataclass, field

from agent.config.settings import Report
from drivers.base import Reading

_PLACE = ("Lat", "Lon")  # the last one counts: a mean across the date line is nowhere


def summary(readings: Sequence[Reading], report: Report) -> Reading:
    """One reading for several, at the moment of the last: means, and with mean_min_max also Temperature_min, …

    A quantity that only some of them have is summed up over those. A single reading keeps its values as they are.
    """
    last = readings[-1]
    columns: dict[str, list[float | int]] = {}
    for reading in readings:
        for name, value in reading.values.items():
            columns.setdefault(name, []).append(value)
    values: dict[str, float | int] = {}
    for name, column in columns.items():
        values[name] = column[-1] if name in _PLACE or len(column) == 1 else sum(column) / len(column)
    if report == "mean_min_max":
        for name, column in columns.items():
            if name not in _PLACE:
                values[f"{name}_min"], values[f"{name}_max"] = min(column), max(column)
    return Reading(values, last.boot_ns, last.raw)


@dataclass(slots=True)
class Deadband:
    """Lets a reading through when it moved, or at least every `heartbeat` seconds.

    `bands`: how far a quantity must be from what was last reported; a quantity without one counts at any change.
    With no bands at all everything passes.
    """

    bands: Mapping[str, float] = field(default_factory=dict)
    heartbeat: float = 600.0
    _last: Reading | None = None

    def passes(self, reading: Reading, period_ns: int = 0) -> bool:
        """`period_ns` is that of the readings, which come a little early or late: the nearest one is the heartbeat."""
        last = self._last
        if self.bands and last is not None:
            beats = reading.boot_ns - last.boot_ns >= self.heartbeat * 1e9 - period_ns / 2
            if not beats and not self._moved(last.values, reading.values):
                return False
        self._last = reading
        return True

    def _moved(self, before: Mapping[str, float | int], now: Mapping[str, float | int]) -> bool:
        if before.keys() != now.keys():
            return True
        for name, value in now.items():
            band = self.bands.get(name.removesuffix("_min").removesuffix("_max"), 0.0)
            change = abs(value - before[name])
            if change > 0 and change >= band:
                return True
        return False
