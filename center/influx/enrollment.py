"""Enrollment keys in the auth bucket: a point for each key, and one for each device that used it."""

from __future__ import annotations

from typing import TYPE_CHECKING

from center.errors import EnrollmentError
from center.influx.client import ALL_TIME, Influx
from center.line_protocol import encode
from center.stores.registry import EnrollmentKey, digest, enrollment_id, matches, new_enrollment_key, refusal
from center.stores.telemetry import Point
from center.times import iso, now_ns, parse_time

if TYPE_CHECKING:
    from collections.abc import Sequence

    from agent.util.secret import Secret

KEYS = (
    f"from(bucket: _bucket) |> {ALL_TIME} "
    '|> filter(fn: (r) => r._measurement == "enrollment"%s) |> last() '
    '|> keep(columns: ["_time", "_field", "_value", "keyId"])'
)
USES = (
    f"from(bucket: _bucket) |> {ALL_TIME} "
    '|> filter(fn: (r) => r._measurement == "enrollment_use"%s) '
    '|> keep(columns: ["_time", "_value", "keyId", "deviceId"])'
)


class InfluxEnrollment:
    """A registration counts once for a key, however often it is tried; after a removal it is another one.

    Two registrations within some ms can both take the last use of it.
    """

    def __init__(self, influx: Influx, bucket: str) -> None:
        self.influx = influx
        self.bucket = bucket

    def make(self, note: str, uses: int | None, expires_ns: int | None) -> tuple[EnrollmentKey, Secret]:
        key_id, secret = new_enrollment_key()
        now = now_ns()
        fields = {
            "hash": digest(secret),
            "note": note,
            "createdAt": iso(now),
            "expiresAt": iso(expires_ns) if expires_ns is not None else "",
            "uses": str(uses) if uses is not None else "",
        }
        self.influx.write(self.bucket, [encode(Point("enrollment", {"keyId": key_id}, dict(fields)))])
        return EnrollmentKey(key_id, note, now, expires_ns, uses, 0, False), secret

    def _read(self, key_id: str | None) -> dict[str, tuple[EnrollmentKey, str, list[tuple[int, str]]]]:
        """Keys by id, with the hash of each and its uses: when, and by which device; the earliest first."""
        where, params = "", {"_bucket": self.bucket}
        if key_id is not None:
            where, params["_key"] = " and r.keyId == _key", key_id
        points: dict[str, dict[str, str]] = {}
        for row in self.influx.rows(KEYS % where, params):
            points.setdefault(row["keyId"], {})[row["_field"]] = str(row.get("_value", ""))
        users: dict[str, list[tuple[int, str]]] = {}
        for row in self.influx.rows(USES % where, params):
            users.setdefault(row["keyId"], []).append((row["_time"], row["deviceId"]))
        found = {}
        for name, point in points.items():
            if not point.get("hash"):
                continue
            used = sorted(users.get(name, ()))
            uses = int(point["uses"]) if point.get("uses") else None
            key = EnrollmentKey(
                name,
                point.get("note", ""),
                parse_time(point["createdAt"], 0),
                parse_time(point["expiresAt"], 0) if point.get("expiresAt") else None,
                uses,
                len(used) if uses is None else min(len(used), uses),
                bool(point.get("revokedAt")),
            )
            found[name] = (key, point["hash"], used)
        return found

    def keys(self) -> Sequence[EnrollmentKey]:
        return sorted((key for key, _, _ in self._read(None).values()), key=lambda key: -key.created_ns)

    def revoke(self, key_id: str) -> bool:
        if key_id not in self._read(key_id):
            return False
        self.influx.write(self.bucket, [encode(Point("enrollment", {"keyId": key_id}, {"revokedAt": iso(now_ns())}))])
        return True

    def use(self, secret: Secret | None, device_id: str, removed_ns: int) -> None:
        """Count one use, unless the device has one since it was last removed. Raises EnrollmentError."""
        key_id = enrollment_id(secret)
        entry = self._read(key_id).get(key_id) if key_id else None
        if entry is None or not matches(secret, entry[1]):
            raise EnrollmentError(refusal(secret))
        key, _, used = entry
        if not _mine(used, device_id, removed_ns):
            if not key.valid(now_ns()):
                raise EnrollmentError(refusal(secret))
            point = Point("enrollment_use", {"keyId": key_id, "deviceId": device_id}, {"usedAt": iso(now_ns())})
            self.influx.write(self.bucket, [encode(point)])
            used = self._read(key_id)[key_id][2]
        elif key.revoked or (key.expires_ns is not None and now_ns() >= key.expires_ns):
            raise EnrollmentError(refusal(secret))
        if key.uses is not None and not _mine(used[: key.uses], device_id, removed_ns):
            raise EnrollmentError(refusal(secret))


def _mine(used: Sequence[tuple[int, str]], device_id: str, removed_ns: int) -> bool:
    return any(user == device_id and at > removed_ns for at, user in used)
