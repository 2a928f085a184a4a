"""`iot-agent demo`: a center and a virtual device at work, live at the terminal or as JSON for scripts."""

from __future__ import annotations

import contextlib
import json
import logging
import os
import signal
import sys
import tempfile
import threading
import time
import webbrowser
from dataclasses import dataclass
from pathlib import Path
from queue import SimpleQueue
from typing import TYPE_CHECKING, Any

import click

from agent.cli.options import Context, common_options
from agent.cli.status import format_value
from agent.fleet.demo import DEFAULT_PORT, DEVICE_ID, CenterProcess, free_port

if TYPE_CHECKING:
    from collections.abc import Callable, Iterator

    from rich.table import Table

    from agent.service import Service

_DRAIN_S = 15
_BACKFILL_S = 86_400
_LEDGER = ("measured", "delivered", "pending", "rejected", "dropped", "unaccounted")


@click.command()
@click.option("--duration", type=click.FloatRange(1), help="Seconds to measure for. Default: until Ctrl-C.")
@click.option("--outage", type=click.FloatRange(0), default=0, help="Seconds without the center, in the middle.")
@click.option("--json", "as_json", is_flag=True, help="No table; the last line is one JSON object.")
@click.option("--no-browser", is_flag=True, help="Do not open the dashboard in a browser.")
@click.option("--port", type=click.IntRange(1, 65535), default=DEFAULT_PORT, show_default=True)
@click.option("--keep", type=click.Path(path_type=Path, file_okay=False), help="Keep the state in this folder.")
@common_options
def demo(
    context: Context,
    *,
    duration: float | None,
    outage: float,
    as_json: bool,
    no_browser: bool,
    port: int,
    keep: Path | None,
) -> None:
    """Start an IoT Center on loopback and a virtual device that registers with it, measures and delivers.

    Exit 0 only if everything measured is stored: delivered equals what the center counts, nothing waits, nothing went.
    """
    if outage and duration is None:
        raise click.UsageError("--outage needs --duration: it lies in the middle of the run")
    if outage and duration is not None and outage >= duration:
        raise click.UsageError("--outage must be shorter than --duration")
    with contextlib.ExitStack() as stack:
        folder = keep or Path(stack.enter_context(tempfile.TemporaryDirectory(prefix="iot-demo-")))
        folder.mkdir(parents=True, exist_ok=True)
        _log_to(folder / "agent.log", debug=context.debug)
        stop = stack.enter_context(_stop_on_signals())
        plan = Plan(duration, outage, port, live=not as_json and sys.stdout.isatty(), browser=not no_browser)
        result = _run(folder, stop, plan)
    if as_json:
        click.echo(json.dumps(result))
    else:
        _print_ledger(result)
    ok = result["delivered"] == result["stored"] and not result["pending"] and not result["dropped"]
    sys.exit(0 if ok else 1)


@dataclass(frozen=True, slots=True)
class Plan:
    """How long to measure (s, None: until stopped), with an outage of so many seconds in the middle."""

    duration: float | None
    outage: float
    port: int
    live: bool
    browser: bool

    def say(self, text: str) -> None:
        """To the person at the terminal; scripts read the last line of stdout only."""
        click.echo(text, err=not self.live)


def _run(folder: Path, stop: threading.Event, plan: Plan) -> dict[str, Any]:
    center = CenterProcess(free_port(plan.port), folder / "center")
    if center.port != plan.port:
        plan.say(f"port {plan.port} is taken: using {center.port}")
    from agent.config.parse import parse  # noqa: PLC0415 - the command starts faster without what it needs later
    from agent.fleet.backfill import write_past  # noqa: PLC0415
    from agent.service import Service  # noqa: PLC0415

    settings = parse(
        {
            "device": {"id": DEVICE_ID},
            "sensor": [{"driver": "virtual", "interval": "1s"}],
            "center": {"url": center.url},
            "status": {"listen": ""},
        },
        "demo",
        {},
    )
    service = Service(settings, folder / "agent")
    try:
        center.start()
        for _ in write_past(settings, folder / "agent", DEVICE_ID, since_s=_BACKFILL_S, every_s=60):
            pass
        service.start()
        plan.say(f"IoT Center on {center.url}, device page {center.device_page}")
        if plan.browser and has_display():
            webbrowser.open(center.device_page)
        _measure(service, center, stop, plan)
        service.stop_measuring()
        plan.say("stopped measuring, delivering the rest …")
        service.drain(_DRAIN_S)
        service.stop()
        ledger = service.ledger()
        result = {key: ledger[key] for key in _LEDGER}
        result["stored"] = center.stored()
        return result
    finally:
        service.stop()
        center.stop()


def has_display() -> bool:
    """Whether a browser could show a page here."""
    return sys.platform == "darwin" or bool(os.environ.get("DISPLAY") or os.environ.get("WAYLAND_DISPLAY"))


def _measure(service: Service, center: CenterProcess, stop: threading.Event, plan: Plan) -> None:
    """Until the duration is over or somebody stops it; the outage in its middle."""
    duration, outage = plan.duration, plan.outage
    begin = time.monotonic()
    cut_at = (duration - outage) / 2 if duration and outage else float("inf")
    down = False
    with _display(plan.live) as show:
        while not stop.is_set() and (duration is None or time.monotonic() - begin < duration):
            elapsed = time.monotonic() - begin
            if not down and cut_at <= elapsed < cut_at + outage:
                plan.say(f"outage: the center is stopped for {outage:g} s")
                center.stop()
                down = True
            elif down and elapsed >= cut_at + outage:
                center.start()
                down, cut_at = False, float("inf")
                plan.say("the center is back")
            show(service, center.device_page, "outage" if down else "")
            stop.wait(0.25)
        if down:
            center.start()


@contextlib.contextmanager
def _display(live: bool) -> Iterator[Callable[[Service, str, str], None]]:
    """A function that shows the state of things: a live table at a terminal, else nothing."""
    if not live:
        yield lambda *_: None
        return
    from rich.live import Live  # noqa: PLC0415 - only the commands that draw import rich

    with Live(auto_refresh=False) as screen:
        yield lambda service, dashboard, note: screen.update(_table(service, dashboard, note), refresh=True)


def _table(service: Service, dashboard: str, note: str) -> Table:
    from rich import box  # noqa: PLC0415
    from rich.table import Table  # noqa: PLC0415

    snapshot, ledger = service.snapshot(), service.ledger()
    table = Table(title="IoT edge agent, virtual device [b]demo[/b]", box=box.ROUNDED, show_header=False, min_width=62)
    table.add_column(style="bold")
    table.add_column()
    for sensor in snapshot["sensors"]:
        values = sensor["values"] or {}
        text = "   ".join(
            format_value(name, values[name]) for name in ("Temperature", "Humidity", "Pressure") if name in values
        )
        table.add_row("Now", text or "…")
        table.add_row("Readings", f"{sensor['readings']:,}")
    table.add_row("Delivered", f"[green]{ledger['delivered']:,}[/green]")
    pending = ledger["pending"]
    table.add_row("Pending", f"[yellow]{pending:,}[/yellow]" if pending else "0")
    state = snapshot["delivery"]["state"]
    table.add_row("Center", f"[red]{note}: points wait in the buffer[/red]" if note else f"{state}")
    table.add_row("Dashboard", f"[link={dashboard}]{dashboard}[/link]")
    table.caption = "Ctrl-C stops both and prints the ledger"
    return table


def _print_ledger(result: dict[str, Any]) -> None:
    from rich.console import Console  # noqa: PLC0415
    from rich.table import Table  # noqa: PLC0415

    table = Table(title="Every point is accounted for", show_header=False)
    for key in (*_LEDGER, "stored"):
        table.add_row("stored by the center" if key == "stored" else key, f"{result[key]:,}")
    Console().print(table)


@contextlib.contextmanager
def _stop_on_signals() -> Iterator[threading.Event]:
    stop, came = threading.Event(), SimpleQueue[int]()  # a handler may not set an Event that the main thread waits for
    before = {number: signal.signal(number, lambda n, _: came.put(n)) for number in (signal.SIGINT, signal.SIGTERM)}

    def wait() -> None:
        came.get()
        stop.set()

    threading.Thread(target=wait, name="signals", daemon=True).start()
    try:
        yield stop
    finally:
        for number, handler in before.items():
            signal.signal(number, handler)


def _log_to(path: Path, *, debug: bool) -> None:
    """The agent's log goes to a file: the terminal belongs to the table."""
    logging.basicConfig(
        filename=path,
        level=logging.DEBUG if debug else logging.INFO,
        format="%(asctime)s %(levelname)s %(name)s: %(message)s",
    )
