"""One HTTP exchange with a center: bounded in time and size, going nowhere else, its secrets in headers only."""

from __future__ import annotations

from collections.abc import Callable, Mapping
from dataclasses import replace
from typing import Any
from urllib.parse import urljoin, urlsplit

import requests
from requests.adapters import HTTPAdapter

from agent import __version__
from agent.config.settings import CenterSettings
from agent.registration.answers import RegistrationError, Reply
from agent.registration.credentials import CredentialStore
from agent.registration.secret_files import CredentialsError, read_secret_file
from agent.registration.target import client_cert, origin, trust_store
from agent.util.http import Answer, Bounds
from agent.util.proxy import place, proxy_for, refusal
from agent.util.secret import Secret
from drivers.base import boot_ns

Observe = Callable[..., object]
"""Clock.observe."""


MAX_ANSWER = 65_536
_REDIRECTS = (301, 302, 303, 307, 308)


class _BoundedAdapter(HTTPAdapter):
    """All that a session sends gets answers within `bounds`."""

    def __init__(self, bounds: Bounds) -> None:
        self._bounds = bounds
        super().__init__()

    def init_poolmanager(self, *arguments: Any, **options: Any) -> None:
        super().init_poolmanager(*arguments, **options)
        self._bounds.put_on(self.poolmanager)

    def proxy_manager_for(self, proxy: str, **options: Any) -> Any:
        known = proxy in self.proxy_manager
        manager = super().proxy_manager_for(proxy, **options)
        if not known:
            self._bounds.put_on(manager)
        return manager


def bounded_session(bounds: Bounds) -> requests.Session:
    """A session whose answers are within bounds, through the proxy of the environment too; it reads no .netrc."""
    session = requests.Session()
    for scheme in ("http://", "https://"):
        session.mount(scheme, _BoundedAdapter(bounds))
    session.auth = _no_netrc
    return session


class CenterClient:
    """Requests to one center. `secret` and `enrollment_key` go into headers; `observe` is Clock.observe."""

    def __init__(
        self,
        url: str,
        secret: Secret,
        enrollment_key: Secret | None = None,
        *,
        ca_file: str | None = None,
        client_cert: tuple[str, str] | None = None,
        timeout_s: float = 10.0,
        observe: Observe | None = None,
        key_problem: str | None = None,
    ) -> None:
        self.url = url
        self._secret, self._key = secret, enrollment_key
        self._hidden = tuple(hidden for hidden in (secret, enrollment_key) if hidden)
        self._observe, self._key_problem = observe, key_problem
        self._bounds = Bounds(timeout_s, MAX_ANSWER)
        self._session = bounded_session(self._bounds)
        self._proxy = proxy_for(url)
        self._session.trust_env = self._proxy is not None
        self._verify = trust_store(ca_file)
        self._session.cert = client_cert
        self._session.headers["User-Agent"] = f"iot-agent/{__version__}"
        self._session.headers["Accept"] = "application/json"
        self._session.headers["Accept-Encoding"] = "identity"  # bounded means bounded: nothing to unpack
        self.sent_ns = self.received_ns = 0

    @property
    def has_secret(self) -> bool:
        return bool(self._secret)

    def close(self) -> None:
        self._session.close()

    def ask(self, method: str, path: str, *, enroll: bool = False, body: bytes | None = None) -> Reply:
        """The answer of any status. RegistrationError when none came, or it was too long, too slow or a redirect."""
        headers = {"X-Device-Secret": self._secret.reveal()}
        if enroll and self._key:
            headers["X-Enrollment-Key"] = self._key.reveal()
        if body is not None:
            headers["Content-Type"] = "text/plain; charset=utf-8"
        what, url = f"{method} {self.url}{path}", self.url + path
        if not (self._secret.fits_header() and (self._key is None or self._key.fits_header())):
            raise RegistrationError(
                f"{what}: the device secret or the enrollment key is damaged: no header can carry it"
            )
        for _ in range(4):
            answer = self._send(method, url, headers, body)
            if (by_proxy := refusal(answer)) is not None:
                raise RegistrationError(f"{what}: {by_proxy[1]}")
            if answer.status is None:
                raise RegistrationError(f"{what}: {answer.error}")
            if answer.status in _REDIRECTS:
                url = self._follow(what, url, answer)
                continue
            if answer.timed_out:
                raise RegistrationError(f"{what}: the answer did not end within {self._bounds.seconds:g} s")
            if answer.cut:
                raise RegistrationError(f"{what}: an answer of over {MAX_ANSWER} bytes: is this the center?")
            return Reply(what, answer.status, answer, self._tell_time, self._hidden, self._key_problem)
        raise RegistrationError(f"{what}: redirected in a circle")

    def _send(self, method: str, url: str, headers: Mapping[str, str], body: bytes | None) -> Answer:
        def send() -> None:
            if self._proxy is not None:
                place(self._proxy)
            response = self._session.request(
                method,
                url,
                headers=headers,
                data=body,
                timeout=self._bounds.seconds,
                stream=True,
                allow_redirects=False,
                verify=self._verify,  # here, not in the session: there REQUESTS_CA_BUNDLE would win
            )
            response.raw.release_conn()

        self.sent_ns = boot_ns()
        answer = self._bounds.exchange(send)
        self.received_ns = boot_ns()
        if self._proxy is None:
            return answer
        return replace(answer, proxy=self._proxy.url).without(self._proxy.hidden)

    def _tell_time(self, unix_ns: int, resolution_ns: int, *, written: bool) -> None:
        """Hands the clock what the last answer said about the time."""
        if self._observe:
            self._observe(unix_ns, resolution_ns, self.sent_ns, self.received_ns, origin(self.url), written=written)

    @staticmethod
    def _follow(what: str, url: str, answer: Answer) -> str:
        here, named = urlsplit(url), answer.headers.get("location", "")
        try:
            target = urljoin(url, named)
            there = urlsplit(target)
            same = (here.scheme, here.hostname, here.port) == (there.scheme, there.hostname, there.port)
            place = f"{there.scheme}://{there.hostname}" + (f":{there.port}" if there.port else "")
        except ValueError:  # of a port or an address that is none
            raise RegistrationError(f"{what}: redirected to {named[:120]!r}, which is no address") from None
        if not same or there.username is not None:
            raise RegistrationError(
                f"{what}: redirected to {place[:120]}, and the device secret goes nowhere else: is that the center's "
                "new address? Then set [center] url to it"
            )
        return target


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
        client_cert=client_cert(settings),
        timeout_s=settings.timeout,
        observe=observe,
        key_problem=problem,
    )


def _no_netrc(request: requests.PreparedRequest) -> requests.PreparedRequest:
    return request
