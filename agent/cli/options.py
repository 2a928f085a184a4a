"""What every command takes after its name: --config, --state-dir, --debug; and how errors end at the terminal."""

from __future__ import annotations

import contextlib
import errno
import functools
import logging
import os
import re
import sys
import time
from collections.abc import Callable
from dataclasses import dataclass
from datetime import UTC, datetime
from pathlib import Path
from typing import Any

import click

from agent.config.settings import Settings
from agent.config.units import Seconds, parse_duration
from agent.util.errors import EXIT_FAILED, AgentError, short
from agent.util.logs import LOG_FORMAT

_PLAIN = re.compile(r"\d+(?:\.\d+)?")
SYSTEM_CONFIG = Path("/etc/iot-agent/agent.toml")


def default_config() -> Path:
    """./agent.toml, else /etc/iot-agent/agent.toml: `sudo iot-agent` may not look into every folder it is called in."""
    local = Path("agent.toml")
    return local if os.path.exists(local) else SYSTEM_CONFIG  # noqa: PTH110 - Path's raises where one may not look


def default_state_dir() -> Path:
    """STATE_DIRECTORY (set by systemd), else the platform's folder for a user's program state."""
    if given := os.environ.get("STATE_DIRECTORY"):
        return Path(given.split(":")[0])
    if sys.platform == "darwin":
        return Path.home() / "Library/Application Support/iot-agent"
    return Path(os.environ.get("XDG_STATE_HOME") or Path.home() / ".local/state") / "iot-agent"


@dataclass(frozen=True, slots=True)
class Context:
    """Where this command finds its configuration and its state."""

    config: Path
    state_dir: Path
    debug: bool

    @property
    def buffer(self) -> Path:
        return self.state_dir / "buffer"

    def settings(self) -> Settings:
        """The configuration; raises ConfigError. Its warnings go to stderr."""
        from agent.config.limits import missing_files  # noqa: PLC0415 - see below
        from agent.config.parse import load_settings  # noqa: PLC0415 - cattrs takes 0.1 s on a Pi Zero; not every command needs it

        settings = load_settings(self.config)
        for warning in (*settings.warnings, *missing_files(settings)):
            click.echo(f"warning: {warning}", err=True)
        return settings


class Duration(click.ParamType):  # type: ignore[type-arg] # click's is no generic before 8.4
    """A duration such as 7d or 1m, or a number of seconds."""

    name = "duration"

    def convert(self, value: object, param: click.Parameter | None, ctx: click.Context | None) -> Seconds:
        try:
            seconds = parse_duration(f"{value}s" if _PLAIN.fullmatch(str(value)) else value)
        except ValueError as error:
            self.fail(f"{value!r}: must be {error}".replace(" in quotes", ""), param, ctx)
        if seconds <= 0:
            self.fail(f"{value!r}: must be above 0", param, ctx)
        return seconds


def since_option(_: click.Context, __: click.Parameter, text: str | None) -> int | None:
    """Unix ns of `2h`, or of a date and time (UTC where it does not say)."""
    if text is None:
        return None
    try:
        return int((time.time() - parse_duration(text)) * 1e9)
    except (ValueError, OverflowError):
        pass
    try:
        when = datetime.fromisoformat(text)
    except ValueError as error:
        raise click.BadParameter(f"{text!r}: a duration like 2h, or a time like 2026-01-31T12:00:00Z") from error
    return int((when if when.tzinfo else when.replace(tzinfo=UTC)).timestamp() * 1e9)


def common_options(command: Callable[..., Any]) -> Callable[..., Any]:
    """Decorate a command: it gets a Context as its first argument. AgentError ends as one line and its exit code, and
    so does what the system refuses: a full disk behind stdout, a folder that this user may not enter.
    """

    @click.option("--config", "-c", type=click.Path(path_type=Path), help="Default: ./agent.toml, then /etc/iot-agent.")
    @click.option(
        "--state-dir", type=click.Path(path_type=Path, readable=False), help="Default: $STATE_DIRECTORY, else per user."
    )
    @click.option("--debug", is_flag=True, help="Log everything, and show tracebacks.")
    @functools.wraps(command)
    def wrapped(config: Path | None, state_dir: Path | None, debug: bool, **arguments: Any) -> Any:
        if debug:
            logging.basicConfig(level=logging.DEBUG, format=LOG_FORMAT)
        context = Context(config or default_config(), state_dir or default_state_dir(), debug)
        try:
            return command(context, **arguments)
        except AgentError as error:
            if debug:
                raise
            for line in str(error).splitlines():
                click.echo(f"iot-agent: {line}", err=True)
            raise click.exceptions.Exit(error.exit_code) from error
        except OSError as error:
            if debug or error.errno == errno.EPIPE:  # nobody reads any more: click ends it
                raise
            _discard_output()
            what = "" if error.filename is None else f"{error.filename}: "
            click.echo(f"iot-agent: {short(f'{what}{error.strerror or error}')}", err=True)
            raise click.exceptions.Exit(EXIT_FAILED) from error

    return wrapped


def _discard_output() -> None:
    """What stdout still holds would be refused again, at the end, with a traceback."""
    with contextlib.suppress(OSError, ValueError, AttributeError):
        stdout = sys.stdout.fileno()
        with Path(os.devnull).open("wb") as nowhere:
            os.dup2(nowhere.fileno(), stdout)
