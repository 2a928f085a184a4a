"""What the commands of iot-center have in common: options, settings, the stores, and how errors end them."""

from __future__ import annotations

import functools
import sys
from collections.abc import Callable
from contextlib import closing
from dataclasses import replace
from pathlib import Path
from typing import TYPE_CHECKING, Any

import click

from agent.config.units import parse_duration
from agent.util.errors import AgentError
from center.errors import SettingsError, StoreError
from center.settings import Settings
from center.settings_files import load

if TYPE_CHECKING:  # Flask and influxdb-client may not be installed, and take their time
    from center.context import Center

EX_CONFIG = 78
EX_UNAVAILABLE = 69


def with_settings(command: Callable[..., None]) -> Callable[..., None]:
    """A command of the settings that its common options, center.toml and the environment give."""

    @functools.wraps(command)
    def configured(*, config: Path | None, embedded: bool, data: Path | None, debug: bool, **own: Any) -> None:
        del debug  # for serve and the group
        settings = load(config)
        if embedded:
            settings = replace(settings, embedded=True)
        if data:
            settings = replace(settings, store=replace(settings.store, data=str(data)))
        command(settings, **own)

    for option in (
        click.option("--debug", is_flag=True, help="Show tracebacks."),
        click.option("--data", type=click.Path(path_type=Path), help="Folder of the embedded store."),
        click.option("--embedded", is_flag=True, help="Store in a SQLite file: for laptops, demos and tests."),
        click.option("--config", type=click.Path(path_type=Path), help="Default: ./center.toml."),
    ):
        configured = option(configured)
    return configured


def opened(settings: Settings) -> closing[Center]:
    """Both stores, for a `with`."""
    from center.app import open_stores  # noqa: PLC0415 - Flask, after the options are known to be right

    return closing(open_stores(settings))


class Group(click.Group):
    """One line on stderr and an exit code for what an operator can mend; a traceback only with --debug."""

    def invoke(self, ctx: click.Context) -> Any:
        try:
            return super().invoke(ctx)
        except (SettingsError, StoreError, AgentError, OSError, ModuleNotFoundError) as error:
            if "--debug" in sys.argv or getattr(error, "name", None) in {"agent", "drivers", "center"}:
                raise
            text = str(error)
            if isinstance(error, ModuleNotFoundError):  # the agent is installed without what only the center needs
                text = f"{error.name} is not installed: pip install 'iot-edge-agent[center]'"
            elif isinstance(error, OSError) and error.strerror:
                text = error.strerror if error.filename is None else f"{error.filename}: {error.strerror}"
            click.echo(f"iot-center: {text}", err=True)
            sys.exit(EX_CONFIG if isinstance(error, SettingsError | AgentError) else EX_UNAVAILABLE)


def duration(option: str, text: str) -> float | None:
    """Seconds of an option's text; None for `never`."""
    try:
        return None if text == "never" else parse_duration(text)
    except ValueError as error:
        raise SettingsError(f"{option} {text!r}: should be {error}, or never") from error
