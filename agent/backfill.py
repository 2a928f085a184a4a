"""The virtual sensor's past, so that there is something to see before a day has gone by."""

from __future__ import annotations

from typing import TYPE_CHECKING

from agent.point import line_for

if TYPE_CHECKING:
    from collections.abc import Iterator

    from agent.schema import Line
    from drivers.virtual import Virtual

_NS = 1_000_000_000


def past_lines(
    device_id: str,
    sensor: Virtual,
    *,
    since_s: float,
    every_s: float,
    until_ns: int,
    sensor_name: str | None = None,
    location: tuple[float, float] | None = None,
) -> Iterator[Line]:
    """Points from `since_s` before `until_ns` (Unix ns), one each `every_s`, oldest first, the last before `until_ns`.

    The stamps are multiples of `every_s`: filling the same hours again overwrites what is there.
    """
    step = max(1, round(every_s * _NS))
    first = -(-(until_ns - round(since_s * _NS)) // step) * step
    for time_ns in range(first, until_ns, step):
        values = sensor.values_at(time_ns / _NS)
        yield line_for(
            device_id, sensor.sensor, values, boot_ns=0, sensor_name=sensor_name, location=location, time_ns=time_ns
        )
