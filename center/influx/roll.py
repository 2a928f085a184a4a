"""All registrations and all documents: read whole once, and then only what was written since.

Who owns a device is never decided from here. Points are only added and InfluxDB stamps them, so what is newer than the
newest that is known is all that is new; ten seconds before that are read again, for what became visible late.
"""

from __future__ import annotations

import logging
import threading
import time
from abc import ABC, abstractmethod
from collections.abc import Callable, Iterable, Sequence
from typing import Generic, TypeVar

from center.errors import StoreError
from center.influx.claims import Claim, Settled, claims_of, settle
from center.influx.client import ALL_TIME
from center.stores.registry import Device
from center.stores.rows import Row

log = logging.getLogger(__name__)
OVERLAP_NS = 10 * 1_000_000_000
WHOLE_EVERY_S = 300.0
"""Points that somebody deleted by hand, or that a clock put back stamped in the past, are seen after that time."""


def device_of(device_id: str, settled: Settled) -> Device:
    return Device(device_id, settled.key, settled.created_ns, settled.updated_ns, bool(settled.owner_hash))


def since(time_ns: int | None) -> str:
    """The range of the points from a time on, also of those that a clock stamped that was ahead; None: all of them."""
    return ALL_TIME if time_ns is None else f"range(start: time(v: {time_ns}), stop: 2262-04-11T00:00:00Z)"


class Known(ABC):
    """What was read of one bucket. take() is called by one thread at a time, and replaces what others may be reading;
    it sets `since_ns` to the time of the newest point.
    """

    def __init__(self, bucket_id: str) -> None:
        self.bucket_id = bucket_id
        self.read_at = time.monotonic()
        self.since_ns: int | None = None

    @abstractmethod
    def take(self, rows: Iterable[Row]) -> None: ...


class Claims(Known):
    """The claims of one bucket, and the devices that they make, by id."""

    def __init__(self, bucket_id: str) -> None:
        super().__init__(bucket_id)
        self.devices: Sequence[Device] = ()
        self._claims: dict[str, dict[int, Claim]] = {}  # by time: half of a point may be seen first
        self._found: dict[str, Device] = {}

    def take(self, rows: Iterable[Row]) -> None:
        changed = False
        for device_id, claims in claims_of(rows).items():
            known = self._claims.setdefault(device_id, {})
            fresh = {claim.time_ns: claim for claim in claims}.items() - known.items()
            if not fresh:
                continue
            changed = True
            known.update(fresh)
            self.since_ns = max(self.since_ns or 0, *known)
            if settled := settle(list(known.values())):
                self._found[device_id] = device_of(device_id, settled)
            else:
                self._found.pop(device_id, None)
        if changed:
            self.devices = sorted(self._found.values(), key=lambda device: device.id)


K = TypeVar("K", bound=Known)


class Roll(Generic[K]):
    """`read`: rows of points from a time on (None: of all time). `bucket_id`: of the auth bucket as it is now; another
    one is another bucket, with other registrations. Thread-safe.
    """

    def __init__(
        self, read: Callable[[int | None], Iterable[Row]], bucket_id: Callable[[], str], kind: Callable[[str], K]
    ) -> None:
        self._read, self._bucket_id, self._kind = read, bucket_id, kind
        self._lock = threading.Lock()
        self._known: K | None = None
        self._rereading: threading.Thread | None = None

    def look(self) -> K:
        """What is in the bucket now."""
        with self._lock:
            bucket_id = self._bucket_id()
            if self._known is None or self._known.bucket_id != bucket_id:
                self._known = self._whole(bucket_id)
            else:
                newest = self._known.since_ns
                self._known.take(self._read(None if newest is None else newest - OVERLAP_NS))
                self._reread(bucket_id)
            return self._known

    def _whole(self, bucket_id: str) -> K:
        known = self._kind(bucket_id)
        known.take(self._read(None))
        return known

    def _reread(self, bucket_id: str) -> None:
        """Read all again, if that is due, beside those who ask meanwhile."""
        assert self._known is not None
        busy = self._rereading is not None and self._rereading.is_alive()
        if busy or time.monotonic() - self._known.read_at < WHOLE_EVERY_S:
            return

        def reread() -> None:
            try:
                known = self._whole(bucket_id)
            except StoreError as error:
                log.debug("%s", error)  # the next one who asks meets it too
                return
            with self._lock:
                self._known = known

        self._rereading = threading.Thread(target=reread, name="center-registrations", daemon=True)
        self._rereading.start()
