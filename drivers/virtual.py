"""A sensor that is not there: plausible weather for any moment, and failures on purpose to try the agent out with."""

from __future__ import annotations

import struct
import time
from collections.abc import Callable
from dataclasses import dataclass
from datetime import UTC, datetime
from typing import Any, ClassVar

from drivers.base import Driver, NotFound, OptionError, Reading, Transient, boot_ns, option
from drivers.weather import air, chance, jitter, room_air

SPELL = 60.0  # seconds that a gap or a stuck value lasts
_ERRORS, _GAPS, _STUCK, _NOISE = 101, 102, 103, 110
# Standard deviation of a BME280 with everything sampled once (datasheet table 1 and 3.5.1).
_NOISE_OF = {"Temperature": 0.005, "Humidity": 0.07, "Pressure": 0.033}


@dataclass(frozen=True, slots=True)
class VirtualOptions:
    """`time`: "now", or the moment at which its clock starts when opened (ISO 8601).

    Failures, as shares from 0 to 1: `errors` of the readings fail; in `gaps` of the minutes nothing answers; in
    `stuck` of the minutes the values stand still. Which ones depends on seed and moment only.
    """

    seed: int = option(0, low=0, high=2**63 - 1)
    time: str = option("now")
    lat: float = option(50.0874, low=-90, high=90, unit="degrees")
    lon: float = option(14.4072, low=-180, high=180, unit="degrees")
    errors: float = option(0.0, low=0, high=1)
    gaps: float = option(0.0, low=0, high=1)
    stuck: float = option(0.0, low=0, high=1)


class Virtual(Driver):
    sensor: ClassVar[str] = "virtual_bme280"
    Options = VirtualOptions

    def __init__(
        self,
        options: VirtualOptions | None = None,
        *,
        wall: Callable[[], float] = time.time,
        clock: Callable[[], int] = boot_ns,
    ) -> None:
        super().__init__(options)
        self.options: VirtualOptions
        self._wall, self._clock = wall, clock
        self._start: tuple[float, int] | None = None  # Unix seconds and boot clock at open()

    @classmethod
    def check(cls, options: Any) -> None:
        super().check(options)
        _moment(options.time)

    def describe(self) -> str:
        return f"virtual weather (seed {self.options.seed})"

    def open(self) -> None:
        moment = _moment(self.options.time)
        self._start = (self._wall() if moment is None else moment, self._clock())

    def close(self) -> None:
        self._start = None

    def read(self) -> Reading:
        if self._start is None:
            raise NotFound(f"{self.describe()} is not open", "open() it first")
        moment = self._clock()
        begun, opened = self._start
        t = self._wall() if self.options.time == "now" else begun + (moment - opened) / 1e9
        self._fail(t)
        values = self.values_at(t)
        raw = struct.pack(">3i", *(round(values[name] * 1000) for name in _NOISE_OF))
        return Reading(values, moment, raw)

    def values_at(self, t: float) -> dict[str, float | int]:
        """What it measures at Unix time `t` in seconds: the same for the same options and moment."""
        o = self.options
        spell = int(t // SPELL)
        if o.stuck and chance(o.seed, _STUCK, spell) < o.stuck:
            t = spell * SPELL
        values: dict[str, float | int] = dict(air(o.seed, t, o.lat, o.lon))
        for i, (name, noise) in enumerate(_NOISE_OF.items()):
            values[name] += noise * jitter(o.seed, _NOISE + 3 * i, t)
        values["Humidity"] = min(100.0, max(0.0, values["Humidity"]))
        return {**values, **room_air(o.seed, t, o.lon), "Lat": o.lat, "Lon": o.lon}

    def _fail(self, t: float) -> None:
        """Raise what the options ask for at this moment."""
        o = self.options
        if o.gaps and chance(o.seed, _GAPS, int(t // SPELL)) < o.gaps:
            raise NotFound("the virtual sensor is unplugged for this minute", "wait, or lower the option gaps")
        if o.errors and chance(o.seed, _ERRORS, round(t * 1000)) < o.errors:
            raise Transient("the virtual sensor failed a reading on purpose", "lower the option errors")


def _moment(text: str) -> float | None:
    """Unix seconds of an ISO 8601 moment (without a zone: UTC), None for `now`. Raises OptionError."""
    if text == "now":
        return None
    try:
        moment = datetime.fromisoformat(text)
    except ValueError:
        raise OptionError(
            f"option 'time' is {text!r}: allowed are \"now\" and a moment like 2026-07-01T12:00:00Z", "time"
        ) from None
    return (moment if moment.tzinfo else moment.replace(tzinfo=UTC)).timestamp()
