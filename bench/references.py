"""What the agent is compared with: the plain client in a loop, influxdb-client's own batching, append + fdatasync, and
Telegraf where there is one.

`python -m bench.references loop|batching URL ORG BUCKET` writes a point a second until it is stopped; the token is in
BENCH_TOKEN.
"""

from __future__ import annotations

import os
import shutil
import sys
import time
from typing import TYPE_CHECKING, Any

if TYPE_CHECKING:
    from collections.abc import Sequence
    from pathlib import Path

    from agent.registration.target import Target

LOOP, BATCHING, APPEND, TELEGRAF = "plain client in a loop", "WriteApi batching", "append + fdatasync", "Telegraf"
NO_TELEGRAF = "no telegraf on PATH"


def client(target: Target, *, gzip: bool = False) -> Any:
    from influxdb_client.client.influxdb_client import InfluxDBClient

    return InfluxDBClient(target.url, target.token.reveal(), org=target.org, timeout=30_000, enable_gzip=gzip)


def loop_ready(target: Target, bodies: Sequence[bytes]) -> None:
    """The plain loop with the least work there can be: batches that are gzipped already, one request after another."""
    from influxdb_client.service.write_service import WriteService

    with client(target) as known:
        service = WriteService(known.api_client)
        for body in bodies:
            service.post_write(target.org, target.bucket, body, precision="ns", content_encoding="gzip")


def loop_lines(target: Target, lines: Sequence[bytes]) -> None:
    """A request for each line."""
    from influxdb_client.client.write_api import SYNCHRONOUS

    with client(target) as known, known.write_api(write_options=SYNCHRONOUS) as api:
        for line in lines:
            api.write(target.bucket, record=line.decode())


def batching(target: Target, blocks: Sequence[Sequence[str]], *, size: int = 5000, gzip: bool = True) -> None:
    """influxdb-client's batching mode in the background, until all is sent."""
    from influxdb_client.client.write_api import WriteOptions

    with (
        client(target, gzip=gzip) as known,
        known.write_api(write_options=WriteOptions(batch_size=size, flush_interval=5000)) as api,
    ):
        for block in blocks:
            api.write(target.bucket, record=block)


def append(path: Path, chunks: Sequence[bytes]) -> None:
    """Each chunk appended and synced."""
    file = os.open(path, os.O_WRONLY | os.O_CREAT | os.O_APPEND, 0o600)
    try:
        for chunk in chunks:
            os.write(file, chunk)
            os.fdatasync(file)
    finally:
        os.close(file)


def telegraf(folder: Path, target: Target, *, file: Path | None = None) -> list[str] | None:
    """The command of a Telegraf that makes a point a second, or sends a file once; None where there is no Telegraf."""
    found = shutil.which("telegraf")
    if found is None:
        return None
    folder.mkdir(parents=True, exist_ok=True)
    source = (
        f'[[inputs.file]]\nfiles = ["{file}"]\ndata_format = "influx"\n'
        if file
        else '[[inputs.mock]]\nmetric_name = "environment"\n[inputs.mock.tags]\ndevice = "bench-1"\n'
        '[[inputs.mock.random]]\nname = "Temperature"\nmin = 20.0\nmax = 21.0\n'
        '[[inputs.mock.random]]\nname = "Humidity"\nmin = 40.0\nmax = 41.0\n'
        '[[inputs.mock.random]]\nname = "Pressure"\nmin = 1000.0\nmax = 1001.0\n'
    )
    limit = 10_000_000 if file else 100_000
    config = folder / "telegraf.conf"
    config.write_text(
        f'[agent]\ninterval = "1s"\nflush_interval = "5s"\nmetric_batch_size = 5000\nmetric_buffer_limit = {limit}\n'
        f'buffer_strategy = "disk"\nbuffer_directory = "{folder}"\nomit_hostname = true\nquiet = true\n'
        f'[[outputs.influxdb_v2]]\nurls = ["{target.url}"]\ntoken = "{target.token.reveal()}"\n'
        f'organization = "{target.org}"\nbucket = "{target.bucket}"\ncontent_encoding = "gzip"\n{source}'
    )
    config.chmod(0o600)
    return [found, "--config", str(config), *(["--once"] if file else [])]


def main() -> None:
    """A point of the virtual sensor each second, through influxdb-client as its examples show it."""
    from influxdb_client.client.influxdb_client import InfluxDBClient
    from influxdb_client.client.write.point import Point
    from influxdb_client.client.write_api import SYNCHRONOUS, WriteOptions

    from drivers.virtual import Virtual

    how, url, org, bucket = sys.argv[1:5]
    once = sys.argv[5:] == ["once"]
    sensor = Virtual(Virtual.Options())
    options: Any = SYNCHRONOUS if how == "loop" else WriteOptions(batch_size=5000, flush_interval=5000)
    with InfluxDBClient(url, os.environ["BENCH_TOKEN"], org=org) as known, known.write_api(options) as api:
        while True:
            point = Point("environment").tag("device", "bench-1").time(time.time_ns())
            for name, value in sensor.values_at(time.time()).items():
                point.field(name, value)
            api.write(bucket, record=point)
            if once:
                return
            time.sleep(1)


if __name__ == "__main__":
    main()
