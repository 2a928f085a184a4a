"""The command `read`: what the sensors give."""

from __future__ import annotations

import json
import time
from collections.abc import Iterable, Iterator, Mapping, Sequence
from dataclasses import dataclass
from itertools import count as counting
from typing import Any

import click

from agent.cli.options import Context, common_options
from agent.config.parse import sensor_of_texts
from agent.config.settings import SensorSettings
from agent.sensing.treatment import Treatment
from agent.status.words import number as in_unit
from agent.util.errors import AgentError, ConfigError
from drivers.base import Driver, OptionError, Reading, checked, make, what_failed

ROUNDS_IN_VAIN = 5  # with no sensor answering; then `read` gives up
PAUSE_S = 1.0  # before a sensor that failed is tried again, and between readings of the table


@dataclass(frozen=True, slots=True)
class Sensor:
    """A [[sensor]], or what --driver and --option say, to be read here."""

    name: str
    driver: Driver
    treatment: Treatment

    @classmethod
    def of(cls, settings: SensorSettings) -> Sensor:
        """Raises OptionError."""
        driver = make(settings.driver, settings.options)
        return cls(settings.name or settings.driver, driver, Treatment(settings))


@dataclass(frozen=True, slots=True)
class Shown:
    """Of one reading: what was measured, calibrated and completed, and by quantity what `run` would refuse and why."""

    sensor: Sensor
    values: Mapping[str, float | int]
    refused: Mapping[str, str]

    @classmethod
    def of(cls, sensor: Sensor, reading: Reading) -> Shown:
        """Something `run` would refuse is shown as it was measured."""
        treated = sensor.treatment.of(reading)
        return cls(sensor, {**reading.values, **treated.values}, treated.refused)

    def record(self) -> dict[str, Any]:
        """For --json. The keys beside the quantities are there only where they say something."""
        calibration = self.sensor.treatment.calibration.described()
        more = {"refused": dict(self.refused), "calibration": calibration}
        return dict(self.values) | {key: table for key, table in more.items() if table}


def named_sensor(name: str, options: Iterable[str]) -> Sensor:
    """A driver by name with key=value options, its own and [[sensor]]'s. Raises click.UsageError."""
    table: dict[str, Any] = {"driver": name}
    for text in options:
        key, sign, value = text.partition("=")
        if not sign or not key:
            raise click.UsageError(f"--option {text!r}: write key=value")
        table[key] = value
    try:
        return Sensor.of(sensor_of_texts(table))
    except (OptionError, ConfigError) as error:
        raise click.UsageError(str(error)) from None


def rounds(sensors: Sequence[Sensor], count: int | None, pause: float) -> Iterator[Shown]:
    """One reading of each sensor after another, `count` rounds or without end, `pause` seconds between them.

    What fails is told on stderr and opened again in the next round. Raises AgentError when none has answered yet, or
    for some rounds.
    """
    opened: set[str] = set()
    vain = 0
    try:
        for number in counting(1):
            errors = []
            for sensor in sensors:
                driver = sensor.driver
                try:
                    if sensor.name not in opened:
                        driver.open()
                        opened.add(sensor.name)
                    reading = checked(driver.read())
                except Exception as error:  # noqa: BLE001 - a driver of somebody else's may raise anything
                    driver.close()
                    opened.discard(sensor.name)
                    errors.append(what_failed(driver, error))
                    continue
                yield Shown.of(sensor, reading)
            vain = vain + 1 if len(errors) == len(sensors) else 0
            if vain and (number == 1 or vain == ROUNDS_IN_VAIN):
                raise AgentError("; ".join(errors))
            for text in errors:
                click.echo(text, err=True)
            if number == count:
                return
            if pause or errors:
                time.sleep(PAUSE_S if errors else pause)
    finally:
        for sensor in sensors:
            sensor.driver.close()


@click.command("read")
@click.option("--driver", "name", help="Read this driver, not the sensors of the configuration.")
@click.option(
    "--option",
    "options",
    multiple=True,
    metavar="KEY=VALUE",
    help="A key of [[sensor]] or of the driver, like offset.Temperature=-1.",
)
@click.option("--count", type=click.IntRange(min=1), help="Stop after so many readings.")
@click.option("--json", "as_json", is_flag=True, help="One JSON object a reading, as fast as the driver gives them.")
@common_options
def read(context: Context, name: str | None, options: tuple[str, ...], count: int | None, as_json: bool) -> None:
    """Show every reading of the sensors, and what `run` would refuse of it; with --json at full precision."""
    if options and name is None:
        raise click.UsageError("--option needs --driver")
    sensors = [named_sensor(name, options)] if name is not None else [Sensor.of(s) for s in context.settings().sensor]
    try:
        if not as_json:
            _show(sensors, count)
            return
        for shown in rounds(sensors, count, 0):
            record: dict[str, Any] = {"sensor": shown.sensor.name} if len(sensors) > 1 else {}
            click.echo(json.dumps(record | shown.record()))
    except KeyboardInterrupt:
        if count is not None:  # else it is how this ends
            raise


def _show(sensors: Sequence[Sensor], count: int | None) -> None:
    """A table that is drawn again with each reading."""
    from rich.live import Live  # noqa: PLC0415 - only where it draws
    from rich.markup import escape  # noqa: PLC0415
    from rich.table import Table  # noqa: PLC0415

    latest: dict[str, Shown] = {}
    end = "" if count else "; Ctrl-C ends"
    with Live(auto_refresh=False) as live:
        for number, shown in enumerate(rounds(sensors, count, PAUSE_S), 1):
            latest[shown.sensor.name] = shown
            plural = "" if number == 1 else "s"
            table = Table("sensor", "quantity", "value", "unit", "", caption=f"{number} reading{plural}{end}")
            for of in latest.values():
                calibration = of.sensor.treatment.calibration.described()
                for field in {**of.values, **of.refused}:
                    value, why = of.values.get(field), of.refused.get(field)
                    text, unit = ("", "") if value is None else in_unit(field, value)
                    note = f"refused: {why}" if why else calibration.get(field, "")
                    table.add_row(of.sensor.driver.describe(), field, text, unit, escape(note))
            live.update(table, refresh=True)
    if not live.console.is_terminal:
        click.echo()
