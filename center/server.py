"""The HTTP server: waitress, with bounds on what strangers can make it hold.

waitress takes requests in on one thread and gives whole ones to others, so whoever is slow costs a connection and never
a thread. What it lacks is added on the class attributes that it has for that (channel_class, parser_class, task_class):

- Nothing large is taken in before the application was asked by the headers alone whether it wants the body. What it
  answers without one is the answer: 401, 403, 404, 413.
- Headers and bodies have deadlines; answers have to be read.
- Connections and bytes have a bound. Where it is reached those go that have not sent a whole request, the address that
  has the most of them first.
- A 204 leaves the connection open.
"""

from __future__ import annotations

import logging
import socket
import sys
import threading
import time
from collections import Counter
from collections.abc import Callable, Iterable
from typing import Any

from waitress.adjustments import Adjustments
from waitress.server import TcpWSGIServer
from waitress.task import ThreadedTaskDispatcher

from center.channel import Channel
from center.limits import SMALL_BODY, Hourly, network_of

log = logging.getLogger(__name__)
MAX_HEADERS = 16_384
IDLE_S = 60  # devices keep their connections open between flushes
OWING, OWING_EACH = 500, 250  # connections that have not sent a whole request: of all, and of one address
ACCEPTED_AT_ONCE = 64
SPARE = 20  # of what is bounded, one in so many goes at once, so that room is made seldom


class Server(TcpWSGIServer):  # type: ignore[misc] # waitress has no types
    """`connections`, `held`: how many connections, and bytes of requests and answers, there are at most. `owing`: the
    connections that owe a request; there are few, since each byte that one trickles costs a turn of the one thread.
    """

    channel_class = Channel

    def __init__(
        self,
        application: Any,
        sock: socket.socket,
        connections: int,
        held: int,
        owing_each: int,
        **adjusted: Any,
    ) -> None:
        self._connections, self._max_held = connections, held
        self._held = 0
        self._doomed: list[Channel] = []
        self.owing: dict[Channel, None] = {}
        self._owing_of: Counter[str] = Counter()
        self._owing_each = owing_each
        self._held_lock = threading.Lock()
        self._closed = Hourly()
        adjustments = Adjustments(
            sockets=[sock], connection_limit=connections + 1000, channel_timeout=IDLE_S, cleanup_interval=1,
            max_request_header_size=MAX_HEADERS, inbuf_overflow=SMALL_BODY, clear_untrusted_proxy_headers=False,
            outbuf_high_watermark=sys.maxsize, **adjusted,
        )  # fmt: skip
        dispatcher = ThreadedTaskDispatcher()
        dispatcher.set_thread_count(adjustments.threads)
        where = (sock.family, sock.type, sock.proto, sock.getsockname())
        map_: dict[Any, Any] = {}
        super().__init__(application, map_, True, sock, dispatcher, adjustments, where, bind_socket=False)

    @property
    def map(self) -> dict[Any, Any]:
        """What waitress's loop goes round."""
        found: dict[Any, Any] = self._map
        return found

    def handle_accept(self) -> None:
        for _ in range(ACCEPTED_AT_ONCE):
            before = len(self._map)
            super().handle_accept()
            if len(self._map) == before:
                break
        self.make_room()

    def accept(self) -> Any:
        """The next connection; those of an address that owes too many requests end here, which costs little."""
        for _ in range(ACCEPTED_AT_ONCE):
            accepted = super().accept()
            if accepted is None or self._owing_of[network_of(str(accepted[1][0]))] < self._owing_each:
                return accepted
            accepted[0].close()
        return None

    def owes(self, channel: Channel) -> None:
        if channel not in self.owing:
            self.owing[channel] = None
            self._owing_of[channel.network] += 1

    def settles(self, channel: Channel) -> None:
        if channel in self.owing:
            del self.owing[channel]
            self._owing_of[channel.network] -= 1
            if not self._owing_of[channel.network]:
                del self._owing_of[channel.network]

    def hold(self, channel: Channel, held: int) -> None:
        with self._held_lock:
            self._held += held - channel.held
            channel.held = held

    def full(self) -> bool:
        return self._held > self._max_held

    def make_room(self) -> None:
        """Close what can be spared, and a little more, so that it is seldom needed."""
        if (over := len(self.owing) - OWING) > 0:
            self._spare(self.owing, lambda _: 1, over + OWING // SPARE)
        if (over := len(self.active_channels) - self._connections) > 0:
            self._spare(self.active_channels.values(), lambda _: 1, over + self._connections // SPARE)
        if (over := self._held - self._max_held) > 0:
            self._spare(self.active_channels.values(), lambda c: c.held, over + self._max_held // SPARE)

    def _spare(self, channels: Iterable[Channel], weight: Callable[[Channel], int], wanted: int) -> None:
        """Close connections of this weight in all, as far as there are such that can go."""
        closed: Counter[str] = Counter()
        for channel in dispensable((c for c in channels if not c.will_close), weight):
            if wanted <= 0:
                break
            wanted -= weight(channel)
            closed[channel.network] += 1
            self._doom(channel)
        if closed and (said := self._closed.due(time.monotonic(), closed.total())):
            address, _ = closed.most_common(1)[0]
            log.warning("closed %d connections to make room for others, most of them of %s", said, address)

    def maintenance(self, now: float) -> None:
        super().maintenance(now)
        now_s = time.monotonic()
        for channel in self.active_channels.values():
            if channel.total_outbufs_len or channel.held:
                channel.count()
            if not channel.will_close and channel.overdue(now_s):
                self._doom(channel)
        self.make_room()

    def _doom(self, channel: Channel) -> None:
        """It ends before the next turn: in this one its number may not become another's. waitress's will_close waits
        until something can be sent, which whoever reads nothing prevents.
        """
        channel.will_close, channel.unread = True, 0
        self.settles(channel)
        self.hold(channel, 0)
        self._doomed.append(channel)

    def readable(self) -> bool:
        for channel in self._doomed:
            channel.end()
        self._doomed.clear()
        return bool(super().readable())


def dispensable(channels: Iterable[Channel], weight: Callable[[Channel], int]) -> list[Channel]:
    """Those that can go, in the order in which they do: of the address that has the most, who waits longest first."""
    found = [channel for channel in channels if channel.stage() < 3 and weight(channel)]
    of: Counter[str] = Counter()
    for channel in found:
        of[channel.network] += weight(channel)
    return sorted(found, key=lambda c: (c.stage(), -of[c.network], c.began_s or c.last_activity))
