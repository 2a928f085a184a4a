"""When a center is asked for its remote configuration again, and what it is told with that."""

from __future__ import annotations

import contextlib
import random
import secrets
from collections.abc import Callable, Mapping
from typing import Any

from agent.config.settings import CenterSettings
from agent.registration.answers import NotRegisteredError, RegistrationError, Told
from agent.registration.client import Observe, connect
from agent.registration.credentials import Credentials, CredentialStore
from agent.registration.dialects import DIALECTS
from agent.registration.policy import failure_wait_s
from agent.registration.remote_config import RemoteConfiguration
from agent.registration.secret_files import CredentialsError

REFRESH_S = 3600.0


class Refresh:
    """Of one run of the agent; the registrar's thread owns it. `due` (its clock, s) is None until there is a center."""

    def __init__(
        self,
        settings: CenterSettings,
        store: CredentialStore,
        observe: Observe | None,
        tell: Callable[[], Mapping[str, Any]],
        *,
        now: Callable[[], float],
        rng: random.Random,
    ) -> None:
        self._settings, self._store, self._observe, self._tell = settings, store, observe, tell
        self._now, self._rng = now, rng
        self._run = secrets.token_hex(8)  # by which a center tells two agents on copies of one folder apart
        self._failures = 0
        self.due: float | None = None

    def again(self, remote: RemoteConfiguration) -> None:
        self.due = self._now() + (remote.configuration_refresh or REFRESH_S) * self._rng.uniform(0.9, 1.1)

    def soon(self, least_s: float, most_s: float) -> None:
        soon = self._now() + self._rng.uniform(least_s, most_s)
        self.due = soon if self.due is None else min(soon, self.due)

    def ask(self, credentials: Credentials) -> Told | None:
        """What the center tells, None for nothing. Raises NotRegisteredError; after another RegistrationError or a
        CredentialsError it is due within seconds, lest what is over is still said while points are delivered.
        """
        self.again(credentials.remote)
        telling = {"refresh": credentials.remote.configuration_refresh or REFRESH_S, "run": self._run}
        try:
            with contextlib.closing(connect(self._settings, self._store, self._observe)) as center:
                dialect = DIALECTS[credentials.dialect]
                found = dialect.refresh(center, credentials.device_id, {**self._tell(), **telling})
        except NotRegisteredError:
            raise
        except (RegistrationError, CredentialsError) as error:
            self._failures += 1
            self.due = self._now() + failure_wait_s(error, self._failures, False, self._rng)
            raise
        self._failures = 0
        return found
