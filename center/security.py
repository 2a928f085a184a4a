"""Who may do what: loopback without a login, administrators by password, foreign sites never.

Open: bound to loopback and no password set. Whoever reaches it there is an administrator, so it answers only to its own
names, only to this machine, and never to requests of another site's page or through a proxy.
"""

from __future__ import annotations

import hashlib
import threading
import time
from ipaddress import ip_address
from urllib.parse import urlsplit

from flask import Flask, Request, Response, abort, current_app, g, request
from flask.sessions import SecureCookieSessionInterface
from flask_login import LoginManager, UserMixin, current_user
from werkzeug.security import check_password_hash, generate_password_hash

from agent.util.secret import Secret
from center.context import current_center
from center.errors import SettingsError
from center.settings import Settings

ADMINISTRATOR = "admin"
LOOPBACK_HOSTS = ("localhost", "127.0.0.1", "[::1]")
FORWARDED = ("forwarded", "x-forwarded-", "x-real-ip", "via")
SAFE = {"GET", "HEAD", "OPTIONS"}
MIN_PASSWORD = 10
WRITE = "/api/v2/write"
MAX_OTHER_BODY = 4_000_000  # bytes: forms and JSON, before anybody has said who they are
ATTEMPTS, PER_S = 10, 60.0
ATTEMPTS_EXTENSION = "iot-center-attempts"


class Administrator(UserMixin):  # type: ignore[misc] # Flask-Login has no types
    """The one account. A new password ends the sessions of the old one."""

    def __init__(self, password_hash: str) -> None:
        self.id = f"{ADMINISTRATOR}:{hashlib.sha256(password_hash.encode()).hexdigest()[:16]}"


class Sessions(SecureCookieSessionInterface):
    """The cookie of a login over TLS is for TLS only, also where a proxy speaks it."""

    def get_cookie_secure(self, app: Flask) -> bool:
        return request.is_secure or super().get_cookie_secure(app)


class Attempts:
    """At most `ATTEMPTS` wrong passwords from an address in `PER_S` seconds, and ten times as many from all."""

    def __init__(self) -> None:
        self._lock = threading.Lock()
        self._failures: list[tuple[float, str]] = []

    def allowed(self, address: str, now_s: float) -> bool:
        with self._lock:
            self._failures = [failure for failure in self._failures if now_s - failure[0] < PER_S]
            mine = sum(failure[1] == address for failure in self._failures)
            return mine < ATTEMPTS and len(self._failures) < 10 * ATTEMPTS

    def failed(self, address: str, now_s: float) -> None:
        with self._lock:
            self._failures.append((now_s, address))


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
    """Loopback without a password."""
    if "open" not in g:
        center = current_center()
        g.open = center.settings.loopback and center.registry.password_hash() is None
    return bool(g.open)


def store_down() -> None:
    """For the rest of this request nobody is known and the store is not asked, so that a page can say what is wrong."""
    g.open = False
    g.store_down = True


def check_password(password: Secret) -> Administrator | None:
    """The administrator, if this is the password. 429 after too many wrong ones."""
    attempts: Attempts = current_app.extensions[ATTEMPTS_EXTENSION]
    address = request.remote_addr or ""
    if not attempts.allowed(address, time.monotonic()):
        abort(429, "too many wrong passwords: wait a minute")
    kept = current_center().registry.password_hash()
    if kept and check_password_hash(kept, password.reveal()):
        return Administrator(kept)
    attempts.failed(address, time.monotonic())
    return None


def is_administrator() -> bool:
    """On open loopback, with a session, or with HTTP Basic (user `admin`) for scripts."""
    if is_open() or current_user.is_authenticated:
        return True
    basic = request.authorization
    if basic is None or basic.type != "basic" or basic.username != ADMINISTRATOR:
        return False
    if "basic" not in g:
        g.basic = check_password(Secret(basic.password or "")) is not None
    return bool(g.basic)


def foreign(incoming: Request, *, unsafe_only: bool) -> str | None:
    """Why a request looks as if another site's page had sent it; None if it does not."""
    if unsafe_only and incoming.method in SAFE:
        return None
    site = incoming.headers.get("Sec-Fetch-Site")
    if site not in {None, "same-origin", "none"}:
        return f"a page of another site sent this (Sec-Fetch-Site: {site})"
    for header in ("Origin", "Referer"):
        sent = incoming.headers.get(header)
        if sent and urlsplit(sent).netloc != incoming.host:
            return f"a page of another site sent this ({header})"
    return None


def guard() -> None:
    """Before every request."""
    center = current_center()
    if request.path != WRITE:
        request.max_content_length = min(center.settings.server.max_body, MAX_OTHER_BODY)
    if not host_trusted(request.host, trusted_hosts(center.settings)):
        abort(400, f"{request.host!r} is not a name of this center: add it to server.trusted_hosts or TRUSTED_HOSTS")
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
    if any(name.lower().startswith(FORWARDED) for name, _ in request.headers):
        abort(403, "forwarded requests need a login: set a password with `iot-center password`")
    if not request.remote_addr or not ip_address(request.remote_addr.partition("%")[0]).is_loopback:
        abort(403, "without a password only this machine is answered: set one with `iot-center password`")


def headers(response: Response) -> Response:
    """After every request: nothing is sniffed, framed, referred to or, without saying otherwise, kept."""
    response.headers.setdefault("X-Content-Type-Options", "nosniff")
    response.headers.setdefault("X-Frame-Options", "DENY")
    response.headers.setdefault("Referrer-Policy", "same-origin")
    if request.endpoint != "static":
        response.headers.setdefault("Cache-Control", "no-store")
    return response


def init_app(app: Flask, settings: Settings, session_key: Secret) -> None:
    app.config["SECRET_KEY"] = session_key.reveal()
    app.config["SESSION_COOKIE_SAMESITE"] = "Strict"
    app.config["SESSION_COOKIE_NAME"] = "iot_center"
    app.config["SESSION_COOKIE_SECURE"] = (settings.server.public_url or "").startswith("https://")
    app.config["MAX_CONTENT_LENGTH"] = settings.server.max_body
    app.extensions[ATTEMPTS_EXTENSION] = Attempts()
    app.session_interface = Sessions()
    login = LoginManager(app)

    @login.user_loader  # type: ignore[untyped-decorator] # Flask-Login has no types
    def load_user(user_id: str) -> Administrator | None:
        if "store_down" in g:
            return None
        kept = current_center().registry.password_hash()
        user = Administrator(kept) if kept else None
        return user if user and user.get_id() == user_id else None

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
