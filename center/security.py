"""Who may do what: loopback without a login, administrators by password, foreign sites never.

Open: bound to loopback and no password set. Whoever reaches it there is an administrator, so it answers only to its own
names, only to this machine, and never to requests of another site's page or through a proxy.
"""

from __future__ import annotations

import contextlib
import hashlib
import hmac
import logging
import secrets
import threading
import time
from collections.abc import Callable, Iterator
from ipaddress import ip_address
from typing import cast
from urllib.parse import urlsplit

from flask import Flask, Request, Response, abort, current_app, g, request
from flask.sessions import SecureCookieSessionInterface
from flask_login import LoginManager, UserMixin, current_user
from werkzeug.security import check_password_hash, generate_password_hash

from agent.util.secret import Secret
from center.context import current_center
from center.errors import SettingsError
from center.limits import SMALL_BODY, Attempts, Hourly, network_of
from center.settings import Settings
from center.stores.registry import SESSION_NS

log = logging.getLogger(__name__)

ADMINISTRATOR = "admin"
LOOPBACK_HOSTS = ("localhost", "127.0.0.1", "[::1]")
# What reverse proxies, tunnels and load balancers add to a request, by how the names begin.
FORWARDED = (
    "forwarded", "x-forwarded", "x-real-", "x-original-", "x-client-", "x-cluster-client-ip", "x-remote-", "x-proxy",
    "x-envoy-", "x-amzn-", "x-azure-", "x-appengine-", "x-arr-", "x-scheme", "x-ssl-", "cf-", "cdn-", "fastly-",
    "true-client-ip", "client-ip", "wl-proxy-", "tailscale-", "ngrok-", "remote-user", "max-forwards", "via",
)  # fmt: skip
SAFE = {"GET", "HEAD", "OPTIONS"}
MIN_PASSWORD = 10
WRITE = "/api/v2/write"
MAX_OTHER_BODY = 4_000_000  # bytes: an administrator's forms and JSON; of strangers SMALL_BODY
ATTEMPTS, OF_ALL = 10, 100  # wrong passwords of a network, and of all, a minute
GUESSES, GUESSES_OF_ALL = 60, 6000  # wrong device secrets and enrollment keys
HASHING = 2  # passwords at once; each takes 32 MB and, on a small board, a good part of a second
DOORS = "iot-center-doors"


class Administrator(UserMixin):  # type: ignore[misc] # Flask-Login has no types
    """The one account, in one `session`: the Unix second of its login, and something random. A new password ends the
    sessions of the old one; a logout ends its own, for every copy of its cookie.
    """

    def __init__(self, password_hash: str, session: str = "") -> None:
        self.session = session or f"{int(time.time())}-{secrets.token_urlsafe(16)}"
        self.id = f"{ADMINISTRATOR}:{hashlib.sha256(password_hash.encode()).hexdigest()[:16]}:{self.session}"

    @classmethod
    def known(cls, user_id: str) -> Administrator | None:
        """Whom a cookie names, if the session lasts."""
        registry = current_center().registry
        kept = registry.password_hash()
        session = user_id.rpartition(":")[2]
        since, _, _ = session.partition("-")
        if not kept or not since.isdecimal() or time.time() - int(since) > SESSION_NS / 1e9:
            return None
        user = cls(kept, session)
        return user if user.id == user_id and not registry.session_ended(session) else None


class Sessions(SecureCookieSessionInterface):
    """The cookie of a login over TLS is for TLS only, also where a proxy speaks it."""

    def get_cookie_secure(self, app: Flask) -> bool:
        return request.is_secure or super().get_cookie_secure(app)


class Doors:
    """What is known of those who try passwords, device secrets and enrollment keys; and of one right password."""

    had_password = False

    def __init__(self) -> None:
        self.passwords = Attempts(ATTEMPTS, OF_ALL)
        self.guesses = Attempts(GUESSES, GUESSES_OF_ALL)
        self.wrong_guesses = Hourly()
        self.hashing = threading.BoundedSemaphore(HASHING)
        self.hashing_of_known = threading.BoundedSemaphore(HASHING)
        self._key = secrets.token_bytes(32)
        self._right = b""

    def right(self, password: Secret, kept: str) -> bool:
        """Whether it is the password. A quick hash knows the last right one again: scripts send it each time."""
        quick = hmac.digest(self._key, f"{kept}:{password.reveal()}".encode(), "sha256")
        if hmac.compare_digest(quick, self._right):
            return True
        if not check_password_hash(kept, password.reveal()):
            return False
        self._right = quick
        return True


def _doors() -> Doors:
    return cast("Doors", current_app.extensions[DOORS])


def hash_password(password: Secret) -> str:
    """ValueError for one that is too short to keep anybody out."""
    if len(password.reveal()) < MIN_PASSWORD:
        raise ValueError(f"a password has at least {MIN_PASSWORD} characters")
    return generate_password_hash(password.reveal())


def check_bind(settings: Settings, password_hash: str | None) -> None:
    """Raises SettingsError for an address other than loopback while no password is set."""
    if not settings.loopback and not password_hash:
        command = "iot-center password" + (" --embedded" if settings.embedded else "")
        raise SettingsError(
            f"it would listen on {settings.server.host} without a login: set the administrator's password with "
            f"`{command}`, or listen on 127.0.0.1"
        )


def is_open() -> bool:
    """Loopback, and no password has been seen since the start: one that is cleared, or lost with its bucket, opens
    nothing that was closed. Then nobody is the administrator until a restart.
    """
    if "open" not in g:
        center, doors = current_center(), _doors()
        doors.had_password = doors.had_password or center.registry.password_hash() is not None
        g.open = center.settings.loopback and not doors.had_password
    return bool(g.open)


def keeps_to_its_own(device_id: str) -> bool:
    """Whether a device's token may write under no other id: where a password is set, but for trusted loggers."""
    return not is_open() and device_id not in current_center().settings.devices.loggers


def store_down() -> None:
    """For the rest of this request nobody is known and the store is not asked, so that a page can say what is wrong."""
    g.open = False
    g.store_down = True


def check_password(password: Secret) -> Administrator | None:
    """The administrator, if this is the password. 429 after too many wrong ones, without looking at this one."""
    kept = current_center().registry.password_hash()
    if not kept:
        return None
    doors, address = _doors(), request.remote_addr or ""
    network = network_of(address)
    if not doors.passwords.take(network, time.monotonic()):
        abort(429, "too many wrong passwords were tried: wait a minute; this one was not looked at")
    hashing = doors.hashing_of_known if doors.passwords.knows(network) else doors.hashing
    if not hashing.acquire(blocking=False):
        doors.passwords.give_back(network, right=False)
        abort(429, "other passwords are being checked just now: try again; this one was not looked at")
    try:
        right = doors.right(password, kept)
    finally:
        hashing.release()
    if right:
        doors.passwords.give_back(network, right=True)
        return Administrator(kept)
    log.warning("wrong administrator password from %s", address)
    return None


@contextlib.contextmanager
def guessing() -> Iterator[Callable[[], None]]:
    """Around a look at a device secret or an enrollment key, which strangers may guess at so often only. What is given
    is to be called when it was right, or none was needed. Counted once in a request: that one about a device which
    is registered looks twice is not to be seen.
    """
    doors, address, now_s = _doors(), request.remote_addr or "", time.monotonic()
    network = network_of(address)
    if "guessed" not in g and not doors.guesses.take(network, now_s):
        abort(429, "too many wrong device secrets or enrollment keys came from there: wait a minute")
    g.guessed = True
    right = False

    def was_right() -> None:
        nonlocal right
        right = True
        doors.guesses.give_back(network, right=True)

    try:
        yield was_right
    finally:
        if not right and (count := doors.wrong_guesses.due(now_s)):
            log.warning(
                "%d wrong device secrets or enrollment keys since this was last said, the last from %s", count, address
            )


def is_administrator() -> bool:
    """On open loopback, with a session, or with HTTP Basic (user `admin`) for scripts."""
    if is_open() or current_user.is_authenticated:
        return True
    try:
        basic = request.authorization
    except ValueError:  # werkzeug's, for other than ASCII
        return False
    if basic is None or basic.type != "basic" or basic.username != ADMINISTRATOR:
        return False
    if "basic" not in g:
        g.basic = check_password(Secret(basic.password or "")) is not None
    return bool(g.basic)


def _host_of(address: str) -> str | None:
    try:
        return urlsplit(address).netloc
    except ValueError:  # what no browser sends
        return None


def foreign(incoming: Request, *, unsafe_only: bool) -> str | None:
    """Why a request looks as if another site's page had sent it; None if it does not."""
    if unsafe_only and incoming.method in SAFE:
        return None
    site = incoming.headers.get("Sec-Fetch-Site")
    if site not in {None, "same-origin", "none"}:
        return f"a page of another site sent this (Sec-Fetch-Site: {site})"
    for header in ("Origin", "Referer"):
        sent = incoming.headers.get(header)
        if sent and _host_of(sent) != incoming.host:
            return f"a page of another site sent this ({header})"
    return None


def guard() -> None:
    """Before every request, and before a large body is taken in."""
    center = current_center()
    if not host_trusted(request.host, trusted_hosts(center.settings)):
        abort(400, f"{request.host!r} is not a name of this center: add it to server.trusted_hosts or TRUSTED_HOSTS")
    _bound_body(center.settings)
    if request.blueprint == "assets":  # the same files for everyone, also while the store does not answer
        return
    if not center.settings.loopback or not is_open():
        # With a login cookies are SameSite=Strict and forms carry a CSRF token; this guards the API as well.
        # GET /api/env/ID registers, so it is not a safe one.
        if request.path != WRITE and (why := foreign(request, unsafe_only=not request.path.startswith("/api/env/"))):
            abort(403, why)
        return
    if why := foreign(request, unsafe_only=False):
        abort(403, why)
    by_proxy = request.environ.get("SERVER_PROTOCOL") == "HTTP/1.0"  # nginx, where nothing else is configured
    if by_proxy or any(name.lower().startswith(FORWARDED) for name, _ in request.headers):
        abort(403, "forwarded requests need a login: set a password with `iot-center password`")
    if not request.remote_addr or not ip_address(request.remote_addr.partition("%")[0]).is_loopback:
        abort(403, "without a password only this machine is answered: set one with `iot-center password`")


def _bound_body(settings: Settings) -> None:
    """A large body is for writes, whose token the store looks at first, and for administrators."""
    size = request.content_length or 0
    if request.path == WRITE:
        return
    if "HTTP_TRANSFER_ENCODING" in request.environ and not size:
        abort(411, "say in Content-Length how long the body is")
    known = size > SMALL_BODY and "store_down" not in g and is_administrator()
    request.max_content_length = min(settings.server.max_body, MAX_OTHER_BODY if known else SMALL_BODY)
    if size > request.max_content_length:
        abort(413, f"this body is larger than {request.max_content_length} bytes")


def headers(response: Response) -> Response:
    """After every request: nothing is sniffed, framed, referred to or, without saying otherwise, kept."""
    response.headers.setdefault("X-Content-Type-Options", "nosniff")
    response.headers.setdefault("X-Frame-Options", "DENY")
    response.headers.setdefault("Referrer-Policy", "same-origin")
    if request.endpoint != "static":
        response.headers.setdefault("Cache-Control", "no-store")
    return response


def init_app(app: Flask, settings: Settings, session_key: Secret, *, had_password: bool) -> None:
    app.config["SECRET_KEY"] = session_key.reveal()
    app.config["SESSION_COOKIE_SAMESITE"] = "Strict"
    app.config["SESSION_COOKIE_NAME"] = "iot_center"
    app.config["SESSION_COOKIE_SECURE"] = (settings.server.public_url or "").startswith("https://")
    app.config["MAX_CONTENT_LENGTH"] = settings.server.max_body
    app.extensions[DOORS] = doors = Doors()
    doors.had_password = had_password
    app.session_interface = Sessions()
    login = LoginManager(app)

    @login.user_loader  # type: ignore[untyped-decorator] # Flask-Login has no types
    def load_user(user_id: str) -> Administrator | None:
        return None if "store_down" in g else Administrator.known(user_id)

    app.before_request(guard)
    app.after_request(headers)


def host_trusted(host: str, names: list[str] | None) -> bool:
    """Whether a Host header is one of the names, whatever its port. A name that starts with a dot: any below it.

    Flask's own TRUSTED_HOSTS does the same, but cannot match an IPv6 address.
    """
    if names is None:
        return True
    name = (host if host.endswith("]") else host.rpartition(":")[0] or host).lower().removesuffix(".")
    return any(name == known.lower() or (known.startswith(".") and name.endswith(known.lower())) for known in names)


def trusted_hosts(settings: Settings) -> list[str] | None:
    """The names it answers to: always on loopback (against rebound names), elsewhere where they are configured."""
    named = list(settings.server.trusted_hosts)
    if settings.server.public_url:
        named.append(urlsplit(settings.server.public_url).hostname or "")
    if settings.loopback:
        return [*LOOPBACK_HOSTS, *named]
    return [*named, *LOOPBACK_HOSTS] if named else None
