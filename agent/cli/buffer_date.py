"""`iot-agent buffer date`: give the points of a boot whose time was never known their time."""

from __future__ import annotations

import datetime as dt
from typing import TYPE_CHECKING

import click

from agent.cli.options import Context, common_options
from agent.clock.boots import current_boot_id
from agent.clock.manual_times import leave
from agent.util.errors import AgentError

if TYPE_CHECKING:
    from collections.abc import Sequence
    from pathlib import Path

    from agent.buffer.batch import UndatedBoot


@click.command(short_help="Give the points of a boot that had no clock their time.")
@click.option("--boot", metavar="N", help="Which boot: its number in the list, or the first letters of its id.")
@click.option("--at", metavar="TIME", help="When that boot began: 2026-05-01T10:30, local unless it says +02:00.")
@common_options
def date(context: Context, boot: str | None, at: str | None) -> None:
    """Date the points of a boot whose time was never known; without options, list such boots.

    A running agent does so within a minute, a stopped one at its start. The points get the tag clock=estimated.
    """
    waiting = waiting_in(context.state_dir / "buffer")
    if boot is None and at is None:
        _list(waiting)
        return
    if boot is None or at is None:
        raise click.UsageError("--boot and --at go together: which boot, and when it began")
    chosen = choose(waiting, boot)
    began = parse_time(at)
    try:
        leave(context.state_dir, {chosen.boot_id: began})
    except OSError as error:
        raise AgentError(f"{context.state_dir} cannot be written: {error.strerror}") from error
    first, last = (_local(began + moment) for moment in (chosen.first_ns, chosen.last_ns))
    click.echo(f"{chosen.count} points will be dated from {first} to {last}")


def choose(waiting: Sequence[UndatedBoot], boot: str) -> UndatedBoot:
    """The boot of this number (1 is the oldest) or beginning of an id. Raises AgentError."""
    if not waiting:
        raise AgentError("no points wait for a time")
    found = [w for number, w in enumerate(waiting, 1) if boot == str(number)]
    found = found or [w for w in waiting if boot and w.boot_id.startswith(boot)]
    if len(found) != 1:
        raise AgentError(f"--boot {boot} is not one of 1 to {len(waiting)}: see iot-agent buffer date")
    return found[0]


def parse_time(text: str) -> int:
    """Unix ns of an ISO 8601 time, local unless it names its zone. Raises AgentError for the future and before 2020."""
    try:
        moment = dt.datetime.fromisoformat(text).astimezone()
    except (ValueError, OverflowError) as error:
        raise AgentError(f"--at {text!r} is not a time like 2026-05-01T10:30 or 2026-05-01T10:30:00+02:00") from error
    if not dt.datetime(2020, 1, 1, tzinfo=dt.UTC) <= moment <= dt.datetime.now(dt.UTC):
        raise AgentError(f"--at {text} is {'in the future' if moment.year >= 2020 else 'before 2020'}")
    return round(moment.timestamp() * 1000) * 1_000_000


def waiting_in(folder: Path) -> list[UndatedBoot]:
    """The earlier boots with points that have no time, oldest first, as they are on disk. Raises AgentError."""
    from agent.buffer.offline import look  # noqa: PLC0415 - diskcache is not needed for --help

    found = look(folder)
    if found is not None and found.problem:
        raise AgentError(f"the buffer in {folder} cannot be read ({found.problem}): starting the agent repairs it")
    return [boot for boot in found.boots if boot.boot_id != current_boot_id()] if found else []


def _list(waiting: Sequence[UndatedBoot]) -> None:
    if not waiting:
        click.echo("no points of earlier boots wait for a time")
    for number, boot in enumerate(waiting, 1):
        first, last = (_span(moment) for moment in (boot.first_ns, boot.last_ns))
        click.echo(f"{number}  {boot.boot_id[:8]}  {boot.count} points, taken {first} to {last} after that boot began")


def _span(boot_ns: int) -> str:
    return str(dt.timedelta(seconds=boot_ns // 1_000_000_000))


def _local(unix_ns: int) -> str:
    return f"{dt.datetime.fromtimestamp(unix_ns // 1_000_000_000).astimezone():%Y-%m-%d %H:%M:%S%z}"
