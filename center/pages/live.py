"""The newest values of the devices that open pages look at: read for all of them at once, at most every two seconds."""

from __future__ import annotations

import threading
import time
from collections.abc import Sequence
from typing import cast

from flask import Flask, current_app

from center.context import Center, current_center
from center.errors import StoreError
from center.stores.telemetry import LOOK_BACK_NS, SECOND_NS, LastValue
from center.times import now_ns

EXTENSION = "iot-center-live"
EVERY_S = 2.0
NOBODY = " "  # no device's id: a look at it asks the store whether it is there
FORGET_S = 20.0  # a page asks every two seconds, or every fifteen whether all is well
REGISTERED_EVERY_S = 30.0


class Live:
    """Whoever asks while the store is asked waits for that answer; a fault is everybody's until the next time."""

    def __init__(self) -> None:
        self._lock = threading.Lock()
        self._looked_at: dict[str, float] = {}
        self._values: dict[str, Sequence[LastValue]] = {}
        self._seen: dict[str, int | None] = {}  # the newest time of each, also if that is long ago
        self._registered: frozenset[str] = frozenset()
        self._read_at = self._registered_at = float("-inf")
        self._fault: StoreError | None = None

    def look(self, center: Center, device_id: str) -> tuple[Sequence[LastValue], int | None, bool]:
        """The recent values of a device, when it was last heard of, and whether it is registered. Raises StoreError."""
        with self._lock:
            now = time.monotonic()
            due = now - self._read_at >= EVERY_S
            new = device_id not in self._looked_at
            self._looked_at = {d: at for d, at in self._looked_at.items() if now - at < FORGET_S} | {device_id: now}
            if due:
                self._values, self._read_at = {}, now
                self._read(center, list(self._looked_at), now)
            elif new and self._fault is None:
                self._read(center, [device_id], now)
            if self._fault is not None:
                raise self._fault
            return self._values.get(device_id, ()), self._seen.get(device_id), device_id in self._registered

    def _read(self, center: Center, device_ids: list[str], now: float) -> None:
        recent = now_ns() - max(round(center.settings.devices.silent_after), 60) * SECOND_NS
        try:
            found = center.telemetry.last_values(device_ids, since_ns=recent)
            silent = [d for d in device_ids if d not in found and d not in self._seen]
            before = center.telemetry.last_values(silent, since_ns=now_ns() - LOOK_BACK_NS) if silent else {}
            newest = {d: max(last.time_ns for last in lasts) for d, lasts in (*found.items(), *before.items())}
            self._seen = {d: at for d, at in self._seen.items() if d in self._looked_at}
            self._seen |= {d: newest.get(d, self._seen.get(d)) for d in device_ids}
            self._values |= found
            if now - self._registered_at >= REGISTERED_EVERY_S:
                self._registered = frozenset(device.id for device in center.registry.devices().devices)
                self._registered_at = now
            self._fault = None
        except StoreError as error:
            self._fault = error


def look(device_id: str) -> tuple[Sequence[LastValue], int | None, bool]:
    """As Live.look, of this application."""
    return cast("Live", current_app.extensions[EXTENSION]).look(current_center(), device_id)


def init_app(app: Flask) -> None:
    app.extensions[EXTENSION] = Live()
