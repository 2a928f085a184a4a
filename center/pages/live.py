"""The newest values of the devices that open pages look at, read for all of them at once, at most every two seconds,
and by what they are judged, every half minute; and what is known of every device.
"""

from __future__ import annotations

import logging
import threading
import time
from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass
from typing import Generic, TypeVar, cast

from flask import Flask, current_app

from center.context import Center, current_center
from center.errors import StoreError
from center.pages.states import Patience, patience
from center.profiles import profiles, told
from center.stores.telemetry import DAY_NS, HEALTH, HOUR_NS, LOOK_BACK_NS, SECOND_NS, LastValue, Telemetry
from center.times import now_ns

log = logging.getLogger(__name__)
EXTENSION, SEEN, HEALTHS = "iot-center-live", "iot-center-seen", "iot-center-healths"
FIELDS = ("pending", "oldest_age", "rejected", "dropped", "unaccounted", "clock_good", "clock_error_s")
EVERY_S = 2.0
NOBODY = " "  # no device's id: a look at it asks the store whether it is there
FORGET_S = 20.0  # a page asks every two seconds, or every fifteen whether all is well
KNOWN_EVERY_S = 30.0  # who is registered, and how patient one is with each
# Of what is known of every device:
QUICK_S = 0.1  # a store that tells it within that is asked each time
AGAIN = 10  # of another one it is remembered for so many times as long as it takes
OLD_S = 60.0  # and never for longer
WHOLE_EVERY_S = 600.0  # what comes late, with stamps of long ago, is seen after that time

V = TypeVar("V")


@dataclass(frozen=True, slots=True)
class Latest:
    """The recent `values` of a device, and when (Unix ns) it was last `seen`, however long ago that is."""

    values: Sequence[LastValue]
    seen: int | None
    registered: bool
    patience: Patience


class Live:
    """Whoever asks while the store is asked waits for that answer; a fault is everybody's until the next time."""

    def __init__(self) -> None:
        self._lock = threading.Lock()
        self._looked_at: dict[str, float] = {}
        self._values: dict[str, Sequence[LastValue]] = {}
        self._seen: dict[str, int | None] = {}  # the newest time of each, also if that is long ago
        self._registered: frozenset[str] = frozenset()
        self._patience: dict[str, Patience] = {}
        self._read_at = self._known_at = float("-inf")
        self._fault: StoreError | None = None

    def opened(self, device_id: str) -> None:
        """A page of it is made now: what is told from now on is no older than what that says."""
        with self._lock:
            self._looked_at.pop(device_id, None)
            self._patience.pop(device_id, None)

    def look(self, center: Center, device_id: str) -> Latest:
        """Raises StoreError."""
        with self._lock:
            now = time.monotonic()
            due = now - self._read_at >= EVERY_S
            new = device_id not in self._looked_at
            if new and device_id not in self._registered and now - self._known_at >= EVERY_S:
                self._known_at = float("-inf")  # it may have been added just now
            self._looked_at = {d: at for d, at in self._looked_at.items() if now - at < FORGET_S} | {device_id: now}
            if due:
                self._values, self._read_at = {}, now
                self._read(center, list(self._looked_at), now)
            elif new and self._fault is None:
                self._read(center, [device_id], now)
            if self._fault is not None:
                raise self._fault
            values, seen = self._values.get(device_id, ()), self._seen.get(device_id)
            return Latest(values, seen, device_id in self._registered, self._patience[device_id])

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
            again = now - self._known_at >= KNOWN_EVERY_S
            if again:
                self._registered = frozenset(device.id for device in center.registry.devices().devices)
            self._patience = {d: kept for d, kept in self._patience.items() if d in self._looked_at}
            self._patience |= patiences(center, [d for d in self._looked_at if again or d not in self._patience])
            self._known_at = now if again else self._known_at
            self._fault = None
        except StoreError as error:
            self._fault = error


def patiences(center: Center, device_ids: Sequence[str]) -> dict[str, Patience]:
    """How patient one is with each of these devices. Raises StoreError."""
    if not device_ids:
        return {}
    known, heard = profiles(center.registry), told(center.registry)
    health = center.telemetry.last_values(device_ids, measurement=HEALTH, since_ns=now_ns() - DAY_NS)
    return {d: patience(known.get(d), heard.get(d), health.get(d, ())) for d in device_ids}


class Remembered(Generic[V]):
    """Something of every device, which `ask` reads of the telemetry since a time. Who asks a store that takes long to
    tell gets what was known, while what is newer is read: a list of thousands need not wait for it.
    """

    def __init__(self, ask: Callable[[Telemetry, int], Mapping[str, V]], back_ns: int) -> None:
        self._ask, self._back_ns = ask, back_ns
        self._lock = threading.Lock()
        self._known: Mapping[str, V] = {}
        self._read_at = self._whole_at = self._took_s = float("-inf")
        self._reading: threading.Thread | None = None

    def look(self, center: Center) -> Mapping[str, V]:
        """By device. Raises StoreError."""
        with self._lock:
            age = time.monotonic() - self._read_at
            if self._took_s < QUICK_S or age > OLD_S:
                self._read(center.telemetry)
            elif age > AGAIN * self._took_s and not (self._reading and self._reading.is_alive()):
                self._reading = threading.Thread(target=self._read_again, args=(center.telemetry,), daemon=True)
                self._reading.start()
            return self._known

    def _read(self, telemetry: Telemetry) -> None:
        began = time.monotonic()
        whole = self._took_s < QUICK_S or began - self._whole_at > WHOLE_EVERY_S
        found = self._ask(telemetry, now_ns() - (self._back_ns if whole else HOUR_NS))
        self._read_at = time.monotonic()
        if whole:
            self._whole_at, self._took_s = began, self._read_at - began
        self._known = found if whole else {**self._known, **found}

    def _read_again(self, telemetry: Telemetry) -> None:
        try:
            self._read(telemetry)
        except Exception as error:  # noqa: BLE001 - whoever asks once it is old meets it too
            log.debug("%s", error)


def seen() -> Mapping[str, int]:
    """When each device was heard of last (Unix ns)."""
    return cast("Remembered[int]", current_app.extensions[SEEN]).look(current_center())


def healths() -> Mapping[str, Mapping[str, float]]:
    """What the agent of each device said last of FIELDS, within a day."""
    return cast("Remembered[Mapping[str, float]]", current_app.extensions[HEALTHS]).look(current_center())


def opened(device_id: str) -> None:
    """As Live.opened, of this application."""
    cast("Live", current_app.extensions[EXTENSION]).opened(device_id)


def look(device_id: str) -> Latest:
    """As Live.look, of this application."""
    return cast("Live", current_app.extensions[EXTENSION]).look(current_center(), device_id)


def init_app(app: Flask) -> None:
    app.extensions[EXTENSION] = Live()
    app.extensions[SEEN] = Remembered(lambda telemetry, since: telemetry.last_seen(since_ns=since), LOOK_BACK_NS)
    app.extensions[HEALTHS] = Remembered(lambda telemetry, since: telemetry.health(FIELDS, since_ns=since), DAY_NS)
