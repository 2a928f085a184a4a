"""The main thread of `iot-agent run`: signals, reload, what systemd is told."""

from __future__ import annotations

import contextlib
import logging
import signal
from pathlib import Path
from queue import Empty, SimpleQueue
from typing import Any

from agent.config.parse import load_settings
from agent.config.settings import Settings
from agent.service import Service
from agent.util import systemd
from agent.util.errors import AgentError
from drivers.base import boot_ns

log = logging.getLogger(__name__)

TICK_S = 1.0
RESUMED_S = 10.0
"""Rounds so far apart: the board slept, or was halted, and so were the loops, whose waits do not count that time."""
STATUS_EVERY_S, VERBOSE_EVERY_S = 10.0, 60.0
STALLED_S = 150.0
"""A loop that was not seen for so long is stuck: above the worst of name resolution, request and a sync of the disk.
Less only where the watchdog itself waits less (WatchdogSec of the unit is 180 s)."""


class Signals:
    """Signals that the main thread waits for, from now on."""

    def __init__(self, *numbers: int) -> None:
        self._came: SimpleQueue[int] = SimpleQueue()  # a handler may not set an Event whose lock the main thread holds
        for number in numbers:
            signal.signal(number, lambda number, _: self._came.put(number))

    def wait(self, seconds: float) -> set[int]:
        """Those that came, after so long at the latest."""
        asked = set()
        with contextlib.suppress(Empty):
            asked.add(self._came.get(timeout=seconds))
            while True:
                asked.add(self._came.get_nowait())
        return asked


def run_service(
    settings: Settings, config: Path, state_dir: Path, *, debug: bool = False, verbose: bool = False
) -> None:
    """Run until a signal says stop; SIGHUP reads `config` again. `verbose`: a line a minute.

    Raises AgentError where it cannot start.
    """
    signals = Signals(signal.SIGTERM, signal.SIGINT, signal.SIGHUP)
    service = Service(settings, state_dir)
    service.start()
    systemd.notify("READY=1", "STATUS=measuring")
    try:
        _loop(service, config, signals, debug=debug, verbose=verbose)
    finally:
        service.stop()
        ledger = service.ledger()
        log.info(
            "stopped: measured %(measured)d, delivered %(delivered)d, pending %(pending)d, rejected %(rejected)d,"
            " dropped %(dropped)d, unaccounted %(unaccounted)d",
            ledger,
        )


def _loop(service: Service, config: Path, signals: Signals, *, debug: bool, verbose: bool) -> None:
    told, said, stuck = 0, boot_ns(), list[str]()
    now = resumed = said
    watchdog_s = systemd.watchdog_s()
    limit_s = min(STALLED_S, (watchdog_s or STALLED_S * 2) * 5 / 6)
    remedy = "the watchdog restarts the agent" if watchdog_s else "restart the agent"
    while True:
        asked = signals.wait(TICK_S)
        if asked - {signal.SIGHUP}:
            return
        if asked:
            _reload(service, config, debug=debug)
        last, now = now, boot_ns()
        resumed = now if now - last > RESUMED_S * 1e9 else resumed
        late_ns = now - limit_s * 1e9
        alive = service.alive_boot_ns().items()
        before, stuck = stuck, [name for name, at in alive if max(at, resumed) < late_ns]
        if stuck != before:
            text = f"not seen at work for {limit_s:.0f} s: {remedy}" if stuck else "at work again"
            log.log(logging.ERROR if stuck else logging.INFO, "%s: %s", ", ".join(stuck or before), text)
        systemd.notify("WATCHDOG=trigger" if stuck else "WATCHDOG=1")
        if now - told > STATUS_EVERY_S * 1e9:
            systemd.notify(f"STATUS={in_words(service.snapshot())}")
            told = now
        if verbose and now - said > VERBOSE_EVERY_S * 1e9:
            log.info("%s", in_words(service.snapshot()))
            said = now


def _reload(service: Service, config: Path, *, debug: bool) -> None:
    """New configuration is checked first; if it is bad, the old one stays."""
    systemd.reloading()
    try:
        settings = load_settings(config)
        service.reload(settings)
        if not debug:
            logging.getLogger().setLevel(settings.log.level.upper())
    except AgentError as error:
        log.error("the new configuration is not used, the old one stays: %s", error)  # noqa: TRY400 - it says all in a line
    systemd.notify("READY=1")


def in_words(snapshot: dict[str, Any]) -> str:
    """The state in one line."""
    ledger = snapshot["ledger"]
    problems = [f"{s['name']}: {s['problem']}" for s in snapshot["sensors"] if s.get("problem")]
    delivery = snapshot["delivery"]["state"]
    return "; ".join([f"{delivery}, {ledger['delivered']} delivered, {ledger['pending']} pending", *problems])
