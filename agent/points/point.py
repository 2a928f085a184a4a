"""From a reading to a point, written by influxdb-client.

Imported with the service, before its threads start: two threads that import influxdb_client at once deadlock.
"""

from __future__ import annotations

from typing import TYPE_CHECKING

from influxdb_client.client.write.point import Point

from agent.points.schema import MEASUREMENT, Line, check_tag, quantity_of, resolved

if TYPE_CHECKING:
    from collections.abc import Mapping


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
    fields = dict(values)
    tags = {"clientId": device_id, "device": device_id}
    for field in values:
        quantity = quantity_of(field)
        if quantity is not None and quantity.sensor_tag:
            tags[quantity.sensor_tag] = sensor_kind
    if location is not None:
        fields["Lat"], fields["Lon"] = location
    if sensor_name:
        tags["sensor"] = sensor_name
    point = Point(MEASUREMENT)
    for key, text in tags.items():
        point.tag(key, check_tag(text))
    for field, value in fields.items():
        point.field(field, resolved(field, value))
    return Line(point.to_line_protocol().encode(), boot_ns, time_ns)
