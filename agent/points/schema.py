"""The data model: measurement, tags and fields, and a point as a line of line protocol.

Measurement `environment` with the tags and fields that existing dashboards read: clientId and device hold the device
id, one tag for each measured quantity names the sensor's kind, fields keep their type for ever (a float is never sent
as an integer: InfluxDB would refuse it with 422). Values are rounded to the sensor's resolution here and nowhere else.
"""

from __future__ import annotations

import math
import re
from collections.abc import Mapping
from dataclasses import dataclass

from drivers.base import QUANTITIES, Quantity

MEASUREMENT = "environment"
HEALTH_MEASUREMENT = "agent"
STATISTICS = ("_min", "_max")
_SERIES_END = re.compile(rb"(?:[^\\ ]|\\.)*")


@dataclass(frozen=True, slots=True)
class Line:
    """One point. `head` is its line protocol without the stamp; `boot_ns` the moment on the boot clock.

    `time_ns` is the Unix time in nanoseconds, frozen once known; None while the clock is not good.
    """

    head: bytes
    boot_ns: int
    time_ns: int | None = None

    @property
    def series(self) -> bytes:
        """Measurement and tags: everything before the first space that is not escaped."""
        return series_of(self.head)

    def encode(self) -> bytes:
        """The whole line without a newline. Raises ValueError while it has no time."""
        if self.time_ns is None:
            raise ValueError("this point has no time yet")
        return b"%s %d" % (self.head, self.time_ns)


def series_of(line: bytes) -> bytes:
    """Measurement and tags of a line of line protocol."""
    match = _SERIES_END.match(line)
    return match.group() if match else line


def quantity_of(field: str) -> Quantity | None:
    """The quantity of a field, also of its statistics (Temperature_min)."""
    for suffix in STATISTICS:
        field = field.removesuffix(suffix)
    return QUANTITIES.get(field)


def check_tag(text: str) -> str:
    """The text, if a tag can hold it; else ValueError.

    InfluxDB refuses empty values and newlines (400), takes bad UTF-8 as it comes, and a backslash at the end would
    escape what follows.
    """
    if not text or text.endswith("\\") or not text.isprintable():
        raise ValueError(f"{text!r} cannot be a tag value: it is empty, not printable or ends in a backslash")
    return text


def resolved(field: str, value: float) -> float | int:
    """The value in the type and resolution of its quantity. ValueError for NaN, infinity and unknown fields."""
    quantity = quantity_of(field)
    if quantity is None:
        raise ValueError(f"{field!r} is not a field of the data model")
    if not math.isfinite(value):
        raise ValueError(f"{field} is {value}: not a number that can be stored")
    if quantity.kind == "integer":
        return round(value)
    return round(float(value), quantity.decimals) + 0.0  # + 0.0: never -0.0


def line_for(
    device_id: str,
    sensor_kind: str,
    values: Mapping[str, float | int],
    *,
    boot_ns: int,
    sensor_name: str | None = None,
    location: tuple[float, float] | None = None,
    time_ns: int | None = None,
) -> Line:
    """The point of a reading. `location` is (lat, lon) in degrees; it replaces what the sensor says."""
    if not values:
        raise ValueError("a point needs at least one value")
    tags = {"clientId": device_id, "device": device_id}
    for field in values:
        quantity = quantity_of(field)
        if quantity is not None and quantity.sensor_tag:
            tags[quantity.sensor_tag] = sensor_kind
    if sensor_name:
        tags["sensor"] = sensor_name
    place = {"Lat": location[0], "Lon": location[1]} if location else {}
    fields = {field: resolved(field, value) for field, value in {**values, **place}.items()}
    return Line(written(MEASUREMENT, tags, fields), boot_ns, time_ns)


def written(measurement: str, tags: Mapping[str, str], fields: Mapping[str, float | int]) -> bytes:
    """Line protocol without a stamp, by influxdb-client. Raises ValueError for what cannot be a tag value.

    The client is not imported with this module: `check` and `status` start without its 25 MB. Two threads that import
    it at once deadlock: service.py, through delivery.writer, has it before any thread is started.
    """
    from influxdb_client.client.write.point import Point  # noqa: PLC0415 - see above

    point = Point(measurement)
    for key, text in tags.items():
        point.tag(key, check_tag(text))
    for field, value in fields.items():
        point.field(field, value)
    line: str = point.to_line_protocol()
    return line.encode()
