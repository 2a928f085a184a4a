"""The virtual sensor's past, so that there is something to see before a day has gone by."""

from __future__ import annotations

import time
from collections.abc import Iterator
from itertools import islice
from pathlib import Path

from agent.buffer.offline import OfflineBuffer
from agent.buffer.rows import MAX_LINES, Kind, pack
from agent.config.settings import SensorSettings, Settings
from agent.points.schema import line_for
from agent.registration.device_id import device_id
from agent.util.state_folder import prepare
from drivers.base import load, options_for
from drivers.virtual import Virtual

_NS = 1_000_000_000


def sensors_with_past(settings: Settings) -> list[SensorSettings]:
    """The virtual ones: a real sensor has no past to give."""
    return [sensor for sensor in settings.sensor if issubclass(load(sensor.driver), Virtual)]


def write_past(settings: Settings, state_dir: Path, *, since_s: float, every_s: float) -> Iterator[int]:
    """Put the last `since_s` of each virtual sensor into the buffer, beside a running agent or without one.

    One point each `every_s`, oldest first, at multiples of it: filling the same hours again overwrites what is there.
    Yields the number of points after each transaction. Raises AgentError where the folder or the buffer refuses.
    """
    prepare(state_dir)
    identity = device_id(settings.device.id, state_dir)
    place = settings.device.location
    location = (place.lat, place.lon) if place else None
    step, now = max(1, round(every_s * _NS)), time.time_ns()
    moments = range(-(-(now - round(since_s * _NS)) // step) * step, now, step)
    with OfflineBuffer(state_dir / "buffer", create=True) as buffer:
        for sensor in sensors_with_past(settings):
            driver = Virtual(options_for(Virtual, sensor.options))
            lines = (
                line_for(
                    identity,
                    driver.sensor,
                    driver.values_at(time_ns / _NS),
                    boot_ns=0,
                    sensor_name=sensor.name,
                    location=location,
                    time_ns=time_ns,
                ).encode()
                for time_ns in moments
            )
            while batch := list(islice(lines, MAX_LINES)):
                buffer.add([pack(batch, Kind.PENDING)])
                yield len(batch)
