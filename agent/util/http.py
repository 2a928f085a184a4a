"""One HTTP answer, bounded in time and size: what delivery and registration get from whichever client they use.

A timeout of a socket bounds each operation only: a server that answers byte by byte held influxdb-client for ten times
its timeout. Here each answer has one deadline, from the moment its request is sent to the last byte that is read.
"""

from __future__ import annotations

import http.client
import io
import json
import re
import ssl
import time
from dataclasses import dataclass, field, replace
from datetime import UTC
from email.utils import parsedate_to_datetime
from socket import gaierror
from typing import TYPE_CHECKING, Any, ClassVar, Literal

from urllib3 import HTTPResponse
from urllib3.exceptions import ConnectTimeoutError, ProxyError, ReadTimeoutError, SSLError

from agent.util.errors import short
from agent.util.secret import Secret

if TYPE_CHECKING:
    from collections.abc import Callable, Iterable, Iterator, Mapping
    from socket import socket

    from urllib3 import PoolManager
    from urllib3.connection import HTTPConnection

else:
    HTTPConnection = object

RETRY_AFTER_MIN_S = 1.0
RETRY_AFTER_MAX_S = 900.0
_OBJECT = re.compile(r"<[^<>]* object at 0x[0-9a-f]+>:? ?|\w+\(host='[^']*', port=\d+\): ?")
_ESCAPE_CUT = re.compile(r"\\(?:u[0-9a-fA-F]{0,3})?$")
_ASKS = re.compile(
    r"alert (?:certificate required|bad certificate|unknown ca|handshake failure)|EOF occurred in violation",
    re.IGNORECASE,
)
TUNNEL = re.compile(r"Tunnel connection failed: (\d{3}) ?(.*)")
_MESSAGE = re.compile(r'"message"\s*:\s*"')


@dataclass(frozen=True, slots=True)
class Answer:
    """What came back. `status` None: nothing did, and `error` says why. Header names are in lower case.

    `timed_out`: connected, but not all of it came in time; `sent`: the request went out whole; `lost`: it did so once
    before, and nothing came back; `cut`: the body is not whole, as it did not come in time or is longer than is read.
    `proxy` is the one that it came through, without its password; `tunnel` is the status with which that refused to
    connect. Its repr shows no body: tokens may be in there.
    """

    status: int | None
    headers: Mapping[str, str] = field(default_factory=dict, repr=False)
    body: bytes = field(default=b"", repr=False)
    error: str = ""
    timed_out: bool = False
    cut: bool = False
    sent: bool = True
    lost: bool = False
    proxy: str = ""
    tunnel: int | None = None

    @property
    def date_ns(self) -> int | None:
        """The Date header in Unix nanoseconds, to the second."""
        return http_date_ns(self.headers.get("date", ""))

    def retry_after_s(self, now_ns: int, most_s: float = RETRY_AFTER_MAX_S) -> float | None:
        """Seconds that Retry-After asks for (RFC 9110 section 10.2.3: seconds or a date), 1 to `most_s`; None if it is
        neither. A date counts from the answer's Date, else from `now_ns` (Unix): the device's clock may be wrong.
        """
        text = self.headers.get("retry-after", "").strip()
        if text.isascii() and text.isdigit():
            seconds = float(text[:12])
        elif (date := http_date_ns(text)) is not None:
            seconds = (date - (self.date_ns or now_ns)) / 1e9
        else:
            return None
        return min(max(seconds, RETRY_AFTER_MIN_S), most_s)

    def without(self, secrets: Iterable[Secret]) -> Answer:
        """With each of these blotted out, should a server or a library repeat it."""
        answer = self
        for secret in secrets:
            text = secret.reveal()
            hidden = text.encode()
            if text and (hidden in answer.body or text in answer.error or text in str(answer.headers)):
                answer = replace(
                    answer,
                    headers={name: value.replace(text, "***") for name, value in answer.headers.items()},
                    body=answer.body.replace(hidden, b"***"),
                    error=answer.error.replace(text, "***"),
                )
        return answer

    def message(self) -> str:
        """The server's words, whole: `message` or `error` of its JSON, also of one cut short; else the body as text."""
        text = self.body.decode("utf-8", "replace")
        try:
            document = json.loads(text, strict=False)
            if isinstance(document, dict):
                return str(document.get("message") or document.get("error") or "")
        except (ValueError, RecursionError):
            start = _MESSAGE.search(text)
            if self.cut and start:
                rest = _ESCAPE_CUT.sub("", text[start.end() :])
                try:
                    return str(json.loads(f'"{rest}"', strict=False))
                except ValueError:
                    return rest
        return text


def is_html(answer: Answer) -> bool:
    """Whether it is a page for people: a proxy's, a gateway's, a captive portal's."""
    return "html" in answer.headers.get("content-type", "").lower()


def http_date_ns(text: str) -> int | None:
    """Unix nanoseconds of an HTTP date (RFC 9110 section 5.6.7, all three forms), or None if it is not one."""
    try:
        moment = parsedate_to_datetime(text)
        if moment.tzinfo is None:  # asctime's form says nothing: HTTP dates are always UTC
            moment = moment.replace(tzinfo=UTC)
        return int(moment.timestamp()) * 1_000_000_000
    except (ValueError, TypeError, OverflowError, IndexError, OSError):
        return None


class Bounds:
    """`seconds` for an answer and the `most` bytes of its body, for the clients whose pools these are put on.

    The client gets an empty response, with which it can do no harm: it would unpack, decode, log and follow. The
    answer comes from exchange(). One request at a time.
    """

    def __init__(self, seconds: float, most: int) -> None:
        self.seconds, self.most = seconds, most
        self.answer: Answer | None = None
        self._sent = False

    def put_on(self, manager: PoolManager) -> None:
        """On all connections that `manager` makes from now on, also through a proxy."""
        pools: Mapping[str, Any] = manager.pool_classes_by_scheme
        bounded = {"bounds": self, "response_class": self._response}
        manager.pool_classes_by_scheme = {
            scheme: type(
                "BoundedPool",
                (pool,),
                {"ConnectionCls": type("BoundedConnection", (_Connection, pool.ConnectionCls), bounded)},
            )
            for scheme, pool in pools.items()
        }

    def _response(self, sock: socket, *arguments: Any, **options: Any) -> http.client.HTTPResponse:
        """What http.client reads an answer with, once its request is sent."""
        self._sent = options.get("method") is not None  # else it is a proxy's answer to CONNECT
        response = http.client.HTTPResponse(sock, *arguments, **options)
        until = time.monotonic() + self.seconds
        response.fp = io.BufferedReader(_TimedReader(response.fp.detach(), sock, until))
        return response

    def exchange(self, send: Callable[[], object]) -> Answer:
        """What came back for the one request that `send` makes. Never raises."""
        self.answer, self._sent, failed = None, False, Answer(None, error="no answer")
        try:
            send()
        except Exception as error:  # noqa: BLE001 - clients raise for a status, and whatever goes wrong is an answer too
            causes = list(_causes(error))
            late = _late(causes) == "answer"
            refused = TUNNEL.search(str(causes[-1]))
            tunnel = int(refused[1]) if refused else None
            text = _describe(causes, self.seconds)
            failed = Answer(None, error=text, timed_out=late, sent=self._sent, tunnel=tunnel)
        answer, self.answer = self.answer, None  # not held until the next: it may be large
        return answer or failed


class _Connection(HTTPConnection):
    """Mixed into a connection of urllib3's: reads what is wanted of an answer, as far as it comes in time."""

    bounds: ClassVar[Bounds]

    def request(self, *arguments: Any, **options: Any) -> None:
        super().request(*arguments, **{**options, "preload_content": False})

    def getresponse(self) -> HTTPResponse:  # type: ignore[override] # as urllib3's own
        response, most = super().getresponse(), self.bounds.most
        body, whole, late = bytearray(), False, False
        try:
            while not whole and len(body) <= most:
                chunk = response.read1(65_536, decode_content=False)
                body += chunk
                whole = not chunk
        except ReadTimeoutError:  # on a slow line a part of a long refusal still names lines
            late = True
        if not whole:
            self.close()
        headers = {name.lower(): value for name, value in response.headers.items()}
        self.bounds.answer = Answer(response.status, headers, bytes(body[:most]), timed_out=late, cut=not whole)
        return HTTPResponse(io.BytesIO(), status=response.status, reason=response.reason, preload_content=False)


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


def _causes(error: BaseException) -> Iterator[BaseException]:
    """The error and what it came of: clients wrap it four deep, and repeat the address each time."""
    found: BaseException | None = error
    for _ in range(10):
        if found is None:
            return
        yield found
        reason = getattr(found, "reason", None)
        inner = reason if isinstance(reason, BaseException) else found.__cause__ or found.__context__
        found = inner or next((item for item in found.args if isinstance(item, BaseException)), None)


def _late(causes: list[BaseException]) -> Literal["connection", "answer"] | None:
    """What did not come in time, if it is that."""
    if not any(isinstance(cause, TimeoutError) for cause in causes):
        return None
    return "connection" if any(isinstance(cause, ConnectTimeoutError) for cause in causes) else "answer"


def of_certificate(error: ssl.SSLCertVerificationError) -> str:
    """What to do about one that is refused, by OpenSSL's X509_V_ERR_ numbers."""
    code = getattr(error, "verify_code", 0)
    if code == 9:
        return "it is not valid yet: this board's clock is wrong"
    if code == 10:
        return "it has expired (if the clock is right): renew it on the server"
    if code in (62, 64):
        return "the address must be the name that the certificate was made for"
    return "for a certificate authority of your own set ca_file to its certificate in PEM"


def why(error: BaseException, seconds: float) -> str:
    """Of an error of a connection that had so long."""
    return _describe(list(_causes(error)), seconds)


def _describe(causes: list[BaseException], seconds: float) -> str:
    """What went wrong in one line, in an administrator's words, the same for the same cause; and what to look at."""
    if any(isinstance(cause, ProxyError) for cause in causes):
        return short(f"the proxy of the environment does not connect: {_of_proxy(causes, seconds)}")
    if late := _late(causes):
        hint = ": check the address and the route" if late == "connection" else ""
        return f"no {late} within {seconds:g} s{hint}"
    last = causes[-1]
    words = last.strerror if isinstance(last, OSError) and last.strerror else str(last)
    text = f"{type(last).__name__}: {_OBJECT.sub('', words)}".removesuffix(": ")
    if _ASKS.search(text):
        return short(f"TLS failed ({text}): if the server asks for a certificate, set client_cert and client_key")
    if "WRONG_VERSION_NUMBER" in text or "RECORD_LAYER_FAILURE" in text:
        return short(f"no TLS there ({text}): is the port right, and is it one with TLS?")
    if refused := next((cause for cause in causes if isinstance(cause, ssl.SSLCertVerificationError)), None):
        return short(f"TLS failed ({text}): {of_certificate(refused)}")
    if any(isinstance(cause, ssl.SSLError | SSLError) for cause in causes):
        return short(f"TLS failed ({text}): for a certificate authority of your own set ca_file")
    if isinstance(last, ConnectionRefusedError):
        return f"{words}: check that the server runs there, and the port"
    if isinstance(last, gaierror):
        return f"the name of the host cannot be resolved ({words}): check its spelling; iot-agent doctor looks further"
    return short(text)


def _of_proxy(causes: list[BaseException], seconds: float) -> str:
    last = causes[-1]
    if refused := TUNNEL.search(str(last)):
        return f"it answers {refused[1]} {refused[2]}"
    rest = [cause for cause in causes if not isinstance(cause, ProxyError)]
    return _describe(rest, seconds) if rest else str(last)
