"""`iot-agent backfill`: the virtual sensor's past."""

from __future__ import annotations

import click

from agent.cli.options import Context, Duration, common_options
from agent.config.units import Seconds, counted
from agent.util.errors import ConfigError


@click.command()
@click.option("--since", type=Duration(), default="7d", show_default=True, help="How far back.")
@click.option("--every", type=Duration(), default="1m", show_default=True, help="One point each.")
@common_options
def backfill(context: Context, since: Seconds, every: Seconds) -> None:
    """Put the virtual sensor's past into the buffer; the running agent, or the next one, delivers it.

    The same hours again overwrite what is there. Real sensors have no past to give.
    """
    from rich.console import Console  # noqa: PLC0415 - only the commands that draw import rich
    from rich.progress import Progress  # noqa: PLC0415

    from agent.fleet.backfill import sensors_with_past, write_past  # noqa: PLC0415

    settings = context.settings()
    if not sensors_with_past(settings):
        raise ConfigError(f'{context.config}: no [[sensor]] has driver = "virtual": only it can tell its past')
    total = 0
    with Progress(console=Console(stderr=True)) as bar:
        task = bar.add_task("writing", total=since / every)
        for count in write_past(settings, context.state_dir, since_s=since, every_s=every):
            total += count
            bar.update(task, completed=total)
        bar.update(task, completed=since / every)
    click.echo(f"{counted(total, 'point')} in the buffer")
