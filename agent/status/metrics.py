"""A snapshot as Prometheus metrics. Names carry their unit.

Source: https://prometheus.io/docs/practices/naming/
"""

from __future__ import annotations

from collections.abc import Iterator, Mapping
from functools import partial
from typing import Any, TypeVar

from prometheus_client import generate_latest
from prometheus_client.core import CounterMetricFamily, GaugeMetricFamily, InfoMetricFamily
from prometheus_client.metrics_core import Metric
from prometheus_client.registry import Collector

from agent.status.health_rules import standing, troubles
from agent.status.words import WAITING, oldest_age_s
from drivers.base import QUANTITIES

_Family = TypeVar("_Family", GaugeMetricFamily, CounterMetricFamily)
CONTENT_TYPE = "text/plain; version=0.0.4; charset=utf-8"


def exposition(snapshot: Mapping[str, Any]) -> bytes:
    """The text format, version 0.0.4."""
    return generate_latest(_Snapshot(snapshot))


class _Snapshot(Collector):
    def __init__(self, snapshot: Mapping[str, Any]) -> None:
        self._snapshot = snapshot

    def collect(self) -> Iterator[Metric]:
        snapshot, now = self._snapshot, self._snapshot.get("boot_ns", 0)
        yield InfoMetricFamily(
            "iot_agent",
            "Version and device id",
            {"version": str(snapshot.get("version", "")), "device": str(snapshot.get("device_id", ""))},
        )
        yield _gauge("uptime_seconds", "Since the agent started", snapshot.get("uptime_s"))
        yield from _ledger(snapshot.get("ledger") or {})
        yield from _buffer(snapshot.get("buffer") or {}, oldest_age_s(snapshot))
        yield from _delivery(snapshot.get("delivery") or {}, now)
        registration = snapshot.get("registration")
        if registration:
            state = registration.get("state") == "registered"
            yield _gauge("registered", "1 while there is a token that the server has not refused", state)
        if mqtt := snapshot.get("mqtt"):
            yield _gauge("mqtt_connected", "1 while there is a connection to the broker", mqtt["state"] == "connected")
            yield _counter("mqtt_published", "Messages that the broker has acknowledged", mqtt["published"])
        clock = snapshot.get("clock") or {}
        yield _gauge("clock_good", "1 once the clock is known to be right", clock.get("good"))
        yield _gauge("clock_error_seconds", "Bound of the clock's error", clock.get("clock_error_s"))
        yield from _sensors(snapshot)


def _single(kind: type[_Family], name: str, text: str, value: float | None) -> _Family:
    return kind(f"iot_agent_{name}", text, value=None if value is None else float(value))


def _labelled(kind: type[_Family], name: str, text: str, label: str, values: Mapping[str, float | None]) -> _Family:
    family = kind(f"iot_agent_{name}", text, labels=[label])
    for key, value in values.items():
        if value is not None:
            family.add_metric([key], float(value))
    return family


_gauge = partial(_single, GaugeMetricFamily)
_counter = partial(_single, CounterMetricFamily)


def _ledger(ledger: Mapping[str, Any]) -> Iterator[Metric]:
    yield _counter("points_measured", "Points measured, since the state folder was made", ledger.get("measured"))
    yield _counter("points_delivered", "Points that the server has acknowledged", ledger.get("delivered"))
    yield _counter("points_rejected", "Points that the server refused for good, kept apart", ledger.get("rejected"))
    dropped = dict(sorted((ledger.get("dropped_by_reason") or {}).items()))
    yield _labelled(CounterMetricFamily, "points_dropped", "Points given up, by reason", "reason", dropped)
    yield _gauge("points_pending", "Points that wait to be delivered", ledger.get("pending"))
    yield _gauge("points_unaccounted", "Measured minus all the others: 0, or a bug", ledger.get("unaccounted"))
    yield _counter(
        "uncounted_seconds", "Seconds before unclean stops that no counter covers", ledger.get("uncounted_s")
    )


def _buffer(buffer: Mapping[str, Any], age_s: float | None) -> Iterator[Metric]:
    where = {"memory": buffer.get("pending_memory"), "disk": buffer.get("pending_disk")}
    yield _labelled(GaugeMetricFamily, "buffer_points", "Points that wait, by where they are", "where", where)
    for key, text in WAITING.items():
        yield _gauge(f"buffer_{key}_points", f"Points that {text}", buffer.get(key))
    yield _gauge("buffer_disk_bytes", "What the waiting points take on disk", buffer.get("disk_bytes"))
    yield _gauge("buffer_file_bytes", "Size of the buffer's file", buffer.get("file_bytes"))
    yield _gauge("buffer_disk_ok", "1 while the disk takes what is written", buffer.get("disk_ok"))
    yield _gauge("buffer_commit_seconds", "How long the last commit took", buffer.get("commit_s"))
    yield _gauge("buffer_oldest_age_seconds", "Age of the oldest point that waits", age_s)


def _delivery(delivery: Mapping[str, Any], now: int) -> Iterator[Metric]:
    yield _gauge("delivery_ok", "1 while the server takes what is sent", delivery.get("state") == "delivering")
    last = delivery.get("last_success_boot_ns")
    yield _gauge(
        "delivery_last_success_age_seconds",
        "Since the server last took points",
        None if last is None else (now - last) / 1e9,
    )
    yield _gauge("delivery_failures_in_a_row", "Attempts that failed since the last success", delivery.get("failures"))
    yield _counter("delivery_requests", "Write requests sent", delivery.get("requests"))
    yield _counter("delivery_sent_bytes", "Bytes of the requests' bodies, compressed", delivery.get("bytes_sent"))


def _sensors(snapshot: Mapping[str, Any]) -> Iterator[Metric]:
    sensors, now = snapshot.get("sensors") or [], snapshot.get("boot_ns", 0)
    counters = {
        "readings": "Readings taken",
        "missed": "Scheduled readings that did not take place",
        "implausible": "Readings refused as implausible",
        "errors": "Attempts to read that failed",
    }
    for key, text in counters.items():
        yield _labelled(CounterMetricFamily, f"sensor_{key}", text, "sensor", {s["name"]: s.get(key) for s in sensors})
    by_sensor = partial(_labelled, GaugeMetricFamily, label="sensor")
    dead = {trouble.sensor for trouble in troubles(snapshot) if not trouble.quantity}
    works = {s["name"]: s["name"] not in dead for s in sensors}
    yield by_sensor("sensor_ok", "1 while the sensor is read", values=works)
    ages = {s["name"]: (now - s["boot_ns"]) / 1e9 for s in sensors if s.get("boot_ns") is not None}
    yield by_sensor("sensor_reading_age_seconds", "Since the last reading", values=ages)
    for key, text in (("refused", "1 while a quantity is refused"), ("stuck", "1 while a quantity seems stuck")):
        family = GaugeMetricFamily(f"iot_agent_sensor_{key}", text, labels=["sensor", "quantity"])
        for sensor in sensors:
            for field in sorted({*sensor["values"], *sensor["refused"], *sensor["stuck"]}):
                family.add_metric([sensor["name"], field], float(field in sensor[key]))
        yield family
    current = {s["name"]: standing(s, now) for s in sensors}
    for field, quantity in QUANTITIES.items():
        values = {name: found[field] for name, found in current.items() if field in found}
        if values and quantity.metric:
            yield by_sensor(quantity.metric, f"{quantity.shown} in {quantity.unit}", values=values)
