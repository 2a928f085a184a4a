"""One center on each store in turn: `python -m bench.scale` prints the table of docs/scale.md.

For each store a center of its own as a process; a month of one device written in large batches; a fleet by
`iot-agent simulate`; then how long the first page of devices and a month of that device take. InfluxDB is measured
where INFLUXDB_V2_URL, _TOKEN and _ORG name one, VictoriaMetrics where it is installed. Some three minutes for each.
"""

from __future__ import annotations

import json
import os
import shutil
import statistics
import subprocess
import sys
import time
import urllib.error
import urllib.request
import uuid
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path
from typing import Any

import click

from agent.buffer.rows import compress
from agent.fleet.center import free_port
from agent.registration.target import Target
from agent.util.secret import Secret
from bench import agents, serving, sinks, table

DEVICE = "month"
BATCH = 5000
EVERY_S = 10
SECOND = 1_000_000_000
ASKED = 7
FIGURES = (
    ("registrations a second, all devices at once", "registrations_per_s"),
    ("points a second, of the fleet", "points_per_s"),
    ("a write by a device, median, ms", "p50"),
    ("a write by a device, p95, ms", "p95"),
    ("errors", "errors"),
    ("devices whose delivered differs from stored", "unequal"),
    ("requests a second of one point, 8 connections", "requests_1"),
    ("requests a second of 60 points, 8 connections", "requests_60"),
    ("points a second, in batches of 5,000 by one connection", "batched_per_s"),
    ("first page of devices, ms", "page_ms"),
    ("a month of one device by hours, ms", "month_ms"),
    ("load of the machine before", "load"),
)


@contextmanager
def influxdb() -> Iterator[str]:
    """The [influxdb] table of two buckets of its own; they and the devices' authorizations are removed in the end."""
    from influxdb_client.client.influxdb_client import InfluxDBClient

    url, token, org = (os.environ[f"INFLUXDB_V2_{name}"] for name in ("URL", "TOKEN", "ORG"))
    suffix = uuid.uuid4().hex[:8]
    with InfluxDBClient(url, token, org=org, timeout=120_000) as client:
        made = [client.buckets_api().create_bucket(bucket_name=f"{n}-{suffix}", org=org) for n in ("scale", "auth")]
        values = {"url": url, "token": token, "org": org, "bucket": made[0].name, "bucket_auth": made[1].name}
        try:
            yield "[influxdb]\n" + "".join(f"{key} = {json.dumps(value)}\n" for key, value in values.items())
        finally:
            for found in client.authorizations_api().find_authorizations():
                if any(p.resource.id == made[0].id for p in found.permissions):
                    client.authorizations_api().delete_authorization(found.id)
            for bucket in made:
                client.buckets_api().delete_bucket(bucket)


@contextmanager
def store(name: str, folder: Path) -> Iterator[str]:
    """What center.toml says of a store that runs."""
    data = f"[embedded]\ndata = {json.dumps(str(folder / 'center'))}\n"
    if name == "embedded":
        yield f"{data}enabled = true\n"
    elif name == "VictoriaMetrics":
        with sinks.victoria(folder) as sink:
            yield f'{data}[victoria]\nurl = "{sink.target.url}"\n'
    else:
        with influxdb() as influx:
            yield influx


@contextmanager
def center(settings: str, folder: Path) -> Iterator[str]:
    """A center as a process, on loopback."""
    port = free_port(15_000)
    config = folder / "center.toml"
    config.write_text(f"[server]\nport = {port}\n{settings}")
    config.chmod(0o600)
    command = [sys.executable, "-m", "center", "serve", "--config", str(config)]
    with (folder / "center.log").open("wb") as log, subprocess.Popen(command, stdout=log, stderr=log) as process:
        try:
            sinks.answers(f"http://127.0.0.1:{port}/health")
            yield f"http://127.0.0.1:{port}"
        finally:
            process.terminate()


def asked(url: str, body: bytes | None = None, **headers: str) -> bytes:
    with urllib.request.urlopen(urllib.request.Request(url, body, headers), timeout=300) as answer:
        found: bytes = answer.read()
    return found


def write_month(target: Target, days: int) -> float:
    """A point each 10 s of a month of one device; points a second."""
    place = f"{target.url}/api/v2/write?org={target.org}&bucket={target.bucket}"
    headers = {"Authorization": f"Token {target.token.reveal()}", "Content-Encoding": "gzip"}
    number = days * 86_400 // EVERY_S
    first = time.time_ns() // SECOND - number * EVERY_S
    head = f"environment,clientId={DEVICE},device={DEVICE},TemperatureSensor=bme280"
    took = 0.0
    for start in range(0, number, BATCH):
        lines = (
            f"{head} Temperature={20 + n % 97 / 10},Humidity={40 + n % 89 / 10},Pressure={1000 + n % 83 / 10} "
            f"{(first + n * EVERY_S) * SECOND}"
            for n in range(start, min(start + BATCH, number))
        )
        body = compress("\n".join(lines).encode())
        began = time.perf_counter()
        asked(place, body, **headers)
        took += time.perf_counter() - began
    return number / took


def milliseconds(url: str) -> float:
    """The median of some requests."""
    times = []
    for _ in range(ASKED):
        began = time.perf_counter()
        asked(url)
        times.append(time.perf_counter() - began)
    return statistics.median(times) * 1000


def measured(name: str, folder: Path, devices: int, seconds: int, days: int) -> dict[str, Any]:
    """The figures of one store."""
    load = os.getloadavg()[0]
    folder = folder / name
    folder.mkdir()
    with store(name, folder) as settings, center(settings, folder) as url:
        told = json.loads(asked(f"{url}/api/devices/{DEVICE}", b""))
        place = (told[f"influx_{key}"] for key in ("url", "org", "bucket"))
        target = Target(*place, Secret(told["token"]))
        batched = write_month(target, days)
        options = ["--devices", str(devices), "--interval", "10s", "--duration", f"{seconds}s", "--center", url]
        found = agents.output_of(*agents.AGENT, "simulate", *options, "--json", "--state-dir", str(folder / "fleet"))
        if found["registered"] != devices:
            raise RuntimeError(f"only {found['registered']} of {devices} devices registered")
        found |= found["latency_ms"] | {"batched_per_s": batched, "load": round(load, 1)}
        for size in (1, 60):
            answered, took = serving.load(sinks.Sink(name, target), size, 2.0, 0)
            found[f"requests_{size}"] = answered / took
        found["page_ms"] = milliseconds(f"{url}/devices")
        found["month_ms"] = milliseconds(f"{url}/api/devices/{DEVICE}/measurements?start=-{days}d&every=1h")
    return found


def markdown(results: dict[str, dict[str, Any]]) -> str:
    rows = ["| | " + " | ".join(results) + " |", "|---" * (len(results) + 1) + "|"]
    for text, key in FIGURES:
        rows.append(f"| {text} | " + " | ".join(table.number(float(found[key])) for found in results.values()) + " |")
    return "\n".join(rows)


def stores() -> list[str]:
    """Those that are here."""
    influx = all(os.environ.get(f"INFLUXDB_V2_{name}") for name in ("URL", "TOKEN", "ORG"))
    victoria = shutil.which("victoria-metrics")
    return ["embedded", *(["InfluxDB"] if influx else []), *(["VictoriaMetrics"] if victoria else [])]


@click.command(help=__doc__)
@click.option("--devices", default=1000, show_default=True)
@click.option("--seconds", default=60, show_default=True, help="To measure the fleet for.")
@click.option("--days", default=30, show_default=True, help="Of one device, a point each 10 s.")
@click.option("--json", "as_json", is_flag=True, help="For programs.")
@click.option("--folder", type=click.Path(path_type=Path), help="Where to work: on the disk to be measured.")
def main(*, devices: int, seconds: int, days: int, as_json: bool, folder: Path | None) -> None:
    results = {}
    for name in stores():
        print(f"{name} …", file=sys.stderr, flush=True)
        with table.work_folder(folder) as place:
            results[name] = measured(name, Path(place), devices, seconds, days)
    if as_json:
        print(json.dumps({**table.machine(), "devices": devices, "stores": results}))
        return
    print(f"{table.heading()} {devices:,} devices, a point each 10 s.\n\n{markdown(results)}")


if __name__ == "__main__":
    main()
