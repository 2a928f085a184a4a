"""One write request to InfluxDB and whatever came back, through influxdb-client with a body that is ready."""

from __future__ import annotations

import re
from dataclasses import replace
from typing import TYPE_CHECKING, Any

from influxdb_client.client.influxdb_client import InfluxDBClient
from influxdb_client.service.write_service import WriteService

from agent.delivery.outcome import Answer, short
from agent.util.http import timed_pools

if TYPE_CHECKING:
    from agent.registration.target import Target

MAX_ANSWER = 2 * 2**20
"""Bytes of an answer that are read: 5,000 bad lines are answered with 1.4 MB (InfluxDB 2.9.1)."""
_OBJECT = re.compile(r"<[^<>]* object at 0x[0-9a-f]+>:? ?|\w+\(host='[^']*', port=\d+\): ?")


class Writer:
    """Writes to one target over a connection that stays open. Not for several threads at once.

    `timeout` in seconds bounds connecting, sending and the answer, each as a whole. Looking up a name has no bound but
    the system's own: only the delivery thread may wait for a call.
    """

    def __init__(self, target: Target, timeout: float) -> None:
        self.target = target
        self.timeout = timeout
        self._client: Any = None
        self._service: Any = None
        self._used = False  # an answer came over this connection before

    def write(self, body: bytes) -> Answer:
        """Send gzipped lines (empty: only ask whether URL, token, org and bucket are right). Never raises."""
        token = self.target.token.reveal()
        if not (token.isascii() and token.isprintable()):  # http.client would show it in its error
            return Answer(401, body=b"the token holds characters that no header can carry")
        was_used = self._used
        answer = self._write(token, body)
        if was_used and answer.status is None and not answer.timed_out:  # closed by the server while it was idle
            answer = self._write(token, body)
        self._used = answer.status is not None
        return _without(token, answer)

    def _write(self, token: str, body: bytes) -> Answer:
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
            return transport.answer or Answer(None, error="no answer")
        except Exception as error:  # noqa: BLE001 - whatever goes wrong below, the points are kept
            self.close()
            text = describe(error)
            return Answer(None, error=text, timed_out="Timeout" in text and "Connect" not in text)

    def close(self) -> None:
        """Drop the connection. The next write opens a new one."""
        client, self._client, self._service = self._client, None, None
        if client is not None:
            client.close()

    def _open(self, token: str) -> _Transport:
        if self._client is None:
            self._client = InfluxDBClient(
                self.target.url,
                token,
                timeout=round(self.timeout * 1000),
                ssl_ca_cert=self.target.ca_file,  # None: the system's trust store
                connection_pool_maxsize=1,
            )
            rest = self._client.api_client.rest_client
            rest.pool_manager.pool_classes_by_scheme = timed_pools(self.timeout)
            rest.pool_manager = _Transport(rest.pool_manager)
            self._service = WriteService(self._client.api_client)
        transport = self._client.api_client.rest_client.pool_manager
        assert isinstance(transport, _Transport)
        return transport


class _Transport:
    """In front of urllib3's pool: follows no redirect, reads a bounded part of an answer, keeps it."""

    def __init__(self, pool: Any) -> None:
        self._pool = pool
        self.answer: Answer | None = None

    def request(self, method: str, url: str, **options: Any) -> Any:
        from urllib3 import HTTPResponse  # noqa: PLC0415 - comes with influxdb_client

        response = self._pool.request(method, url, **{**options, "preload_content": False, "redirect": False})
        headers = {name.lower(): value for name, value in response.headers.items()}
        body, cut = self._read(response)
        self.answer = Answer(response.status, headers, body, cut=cut)
        return HTTPResponse(body=b"", status=response.status, reason=response.reason)

    def _read(self, response: Any) -> tuple[bytes, bool]:
        """The body as far as it comes in time and is wanted, and whether there was more.

        Read to its end, the connection is kept. On a slow line a part of a long refusal still names lines.
        """
        from urllib3.exceptions import ReadTimeoutError  # noqa: PLC0415 - comes with influxdb_client

        chunks: list[bytes] = []
        size = 0
        try:
            while size <= MAX_ANSWER:
                chunk = response.read1(65_536, decode_content=False)
                if not chunk:
                    return b"".join(chunks), False
                chunks.append(chunk)
                size += len(chunk)
        except ReadTimeoutError:
            pass
        response.close()
        return b"".join(chunks)[:MAX_ANSWER], True

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
