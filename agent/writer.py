"""One write request to InfluxDB and whatever came back, through influxdb-client with a body that is ready."""

from __future__ import annotations

import re
import time
from dataclasses import replace
from typing import TYPE_CHECKING, Any

from agent.outcome import Answer, short

if TYPE_CHECKING:
    from agent.target import Target

MAX_ANSWER = 2 * 2**20
"""Bytes of an answer that are read: 5,000 bad lines are answered with 1.4 MB (InfluxDB 2.9.1)."""
_OBJECT = re.compile(r"<[^<>]* object at 0x[0-9a-f]+>:? ?|HTTPS?Connection(?:Pool)?\(host='[^']*', port=\d+\): ?")


class Writer:
    """Writes to one target over a connection that stays open. Not for several threads at once.

    `timeout` in seconds bounds each step on the socket and the reading of the answer's body. A server that sends the
    head of its answer byte by byte can hold a call longer: only the delivery thread may wait for it.
    """

    def __init__(self, target: Target, timeout: float) -> None:
        self.target = target
        self.timeout = timeout
        self._client: Any = None
        self._service: Any = None

    def write(self, body: bytes) -> Answer:
        """Send gzipped lines (empty: only ask whether URL, token, org and bucket are right). Never raises."""
        token = self.target.token.reveal()
        if not (token.isascii() and token.isprintable()):  # http.client would show it in its error
            return Answer(401, body=b"the token holds characters that no header can carry")
        try:
            transport = self._open(token)
            transport.answer = None
            encoding = {"content_encoding": "gzip"} if body else {}
            try:
                self._service.post_write(
                    self.target.org, self.target.bucket, body, precision="ns", _return_http_data_only=False, **encoding
                )
            except Exception:
                if transport.answer is None:
                    raise
            return _without(token, transport.answer or Answer(None, error="no answer"))
        except Exception as error:  # noqa: BLE001 - whatever goes wrong below, the points are kept
            self.close()
            text = describe(error)
            return _without(token, Answer(None, error=text, timed_out="Timeout" in text and "Connect" not in text))

    def close(self) -> None:
        """Drop the connection. The next write opens a new one."""
        client, self._client, self._service = self._client, None, None
        if client is not None:
            client.close()

    def _open(self, token: str) -> _Transport:
        if self._client is None:
            from influxdb_client.client.influxdb_client import InfluxDBClient  # noqa: PLC0415 - 0.2 s, 16 MB: once needed
            from influxdb_client.service.write_service import WriteService  # noqa: PLC0415

            self._client = InfluxDBClient(
                self.target.url,
                token,
                timeout=round(self.timeout * 1000),
                ssl_ca_cert=self.target.ca_file,  # None: the system's trust store
                connection_pool_maxsize=1,
            )
            rest = self._client.api_client.rest_client
            rest.pool_manager = _Transport(rest.pool_manager, self.timeout)
            self._service = WriteService(self._client.api_client)
        transport = self._client.api_client.rest_client.pool_manager
        assert isinstance(transport, _Transport)
        return transport


class _Transport:
    """In front of urllib3's pool: follows no redirect, reads a bounded part of an answer in bounded time, keeps it."""

    def __init__(self, pool: Any, timeout: float) -> None:
        self._pool = pool
        self._timeout = timeout
        self.answer: Answer | None = None

    def request(self, method: str, url: str, **options: Any) -> Any:
        from urllib3 import HTTPResponse  # noqa: PLC0415 - comes with influxdb_client

        response = self._pool.request(method, url, **{**options, "preload_content": False, "redirect": False})
        headers = {name.lower(): value for name, value in response.headers.items()}
        body, cut = self._read(response)
        self.answer = Answer(response.status, headers, body, cut=cut)
        return HTTPResponse(body=b"", status=response.status, reason=response.reason)

    def _read(self, response: Any) -> tuple[bytes, bool]:
        """The body as far as it is wanted, and whether there was more. Read to its end, the connection is kept."""
        until = time.monotonic() + self._timeout
        chunks: list[bytes] = []
        size = 0
        while chunk := response.read1(65_536, decode_content=False):
            chunks.append(chunk)
            size += len(chunk)
            if size > MAX_ANSWER or time.monotonic() > until:
                response.close()
                return b"".join(chunks)[:MAX_ANSWER], True
        return b"".join(chunks), False

    def clear(self) -> None:
        self._pool.clear()


def _without(token: str, answer: Answer) -> Answer:
    """The answer, with the token blotted out should a server or a library repeat it."""
    hidden = token.encode()
    if not token or (hidden not in answer.body and token not in answer.error and token not in str(answer.headers)):
        return answer
    headers = {name: value.replace(token, "***") for name, value in answer.headers.items()}
    return replace(
        answer, headers=headers, body=answer.body.replace(hidden, b"***"), error=answer.error.replace(token, "***")
    )


def describe(error: BaseException) -> str:
    """An exception in one line without addresses of objects, the same for the same cause."""
    text = _OBJECT.sub("", str(getattr(error, "reason", None) or error))
    return short(f"{type(error).__name__}: {text}" if text else type(error).__name__)
