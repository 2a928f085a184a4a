"""What was measured: the interface that the embedded store and InfluxDB implement, and its records.

Times are Unix nanoseconds, ranges include their start and exclude their stop. A device's points are those tagged
`clientId` or `device` with exactly its id, whoever wrote them, floats and integers alike. Every method may raise
StoreError.
"""

from __future__ import annotations

import math
from collections import Counter
from collections.abc import Iterable, Mapping, Sequence
from dataclasses import dataclass
from typing import Literal, Protocol, TypeGuard, get_args

from center.errors import RefusedError
from center.times import MAX_TIME
from drivers.quantities import QUANTITIES

ENVIRONMENT = "environment"
HEALTH = "agent"
SECOND_NS = 1_000_000_000
HOUR_NS = 3600 * SECOND_NS
DAY_NS = 24 * HOUR_NS

Value = float | int | str | bool
Function = Literal["mean", "min", "max", "median", "sum", "count", "first", "last"]
FUNCTIONS: tuple[Function, ...] = get_args(Function)
MAX_WINDOWS = 50_000
MAX_VALUES = 1_000_000
LOOK_BACK_NS = 400 * DAY_NS  # for the newest values
AHEAD_NS = DAY_NS  # points stamped further ahead are stored, and not taken for the newest


@dataclass(frozen=True, slots=True, order=True)
class Sensor:
    """What told a value, by all tags that name a sensor: `name` is the tag `sensor`, `kind` the field's own
    (TemperatureSensor: `bme280`); "" where a point has none. Values of two sensors are never brought together.
    """

    name: str = ""
    kind: str = ""

    @property
    def label(self) -> str:
        """For people; nearly always unique: see labels()."""
        return self.name or self.kind

    @property
    def in_full(self) -> str:
        return f"{self.name} ({self.kind})".removesuffix(" ()").strip()


@dataclass(frozen=True, slots=True)
class LastValue:
    """The newest value of a field of one sensor."""

    field: str
    sensor: Sensor
    value: Value
    time_ns: int


@dataclass(frozen=True, slots=True)
class FieldSummary:
    """A field of one sensor over a range."""

    field: str
    sensor: Sensor
    minimum: float | None
    maximum: float | None
    last: Value
    last_ns: int
    count: int


@dataclass(frozen=True, slots=True)
class SeriesQuery:
    """Fields of measurement `environment` of a device (none named: all of them) over [start, stop).

    With `every_ns` windows aligned to the epoch, each stamped with its end (or `stop`, if that is earlier), as
    InfluxDB's aggregateWindow does; without it the points as they are. `band`: with the mean of each window also its
    minimum, its maximum and the number of its points, in one question.
    """

    device_id: str
    start_ns: int
    stop_ns: int
    fields: tuple[str, ...] = ()
    every_ns: int | None = None
    fn: Function = "mean"
    band: bool = False

    def __post_init__(self) -> None:
        if self.stop_ns <= self.start_ns:
            raise RefusedError("the range ends before it starts")
        if self.start_ns < -MAX_TIME or self.stop_ns > MAX_TIME:
            raise RefusedError("the range is longer than time: choose years from 1678 to 2261")
        if self.fn not in FUNCTIONS:
            raise RefusedError(f"fn is one of {', '.join(FUNCTIONS)}")
        if self.band and (self.fn != "mean" or self.every_ns is None):
            raise RefusedError("a band is of the means of windows")
        if self.every_ns is not None and self.every_ns <= 0:
            raise RefusedError("every is longer than nothing")
        if self.every_ns is not None and (self.stop_ns - self.start_ns) / self.every_ns > MAX_WINDOWS:
            raise RefusedError(f"a range has at most {MAX_WINDOWS} windows: choose a longer every")


@dataclass(frozen=True, slots=True)
class Curve:
    """The values of one field of one sensor in the order of time; all sequences have one length. `low`, `high` and
    `counts` are empty unless a band was asked for.
    """

    field: str
    sensor: Sensor
    times_ns: Sequence[int]
    values: Sequence[Value]
    low: Sequence[Value] = ()
    high: Sequence[Value] = ()
    counts: Sequence[int] = ()


@dataclass(frozen=True, slots=True)
class Point:
    """One point. `time_ns` of None: when it arrives. `series`: measurement and tags as they were sent, if so."""

    measurement: str
    tags: Mapping[str, str]
    fields: Mapping[str, Value]
    time_ns: int | None = None
    series: str = ""


@dataclass(frozen=True, slots=True)
class Bucket:
    """A bucket. `retention_s` of 0: for ever. `role`: what the center keeps in it."""

    id: str
    name: str
    retention_s: int
    role: Literal["telemetry", "auth", "other"]


def is_number(value: object) -> TypeGuard[float]:
    """Whether this can be drawn and compared; a boolean is none."""
    return isinstance(value, (int, float)) and not isinstance(value, bool)


def finite(values: Sequence[Value | None]) -> list[Value | None]:
    """The values as JSON can hold them: None for an infinity (the sum of what is nearly one) or what is no number."""
    return [None if isinstance(v, float) and not math.isfinite(v) else v for v in values]


def sensor_of(tags: Mapping[str, str], field: str) -> Sensor:
    """The sensor that measured a field of a series.

    The kind is in the tag of the field's quantity (Temperature_min: TemperatureSensor; Lat: GPSSensor). A field without
    one of its own (a location that is configured, a field of another writer) is of the kinds that the series names, so
    that what two sensors wrote beside their own quantities stays apart as well.
    """
    stem = field.removesuffix("_min").removesuffix("_max")
    quantity = QUANTITIES.get(stem)
    kind = tags.get((quantity and quantity.sensor_tag) or f"{stem}Sensor")
    if not kind:
        kind = ", ".join(sorted({value for name, value in tags.items() if name.endswith("Sensor") and value}))
    return Sensor(tags.get("sensor", ""), kind)


def recency(time_ns: int, value: Value) -> tuple[int, bool, Value]:
    """The newest has the greatest; of several values at one time the largest is the last, as in windows."""
    return time_ns, isinstance(value, str), value


def newest_of(lasts: Iterable[LastValue]) -> list[LastValue]:
    """The newest of these values for each field and sensor, ordered by both."""
    found: dict[tuple[str, Sensor], LastValue] = {}
    for last in lasts:
        known = found.setdefault((last.field, last.sensor), last)
        if recency(last.time_ns, last.value) > recency(known.time_ns, known.value):
            found[last.field, last.sensor] = last
    return [found[key] for key in sorted(found)]


def numbers_of_devices(told: Iterable[tuple[str, str, float, int]]) -> dict[str, dict[str, float]]:
    """Device → field → number, the newest of these (device, field, number, time)."""
    found: dict[str, dict[str, float]] = {}
    for device, field, number, _ in sorted(told, key=lambda one: one[3]):
        found.setdefault(device, {})[field] = number
    return found


def labels(told: Iterable[Curve | LastValue | FieldSummary]) -> dict[tuple[str, Sensor], str]:
    """For each field and sensor of a device a text that tells it from the field's others: the sensor's label, and where
    two have the same one, all that is known.
    """
    distinct = {(one.field, one.sensor) for one in told}
    taken = Counter((field, sensor.label) for field, sensor in distinct)
    return {
        (field, sensor): sensor.label if taken[field, sensor.label] == 1 else sensor.in_full
        for field, sensor in distinct
    }


def several(told: Iterable[Curve | LastValue | FieldSummary]) -> bool:
    """Whether a field of a device is of several sensors, so that it must be said which."""
    distinct = {(one.field, one.sensor) for one in told}
    return len({field for field, _ in distinct}) < len(distinct)


class Telemetry(Protocol):
    """Measurements."""

    @property
    def bucket(self) -> str:
        """The name of the telemetry bucket."""

    @property
    def failing(self) -> Mapping[str, str]:
        """What the store does by itself, beside requests, and failed at when it last tried; and why."""

    def last_values(
        self, device_ids: Sequence[str], *, measurement: str = ENVIRONMENT, since_ns: int = 0
    ) -> Mapping[str, Sequence[LastValue]]:
        """The newest value of each field of each sensor, ordered by field and sensor, for at most some hundred devices.
        A device without points has no entry.

        The health points of the agent are measurement `agent`. Over InfluxDB a `since_ns` near now is much faster.
        """

    def last_seen(self, *, since_ns: int) -> Mapping[str, int]:
        """Device → time of its newest point of measurement `environment` since then, of all devices."""

    def health(self, fields: Sequence[str], *, since_ns: int) -> Mapping[str, Mapping[str, float]]:
        """Device → field → its newest number of measurement `agent` since then, of all devices."""

    def sparklines(
        self, device_ids: Sequence[str], field: str, *, start_ns: int, stop_ns: int, every_ns: int
    ) -> Mapping[str, Sequence[Curve]]:
        """The mean of one field in windows, a curve for each sensor of a page's devices. A device without points has no
        entry.
        """

    def summary(self, device_id: str, *, start_ns: int, stop_ns: int) -> Sequence[FieldSummary]:
        """Every field of measurement `environment`, ordered by field and sensor."""

    def series(self, query: SeriesQuery) -> Sequence[Curve]:
        """The curves of a query, ordered by field and sensor. Without `every_ns` at most a million values, on
        SQLite fewer: RefusedError for more.
        """

    def count(self, device_id: str) -> int:
        """Points of measurement `environment`: series and time stamp together are one point."""

    def write(self, points: Sequence[Point]) -> None:
        """Store points; the same series and time again overwrites. Raises RefusedError with the store's reason."""

    def buckets(self) -> Sequence[Bucket]: ...

    def raw_flux(self, text: str) -> str:
        """Annotated CSV of a Flux query. Raises NotSupportedError (embedded store), RefusedError (Flux in error)."""
