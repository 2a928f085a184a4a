"""`iot-agent status`: for people, or as JSON."""

from __future__ import annotations

import contextlib
import json
import time
from typing import TYPE_CHECKING, Any

import click

from agent.cli.options import Context, common_options
from agent.config.units import counted
from agent.status.health_rules import problems
from agent.status.socket import ask
from agent.status.words import rows, values
from agent.util.errors import AgentError

if TYPE_CHECKING:
    from rich.table import Table


@click.command()
@click.option("--json", "as_json", is_flag=True, help="One JSON object.")
@click.option("--watch", is_flag=True, help="Keep it live until Ctrl-C.")
@common_options
def status(context: Context, as_json: bool, watch: bool) -> None:
    """What the running agent does; without one, what is on disk."""
    if as_json:
        click.echo(json.dumps(take_snapshot(context), default=str))
        return
    from rich.console import Console  # noqa: PLC0415 - only the commands that draw import rich

    from agent.cli.live import live  # noqa: PLC0415

    if not watch:
        Console().print(render(take_snapshot(context)))
        return
    with contextlib.suppress(KeyboardInterrupt), live() as draw:
        while True:
            draw(render(take_snapshot(context)))
            time.sleep(1)


def take_snapshot(context: Context) -> dict[str, Any]:
    """The running agent's snapshot, or what the state folder holds. Raises AgentError where we may not look."""
    if context.state_dir.exists() and not context.state_dir.is_dir():
        raise AgentError(f"{context.state_dir} is not a folder: name another with --state-dir")
    if (running := ask(context.state_dir)) is not None:
        return running
    from agent.status.snapshot import from_disk  # noqa: PLC0415 - diskcache, only where no agent tells

    return from_disk(context.state_dir)


def render(snapshot: dict[str, Any]) -> Table:
    """A table a person can read at a glance."""
    from rich import box  # noqa: PLC0415
    from rich.table import Table  # noqa: PLC0415
    from rich.text import Text  # noqa: PLC0415

    state = str((snapshot.get("delivery") or {}).get("state"))
    colours = {
        "Agent": "green" if snapshot["running"] else "yellow",
        "Delivery": {"delivering": "green", "waiting": "yellow"}.get(state, "red"),
        "To look at": "red",
    }
    table = Table(box=box.SIMPLE_HEAD, show_header=False, pad_edge=False)
    table.add_column(style="bold", no_wrap=True)
    table.add_column()
    for name, text in lines(snapshot):
        table.add_row(Text(name), Text(text, colours.get(name, "")))
    return table


def lines(snapshot: dict[str, Any]) -> list[tuple[str, str]]:
    """(what, in words) of a snapshot: whose it is, its sensors, all the rest, and what is wrong."""
    pid = f", pid {snapshot['pid']}" if snapshot["running"] else ""
    found = [("Device", f"{snapshot['device_id']}{pid}")] if snapshot.get("device_id") else []
    found += [(f"Sensor {sensor['name']}", _sensor(sensor)) for sensor in snapshot["sensors"]]
    return [*found, *rows(snapshot), *(("To look at", text) for text in problems(snapshot))]


def _sensor(sensor: dict[str, Any]) -> str:
    text = f"{values(sensor['values'] or {}) or 'no reading yet'}  ({sensor['description']}"
    text += f", {counted(sensor['readings'], 'reading')}" if sensor["readings"] else ""
    text += "".join(f", {sensor[what]:,} {what}" for what in ("missed", "implausible") if sensor[what])
    text += f", {counted(sensor['errors'], 'error')}" if sensor["errors"] else ""
    found = [f"{text})", *(f"{quantity} = {applied}" for quantity, applied in sensor["calibration"].items())]
    if sensor["remote"]:
        found.append("from the center: " + ", ".join(f"{name} = {value}" for name, value in sensor["remote"].items()))
    return "\n".join(found)
