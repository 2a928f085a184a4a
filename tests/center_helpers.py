"""Centers to test against: the embedded one always, InfluxDB where INFLUXDB_V2_URL, _TOKEN and _ORG name one."""

import contextlib
import html
import os
import re
import secrets
import socket
import subprocess
import time
import urllib.request

from werkzeug.security import generate_password_hash

from agent.util.secret import Secret
from center.app import open_stores
from center.pages.virtual import point_at
from center.settings import EmbeddedSettings, InfluxSettings, ServerSettings, Settings, VictoriaSettings
from center.stores.telemetry import Point, SeriesQuery
from center.times import MAX_TIME, now_ns

SECOND = 1_000_000_000
HOUR = 3600 * SECOND
DAY = 24 * HOUR
PASSWORD = "correct horse battery"
HASH = generate_password_hash(PASSWORD, method="pbkdf2:sha256:1000")  # quick: the strong one is tried once


def embedded_settings(folder, **server):
    return Settings(
        embedded=True, store=EmbeddedSettings(data=str(folder)), server=ServerSettings(port=0, threads=4, **server)
    )


@contextlib.contextmanager
def influx_settings(**server):
    """Settings of two fresh buckets, removed with their authorizations afterwards."""
    from influxdb_client.client.influxdb_client import InfluxDBClient

    from center.influx.client import find_org

    url, token, org = (os.environ[f"INFLUXDB_V2_{name}"] for name in ("URL", "TOKEN", "ORG"))
    suffix = secrets.token_hex(4)
    names = (f"test_telemetry_{suffix}", f"test_auth_{suffix}")
    with InfluxDBClient(url, token, org=org) as client:
        org_id = find_org(client, org)
        buckets = [client.buckets_api().create_bucket(bucket_name=name, org=org_id) for name in names]
        try:
            yield Settings(
                influxdb=InfluxSettings(url=url, token=Secret(token), org=org, bucket=names[0], bucket_auth=names[1]),
                server=ServerSettings(port=0, threads=4, session_key=Secret("test"), **server),
            )
        finally:
            ids = {bucket.id for bucket in buckets}
            for name in names:  # by name: a test may have made them anew
                for bucket in client.buckets_api().find_buckets(name=name, org_id=org_id).buckets:
                    ids.add(bucket.id)
                    client.buckets_api().delete_bucket(bucket)
            for found in client.authorizations_api().find_authorizations():
                if any(p.resource.id in ids for p in found.permissions):
                    client.authorizations_api().delete_authorization(found.id)


@contextlib.contextmanager
def victoria(folder, *options, port=None):
    """The address of a VictoriaMetrics of its own."""
    if port is None:
        with socket.create_server(("127.0.0.1", 0)) as free:
            port = free.getsockname()[1]
    url = f"http://127.0.0.1:{port}"
    command = ["victoria-metrics", f"-httpListenAddr=127.0.0.1:{port}", f"-storageDataPath={folder / 'victoria'}"]
    command += ["-retentionPeriod=100y", "-dedup.minScrapeInterval=1ms", "-memory.allowedBytes=64MB", *options]
    with (folder / "victoria.log").open("a") as log, subprocess.Popen(command, stdout=log, stderr=log) as server:
        try:
            until = time.monotonic() + 30
            while not answers(f"{url}/health"):
                assert time.monotonic() < until, (folder / "victoria.log").read_text()[-2000:]
                time.sleep(0.05)
            yield url
        finally:
            server.terminate()


def answers(url):
    with contextlib.suppress(OSError), urllib.request.urlopen(url, timeout=20) as answer:
        return answer.status == 200
    return False


@contextlib.contextmanager
def victoria_settings(folder, **server):
    """Series on VictoriaMetrics, registrations in a SQLite file."""
    with victoria(folder) as url:
        yield Settings(
            victoria=VictoriaSettings(url=url),
            store=EmbeddedSettings(data=str(folder / "center")),
            server=ServerSettings(port=0, threads=4, **server),
        )


def seen_at_once(telemetry):
    """VictoriaMetrics shows what it took after about a second, or when it is told to."""
    if hasattr(telemetry, "victoria"):
        write = telemetry.write
        telemetry.write = lambda points: (write(points), answers(f"{telemetry.victoria.url}/internal/force_flush"))[0]


@contextlib.contextmanager
def stores(settings):
    with contextlib.closing(open_stores(settings)) as center:
        seen_at_once(center.telemetry)
        yield center.registry, center.telemetry


def jobs_wait(database, count):
    """Until so many jobs wait for the writing thread, which is busy. No door tells: nobody else has to know."""
    until = time.monotonic() + 30
    while database._jobs.qsize() < count:
        assert time.monotonic() < until
        time.sleep(0.001)


def points_of(telemetry, device_id):
    """Time → field → value of everything that is stored of a device, in the order of time."""
    found = {}
    for curve in telemetry.series(SeriesQuery(device_id, -MAX_TIME, MAX_TIME)):
        for at, value in zip(curve.times_ns, curve.values, strict=True):
            found.setdefault(at, {})[curve.field] = value
    return dict(sorted(found.items()))


def code(answer):
    """Status and code of an error, which has the one form."""
    assert set(answer.json) >= {"code", "message"}, answer.text
    assert answer.json["message"]
    return answer.status_code, answer.json["code"]


def measured(center, device_id, minutes=60, ago_s=0):
    """Minutes of weather, the last of them `ago_s` seconds ago."""
    last = now_ns() // 10**9 - ago_s
    center.telemetry.write([point_at(device_id, last - 60 * i) for i in range(minutes)])


def written(client, token, line=""):
    """The status of a write to the embedded store's endpoint."""
    headers = {"Authorization": f"Token {token}"}
    return client.post("/api/v2/write?org=iot-center&bucket=iot_center", data=line, headers=headers).status_code


def text_of(answer):
    """What a page says, without its tags."""
    return " ".join(html.unescape(re.sub(r"<[^>]+>", " ", answer.text)).split())


def environment(device, t, *, tags=None, **fields):
    tags = {"clientId": device, "device": device} | (tags or {})
    return Point("environment", {k: v for k, v in tags.items() if v}, fields, t)
