"""How often and how much: whom an address stands for, a moving window of attempts, a log line an hour. In seconds."""

from __future__ import annotations

import threading
from collections import Counter, OrderedDict, deque
from ipaddress import IPv6Address, ip_address

SMALL_BODY = 65_536  # bytes: taken in without asking, and all that strangers may send
HOUR_S = 3600.0
MAX_KNOWN = 1000


def network_of(address: str) -> str:
    """Whom an address stands for: itself; with IPv6 its /64, since one host has all of that."""
    try:
        found = ip_address(address.partition("%")[0])
    except ValueError:
        return address
    if not isinstance(found, IPv6Address):
        return str(found)
    if found.ipv4_mapped:
        return str(found.ipv4_mapped)
    return f"{IPv6Address(int(found) >> 64 << 64)}/64"


class Attempts:
    """At most `each` attempts of a network in any `per_s` seconds. While there are `in_all` in these, a network that
    never was right has one: a crowd slows the others down, and locks nobody out.

    Taken before anything is checked, and given back by whoever was right: so parallel ones count, too. Thread-safe.
    """

    def __init__(self, each: int, in_all: int, per_s: float = 60.0) -> None:
        self._each, self._in_all, self._per_s = each, in_all, per_s
        self._lock = threading.Lock()
        self._taken: deque[tuple[float, str]] = deque()
        self._of: Counter[str] = Counter()
        self._right: OrderedDict[str, None] = OrderedDict()

    def take(self, network: str, now_s: float) -> bool:
        """Whether this network has an attempt left, which is then taken."""
        with self._lock:
            while self._taken and now_s - self._taken[0][0] >= self._per_s:
                self._drop(0)
            crowded = len(self._taken) >= self._in_all and network not in self._right
            if self._of[network] >= (1 if crowded else self._each):
                return False
            self._taken.append((now_s, network))
            self._of[network] += 1
            return True

    def give_back(self, network: str, *, right: bool) -> None:
        """For an attempt that was right, or was not looked at."""
        with self._lock:
            mine = (n for n in range(len(self._taken) - 1, -1, -1) if self._taken[n][1] == network)
            if (place := next(mine, None)) is not None:
                self._drop(place)
            if right:
                self._right[network] = None
                self._right.move_to_end(network)
                if len(self._right) > MAX_KNOWN:
                    self._right.popitem(last=False)

    def knows(self, network: str) -> bool:
        """Whether it was right before."""
        with self._lock:
            return network in self._right

    def _drop(self, place: int) -> None:
        _, network = self._taken[place]
        del self._taken[place]
        self._of[network] -= 1
        if not self._of[network]:
            del self._of[network]


class Hourly:
    """Counts what strangers do, for a line of the log at once and then one an hour. Thread-safe."""

    def __init__(self) -> None:
        self._lock = threading.Lock()
        self._count = 0
        self._said_s = float("-inf")

    def due(self, now_s: float, count: int = 1) -> int:
        """How many there were since the last line, if a line is due; else 0."""
        with self._lock:
            self._count += count
            if now_s - self._said_s < HOUR_S:
                return 0
            said, self._count, self._said_s = self._count, 0, now_s
            return said
