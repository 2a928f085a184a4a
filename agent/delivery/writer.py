"""One write request to InfluxDB and whatever came back, through influxdb-client with a body that is ready."""

from __future__ import annotations

from dataclasses import replace
from typing import Any

from influxdb_client.client.influxdb_client import InfluxDBClient
from influxdb_client.service.write_service import WriteService

from agent.registration.target import Target
from agent.util.http import Answer, Bounds, is_html
from agent.util.proxy import place, proxy_for

ASK_S = 5.0
"""An empty write is small: who does not answer it in that time hangs, and is asked again the sooner."""
MAX_ANSWER = 2 * 2**20
"""Bytes of an answer that are read: 5,000 bad lines are answered with 1.4 MB (InfluxDB 2.9.1)."""


class Writer:
    """Writes to one target over a connection that stays open, through the proxy of the environment if it names one. Not
    for several threads at once.

    `timeout` in seconds bounds connecting, sending and the answer, each as a whole. Looking up a name has no bound but
    the system's own: only the delivery thread may wait for a call.
    """

    def __init__(self, target: Target, timeout: float) -> None:
        self.target = target
        self._timeout, self._bounds = timeout, Bounds(timeout, MAX_ANSWER)
        self._proxy = proxy_for(target.url)
        self._client: Any = None
        self._used = False  # an answer came over this connection before

    def write(self, body: bytes) -> Answer:
        """Send gzipped lines (empty: only ask whether URL, token, org and bucket are right). Never raises."""
        token = self.target.token.reveal()
        if not self.target.token.fits_header():
            return Answer(401, body=b"the token holds characters that no header can carry")
        self._bounds.seconds = self._timeout if body else min(self._timeout, ASK_S)
        answer, lost = self._bounds.exchange(lambda: self._post(token, body)), False
        if self._used and answer.status is None and not answer.timed_out:  # closed by the server while it was idle
            self.close()
            lost = answer.sent
            answer = self._bounds.exchange(lambda: self._post(token, body))
        self._used = answer.status is not None
        if not self._used:
            self.close()
            if body and self._proxy and not answer.timed_out and answer.tunnel is None:
                # Some proxies (tinyproxy) refuse without reading the points; then what they say is lost with these.
                asked = self._bounds.exchange(lambda: self._post(token, b""))
                answer = asked if is_html(asked) else answer
        proxy = self._proxy
        answer = replace(answer, lost=lost, proxy=proxy.url if proxy else "")
        return answer.without((self.target.token, *(proxy.hidden if proxy else ())))

    def _post(self, token: str, body: bytes) -> None:
        if self._client is None:
            cert, key = self.target.client_cert or (None, None)
            proxy = self._proxy
            if proxy is not None:
                place(proxy)
            authorization = proxy.authorization if proxy else None
            self._client = InfluxDBClient(
                self.target.url,
                token,
                ssl_ca_cert=self.target.ca_file,  # None: the system's trust store
                cert_file=cert,
                cert_key_file=key,
                proxy=proxy.url if proxy else None,
                proxy_headers={"Proxy-Authorization": authorization.reveal()} if authorization else None,
                connection_pool_maxsize=1,
            )
            self._bounds.put_on(self._client.api_client.rest_client.pool_manager)
        options: dict[str, Any] = {"_request_timeout": round(self._bounds.seconds * 1000)}
        if body:
            options["content_encoding"] = "gzip"
        service = WriteService(self._client.api_client)
        service.post_write(self.target.org, self.target.bucket, body, precision="ns", **options)

    def close(self) -> None:
        """Drop the connection. The next write opens a new one."""
        client, self._client = self._client, None
        if client is not None:
            client.close()
