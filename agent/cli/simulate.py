"""`iot-agent simulate`: a fleet of virtual devices on one server, before the boards exist."""

from __future__ import annotations

import json
import logging
import sys
from typing import TYPE_CHECKING, Any
from urllib.parse import urlsplit

import click

from agent.cli.options import Context, Duration, common_options
from agent.config.units import Seconds, counted
from agent.fleet.scratch import scratch

if TYPE_CHECKING:
    from rich.table import Table


@click.command()
@click.option("--devices", type=click.IntRange(1, 5000), default=100, show_default=True)
@click.option("--interval", type=Duration(), default="10s", show_default=True, help="Between two points of a device.")
@click.option("--duration", type=Duration(), default="60s", show_default=True, help="To measure for; at most an hour.")
@click.option("--center", metavar="URL", help="Default: one of its own, with the embedded store.")
@click.option("--enrollment-key-file", type=click.Path(dir_okay=False), help="For a center that asks for a key.")
@click.option("--outage", type=Duration(), help="Stop its own center for so long in the middle.")
@click.option("--restart-all", is_flag=True, help="Restart all at once in the middle: a power cut.")
@click.option("--json", "as_json", is_flag=True, help="One JSON object and nothing else.")
@click.option("--allow-remote", is_flag=True, help="Let --center be another machine: yours, and ready for the load.")
@common_options
def simulate(context: Context, *, as_json: bool, allow_remote: bool, **options: Any) -> None:
    """Many whole agents in one process: registrations, points, latency, and how even the load was.

    Exit 0 only if all registered and, for each device, delivered equals what the server counts.
    """
    if options["duration"] > 3600:
        raise click.UsageError("--duration must be at most an hour")
    center, outage = options["center"], options["outage"] or Seconds(0)
    if outage and (center or outage >= options["duration"]):
        raise click.UsageError("--outage needs a center of its own and must be shorter than --duration")
    if center and (urlsplit(center).hostname or "") not in {"127.0.0.1", "localhost", "::1"} and not allow_remote:
        raise click.UsageError(f"{center} is not this machine: --allow-remote if it is yours and ready for the load")
    from agent.fleet import simulate as fleet  # noqa: PLC0415 - the whole agent comes with it

    plan = fleet.Plan(**options | {"center": center.rstrip("/") if center else None, "outage": outage})
    with scratch("iot-simulate-") as folder:
        logging.basicConfig(filename=folder / "log", level=logging.DEBUG if context.debug else logging.WARNING)
        if as_json:
            result = fleet.simulate(plan, folder, lambda *_: None)
        else:
            from rich.progress import Progress  # noqa: PLC0415 - only the commands that draw import rich

            with Progress(transient=True) as bar:
                task = bar.add_task("starting", total=1.0)
                result = fleet.simulate(
                    plan, folder, lambda text, part: bar.update(task, description=text, completed=part)
                )
    if as_json:
        click.echo(json.dumps(result))
    else:
        from rich.console import Console  # noqa: PLC0415

        Console().print(table_of(counted(result["devices"], "device"), result))
    sys.exit(0 if fleet.passed(result) else 1)


def table_of(title: str, result: dict[str, Any]) -> Table:
    """The numbers of a result by their names."""
    from rich.table import Table  # noqa: PLC0415

    table = Table(title=title, show_header=False)
    for key, value in result.items():
        if isinstance(value, dict):
            table.add_row(key, ", ".join(f"{name}: {number:,}" for name, number in value.items()) or "none")
        else:
            table.add_row(key, f"{value:,}")
    return table
