"""Could air really be so? Readings outside a sensor's range or changing faster than air does are never delivered."""

from __future__ import annotations

import math
from collections.abc import Mapping
from dataclasses import dataclass, field

from drivers.base import QUANTITIES, Reading

SHORTEST_S = 1.0  # a faster pair of readings is judged as if this far apart: noise is no change of the air


def out_of_range(values: Mapping[str, float | int]) -> str | None:
    """Why these values cannot be, or None: each must be a number within its quantity's range."""
    if not values:
        return "the reading is empty"
    for name, value in values.items():
        quantity = QUANTITIES.get(name)
        if quantity is None:
            return f"{name} is not a field of the data model"
        if not math.isfinite(value) or not quantity.low <= value <= quantity.high:
            return f"{name} is {value:g} {quantity.unit}, outside {quantity.low:g} to {quantity.high:g}"
    return None


def too_fast(before: Reading, now: Reading, limits: Mapping[str, float]) -> str | None:
    """Why `now` cannot follow `before`, or None. `limits` (per second) replace those of the quantities."""
    seconds = (now.boot_ns - before.boot_ns) / 1e9
    for name, value in now.values.items():
        limit = limits.get(name, QUANTITIES[name].max_rate)
        if limit is None or name not in before.values:
            continue
        change = abs(value - before.values[name])
        if change > limit * max(seconds, SHORTEST_S):
            return f"{name} changed by {change:.3g} {QUANTITIES[name].unit} within {seconds:.3g} s"
    return None


@dataclass(slots=True)
class Plausibility:
    """Judges one reading after another; what was refused is no measure for the next."""

    max_rate: Mapping[str, float] = field(default_factory=dict)
    _last: Reading | None = None

    def judge(self, reading: Reading) -> str | None:
        """Why this reading must not be delivered, or None."""
        if self._last is not None and reading.boot_ns <= self._last.boot_ns:
            return "it is not newer than the one before"
        problem = out_of_range(reading.values)
        if problem is None and self._last is not None:
            problem = too_fast(self._last, reading, self.max_rate)
        if problem is None:
            self._last = reading
        return problem


@dataclass(slots=True)
class Stuck:
    """Notices raw registers that do not move in any quantity for `after` readings; 0 never notices."""

    after: int
    since_boot_ns: int | None = None
    _raw: bytes | None = None
    _count: int = 0
    _first_ns: int = 0

    def see(self, reading: Reading) -> None:
        if reading.raw is None or reading.raw != self._raw:
            self._raw, self._count, self._first_ns, self.since_boot_ns = reading.raw, 1, reading.boot_ns, None
            return
        self._count += 1
        if self.after and self._count >= self.after:
            self.since_boot_ns = self._first_ns
