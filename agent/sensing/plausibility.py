"""Could air really be so? What is outside a sensor's range or changes faster than air does is never delivered.

Each quantity is judged by itself: one that cannot be does not take the others with it.
"""

from __future__ import annotations

import math
from collections.abc import Mapping
from dataclasses import dataclass, field, replace

from drivers.base import QUANTITIES, WHOLE, Reading

SHORTEST_S = 1.0  # a faster pair of readings is judged as if this far apart: noise is no change of the air
CONFIRMED = 3  # readings that agree make a large step believable: a wrong one does not repeat

Moment = tuple[float | int, int]
"""A value, and the boot clock's nanosecond that it is of."""


def out_of_range(name: str, value: float) -> str | None:
    """Why this value cannot be, or None: it must be a number within its quantity's range."""
    quantity = QUANTITIES.get(name)
    if quantity is None:
        return "it is not a field of the data model"
    if not math.isfinite(value) or not quantity.low <= value <= quantity.high:
        return f"it is {value:g} {quantity.unit}, outside {quantity.low:g} to {quantity.high:g}"
    return None


@dataclass(frozen=True, slots=True)
class _Doubt:
    """A value that came too fast, the last of `count` that agree; `open` if more of them would make it believable."""

    last: Moment
    count: int
    open: bool


@dataclass(slots=True)
class Plausibility:
    """Judges one reading after another; what was refused is no measure for the next.

    `max_rate` (units per second) replaces that of the quantities. However long two readings lie apart, a step above the
    quantity's max_step (and above what the rate allows in a second) is believed only once CONFIRMED readings agree.
    """

    max_rate: Mapping[str, float] = field(default_factory=dict)
    _last: dict[str, Moment] = field(default_factory=dict)
    _doubts: dict[str, _Doubt] = field(default_factory=dict)
    _newest_ns: int | None = None

    def judge(self, reading: Reading) -> Reading:
        """The reading with what is believed among its values, and why not among `refused`."""
        refused = dict(reading.refused)
        values: dict[str, float | int] = {}
        if self._newest_ns is not None and reading.boot_ns <= self._newest_ns:
            refused[WHOLE] = "it is not newer than the one before"
        elif not reading.values and not refused:
            refused[WHOLE] = "it is empty"
        else:
            for name, given in reading.values.items():
                value = QUANTITIES[name].clamped(given) if name in QUANTITIES else given
                problem = out_of_range(name, value) or self._too_fast(name, (value, reading.boot_ns))
                if problem is None:
                    values[name] = value
                else:
                    refused[name] = problem
        if values:
            self._newest_ns = reading.boot_ns
        return replace(reading, values=values, refused=refused)

    @property
    def undecided(self) -> bool:
        """Whether the next readings can make what was just refused believable: they had better come soon."""
        return any(doubt.open for doubt in self._doubts.values())

    def _too_fast(self, name: str, now: Moment) -> str | None:
        """Why this cannot follow what was believed last, or None: then it is what was believed last."""
        before, doubt = self._last.get(name), self._doubts.pop(name, None)
        problem = self._step(name, before, now, large=False) if before else None
        if before and (problem or self._step(name, before, now, large=True)):
            agrees = doubt is not None and self._step(name, doubt.last, now, large=True) is None
            count = doubt.count + 1 if doubt is not None and agrees else 1
            if problem or count < CONFIRMED:
                self._doubts[name] = _Doubt(now, count, problem is None)
                return problem or self._step(name, before, now, large=True)
        self._last[name] = now
        return None

    def _step(self, name: str, before: Moment, now: Moment, *, large: bool) -> str | None:
        """Why the one cannot follow the other: by the rate, or if `large` by the largest step too."""
        quantity = QUANTITIES[name]
        rate = self.max_rate.get(name, quantity.max_rate)
        if rate is None:
            return None
        seconds = (now[1] - before[1]) / 1e9
        most = rate * max(seconds, SHORTEST_S)
        if large and quantity.max_step is not None:
            most = min(most, max(quantity.max_step, rate * SHORTEST_S))
        change = abs(now[0] - before[0])
        if change <= most:
            return None
        return f"it changed by {change:.3g} {quantity.unit} within {seconds:.3g} s"


@dataclass(slots=True)
class Stuck:
    """Notices a quantity whose register does not move for `after` readings; 0 never notices.

    Where a driver has only one `raw` for all of them, that stands for each.
    """

    after: int
    _seen: dict[str, tuple[int | bytes, int, int]] = field(default_factory=dict)  # register, how often, first boot ns

    def see(self, reading: Reading) -> None:
        seen = {}
        for name in reading.values:
            register = reading.registers.get(name, reading.raw)
            if register is None:
                continue
            before, count, since = self._seen.get(name, (None, 0, 0))
            seen[name] = (register, count + 1, since) if register == before else (register, 1, reading.boot_ns)
        self._seen = seen

    def since_boot_ns(self) -> dict[str, int]:
        """Since when, for each quantity that is stuck."""
        return {name: since for name, (_, count, since) in self._seen.items() if self.after and count >= self.after}
