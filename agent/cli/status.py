"""`iot-agent status`: for people, or as JSON."""

from __future__ import annotations

import contextlib
import json
import time
from typing import TYPE_CHECKING, Any

import click

from agent.cli.options import Context, common_options
from agent.points.schema import quantity_of
from agent.status.health_rules import ago
from agent.status.socket import ask
from agent.util.errors import AgentError

if TYPE_CHECKING:
    from rich.console import RenderableType


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
    from rich.live import Live  # noqa: PLC0415

    if not watch:
        Console().print(render(take_snapshot(context)))
        return
    with contextlib.suppress(KeyboardInterrupt), Live(render(take_snapshot(context)), auto_refresh=False) as live:
        while True:
            time.sleep(1)
            live.update(render(take_snapshot(context)), refresh=True)


def take_snapshot(context: Context) -> dict[str, Any]:
    """The running agent's snapshot, or what the state folder holds. Raises AgentError where we may not look."""
    if context.state_dir.exists() and not context.state_dir.is_dir():
        raise AgentError(f"{context.state_dir} is not a folder: name another with --state-dir")
    if (running := ask(context.state_dir)) is not None:
        return running
    from agent.status.snapshot import from_disk  # noqa: PLC0415 - diskcache, only where no agent tells

    return from_disk(context.state_dir)


def render(snapshot: dict[str, Any]) -> RenderableType:
    """A table a person can read at a glance."""
    from rich import box  # noqa: PLC0415
    from rich.table import Table  # noqa: PLC0415

    table = Table(box=box.SIMPLE_HEAD, show_header=False, pad_edge=False)
    table.add_column(style="bold", no_wrap=True)
    table.add_column()
    for name, text in rows(snapshot):
        table.add_row(name, text)
    return table


def rows(snapshot: dict[str, Any]) -> list[tuple[str, str]]:
    """(what, in words) of a snapshot, with rich's markup for what is wrong."""
    result = []
    if snapshot["running"]:
        result.append(("Agent", f"[green]running[/green], pid {snapshot['pid']}, for {ago(snapshot['uptime_s'])}"))
    else:
        result.append(("Agent", "[yellow]not running[/yellow]: this is what is on disk"))
    if snapshot.get("device_id"):
        result.append(("Device", escape(snapshot["device_id"])))
    result.extend((f"Sensor {sensor['name']}", _sensor(sensor)) for sensor in snapshot.get("sensors", []))
    if "clock" in snapshot:
        result.append(("Clock", escape(snapshot["clock"]["words"])))
    if registration := snapshot.get("registration"):
        where = f" {registration['url']}, bucket {registration['bucket']}" if registration.get("url") else ""
        wrong = f"\n[red]{escape(registration['error'])}[/red]" if registration.get("error") else ""
        refused = "".join(f"\n[yellow]refused: {escape(text)}[/yellow]" for text in registration["refused"])
        by_hand = registration["state"] == "registered" and not registration["dialect"]  # [influxdb], a token by hand
        state = "" if by_hand else registration["state"]
        result.append(("Target" if by_hand else "Registration", f"{state}{escape(where)}{wrong}{refused}".strip()))
    if snapshot["running"]:
        result.append(("Delivery", _delivery(snapshot["delivery"])))
    result.append(("Buffer", _buffer(snapshot["buffer"])))
    ledger = snapshot["ledger"]
    result.append(
        (
            "Ledger",
            f"{ledger['measured']:,} measured = {ledger['delivered']:,} delivered + {ledger['pending']:,} pending"
            f" + {ledger['rejected']:,} rejected + {ledger['dropped']:,} dropped"
            + (f"  [red]{ledger['unaccounted']:,} unaccounted[/red]" if ledger["unaccounted"] else ""),
        )
    )
    if ledger["uncounted_s"]:
        result.append(("", f"{ledger['uncounted_s']:.0f} s before unclean stops are not counted"))
    result.extend(("Warning", f"[yellow]{escape(warning)}[/yellow]") for warning in snapshot.get("warnings", []))
    return result


def _sensor(sensor: dict[str, Any]) -> str:
    values = "  ".join(format_value(field, value) for field, value in (sensor["values"] or {}).items())
    text = escape(f"{values or 'no reading yet'}  ({sensor['description']}; {sensor['readings']:,} readings")
    text += "".join(f", {sensor[what]:,} {what}" for what in ("missed", "implausible", "errors") if sensor[what]) + ")"
    if sensor["problem"]:
        since = f" for {ago(sensor['failing_s'])}" if sensor.get("failing_s") else ""
        text += f"\n[red]failing{since}: {escape(sensor['problem'])}[/red]"
    for quantity, refusal in sensor["refused"].items():
        text += f"\n[red]{quantity} refused: {escape(refusal['why'])}[/red]"
    for quantity in sensor["stuck"]:
        text += f"\n[yellow]{quantity} stuck: the very same raw value again and again; is it alive?[/yellow]"
    for quantity, applied in sensor["calibration"].items():
        text += f"\n{quantity} = {escape(applied)}"
    return text


def escape(text: str) -> str:
    """For rich's markup."""
    from rich import markup  # noqa: PLC0415 - `status --json` needs none

    return markup.escape(text)


def format_value(field: str, value: float) -> str:
    """`21.5 °C`, with the resolution of the quantity; other fields with their name."""
    quantity = quantity_of(field)
    if quantity is None:
        return f"{field} {value}"
    text = f"{value:.{min(quantity.decimals, 4)}f} {quantity.unit}"
    return text if field in {"Temperature", "Humidity", "Pressure"} else f"{field} {text}"


def _delivery(delivery: dict[str, Any]) -> str:
    color = {"delivering": "green", "waiting": "yellow"}.get(delivery["state"], "red")
    text = f"[{color}]{delivery['state']}[/{color}]"
    if delivery.get("backlog"):
        text += f", backlog {delivery['backlog']:,} points"
        if delivery.get("eta_s"):
            text += f" at {delivery['backlog_rate']:,.0f}/s: done in {ago(delivery['eta_s'])}"
    if delivery.get("last_error"):
        text += f"\n[red]{escape(delivery['last_error'])}[/red]"
        if delivery.get("next_attempt_s"):
            text += f"; next attempt in {ago(delivery['next_attempt_s'])}"
    return text


def _buffer(buffer: dict[str, Any]) -> str:
    text = f"{buffer['pending_memory']:,} points in memory, {buffer['pending_disk']:,} on disk"
    text += f" ({buffer['file_bytes'] / 1e6:.1f} MB)"
    for what, words in (("undated", "wait for the time"), ("parked", "parked"), ("dead_letters", "rejected, kept")):
        if buffer.get(what):
            text += f", {buffer[what]:,} {words}"
    if buffer.get("problem"):
        text += f"\n[red]{escape(buffer['problem'])}[/red]"
    return text
