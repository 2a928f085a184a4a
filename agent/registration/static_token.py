"""The other way to a target: `[influxdb]` with a token given by hand. The same face as the Registrar's."""

from __future__ import annotations

import logging
import threading
import time
from collections.abc import Callable

from agent.config.settings import InfluxSettings
from agent.registration.policy import RegistrationState, RegistrationStatus
from agent.registration.remote_config import RemoteConfiguration
from agent.registration.secret_files import CredentialsError, read_secret_file
from agent.registration.target import Target, client_cert, plain_http_warning
from agent.util.loops import Loop
from agent.util.secret import Secret

log = logging.getLogger(__name__)

LOOK_AGAIN_S = 10.0
CREDENTIAL = "influxdb.token"


def target_by_hand(settings: InfluxSettings, token: Secret) -> Target:
    """Where to write, by [influxdb]."""
    return Target(
        settings.url, settings.org, settings.bucket, token, settings.ca_file, client_cert=client_cert(settings)
    )


class StaticToken(Loop):
    """A target from the settings. The token's file is read again while it is missing or the server refuses it."""

    def __init__(self, settings: InfluxSettings, device_id: str, *, now: Callable[[], float] = time.monotonic) -> None:
        self._settings, self._device_id, self._now = settings, device_id, now
        self._lock = threading.Lock()
        self.wakeup = threading.Event()
        self._token: Secret | None = None
        self._refused: Secret | None = None
        self._state: RegistrationState = "waiting"
        self._since = now()
        self._error: str | None = None
        self._attempts = 0
        self._warnings = tuple(text for text in (plain_http_warning(settings.url),) if text)
        for warning in self._warnings:
            log.warning("%s", warning)
        self.step()

    def target(self) -> Target | None:
        """None while there is no token."""
        with self._lock:
            if self._token is None:
                return None
            settings = self._settings
            return target_by_hand(settings, self._token)

    def renew(self) -> None:
        """The server answered 401 or 403: look whether somebody has put another token in the file."""
        with self._lock:
            first = self._state != "refused"
            self._refused = self._token
            self._enter(
                "refused", f"the server refuses this token for bucket {self._settings.bucket!r}: {self._remedy()}"
            )
            text = self._error
        if first:
            log.warning("%s; points are kept", text)
        self.wakeup.set()

    def accepted(self) -> None:
        """The server takes the token again: somebody has mended the bucket or the authorization."""
        with self._lock:
            if self._state == "refused":
                self._refused = None
                self._enter("registered", None)

    def snapshot(self) -> RegistrationStatus:
        with self._lock:
            return RegistrationStatus(
                state=self._state,
                since_s=self._now() - self._since,
                error=self._error,
                attempts=self._attempts,
                next_attempt_s=None if self._state == "registered" else LOOK_AGAIN_S,
                dialect=None,
                device_id=self._device_id,
                url=self._settings.url,
                org=self._settings.org,
                bucket=self._settings.bucket,
                remote=RemoteConfiguration(),
                warnings=self._warnings,
            )

    def step(self) -> float:
        """Reads the token when there is none or it was refused; returns the seconds until it looks again."""
        with self._lock:
            if self._token is not None and self._refused is None:
                return LOOK_AGAIN_S
        problem, token = None, None
        try:
            token = self._settings.token or read_secret_file(self._settings.token_file, CREDENTIAL)
        except CredentialsError as error:
            problem = str(error)
        with self._lock:
            self._attempts += 1
            if token is not None and token != self._refused:
                if self._refused is not None:
                    log.info("another token was found: it is used from now on")
                self._token, self._refused, self._attempts = token, None, 0
                self._enter("registered", None)
            elif self._token is None:
                text = problem or f"no token to write with: {self._remedy()}"
                if text != self._error:
                    log.warning("%s; points are kept", text)
                self._enter("waiting", text)
        return LOOK_AGAIN_S

    def _remedy(self) -> str:
        if self._settings.token is not None:
            return "put a token that may write there into [influxdb] token, and restart"
        return (
            f"put a token that may write there into {self._settings.token_file or 'the file of [influxdb] token_file'}"
        )

    def _enter(self, state: RegistrationState, error: str | None) -> None:
        if state != self._state:
            self._since = self._now()
        self._state, self._error = state, error
