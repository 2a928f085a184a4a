"""The [[sensor]] tables as drivers, and a sensor at work."""

from __future__ import annotations

from dataclasses import dataclass
from typing import TYPE_CHECKING

from agent.errors import AgentError
from drivers.base import load, options_for

if TYPE_CHECKING:
    from agent.sampler import Sampler
    from agent.settings import SensorSettings, Settings
    from drivers.base import Driver


@dataclass(frozen=True, slots=True)
class Sensor:
    """A [[sensor]] at work; `tag` is the value of the tag `sensor`, where a device has several of a kind."""

    settings: SensorSettings
    driver: Driver
    sampler: Sampler
    tag: str | None


def drivers_of(settings: Settings) -> list[Driver]:
    """A driver for each [[sensor]]; no hardware is touched. Raises AgentError for one that cannot be made."""
    drivers = []
    for number, sensor in enumerate(settings.sensor):
        try:
            kind = load(sensor.driver)
            drivers.append(kind(options_for(kind, sensor.options)))
        except Exception as error:  # a driver of somebody else's may raise anything
            raise AgentError(
                f"sensor[{number}]: driver {sensor.driver!r} cannot be used ({type(error).__name__}: {error}): "
                "mend its options or its package, or take another"
            ) from error
    return drivers
