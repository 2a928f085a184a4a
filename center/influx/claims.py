"""Who owns a device id, decided from the points in the auth bucket: InfluxDB has no transactions to decide it in.

Each registration writes a claim: a point with the id of the authorization it created and the hash of the device's
secret. Whatever happens at once, everybody who reads the claims since the last tombstone decides alike.
"""

from __future__ import annotations

from collections.abc import Iterable, Sequence
from dataclasses import dataclass

from center.stores.rows import Row

NONE = "-"
"""Written for no key and no secret. Never an empty text: InfluxDB 2.8.0 moves the values that follow one in a series up
by a point (seen; influxdata/influxdb#26916), so that a claim after a tombstone reads as a tombstone after a claim.
Those that 0.1.0 wrote are still understood.
"""


@dataclass(frozen=True, slots=True)
class Claim:
    """A point of measurement deviceauth. No key: a tombstone. `secret_hash` is empty for a device without a secret."""

    time_ns: int
    key: str = ""
    secret_hash: str = ""


@dataclass(frozen=True, slots=True)
class Settled:
    """What stays: the owner's newest authorization, and the others, which are to be deleted.

    Created and updated: when InfluxDB took the first claim, and the one that stays.
    """

    key: str
    owner_hash: str
    created_ns: int
    updated_ns: int
    others: tuple[Claim, ...]


def settle(claims: Sequence[Claim]) -> Settled | None:
    """The owner is the secret of the lowest key, what stays is the owner's highest key. None: not registered."""
    buried = max((claim.time_ns for claim in claims if not claim.key), default=-1)
    alive = sorted((claim for claim in claims if claim.key and claim.time_ns > buried), key=lambda claim: claim.key)
    if not alive:
        return None
    owner = alive[0].secret_hash
    stays = max((claim for claim in alive if claim.secret_hash == owner), key=lambda claim: claim.key)
    others = tuple(claim for claim in alive if claim.key != stays.key)
    return Settled(stays.key, owner, min(claim.time_ns for claim in alive), stays.time_ns, others)


def claims_of(rows: Iterable[Row]) -> dict[str, list[Claim]]:
    """Claims by device, from rows of one field each."""
    fields: dict[tuple[str, int], dict[str, str]] = {}
    for row in rows:
        if "deviceId" in row:
            value = str(row.get("_value", ""))
            fields.setdefault((row["deviceId"], row["_time"]), {})[row["_field"]] = "" if value == NONE else value
    found: dict[str, list[Claim]] = {}
    for (device_id, time_ns), point in fields.items():
        claim = Claim(time_ns, point.get("key", ""), point.get("secretHash", ""))
        found.setdefault(device_id, []).append(claim)
    return found
