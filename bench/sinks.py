"""Where the measured points go: an InfluxDB named by INFLUXDB_V2_URL, _TOKEN and _ORG, else VictoriaMetrics if it is
installed, else only a server that counts.
"""

from __future__ import annotations

import json
import os
import shutil
import socket
import subprocess
import sys
import time
import urllib.error
import urllib.request
import uuid
from contextlib import contextmanager
from dataclasses import dataclass
from typing import TYPE_CHECKING, Any

from agent.registration.target import Target
from agent.util.secret import Secret

if TYPE_CHECKING:
    from collections.abc import Iterator
    from pathlib import Path


@dataclass(frozen=True, slots=True)
class Sink:
    """A running server and how to write to it."""

    name: str
    target: Target

    def counts(self) -> dict[str, Any]:
        """What the counting server saw so far."""
        with urllib.request.urlopen(f"{self.target.url}/count", timeout=10) as answer:
            found: dict[str, Any] = json.load(answer)
        return found


@contextmanager
def counting(answer: str = "204") -> Iterator[Sink]:
    command = [sys.executable, "-m", "bench.counting", "--answer", answer]
    with subprocess.Popen(command, stdout=subprocess.PIPE, text=True) as process:
        try:
            assert process.stdout is not None
            port = int(process.stdout.readline())
            yield Sink("a counting server", Target(f"http://127.0.0.1:{port}", "org", "bench", Secret("token")))
        finally:
            process.kill()


@contextmanager
def influxdb() -> Iterator[Sink]:
    """A bucket of its own in the InfluxDB of the environment, removed in the end."""
    from influxdb_client.client.influxdb_client import InfluxDBClient

    url, token, org = (os.environ[f"INFLUXDB_V2_{name}"] for name in ("URL", "TOKEN", "ORG"))
    with InfluxDBClient(url, token, org=org, timeout=60_000) as client:
        version = str(client.version()).lstrip("v")
        bucket = client.buckets_api().create_bucket(bucket_name=f"bench-{uuid.uuid4().hex[:8]}", org=org)
        try:
            yield Sink(f"InfluxDB {version}", Target(url, org, bucket.name, Secret(token)))
        finally:
            client.buckets_api().delete_bucket(bucket)


@contextmanager
def victoria(folder: Path) -> Iterator[Sink]:
    with socket.create_server(("127.0.0.1", 0)) as free:
        port = free.getsockname()[1]
    url, data = f"http://127.0.0.1:{port}", folder / "victoria"
    command = ["victoria-metrics", f"-httpListenAddr=127.0.0.1:{port}", f"-storageDataPath={data}"]
    command += ["-retentionPeriod=100y", "-dedup.minScrapeInterval=1ms"]
    with subprocess.Popen(command, stderr=subprocess.DEVNULL) as process:
        try:
            answers(f"{url}/health")
            yield Sink("VictoriaMetrics", Target(url, "org", "bench", Secret("token")))
        finally:
            process.terminate()
            process.wait(30)
            shutil.rmtree(data, ignore_errors=True)


def answers(url: str) -> None:
    until = time.monotonic() + 20
    while True:
        try:
            urllib.request.urlopen(url, timeout=1).close()
        except (urllib.error.URLError, OSError):
            if time.monotonic() > until:
                raise
            time.sleep(0.05)
        else:
            return


@contextmanager
def database(folder: Path) -> Iterator[Sink | None]:
    """A real database, if there is one."""
    if all(os.environ.get(f"INFLUXDB_V2_{name}") for name in ("URL", "TOKEN", "ORG")):
        with influxdb() as sink:
            yield sink
    elif shutil.which("victoria-metrics"):
        with victoria(folder) as sink:
            yield sink
    else:
        yield None
