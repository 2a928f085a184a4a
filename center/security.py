"""Who is an administrator: whoever reaches it on open loopback, and who has the password, by session or HTTP Basic.

Open: bound to loopback and no password set. Which requests are answered at all: center/guard.py.
"""

from __future__ import annotations

import contextlib
import hashlib
import hmac
import logging
import secrets
import shlex
import threading
import time
from collections.abc import Callable, Iterator
from typing import cast

from flask import Flask, abort, current_app, g, request
from flask.sessions import SecureCookieSessionInterface
from flask_login import LoginManager, UserMixin, current_user
from werkzeug.security import check_password_hash, generate_password_hash

from agent.util.secret import Secret
from center.context import current_center
from center.errors import SettingsError
from center.limits import Attempts, Hourly, network_of
from center.settings import Settings
from center.stores.registry import SESSION_NS

log = logging.getLogger(__name__)

ADMINISTRATOR = "admin"
MIN_PASSWORD = 10
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
        if settings.embedded and settings.store.data:
            command += f" --data {shlex.quote(settings.store.data)}"
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
