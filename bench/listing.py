"""How quickly the pages of a large fleet answer: `python -m bench.listing [DEVICES]`.

Devices with profiles, what their agents told, points and health, on the embedded store and on the InfluxDB that
INFLUXDB_V2_URL, _TOKEN and _ORG name; then the list of devices by every filter, asked of the application itself.
"""

from __future__ import annotations

import contextlib
import os
import statistics
import sys
import tempfile
import time
from dataclasses import replace
from pathlib import Path
from typing import TYPE_CHECKING, Any

from center.app import create_app
from center.context import EXTENSION
from center.line_protocol import encode
from center.profiles import Profile
from center.settings import EmbeddedSettings, Settings
from center.stores.registry import digest
from center.stores.telemetry import Point
from center.times import iso, now_ns

if TYPE_CHECKING:
    from collections.abc import Iterator, Sequence

SECOND = 1_000_000_000
ASKED = 9
BATCH = 5000
PAGES = {
    "first page": "/devices",
    "sorted by last point": "/devices?sort=seen",
    "silent ones": "/devices?state=silent",
    "one group": "/devices?group=House+7",
    "one sensor kind": "/devices?sensor=sht4x",
    "one version": "/devices?version=0.1.0",
    "searched by name": "/devices?search=board+77",
    "all of it": "/devices?search=dev&state=live&group=House+7&sensor=bme280&version=0.2.0&sort=-name",
    "chooser": "/devices.json?search=77",
    "fleet": "/fleet",
}


def told(number: int) -> dict[str, Any]:
    """What an agent tells of itself."""
    sensor = {"name": "bench", "kind": ("bme280", "sht4x")[number % 2], "driver": "bme280", "interval": 10.0}
    return {"version": ("0.2.0", "0.1.0")[number % 5 == 0], "address": "192.168.1.20", "sensors": [sensor]}


def points(number: int, now: int) -> Iterator[Point]:
    """Of ten devices one has none, one fell silent; a minute of values each, and one point of health."""
    device = f"dev-{number:05}"
    own = {"clientId": device, "device": device}
    if number % 10 == 9:
        return
    last = now - (number % 10 == 8) * 3600 * SECOND
    values = {"Temperature": 20.0 + number % 10, "Humidity": 50.0, "Pressure": 1000.0}
    tags = own | {"TemperatureSensor": "bme280", "HumiditySensor": "bme280", "PressureSensor": "bme280"}
    for back in range(6):
        yield Point("environment", tags, values, last - back * 10 * SECOND)
    health = {"measured": 100, "delivered": 90, "pending": number % 7, "rejected": int(number % 500 == 0), "dropped": 0}
    health |= {"unaccounted": 0, "clock_good": int(number % 100 != 0), "version": 2000, "sensors": 1, "interval": 10.0}
    yield Point("agent", own, health | {"clock_error_s": 0.01}, last)


def furnish(center: Any, devices: int) -> None:
    """Past the doors that registrations come by: ten thousand of them take no minutes so."""
    from center.profiles import _text, heard

    now = now_ns()
    ids = [f"dev-{number:05}" for number in range(devices)]
    texts = {
        "device": [_text(Profile(f"Board {n}", f"House {n % 40}")) for n in range(devices)],
        "told": [_text(replace(heard(told(n)), told_ns=now)) for n in range(devices)],
    }
    registry = center.registry
    if center.settings.embedded:
        rows = [(i, f"key-{i}", digest(None), now, now) for i in ids]
        registry.database.run(lambda c: c.executemany("INSERT INTO device VALUES (?, ?, ?, ?, ?)", rows))
        for kind, found in texts.items():
            kept = [(kind, i, text) for i, text in zip(ids, found, strict=True)]
            registry.database.run(lambda c, kept=kept: c.executemany("INSERT INTO document VALUES (?, ?, ?)", kept))
    else:
        claim = {"secretHash": "-", "createdAt": iso(now)}
        lines = []
        for n, device in enumerate(ids):
            at = now - (devices - n) * 20 * SECOND  # one after another: what came within ten seconds is read again
            lines.append(encode(Point("deviceauth", {"deviceId": device}, {"key": f"{n:016x}"} | claim, at)))
            for kind, found in texts.items():
                lines.append(encode(Point("document", {"kind": kind, "name": device}, {"text": found[n]}, at)))
        for first in range(0, len(lines), BATCH):
            registry.influx.write(registry.bucket_auth, lines[first : first + BATCH])
    batch: list[Point] = []
    for number in range(devices):
        batch += points(number, now)
        if len(batch) >= BATCH or number == devices - 1:
            center.telemetry.write(batch)
            batch = []


def measure(settings: Settings, devices: int) -> None:
    app = create_app(settings)
    center = app.extensions[EXTENSION]
    with contextlib.closing(center):
        began = time.perf_counter()
        furnish(center, devices)
        print(f"  made in {time.perf_counter() - began:.1f} s", flush=True)
        client = app.test_client()
        for name, path in PAGES.items():
            took, worked = [], []
            for _ in range(ASKED):
                began, before = time.perf_counter(), time.thread_time()
                answer = client.get(path)
                took.append(1000 * (time.perf_counter() - began))
                worked.append(1000 * (time.thread_time() - before))
                assert answer.status_code == 200, (path, answer.status_code)
            then, cpu = statistics.median(took[1:]), statistics.median(worked[1:])
            print(f"  {name:22} first {took[0]:5.0f} ms, then {then:4.0f} ms, {cpu:4.0f} ms of CPU", flush=True)


def main(arguments: Sequence[str]) -> None:
    from tests.center_helpers import influx_settings

    devices = int(arguments[0]) if arguments else 10_000
    with tempfile.TemporaryDirectory() as folder:
        print(f"load {os.getloadavg()[0]:.1f} on {os.cpu_count()} processors\nembedded, {devices} devices")
        measure(Settings(embedded=True, store=EmbeddedSettings(data=str(Path(folder) / "center"))), devices)
    if os.environ.get("INFLUXDB_V2_URL"):
        print(f"InfluxDB, {devices} devices")
        with influx_settings() as settings:
            measure(settings, devices)


if __name__ == "__main__":
    main(sys.argv[1:])
