"""`iot-agent run`, `check` and `reload`."""

from __future__ import annotations

import contextlib
import logging
import os
import signal
import sys
from collections.abc import Iterator
from pathlib import Path
from typing import TYPE_CHECKING

import click

from agent.cli.options import Context, common_options
from agent.util.atomic import is_there
from agent.util.errors import AgentError, ConfigError
from agent.util.logs import log_handler

if TYPE_CHECKING:
    from agent.config.settings import Settings


@click.command()
@click.option("--verbose", "-v", is_flag=True, help="Say once a minute what was delivered and what waits.")
@common_options
def run(context: Context, verbose: bool) -> None:
    """Measure, buffer and deliver until stopped (SIGTERM, Ctrl-C). SIGHUP reads the configuration again."""
    from agent.runner import run_service  # noqa: PLC0415 - not needed by check and reload

    settings = context.settings()
    level = settings.log.level.upper()
    logging.basicConfig(level=level, handlers=[log_handler(sys.stderr)])
    if level != "DEBUG":  # an answer that was cut: delivery says it in a line, urllib3 with a traceback each time
        logging.getLogger("urllib3").setLevel(logging.ERROR)
    run_service(settings, context.config, context.state_dir, debug=context.debug, verbose=verbose)


@click.command()
@common_options
def check(context: Context) -> None:
    """Check the configuration without hardware or network. Exit 78 if something in it is wrong."""
    from agent.config.units import format_duration  # noqa: PLC0415

    settings = context.settings()
    if problems := list(_refused(settings)):
        raise ConfigError("\n".join(f"{context.config}: {text}" for text in problems))
    where = settings.center.url if settings.center else settings.influxdb.url if settings.influxdb else ""
    sensors = ", ".join(
        f"{s.name or s.driver}{'' if f'sensor[{n}].driver' in settings.named else ' (the default)'} "
        f"every {format_duration(s.interval)}"
        for n, s in enumerate(settings.sensor)
    )
    click.echo(f"{context.config} is right: {sensors}, to {where}")


def _refused(settings: Settings) -> Iterator[str]:
    """What `run` could not use although each key is right. A file that is not there may yet come."""
    from agent.registration.secret_files import CredentialsError, read_secret_file  # noqa: PLC0415 - not needed by run
    from drivers.base import load, options_for  # noqa: PLC0415

    secrets = {
        "center.enrollment_key_file": settings.center.enrollment_key_file if settings.center else None,
        "influxdb.token_file": settings.influxdb.token_file if settings.influxdb else None,
        "mqtt.password_file": settings.mqtt.password_file if settings.mqtt else None,
    }
    for key, file in secrets.items():
        if not file:
            continue
        with contextlib.suppress(OSError):  # a folder that may not be searched: os.access says no as well
            if not is_there(Path(file)):
                continue
        if not os.access(file, os.R_OK):
            click.echo(f"warning: {key}: {file} may not be read by this user: try sudo iot-agent check", err=True)
            continue
        try:
            read_secret_file(file, key)
        except CredentialsError as error:
            yield f"{key}: {error}"
    for number, sensor in enumerate(settings.sensor, 1):
        driver = load(sensor.driver)
        if lacking := driver.lacking(options_for(driver, sensor.options)):
            yield f"[[sensor]] {number}{f' ({sensor.name})' if sensor.name else ''}: {lacking}"


@click.command()
@common_options
def reload(context: Context) -> None:
    """Make the running agent read its configuration again. A bad one is refused here, and the old one stays."""
    from agent.status.socket import ask  # noqa: PLC0415 - not needed by run and check

    context.settings()
    running = ask(context.state_dir)
    if running is None:
        raise AgentError(f"no agent runs on {context.state_dir}: start it with iot-agent run")
    os.kill(int(running["pid"]), signal.SIGHUP)
    click.echo(f"agent {running['pid']} reads its configuration again")
