"""The [[sensor]] tables as drivers, and at work: what they report becomes points."""

from __future__ import annotations

from collections.abc import Callable, Iterator, Mapping, Sequence
from dataclasses import asdict, dataclass
from typing import Any

from agent.config.limits import may_deliver
from agent.config.settings import SensorSettings, Settings
from agent.points.schema import Line, line_for, resolved
from agent.registration.remote_config import RemoteConfiguration, applied, ruled
from agent.sensing.sampler import Sampler
from agent.sensing.sensor_status import SensorStatus
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
        self,
        settings: Settings,
        device_id: str,
        drivers: Sequence[Driver],
        put: Callable[[Sequence[Line]], None],
        remote: RemoteConfiguration | None = None,
    ) -> None:
        self._settings, self._device_id, self._put = settings, device_id, put
        self._in_use = settings
        self.also: Callable[[str, Mapping[str, float | int], int], None] | None = None
        """Gets, of what is reported, the sensor's name, the values and their moment (boot clock); must not block."""
        self._sensors = [
            Sensor(table.name or table.driver, Sampler(table, driver, self._emit(driver, table)))
            for table, driver in zip(settings.sensor, drivers, strict=True)
        ]
        self.configure(remote or RemoteConfiguration())

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
        self._in_use = applied(self._settings, remote)
        for table, sensor in zip(self._in_use.sensor, self._sensors, strict=True):
            sensor.sampler.configure(table)

    def told(self) -> dict[str, Any]:
        """What the center is told of them: what is in use, and what of it agent.toml rules. Can be written as JSON."""
        own, place = self._settings, self._in_use.device.location
        return {
            "remote": own.center.remote if own.center else None,
            "location": asdict(place) if place else None,
            "located": place is not None and place == own.device.location,
            "sensors": [
                {
                    "name": sensor.name,
                    "kind": sensor.sampler.snapshot().kind,
                    **{name: getattr(table, name) for name in ("driver", "interval", "heartbeat", "report")},
                    **{name: getattr(table, name) for name in ("deadband", "offset")},
                    "file": sorted(ruled(own, number)),
                    "quantities": sorted(may_deliver(table)),
                }
                for number, (table, sensor) in enumerate(zip(self._in_use.sensor, self._sensors, strict=True))
            ],
        }

    def _place(self, values: Mapping[str, float | int]) -> tuple[float, float] | None:
        """Lat and Lon to add: what agent.toml says wins over what a sensor says, and that over what the center says."""
        if "Lat" in values and not self._settings.device.location:
            return None
        location = self._in_use.device.location
        return (location.lat, location.lon) if location else None

    def _emit(self, driver: Driver, table: SensorSettings) -> Callable[[Reading], None]:
        def emit(reading: Reading) -> None:
            line = line_for(
                self._device_id,
                driver.sensor,  # a BMP280 is known as one only once it is open
                reading.values,
                boot_ns=reading.boot_ns,
                sensor_name=table.name,
                location=self._place(reading.values),
            )
            self._put([line])
            if self.also:
                values = {field: resolved(field, value) for field, value in reading.values.items()}
                self.also(table.name or table.driver, values, reading.boot_ns)

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
