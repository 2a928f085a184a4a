"""The agent's own state as measurement `agent`, into the same bucket as what it measures."""

from __future__ import annotations

import re
import threading
from collections.abc import Callable, Mapping, Sequence
from pathlib import Path
from typing import Any

from agent import __version__
from agent.config.settings import HealthSettings
from agent.points.schema import HEALTH_MEASUREMENT, Line, written
from agent.status.board import Board, read_board
from agent.status.health_rules import CAUSES, troubles
from agent.status.snapshot import LEDGER
from agent.status.words import oldest_age_s
from agent.util.loops import Loop
from drivers.base import boot_ns


def health_line(device_id: str, snapshot: Mapping[str, Any], board: Board, boot_ns: int) -> Line:
    """One point. Every field keeps its type for ever; what the board does not have is left out.

    Integers: measured, delivered, pending, rejected, dropped, unaccounted (points), buffer_bytes, memory_available,
    memory_process, disk_free (bytes), throttled (flags, see board.py), clock_good (0 or 1), refused, stuck (quantities
    of all sensors, at this moment), sensors (how many), version (0.2.0 is 2000: three digits a part), address (IPv4, as
    one number). Floats: uptime, board_uptime, clock_error_s (s), oldest_age (s: for how long the oldest point waits; 0
    where none does), cpu_temperature (°C), load, interval (s: of the sensor that reports least often; left out while a
    deadband holds reports back).
    Numbers only: not every store keeps texts.
    """
    sensors = snapshot.get("sensors", [])
    ledger = snapshot.get("ledger", {})
    integers: dict[str, Any] = {
        **{name: ledger.get(name) for name in LEDGER},
        "buffer_bytes": snapshot.get("buffer", {}).get("disk_bytes"),
        "memory_available": board.memory_available,
        "memory_process": board.memory_process,
        "disk_free": board.disk_free,
        "throttled": board.throttled,
        "clock_good": snapshot.get("clock", {}).get("good"),
        "refused": sum(len(sensor["refused"]) for sensor in sensors),
        "stuck": sum(len(sensor["stuck"]) for sensor in sensors),
        "sensors": len(sensors),
        "version": version_number(__version__),
        "address": board.address,
    }
    floats = {
        "uptime": snapshot.get("uptime_s"),
        "board_uptime": board.uptime,
        "clock_error_s": snapshot.get("clock", {}).get("clock_error_s"),
        "oldest_age": oldest_age_s(snapshot) or 0.0,
        "cpu_temperature": board.cpu_temperature,
        "load": board.load,
        "interval": None
        if any(sensor.get("suppressed") for sensor in sensors)
        else max((sensor["interval"] for sensor in sensors), default=None),
    }
    fields: dict[str, float | int] = {name: int(value) for name, value in integers.items() if value is not None}
    fields |= {name: round(float(value), 3) for name, value in floats.items() if value is not None}
    return Line(written(HEALTH_MEASUREMENT, {"clientId": device_id, "device": device_id}, fields), boot_ns)


def version_number(version: str) -> int | None:
    """0.2.0 → 2000, 1.12.3rc1 → 1012003."""
    parts = re.match(r"(\d+)\.(\d+)\.(\d+)", version)
    return None if parts is None else (int(parts[1]) * 1000 + int(parts[2])) * 1000 + int(parts[3])


def trouble_lines(device_id: str, snapshot: Mapping[str, Any], boot_ns: int) -> list[Line]:
    """A point more for each sensor with which something is wrong, tagged `sensor`: for how many seconds (an integer) it
    is failing or silent, or one of its quantities is refused or stuck (refused_Temperature, stuck_Humidity), and the
    number of its `cause`. Numbers only: not every store keeps texts. A sensor without a point of this moment is well.
    """
    causes = list(CAUSES)
    found: dict[str, dict[str, float | int]] = {}
    for trouble in troubles(snapshot):
        fields = found.setdefault(trouble.sensor, {})
        fields["_".join(filter(None, (trouble.kind, trouble.quantity)))] = round(trouble.seconds)
        if trouble.cause in causes:
            fields["cause"] = causes.index(trouble.cause) + 1
    tags = {"clientId": device_id, "device": device_id}
    return [Line(written(HEALTH_MEASUREMENT, {**tags, "sensor": s}, fields), boot_ns) for s, fields in found.items()]


class Health(Loop):
    """Puts one point every `interval`: a util.loops.Loop. `snapshot` and `put` are the service's; `folder` lies on the
    disk to watch.
    """

    def __init__(
        self,
        settings: HealthSettings,
        snapshot: Callable[[], Mapping[str, Any]],
        put: Callable[[Sequence[Line]], None],
        device_id: str,
        folder: Path | None = None,
    ) -> None:
        self._settings, self._snapshot, self._put = settings, snapshot, put
        self._device_id, self._folder = device_id, folder
        self._begun = False
        self.wakeup = threading.Event()

    def step(self) -> float:
        """A point, but for the first time: a new agent has nothing to tell yet."""
        if self._begun:
            device_id, snapshot, now = self._device_id, self._snapshot(), boot_ns()
            self._put(
                [
                    health_line(device_id, snapshot, read_board(self._folder), now),
                    *trouble_lines(device_id, snapshot, now),
                ]
            )
        self._begun = True
        return self._settings.interval
