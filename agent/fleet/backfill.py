"""The virtual sensor's past, so that there is something to see before a day has gone by."""

from __future__ import annotations

import time
from itertools import islice
from typing import TYPE_CHECKING

from agent.buffer.offline import Beside
from agent.buffer.rows import MAX_LINES, Kind, pack
from agent.points.schema import Line, line_for
from drivers.base import load, options_for
from drivers.virtual import Virtual

if TYPE_CHECKING:
    from collections.abc import Iterator
    from pathlib import Path

    from agent.config.settings import Settings

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


def has_past(settings: Settings) -> bool:
    """Whether a sensor is virtual: a real one has no past to give."""
    return any(issubclass(load(sensor.driver), Virtual) for sensor in settings.sensor)


def write_past(settings: Settings, state_dir: Path, device_id: str, *, since_s: float, every_s: float) -> Iterator[int]:
    """Put the past of each virtual sensor into the buffer, beside a running agent or without one.

    Yields the number of points after each transaction. Raises BufferUnavailable.
    """
    kinds = [load(sensor.driver).sensor for sensor in settings.sensor]
    place = settings.device.location
    with Beside(state_dir / "buffer", create=True) as buffer:
        for sensor in settings.sensor:
            if not issubclass(load(sensor.driver), Virtual):
                continue
            driver = Virtual(options_for(Virtual, sensor.options))
            lines = past_lines(
                device_id,
                driver,
                since_s=since_s,
                every_s=every_s,
                until_ns=time.time_ns(),
                sensor_name=sensor.name if kinds.count(driver.sensor) > 1 else None,
                location=(place.lat, place.lon) if place else None,
            )
            while batch := [line.encode() for line in islice(lines, MAX_LINES)]:
                buffer.add([pack(batch, Kind.PENDING)])
                yield len(batch)
