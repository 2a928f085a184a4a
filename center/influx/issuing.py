"""Registry on InfluxDB for series that are elsewhere: the center issues the tokens itself, by the same claims.

The key of a claim begins like an id of InfluxDB's authorizations, so that either kind of key follows the other in time,
and ends with the hash of the token: a claim that stays proves a token, and nothing else is kept.
"""

from __future__ import annotations

import secrets
import threading
import time
from collections.abc import Mapping, Sequence

from agent.util.secret import Secret
from center.errors import StoreError
from center.influx.claims import settle
from center.influx.client import Influx
from center.influx.registry import InfluxRegistry
from center.stores.registry import digest, matches

EPOCH_MS = 1_491_696_000_000  # of InfluxDB's ids (influxdata/influxdb, snowflake): milliseconds, then 22 bits
ID_DIGITS = 16
LOOK_EVERY_S = 2.0


class IssuingRegistry(InfluxRegistry):
    """A token is `ID.RANDOM`. Who holds one is told from a list of all keys, read at most every two seconds for all
    requests together, and for a token that is not in it from the claims of its device.
    """

    def __init__(self, influx: Influx, bucket: str, bucket_auth: str) -> None:
        super().__init__(influx, bucket, bucket_auth)
        self._looking = threading.Lock()
        self._keys: Mapping[str, str] = {}
        self._failed: StoreError | None = None
        self._looked_at = float("-inf")

    def authorize(self, device_id: str) -> tuple[str, Secret]:
        """A new key and its token, which is known only now."""
        number = (time.time_ns() // 1_000_000 - EPOCH_MS) << 22 | secrets.randbits(22)
        token = Secret(f"{device_id}.{secrets.token_urlsafe(48)}")
        return f"{number:0{ID_DIGITS}x}{digest(token)}", token

    def delete(self, key: str) -> None:
        """Nothing: a key is worth something as long as its claim stays."""

    def orphans(self, *, older_than_s: float) -> Sequence[str]:  # noqa: ARG002 - the registry's
        """None: what no claim refers to does not exist."""
        return ()

    def holder(self, token: Secret) -> str | None:
        device_id = token.reveal().rpartition(".")[0]
        if not device_id:
            return None
        if matches(token, self._known().get(device_id, "")[ID_DIGITS:]):
            return device_id
        settled = settle(self._claims(device_id))
        return device_id if settled and matches(token, settled.key[ID_DIGITS:]) else None

    def _known(self) -> Mapping[str, str]:
        """The list. A look that failed is none for two seconds: with an InfluxDB that hangs, requests would wait for it
        one after another, each as long as its timeout.
        """
        with self._looking:
            if time.monotonic() - self._looked_at > LOOK_EVERY_S:
                self._failed = None
                try:
                    self._keys = {device.id: device.key for device in self.devices().devices}
                except StoreError as error:
                    self._failed = error
                    raise
                finally:
                    self._looked_at = time.monotonic()
            if self._failed is not None:
                again = StoreError(str(self._failed))
                again.known = True
                raise again
            return self._keys
