"""A sensor that is not there: plausible weather for any moment, and failures on purpose to try the agent out with.

The weather is a pure function of seed, place and moment, with no state and no table. Slow pressure systems drive the
rest: high pressure brings clear skies with wide daily swings, low pressure clouds and moisture. Everything random is
value noise: hashed lattice points with smooth steps between them.
"""

from __future__ import annotations

import math
import struct
import time
from collections.abc import Callable, Collection
from dataclasses import dataclass
from datetime import UTC, datetime
from typing import Any, ClassVar

from drivers.base import Driver, NotFound, OptionError, Reading, Transient, boot_ns, option

SPELL = 60.0  # seconds that a gap or a stuck value lasts
_ERRORS, _GAPS, _STUCK, _NOISE = 101, 102, 103, 110
# Standard deviation of a BME280 with everything sampled once (datasheet table 1 and 3.5.1).
_NOISE_OF = {"Temperature": 0.005, "Humidity": 0.07, "Pressure": 0.033}
DAY = 86_400.0
YEAR = 365.2425 * DAY
_MASK = (1 << 64) - 1


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

    @classmethod
    def quantities(cls, options: Any) -> Collection[str]:  # noqa: ARG003 - the contract's
        return ("Temperature", "Humidity", "Pressure", "CO2", "TVOC", "Lat", "Lon")

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
        registers = {name: round(values[name] * 1000) for name in _NOISE_OF}
        return Reading(values, moment, struct.pack(">3i", *registers.values()), registers)

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


def _hash(seed: int, channel: int, cell: int) -> float:
    """A number from -1 to 1 that is always the same for these arguments (splitmix64's finaliser)."""
    z = (seed * 0x9E3779B97F4A7C15 + channel * 0xD1B54A32D192ED03 + cell * 0xBF58476D1CE4E5B9) & _MASK
    z = ((z ^ (z >> 30)) * 0xBF58476D1CE4E5B9) & _MASK
    z = ((z ^ (z >> 27)) * 0x94D049BB133111EB) & _MASK
    return ((z ^ (z >> 31)) >> 11) / (1 << 52) - 1


def chance(seed: int, channel: int, cell: int) -> float:
    """The same as a share from 0 to 1."""
    return (_hash(seed, channel, cell) + 1) / 2


def drift(seed: int, channel: int, t: float, period: float) -> float:
    """Smooth noise from -1 to 1 that wanders on the scale of `period` seconds."""
    cell, part = divmod(t / period, 1.0)
    low, high = _hash(seed, channel, int(cell)), _hash(seed, channel, int(cell) + 1)
    return low + (high - low) * part * part * part * (part * (part * 6 - 15) + 10)


def jitter(seed: int, channel: int, t: float) -> float:
    """A sensor's noise, of about standard deviation 1, new every millisecond."""
    cell = round(t * 1000)
    return sum(_hash(seed, channel + i, cell) for i in range(3))


def air(seed: int, t: float, lat: float, lon: float) -> dict[str, float]:
    """Temperature (°C), Humidity (%RH) and Pressure (hPa) outside at Unix time `t` seconds, without sensor noise."""
    system = 0.7 * drift(seed, 1, t, 4.3 * DAY) + 0.3 * drift(seed, 2, t, 1.1 * DAY)
    solar = (t / DAY + lon / 360) % 1  # 0.5: the sun stands highest
    clear = 0.5 + 0.45 * math.tanh(1.5 * system)
    season = -math.cos(2 * math.pi * (t / YEAR - 0.07)) * math.copysign(min(1.0, abs(lat) / 50), lat)
    mean = 27 - 0.47 * max(0.0, abs(lat) - 15) + 10.5 * season
    swing = (2.0 + 5.0 * clear) * (1 + 0.3 * season)
    daily = swing * _daily(solar)
    temperature = mean + daily + 3.5 * drift(seed, 3, t, 3.1 * DAY) + 0.5 * drift(seed, 4, t, 1800) - 1.5 * (1 - clear)
    depression = 1.5 + 6.0 * clear + 2.0 * drift(seed, 5, t, 0.8 * DAY)
    dew = mean - 0.25 * swing - max(0.5, depression) + 3.0 * drift(seed, 3, t, 3.1 * DAY)
    temperature = min(50.0, max(-38.0, temperature))
    humidity = 100 * math.exp(_magnus(min(dew, temperature)) - _magnus(temperature))
    pressure = 1014.5 + 16 * system + 0.8 * math.cos(4 * math.pi * (solar - 10 / 24)) + 0.15 * drift(seed, 6, t, 1500)
    return {"Temperature": temperature, "Humidity": min(99.5, max(8.0, humidity)), "Pressure": pressure}


def _daily(solar: float) -> float:
    """The day's course from -1 (before sunrise, at 5) to 1 (in the afternoon, at 15)."""
    hour = solar * 24
    if 5 <= hour < 15:
        return -math.cos(math.pi * (hour - 5) / 10)
    return math.cos(math.pi * ((hour - 15) % 24) / 14)


def _magnus(temperature: float) -> float:
    return 17.62 * temperature / (243.12 + temperature)


def room_air(seed: int, t: float, lon: float) -> dict[str, int]:
    """CO2 (ppm) and TVOC (ppb) of a room that people use by day and air now and then."""
    hour = (t / DAY + lon / 360) % 1 * 24
    in_use = math.exp(-(((hour - 14) / 4.5) ** 2)) * (0.75 + 0.25 * drift(seed, 7, t, 2400))
    fresh = 0.5 + 0.5 * drift(seed, 8, t, 5400)
    co2 = 425 + 620 * in_use * (1 - 0.6 * fresh) + 12 * drift(seed, 9, t, 400)
    tvoc = 60 + 260 * in_use * (1 - 0.5 * fresh) + 25 * (1 + drift(seed, 10, t, 900))
    return {"CO2": round(co2), "TVOC": round(tvoc)}
