"""A backlog of 200,000 points arrives in real databases, each exactly once."""

import json
import os
import socket
import subprocess
import time
import urllib.error
import urllib.parse
import urllib.request
import uuid
from contextlib import contextmanager

import pytest

from agent.buffer.buffer import open_buffer
from agent.clock.boots import Boots, current_boot_id
from agent.clock.clock import Clock
from agent.config.settings import BufferSettings, DeliverySettings
from agent.config.units import Seconds
from agent.delivery.delivery import Delivery
from agent.points.schema import Line
from agent.registration.target import Target
from agent.util.secret import Secret
from tests.buffers import store

COUNT = 200_000
MS = 1_000_000
UNHURRIED = DeliverySettings(timeout=Seconds(60))  # on a loaded machine an answer may take as long


def deliver(folder, target, device, start_ms, count=COUNT):
    """Store a backlog of a point each 100 ms from `start_ms` on, and deliver it. Requests it took."""
    status, requests = delivered(folder, target, device, [start_ms + n * 100 for n in range(count)])
    assert status.counters.points.delivered == count
    return requests


def delivered(folder, target, device, times_ms):
    """Deliver a backlog of points of these times. What the buffer says in the end, and the requests it took."""
    clock = Clock(Boots(None, current_boot_id()), trust="always")
    clock.poll()
    buffer = open_buffer(folder, BufferSettings(), clock)
    tags = f"clientId={device},device={device},TemperatureSensor=bme280,HumiditySensor=bme280,PressureSensor=bme280"
    head = f"environment,{tags} Temperature=21.5,Humidity=40.25,Pressure=1001.5".encode()
    store(buffer, [Line(head, 0, time_ms * MS) for time_ms in times_ms])
    delivery = Delivery(buffer, lambda: target, clock, UNHURRIED, lambda: None)
    try:
        deadline = time.monotonic() + 100
        while buffer.snapshot().pending:
            assert time.monotonic() < deadline, delivery.snapshot()
            time.sleep(min(delivery.step(), 0.25))
        buffer.commit_all()
        status = buffer.snapshot()
        assert (status.pending, status.unaccounted) == (0, 0)
        return status, delivery.snapshot().requests
    finally:
        delivery.close()
        buffer.close()


@pytest.fixture
def victoria(tmp_path):
    with socket.create_server(("127.0.0.1", 0)) as free:
        port = free.getsockname()[1]
    url = f"http://127.0.0.1:{port}"
    command = ["victoria-metrics", f"-httpListenAddr=127.0.0.1:{port}", f"-storageDataPath={tmp_path / 'victoria'}"]
    with (
        (tmp_path / "victoria.log").open("w") as log,
        subprocess.Popen([*command, "-retentionPeriod=1y"], stderr=log) as server,
    ):
        try:
            until = time.monotonic() + 20
            while True:
                try:
                    with urllib.request.urlopen(f"{url}/health", timeout=1):
                        break
                except (urllib.error.URLError, OSError):
                    assert time.monotonic() < until, (tmp_path / "victoria.log").read_text()
                    time.sleep(0.05)
            yield url
        finally:
            server.terminate()
            server.wait(20)


@pytest.mark.victoria
def test_promise_8_victoria_metrics_has_each_point_of_a_backlog_exactly_once(tmp_path, victoria):
    start_ms = int(time.time() - 86_400) * 1000
    assert deliver(tmp_path / "buffer", Target(victoria, "", "any", Secret("none")), "pi-1", start_ms) <= 50
    expected = [start_ms + n * 100 for n in range(COUNT)]
    until = time.monotonic() + 60
    while sum(map(len, (stamps := exported(victoria, start_ms)).values())) < 3 * COUNT:
        assert time.monotonic() < until, {name: len(found) for name, found in stamps.items()}
        time.sleep(0.5)  # it shows a moment later what it took
    assert sorted(stamps) == ["environment_Humidity", "environment_Pressure", "environment_Temperature"]
    assert all(sorted(found) == expected for found in stamps.values())


def exported(victoria, start_ms):
    """The stamps of each metric of pi-1. Nothing is merged here: what was sent twice is there twice."""
    urllib.request.urlopen(f"{victoria}/internal/force_flush", timeout=20).close()
    asked = urllib.parse.urlencode(
        {"match[]": '{__name__=~"environment_.*",clientId="pi-1"}', "start": start_ms // 1000}
    )
    stamps = {}
    with urllib.request.urlopen(f"{victoria}/api/v1/export?{asked}", timeout=60) as answer:
        for part in map(json.loads, answer):
            stamps.setdefault(part["metric"]["__name__"], []).extend(part["timestamps"])
    return stamps


@contextmanager
def influxdb_bucket(**options):
    """A client, and the target of a bucket of its own in the named InfluxDB."""
    from influxdb_client import InfluxDBClient

    url, token, org = (os.environ[f"INFLUXDB_V2_{name}"] for name in ("URL", "TOKEN", "ORG"))
    name = f"test-{uuid.uuid4().hex[:8]}"
    with InfluxDBClient(url, token, org=org, timeout=60_000) as client:
        made = client.buckets_api().create_bucket(bucket_name=name, org=org, **options)
        try:
            yield client, Target(url, org, name, Secret(token))
        finally:
            client.buckets_api().delete_bucket(made)


def counted(client, target, device):
    """How many values of each field the bucket has of a device."""
    flux = "from(bucket: b) |> range(start: 0) |> filter(fn: (r) => r.clientId == d) |> count()"
    tables = client.query_api().query(flux, params={"b": target.bucket, "d": device})
    return {row.values["_field"]: row.get_value() for table in tables for row in table.records}


@pytest.mark.influxdb
def test_promise_8_influxdb_has_each_point_of_a_backlog_exactly_once(tmp_path):
    device = f"backlog-{uuid.uuid4().hex[:8]}"
    start_ms = int(time.time() - 86_400) * 1000
    with influxdb_bucket() as (client, target):
        assert deliver(tmp_path / "buffer", target, device, start_ms) <= 50
        assert counted(client, target, device) == {"Temperature": COUNT, "Humidity": COUNT, "Pressure": COUNT}


@pytest.mark.influxdb
def test_promise_8_at_the_edge_of_retention_influxdb_has_what_is_counted_as_delivered(tmp_path):
    device, now_ms = f"edge-{uuid.uuid4().hex[:8]}", int(time.time() * 1000)
    times_ms = [now_ms - n * 60_000 for n in range(400)]
    with influxdb_bucket(retention_rules=[{"type": "expire", "everySeconds": 5400}]) as (client, target):
        status, requests = delivered(tmp_path / "buffer", target, device, times_ms)
        assert counted(client, target, device)["Temperature"] == status.counters.points.delivered
    assert status.counters.points.delivered + status.counters.points.rejected == 400
    assert status.counters.points.rejected >= 249
    assert requests <= 3
