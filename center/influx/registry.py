"""Registry on InfluxDB 2: an authorization for each device, all-string points in the auth bucket, no other state."""

from __future__ import annotations

import contextlib
import time
from collections.abc import Sequence
from dataclasses import dataclass

from influxdb_client.domain.authorization import Authorization
from influxdb_client.domain.permission import Permission
from influxdb_client.domain.permission_resource import PermissionResource
from influxdb_client.rest import ApiException

from agent.util.secret import Secret
from center.errors import ConflictError, EnrollmentError, StoreError
from center.influx.claims import NONE, Claim, Settled, claims_of, settle
from center.influx.client import Influx
from center.influx.documents import Documents
from center.influx.enrollment import EnrollmentKeys
from center.influx.roll import Claims, Roll, device_of, since
from center.stores.registry import (
    SESSION_NS,
    Device,
    DevicePage,
    Registered,
    check_device_id,
    check_secret,
    digest,
    matches,
    not_yours,
    refusal,
)
from center.times import iso, now_ns

DESCRIPTION = "IoT Center: "
MEASUREMENT = "deviceauth"
UNSETTLED_NS = 15 * 60 * 1_000_000_000
PASSWORD_CACHED_S = 5.0
SERVER_TIME = 'import "array" import "system" array.from(rows: [{_time: system.time()}])'
# group() first: one table of all points. A table for each of 10,000 devices takes three times as long.
CLAIMS = (
    '|> filter(fn: (r) => r._field == "key" or r._field == "secretHash") '
    '|> group() |> keep(columns: ["_time", "_field", "_value", "deviceId"])'
)
ENDED = '|> last() |> keep(columns: ["_time", "_value", "session"])'


@dataclass(frozen=True, slots=True)
class Issued:
    """An authorization of a device. `writes`: to the telemetry bucket as it is now, and nothing else."""

    created_ns: int
    writes: bool
    active: bool


class InfluxRegistry(EnrollmentKeys, Documents):
    """Implements Registry. One process or many: what they do at once is decided by center.influx.claims."""

    def __init__(self, influx: Influx, bucket: str, bucket_auth: str) -> None:
        super().__init__(influx, bucket_auth)
        self.bucket = bucket
        self._roll = Roll(
            lambda time_ns: self._rows(MEASUREMENT, CLAIMS, since(time_ns)),
            lambda: str(influx.needed_bucket(bucket_auth).id),
            Claims,
        )
        self._password: tuple[float, str | None] = (float("-inf"), None)
        self._ended: tuple[float, frozenset[str]] = (float("-inf"), frozenset())

    def _claims(self, device_id: str) -> list[Claim]:
        return claims_of(self._rows(MEASUREMENT, CLAIMS, deviceId=device_id)).get(device_id, [])

    def register(
        self,
        device_id: str,
        secret: Secret | None = None,
        *,
        administrator: bool = False,
        enrollment_key: Secret | None = None,
        needs_key: bool = False,
    ) -> Registered:
        check_device_id(device_id)
        claims = self._claims(device_id)
        before = settle(claims)
        if before is None:
            if needs_key and not administrator:
                removed_ns = max((claim.time_ns for claim in claims), default=0)
                self._use_enrollment_key(enrollment_key, device_id, removed_ns)
            check_secret(secret)
            kept, created = digest(secret), now_ns()
        else:
            kept, created = before.owner_hash, before.created_ns
            if not administrator and not matches(secret, kept):
                if needs_key and not self._enrollment_key(enrollment_key, device_id)[0].valid(now_ns()):
                    raise EnrollmentError(refusal(enrollment_key))
                raise ConflictError(not_yours(device_id, bool(kept)))
        key, token = self.authorize(device_id)
        try:
            if before is not None:
                self.delete(before.key)  # first, so that it is gone whatever cuts this short
            self._write(
                MEASUREMENT,
                {"deviceId": device_id},
                {"key": key, "secretHash": kept or NONE, "createdAt": iso(created)},
            )
            after = settle(self._claims(device_id))
            self._clear(after, before, key)
        except StoreError as error:
            with contextlib.suppress(StoreError):
                self.delete(key)
            if before is None:
                raise
            failed = StoreError(f"{device_id} may have no token that works until it gets a new one: try again. {error}")
            failed.known = error.known
            raise failed from error
        if after is None or after.key != key:
            same = after is None or after.owner_hash == kept
            raise ConflictError(
                f"another registration of {device_id} won at the same moment"
                if same
                else not_yours(device_id, bool(after and after.owner_hash)),
                raced=same,
            )
        return Registered(device_of(device_id, after), token, before is None)

    def _clear(self, after: Settled | None, before: Settled | None, mine: str) -> None:
        """Delete what others made at the same time, or this one, if it does not stay. The authorizations of earlier
        claims are gone: each was deleted before the next claim was written.
        """
        if after is None:
            self.delete(mine)
            return
        recent = max([after.updated_ns, *(claim.time_ns for claim in after.others)]) - UNSETTLED_NS
        for claim in after.others:
            replaced = before is not None and claim.key == before.key
            if claim.key == mine or (claim.time_ns > recent and not replaced):
                self.delete(claim.key)

    def authorize(self, device_id: str) -> tuple[str, Secret]:
        """A new authorization that may write to the telemetry bucket and nothing else. Its token is known only now."""
        bucket = self.influx.needed_bucket(self.bucket)
        resource = PermissionResource(type="buckets", id=bucket.id, org_id=bucket.org_id)
        wanted = Authorization(
            org_id=bucket.org_id,
            description=f"{DESCRIPTION}{device_id}",
            permissions=[Permission(action="write", resource=resource)],
        )
        with self.influx.call("authorizations"):
            made = self.influx.client.authorizations_api().create_authorization(authorization=wanted)
        key, token = str(made.id), Secret(made.token)
        del made  # its repr() shows the token
        return key, token

    def delete(self, key: str) -> None:
        """Delete an authorization; one that is gone already is fine."""
        with self.influx.call("authorizations"):
            try:
                self.influx.client.authorizations_api().delete_authorization(key)
            except ApiException as error:
                if error.status != 404:
                    raise

    def remove(self, device_id: str) -> bool:
        """The authorization goes first: once the tombstone is written, nobody would look for it any more. What another
        registration made meanwhile goes at the end, also where that was tried before and failed.
        """
        claims = self._claims(device_id)
        settled = settle(claims)
        if settled is not None:
            self.delete(settled.key)
            gone = {"key": NONE, "secretHash": NONE, "createdAt": iso(now_ns())}
            self._write(MEASUREMENT, {"deviceId": device_id}, gone)
            claims = self._claims(device_id)
        recent = max((claim.time_ns for claim in claims), default=0) - UNSETTLED_NS
        done_or_new = {found.key for found in (settled, settle(claims)) if found is not None}
        for key in {claim.key for claim in claims if claim.key and claim.time_ns > recent} - done_or_new:
            self.delete(key)
        return settled is not None

    def device(self, device_id: str) -> Device | None:
        settled = settle(self._claims(device_id))
        return device_of(device_id, settled) if settled else None

    def devices(self, *, offset: int = 0, limit: int | None = None, search: str = "") -> DevicePage:
        found = [device for device in self._roll.look().devices if search.lower() in device.id.lower()]
        return DevicePage(found[offset : None if limit is None else offset + limit], len(found))

    def owns(self, device_id: str, secret: Secret | None) -> bool:
        settled = settle(self._claims(device_id))
        return settled is not None and matches(secret, settled.owner_hash)

    def password_hash(self) -> str | None:
        """Remembered for some seconds, since every request asks."""
        read_at, kept = self._password
        if time.monotonic() - read_at > PASSWORD_CACHED_S:
            rows = self._rows("center", '|> filter(fn: (r) => r._field == "hash") |> last()', setting="password")
            kept = next((str(row["_value"]) for row in rows if row.get("_value", NONE) != NONE), None)
            self._password = (time.monotonic(), kept)
        return kept

    def set_password_hash(self, password_hash: str | None) -> None:
        self._write("center", {"setting": "password"}, {"hash": password_hash or NONE})
        self._password = (float("-inf"), None)

    def end_session(self, session: str) -> None:
        self._write("center", {"setting": "ended", "session": session}, {"endedAt": iso(now_ns())})
        self._ended = (float("-inf"), frozenset())

    def session_ended(self, session: str) -> bool:
        """Remembered like the password's hash."""
        read_at, ended = self._ended
        if time.monotonic() - read_at > PASSWORD_CACHED_S:
            rows = self._rows("center", ENDED, since(now_ns() - SESSION_NS), setting="ended")
            ended = frozenset(row["session"] for row in rows)
            self._ended = (time.monotonic(), ended)
        return session in ended

    def issued(self) -> dict[str, Issued]:
        """The authorizations that centers made for devices of this organisation, by id."""
        bucket = self.influx.needed_bucket(self.bucket)
        with self.influx.call("authorizations"):
            found = self.influx.client.authorizations_api().find_authorizations(org_id=bucket.org_id)
        return {
            str(authorization.id): Issued(
                round(made.timestamp()) * 1_000_000_000 if (made := authorization.created_at) else 0,
                [(p.action, p.resource.type, p.resource.id) for p in authorization.permissions or ()]
                == [("write", "buckets", bucket.id)],
                authorization.status != "inactive",
            )
            for authorization in found
            if (authorization.description or "").startswith(DESCRIPTION)
        }

    def orphans(self, *, older_than_s: float) -> Sequence[str]:
        """Authorizations that no registration refers to. Nobody has the token of one: a registration was cut short."""
        issued = self.issued()
        stays = {device.key for device in self.devices().devices}
        (clock,) = self.influx.rows(SERVER_TIME)  # the center's own clock may be off
        before = clock["_time"] - round(older_than_s * 1_000_000_000)
        return [key for key, one in issued.items() if one.writes and key not in stays and one.created_ns < before]

    def sweep(self, *, older_than_s: float) -> Sequence[str]:
        """Delete the orphans and return their ids."""
        swept = self.orphans(older_than_s=older_than_s)
        for key in swept:
            self.delete(key)
        return swept
