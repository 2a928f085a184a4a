"""A connection of the center's server: what it owes, and until when; what it holds; when it may be spared."""

from __future__ import annotations

import logging
import socket
import time
from collections.abc import Callable
from typing import Any, Protocol

from waitress.channel import HTTPChannel

from center.incoming import FULL, Parser, Refusal, Task, ask
from center.limits import network_of

log = logging.getLogger(__name__)
HEADERS_S = 10.0
BODY_S = 30.0
SLOWEST = 10_000  # bytes a second, on the average, beyond BODY_S
DRAIN_S = 10.0  # how long what a refused client still sends is read and thrown away, so that it sees the answer


class Keeper(Protocol):
    """What a connection needs of the server that keeps it (center/server.py)."""

    application: Callable[..., Any]
    trigger: Any

    def add_task(self, task: Any) -> None: ...

    def owes(self, channel: Channel) -> None: ...

    def settles(self, channel: Channel) -> None: ...

    def hold(self, channel: Channel, held: int) -> None: ...

    def full(self) -> bool: ...

    def make_room(self) -> None: ...


class _Question:
    """A task of waitress's threads: whether the application wants a body."""

    def __init__(self, channel: Channel, request: Parser) -> None:
        self._channel, self._request = channel, request

    def service(self) -> None:
        server = self._channel.server
        try:
            environ = Task(self._channel, self._request).get_environment()
            if self._request.chunked:
                environ["HTTP_TRANSFER_ENCODING"] = "chunked"  # waitress takes it away
            refusal = ask(server.application, environ)
        except Exception:
            log.exception("the application failed when it was asked about %s", self._request.path)
            refusal = Refusal("500 Internal Server Error", (), b"")
        server.trigger.pull_trigger(lambda: self._channel.decided(self._request, refusal))

    def cancel(self) -> None:
        self._channel.cancel()


class Channel(HTTPChannel):  # type: ignore[misc] # waitress has no types
    """A connection. `began_s`: since when it owes the rest of a request; None while idle or owed an answer."""

    task_class = Task
    parser_class = Parser
    request: Parser | None
    requests: list[Parser]
    total_outbufs_len: int
    held = 0
    sent = 0
    unread = 0  # bytes of a refused body
    draining = False
    waits = False  # with the next of its requests, until the answer before it was taken
    output_s: float | None = None

    def __init__(self, server: Keeper, sock: socket.socket, addr: Any, adj: Any, map: Any = None) -> None:  # noqa: A002 - waitress's name
        self.network = network_of(str(addr[0]))
        self.began_s: float | None = None
        super().__init__(server, sock, addr, adj, map=map)
        self.owes(time.monotonic())

    def owes(self, since_s: float | None) -> None:
        """Whether the rest of a request is to come, and since when."""
        self.began_s = since_s
        if since_s is None:
            self.server.settles(self)
        else:
            self.server.owes(self)

    def readable(self) -> bool:
        if self.draining:
            return True
        paused = self.request is not None and self.request.paused
        return bool(self.connected and not paused and super().readable())

    def writable(self) -> bool:
        """Not once it has ended: in this turn its number may become another's."""
        return bool(self.connected and super().writable())

    def handle_read(self) -> None:
        if not self.draining:
            super().handle_read()
            return
        try:
            data = self.recv(self.adj.recv_bytes)
        except OSError:
            data = b""
        self.unread -= len(data)
        if not data or self.unread <= 0:
            self.end()

    def received(self, data: bytes) -> bool:
        took = bool(super().received(data))
        request = self.request
        if request is None:
            self.owes(None)
        else:
            if self.began_s is None or (request.headers_finished and not request.body_bytes_received):
                self.owes(time.monotonic())
            if request.paused and not request.posed:
                request.posed = True
                self.server.add_task(_Question(self, request))
        self.count()
        if self.server.full():
            self.server.make_room()
            if self.server.full() and request is not None and not request.completed and not request.paused:
                self.decided(request, FULL)
        return took

    def decided(self, request: Parser, refusal: Refusal | None) -> None:
        """On the thread that takes requests in: the application wants the body, or this is the answer."""
        if not self.connected or self.request is not request:
            return
        request.paused = False
        early, request.early = request.early, b""
        if refusal is None:
            self.server.settles(self)  # it is no stranger any more
            with self.requests_lock:
                request.expect_continue = request.wants_continue
                if request.expect_continue and not self.requests:
                    self.send_continue()
            self.received(early)
            return
        waits = request.wants_continue and not request.body_bytes_received  # then it sends nothing of it
        self.unread = 0 if waits else (request.content_length or self.adj.max_request_body_size)
        self.unread -= request.body_bytes_received + len(early)
        request.close()
        request.error, request.completed, request.body_rcv = refusal, True, None
        self.owes(None)
        with self.requests_lock:
            self.request = None
            self.requests.append(request)
            if len(self.requests) == 1:
                self.server.add_task(self)
        self.count()

    def service(self) -> None:
        """A request that came with others is answered once the answers before it were taken: 170 of them fit into what
        is received at once, and threads wait for nobody.
        """
        with self.outbuf_lock:
            self.waits = bool(self.connected and self.total_outbufs_len)
            if self.waits:
                return
        try:
            super().service()
        finally:
            self.count()

    def handle_write(self) -> None:
        super().handle_write()
        if self.waits and not self.total_outbufs_len and self.connected:
            self.waits = False
            self.server.add_task(self)

    def send(self, data: bytes, do_close: bool = True) -> int:
        sent = int(super().send(data, do_close))
        self.sent += sent
        return sent

    def handle_close(self) -> None:
        """What a refused client still sends is read before the end: a reset would take the answer from it."""
        if self.unread > 0 and self.connected and not self.draining:
            self.draining, self.will_close = True, False
            self.owes(time.monotonic())
            try:
                self.socket.shutdown(socket.SHUT_WR)
            except OSError:
                self.end()
        else:
            self.end()

    def end(self) -> None:
        self.draining = False
        super().handle_close()
        if self.waits:
            self.waits, self.requests = False, []
        if self.request is not None:
            self.request.close()
            self.request = None
        self.owes(None)
        self.count()

    def count(self) -> None:
        """Tells the server how many bytes this connection holds: of requests, and of answers that were not read."""
        incoming = [r for r in (*self.requests, self.request) if r is not None]
        self.server.hold(self, sum(r.held for r in incoming) + self.total_outbufs_len)

    def overdue(self, now_s: float) -> bool:
        """Whether it took too long to send its request, or to read its answer."""
        if self.total_outbufs_len:
            if self.output_s is None:
                self.output_s, self.sent = now_s, 0
            return bool(now_s - self.output_s > BODY_S + self.sent / SLOWEST)
        self.output_s = None
        if self.began_s is None:
            return False
        request, waited_s = self.request, now_s - self.began_s
        if self.draining:
            return waited_s > DRAIN_S
        if request is None or not request.headers_finished:
            return waited_s > HEADERS_S
        return bool(waited_s > BODY_S + request.body_bytes_received / SLOWEST)

    def stage(self) -> int:
        """What goes first when room is needed: 0 has not sent a whole request, 1 is idle, 2 does not read its answer. 3
        is at work, or may send a large body, and stays.
        """
        if self.total_outbufs_len and (self.waits or not self.requests):
            return 2
        if self.requests or (self.request is not None and self.request.asked):
            return 3
        return 0 if self.began_s is not None else 1
