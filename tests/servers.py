"""A real HTTP server for tests of delivery: it stores and counts, and does what its script says.

As it comes it answers like InfluxDB 2.9.1 as far as a writer can see (texts as in data/influxdb-2.9.1.json): 400 and
nothing stored for lines that cannot be parsed, 422 and the others stored for type conflicts and expired points; those
that are in the shard of a good point of the same request are stored (coordinator/points_writer.go).
"""

import datetime as dt
import gzip
import json
import re
import socket
import struct
import threading
import time
from bisect import bisect
from collections import deque
from contextlib import suppress
from dataclasses import dataclass, field
from http.server import BaseHTTPRequestHandler, ThreadingHTTPServer
from urllib.parse import parse_qs, urlsplit

WEEK_NS = 604_800 * 1_000_000_000
HOUR, DAY = 3600, 86_400
SHARDS = ((2 * DAY, HOUR * 10**9), (182 * DAY, DAY * 10**9), (float("inf"), WEEK_NS))  # retention under s: a shard's ns
SERIES = re.compile(rb"((?:[^\\, ]|\\.)+)((?:,(?:[^\\,= ]|\\.)+=(?:[^\\,= ]|\\.)+)*)(?= )", re.DOTALL)
FIELD = re.compile(rb'((?:[^\\=, ]|\\.)+)=("(?:[^"\\]|\\.)*"|[^, \n]*)', re.DOTALL)
STAMP = re.compile(rb" +(-?\d{1,19})\r?")
VALUES = (
    ("float", re.compile(rb"[-+]?(\d+\.?\d*|\.\d+)([eE][-+]?\d+)?")),
    ("integer", re.compile(rb"-?\d+i")),
    ("unsigned", re.compile(rb"\d+u")),
    ("boolean", re.compile(rb"[tTfF]|[tT]rue|TRUE|[fF]alse|FALSE")),
    ("string", re.compile(rb'"(?:[^"\\]|\\.)*"', re.DOTALL)),
)


@dataclass
class Received:
    """A request as it came. `lines` is -1 when the body was not looked at."""

    path: str
    query: dict
    headers: dict
    size: int
    lines: int
    at: float
    status: int | None = None
    first: bytes = b""


def split_lines(body):
    """The lines as the server sees them: a newline inside quotes belongs to a string."""
    if b'"' not in body:
        return [line for line in body.split(b"\n") if line.strip() and not line.startswith(b"#")]
    lines, start, quoted, at = [], 0, False, 0
    while at < len(body):
        char = body[at : at + 1]
        if char == b"\\":
            at += 1
        elif char == b'"':
            quoted = not quoted
        elif char == b"\n" and not quoted:
            lines.append(body[start:at])
            start = at + 1
        at += 1
    lines.append(body[start:])
    return [line for line in lines if line.strip() and not line.startswith(b"#")]


def parse(line):
    """(series, measurement, {field: type}, stamp), or the reason why not."""
    match = SERIES.match(line)
    if match is None:
        return "missing fields" if b" " not in line else "missing tag value"
    fields, at = {}, match.end() + 1
    while True:
        found = FIELD.match(line, at)
        if found is None:
            return "unbalanced quotes" if line.count(b'"') % 2 else "missing field value"
        kind = next((name for name, pattern in VALUES if pattern.fullmatch(found[2])), None)
        if kind is None:
            return "unbalanced quotes" if found[2].startswith(b'"') else "invalid number"
        fields[found[1]] = kind
        at = found.end()
        if line[at : at + 1] != b",":
            break
        at += 1
    stamp = STAMP.fullmatch(line, at)
    if stamp is None:
        return "bad timestamp"
    return match.group(), match[1], fields, int(stamp[1])


@dataclass
class InfluxServer:
    """`with InfluxServer() as server:` listens on loopback at server.url.

    `points` holds (series, stamp) → line of all that was stored, once each; `writes` counts lines stored, also again.
    `script` is used up one behaviour a request, then `always` is; a behaviour is a function of (handler, body).
    `prefix`: behind a reverse proxy under this path.
    `known`: measurement, field → type as stored before. `judge=False` only counts lines: for speed.
    """

    token: str = "token-1"
    org: str = "my-org"
    bucket: str = "iot_center"
    retention_s: float = 0
    old_wording: bool = False
    judge: bool = True
    date: bool = True
    port: int = 0
    points: dict = field(default_factory=dict)
    order: list = field(default_factory=list)
    writes: int = 0
    requests: list = field(default_factory=list)
    connections: int = 0
    script: deque = field(default_factory=deque)
    always: object = None
    types: dict = field(default_factory=dict)
    skew_s: float = 0.0
    tls: object = None
    prefix: str = ""

    def __enter__(self):
        outer = self
        self.lock = threading.Lock()
        self.released = threading.Event()

        class Handler(BaseHTTPRequestHandler):
            protocol_version = "HTTP/1.1"
            disable_nagle_algorithm = True
            server_version, sys_version = "InfluxDB", ""

            def setup(self):
                super().setup()
                with outer.lock:
                    outer.connections += 1

            def do_POST(self):
                outer.handle(self)

            def log_message(self, *args):
                pass

            def date_time_string(self, timestamp=None):
                return super().date_time_string(time.time() + outer.skew_s if timestamp is None else timestamp)

            def send_response(self, code, message=None):
                self.send_response_only(code, message)
                if outer.date:
                    self.send_header("Date", self.date_time_string())

        class Server(ThreadingHTTPServer):
            daemon_threads = True
            request_queue_size = 50

            def handle_error(self, request, client_address):
                pass

        self.httpd = Server(("127.0.0.1", self.port), Handler)
        self.port = self.httpd.server_address[1]
        if self.tls is not None:
            self.httpd.socket = self.tls.wrap_socket(self.httpd.socket, server_side=True, do_handshake_on_connect=False)
        self.thread = threading.Thread(target=self.httpd.serve_forever, args=(0.02,), daemon=True)
        self.thread.start()
        return self

    def __exit__(self, *error):
        self.released.set()
        self.httpd.shutdown()
        self.httpd.server_close()
        self.thread.join()

    @property
    def url(self):
        scheme, host = ("https", "localhost") if self.tls is not None else ("http", "127.0.0.1")
        return f"{scheme}://{host}:{self.port}{self.prefix}"

    def handle(self, handler):
        body = handler.rfile.read(int(handler.headers.get("Content-Length", 0)))
        parts = urlsplit(handler.path)
        query = {key: values[0] for key, values in parse_qs(parts.query).items()}
        headers = {key.lower(): value for key, value in handler.headers.items()}
        received = Received(parts.path, query, headers, len(body), -1, time.monotonic())
        with self.lock:
            self.requests.append(received)
            behaviour = self.script.popleft() if self.script else self.always
        handler.received = received
        with suppress(OSError, ValueError):
            (behaviour or self.store)(handler, body)

    # behaviours

    def reply(self, handler, status, body=b"", **headers):
        handler.received.status = status
        if isinstance(body, dict):
            body = json.dumps(body).encode()
            headers.setdefault("Content_Type", "application/json; charset=utf-8")
        handler.send_response(status)
        for name, value in headers.items():
            handler.send_header(name.replace("_", "-"), value)
        if status != 204:
            handler.send_header("Content-Length", str(len(body)))
        handler._headers_buffer.append(b"\r\n" + body)
        handler.flush_headers()

    def answer(self, status, body=b"", **headers):
        """Always this status; nothing stored."""
        return lambda handler, _: self.reply(handler, status, body, **headers)

    def store(self, handler, body):
        self.reply(handler, *self.write(handler, body))

    def twice(self, handler, body):
        """Stores the lines twice, then answers."""
        self.write(handler, body)
        self.store(handler, body)

    def store_then_cut(self, handler, body):
        """Stores the lines, and the connection is gone before the answer is."""
        self.write(handler, body)
        self.cut(handler, body)

    def cut(self, handler, _):
        """Resets the connection."""
        handler.connection.setsockopt(socket.SOL_SOCKET, socket.SO_LINGER, struct.pack("ii", 1, 0))
        handler.close_connection = True
        handler.connection.shutdown(socket.SHUT_RDWR)

    def cut_in_answer(self, handler, _):
        """Half an answer of 400 naming all lines, then nothing."""
        handler.wfile.write(b'HTTP/1.1 400 Bad Request\r\nContent-Length: 5000\r\n\r\n{"message":"unable to parse \'')
        handler.wfile.flush()
        self.cut(handler, b"")

    def hang(self, handler, _):
        """No answer until the server ends."""
        self.released.wait(60)
        handler.close_connection = True

    def trickle(self, gap_s, status=204, padding=0):
        """The answer byte by byte, with so many more in its head."""

        def behave(handler, _):
            handler.received.status = status
            head = b"HTTP/1.1 %d X\r\nX-Padding: %s\r\n" % (status, b"x" * padding)
            for byte in head + b"Content-Length: %d\r\n\r\n" % (0 if status == 204 else 50):
                handler.wfile.write(bytes([byte]))
                handler.wfile.flush()
                if self.released.wait(gap_s):
                    break
            handler.close_connection = True

        return behave

    def like_core(self, handler, body):
        """As InfluxDB 3 Core does: the good lines are stored, the bad ones named by number; nothing to write is a 400.

        Source: tests/data/influxdb-from-source.json.
        """
        if not body:
            return self.reply(handler, 400, b"incoming write was empty", Content_Type="text/plain")
        lines, bad = self._judged_apart(handler, body)
        self.judged([line for n, line in enumerate(lines, 1) if n not in bad])
        if not bad:
            return self.reply(handler, 204)
        named = [{"error_message": bad[n], "line_number": n, "original_line": lines[n - 1][:20].decode()} for n in bad]
        error = "partial write of line protocol occurred"
        return self.reply(handler, 400, {"error": error, "data": named})

    def like_cloud(self, handler, body):
        """As InfluxDB Cloud Dedicated does where it stores all or nothing: at most 100 lines are named."""
        lines, bad = self._judged_apart(handler, body)
        if not bad:
            self.judged(lines)
            return self.reply(handler, 204)
        named = "".join(f"\nerror parsing line {n} (1-based): {bad[n]}" for n in list(bad)[:100])
        message = f"failed to parse line protocol: errors encountered on line(s):{named}"
        return self.reply(handler, 400, {"code": "invalid", "line": next(iter(bad)), "message": message})

    def _judged_apart(self, handler, body):
        lines = split_lines(gzip.decompress(body)) if body else []
        handler.received.lines = len(lines)
        reasons = ((n, parse(line)) for n, line in enumerate(lines, 1))
        return lines, {n: reason for n, reason in reasons if isinstance(reason, str)}

    # what InfluxDB would do

    def write(self, handler, body):
        """Store what can be stored; (status, body) of the answer."""
        if handler.headers.get("Authorization") != f"Token {self.token}":
            return 401, {"code": "unauthorized", "message": "unauthorized access"}
        query = handler.received.query
        if handler.received.path != f"{self.prefix}/api/v2/write":
            return 404, b"404 page not found\n"
        if query.get("org") != self.org:
            return 404, {"code": "not found", "message": f'organization name "{query.get("org")}" not found'}
        if query.get("bucket") != self.bucket:
            return 404, {"code": "not found", "message": f'bucket "{query.get("bucket")}" not found'}
        if handler.headers.get("Content-Encoding") == "gzip":
            try:
                body = gzip.decompress(body)
            except (OSError, EOFError):
                return 500, {"code": "internal error", "message": "An internal error has occurred - check server logs"}
        if not self.judge:
            with self.lock:
                handler.received.lines = body.count(b"\n")
                self.writes += handler.received.lines
            return 204, b""
        lines = split_lines(body)
        handler.received.lines = len(lines)
        handler.received.first = lines[0] if lines else b""
        return self.judged(lines)

    def judged(self, lines):
        parsed = [(line, parse(line.lstrip(b" \t"))) for line in lines]
        bad = [(line.lstrip(b" \t"), result) for line, result in parsed if isinstance(result, str)]
        if bad:
            quoted = (f"unable to parse '{line.decode('utf-8', 'replace')}': {reason}" for line, reason in bad)
            return 400, {"code": "invalid", "message": "\n".join(quoted)}
        oldest_ns = time.time_ns() - round(self.retention_s * 1e9) if self.retention_s else None
        shard_ns = SHARDS[bisect(SHARDS, (self.retention_s or 1e12, 0))][1]
        open_shards = {stamp // shard_ns for _, (_, _, _, stamp) in parsed if oldest_ns is None or stamp >= oldest_ns}
        expired, conflicts, count = [], [], 0
        with self.lock:
            for line, (series, measurement, fields, stamp) in parsed:
                if stamp // shard_ns not in open_shards:  # an expired point goes with a good one of its shard
                    expired.append((series, stamp))
                    continue
                week = stamp // WEEK_NS
                clash = next(
                    (
                        (name, kind, self.types[week, measurement, name])
                        for name, kind in fields.items()
                        if self.types.setdefault((week, measurement, name), kind) != kind
                    ),
                    None,
                )
                if clash:
                    conflicts.append((measurement, *clash))
                    continue
                self.points[series, stamp] = line
                self.order.append(stamp)
                count += 1
            self.writes += count
        if conflicts:
            measurement, name, kind, stored = (x.decode() if isinstance(x, bytes) else x for x in conflicts[0])
            what = f'field type conflict: input field "{name}" on measurement "{measurement}" is type {kind}, '
            return self.partial(f"{what}already exists as type {stored} dropped={len(conflicts)}")
        if expired and self.old_wording:
            return self.partial(f"points beyond retention policy dropped={len(expired)}")
        if expired:
            because = f"dropped because it violates a Retention Policy Lower Bound at {_time(oldest_ns)}"
            ends = [pick(expired, key=lambda point: point[1]) for pick in (min, max)]
            oldest, newest = (f"point {series.decode()} at {_time(stamp)} {because}" for series, stamp in ends)
            return self.partial(
                f"dropped {len(expired)} points outside retention policy of duration {self.retention_s}s - oldest "
                f"{oldest}, newest {newest} dropped={len(expired)} for database: x"
            )
        return 204, b""

    def partial(self, text):
        message = f"failure writing points to database: partial write: {text}"
        return 422, {"code": "unprocessable entity", "message": message}


def _time(ns):
    moment = dt.datetime.fromtimestamp(ns // 1_000_000_000, dt.UTC)
    return f"{moment:%Y-%m-%dT%H:%M:%S}.{ns % 1_000_000_000:09d}Z"
