"""`iot-agent init`: a few questions, and an agent.toml that is right."""

from __future__ import annotations

import contextlib
import json
import os
import sys
import tomllib
from collections.abc import Sequence
from dataclasses import dataclass
from http import HTTPStatus
from pathlib import Path
from typing import Any
from urllib.parse import urlsplit

import click

from agent.cli.options import SYSTEM_CONFIG, Context, Duration, common_options
from agent.config.units import format_duration
from agent.util import service
from agent.util.errors import AgentError
from agent.util.proxy import is_loopback
from agent.util.questions import Checked, ask, place
from agent.util.secret import TOKEN, UNFIT, Secret
from agent.util.text import read_text

HEAD = "# Made by iot-agent init. Every key, its default and what it is for: iot-agent config\n"
MAX_KEY = 65_536  # characters


@click.command()
@click.option("--center", metavar="URL", help="Send to this IoT Center, which gives a token.")
@click.option("--influxdb", metavar="URL", help="Send to this InfluxDB, with a token made by hand.")
@click.option("--org", help="Organization in InfluxDB.")
@click.option("--bucket", help="Bucket in InfluxDB.")
@click.option(
    "--key-file",
    type=click.Path(path_type=Path),
    help="Holds the center's enrollment key, or InfluxDB's token; - is standard input.",
)
@click.option("--sensor", "drivers", multiple=True, metavar="DRIVER", help="Like bme280, or virtual; several times.")
@click.option("--interval", type=Duration(), help="Between two points, like 10s. Default: as the center says.")
@click.option("--device-id", help="Default: derived from the board.")
@click.option("--force", is_flag=True, help="Replace a configuration that is there.")
@click.option("--no-start", is_flag=True, help="Leave the service as it is.")
@common_options
def init(_: Context, *, force: bool, no_start: bool, device_id: str | None, **given: Any) -> None:
    """Ask where to and what to measure, write agent.toml, check it and read the sensors once.

    Asked is only what no option says; without a terminal nothing is, and what is missing is named.
    """
    from agent.config.limits import missing_files  # noqa: PLC0415 - cattrs
    from agent.config.parse import parse_settings  # noqa: PLC0415 - cattrs

    config = click.get_current_context().params["config"] or place(SYSTEM_CONFIG)
    if config.exists() and not force:
        raise AgentError(f"{config} is there already: change it with an editor, or replace it by --force")
    if given["center"] and given["influxdb"]:
        raise click.UsageError("--center or --influxdb, not both")
    device = f"[device]\nid = {_quoted(device_id)}\n\n" if device_id else ""
    target = _target(config, given)
    tables = _sensors(given["drivers"])
    interval = given["interval"]
    if given["influxdb"] and not interval:
        interval = ask("--interval", "Measure every", "10s", Duration())
    every = f"interval = {_quoted(format_duration(interval))}\n" if interval else ""  # a file's wins over the center's
    sensors = "\n".join(f"{table}{every}" for table in tables)
    text = f"{HEAD}{device}{sensors}\n{target.text}"
    settings = parse_settings(tomllib.loads(text), str(config), {})
    if target.secret:
        service.write_private(target.file, f"{target.secret}\n", "iot-agent")
    service.write_private(config, text, "iot-agent")
    click.echo(f"{config} is written:\n\n{text}")
    for warning in (*settings.warnings, *missing_files(settings)):
        click.echo(f"warning: {warning}", err=True)
    _read_once(settings.sensor)
    _say_what_is_next(config, target, start=not no_start)


@dataclass(frozen=True, slots=True)
class Target:
    """A [center] or [influxdb] table, and the secret that belongs into the file it names."""

    text: str
    url: str
    file: Path
    secret: str = ""


def _quoted(text: str) -> str:
    """A TOML text. JSON's is one."""
    return json.dumps(text, ensure_ascii=False)


def _target(config: Path, given: dict[str, Any]) -> Target:
    from agent.config.limits import check_url  # noqa: PLC0415 - cattrs

    kind = "center" if given["center"] else "influxdb" if given["influxdb"] else ""
    if not kind:
        kinds = click.Choice(["center", "influxdb"])
        kind = ask("--center or --influxdb", "Send to", "center", kinds, guessed=True)
        default = "http://center.local:5000" if kind == "center" else "http://localhost:8086"
        given[kind] = ask(f"--{kind}", "Its address", default, Checked(check_url), guessed=True)
    url = given[kind]
    if kind == "center":
        file = config.absolute().with_name("enrollment.key")
        asks = given["key_file"] is not None or not _lists_for_everybody(url)
        secret = _secret(given["key_file"], "Enrollment key (Enter: it asks for none)" if asks else "", "")
        text = f"[center]\nurl = {_quoted(url)}\n"
        return Target(text + (f"enrollment_key_file = {_quoted(str(file))}\n" if secret else ""), url, file, secret)
    org = given["org"] or ask("--org", "Organization")
    bucket = given["bucket"] or ask("--bucket", "Bucket", "iot_center")
    file = config.absolute().with_name("influxdb.token")
    secret = _secret(given["key_file"], "Token that may write to it", None)
    text = f"[influxdb]\nurl = {_quoted(url)}\norg = {_quoted(org)}\nbucket = {_quoted(bucket)}\n"
    return Target(f"{text}token_file = {_quoted(str(file))}\n", url, file, secret)


def _lists_for_everybody(url: str) -> bool:
    """Whether a center on this machine needs no key: one that has a password lists its devices for administrators."""
    from agent.registration.answers import RegistrationError  # noqa: PLC0415 - requests
    from agent.registration.client import CenterClient  # noqa: PLC0415 - requests

    if not (sys.stdin.isatty() and is_loopback(urlsplit(url).hostname or "")):
        return False
    try:
        with contextlib.closing(CenterClient(url, Secret(""))) as center:
            return center.ask("GET", "/api/devices?limit=1").status == HTTPStatus.OK
    except RegistrationError:
        return False


def _secret(file: Path | None, prompt: str, default: str | None) -> str:
    """What is in the file or, unseen, typed: never an option, which other users could read in the process list."""
    piped = file == Path("-") and not sys.stdin.isatty()
    if file is None or (file == Path("-") and not piped):
        return str(ask("--key-file", prompt, default, Checked(_key), hidden=True)) if prompt else ""
    try:
        secret = (sys.stdin.read(MAX_KEY) if piped else read_text(file)).strip()
    except ValueError as error:
        raise AgentError(f"--key-file {file} cannot be read: {error}") from error
    if not secret:
        raise AgentError(f"--key-file {file} holds no key")
    if not TOKEN.fullmatch(secret):
        raise AgentError(f"--key-file {file} {UNFIT}")
    return secret


def _key(typed: str) -> str:
    """A key, or nothing. ValueError for what is none."""
    if typed and not TOKEN.fullmatch(typed):
        raise ValueError("one line of printable ASCII without spaces")
    return typed


def _sensors(drivers: Sequence[str]) -> list[str]:
    """[[sensor]] tables of the drivers that are named, or of what is found on this machine."""
    from drivers.base import SensorError, available  # noqa: PLC0415 - with the drivers
    from drivers.scan import known, one_wire, scan_buses  # noqa: PLC0415 - Blinka

    if not drivers:
        try:
            found = [*known(scan_buses()), *one_wire()]
        except SensorError as error:
            found = one_wire()
            if not found:
                click.echo(f"No sensor is found: {error}", err=True)
        if found:
            names = _names([sensor.driver for sensor in found])
            click.echo(f"Found: {', '.join(names)}", err=True)
            return [sensor.table(name) for sensor, name in zip(found, names, strict=True)]
        text = f"Sensor (one of {', '.join(available())}; virtual measures made-up weather, for trying things out)"
        drivers = [ask("--sensor", text, None, Checked(_driver))]
    if len(drivers) == 1:
        return [f"[[sensor]]\ndriver = {_quoted(drivers[0])}\n"]
    names = _names(drivers)
    return [
        f"[[sensor]]\nname = {_quoted(name)}\ndriver = {_quoted(driver)}\n"
        for name, driver in zip(names, drivers, strict=True)
    ]


def _driver(name: str) -> str:
    """The name of a driver. ValueError for another."""
    from drivers.base import OptionError, load  # noqa: PLC0415 - with the drivers

    try:
        load(name)
    except OptionError as error:
        raise ValueError(error) from None
    return name


def _names(drivers: Sequence[str]) -> list[str]:
    """A name for each: sht4x, sht4x-2."""
    before = [drivers[:index].count(driver) for index, driver in enumerate(drivers)]
    return [f"{driver}-{number + 1}" if number else driver for driver, number in zip(drivers, before, strict=True)]


def _read_once(sensors: Sequence[Any]) -> None:
    from agent.cli.sensor import Sensor, rounds  # noqa: PLC0415 - with the drivers
    from agent.status.words import values  # noqa: PLC0415 - with the above
    from drivers.base import OptionError  # noqa: PLC0415 - with the above

    try:
        for shown in next(rounds([Sensor.of(sensor) for sensor in sensors], 1, 0)):
            if shown.failed is None:
                click.echo(f"{shown.sensor.name} measures: {values(shown.values)}")
            else:
                click.echo(f"warning: {shown.sensor.name}: {shown.failed}", err=True)
    except (AgentError, OptionError) as error:
        click.echo(f"warning: no reading yet: {error}", err=True)
        click.echo("The agent starts all the same, and looks for what is missing again and again.")


def _say_what_is_next(config: Path, target: Target, *, start: bool) -> None:
    ours = config.absolute() == SYSTEM_CONFIG and service.is_installed("iot-agent")
    if ours and start and service.runs() and os.geteuid() == 0:
        service.restart("iot-agent")
        packaged = "STATE_DIRECTORY" in os.environ  # by its command, which knows the service's folder
        command = "iot-agent" if packaged else str(service.program("iot-agent"))
        folder = "" if packaged else " --state-dir /var/lib/iot-agent"
        click.echo(f"\nThe service iot-agent runs, and sends to {target.url}. Look at it with:")
        click.echo(f"  sudo {command} status{folder}    # what it does")
        click.echo(f"  sudo {command} doctor{folder}    # is all well, from the sensor to the bucket?")
        return
    option = "" if config.absolute() in {SYSTEM_CONFIG, Path("agent.toml").absolute()} else f" --config {config}"
    click.echo("\nNext:")
    click.echo(f"  iot-agent doctor{option}    # is all well, from the sensor to the bucket?")
    click.echo(f"  iot-agent run{option}       # measure, buffer and deliver to {target.url}")
