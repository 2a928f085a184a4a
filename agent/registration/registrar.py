"""Joins a center by itself, keeps the token through everything and mends a lost one. Never blocks measuring.

One thread around `step()`: each step does at most one exchange with the center and says when the next is due.
"""

from __future__ import annotations

import contextlib
import logging
import random
import threading
import time
from collections.abc import Callable, Mapping
from pathlib import Path
from typing import Any

from agent.config.settings import CenterSettings
from agent.registration.answers import NotRegisteredError, RegistrationError
from agent.registration.client import Observe, connect
from agent.registration.credentials import Credentials, CredentialStore, HeldError
from agent.registration.dialects import DIALECTS, register
from agent.registration.policy import (
    LASTED_S,
    RegistrationState,
    RegistrationStatus,
    changes,
    failure_wait_s,
    refreshed,
    renewal_wait_s,
    target_of,
    warnings_of,
)
from agent.registration.refresh import REFRESH_S, Refresh
from agent.registration.remote_config import RemoteConfiguration
from agent.registration.secret_files import CredentialsError
from agent.registration.target import Target
from agent.util.loops import Loop
from agent.util.secret import Secret

log = logging.getLogger(__name__)

SOON_S = 30.0
TELL_AGAIN_S = 20.0  # a center does not keep what is told more often
LOOK_S = 5.0  # between two looks whether a command has changed the files
PAUSE_S = 0.1


def obtain(
    settings: CenterSettings,
    device_id: str,
    store: CredentialStore,
    old: Credentials | None,
    stale: Secret | None,
    *,
    observe: Observe | None = None,
) -> tuple[Credentials, tuple[str, ...]]:
    """Registers: what is to be stored, at once, and a sentence for each value of the center's that was refused.

    `old` are the credentials until now, `stale` a token that is refused. Raises RegistrationError, CredentialsError.
    """
    with contextlib.closing(connect(settings, store, observe)) as center:
        dialect, found = register(center, device_id, settings.api, old.dialect if old else None, stale)
    remote = old.remote if old else RemoteConfiguration()
    new = Credentials(settings.url, device_id, dialect.name, found.token, remote=remote)
    return refreshed(new, found.told)


class Registrar(Loop):
    """Keeps a target for delivery. A util.loops.Loop; the other methods may be called from any thread."""

    def __init__(
        self,
        settings: CenterSettings,
        device_id: str,
        folder: Path,
        *,
        observe: Observe | None = None,
        on_remote: Callable[[RemoteConfiguration], None] | None = None,
        tell: Callable[[], Mapping[str, Any]] = dict,
        now: Callable[[], float] = time.monotonic,
        rng: random.Random | None = None,
        look_s: float = LOOK_S,
    ) -> None:
        self._settings, self._device_id, self._observe, self._on_remote = settings, device_id, observe, on_remote
        self._store = CredentialStore(folder)
        self._now, self._rng, self._look_s = now, rng or random.SystemRandom(), look_s
        self._refresh = Refresh(settings, self._store, observe, tell, now=now, rng=self._rng)
        self._lock = threading.Lock()
        self.wakeup = threading.Event()
        self._credentials: Credentials | None = None
        self._target: Target | None = None
        self._handed: Target | None = None  # what delivery was last given
        self._stale: Secret | None = None  # the token that the server refused
        self._state: RegistrationState = "registering"
        self._since = now()
        self._error: str | None = None
        self._attempts = self._renewals = self._short_lived = 0
        self._got_at: float | None = None
        self._renewed_at: float | None = None
        self._due: float | None = now()
        self._refused: tuple[str, ...] = ()
        self._warnings = warnings_of(settings, folder, None)
        _say(self._warnings)

    def target(self) -> Target | None:
        """Where to write now, None until registered. A refused token stays until it is replaced."""
        with self._lock:
            self._handed = self._target
            return self._target

    def renew(self) -> None:
        """Delivery was answered 401 or 403: get another token, less often if that does not help (renewal_wait_s).

        The first renewal after a registration comes within seconds: another registration may just have won.
        """
        with self._lock:
            if self._credentials is None or self._stale is not None:
                return
            if self._handed is not None and self._handed.token != self._credentials.token:
                return  # what was refused has been replaced meanwhile
            now = self._now()
            self._stale = self._credentials.token
            short = self._got_at is not None and now - self._got_at < LASTED_S
            self._short_lived = self._short_lived + 1 if short else 0
            wait = renewal_wait_s(now, self._got_at, self._renewed_at, self._short_lived, self._rng)
            self._due = now + wait
            self._enter("renewing", "the server refused the token")
        log.warning("the server refused the token: renewing it%s", f" in {wait:.0f} s" if wait >= 1 else "")
        self.wakeup.set()

    def accepted(self) -> None:
        """The server takes a token that it refused, or the one in its place: the next renewal need not wait longer."""
        with self._lock:
            self._short_lived = 0
            if self._credentials is None or self._stale is None or self._credentials.token != self._stale:
                return
            self._stale, self._due, self._attempts = None, None, 0
            self._enter("registered", None)
        log.info("the server takes the token again")

    def snapshot(self) -> RegistrationStatus:
        with self._lock:
            now, target = self._now(), self._target
            return RegistrationStatus(
                state=self._state,
                since_s=now - self._since,
                error=self._error,
                attempts=self._attempts,
                next_attempt_s=None if self._due is None else max(0.0, self._due - now),
                dialect=self._credentials.dialect if self._credentials else None,
                device_id=self._device_id,
                url=target.url if target else None,
                org=target.org if target else None,
                bucket=target.bucket if target else None,
                remote=self._remote,
                refused=self._refused,
                warnings=self._warnings,
                renewals=self._renewals,
            )

    def step(self) -> float:
        """Does what is due now; returns the seconds until the next thing is."""
        try:
            self._look_at_files()
            if self._due is not None and self._now() >= self._due:
                self._register()
            elif self._refresh.due is not None and self._now() >= self._refresh.due:
                self._ask()
        except (RegistrationError, CredentialsError) as error:
            self._failed(error)
        due = [moment for moment in (self._due, self._refresh.due) if moment is not None]
        return min(max(PAUSE_S, min(due) - self._now()) if due else REFRESH_S, self._look_s)

    def _look_at_files(self) -> None:
        """Takes up what is stored at start, and what another command stored since; puts back what was wiped."""
        ours = self._credentials
        found = self._store.look(ours, self._settings.url, self._device_id)
        if found is None:
            with self._lock:  # no file is in the way any more, and there is a token that nobody refuses
                if self._state == "failing" and self._due is None and self._target is not None:
                    log.info("registration works again")
                    self._enter("registered", None)
            return
        if found != ours or (self._state == "failing" and self._stale is None):  # the files can be read again
            self._adopt(found)
            if ours is None:
                self._refresh.soon(0, SOON_S)

    def _register(self) -> None:
        with self._lock:
            self._attempts += 1
            stale, old = self._stale, self._credentials
        with self._store.exclusive():
            credentials, refused = obtain(
                self._settings, self._device_id, self._store, old, stale, observe=self._observe
            )
            self._store.keep(credentials)  # at once, before it is used: InfluxDB shows a token only once
        _say(refused, self._refused)
        with self._lock:
            self._refused = refused
            if stale is not None:
                self._renewals += 1
                self._renewed_at = self._now()
            self._got_at = self._now()
        done = "renewed" if stale else "registered"
        log.info("%s as %s with %s (%s)", done, self._device_id, self._settings.url, credentials.dialect)
        self._adopt(credentials)
        if stale is None and DIALECTS[credentials.dialect].hears:
            self._refresh.soon(0, SOON_S)

    def _ask(self) -> None:
        credentials = self._credentials
        if credentials is None or credentials.dialect not in DIALECTS:
            self._refresh.again(self._remote)
            return
        try:
            found = self._refresh.ask(credentials)
        except NotRegisteredError as error:
            log.warning("%s", error)
            self.renew()
            return
        except (RegistrationError, CredentialsError) as error:
            text = f"the remote configuration is not refreshed: {error}"
            with self._lock:
                if self._state == "registered" and self._error != text:
                    log.warning("%s", text)
                    self._error = text
            return
        new, refused = refreshed(credentials, found) if found else (credentials, self._refused)
        _say(refused, self._refused)
        with self._lock:
            self._refused = refused
            if self._state == "registered":
                self._error = None
        if new == credentials:
            return
        try:
            with self._store.exclusive():
                if self._store.changed_elsewhere():
                    return  # `register --force` was quicker: the next step takes that up
                self._store.keep(new)
        except HeldError:  # by a command
            self._refresh.soon(LOOK_S, LOOK_S)
            return
        log.info("the center changed the configuration: %s", ", ".join(changes(credentials, new)))
        self._adopt(new)
        self._refresh.soon(TELL_AGAIN_S, SOON_S)  # to tell what it came to

    def _adopt(self, credentials: Credentials) -> None:
        """Uses these credentials from now on."""
        with self._lock:
            changed, self._credentials = credentials.remote != self._remote, credentials
            if credentials.token != self._stale:
                self._stale = self._due = None
            self._refresh.again(credentials.remote)
        try:
            target = target_of(self._settings, credentials)
        except RegistrationError as error:
            log.warning("%s", error)
            with self._lock:
                self._target = None
                self._enter("failing", str(error))
        else:
            warnings = warnings_of(self._settings, self._store.folder, target)
            _say(warnings, self._warnings)
            with self._lock:
                self._target, self._warnings = target, warnings
                if self._stale is None:
                    if self._state == "failing":
                        log.info("registration works again after %d attempts", self._attempts)
                    self._attempts = 0
                    self._enter("registered", None)
        if changed and self._on_remote:
            self._on_remote(credentials.remote)

    def _failed(self, error: RegistrationError | CredentialsError) -> None:
        text = str(error)
        with self._lock:
            fresh, attempts = self._error != text, self._attempts
            if self._credentials is None or self._stale is not None:
                self._due = self._now() + failure_wait_s(error, self._attempts, self._stale is not None, self._rng)
            self._enter("failing", text)
        if fresh:
            log.warning("registration fails (attempt %d): %s; points are kept and it is tried again", attempts, text)

    @property
    def _remote(self) -> RemoteConfiguration:
        return self._credentials.remote if self._credentials else RemoteConfiguration()

    def _enter(self, state: RegistrationState, error: str | None) -> None:
        if state != self._state:
            self._since = self._now()
        self._state, self._error = state, error


def _say(texts: tuple[str, ...], before: tuple[str, ...] = ()) -> None:
    """Each once, as long as it holds."""
    for text in texts:
        if text not in before:
            log.warning("%s", text)
