"""[status] listen: a page for a browser, /metrics for Prometheus, /healthz. Read-only; nothing secret is in it.

Pages of foreign sites can reach a server on loopback, and read from it with a rebound name: so only hosts that are
ours are answered, and nothing cross-site but a plain link.
"""

from __future__ import annotations

import ipaddress
import json
import logging
import socket
import sys
import threading
import time
from collections.abc import Callable, Sequence
from contextlib import suppress
from dataclasses import dataclass
from functools import cache
from http.server import BaseHTTPRequestHandler, ThreadingHTTPServer
from typing import Any, ClassVar

from agent.config.settings import StatusSettings
from agent.registration.target import LOCAL_SUFFIXES
from agent.status.health_rules import failing, stuck
from agent.status.history import History
from agent.util.loops import Loop, LoopThread
from drivers.base import boot_ns

log = logging.getLogger(__name__)

LOOK_EVERY_S = 5.0
CONNECTIONS, OF_ONE_ADDRESS = 16, 8
"""At once. One that has not asked yet makes room for the next: whoever only holds connections keeps nobody out."""
HEADERS_S, ANSWER_S = 5.0, 10.0
"""Of a connection: until it has asked, and until it has its answer."""
STATIC = {"/static/page.css": "text/css; charset=utf-8", "/static/page.js": "text/javascript; charset=utf-8"}
HEADERS = {
    "Content-Security-Policy": "default-src 'none'; style-src 'self'; script-src 'self'; connect-src 'self'; "
    "base-uri 'none'; form-action 'none'; frame-ancestors 'none'",
    "X-Content-Type-Options": "nosniff",
    "X-Frame-Options": "DENY",
    "Referrer-Policy": "no-referrer",
    "Cross-Origin-Resource-Policy": "same-origin",
    "Cache-Control": "no-store",
}


def split_listen(listen: str) -> tuple[str, int]:
    """(host, port) of `127.0.0.1:9528` or `[::1]:9528`, as checked when the configuration was loaded."""
    host, _, port = listen.rpartition(":")
    return host.removeprefix("[").removesuffix("]"), int(port)


def own_host(header: str, public: bool, hostname: str) -> bool:
    """Whether a Host header names this device, so that no rebound name can read it.

    Addresses and localhost do (loopback ones only unless `public`), and for `public` the host's own name, alone or in
    a domain that exists in local networks only.
    """
    host = header.strip().lower()
    host = host[1 : host.find("]")] if host.startswith("[") else host.partition(":")[0]
    if host == "localhost":
        return True
    with suppress(ValueError):
        address = ipaddress.ip_address(host)
        return public or address.is_loopback
    name = hostname.lower().partition(".")[0]
    return public and (host in {name, hostname.lower()} or host in {name + suffix for suffix in LOCAL_SUFFIXES})


def cross_site(site: str, mode: str) -> bool:
    """Whether a foreign page asks for more than to be left for ours, by Sec-Fetch-Site and -Mode (Fetch Metadata)."""
    return site not in {"", "none", "same-origin", "same-site"} and mode != "navigate"


class StatusPage(Loop):
    """Serves from threads of its own. start() and close() may be called twice; a taken port is a warning."""

    def __init__(
        self, settings: StatusSettings, snapshot: Callable[[], dict[str, Any]], history: History | None = None
    ) -> None:
        self.settings, self.snapshot = settings, snapshot
        self.history = history or History()
        self.address: tuple[str, int] | None = None
        self._server: _Server | None = None
        self.wakeup = threading.Event()
        self._watch: LoopThread | None = None

    def start(self) -> None:
        if not self.settings.listen or self._server:
            return
        host, port = split_listen(self.settings.listen)
        try:
            self._server = _Server(host, port, self)
        except (OSError, UnicodeError) as error:  # UnicodeError: of a name that is none
            log.warning(
                'no status page on %s (%s): another program may have the port; set [status] listen, or "" for none',
                self.settings.listen,
                getattr(error, "strerror", None) or error,
            )
            return
        self.address = host, self._server.server_address[1]
        threading.Thread(target=self._server.serve_forever, args=(0.2,), name="statuspage", daemon=True).start()
        self._watch = LoopThread("history", self)
        log.info("status page on http://%s:%d/", f"[{host}]" if ":" in host else host, self.address[1])

    def close(self) -> None:
        if self._watch:
            self._watch.stop()
        server, self._server = self._server, None
        if server:
            server.shutdown()
            server.server_close()

    def step(self) -> float:
        """A util.loops.Loop: the values of now, for the charts."""
        self.history.take(self.snapshot().get("sensors", []))
        return LOOK_EVERY_S


@dataclass(slots=True)
class Held:
    """A connection. `asked` once its headers are complete; `since` is seconds of time.monotonic()."""

    request: socket.socket
    address: str
    since: float
    asked: bool = False


def crowd_of(held: Sequence[Held], address: str) -> Sequence[Held]:
    """The connections of which one has to end before there is another from `address`; none where there is room."""
    own = [one for one in held if one.address == address]
    if len(own) >= OF_ONE_ADDRESS:
        return own
    return held if len(held) >= CONNECTIONS else ()


class _Server(ThreadingHTTPServer):
    daemon_threads = True
    block_on_close = False
    request_queue_size = 32

    def __init__(self, host: str, port: int, page: StatusPage) -> None:
        self.page = page
        self.hostname = socket.gethostname()
        self.address_family = socket.AF_INET6 if ":" in host else socket.AF_INET
        self._lock = threading.Lock()
        self._held: dict[socket.socket, Held] = {}  # oldest first
        super().__init__((host, port), _Handler)

    def server_bind(self) -> None:
        """Without HTTPServer's look-up of the host's name, which can take a name server's timeout."""
        self.socket.setsockopt(socket.SOL_SOCKET, socket.SO_REUSEADDR, 1)
        self.socket.bind(self.server_address)
        self.server_address = self.socket.getsockname()
        self.server_name, self.server_port = str(self.server_address[0]), self.server_address[1]

    def process_request(self, request: Any, client_address: Any) -> None:
        address = client_address[0]
        with self._lock:
            crowd = crowd_of(list(self._held.values()), address)
            silent = next((held for held in crowd if not held.asked), None)
            if crowd and silent is None:
                self.shutdown_request(request)
                return
            if silent is not None:
                self._end(silent)
            self._held[request] = Held(request, address, time.monotonic())
        super().process_request(request, client_address)

    def service_actions(self) -> None:
        """From serve_forever(), several times a second: what takes too long ends, however busily it goes on."""
        now = time.monotonic()
        with self._lock:
            for held in list(self._held.values()):
                if now - held.since > (ANSWER_S if held.asked else HEADERS_S):
                    self._end(held)

    def _end(self, held: Held) -> None:
        """Its thread finds that out; one at work is counted until then. The lock is held."""
        if not held.asked:
            self._held.pop(held.request, None)
        with suppress(OSError):
            held.request.shutdown(socket.SHUT_RDWR)

    def has_asked(self, request: socket.socket) -> None:
        """Raises ConnectionAbortedError where it was too late."""
        with self._lock:
            if request not in self._held:
                raise ConnectionAbortedError
            self._held[request].asked = True

    def process_request_thread(self, request: Any, client_address: Any) -> None:
        try:
            super().process_request_thread(request, client_address)
        finally:
            with self._lock:
                self._held.pop(request, None)

    def handle_error(self, request: Any, client_address: Any) -> None:  # noqa: ARG002 - socketserver's signature
        log.debug("a request to the status page failed: %s", sys.exception())


class _Handler(BaseHTTPRequestHandler):
    server: _Server
    timeout = ANSWER_S
    server_version, sys_version = "iot-agent", ""
    protocol_version = "HTTP/1.0"  # a connection a request: none is held
    paths: ClassVar[dict[str, str]] = {"/": "_page", "/metrics": "_metrics", "/healthz": "_healthz"}

    def do_GET(self) -> None:
        self.server.has_asked(self.connection)
        page = self.server.page
        path = self.path.partition("?")[0]
        if not own_host(self.headers.get("Host", ""), page.settings.public, self.server.hostname):
            self._answer(400, "text/plain; charset=utf-8", b"this is not a name of this device\n")
        elif cross_site(self.headers.get("Sec-Fetch-Site", ""), self.headers.get("Sec-Fetch-Mode", "")):
            self._answer(403, "text/plain; charset=utf-8", b"not for other sites\n")
        elif path in self.paths:
            self._answer(*getattr(self, self.paths[path])())
        elif path in STATIC:
            self._answer(200, STATIC[path], _static(path))
        else:
            self._answer(404, "text/plain; charset=utf-8", b"there are /, /metrics and /healthz\n")

    def do_HEAD(self) -> None:
        self.do_GET()

    def _page(self) -> tuple[int, str, bytes]:
        from agent.status.page import render  # noqa: PLC0415 - only once somebody looks

        page = self.server.page
        snapshot = page.snapshot()
        page.history.take(snapshot.get("sensors", []))
        text = render(snapshot, page.history.series(boot_ns()), page.settings.unhealthy_after)
        return 200, "text/html; charset=utf-8", text.encode()

    def _metrics(self) -> tuple[int, str, bytes]:
        from agent.status.metrics import CONTENT_TYPE, exposition  # noqa: PLC0415 - prometheus_client, only where it is asked

        return 200, CONTENT_TYPE, exposition(self.server.page.snapshot())

    def _healthz(self) -> tuple[int, str, bytes]:
        page = self.server.page
        snapshot = page.snapshot()
        wrong = failing(snapshot, page.settings.unhealthy_after)
        body = {"status": "failing" if wrong else "ok", "problems": wrong, "warnings": stuck(snapshot)}
        return 503 if wrong else 200, "application/json", json.dumps(body).encode() + b"\n"

    def _answer(self, status: int, content_type: str, body: bytes) -> None:
        self.send_response(status)
        for name, value in HEADERS.items():
            self.send_header(name, value)
        self.send_header("Content-Type", content_type)
        self.send_header("Content-Length", str(len(body)))
        self.end_headers()
        if self.command != "HEAD":
            self.wfile.write(body)

    def log_message(self, format: str, *args: Any) -> None:  # noqa: A002 - the name in the standard library
        log.debug(format, *args)


@cache
def _static(path: str) -> bytes:
    from agent.status.page import HERE  # noqa: PLC0415 - see above

    return (HERE / path.removeprefix("/")).read_bytes()
