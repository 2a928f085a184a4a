"""Commands about sensors: `read` shows what a driver gives, `scan` what answers on the I2C buses."""

from __future__ import annotations

import json
import time
from collections.abc import Iterable, Iterator, Sequence
from dataclasses import asdict
from itertools import count as counting
from typing import Any

import click

from agent.cli.options import Context, common_options
from agent.util.errors import AgentError
from drivers.base import QUANTITIES, Driver, OptionError, Reading, SensorError, make, what_failed

ROUNDS_IN_VAIN = 5  # with no sensor answering; then `read` gives up
PAUSE_S = 1.0  # before a sensor that failed is tried again, and between readings of the table


def named_driver(name: str, options: Iterable[str]) -> Driver:
    """A driver by name with key=value options. Raises click.UsageError, naming what is allowed."""
    mapping = {}
    for text in options:
        key, sign, value = text.partition("=")
        if not sign or not key:
            raise click.UsageError(f"--option {text!r}: write key=value")
        mapping[key] = value
    try:
        return make(name, mapping)
    except OptionError as error:
        raise click.UsageError(str(error)) from None


def configured_drivers(context: Context) -> list[tuple[str, Driver]]:
    """Name and driver of each [[sensor]]."""
    return [(s.name or s.driver, make(s.driver, s.options)) for s in context.settings().sensor]


def rounds(drivers: Sequence[tuple[str, Driver]], count: int | None, pause: float) -> Iterator[tuple[str, Reading]]:
    """One reading of each sensor after another, `count` rounds or without end, `pause` seconds between them.

    What fails is told on stderr and opened again in the next round. Raises AgentError when none has answered yet, or
    for some rounds.
    """
    opened: set[str] = set()
    vain = 0
    try:
        for number in counting(1):
            errors = []
            for name, driver in drivers:
                try:
                    if name not in opened:
                        driver.open()
                        opened.add(name)
                    reading = driver.read()
                except Exception as error:  # noqa: BLE001 - a driver of somebody else's may raise anything
                    driver.close()
                    opened.discard(name)
                    errors.append(what_failed(driver, error))
                    continue
                yield name, reading
            vain = vain + 1 if len(errors) == len(drivers) else 0
            if vain and (number == 1 or vain == ROUNDS_IN_VAIN):
                raise AgentError("; ".join(errors))
            for text in errors:
                click.echo(text, err=True)
            if number == count:
                return
            if pause or errors:
                time.sleep(PAUSE_S if errors else pause)
    finally:
        for _, driver in drivers:
            driver.close()


@click.command("read")
@click.option("--driver", "name", help="Read this driver, not the sensors of the configuration.")
@click.option(
    "--option",
    "options",
    multiple=True,
    metavar="KEY=VALUE",
    help="Of the driver, like offset.Temperature=-1.",
)
@click.option("--count", type=click.IntRange(min=1), help="Stop after so many readings.")
@click.option("--json", "as_json", is_flag=True, help="One JSON object a reading, as fast as the driver gives them.")
@common_options
def read(context: Context, name: str | None, options: tuple[str, ...], count: int | None, as_json: bool) -> None:
    """Show readings of the sensors, unfiltered; with --json at full precision."""
    if options and name is None:
        raise click.UsageError("--option needs --driver")
    drivers = [(name, named_driver(name, options))] if name is not None else configured_drivers(context)
    try:
        if not as_json:
            _show(drivers, count)
            return
        for sensor, reading in rounds(drivers, count, 0):
            record: dict[str, Any] = {"sensor": sensor} if len(drivers) > 1 else {}
            click.echo(json.dumps(record | dict(reading.values)))
    except KeyboardInterrupt:
        if count is not None:  # else it is how this ends
            raise


def _show(drivers: Sequence[tuple[str, Driver]], count: int | None) -> None:
    """A table that is drawn again with each reading."""
    from rich.live import Live  # noqa: PLC0415 - only where it draws
    from rich.table import Table  # noqa: PLC0415

    latest: dict[str, Reading] = {}
    titles = dict(drivers)
    end = "" if count else "; Ctrl-C ends"
    with Live(auto_refresh=False) as live:
        for number, (sensor, reading) in enumerate(rounds(drivers, count, PAUSE_S), 1):
            latest[sensor] = reading
            plural = "" if number == 1 else "s"
            table = Table("sensor", "quantity", "value", "unit", caption=f"{number} reading{plural}{end}")
            for name, shown in latest.items():
                for field, value in shown.values.items():
                    known = QUANTITIES.get(field)
                    text = f"{value:.{known.decimals}f}" if known else str(value)
                    table.add_row(titles[name].describe(), field, text, known.unit if known else "")
            live.update(table, refresh=True)
    if not live.console.is_terminal:
        click.echo()


@click.command("scan")
@click.option("--json", "as_json", is_flag=True, help="One JSON object a bus.")
@common_options
def scan(context: Context, as_json: bool) -> None:  # noqa: ARG001 - every command takes the same options
    """List the I2C buses and what answers on them."""
    from drivers.scan import scan_buses  # noqa: PLC0415 - Blinka

    try:
        found = scan_buses()
    except SensorError as error:
        raise AgentError(str(error)) from error
    if as_json:
        for bus in found:
            click.echo(json.dumps(asdict(bus)))
    else:
        for bus in found:
            click.echo(bus.text())
