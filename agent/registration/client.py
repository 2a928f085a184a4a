"""One HTTP exchange with a center: bounded in time and size, going nowhere else, its secrets in headers only."""

from __future__ import annotations

import json
import socket
import time
from dataclasses import dataclass, field
from typing import TYPE_CHECKING, Any
from urllib.parse import urljoin, urlsplit

import requests

from agent import __version__
from agent.registration.credentials import CredentialsError, read_secret_file
from agent.registration.target import trust_store
from agent.util.backoff import http_date_ns, retry_after_s
from agent.util.errors import AgentError
from drivers.base import boot_ns

if TYPE_CHECKING:
    from collections.abc import Callable, Mapping

    from agent.config.settings import CenterSettings
    from agent.registration.credentials import CredentialStore
    from agent.util.secret import Secret

    Observe = Callable[[int, int, int, int], None]

MAX_ANSWER = 65_536
MAX_RETRY_AFTER_S = 3600.0
_REDIRECTS = (301, 302, 303, 307, 308)
_SECOND_NS = 1_000_000_000


class RegistrationError(AgentError):
    """Registration did not work. `retry_after_s`: when the center asks to be asked again."""

    def __init__(self, message: str, retry_after_s: float | None = None) -> None:
        super().__init__(message)
        self.retry_after_s = retry_after_s


class NotThisApiError(RegistrationError):
    """The server does not speak this dialect."""


@dataclass(frozen=True, slots=True)
class Answer:
    """What came back, read to its end. Its repr shows no body: tokens are in there."""

    what: str
    status: int
    headers: Mapping[str, str] = field(repr=False)
    body: bytes = field(repr=False)
    hidden: tuple[Secret, ...] = ()
    key_problem: str | None = None

    def json(self) -> Any:
        """The body as JSON. RegistrationError that says what came instead."""
        try:
            return json.loads(self.body)
        except (ValueError, RecursionError):
            raise RegistrationError(f"{self.what}: {self.status} with {self._kind()}") from None

    def record(self) -> Mapping[str, Any]:
        """The body as a JSON object."""
        found = self.json()
        if not isinstance(found, dict):
            raise NotThisApiError(f"{self.what}: {self.status} with a JSON {type(found).__name__}, not an object")
        return found

    def _kind(self) -> str:
        if not self.body.strip():
            return "an empty body instead of JSON"
        if self.is_html():
            return "HTML instead of JSON: is this the address of the center's API? It begins " + self.excerpt()
        return f"{len(self.body)} bytes that are not JSON"

    def is_html(self) -> bool:
        """By its first character: some of these servers label their JSON text/html."""
        return self.body.lstrip()[:1] == b"<"

    def excerpt(self, length: int = 120) -> str:
        """The beginning of the body for a message, without secrets. Only for answers that hold no token."""
        text = " ".join(self.body[:2000].decode("utf-8", "replace").split())
        for secret in self.hidden:
            text = text.replace(secret.reveal(), "***")
        return repr(text[:length])

    def message(self) -> str:
        """What a refusal says of itself: `message` or `error` of its JSON, else how the body begins."""
        try:
            found = json.loads(self.body)
        except (ValueError, RecursionError):
            found = None
        if isinstance(found, dict):
            for name in ("message", "error"):
                if isinstance(found.get(name), str):
                    return Answer(self.what, self.status, {}, found[name].encode(), self.hidden).excerpt(200)
        return self.excerpt() if self.body.strip() else "an empty body"

    def retry_after_s(self) -> float | None:
        """Seconds of Retry-After, 1 to 3600; None without one. Source: RFC 9110, section 10.2.3."""
        now_ns = http_date_ns(self.headers.get("date", "")) or time.time_ns()
        return retry_after_s(self.headers.get("retry-after"), now_ns, high=MAX_RETRY_AFTER_S)

    def refused(self, hint: str = "") -> RegistrationError:
        """The error for a status that is no success."""
        text = f"{self.what}: {self.status} {self.message()}"
        return RegistrationError(f"{text}: {hint}" if hint else text, self.retry_after_s())


class CenterClient:
    """Requests to one center. `secret` and `enrollment_key` go into headers; `observe` is Clock.observe."""

    def __init__(
        self,
        url: str,
        secret: Secret,
        enrollment_key: Secret | None = None,
        *,
        ca_file: str | None = None,
        timeout_s: float = 10.0,
        observe: Observe | None = None,
        key_problem: str | None = None,
    ) -> None:
        self.url = url.rstrip("/")
        self._secret, self._key = secret, enrollment_key
        self._timeout_s, self._observe, self._key_problem = timeout_s, observe, key_problem
        self._session = requests.Session()
        self._session.auth = _no_netrc
        self._verify = trust_store(ca_file)
        self._session.headers["User-Agent"] = f"iot-agent/{__version__}"
        self._session.headers["Accept"] = "application/json"
        self._session.headers["Accept-Encoding"] = "identity"  # bounded means bounded: nothing to unpack
        self.sent_ns = self.received_ns = 0

    def close(self) -> None:
        self._session.close()

    def ask(self, method: str, path: str, *, enroll: bool = False, body: bytes | None = None) -> Answer:
        """The answer of any status. RegistrationError when none came, or it was too long, too slow or a redirect."""
        headers = {"X-Device-Secret": self._secret.reveal()}
        if enroll and self._key:
            headers["X-Enrollment-Key"] = self._key.reveal()
        if body is not None:
            headers["Content-Type"] = "text/plain; charset=utf-8"
        what, url = f"{method} {self.url}{path}", self.url + path
        try:
            for _ in range(4):
                with self._send(method, url, headers, body) as response:
                    if response.status_code in _REDIRECTS:
                        url = self._follow(what, url, response)
                        continue
                    lower = {name.lower(): value for name, value in response.headers.items()}
                    hidden = (self._secret, self._key) if self._key else (self._secret,)
                    return Answer(
                        what, response.status_code, lower, self._read(what, response), hidden, self._key_problem
                    )
        except (requests.RequestException, OSError) as error:
            raise RegistrationError(f"{what}: {_reason(error, self._timeout_s)}") from None
        raise RegistrationError(f"{what}: redirected in a circle")

    def _send(self, method: str, url: str, headers: Mapping[str, str], body: bytes | None) -> requests.Response:
        self.sent_ns = boot_ns()
        timeout = (self._timeout_s, self._timeout_s)
        response = self._session.request(
            method,
            url,
            headers=headers,
            data=body,
            timeout=timeout,
            stream=True,
            allow_redirects=False,
            verify=self._verify,  # here, not in the session: there REQUESTS_CA_BUNDLE would win
        )
        self.received_ns = boot_ns()
        if date := response.headers.get("Date"):
            self.tell_time(http_date_ns(date), _SECOND_NS)
        return response

    def tell_time(self, unix_ns: int | None, resolution_ns: int) -> None:
        """Hands the clock what the last answer said about the time."""
        if self._observe and unix_ns is not None:
            self._observe(unix_ns, resolution_ns, self.sent_ns, self.received_ns)

    @staticmethod
    def _follow(what: str, url: str, response: requests.Response) -> str:
        target = urljoin(url, response.headers.get("Location", ""))
        here, there = urlsplit(url), urlsplit(target)
        same = (here.scheme, here.hostname, here.port) == (there.scheme, there.hostname, there.port)
        if not same or there.username is not None:
            place = f"{there.scheme}://{there.hostname}" + (f":{there.port}" if there.port else "")
            raise RegistrationError(
                f"{what}: redirected to {place[:120]}, and the device secret goes nowhere else: is that the center's "
                "new address? Then set [center] url to it"
            )
        return target

    def _read(self, what: str, response: requests.Response) -> bytes:
        """The body, at most MAX_ANSWER bytes and one more timeout long, however slowly it comes."""
        deadline = time.monotonic() + self._timeout_s
        body = bytearray()
        for piece in response.iter_content(chunk_size=1):  # one byte: a larger piece could wait for ever to fill
            body += piece
            if len(body) > MAX_ANSWER:
                raise RegistrationError(f"{what}: an answer of over {MAX_ANSWER} bytes: is this the center?")
            if time.monotonic() > deadline:
                raise RegistrationError(f"{what}: the answer did not end within {self._timeout_s:g} s")
        return bytes(body)


def connect(settings: CenterSettings, store: CredentialStore, observe: Observe | None = None) -> CenterClient:
    """A client of the configured center, with this device's secret and the enrollment key where there is one.

    Raises CredentialsError for secrets that cannot be read, RegistrationError where TLS is required and not used.
    """
    if settings.require_tls and not settings.url.startswith("https:"):
        raise RegistrationError(f"{settings.url} is plain http, and [center] require_tls is set")
    key, problem = None, None
    try:
        key = read_secret_file(settings.enrollment_key_file, "enrollment.key")
    except CredentialsError as error:  # after the first registration nobody needs it: said only if the center asks
        problem = str(error)
    return CenterClient(
        settings.url,
        store.device_secret(),
        key,
        ca_file=settings.ca_file,
        timeout_s=settings.timeout,
        observe=observe,
        key_problem=problem,
    )


def _no_netrc(request: requests.PreparedRequest) -> requests.PreparedRequest:
    return request


def _reason(error: BaseException, timeout_s: float) -> str:
    """What went wrong, in an administrator's words; `requests` wraps it three deep and repeats the address."""
    if isinstance(error, requests.exceptions.SSLError):
        return f"TLS failed ({_innermost(error)}): for a certificate authority of your own set [center] ca_file"
    if isinstance(error, requests.exceptions.ConnectTimeout):
        return f"no connection within {timeout_s:g} s: is the address right, is there a route?"
    if isinstance(error, requests.exceptions.Timeout):
        return f"no answer within {timeout_s:g} s"
    return _innermost(error)


def _innermost(error: BaseException) -> str:
    found, seen = error, 0
    while seen < 10:
        reason = getattr(found, "reason", None)
        inner = reason if isinstance(reason, BaseException) else found.__cause__ or found.__context__
        inner = inner or next((item for item in found.args if isinstance(item, BaseException)), None)
        if inner is None:
            break
        found, seen = inner, seen + 1
    if isinstance(found, ConnectionRefusedError):
        return "Connection refused: does the center run there, and is the port right?"
    if isinstance(found, socket.gaierror):
        return f"{found.strerror}: is the name of the host spelled right? iot-agent doctor looks further"
    text = found.strerror if isinstance(found, OSError) and found.strerror else str(found)
    return " ".join(f"{type(found).__name__}: {text}".split())[:200]
