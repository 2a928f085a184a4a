"""The settings of agent.toml as frozen records. Durations are seconds, sizes bytes; see agent.toml.example."""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass, field
from typing import Any, Literal

from agent.config.units import Bytes, Seconds
from agent.util.secret import Secret

Trust = Literal["auto", "always"]
Unanchored = Literal["estimate", "hold", "discard"]
FOUND = {"found": True}
"""Marks what no file can say: it is found while reading one."""
Report = Literal["mean", "mean_min_max"]


@dataclass(frozen=True, slots=True)
class Location:
    """Where the device stands, in degrees (WGS 84)."""

    lat: float
    lon: float


@dataclass(frozen=True, slots=True)
class DeviceSettings:
    id: str | None = None
    location: Location | None = None


@dataclass(frozen=True, slots=True)
class SensorSettings:
    """One [[sensor]]. What is not named here is an option of the driver and ends up in `options`.

    `calibrate`: two pairs of what is measured and what is true, by quantity. `dew_point` is `derive = ["DewPoint"]`.
    """

    driver: str = "bme280"
    name: str | None = None
    interval: Seconds = Seconds(10)
    sample_every: Seconds | None = None
    report: Report = "mean"
    deadband: Mapping[str, float] = field(default_factory=dict)
    heartbeat: Seconds = Seconds(600)
    max_rate: Mapping[str, float] = field(default_factory=dict)
    stuck_after: int = 360
    offset: Mapping[str, float] = field(default_factory=dict)
    scale: Mapping[str, float] = field(default_factory=dict)
    calibrate: Mapping[str, tuple[tuple[float, float], tuple[float, float]]] = field(default_factory=dict)
    derive: tuple[str, ...] = ()
    dew_point: bool = False
    altitude: float | None = None
    options: Mapping[str, Any] = field(default_factory=dict)


@dataclass(frozen=True, slots=True)
class CenterSettings:
    url: str
    api: Literal["auto", "iot-center", "iot-center-v2", "iot-api"] = "auto"
    enrollment_key_file: str | None = None
    ca_file: str | None = None
    client_cert: str | None = None
    client_key: str | None = None
    require_tls: bool = False
    influx_url: str | None = None
    influx_org: str | None = None
    influx_bucket: str | None = None
    remote: Literal["local", "prefer"] = "local"
    timeout: Seconds = Seconds(10)


@dataclass(frozen=True, slots=True)
class InfluxSettings:
    url: str
    org: str
    bucket: str
    token: Secret | None = None
    token_file: str | None = None
    ca_file: str | None = None
    client_cert: str | None = None
    client_key: str | None = None
    require_tls: bool = False


@dataclass(frozen=True, slots=True)
class MqttSettings:
    host: str
    port: int | None = None
    username: str | None = None
    password_file: str | None = None
    tls: bool = False
    ca_file: str | None = None
    topic: str = "iot"
    discovery: bool = True

    @property
    def place(self) -> tuple[str, int]:
        """Host and port."""
        return self.host, self.port or (8883 if self.tls else 1883)


@dataclass(frozen=True, slots=True)
class BufferSettings:
    loss_window: Seconds = Seconds(10)
    max_size: Bytes = Bytes(256_000_000)
    max_age: Seconds | None = None
    when_full: Literal["thin", "drop_oldest", "drop_newest"] = "thin"
    max_rejected: Bytes = Bytes(16_000_000)
    memory_points: int = 100_000


@dataclass(frozen=True, slots=True)
class DeliverySettings:
    flush_interval: Seconds = Seconds(5)
    batch_size: int = 5000
    backlog_rate: float = 0.0
    timeout: Seconds = Seconds(10)


@dataclass(frozen=True, slots=True)
class ClockSettings:
    trust: Trust = "auto"
    unanchored: Unanchored = "estimate"
    max_error: Seconds = Seconds(300)


@dataclass(frozen=True, slots=True)
class StatusSettings:
    listen: str = "127.0.0.1:9528"
    public: bool = False
    unhealthy_after: Seconds = Seconds(300)


@dataclass(frozen=True, slots=True)
class HealthSettings:
    enabled: bool = True
    interval: Seconds = Seconds(60)


@dataclass(frozen=True, slots=True)
class LogSettings:
    level: Literal["debug", "info", "warning", "error"] = "info"


@dataclass(frozen=True, slots=True)
class Settings:
    """The whole of agent.toml. Exactly one of `center` and `influxdb` is set.

    `named` are the keys that the file itself sets (`device.location`, `sensor[0].interval`): the center does not
    overrule those unless `remote = "prefer"`.
    """

    device: DeviceSettings = field(default_factory=DeviceSettings)
    sensor: tuple[SensorSettings, ...] = (SensorSettings(),)
    center: CenterSettings | None = None
    influxdb: InfluxSettings | None = None
    mqtt: MqttSettings | None = None
    buffer: BufferSettings = field(default_factory=BufferSettings)
    delivery: DeliverySettings = field(default_factory=DeliverySettings)
    clock: ClockSettings = field(default_factory=ClockSettings)
    status: StatusSettings = field(default_factory=StatusSettings)
    health: HealthSettings = field(default_factory=HealthSettings)
    log: LogSettings = field(default_factory=LogSettings)
    warnings: tuple[str, ...] = field(default=(), metadata=FOUND)
    named: frozenset[str] = field(default=frozenset(), metadata=FOUND)
