"""`iot-agent demo`: a center and a virtual device at work, live at the terminal or as JSON for scripts."""

from __future__ import annotations

import contextlib
import json
import logging
import math
import os
import signal
import sys
import webbrowser
from pathlib import Path
from typing import TYPE_CHECKING, Any

import click

from agent.cli.options import Context, Duration, common_options
from agent.cli.simulate import table_of
from agent.cli.status import render
from agent.fleet.center import DEFAULT_PORT, CenterProcess, free_port, pass_time, stored
from agent.fleet.scratch import scratch
from agent.util.logs import LOG_FORMAT

DEVICE_ID = "demo"
_DRAIN_S = 15
_BACKFILL_S = 86_400

if TYPE_CHECKING:
    from collections.abc import Callable, Iterator

    from rich.table import Table


@click.command()
@click.option("--duration", type=Duration(), help="How long to measure. Default: until Ctrl-C.")
@click.option("--outage", type=Duration(), help="So long without the center, in the middle.")
@click.option("--json", "as_json", is_flag=True, help="No table; the last line is one JSON object.")
@click.option("--no-browser", is_flag=True, help="Do not open the dashboard in a browser.")
@click.option("--port", type=click.IntRange(1, 65535), default=DEFAULT_PORT, show_default=True)
@click.option("--keep", type=click.Path(path_type=Path, file_okay=False), help="Keep the state in this folder.")
@common_options
def demo(
    context: Context,
    *,
    duration: float | None,
    outage: float | None,
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
        folder = keep or stack.enter_context(scratch("iot-demo-"))
        folder.mkdir(parents=True, exist_ok=True)
        logging.basicConfig(  # the terminal belongs to the table
            filename=folder / "agent.log",
            level=logging.DEBUG if context.debug else logging.INFO,
            format=LOG_FORMAT,
        )
        live = not as_json and sys.stdout.isatty()

        def say(text: str) -> None:
            click.echo(text, err=not live)  # scripts read the last line of stdout only

        result = _run(folder, say, live=live, duration=duration, outage=outage or 0, port=port, browser=not no_browser)
    if as_json:
        click.echo(json.dumps(result))
    else:
        from rich.console import Console  # noqa: PLC0415 - only where it draws

        Console().print(table_of("Every point is accounted for", result))
    ok = result["delivered"] == result["stored"] and not result["pending"] and not result["dropped"]
    sys.exit(0 if ok else 1)


def _run(
    folder: Path,
    say: Callable[[str], None],
    *,
    live: bool,
    duration: float | None,
    outage: float,
    port: int,
    browser: bool,
) -> dict[str, Any]:
    """Measure for `duration` s, with an outage of so many seconds in the middle, or until a signal.

    Returns the ledger, and as `stored` what the center counts.
    """
    from agent.config.parse import parse_settings  # noqa: PLC0415 - the whole agent comes with these
    from agent.fleet.backfill import write_past  # noqa: PLC0415
    from agent.runner import Signals  # noqa: PLC0415
    from agent.service import Service  # noqa: PLC0415
    from agent.status.snapshot import LEDGER  # noqa: PLC0415

    fresh = not (folder / "agent").exists()  # else the same hours would count twice, and be stored once
    signals = Signals(signal.SIGINT, signal.SIGTERM, signal.SIGHUP)  # the last: the terminal was closed
    center = CenterProcess(free_port(port), folder / "center")
    if center.port != port:
        say(f"port {port} is taken: using {center.port}")
    page = f"{center.url}/devices/{DEVICE_ID}"
    tables = {
        "device": {"id": DEVICE_ID},
        "sensor": [{"driver": "virtual", "interval": "1s"}],
        "center": {"url": center.url},
        "status": {"listen": ""},
    }
    settings = parse_settings(tables, "demo", {})
    service = Service(settings, folder / "agent")
    try:
        center.start()
        for _ in write_past(settings, folder / "agent", since_s=_BACKFILL_S, every_s=60) if fresh else ():
            pass
        service.start()
        say(f"IoT Center on {center.url}, device page {page}")
        if browser and _has_display():
            webbrowser.open(page)
        with _display(live) as show:

            def tick(_: float) -> bool:
                show(service.snapshot(), page, not center.up)
                return bool(signals.wait(0.25))

            told = (lambda _: None) if live else say  # the table tells it
            pass_time(duration or math.inf, center.outage(duration or math.inf, outage, told), tick)
            if not center.up:  # stopped in the middle of the outage
                center.start()
        service.stop_measuring()
        say("stopped measuring, delivering the rest …")
        service.drain(_DRAIN_S)
        service.stop()
        ledger = service.ledger()
        return {**{key: ledger[key] for key in LEDGER}, "stored": stored(center.url, DEVICE_ID)}
    finally:
        service.stop()
        center.stop()


def _has_display() -> bool:
    """Whether a browser could show a page here."""
    return sys.platform == "darwin" or bool(os.environ.get("DISPLAY") or os.environ.get("WAYLAND_DISPLAY"))


@contextlib.contextmanager
def _display(at_terminal: bool) -> Iterator[Callable[[dict[str, Any], str, bool], None]]:
    """A function that shows the state of things: a live table at a terminal, else nothing."""
    if not at_terminal:
        yield lambda *_: None
        return
    from agent.cli.live import live  # noqa: PLC0415 - only the commands that draw import rich

    with live() as draw:
        yield lambda *shown: draw(_table(*shown))


def _table(snapshot: dict[str, Any], dashboard: str, away: bool) -> Table:
    """What `iot-agent status` shows, and where to look."""
    table = render(snapshot)
    table.title, table.caption = "IoT edge agent, virtual device", "Ctrl-C stops both and prints the ledger"
    if away:
        table.add_row("Center", "[red]outage: points wait in the buffer[/red]")
    table.add_row("Dashboard", f"[link={dashboard}]{dashboard}[/link]")
    return table
