"""The command `read`: what the sensors give."""

from __future__ import annotations

import json
import select
import sys
import time
from collections.abc import Iterable, Iterator, Mapping, Sequence
from dataclasses import dataclass, field
from itertools import count as counting
from typing import TYPE_CHECKING, Any

import click

from agent.cli.options import Context, common_options
from agent.config.parse import sensor_of_texts
from agent.config.settings import SensorSettings
from agent.config.units import counted, format_time
from agent.sensing.treatment import Treatment
from agent.status.words import number as in_unit
from agent.util.errors import AgentError, ConfigError
from drivers.base import Driver, OptionError, Reading, boot_ns, checked, label, make, what_failed

if TYPE_CHECKING:
    from rich.console import Group

ROUNDS_IN_VAIN = 5  # with no sensor answering; then `read` gives up
PAUSE_S = 1.0  # before a sensor that failed is tried again, and between readings of the table


@dataclass(frozen=True, slots=True)
class Sensor:
    """A [[sensor]], or what --driver and --option say, to be read here."""

    name: str
    driver: Driver
    treatment: Treatment
    named: bool

    @classmethod
    def of(cls, settings: SensorSettings) -> Sensor:
        """Raises OptionError."""
        driver = make(settings.driver, settings.options)
        return cls(settings.name or settings.driver, driver, Treatment(settings), settings.name is not None)

    def title(self) -> str:
        return f"{self.name}: {self.driver.describe()}" if self.named else self.driver.describe()


@dataclass(frozen=True, slots=True)
class Shown:
    """Of one attempt: what was measured, calibrated and completed, and by quantity what `run` would refuse and why; or
    why it `failed`. `time_ns` is Unix time by the clock of this machine.
    """

    sensor: Sensor
    values: Mapping[str, float | int] = field(default_factory=dict)
    refused: Mapping[str, str] = field(default_factory=dict)
    time_ns: int = 0
    failed: str | None = None

    @classmethod
    def of(cls, sensor: Sensor, reading: Reading) -> Shown:
        """Something `run` would refuse is shown as it was measured."""
        treated = sensor.treatment.of(reading)
        time_ns = time.time_ns() - (boot_ns() - reading.boot_ns)
        return cls(sensor, {**reading.values, **treated.values}, treated.refused, time_ns)

    def record(self) -> dict[str, Any]:
        """For --json. The keys beside time and quantities are there only where they say something."""
        calibration = self.sensor.treatment.calibration.described()
        more = {"refused": dict(self.refused), "calibration": calibration}
        found = {"time": format_time(self.time_ns)} | dict(self.values)
        return found | {key: table for key, table in more.items() if table}


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


def rounds(sensors: Sequence[Sensor], count: int | None, pause: float) -> Iterator[list[Shown]]:
    """A reading of each sensor, `count` times or until nobody reads our output any more, `pause` seconds between.

    What fails is opened again in the next round. Raises AgentError when none has answered yet, or for some rounds.
    """
    opened: set[str] = set()
    vain = 0
    try:
        for number in counting(1):
            found = [_read(sensor, opened) for sensor in sensors]
            errors = [one.failed for one in found if one.failed is not None]
            vain = vain + 1 if len(errors) == len(sensors) else 0
            if vain and (number == 1 or vain == ROUNDS_IN_VAIN):
                raise AgentError("\n".join(errors))
            yield found
            if number == count or _nobody_reads():
                return
            if pause or errors:
                time.sleep(PAUSE_S if errors else pause)
    finally:
        for sensor in sensors:
            sensor.driver.close()


def _read(sensor: Sensor, opened: set[str]) -> Shown:
    driver = sensor.driver
    try:
        if sensor.name not in opened:
            driver.open()
            opened.add(sensor.name)
        return Shown.of(sensor, checked(driver.read()))
    except Exception as error:  # noqa: BLE001 - a driver of somebody else's may raise anything
        driver.close()
        opened.discard(sensor.name)
        return Shown(sensor, failed=what_failed(driver, error))


def _nobody_reads() -> bool:
    """Whether stdout is a pipe whose other end is closed; a write would say so, too, but there may be none for long."""
    try:
        there = select.poll()
        there.register(sys.stdout.fileno(), 0)
        return any(events & (select.POLLERR | select.POLLHUP) for _, events in there.poll(0))
    except (OSError, ValueError, AttributeError):  # there may be no stdout at all
        return False


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
        for found in rounds(sensors, count, 0):
            for shown in found:
                if shown.failed is not None:
                    click.echo(shown.failed, err=True)
                    continue
                record: dict[str, Any] = {"sensor": shown.sensor.name} if len(sensors) > 1 else {}
                click.echo(json.dumps(record | shown.record()))
    except KeyboardInterrupt:
        if count is not None:  # else it is how this ends
            raise


def _show(sensors: Sequence[Sensor], count: int | None) -> None:
    """The newest reading of each sensor, drawn again with each round."""
    from agent.cli.live import live  # noqa: PLC0415 - rich, only where it draws

    readings = 0
    with live() as draw:
        for found in rounds(sensors, count, PAUSE_S):
            readings += sum(one.failed is None for one in found)
            end = "" if count else "; Ctrl-C ends"
            draw(drawn(found, f"{counted(readings, 'reading')}{end}"))


def drawn(found: Sequence[Shown], caption: str) -> Group:
    """One attempt of each sensor: its name, and a row for each quantity or for what failed."""
    from rich.console import Group  # noqa: PLC0415 - only where it draws
    from rich.table import Table  # noqa: PLC0415
    from rich.text import Text  # noqa: PLC0415

    parts: list[Text | Table] = []
    for one in found:
        parts.append(Text(one.sensor.title(), "bold"))
        table = Table(box=None, show_header=False, padding=(0, 2, 0, 0), pad_edge=False)
        table.add_column(min_width=24)
        table.add_column(justify="right", min_width=10)
        table.add_column(min_width=4)
        table.add_column()
        calibration = one.sensor.treatment.calibration.described()
        for name in {**one.values, **one.refused}:
            value, why = one.values.get(name), one.refused.get(name)
            text, unit = ("", "") if value is None else in_unit(name, value)
            note = f"refused: {why}" if why else calibration.get(name, "")
            table.add_row(label(name), text, unit, Text(note, "red" if why else ""))
        parts.append(table if one.failed is None else Text(f"failed: {one.failed}", "red"))
    return Group(*parts, Text(caption, "dim"))
