"""A server that counts: takes writes as InfluxDB does, unpacks them, counts lines and bytes, and stores nothing.

`python -m bench.counting [--answer 204|503|hang]` prints its port; GET /count tells what came. It is a process of its
own, so that it costs the measured one nothing but the machine.
"""

from __future__ import annotations

import argparse
import contextlib
import json
import socket
import threading
import time
import zlib
from email.utils import formatdate
from typing import Any

KEPT = 1000
"""Requests of which the particulars are kept."""


class Counts:
    """What came. `seen` has the first requests: when each was there, just before its answer, and its first stamp."""

    def __init__(self) -> None:
        self.lock = threading.Lock()
        self.points = self.requests = self.bytes = 0
        self.seen: list[dict[str, int]] = []

    def add(self, points: int, size: int, stamp: int) -> None:
        with self.lock:
            self.points += points
            self.requests += 1
            self.bytes += size
            if len(self.seen) < KEPT:
                self.seen.append({"at_ns": time.time_ns(), "first_ns": stamp, "points": points, "bytes": size})

    def json(self) -> bytes:
        with self.lock:
            return json.dumps(
                {"points": self.points, "requests": self.requests, "bytes": self.bytes, "seen": self.seen}
            ).encode()


def unpack(body: bytes) -> bytes:
    """The lines of a gzipped body of one or more members."""
    parts = []
    while body:
        unpacker = zlib.decompressobj(31)
        parts.append(unpacker.decompress(body))
        body = unpacker.unused_data
    return b"".join(parts)


def first_stamp(lines: bytes) -> int:
    """Unix nanoseconds of the first measured point; 0 where there is none."""
    for line in lines.split(b"\n", 50)[:50]:
        if line.startswith(b"environment"):
            return int(line.rpartition(b" ")[2])
    return 0


def serve(connection: socket.socket, counts: Counts, answer: str) -> None:
    """One connection until it ends."""
    connection.setsockopt(socket.IPPROTO_TCP, socket.TCP_NODELAY, 1)
    rest = b""
    while True:
        while b"\r\n\r\n" not in rest:
            piece = connection.recv(262_144)
            if not piece:
                return
            rest += piece
        head, _, rest = rest.partition(b"\r\n\r\n")
        first, *others = head.decode("latin-1").split("\r\n")
        headers = {name.lower(): value.strip() for name, _, value in (line.partition(":") for line in others)}
        parts = [rest]
        missing = int(headers.get("content-length", 0)) - len(rest)
        while missing > 0:
            parts.append(connection.recv(262_144))
            missing -= len(parts[-1])
            if not parts[-1]:
                return
        body, rest = b"".join(parts), b""
        if first.startswith("GET /count"):
            text = counts.json()
            connection.sendall(b"HTTP/1.1 200 OK\r\nContent-Length: %d\r\n\r\n%s" % (len(text), text))
            continue
        if first.startswith("GET"):
            connection.sendall(b'HTTP/1.1 200 OK\r\nContent-Length: 17\r\n\r\n{"status":"pass"}')
            continue
        size = len(head) + 4 + len(body)
        lines = unpack(body) if headers.get("content-encoding") == "gzip" else body
        counts.add(lines.count(b"\n") + (lines[-1:] not in {b"", b"\n"}), size, first_stamp(lines))
        if answer == "hang":
            time.sleep(3600)
        date = formatdate(usegmt=True).encode()
        if answer == "503":
            connection.sendall(b"HTTP/1.1 503 X\r\nDate: %s\r\nContent-Length: 0\r\n\r\n" % date)
        else:
            connection.sendall(b"HTTP/1.1 204 No Content\r\nDate: %s\r\n\r\n" % date)


def connected(connection: socket.socket, counts: Counts, answer: str) -> None:
    with connection, contextlib.suppress(OSError):
        serve(connection, counts, answer)


def main() -> None:
    parser: Any = argparse.ArgumentParser(description=__doc__)
    parser.add_argument("--answer", choices=["204", "503", "hang"], default="204")
    answer = parser.parse_args().answer
    counts = Counts()
    with socket.create_server(("127.0.0.1", 0), backlog=200) as server:
        print(server.getsockname()[1], flush=True)
        while True:
            connection, _ = server.accept()
            threading.Thread(target=connected, args=(connection, counts, answer), daemon=True).start()


if __name__ == "__main__":
    main()
