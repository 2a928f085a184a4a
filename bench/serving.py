"""What one server takes: requests and points a second by the size of a request, from several connections at once, on
this machine, the senders included. It is what the arithmetic for a large fleet starts from.
"""

from __future__ import annotations

import http.client
import threading
import time
from typing import TYPE_CHECKING
from urllib.parse import urlencode, urlsplit

from agent.buffer.rows import compress
from bench import points, table
from bench.measure import Figure, Reference, Runs, unmeasured
from bench.sinks import Sink, database

if TYPE_CHECKING:
    from collections.abc import Sequence
    from pathlib import Path

SIZES = (1, 10, 60, 5000)
CONNECTIONS = 8
QUICK = {"runs": 1, "seconds": 0.2, "sizes": (1, 60)}


def measure(runs: int, folder: Path, seconds: float = 1.0, sizes: tuple[int, ...] = SIZES) -> list[Figure]:
    """Points a second that a database takes, by points a request."""
    with database(folder) as sink:
        if sink is None:
            return [unmeasured("a database takes", "points/s", "neither INFLUXDB_V2_URL nor victoria-metrics is here")]
        rates, requests = Runs(), Runs()
        for run in range(runs):
            for size in sizes:
                answered, took = load(sink, size, seconds, run)
                requests.add(str(size), answered / took)
                rates.add(str(size), answered * size / took)
    return [
        Figure(
            f"{sink.name} takes, {size:,} points a request",
            "points/s",
            rates.sample(str(size)),
            references=(Reference("requests/s", requests.sample(str(size))),),
        )
        for size in sizes
    ]


def load(sink: Sink, size: int, seconds: float, run: int) -> tuple[int, float]:
    """How many requests of so many points were answered with 204, and in how many seconds. RuntimeError for another."""
    ready = []
    for number in range(CONNECTIONS):
        first = points.start_ns(40_000) - run * 50_000 * points.SECOND
        lines = [line for block in points.blocks(20_000, first, f"serve-{size}-{number}") for line in block]
        texts = (lines[start : start + size] for start in range(0, len(lines), size))
        ready.append([compress(b"\n".join(text) + b"\n") for text, _ in zip(texts, range(4000), strict=False)])
    done = [0] * CONNECTIONS
    failed: list[int] = []
    until = time.monotonic() + seconds
    began = time.perf_counter()

    def send(number: int, bodies: Sequence[bytes]) -> None:
        parts = urlsplit(sink.target.url)
        connection = http.client.HTTPConnection(parts.hostname or "", parts.port or 80, timeout=30)
        query = urlencode({"org": sink.target.org, "bucket": sink.target.bucket, "precision": "ns"})
        headers = {"Authorization": f"Token {sink.target.token.reveal()}", "Content-Encoding": "gzip"}
        for body in bodies:
            if time.monotonic() > until:
                break
            connection.request("POST", f"/api/v2/write?{query}", body, headers)
            with connection.getresponse() as answer:
                answer.read()
                if answer.status != 204:
                    failed.append(answer.status)
                    break
            done[number] += 1
        connection.close()

    threads = [threading.Thread(target=send, args=(number, bodies)) for number, bodies in enumerate(ready)]
    for thread in threads:
        thread.start()
    for thread in threads:
        thread.join()
    if failed:
        raise RuntimeError(f"{sink.name} answered {failed}")
    return sum(done), time.perf_counter() - began


if __name__ == "__main__":
    table.run(measure, QUICK)
