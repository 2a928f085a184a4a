"""What settings must satisfy beyond their types: limits, what excludes what, files that are named and not there."""

from __future__ import annotations

import re
from collections.abc import Callable, Collection, Iterator, Mapping, Sequence
from dataclasses import fields, is_dataclass
from difflib import get_close_matches
from pathlib import Path
from typing import Any
from urllib.parse import urlsplit

from agent.config import settings as s
from agent.config.records import nearest
from agent.util.atomic import is_there
from drivers.base import QUANTITIES, OptionError, options_for
from drivers.base import load as load_driver

NO_PAHO = "paho-mqtt is not installed: pip install 'iot-edge-agent[mqtt]' where the agent is installed"
ID_RULE = "1 to 64 of the characters A-Z a-z 0-9 . _ -, and not . or .."
_DAY = 86_400
# Limits, in the unit of the setting. What lies outside has no sensible meaning, or would break a promise.
LIMITS: Mapping[str, tuple[float, float, str]] = {
    "device.location.lat": (-90, 90, "degrees from -90 to 90"),
    "device.location.lon": (-180, 180, "degrees from -180 to 180"),
    "sensor.interval": (0.05, 7 * _DAY, 'from "50ms" to "7d"'),
    "sensor.sample_every": (0.05, _DAY, 'from "50ms" to "1d"'),
    "sensor.heartbeat": (1, 7 * _DAY, 'from "1s" to "7d"'),
    "sensor.altitude": (-500, 9000, "metres from -500 to 9000"),
    "sensor.stuck_after": (0, 1_000_000, "0 (never) to 1000000 readings"),
    "center.timeout": (0.1, 300, 'from "100ms" to "5m"'),
    "mqtt.port": (1, 65_535, "1 to 65535"),
    "buffer.loss_window": (0, 3600, 'from "0s" to "1h"'),
    "buffer.max_size": (1_000_000, 10**12, 'from "1MB" to "1000GB"'),
    "buffer.max_age": (60, 3660 * _DAY, 'from "1m" to "3660d"'),
    "buffer.max_rejected": (0, 10**10, 'from "0MB" to "10GB"'),
    "buffer.memory_points": (100, 10_000_000, "100 to 10000000 points"),
    "delivery.flush_interval": (0.05, 3600, 'from "50ms" to "1h"'),
    "delivery.batch_size": (1, 50_000, "1 to 50000 points"),
    "delivery.backlog_rate": (0, 10_000_000, "points per second, 0 for full speed"),
    "delivery.timeout": (0.1, 300, 'from "100ms" to "5m"'),
    "clock.max_error": (0.1, 366 * _DAY, 'from "100ms" to "366d"'),
    "status.unhealthy_after": (1, 30 * _DAY, 'from "1s" to "30d"'),
    "health.interval": (1, _DAY, 'from "1s" to "1d"'),
}

SLOPES = (0.1, 10.0)  # of a calibration: what lies outside is a slip, not an instrument
MEASURED = tuple(name for name, found in QUANTITIES.items() if not found.derived and name not in ("Lat", "Lon"))

_INDEX = re.compile(r"\[\d+\]")
_API = re.compile(r"(https?://[^/]+.*?)/api/(?:v[23](?:/.*)?|devices(?:/.*)?|env(?:/.*)?)")
_ID = re.compile(r"[A-Za-z0-9._-]{1,64}")
_HOST = re.compile(r"[A-Za-z0-9._:%-]{1,253}")


def check_id(text: str) -> str:
    """The id, if it is one on both sides: `[A-Za-z0-9._-]{1,64}`, not `.` or `..`. Else ValueError."""
    if not _ID.fullmatch(text) or text in (".", ".."):
        raise ValueError(f"{text[:80]!r} is no device id: {ID_RULE}")
    return text


def check_url(text: str) -> str:
    """The URL without a slash at its end. ValueError unless it is http(s)://host[:port][/path] and nothing more."""
    if "@" in text:  # first: what other messages repeat could be a password
        raise ValueError("a URL with a user or password in it: put the secret in a file of its own")
    try:
        parts = urlsplit(text)
        good = parts.scheme in ("http", "https") and parts.hostname and (parts.port is None or parts.port > 0)
    except ValueError:
        good = False
    if not good or not text.isascii() or not text.isprintable() or " " in text:
        raise ValueError(f"{text[:200]!r} is not a URL like http://host:8086")
    if parts.query or parts.fragment:
        raise ValueError(f"{text[:200]!r} has a query or fragment: only http://host:port/path")
    text = text.rstrip("/")
    if api := _API.fullmatch(text):  # a path in front of it is a reverse proxy's
        raise ValueError(f"{text[:200]!r} goes on to the API itself, which is added: write {api[1][:200]!r}")
    return text


def check_topic(text: str) -> str:
    """What MQTT topics may begin with, and Home Assistant takes: MQTT 5.0, 4.7. Else ValueError."""
    if not text.isprintable() or len(text) > 100:
        raise ValueError(f"{text[:80]!r}: must be printable, and not longer than 100 characters")
    if {"+", "#"} & set(text) or text.startswith("$") or not all(text.split("/")):
        raise ValueError(f"{text[:80]!r}: must be levels like house/garden, without + and #, none empty, no $ in front")
    return text


def wrong(check: Callable[[str], str], text: str) -> str | None:
    """What a check has against a text, or None."""
    try:
        check(text)
    except ValueError as error:
        return str(error)
    return None


def out_of_limits(record: s.Settings | s.SensorSettings, of: str = "") -> Iterator[str]:
    """What lies outside; `of` stands before the names in LIMITS."""
    for path, value in _walk(record, ""):
        limits = LIMITS.get(of + _INDEX.sub("", path))
        if limits and not limits[0] <= value <= limits[1]:
            shown = f"{value:g}" if isinstance(value, float) else str(value)[:40]
            yield f"{path} = {shown}: must be {limits[2]}"


def _walk(record: Any, prefix: str) -> Iterator[tuple[str, float]]:
    """The path, with indexes, of every number in the settings."""
    for attribute in fields(record):
        value = getattr(record, attribute.name)
        path = f"{prefix}{attribute.name}"
        if is_dataclass(value):
            yield from _walk(value, f"{path}.")
        elif attribute.name == "sensor":
            for index, sensor in enumerate(value):
                yield from _walk(sensor, f"sensor[{index}].")
        elif isinstance(value, int | float):
            yield path, value


def contradictions(settings: s.Settings) -> Iterator[str]:
    if settings.center and settings.influxdb:
        yield "[center] and [influxdb] are both there: keep [center] to register with an IoT Center, or [influxdb]"
    if not settings.center and not settings.influxdb:
        yield "neither [center] nor [influxdb] is there: points need a place to go; add [center] with its url"
    if settings.device.id is not None and wrong(check_id, settings.device.id):
        yield f"device.id = {settings.device.id!r}: must be {ID_RULE}"
    for name, section in (("center", settings.center), ("influxdb", settings.influxdb)):
        if section and (why := wrong(check_url, section.url)):
            yield f"{name}.url: {why}"
        elif section and section.require_tls and not section.url.startswith("https:"):
            yield f"{name}.url = {section.url!r}: must begin with https:// because {name}.require_tls is true"
        if section and section.client_key and not section.client_cert:
            yield f"{name}.client_key is there without {name}.client_cert: name the certificate as well"
    if settings.center and settings.center.influx_url and (why := wrong(check_url, settings.center.influx_url)):
        yield f"center.influx_url: {why}"
    if (influx := settings.influxdb) and influx.token and influx.token_file:
        yield "influxdb.token and influxdb.token_file are both there: keep one"
    if settings.mqtt:
        yield from _mqtt_contradictions(settings.mqtt, settings.sensor)
    if settings.status.listen:
        host, _, port = settings.status.listen.rpartition(":")
        if not host or not port.isdecimal() or not 0 <= int(port) <= 65535:
            yield f'status.listen = {settings.status.listen!r}: must be "address:port" like "127.0.0.1:9528", or ""'
        elif host not in {"127.0.0.1", "localhost", "[::1]"} and not settings.status.public:
            yield f"status.listen = {settings.status.listen!r}: set status.public = true to show it beyond this machine"
    yield from _sensor_contradictions(settings.sensor)


def _mqtt_contradictions(mqtt: s.MqttSettings, sensors: tuple[s.SensorSettings, ...]) -> Iterator[str]:
    if not _HOST.fullmatch(mqtt.host):
        yield f"mqtt.host = {mqtt.host[:80]!r}: must be a name or an address alone, like homeassistant.local"
    if why := wrong(check_topic, mqtt.topic):
        yield f"mqtt.topic = {why}"
    if mqtt.username == "":
        yield 'mqtt.username = "": leave it out for a broker that asks for no login'
    if mqtt.password_file and not mqtt.username:
        yield "mqtt.password_file is there without mqtt.username: name the user as well"
    if mqtt.ca_file and not mqtt.tls:
        yield "mqtt.ca_file is there without mqtt.tls = true: without TLS no certificate is asked for"
    for index, sensor in enumerate(sensors):
        if (name := sensor.name or sensor.driver) in ("agent", "status"):
            yield f"sensor[{index}].name = {name!r}: [mqtt] has a topic of this name, so a sensor needs another"


def _sensor_contradictions(sensors: tuple[s.SensorSettings, ...]) -> Iterator[str]:
    if not sensors:
        yield "sensor = []: at least one [[sensor]] is needed"
    nameless = {sensor.driver for sensor in sensors if sensor.name is None}
    measured: list[Collection[str]] = []
    for index, sensor in enumerate(sensors):
        where = f"sensor[{index}]"
        if sensor.name is not None:
            if wrong(check_id, sensor.name):
                yield f"{where}.name = {sensor.name!r}: must be {ID_RULE}"
            if sensor.name in {other.name for other in sensors[:index]} | nameless:
                yield f"{where}.name = {sensor.name!r}: another sensor has this name"
        if sensor.sample_every and sensor.sample_every > sensor.interval:
            yield f"{where}.sample_every = {sensor.sample_every:g} s: must be at most the interval"
        for table in ("deadband", "max_rate"):
            for field, value in getattr(sensor, table).items():
                if why := not_a_band(field, value):
                    yield f"{where}.{table}.{why}"
        yield from _calibration_contradictions(sensor, where)
        measured.append(())
        try:
            measured[-1] = may_deliver(sensor)
            yield from _underivable(sensor, where)
        except OptionError as error:
            for one in error.each:
                ours = get_close_matches(one.key or "", [f.name for f in fields(s.SensorSettings)], 1, 0.8)
                hint = f"; did you mean {ours[0]}?" if ours and ours[0] != "options" else ""
                yield f"{where}: {one}{hint}"
    for index, sensor in enumerate(sensors):
        if sensor.name is None and (said := _mistaken_for(index, sensors, measured)):
            yield f"sensor[{index}]: {said}"


def not_a_band(field: str, value: float) -> str | None:
    """What is wrong with a deadband, or a greatest rate, of a quantity, which the text begins with; or None."""
    if field not in QUANTITIES:
        return f"{field}: no such quantity{nearest(field, QUANTITIES)}"
    return None if value > 0 else f"{field} = {value:g}: must be above 0"


def not_an_offset(field: str, value: float) -> str | None:
    """What is wrong with the offset of a quantity, which the text begins with; or None."""
    if field not in MEASURED:
        return f"{field}: no quantity that is measured{nearest(field, list(MEASURED))}"
    most, unit = QUANTITIES[field].high - QUANTITIES[field].low, QUANTITIES[field].unit
    return None if abs(value) <= most else f"{field} = {value:g}: must be from {-most:g} to {most:g} {unit}"


def may_deliver(sensor: s.SensorSettings) -> Collection[str]:
    """The quantities that it may measure, and those derived. Raises OptionError."""
    return {*_may_measure(sensor), *_derived(sensor)}


def _may_measure(sensor: s.SensorSettings) -> Collection[str]:
    driver = load_driver(sensor.driver)
    return driver.quantities(options_for(driver, sensor.options))


def _derived(sensor: s.SensorSettings) -> Mapping[str, str]:
    """What is computed, and by which key."""
    found = dict.fromkeys(sensor.derive, "derive") | ({"DewPoint": "dew_point"} if sensor.dew_point else {})
    return found | ({"PressureSeaLevel": "altitude"} if sensor.altitude is not None else {})


def _underivable(sensor: s.SensorSettings, where: str) -> Iterator[str]:
    """What is to be computed from quantities that the sensor does not measure. Raises OptionError."""
    measured = _may_measure(sensor)
    for field, key in _derived(sensor).items():
        needs = ("Temperature", "Pressure" if key == "altitude" else "Humidity")
        if lacking := [name for name in needs if name not in measured]:
            text = f"{field} needs {' and '.join(lacking)}, which {sensor.driver} does not measure"
            yield f"{where}.{key}: {text}{' with these options' if sensor.options else ''}"


def _mistaken_for(index: int, sensors: Sequence[s.SensorSettings], measured: Sequence[Collection[str]]) -> str | None:
    """Why a sensor cannot do without a name: there is another whose points would be taken for its own."""
    for number, other in enumerate(sensors):
        shared = [name for name in QUANTITIES if name in measured[index] and name in measured[number]]
        alike = other.name is None and other.driver == sensors[index].driver
        if number != index and (shared or alike):
            what = f"measures {shared[0]}" if len(shared) == 1 else f"may measure {', '.join(shared[:3])}"
            what = f"{what}, …" if len(shared) > 3 else what
            called = f"{other.name or other.driver}, the {number + 1}. [[sensor]]"
            return (
                f"another ({called}) {what if shared else 'is read by the same driver'} as well, so each needs a name, "
                'like name = "bench": it is the tag sensor of its points, by which they are told apart'
            )
    return None


def sensor_problems(sensor: s.SensorSettings) -> Iterator[str]:
    """What a sensor that stands alone, without a file, must satisfy."""
    yield from out_of_limits(sensor, "sensor.")
    found = [*_calibration_contradictions(sensor, ""), *_underivable(sensor, "")]
    yield from (text.removeprefix(".") for text in found)


def _calibration_contradictions(sensor: s.SensorSettings, where: str) -> Iterator[str]:
    for table in ("offset", "scale", "calibrate"):
        values = getattr(sensor, table)
        for field in values:
            if why := not_an_offset(field, values[field] if table == "offset" else 0.0):
                yield f"{where}.{table}.{why}"
    slopes = {f"scale.{field} = {value:g}": value for field, value in sensor.scale.items()}
    for field, ((raw, true), (other_raw, other_true)) in sensor.calibrate.items():
        what = f"calibrate.{field} = [[{raw:g}, {true:g}], [{other_raw:g}, {other_true:g}]]"
        slopes[what] = (other_true - true) / (other_raw - raw) if other_raw != raw else 0.0
        if field in sensor.offset or field in sensor.scale:
            yield f"{where}.calibrate.{field}: offset or scale is there as well; keep one of them"
    for what, slope in slopes.items():
        if not SLOPES[0] <= slope <= SLOPES[1]:
            yield f"{where}.{what}: a slope of {slope:g}; must be from {SLOPES[0]:g} to {SLOPES[1]:g}"
    derivable = [name for name, quantity in QUANTITIES.items() if quantity.derived and name != "PressureSeaLevel"]
    for field in sensor.derive:
        if field not in derivable:
            hint = "; set altitude for it" if field == "PressureSeaLevel" else nearest(field, derivable)
            yield f"{where}.derive: {field!r} is nothing that can be derived{hint}"


def missing_files(settings: s.Settings) -> Iterator[str]:
    """Files that are named and not there. The agent waits for them: they may come with a mount or another package."""
    for name, section in (("center", settings.center), ("influxdb", settings.influxdb), ("mqtt", settings.mqtt)):
        for key in ("token_file", "password_file", "ca_file", "client_cert", "client_key"):
            file = getattr(section, key, None)
            try:
                if file and not is_there(Path(file)):
                    yield f"{name}.{key} = {file!r}: there is no such file (yet)"
            except OSError as error:  # its folder may not be searched
                yield f"{name}.{key} = {file!r}: cannot be looked at ({error.strerror})"
