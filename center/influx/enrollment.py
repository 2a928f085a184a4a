"""Enrollment keys and their uses, as points of the auth bucket."""

from __future__ import annotations

from collections.abc import Sequence

from agent.util.secret import Secret
from center.errors import EnrollmentError
from center.influx.auth_bucket import AuthBucket
from center.stores.registry import (
    EnrollmentKey,
    digest,
    enrollment_id,
    new_enrollment_key,
    of_device,
    opens,
    refusal,
)
from center.times import iso, now_ns, parse_time

KEYS = '|> last() |> keep(columns: ["_time", "_field", "_value", "keyId"])'
USES = '|> keep(columns: ["_time", "_value", "keyId", "deviceId"])'


class EnrollmentKeys(AuthBucket):
    """A part of the registry on InfluxDB."""

    def make_enrollment_key(
        self, *, note: str = "", uses: int | None = 1, expires_ns: int | None = None, device_id: str = ""
    ) -> tuple[EnrollmentKey, Secret]:
        key, secret = new_enrollment_key(note, uses, expires_ns)
        self._write(
            "enrollment",
            {"keyId": key.id},
            {
                "hash": digest(of_device(secret, device_id) if device_id else secret),
                "note": note,
                "createdAt": iso(key.created_ns),
                "expiresAt": iso(expires_ns) if expires_ns is not None else "",
                "uses": str(uses) if uses is not None else "",
            },
        )
        return key, secret

    def enrollment_keys(self) -> Sequence[EnrollmentKey]:
        return sorted((key for key, _, _ in self._enrollment_keys().values()), key=lambda key: -key.created_ns)

    def revoke_enrollment_key(self, key_id: str) -> bool:
        if key_id not in self._enrollment_keys(key_id):
            return False
        self._write("enrollment", {"keyId": key_id}, {"revokedAt": iso(now_ns())})
        return True

    def _enrollment_keys(
        self, key_id: str | None = None
    ) -> dict[str, tuple[EnrollmentKey, str, list[tuple[int, str]]]]:
        """Keys by id, with the hash of each and its uses: when, and by which device; the earliest first."""
        one = {"keyId": key_id} if key_id is not None else {}
        points: dict[str, dict[str, str]] = {}
        for row in self._rows("enrollment", KEYS, **one):
            points.setdefault(row["keyId"], {})[row["_field"]] = str(row.get("_value", ""))
        users: dict[str, list[tuple[int, str]]] = {}
        for row in self._rows("enrollment_use", USES, **one):
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

    def _enrollment_key(self, secret: Secret | None, device_id: str) -> tuple[EnrollmentKey, list[tuple[int, str]]]:
        """The key, if it was made here and is good for this device, and its uses. Raises EnrollmentError."""
        key_id = enrollment_id(secret)
        entry = self._enrollment_keys(key_id).get(key_id) if key_id else None
        if entry is None or not opens(secret, device_id, entry[1]):
            raise EnrollmentError(refusal(secret))
        return entry[0], entry[2]

    def _use_enrollment_key(self, secret: Secret | None, device_id: str, removed_ns: int) -> None:
        """Count one use, unless the device has one since it was last removed. Raises EnrollmentError.

        A registration counts once for a key, however often it is tried; after a removal it is another one. Two
        registrations within some ms can both take the last use of it.
        """
        key, used = self._enrollment_key(secret, device_id)
        key_id = key.id
        if not _mine(used, device_id, removed_ns):
            if not key.valid(now_ns()):
                raise EnrollmentError(refusal(secret))
            self._write("enrollment_use", {"keyId": key_id, "deviceId": device_id}, {"usedAt": iso(now_ns())})
            used = self._enrollment_keys(key_id)[key_id][2]
        elif key.revoked or (key.expires_ns is not None and now_ns() >= key.expires_ns):
            raise EnrollmentError(refusal(secret))
        if key.uses is not None and not _mine(used[: key.uses], device_id, removed_ns):
            raise EnrollmentError(refusal(secret))


def _mine(used: Sequence[tuple[int, str]], device_id: str, removed_ns: int) -> bool:
    return any(user == device_id and at > removed_ns for at, user in used)
