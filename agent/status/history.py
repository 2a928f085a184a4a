"""The last 24 h of each value, in memory: one mean a minute, at most 1,440 of them for each of 32 series."""

from __future__ import annotations

import threading
from collections import OrderedDict
from collections.abc import Mapping, Sequence
from typing import Any

MINUTE_NS = 60_000_000_000
MINUTES = 24 * 60
MAX_SERIES = 32


class History:
    """Thread-safe. A series is (sensor, field); its minutes are counted on the boot clock."""

    def __init__(self) -> None:
        self._lock = threading.Lock()
        self._series: dict[tuple[str, str], OrderedDict[int, tuple[float, int]]] = {}
        self._seen: dict[str, int] = {}

    def take(self, sensors: Sequence[Mapping[str, Any]]) -> None:
        """The sensors of a snapshot: each new reading counts for its minute."""
        with self._lock:
            for sensor in sensors:
                name, moment = sensor["name"], sensor["boot_ns"]
                if moment is None or self._seen.get(name) == moment:
                    continue
                self._seen[name] = moment
                for field, value in sensor["values"].items():
                    self._add((name, field), moment // MINUTE_NS, float(value))

    def _add(self, series: tuple[str, str], minute: int, value: float) -> None:
        if series not in self._series and len(self._series) >= MAX_SERIES:
            return
        minutes = self._series.setdefault(series, OrderedDict())
        total, count = minutes.get(minute, (0.0, 0))
        minutes[minute] = total + value, count + 1
        while next(iter(minutes)) <= minute - MINUTES:
            minutes.popitem(last=False)

    def series(self, now_ns: int) -> dict[tuple[str, str], list[tuple[int, float]]]:
        """By (sensor, field): (minutes ago, mean), oldest first, of the last 24 h."""
        now = now_ns // MINUTE_NS
        with self._lock:
            return {
                key: [(now - m, total / count) for m, (total, count) in minutes.items() if now - m < MINUTES]
                for key, minutes in self._series.items()
            }
