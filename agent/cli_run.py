"""`iot-agent run`, `check` and `reload`."""

from __future__ import annotations

import logging
import os
import signal
import sys

import click

from agent.cli_options import Context, common_options
from agent.errors import AgentError

_log = logging.getLogger("agent")


@click.command()
@common_options
def run(context: Context) -> None:
    """Measure, buffer and deliver until stopped (SIGTERM, Ctrl-C). SIGHUP reads the configuration again."""
    from agent.runner import run_service  # noqa: PLC0415 - not needed by check and reload

    settings = context.settings()
    logging.basicConfig(level=settings.log.level.upper(), format=_log_format(), stream=sys.stderr)
    run_service(settings, context)


@click.command()
@common_options
def check(context: Context) -> None:
    """Check the configuration without hardware or network. Exit 78 if something in it is wrong."""
    from agent.units import format_duration  # noqa: PLC0415

    settings = context.settings()
    where = settings.center.url if settings.center else settings.influxdb.url if settings.influxdb else ""
    sensors = ", ".join(f"{s.name or s.driver} every {format_duration(s.interval)}" for s in settings.sensor)
    click.echo(f"{context.config} is right: {sensors}, to {where}")


@click.command()
@common_options
def reload(context: Context) -> None:
    """Make the running agent read its configuration again. A bad one is refused here, and the old one stays."""
    from agent.control import ask  # noqa: PLC0415

    context.settings()
    try:
        running = ask(context.state_dir)
    except PermissionError as error:
        raise AgentError(f"{context.state_dir} belongs to another user: run this as that user, or with sudo") from error
    if running is None:
        raise AgentError(f"no agent runs on {context.state_dir}: start it with iot-agent run")
    os.kill(int(running["pid"]), signal.SIGHUP)
    click.echo(f"agent {running['pid']} reads its configuration again")


def _log_format() -> str:
    """Journald adds the time; a terminal does not."""
    if os.environ.get("JOURNAL_STREAM"):
        return "%(levelname)s %(name)s: %(message)s"
    return "%(asctime)s %(levelname)s %(name)s: %(message)s"
