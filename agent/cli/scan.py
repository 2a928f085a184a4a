"""The command `scan`: which sensors answer, and the [[sensor]] tables for them, also put into agent.toml."""

from __future__ import annotations

import json
import os
import re
import tomllib
from collections.abc import Iterable, Iterator, Mapping, Sequence
from dataclasses import asdict, fields
from pathlib import Path
from typing import TYPE_CHECKING, Any

import click

from agent.cli.options import Context, common_options
from agent.util.atomic import write_atomic
from agent.util.errors import AgentError
from agent.util.text import read_text

if TYPE_CHECKING:
    from drivers.scan import Bus, Sensor

_HEADER = re.compile(r"(?m)^[ \t]*\[\[[ \t]*sensor[ \t]*\]\][^\n]*$")


@click.command("scan")
@click.option("--json", "as_json", is_flag=True, help="One JSON object a bus.")
@click.option("--write", is_flag=True, help="Put what is not in agent.toml yet into it, after asking.")
@common_options
def scan(context: Context, as_json: bool, write: bool) -> None:
    """List the sensors that answer, and print the [[sensor]] tables for them."""
    from drivers.scan import known, one_wire, to_install  # noqa: PLC0415 - Blinka

    wired = one_wire()
    found = _buses(lenient=bool(wired))
    if as_json:
        for bus in found:
            click.echo(json.dumps(asdict(bus)))
        for sensor in wired:
            click.echo(json.dumps({"one_wire": sensor.id, "driver": sensor.driver}))
        return
    for bus in found:
        click.echo(bus.text())
    if wired:
        click.echo("one-wire")
    for sensor in wired:
        click.echo(f"  {sensor.id}  DS18B20")
    text = _text_of(context.config) if write or context.config.is_file() else ""
    new = [*new_sensors([*known(found), *wired], _tables(text))]
    if not new:
        return
    changed, tables = with_sensors(text, new)
    click.echo("\nNot in agent.toml yet:\n\n" + "\n".join(tables), nl=False)
    if extras := to_install(new):
        click.echo(f"\nTheir libraries: pip install 'iot-edge-agent[{','.join(extras)}]'")
    if write:
        _write(context.config, changed)


def _buses(*, lenient: bool) -> Sequence[Bus]:
    """What is on I2C; with `lenient` it is enough to say that there is none."""
    from drivers.base import SensorError  # noqa: PLC0415 - with the drivers
    from drivers.scan import scan_buses  # noqa: PLC0415 - Blinka

    try:
        return scan_buses()
    except SensorError as error:
        if not lenient:
            raise AgentError(str(error)) from error
        click.echo(f"{error}", err=True)
        return []


def new_sensors(found: Iterable[Sensor], tables: Sequence[Mapping[str, Any]]) -> Iterator[Sensor]:
    """Those that no [[sensor]] table reads, neither by its place nor by a driver that looks for its place itself."""
    looking = [_reads(table) for table in tables if _place(table) is None]
    places = {_place(table) for table in tables}
    for sensor in found:
        if (sensor.bus, sensor.address, sensor.id) in places:
            continue
        if sensor.driver in looking:
            looking.remove(sensor.driver)
            continue
        yield sensor


def _reads(table: Mapping[str, Any]) -> str:
    """The driver that `scan` would name for it."""
    driver = str(table.get("driver", "bme280")).lower()
    return "bmp280" if driver == "bme280" and table.get("humidity") is False else driver


def _place(table: Mapping[str, Any]) -> tuple[int | None, int | None, str | None] | None:
    """Bus, address and id, or None for a sensor that is looked for."""
    if _reads(table) == "ds18b20":
        name = str(table.get("id", "*"))
        return None if "*" in name else (None, None, name)
    address = _number(table.get("address", "auto"))
    return None if address is None else (_number(table.get("bus", 1)), address, None)


def _number(value: Any) -> int | None:
    """A number, also one that is written as text. What is none is the business of `check`."""
    try:
        return int(value, 0) if isinstance(value, str) else int(value)
    except (TypeError, ValueError):
        return None


def with_sensors(text: str, new: Sequence[Sensor]) -> tuple[str, list[str]]:
    """agent.toml with these sensors at its end, and their tables.

    One that has no name yet gets that of its driver where another measures the same: only then, since its points have
    another tag from then on.
    """
    tables = _tables(text)
    measured = [_measured(table) for table in (*tables, *({"driver": sensor.driver} for sensor in new))]
    taken, names = {str(table["name"]) for table in tables if "name" in table}, []
    for number, table in enumerate(tables):
        others = measured[:number] + measured[number + 1 :]
        alone = "name" in table or all(measured[number].isdisjoint(other) for other in others)
        driver = str(table.get("driver", "bme280"))
        names.append(None if alone else _free(driver, taken))
        taken.add(driver)  # what one without a name is called elsewhere
    unnamed = iter(names)

    def named(header: re.Match[str]) -> str:
        name = next(unnamed, None)
        return header[0] if name is None else f'{header[0]}\nname = "{name}"'

    if tables:
        text = _HEADER.sub(named, text)
    added = [sensor.table(_free(sensor.driver, taken)) for sensor in new]
    return text.rstrip("\n") + "\n\n" + "\n".join(added) if text else "\n".join(added), added


def _measured(table: Mapping[str, Any]) -> set[str]:
    """What a sensor may measure: anything, where the table is not right, which is the business of `check`."""
    from agent.config.settings import SensorSettings  # noqa: PLC0415 - with the drivers
    from drivers.base import QUANTITIES, OptionError, load, options_for  # noqa: PLC0415

    ours = {field.name for field in fields(SensorSettings)}
    try:
        driver = load(str(table.get("driver", "bme280")))
        return set(driver.quantities(options_for(driver, {k: v for k, v in table.items() if k not in ours})))
    except OptionError:
        return set(QUANTITIES)


def _free(driver: str, taken: set[str]) -> str:
    """A name that no sensor has yet: sht4x, sht4x-2."""
    name = next(n for n in (driver, *(f"{driver}-{i}" for i in range(2, 1000))) if n not in taken)
    taken.add(name)
    return name


def _text_of(config: Path) -> str:
    try:
        return read_text(config).replace("\r\n", "\n")
    except ValueError as error:
        raise AgentError(f"{config} cannot be read ({error}): iot-agent init makes one, or name another") from error


def _tables(text: str) -> list[dict[str, Any]]:
    """The [[sensor]] tables. What is wrong with a file is the business of `check`."""
    try:
        tables = tomllib.loads(text).get("sensor", [])
    except tomllib.TOMLDecodeError as error:
        raise AgentError(f"agent.toml is not valid TOML: {error}: see `iot-agent check`") from error
    return [table for table in tables if isinstance(table, dict)] if isinstance(tables, list) else []


def _write(config: Path, text: str) -> None:
    """Ask, check the whole, and put it in the file's place with its rights and owner. Raises AgentError."""
    from agent.config.parse import parse_settings  # noqa: PLC0415 - cattrs

    if not click.confirm(f"\nWrite this into {config}?"):
        return
    try:
        tables = tomllib.loads(text)
    except tomllib.TOMLDecodeError as error:
        raise AgentError(
            f"the sensors of {config} are not written as [[sensor]] tables, and cannot be added to ({error}): write "
            "them so, or paste what is above"
        ) from error
    parse_settings(tables, str(config), os.environ)
    try:
        file = config.resolve()  # a link stays one
        before = file.stat()
        if b"\r\n" in file.read_bytes():
            text = text.replace("\n", "\r\n")
        write_atomic(file, text.encode(), before.st_mode & 0o7777, (before.st_uid, before.st_gid))
    except OSError as error:
        raise AgentError(f"{config} cannot be written ({error.strerror}): try it with sudo") from error
    click.echo(f"{config} is written. A running agent takes it by `iot-agent reload`")
