"""The [[sensor]] tables as drivers, and at work: what they report becomes points."""

from __future__ import annotations

from collections.abc import Callable, Iterator, Mapping, Sequence
from dataclasses import dataclass

from agent.config.settings import Settings
from agent.points.schema import Line, line_for
from agent.registration.remote_config import RemoteConfiguration
from agent.sensing.sampler import Sampler, SensorStatus
from agent.util.errors import AgentError
from drivers.base import Driver, Reading, make


@dataclass(frozen=True, slots=True)
class Sensor:
    """A [[sensor]] at work."""

    name: str
    sampler: Sampler


class Sensors:
    """The sensors of one configuration. Their loops are run by the caller; `put` gets the points, and must not block.

    configure() and snapshot() may be called from any thread.
    """

    def __init__(
        self, settings: Settings, device_id: str, drivers: Sequence[Driver], put: Callable[[Sequence[Line]], None]
    ) -> None:
        self._settings, self._device_id, self._put = settings, device_id, put
        self._location = settings.device.location
        self._sensors = [
            Sensor(table.name or table.driver, Sampler(table, driver, self._emit(driver, table.name)))
            for table, driver in zip(settings.sensor, drivers, strict=True)
        ]

    def loops(self) -> Iterator[tuple[str, Sampler]]:
        """A name and what is to be run, for each."""
        return ((f"sensor {sensor.name}", sensor.sampler) for sensor in self._sensors)

    def snapshot(self) -> list[SensorStatus]:
        return [sensor.sampler.snapshot() for sensor in self._sensors]

    def alive_boot_ns(self) -> dict[str, int]:
        """When each was last seen at work (boot clock)."""
        return {f"sensor {s.name}": s.sampler.snapshot().alive_boot_ns for s in self._sensors}

    def describe(self) -> str:
        return ", ".join(sensor.sampler.driver.describe() for sensor in self._sensors)

    def configure(self, remote: RemoteConfiguration) -> None:
        """What the center sends changes the running agent; what agent.toml names wins, unless `remote = "prefer"`."""
        settings = self._settings
        prefer = settings.center is not None and settings.center.remote == "prefer"
        own, said = settings.device.location, remote.location
        self._location = own if said is None or (own is not None and not prefer) else said
        interval = remote.measurement_interval
        for number, (table, sensor) in enumerate(zip(settings.sensor, self._sensors, strict=True)):
            keep = f"sensor[{number}].interval" in settings.named and not prefer
            sensor.sampler.set_interval(table.interval if interval is None or keep else interval)

    def _place(self, values: Mapping[str, float | int]) -> tuple[float, float] | None:
        """Lat and Lon to add: what agent.toml says wins over what a sensor says, and that over what the center says."""
        if "Lat" in values and not self._settings.device.location:
            return None
        return (self._location.lat, self._location.lon) if self._location else None

    def _emit(self, driver: Driver, name: str | None) -> Callable[[Reading], None]:
        def emit(reading: Reading) -> None:
            line = line_for(
                self._device_id,
                driver.sensor,  # a BMP280 is known as one only once it is open
                reading.values,
                boot_ns=reading.boot_ns,
                sensor_name=name,
                location=self._place(reading.values),
            )
            self._put([line])

        return emit


def drivers_of(settings: Settings) -> list[Driver]:
    """A driver for each [[sensor]]; no hardware is touched. Raises AgentError for one that cannot be made."""
    drivers = []
    for number, sensor in enumerate(settings.sensor):
        try:
            drivers.append(make(sensor.driver, sensor.options))
        except Exception as error:  # a driver of somebody else's may raise anything
            raise AgentError(
                f"sensor[{number}]: driver {sensor.driver!r} cannot be used ({type(error).__name__}: {error}): "
                "mend its options or its package, or take another"
            ) from error
    return drivers
