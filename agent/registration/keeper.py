"""The running agent's hold on its credentials' file: takes up what others store, puts back what is wiped."""

from __future__ import annotations

import logging
from typing import TYPE_CHECKING

from agent.registration.answers import SOON_UNKNOWN
from agent.registration.credentials import CredentialsError

if TYPE_CHECKING:
    from agent.registration.credentials import Credentials, CredentialStore

log = logging.getLogger(__name__)


class Keeper:
    """For the registrar's thread only. `center` and `device_id` say whose credentials count."""

    def __init__(self, store: CredentialStore, center: str, device_id: str) -> None:
        self.store = store
        self._center, self._device_id = center, device_id
        self._stamp: tuple[int, int, int] | None = None
        self._looked = False
        self._unsaved = False

    def look(self, ours: Credentials | None) -> Credentials | None:
        """The credentials in the file if it changed since the last look, saved or not; None if there is nothing new.

        `ours` are those in use: they are written again when the file is gone, damaged, or could not be written before.
        Raises CredentialsError for files that others can read, at each look until that is mended.
        """
        lost = self.store.secret_is_lost()
        stamp = self.store.stamp()
        if self._looked and stamp == self._stamp and not self._unsaved:
            return None
        found = self.store.load()
        if found and (found.center, found.device_id) != (self._center, self._device_id):
            log.info("the stored token is of %s at %s: registering anew", found.device_id, found.center)
            found = None
        if found and lost:
            log.warning("%s", SOON_UNKNOWN.format(id=self._device_id))
        self._looked, self._stamp = True, self.store.stamp()
        if ours and found != ours and (self._unsaved or found is None):
            self.save(ours)
            return None
        return found

    def save(self, credentials: Credentials) -> None:
        """Stores them; a disk that refuses is no reason not to use them, since the device secret renews them."""
        try:
            self.store.save(credentials)
        except CredentialsError as error:
            if not self._unsaved:
                log.warning("the token is used but not kept: %s", error)
            self._unsaved = True
            return
        self._unsaved = False
        self._stamp = self.store.stamp()

    def changed_elsewhere(self) -> bool:
        """Whether another process has stored something since the last look."""
        return self.store.stamp() != self._stamp
