"""agent.toml → frozen settings. Every problem is found at once and named with its key, its value and what is right."""

from __future__ import annotations

import os
import re
import tomllib
from collections.abc import Iterator, Mapping
from copy import deepcopy
from dataclasses import fields, replace
from importlib.util import find_spec
from pathlib import Path
from typing import Any, TypeVar

from cattrs.gen import make_dict_structure_fn

from agent.config import settings as s
from agent.config.limits import NO_PAHO, check_url, contradictions, out_of_limits, sensor_problems
from agent.config.records import VALIDATION, converter, problems
from agent.util.errors import ConfigError, short
from agent.util.secret import TOKEN, Secret
from agent.util.text import decoded

_Section = TypeVar("_Section", s.CenterSettings | None, s.InfluxSettings | None)
_NAMED = re.compile(r"(?P<section>\w+)(?:\[(?P<index>\d+)\])?(?:\.(?P<key>\w+)|: (?:no )?option '(?P<option>\w+))?")
_TABLE = re.compile(r"\s*\[\[?\s*([\w.]+)\s*\]")
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
            "iot-agent init makes one, iot-agent config prints one to change"
            if isinstance(error, FileNotFoundError)
            else "check its rights"
        )
        raise ConfigError(f"{path}: cannot be read ({error.strerror}): {hint}, or name another by --config") from error
    if len(text) > MAX_FILE:
        raise ConfigError(f"{path}: larger than {MAX_FILE} bytes: is it a configuration? Name another by --config")
    try:
        written = decoded(text)
    except ValueError as error:
        raise ConfigError(f"{path}: {error}") from error
    try:
        data = tomllib.loads(written)
    except ValueError as error:  # TOMLDecodeError, and a number of thousands of digits
        hint = ": texts stand in quotes" if "Invalid value" in str(error) else ""
        raise ConfigError(f"{path}: not valid TOML: {error}{hint}") from error
    except RecursionError as error:
        raise ConfigError(f"{path}: not valid TOML: brackets within brackets without end") from error
    readable = bool(mode & 0o004)  # its group may be the agent's: root:iot-agent 0640
    return parse_settings(data, str(path), environ, readable_by_others=readable, text=written)


def parse_settings(
    data: dict[str, Any], name: str, environ: Mapping[str, str], *, readable_by_others: bool = False, text: str = ""
) -> s.Settings:
    """Settings from the tables of a TOML file, whose `text` tells where what is wrong stands. Raises ConfigError."""
    data = _overridden(data, environ)
    try:
        settings = _CONVERTER.structure(data, s.Settings)
    except VALIDATION as error:
        found = list(problems(error))
        lines = [*found, *_besides(data, found)]
        raise ConfigError("\n".join(_placed(line, name, text, data) for line in lines)) from None
    lines = [*out_of_limits(settings), *contradictions(settings)]
    if lines:
        raise ConfigError("\n".join(_placed(line, name, text, data) for line in lines))
    warnings = []
    if readable_by_others and settings.influxdb and settings.influxdb.token:
        warnings.append(f"{name} holds a token and others can read it: chmod 600 {name}, or use token_file")
    if settings.mqtt and find_spec("paho") is None:
        warnings.append(f"[mqtt] publishes nothing: {NO_PAHO}")
    return replace(
        settings,
        center=_without_slash(settings.center),
        influxdb=_without_slash(settings.influxdb),
        warnings=tuple(warnings),
        named=frozenset(_named(data)),
    )


def _besides(data: dict[str, Any], found: list[str]) -> Iterator[str]:
    """What else is wrong, in the values and tables that have none of the problems which were found."""
    data, touched, driverless = deepcopy(data), set(), set()
    for name in filter(None, map(_NAMED.match, found)):
        touched.add(name["section"])
        if name["key"] == "driver":
            driverless.add(name["index"])
        table = data.get(name["section"])
        if name["index"] and isinstance(table, list):
            table = table[int(name["index"])]
        if name["key"] and isinstance(table, dict):
            table.pop(name["key"], None)
        else:
            data.pop(name["section"], None)
    try:
        settings = _CONVERTER.structure(data, s.Settings)
    except VALIDATION:  # something is missing
        return
    yield from out_of_limits(settings)
    for line in contradictions(settings):
        where = _NAMED.match(line)
        whole = where and where["section"] in data.keys() - touched
        if whole or (where and where["option"] and where["index"] not in driverless):
            yield line


def _placed(problem: str, name: str, text: str, data: Mapping[str, Any]) -> str:
    """A problem with its file and line; a sensor by its number, from 1, and its name."""
    found = _NAMED.match(problem)
    if found is None:
        return f"{name}: {problem}"
    section, index, key = found["section"], int(found["index"] or 0), found["key"] or found["option"]
    if (line := _line_of(text, section, index, key)) is not None:
        name = f"{name}:{line}"
    if found["index"] is None:
        return f"{name}: {problem}"
    table = data["sensor"][index] if isinstance(data.get("sensor"), list) else {}
    called = f" ({short(table['name'])})" if isinstance(table, dict) and isinstance(table.get("name"), str) else ""
    return f"{name}: [[sensor]] {index + 1}{called}: {problem[found.end('index') + 1 :].lstrip('.: ')}"


def _line_of(text: str, section: str, index: int, key: str | None) -> int | None:
    """The line of a key in the table of this name, the one with this index; that of the table where the key is not."""
    header: int | None = None
    for number, line in enumerate(text.splitlines(), 1):
        if table := _TABLE.match(line):
            if header is not None and table[1] == f"{section}.{key}":
                return number
            if header is not None and not table[1].startswith(f"{section}."):
                break
            if table[1] == section:
                index -= 1
                header = number if index < 0 else None
        elif header is not None and key and re.match(rf"\s*{re.escape(key)}\s*[.=]", line):
            return number
    return header


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
    except VALIDATION as error:
        raise ConfigError("; ".join(problems(error))) from None
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


def _tables(value: Any, _: Any) -> tuple[s.SensorSettings, ...]:
    if not isinstance(value, list):
        raise ValueError("…: must be written [[sensor]], with two brackets")  # noqa: TRY004
    result: tuple[s.SensorSettings, ...] = tuple(_CONVERTER.structure(value, list[s.SensorSettings]))
    return result


def _points(value: Any, _: Any) -> tuple[tuple[float, float], tuple[float, float]]:
    """The two points of a calibration."""
    numbers = value if isinstance(value, list) else []
    pairs = [tuple(pair) for pair in numbers if isinstance(pair, list) and all(type(n) in (int, float) for n in pair)]
    if len(numbers) != 2 or [len(pair) for pair in pairs] != [2, 2]:
        raise ValueError(f"{value!r}: must be [[measured, true], [measured, true]]")
    (raw, true), (other_raw, other_true) = pairs
    return (float(raw), float(true)), (float(other_raw), float(other_true))


_CONVERTER = converter()
_CONVERTER.register_structure_hook(Secret, _secret)
_CONVERTER.register_structure_hook_func(lambda t: t == tuple[tuple[float, float], tuple[float, float]], _points)
_STRUCTURE_SENSOR = make_dict_structure_fn(s.SensorSettings, _CONVERTER)
_CONVERTER.register_structure_hook(s.SensorSettings, _sensor)
_CONVERTER.register_structure_hook_func(lambda t: t == tuple[s.SensorSettings, ...], _tables)
