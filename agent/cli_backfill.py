"""`iot-agent backfill`: the virtual sensor's past."""

from __future__ import annotations

import time
from itertools import islice

import click

from agent.cli_options import Context, Duration, common_options
from agent.errors import ConfigError
from agent.units import Seconds  # noqa: TC001 - beside the options

_CHUNK = 5000


@click.command()
@click.option("--since", type=Duration(), default="7d", show_default=True, help="How far back.")
@click.option("--every", type=Duration(), default="1m", show_default=True, help="One point each.")
@common_options
def backfill(context: Context, since: Seconds, every: Seconds) -> None:
    """Put the virtual sensor's past into the buffer; the running agent, or the next one, delivers it.

    The same hours again overwrite what is there. Real sensors have no past to give.
    """
    from rich.console import Console  # noqa: PLC0415
    from rich.progress import track  # noqa: PLC0415 - only the commands that draw import rich

    from agent.backfill import past_lines  # noqa: PLC0415
    from agent.beside import Beside  # noqa: PLC0415
    from agent.identity import device_id  # noqa: PLC0415
    from agent.rows import Kind, pack  # noqa: PLC0415
    from agent.service import prepare  # noqa: PLC0415
    from drivers.base import load, options_for  # noqa: PLC0415
    from drivers.virtual import Virtual  # noqa: PLC0415

    settings = context.settings()
    kinds = [load(s.driver).sensor for s in settings.sensor]
    location = (settings.device.location.lat, settings.device.location.lon) if settings.device.location else None
    virtual = [s for s in settings.sensor if issubclass(load(s.driver), Virtual)]
    if not virtual:
        raise ConfigError(f'{context.config}: no [[sensor]] has driver = "virtual": only it can tell its past')
    prepare(context.state_dir)
    identity = device_id(settings.device.id, context.state_dir)
    total = 0
    for sensor in virtual:
        driver = Virtual(options_for(Virtual, sensor.options))
        lines = past_lines(
            identity,
            driver,
            since_s=since,
            every_s=every,
            until_ns=time.time_ns(),
            sensor_name=sensor.name if kinds.count(driver.sensor) > 1 else None,
            location=location,
        )
        chunks = -(-int(since / every + 1) // _CHUNK)
        with Beside(context.state_dir / "buffer", create=True) as buffer:
            for _ in track(range(chunks), description=sensor.name or "virtual", console=Console(stderr=True)):
                batch = [line.encode() for line in islice(lines, _CHUNK)]
                if batch:
                    buffer.add([pack(batch, Kind.PENDING)])
                total += len(batch)
    click.echo(f"{total:,} points are in the buffer")
