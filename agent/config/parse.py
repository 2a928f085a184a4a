"""agent.toml → frozen settings. Every problem is found at once and named with its key, its value and what is right."""

from __future__ import annotations

import os
import tomllib
from collections.abc import Callable, Iterator, Mapping
from dataclasses import fields, is_dataclass, replace
from pathlib import Path
from typing import Any, Literal, TypeVar, get_origin

from cattrs import Converter
from cattrs.errors import ClassValidationError, ForbiddenExtraKeysError, IterableValidationError, IterableValidationNote
from cattrs.gen import make_dict_structure_fn, override

from agent.config import settings as s
from agent.config.limits import check_url, contradictions, nearest, out_of_limits, sensor_problems
from agent.config.units import Bytes, Seconds, parse_duration, parse_size
from agent.util.errors import ConfigError
from agent.util.secret import TOKEN, Secret

_Section = TypeVar("_Section", s.CenterSettings | None, s.InfluxSettings | None)
MAX_FILE = 1_000_000
"""Bytes: more is no configuration."""


def load_settings(path: Path, environ: Mapping[str, str] = os.environ) -> s.Settings:
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
    return parse_settings(data, str(path), environ, readable_by_others=readable)


def parse_settings(
    data: dict[str, Any], name: str, environ: Mapping[str, str], *, readable_by_others: bool = False
) -> s.Settings:
    """Settings from the tables of a TOML file. Raises ConfigError."""
    data = _overridden(data, environ)
    try:
        settings = _CONVERTER.structure(data, s.Settings)
    except (ClassValidationError, IterableValidationError) as error:
        raise ConfigError("\n".join(f"{name}: {line}" for line in _problems(error, ()))) from None
    lines = [*out_of_limits(settings), *contradictions(settings)]
    if lines:
        raise ConfigError("\n".join(f"{name}: {line}" for line in lines))
    warnings = []
    if readable_by_others and settings.influxdb and settings.influxdb.token:
        warnings.append(f"{name} holds a token and others can read it: chmod 600 {name}, or use token_file")
    return replace(
        settings,
        center=_without_slash(settings.center),
        influxdb=_without_slash(settings.influxdb),
        warnings=tuple(warnings),
        named=frozenset(_named(data)),
    )


def sensor_of_texts(table: Mapping[str, str]) -> s.SensorSettings:
    """A [[sensor]] from the texts of a command line; tables by dotted keys. Raises ConfigError.

    A key of ours is read as TOML has it, or else as a text; the driver's are left to the driver.
    """
    ours = {f.name for f in fields(s.SensorSettings)} - {"options"}
    data: dict[str, Any] = {}
    for key, text in table.items():
        head, dot, inner = key.partition(".")
        if head not in ours:
            data[key] = text
            continue
        try:
            value = tomllib.loads(f"value = {text}")["value"]
        except ValueError:
            value = text.split(",") if head == "derive" else text
        if not dot:
            data[key] = value
        elif isinstance(part := data.setdefault(head, {}), dict):
            part[inner] = value
    try:
        sensor = _CONVERTER.structure(data, s.SensorSettings)
    except (ClassValidationError, IterableValidationError) as error:
        raise ConfigError("; ".join(_problems(error, ()))) from None
    lines = list(sensor_problems(sensor))
    if lines:
        raise ConfigError("; ".join(lines))
    return sensor


def _without_slash(section: _Section) -> _Section:
    """Its URL as everybody takes it: paths are put behind it, and the credentials say whose they are by it."""
    return section and replace(section, url=check_url(section.url))


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
            yield f"{_dotted((*path, key))}: no such {kind}{nearest(key, names)}"
    elif isinstance(error, KeyError):
        yield f"{_dotted(path)}: missing; it has no default"
    else:
        yield f"{_dotted(path)} = {error}"


def _dotted(path: tuple[str, ...]) -> str:
    return ".".join(path).replace(".[", "[")


def _strict(into: Callable[[Any], Any], what: str, *kinds: type) -> Callable[[Any, Any], Any]:
    """TOML's true and false are no numbers, though Python's are."""

    def structure(value: Any, _: Any) -> Any:
        if type(value) not in kinds:
            raise ValueError(f"{value!r}: must be {what}")
        return into(value)

    return structure


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


def _texts(value: Any, _: Any) -> tuple[str, ...]:
    if not isinstance(value, list) or not all(isinstance(text, str) for text in value):
        raise ValueError(f'{value!r}: must be a list of texts, like ["DewPoint"]')
    return tuple(value)


def _points(value: Any, _: Any) -> tuple[tuple[float, float], tuple[float, float]]:
    """The two points of a calibration."""
    numbers = value if isinstance(value, list) else []
    pairs = [tuple(pair) for pair in numbers if isinstance(pair, list) and all(type(n) in (int, float) for n in pair)]
    if len(numbers) != 2 or [len(pair) for pair in pairs] != [2, 2]:
        raise ValueError(f"{value!r}: must be [[measured, true], [measured, true]]")
    (raw, true), (other_raw, other_true) = pairs
    return (float(raw), float(true)), (float(other_raw), float(other_true))


def _is_literal(kind: Any) -> bool:
    origin: Any = get_origin(kind)
    return origin is Literal


_CONVERTER = Converter(forbid_extra_keys=True, detailed_validation=True)
_CONVERTER.register_structure_hook(str, _strict(str, "text in quotes", str))
_CONVERTER.register_structure_hook(int, _strict(int, "a whole number", int))
_CONVERTER.register_structure_hook(bool, _strict(bool, "true or false", bool))
_CONVERTER.register_structure_hook(float, _strict(float, "a number", int, float))
_CONVERTER.register_structure_hook(Seconds, _with_unit(parse_duration))
_CONVERTER.register_structure_hook(Bytes, _with_unit(parse_size))
_CONVERTER.register_structure_hook(Secret, _secret)
_CONVERTER.register_structure_hook_func(_is_literal, _choice)
_CONVERTER.register_structure_hook_func(lambda t: t == tuple[str, ...], _texts)
_CONVERTER.register_structure_hook_func(lambda t: t == tuple[tuple[float, float], tuple[float, float]], _points)
_CONVERTER.register_structure_hook_factory(is_dataclass, _record)
_STRUCTURE_SENSOR = make_dict_structure_fn(s.SensorSettings, _CONVERTER)
_CONVERTER.register_structure_hook(s.SensorSettings, _sensor)
_CONVERTER.register_structure_hook_func(lambda t: t == tuple[s.SensorSettings, ...], _tables)
