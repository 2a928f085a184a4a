"""A snapshot as Prometheus metrics. Names carry their unit; the list with its help texts is what METRICS says.

Source: https://prometheus.io/docs/practices/naming/
"""

from __future__ import annotations

from typing import TYPE_CHECKING, Any

from prometheus_client import CollectorRegistry, generate_latest
from prometheus_client.core import CounterMetricFamily, GaugeMetricFamily, InfoMetricFamily
from prometheus_client.registry import Collector

from agent.status.history import label

if TYPE_CHECKING:
    from collections.abc import Iterator, Mapping

    from prometheus_client.metrics_core import Metric

CONTENT_TYPE = "text/plain; version=0.0.4; charset=utf-8"
VALUES = {
    "Temperature": ("temperature_celsius", "Air temperature"),
    "Humidity": ("humidity_percent", "Relative humidity"),
    "Pressure": ("pressure_hectopascals", "Air pressure at the sensor"),
    "PressureSeaLevel": ("sea_level_pressure_hectopascals", "Air pressure reduced to sea level"),
    "DewPoint": ("dew_point_celsius", "Dew point"),
    "CO2": ("co2_ppm", "Carbon dioxide, parts per million"),
    "TVOC": ("tvoc_ppb", "Volatile organic compounds, parts per billion"),
}


def exposition(snapshot: Mapping[str, Any], now_boot_ns: int) -> bytes:
    """The text format, version 0.0.4."""
    registry = CollectorRegistry()
    registry.register(_Snapshot(snapshot, now_boot_ns))
    return generate_latest(registry)


class _Snapshot(Collector):
    def __init__(self, snapshot: Mapping[str, Any], now_boot_ns: int) -> None:
        self._snapshot, self._now = snapshot, now_boot_ns

    def describe(self) -> list[Metric]:
        return []

    def collect(self) -> Iterator[Metric]:
        snapshot, now = self._snapshot, self._now
        yield InfoMetricFamily(
            "iot_agent",
            "Version and device id",
            {"version": str(snapshot.get("version", "")), "device": str(snapshot.get("device_id", ""))},
        )
        yield _gauge("uptime_seconds", "Since the agent started", snapshot.get("uptime_s"))
        yield from _ledger(snapshot.get("ledger") or {})
        yield from _buffer(snapshot.get("buffer") or {}, snapshot.get("at"))
        yield from _delivery(snapshot.get("delivery") or {}, now)
        registration = snapshot.get("registration")
        if registration:
            state = registration.get("state") == "registered"
            yield _gauge("registered", "1 while there is a token that the server has not refused", state)
        clock = snapshot.get("clock") or {}
        yield _gauge("clock_good", "1 once the clock is known to be right", clock.get("good"))
        error = clock.get("error_ns")
        yield _gauge("clock_error_seconds", "Bound of the clock's error", None if error is None else error / 1e9)
        yield from _sensors(snapshot.get("sensors") or [], now)


def _gauge(name: str, text: str, value: float | None) -> GaugeMetricFamily:
    family = GaugeMetricFamily(f"iot_agent_{name}", text)
    if value is not None:
        family.add_metric([], float(value))
    return family


def _counter(name: str, text: str, value: float | None) -> CounterMetricFamily:
    family = CounterMetricFamily(f"iot_agent_{name}", text)
    if value is not None:
        family.add_metric([], float(value))
    return family


def _ledger(ledger: Mapping[str, Any]) -> Iterator[Metric]:
    yield _counter("points_measured", "Points measured, since the state folder was made", ledger.get("measured"))
    yield _counter("points_delivered", "Points that the server has acknowledged", ledger.get("delivered"))
    yield _counter("points_rejected", "Points that the server refused for good, kept apart", ledger.get("rejected"))
    dropped = CounterMetricFamily("iot_agent_points_dropped", "Points given up, by reason", labels=["reason"])
    for reason, count in sorted((ledger.get("dropped_by_reason") or {}).items()):
        dropped.add_metric([str(reason)], float(count))
    yield dropped
    yield _gauge("points_pending", "Points that wait to be delivered", ledger.get("pending"))
    yield _gauge("points_unaccounted", "Measured minus all the others: 0, or a bug", ledger.get("unaccounted"))
    yield _counter(
        "uncounted_seconds", "Seconds before unclean stops that no counter covers", ledger.get("uncounted_s")
    )


def _buffer(buffer: Mapping[str, Any], at: float | None) -> Iterator[Metric]:
    where = GaugeMetricFamily("iot_agent_buffer_points", "Points that wait, by where they are", labels=["where"])
    for name, key in (("memory", "pending_memory"), ("disk", "pending_disk")):
        if buffer.get(key) is not None:
            where.add_metric([name], float(buffer[key]))
    yield where
    for key, text in (
        ("undated", "Points that wait for the time to be known"),
        ("parked", "Points that the server refuses without saying why; tried again slowly"),
        ("dead_letters", "Refused points that are kept"),
    ):
        yield _gauge(f"buffer_{key}_points", text, buffer.get(key))
    yield _gauge("buffer_disk_bytes", "What the waiting points take on disk", buffer.get("disk_bytes"))
    yield _gauge("buffer_file_bytes", "Size of the buffer's file", buffer.get("file_bytes"))
    yield _gauge("buffer_disk_ok", "1 while the disk takes what is written", buffer.get("disk_ok"))
    yield _gauge("buffer_commit_seconds", "How long the last commit took", buffer.get("commit_s"))
    oldest = buffer.get("oldest_ns")
    age = None if oldest is None or at is None else max(0.0, at - oldest / 1e9)
    yield _gauge("buffer_oldest_age_seconds", "Age of the oldest point that waits", age)


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


def _sensors(sensors: list[Mapping[str, Any]], now: int) -> Iterator[Metric]:
    counters = {
        "readings": "Readings taken",
        "missed": "Scheduled readings that did not take place",
        "implausible": "Readings refused as implausible",
        "errors": "Attempts to read that failed",
    }
    for key, text in counters.items():
        family = CounterMetricFamily(f"iot_agent_sensor_{key}", text, labels=["sensor"])
        for sensor in sensors:
            if sensor.get(key) is not None:
                family.add_metric([label(sensor)], float(sensor[key]))
        yield family
    ok = GaugeMetricFamily("iot_agent_sensor_ok", "1 while the sensor can be read", labels=["sensor"])
    age = GaugeMetricFamily("iot_agent_sensor_reading_age_seconds", "Since the last reading", labels=["sensor"])
    for sensor in sensors:
        ok.add_metric([label(sensor)], float(sensor.get("failing_since_boot_ns") is None))
        if sensor.get("boot_ns") is not None:
            age.add_metric([label(sensor)], (now - sensor["boot_ns"]) / 1e9)
    yield ok
    yield age
    for field, (name, text) in VALUES.items():
        family_ = GaugeMetricFamily(f"iot_agent_{name}", text, labels=["sensor"])
        for sensor in sensors:
            if field in sensor.get("values", {}) and sensor.get("failing_since_boot_ns") is None:
                family_.add_metric([label(sensor)], float(sensor["values"][field]))
        if family_.samples:
            yield family_
