"""A bound on the time an answer may take as a whole.

A timeout of a socket bounds each operation only: a server that answers byte by byte held influxdb-client for ten times
its timeout. Here each response has one deadline, from the moment the request is sent to the last byte that is read.
"""

from __future__ import annotations

import io
import time
from typing import TYPE_CHECKING, Any

if TYPE_CHECKING:
    from collections.abc import Mapping
    from socket import socket


class _TimedReader(io.RawIOBase):
    """A socket's bytes until a moment of the monotonic clock; then TimeoutError."""

    def __init__(self, raw: io.RawIOBase, sock: socket, until: float) -> None:
        self._raw, self._sock, self._until = raw, sock, until

    def readable(self) -> bool:
        return True

    def readinto(self, buffer: Any) -> int | None:
        left = self._until - time.monotonic()
        if left <= 0:
            raise TimeoutError("the answer took too long")
        if self._sock.fileno() >= 0:  # else closed, and only kept open for this reader
            self._sock.settimeout(left)
        return self._raw.readinto(buffer)

    def close(self) -> None:
        self._raw.close()
        super().close()


class _TimedSocket:
    """A connected socket, TLS or not, whose responses have `seconds` each."""

    def __init__(self, sock: socket, seconds: float) -> None:
        self._sock, self._seconds = sock, seconds

    def __getattr__(self, name: str) -> Any:
        return getattr(self._sock, name)

    def makefile(self, *_: object, **__: object) -> io.BufferedReader:
        """What http.client reads one response from."""
        raw = self._sock.makefile("rb", buffering=0)
        return io.BufferedReader(_TimedReader(raw, self._sock, time.monotonic() + self._seconds))


def timed_pools(seconds: float) -> Mapping[str, type]:
    """What a urllib3.PoolManager takes as `pool_classes_by_scheme`."""
    from urllib3.connection import HTTPConnection, HTTPSConnection  # noqa: PLC0415 - comes with influxdb_client
    from urllib3.connectionpool import HTTPConnectionPool, HTTPSConnectionPool  # noqa: PLC0415

    class Plain(HTTPConnection):
        def connect(self) -> None:
            super().connect()
            self.sock = _TimedSocket(self.sock, seconds)

    class Tls(HTTPSConnection):
        def connect(self) -> None:
            super().connect()
            self.sock = _TimedSocket(self.sock, seconds)

    class PlainPool(HTTPConnectionPool):
        ConnectionCls = Plain

    class TlsPool(HTTPSConnectionPool):
        ConnectionCls = Tls

    return {"http": PlainPool, "https": TlsPool}
