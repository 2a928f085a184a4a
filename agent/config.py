"""agent.toml → frozen settings. Every problem is found at once and named with its key, its value and what is right."""

from __future__ import annotations

import os
import tomllib
from dataclasses import fields, is_dataclass, replace
from difflib import get_close_matches
from pathlib import Path
from typing import TYPE_CHECKING, Any, Literal, get_origin

from cattrs import Converter
from cattrs.errors import ClassValidationError, ForbiddenExtraKeysError, IterableValidationError, IterableValidationNote
from cattrs.gen import make_dict_structure_fn, override

from agent import settings as s
from agent.errors import ConfigError
from agent.identity import check_id
from agent.secret import TOKEN, Secret
from agent.target import check_url
from agent.units import Bytes, Seconds, parse_duration, parse_size
from drivers.base import QUANTITIES, OptionError, options_for
from drivers.base import load as load_driver

if TYPE_CHECKING:
    from collections.abc import Callable, Iterator, Mapping

DEVICE_ID_RULE = "1 to 64 of A-Z a-z 0-9 . _ -, and not . or .."
_DAY = 86_400
MAX_FILE = 1_000_000
"""Bytes: more is no configuration."""
# Limits, in the unit of the setting. What lies outside has no sensible meaning, or would break a promise.
LIMITS: Mapping[str, tuple[float, float, str]] = {
    "device.location.lat": (-90, 90, "degrees from -90 to 90"),
    "device.location.lon": (-180, 180, "degrees from -180 to 180"),
    "sensor.interval": (0.05, 7 * _DAY, 'from "50ms" to "7d"'),
    "sensor.sample_every": (0.05, _DAY, 'from "50ms" to "1d"'),
    "sensor.heartbeat": (1, 7 * _DAY, 'from "1s" to "7d"'),
    "sensor.stuck_after": (0, 1_000_000, "0 (never) to 1000000 readings"),
    "center.timeout": (0.1, 300, 'from "100ms" to "5m"'),
    "buffer.loss_window": (0, 3600, 'from "0s" to "1h"'),
    "buffer.max_size": (1_000_000, 10**12, 'from "1MB" to "1000GB"'),
    "buffer.max_age": (60, 3660 * _DAY, 'from "1m" to "3660d"'),
    "buffer.max_rejected": (0, 10**10, 'from "0MB" to "10GB"'),
    "buffer.memory_points": (100, 10_000_000, "100 to 10000000 points"),
    "delivery.flush_interval": (0.05, 3600, 'from "50ms" to "1h"'),
    "delivery.batch_size": (1, 50_000, "1 to 50000 points"),
    "delivery.backlog_rate": (0, 10_000_000, "points per second, 0 for full speed"),
    "delivery.timeout": (0.1, 300, 'from "100ms" to "5m"'),
    "status.unhealthy_after": (1, 30 * _DAY, 'from "1s" to "30d"'),
    "health.interval": (1, _DAY, 'from "1s" to "1d"'),
}


def load(path: Path, environ: Mapping[str, str] = os.environ) -> s.Settings:
    """Read and check a configuration without touching hardware or network.

    IOT_CENTER_URL and IOT_DEVICE_ID in `environ` override the file. Raises ConfigError with one line a problem.
    """
    try:
        with path.open("rb") as file:
            mode = os.fstat(file.fileno()).st_mode
            text = file.read(MAX_FILE + 1)
    except OSError as error:
        hint = (
            "copy agent.toml.example to it or to ./agent.toml, and change it"
            if isinstance(error, FileNotFoundError)
            else "check its rights"
        )
        raise ConfigError(f"{path}: cannot be read ({error.strerror}): {hint}, or name another by --config") from error
    if len(text) > MAX_FILE:
        raise ConfigError(f"{path}: larger than {MAX_FILE} bytes: is it a configuration? Name another by --config")
    try:
        data = tomllib.loads(text.decode("utf-8-sig"))  # Windows' Notepad begins a file with a byte order mark
    except ValueError as error:  # TOMLDecodeError, UnicodeDecodeError, and a number of thousands of digits
        hint = ": texts stand in quotes" if "Invalid value" in str(error) else ""
        raise ConfigError(f"{path}: not valid TOML: {error}{hint}") from error
    except RecursionError as error:
        raise ConfigError(f"{path}: not valid TOML: brackets within brackets without end") from error
    readable = bool(mode & 0o004)  # its group may be the agent's: root:iot-agent 0640
    settings = parse(data, str(path), environ, readable_by_others=readable)
    return replace(settings, warnings=(*settings.warnings, *_missing_files(settings)))


def parse(
    data: dict[str, Any], name: str, environ: Mapping[str, str], *, readable_by_others: bool = False
) -> s.Settings:
    """Settings from the tables of a TOML file. Raises ConfigError."""
    data = _overridden(data, environ)
    try:
        settings = _CONVERTER.structure(data, s.Settings)
    except (ClassValidationError, IterableValidationError) as error:
        raise ConfigError("\n".join(f"{name}: {line}" for line in _problems(error, ()))) from None
    lines = [*_out_of_limits(settings), *_contradictions(settings)]
    if lines:
        raise ConfigError("\n".join(f"{name}: {line}" for line in lines))
    warnings = []
    if readable_by_others and settings.influxdb and settings.influxdb.token:
        warnings.append(f"{name} holds a token and others can read it: chmod 600 {name}, or use token_file")
    return replace(settings, warnings=tuple(warnings), named=frozenset(_named(data)))


def _missing_files(settings: s.Settings) -> Iterator[str]:
    """Files that are named and not there. The agent waits for them: they may come with a mount or another package."""
    for name, section in (("center", settings.center), ("influxdb", settings.influxdb)):
        for key in ("token_file", "ca_file"):
            file = getattr(section, key, None)
            if file and not Path(file).exists():
                yield f"{name}.{key} = {file!r}: there is no such file (yet)"


def _named(data: Mapping[str, Any]) -> Iterator[str]:
    for section, table in data.items():
        for index, row in enumerate(table if isinstance(table, list) else [table]):
            where = f"{section}[{index}]" if isinstance(table, list) else section
            yield from (f"{where}.{key}" for key in row)


def _overridden(data: dict[str, Any], environ: Mapping[str, str]) -> dict[str, Any]:
    data = dict(data)
    for variable, section, key in (("IOT_CENTER_URL", "center", "url"), ("IOT_DEVICE_ID", "device", "id")):
        table = data.get(section, {})
        if environ.get(variable) and isinstance(table, dict):
            data[section] = {**table, key: environ[variable]}
    return data


def _wrong(check: Callable[[str], str], text: str) -> str | None:
    """What a check has against a text, or None."""
    try:
        check(text)
    except ValueError as error:
        return str(error)
    return None


def _out_of_limits(settings: s.Settings) -> Iterator[str]:
    for path, key, value in _walk(settings, ""):
        limits = LIMITS.get(key)
        if limits and not limits[0] <= value <= limits[1]:
            yield f"{path} = {value:g}: must be {limits[2]}"


def _walk(record: Any, prefix: str) -> Iterator[tuple[str, str, float]]:
    """(path with indexes, key without) of every number in the settings."""
    for attribute in fields(record):
        value = getattr(record, attribute.name)
        path = f"{prefix}{attribute.name}"
        if is_dataclass(value):
            yield from _walk(value, f"{path}.")
        elif attribute.name == "sensor":
            for index, sensor in enumerate(value):
                for sub, key, number in _walk(sensor, "sensor."):
                    yield sub.replace("sensor.", f"sensor[{index}].", 1), key, number
        elif isinstance(value, int | float) and not isinstance(value, bool):
            yield path, path, value


def _contradictions(settings: s.Settings) -> Iterator[str]:
    if settings.center and settings.influxdb:
        yield "[center] and [influxdb] are both there: keep [center] to register with an IoT Center, or [influxdb]"
    if not settings.center and not settings.influxdb:
        yield "neither [center] nor [influxdb] is there: points need a place to go; add [center] with its url"
    if settings.device.id is not None and _wrong(check_id, settings.device.id):
        yield f"device.id = {settings.device.id!r}: must be {DEVICE_ID_RULE}"
    for name, section in (("center", settings.center), ("influxdb", settings.influxdb)):
        if section and (wrong := _wrong(check_url, section.url)):
            yield f"{name}.url: {wrong}"
        elif section and section.require_tls and not section.url.startswith("https:"):
            yield f"{name}.url = {section.url!r}: must begin with https:// because {name}.require_tls is true"
    if settings.center and settings.center.influx_url and (wrong := _wrong(check_url, settings.center.influx_url)):
        yield f"center.influx_url: {wrong}"
    if (influx := settings.influxdb) and influx.token and influx.token_file:
        yield "influxdb.token and influxdb.token_file are both there: keep one"
    if settings.status.listen:
        host, _, port = settings.status.listen.rpartition(":")
        if not host or not port.isdecimal() or not 0 <= int(port) <= 65535:
            yield f'status.listen = {settings.status.listen!r}: must be "address:port" like "127.0.0.1:9528", or ""'
        elif host not in {"127.0.0.1", "localhost", "[::1]"} and not settings.status.public:
            yield f"status.listen = {settings.status.listen!r}: set status.public = true to show it beyond this machine"
    yield from _sensor_contradictions(settings.sensor)


def _sensor_contradictions(sensors: tuple[s.SensorSettings, ...]) -> Iterator[str]:
    if not sensors:
        yield "sensor = []: at least one [[sensor]] is needed"
    names: set[str] = set()
    for index, sensor in enumerate(sensors):
        where = f"sensor[{index}]"
        if len(sensors) > 1 and not sensor.name:
            yield f'{where}: with several sensors each needs a name, like name = "bench"'
        if sensor.name is not None:
            if _wrong(check_id, sensor.name):
                yield f"{where}.name = {sensor.name!r}: must be {DEVICE_ID_RULE}"
            if sensor.name in names:
                yield f"{where}.name = {sensor.name!r}: another sensor has this name"
            names.add(sensor.name)
        if sensor.sample_every and sensor.sample_every > sensor.interval:
            yield f"{where}.sample_every = {sensor.sample_every:g} s: must be at most the interval"
        for table in ("deadband", "max_rate"):
            for field, value in getattr(sensor, table).items():
                if field not in QUANTITIES:
                    yield f"{where}.{table}.{field}: no such quantity{_nearest(field, QUANTITIES)}"
                elif not value > 0:
                    yield f"{where}.{table}.{field} = {value:g}: must be above 0"
        try:
            options_for(load_driver(sensor.driver), sensor.options)
        except OptionError as error:
            ours = get_close_matches(error.key or "", [f.name for f in fields(s.SensorSettings)], 1, 0.8)
            hint = f"; did you mean {ours[0]}?" if ours and ours[0] != "options" else ""
            yield f"{where}: {error}{hint}"


def _nearest(key: str, known: Mapping[str, Any] | list[str]) -> str:
    near = get_close_matches(key, list(known), 1, 0.5)
    return f"; did you mean {near[0]}?" if near else f"; known are {', '.join(known)}"


def _problems(error: Exception, path: tuple[str, ...]) -> Iterator[str]:
    """The lines of a cattrs error group, depth first."""
    if isinstance(error, ClassValidationError | IterableValidationError):
        known, rest = error.group_exceptions()
        for sub, note in known:
            step = f"[{note.index}]" if isinstance(note, IterableValidationNote) else str(note.name)
            yield from _problems(sub, (*path, step))
        for sub in rest:
            yield from _problems(sub, path)
    elif isinstance(error, ForbiddenExtraKeysError):
        for key in sorted(error.extra_fields):
            names = [f.name for f in fields(error.cl) if f.name not in {"warnings", "named", "options"}]
            kind = "section" if error.cl is s.Settings else "key"
            yield f"{_dotted((*path, key))}: no such {kind}{_nearest(key, names)}"
    elif isinstance(error, KeyError):
        yield f"{_dotted(path)}: missing; it has no default"
    else:
        yield f"{_dotted(path)} = {error}"


def _dotted(path: tuple[str, ...]) -> str:
    return ".".join(path).replace(".[", "[")


def _strict(kind: type, what: str) -> Callable[[Any, Any], Any]:
    def structure(value: Any, _: Any) -> Any:
        right = isinstance(value, kind) and not (kind is not bool and isinstance(value, bool))
        if not right:
            raise ValueError(f"{value!r}: must be {what}")
        return value

    return structure


def _float(value: Any, _: Any) -> float:
    if isinstance(value, bool) or not isinstance(value, int | float):
        raise ValueError(f"{value!r}: must be a number")  # noqa: TRY004 - one kind of error for all values
    return float(value)


def _with_unit(parse_unit: Callable[[object], Any]) -> Callable[[Any, Any], Any]:
    def structure(value: Any, _: Any) -> Any:
        try:
            return parse_unit(value)
        except ValueError as error:
            raise ValueError(f"{value!r}: must be {error}") from None

    return structure


def _choice(value: Any, literal: Any) -> Any:
    if value not in literal.__args__:
        raise ValueError(f"{value!r}: must be one of {', '.join(repr(a) for a in literal.__args__)}")
    return value


def _secret(value: Any, _: Any) -> Secret:
    if not isinstance(value, str) or not value.strip():
        raise ValueError("***: must be a token in quotes")
    if not TOKEN.fullmatch(value.strip()):
        raise ValueError("***: must be a token: printable ASCII without spaces")
    return Secret(value.strip())


def _sensor(value: Any, _: Any) -> s.SensorSettings:
    """A [[sensor]]: what is no key of ours is an option of its driver, which checks it."""
    if not isinstance(value, dict):
        raise ValueError(f"{value!r}: must be a table, written [[sensor]]")  # noqa: TRY004
    ours = {f.name for f in fields(s.SensorSettings)} - {"options"}
    table = {key: value[key] for key in value if key in ours}
    table["options"] = {key: value[key] for key in value if key not in ours}
    sensor: s.SensorSettings = _STRUCTURE_SENSOR(table, s.SensorSettings)
    return sensor


def _record(cls: type) -> Callable[[Any, Any], Any]:
    """A section: a table, whose keys are the attributes of `cls`."""
    ours: dict[str, Any] = {"warnings": override(omit=True), "named": override(omit=True)} if cls is s.Settings else {}
    inner: Callable[[Any, Any], Any] = make_dict_structure_fn(cls, _CONVERTER, **ours)

    def structure(value: Any, _: Any) -> Any:
        if not isinstance(value, dict):
            raise ValueError(f"{value!r}: must be a table")  # noqa: TRY004
        return inner(value, cls)

    return structure


def _tables(value: Any, _: Any) -> tuple[s.SensorSettings, ...]:
    if not isinstance(value, list):
        raise ValueError("…: must be written [[sensor]], with two brackets")  # noqa: TRY004
    result: tuple[s.SensorSettings, ...] = tuple(_CONVERTER.structure(value, list[s.SensorSettings]))
    return result


def _is_literal(kind: Any) -> bool:
    origin: Any = get_origin(kind)
    return origin is Literal


_CONVERTER = Converter(forbid_extra_keys=True, detailed_validation=True)
_CONVERTER.register_structure_hook(str, _strict(str, "text in quotes"))
_CONVERTER.register_structure_hook(int, _strict(int, "a whole number"))
_CONVERTER.register_structure_hook(bool, _strict(bool, "true or false"))
_CONVERTER.register_structure_hook(float, _float)
_CONVERTER.register_structure_hook(Seconds, _with_unit(parse_duration))
_CONVERTER.register_structure_hook(Bytes, _with_unit(parse_size))
_CONVERTER.register_structure_hook(Secret, _secret)
_CONVERTER.register_structure_hook_func(_is_literal, _choice)
_CONVERTER.register_structure_hook_factory(is_dataclass, _record)
_STRUCTURE_SENSOR = make_dict_structure_fn(s.SensorSettings, _CONVERTER)
_CONVERTER.register_structure_hook(s.SensorSettings, _sensor)
_CONVERTER.register_structure_hook_func(lambda t: t == tuple[s.SensorSettings, ...], _tables)
