"""The whole chain on one laptop: an IoT Center on loopback and a virtual device that registers, measures, delivers."""

from __future__ import annotations

import math
import os
import sys
import webbrowser
from collections.abc import Callable
from contextlib import AbstractContextManager
from pathlib import Path
from typing import Any

from agent.config.parse import parse_settings
from agent.fleet.backfill import write_past
from agent.fleet.center import CenterProcess, free_port, pass_time, stored
from agent.service import Service
from agent.status.snapshot import LEDGER

DEVICE_ID = "demo"
_DRAIN_S = 15
_BACKFILL_S = 86_400


def run_demo(
    folder: Path,
    asked: Callable[[float], object],
    say: Callable[[str], None],
    display: AbstractContextManager[Callable[[dict[str, Any], str, bool], None]],
    *,
    duration: float | None,
    outage: float,
    port: int,
    browser: bool,
) -> dict[str, Any]:
    """Measure for `duration` s, with an outage of so many seconds in the middle; it ends early when `asked` says so.

    `asked` waits for so many seconds; `say` gets what happens in words; `display` gives what is shown a snapshot, the
    address of the device's page and whether the center is away. Returns the ledger, and as `stored` what the center
    counts.
    """
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
        for _ in write_past(settings, folder / "agent", since_s=_BACKFILL_S, every_s=60):
            pass
        service.start()
        say(f"IoT Center on {center.url}, device page {page}")
        if browser and has_display():
            webbrowser.open(page)
        with display as show:

            def tick(_: float) -> bool:
                show(service.snapshot(), page, not center.up)
                return bool(asked(0.25))

            pass_time(duration or math.inf, center.outage(duration or math.inf, outage, say), tick)
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


def has_display() -> bool:
    """Whether a browser could show a page here."""
    return sys.platform == "darwin" or bool(os.environ.get("DISPLAY") or os.environ.get("WAYLAND_DISPLAY"))
