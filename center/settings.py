"""The center's settings as frozen records, and which of them no center can run with. settings_files.py reads them."""

from __future__ import annotations

import logging
import os
from dataclasses import dataclass, field
from pathlib import Path
from typing import Literal

from agent.config.limits import check_url, wrong
from agent.config.units import Bytes, Seconds
from agent.util.secret import TOKEN, Secret
from center.errors import SettingsError

log = logging.getLogger(__name__)
LOOPBACK = frozenset({"127.0.0.1", "::1", "localhost"})
INI_KEYS = {
    "INFLUX_URL": "url",
    "INFLUX_TOKEN": "token",
    "INFLUX_ORG": "org",
    "INFLUX_BUCKET": "bucket",
    "INFLUX_BUCKET_AUTH": "bucket_auth",
}


@dataclass(frozen=True, slots=True)
class ServerSettings:
    """[server]. `trusted_hosts`: further names the center is reached by. `proxies`: reverse proxies in front of it.

    `public_view`: with a password set, let anybody look at the pages; changing things needs the login all the same.
    """

    host: str = "127.0.0.1"
    port: int = 5000
    threads: int = 16
    trusted_hosts: tuple[str, ...] = ()
    proxies: int = 0
    public_view: bool = False
    public_url: str | None = None
    max_body: Bytes = Bytes(50_000_000)
    session_key: Secret | None = None


@dataclass(frozen=True, slots=True)
class InfluxSettings:
    """[influxdb]. `device_url`: the address devices reach it by, where that differs from `url`."""

    url: str = ""
    token: Secret = field(default_factory=lambda: Secret(""))
    token_file: str | None = None
    org: str = ""
    bucket: str = "iot_center"
    bucket_auth: str = "iot_center_devices"
    device_url: str | None = None
    ca_file: str | None = None
    timeout: Seconds = Seconds(30)


@dataclass(frozen=True, slots=True)
class VictoriaSettings:
    """[victoria]. With `url` set, series are on VictoriaMetrics: a single node, or a cluster by the prefix of its reads
    (`url`, before /api/v1/query) and of its writes (`write_url`, before /api/v2/write), where these differ.

    `token` is sent as a Bearer, for a vmauth in front. `org` and `bucket` are what devices are told to name.
    """

    url: str = ""
    write_url: str | None = None
    token: Secret = field(default_factory=lambda: Secret(""))
    token_file: str | None = None
    org: str = "iot-center"
    bucket: str = "iot_center"
    ca_file: str | None = None
    timeout: Seconds = Seconds(30)


@dataclass(frozen=True, slots=True)
class RegistrySettings:
    """[registry]. `store`: where registrations are, with series on VictoriaMetrics; None: on InfluxDB if [influxdb] has
    a url, else in the embedded store's file.
    """

    store: Literal["embedded", "influxdb"] | None = None


@dataclass(frozen=True, slots=True)
class EmbeddedSettings:
    """[embedded]. `data`: its folder. `retention` of None: for ever."""

    data: str | None = None
    org: str = "iot-center"
    bucket: str = "iot_center"
    retention: Seconds | None = None


@dataclass(frozen=True, slots=True)
class DeviceDefaults:
    """[devices]: what devices are told when they register. Location in degrees (WGS 84).

    `loggers`: ids whose tokens may write under other devices' ids, too.
    """

    measurement_interval: Seconds = Seconds(10)
    configuration_refresh: Seconds = Seconds(300)
    default_lat: float | None = None
    default_lon: float | None = None
    silent_after: Seconds = Seconds(300)
    loggers: tuple[str, ...] = ()


@dataclass(frozen=True, slots=True)
class Settings:
    """The whole of center.toml."""

    embedded: bool = False
    server: ServerSettings = field(default_factory=ServerSettings)
    influxdb: InfluxSettings = field(default_factory=InfluxSettings)
    victoria: VictoriaSettings = field(default_factory=VictoriaSettings)
    registry: RegistrySettings = field(default_factory=RegistrySettings)
    store: EmbeddedSettings = field(default_factory=EmbeddedSettings)
    devices: DeviceDefaults = field(default_factory=DeviceDefaults)

    @property
    def series_on(self) -> Literal["embedded", "influxdb", "victoria"]:
        """The store of what is measured."""
        if self.embedded:
            return "embedded"
        return "victoria" if self.victoria.url else "influxdb"

    @property
    def registry_on(self) -> Literal["embedded", "influxdb"]:
        """The store of registrations, enrollment keys and the password."""
        if self.embedded or self.series_on == "influxdb":
            return "embedded" if self.embedded else "influxdb"
        return self.registry.store or ("influxdb" if self.influxdb.url else "embedded")

    @property
    def loopback(self) -> bool:
        """Whether it listens on this machine only."""
        return self.server.host in LOOPBACK

    @property
    def data_dir(self) -> Path:
        """The embedded store's folder: as configured, STATE_DIRECTORY, or the user's state folder."""
        if self.store.data:
            return Path(self.store.data).expanduser()
        if state := os.environ.get("STATE_DIRECTORY"):
            return Path(state.split(":", 1)[0])
        home = os.environ.get("XDG_STATE_HOME") or "~/.local/state"
        return Path(home).expanduser() / "iot-center"


def check(settings: Settings) -> None:
    """Raises SettingsError for settings no center can run with, whatever the command line added to them."""
    mistakes = []
    influx, victoria = settings.influxdb, settings.victoria
    uses_influx = "influxdb" in {settings.series_on, settings.registry_on}
    if uses_influx:
        missing = [n for n, key in INI_KEYS.items() if not getattr(influx, key)]
        if missing:
            mistakes.append(
                f"no InfluxDB to store in: {', '.join(missing)} not set; iot-center init asks for them, or set them in "
                "center.toml, config.ini or the environment, or take the embedded store (--embedded, or with flask "
                "IOT_CENTER_EMBEDDED=1) for a laptop, a demo or a test"
            )
        elif settings.series_on == "influxdb" and influx.bucket == influx.bucket_auth:
            mistakes.append(
                f"influxdb.bucket and bucket_auth are both {influx.bucket!r}: devices may write to the first, "
                "so registrations need a bucket of their own"
            )
        elif not TOKEN.fullmatch(influx.token.reveal()):
            mistakes.append("influxdb.token: should be one line of letters, digits and signs, as InfluxDB showed it")
    if settings.registry.store not in {None, settings.registry_on}:
        mistakes.append(
            f'registry.store = "{settings.registry.store}": with series on {settings.series_on} registrations are '
            "there, too; they can be elsewhere if [victoria] has a url"
        )
    if settings.series_on == "victoria" and victoria.token and not TOKEN.fullmatch(victoria.token.reveal()):
        mistakes.append("victoria.token: should be one line of letters, digits and signs, as vmauth knows it")
    if not victoria.url and (victoria.write_url or victoria.token):
        mistakes.append("victoria.url: not set, and write_url or token is: it names where series are read from")
    if victoria.url and not (victoria.org and victoria.bucket):
        mistakes.append("victoria.org and bucket: should not be empty, devices are told to name them")
    for name, url in (
        ("influxdb.url", influx.url if uses_influx else ""),
        ("influxdb.device_url", influx.device_url),
        ("victoria.url", victoria.url if settings.series_on == "victoria" else ""),
        ("victoria.write_url", victoria.write_url),
        ("server.public_url", settings.server.public_url),
    ):
        if url and (why := wrong(check_url, url)):
            mistakes.append(f"{name}: {why}")
    if not 0 <= settings.server.port <= 65535:
        mistakes.append(f"server.port = {settings.server.port}: should be 0 to 65535")
    if (settings.devices.default_lat is None) != (settings.devices.default_lon is None):
        mistakes.append("devices.default_lat and default_lon: set both or neither")
    if mistakes:
        raise SettingsError("\n".join(mistakes))
