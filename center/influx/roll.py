"""All registrations, for the lists of them: read whole once, and then only what was written since.

Who owns a device is never decided from here. Claims are only added and InfluxDB stamps them, so what is newer than the
newest that is known is all that is new; ten seconds before that are read again, for what became visible late.
"""

from __future__ import annotations

import logging
import threading
import time
from collections.abc import Callable, Iterable, Sequence

from center.errors import StoreError
from center.influx.claims import Claim, Settled, claims_of, settle
from center.stores.registry import Device
from center.stores.rows import Row

log = logging.getLogger(__name__)
OVERLAP_NS = 10 * 1_000_000_000
WHOLE_EVERY_S = 300.0
"""Points that somebody deleted by hand, or that a clock put back stamped in the past, are seen after that time."""


def device_of(device_id: str, settled: Settled) -> Device:
    return Device(device_id, settled.key, settled.created_ns, settled.updated_ns, bool(settled.owner_hash))


class _Known:
    """The claims of one bucket, and the devices that they make."""

    def __init__(self, bucket_id: str) -> None:
        self.bucket_id = bucket_id
        self.read_at = time.monotonic()
        self.since_ns: int | None = None
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


class Roll:
    """`read`: rows of claims from a time on (None: of all time). `bucket_id`: of the auth bucket as it is now; another
    one is another bucket, with other registrations. Thread-safe.
    """

    def __init__(self, read: Callable[[int | None], Iterable[Row]], bucket_id: Callable[[], str]) -> None:
        self._read = read
        self._bucket_id = bucket_id
        self._lock = threading.Lock()
        self._known: _Known | None = None
        self._rereading: threading.Thread | None = None

    def devices(self) -> Sequence[Device]:
        """All that are registered now, by id."""
        with self._lock:
            bucket_id = self._bucket_id()
            if self._known is None or self._known.bucket_id != bucket_id:
                self._known = self._whole(bucket_id)
            else:
                since = self._known.since_ns
                self._known.take(self._read(None if since is None else since - OVERLAP_NS))
                self._reread(bucket_id)
            return self._known.devices

    def _whole(self, bucket_id: str) -> _Known:
        known = _Known(bucket_id)
        known.take(self._read(None))
        return known

    def _reread(self, bucket_id: str) -> None:
        """Read all claims again, if that is due, beside those who ask meanwhile."""
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
