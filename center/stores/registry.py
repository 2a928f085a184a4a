"""Who is registered: the interface that the embedded store and InfluxDB implement, and its records.

One live authorization a device, whatever happens at once; no token is ever stored in plain or shown again. Times are
Unix nanoseconds. Every method may raise StoreError when the store cannot be reached.
"""

from __future__ import annotations

import hashlib
import hmac
import secrets
from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from typing import Protocol

from agent.config.limits import check_id
from agent.util.secret import Secret
from center.errors import RefusedError
from center.times import now_ns

MIN_SECRET = 32
SESSION_NS = 31 * 86_400 * 1_000_000_000  # as long as Flask takes a session cookie
LEASE_S = 60
MAX_DOCUMENT = 16_000


def check_document(text: str | None) -> None:
    """RefusedError for one that is longer than a document may be, or that says nothing."""
    if text is not None and not 0 < len(text) <= MAX_DOCUMENT:
        raise RefusedError(f"what is kept here has 1 to {MAX_DOCUMENT} characters, not {len(text)}")


def check_device_id(device_id: str) -> str:
    """The id, if devices take it too; else RefusedError."""
    try:
        return check_id(device_id)
    except ValueError as error:
        raise RefusedError(str(error)) from None


def not_yours(device_id: str, has_secret: bool) -> str:
    """Why a registered device gets no new token: for those who may know that it is registered."""
    if has_secret:
        return (
            f"{device_id} is registered already, with another device secret. If its secret is lost, an administrator "
            "can remove it; then it can register again"
        )
    return f"{device_id} is registered already, without a device secret: only an administrator can re-issue its token"


def refusal(enrollment_key: Secret | None) -> str:
    """Why a stranger gets no token: without telling whether the device is registered, nor an expired key from one that
    never was.
    """
    wanted = "is not valid (any more) for this device" if enrollment_key else "is missing (header X-Enrollment-Key)"
    return (
        f"the enrollment key {wanted}: iot-center enroll makes one. If the device is registered and its secret is "
        "lost, an administrator removes it first"
    )


def check_secret(secret: Secret | None) -> None:
    """RefusedError for one that could be guessed: only a plain hash of it is kept."""
    if secret and len(secret.reveal()) < MIN_SECRET:
        raise RefusedError(f"a device secret has at least {MIN_SECRET} characters, all random")


@dataclass(frozen=True, slots=True)
class Device:
    """A registered device. `key` is the id of its authorization; `has_secret`: it can have its token re-issued."""

    id: str
    key: str
    created_ns: int
    updated_ns: int
    has_secret: bool


@dataclass(frozen=True, slots=True)
class Registered:
    """What a registration gives. `token` is known here and now only; `new` is false for a re-issue."""

    device: Device
    token: Secret
    new: bool


@dataclass(frozen=True, slots=True)
class DevicePage:
    """Some of the devices by id, and how many match in all."""

    devices: Sequence[Device]
    total: int


@dataclass(frozen=True, slots=True)
class EnrollmentKey:
    """An enrollment key without its secret part. `uses` of None: unlimited; `expires_ns` of None: never."""

    id: str
    note: str
    created_ns: int
    expires_ns: int | None
    uses: int | None
    used: int
    revoked: bool

    def valid(self, now: int) -> bool:
        """Whether it lets one more device register."""
        fresh = self.expires_ns is None or now < self.expires_ns
        return fresh and not self.revoked and (self.uses is None or self.used < self.uses)


class Registry(Protocol):
    """Registrations, enrollment keys and the administrator's password."""

    def register(
        self,
        device_id: str,
        secret: Secret | None = None,
        *,
        administrator: bool = False,
        enrollment_key: Secret | None = None,
        needs_key: bool = False,
    ) -> Registered:
        """Register a device, or issue a new token to the device secret it was first seen with (or to an administrator).

        `needs_key`: a first registration by anyone but an administrator counts one use of `enrollment_key`.
        Raises ConflictError, EnrollmentError, RefusedError (an id no device can have).
        """

    def remove(self, device_id: str) -> bool:
        """Remove the registration and its authorization; its measurements stay. False if there was none."""

    def device(self, device_id: str) -> Device | None:
        """Exact match only."""

    def devices(self, *, offset: int = 0, limit: int | None = None, search: str = "") -> DevicePage:
        """Devices ordered by id; `search` is part of the id, upper and lower case alike."""

    def owns(self, device_id: str, secret: Secret | None) -> bool:
        """Whether this is the secret the device registered with. False if it is not registered or has none."""

    def make_enrollment_key(
        self, *, note: str = "", uses: int | None = 1, expires_ns: int | None = None, device_id: str = ""
    ) -> tuple[EnrollmentKey, Secret]:
        """A new enrollment key; the Secret is to be shown once, only its hash is kept. `device_id`: good for
        that device alone.
        """

    def enrollment_keys(self) -> Sequence[EnrollmentKey]:
        """All that were made and not yet forgotten, the newest first."""

    def revoke_enrollment_key(self, key_id: str) -> bool:
        """False if there is none of this id."""

    def password_hash(self) -> str | None:
        """The hash of the administrator's password; None while none is set."""

    def set_password_hash(self, password_hash: str | None) -> None: ...

    def end_session(self, session: str) -> None:
        """A login is over, for every copy of its cookie. To be kept as long as a session can last: 31 days."""

    def session_ended(self, session: str) -> bool:
        """Whether it was; other replicas know it within seconds."""

    def documents(self, kind: str) -> Mapping[str, str]:
        """The texts (JSON) of a kind by name: what people and agents told the center beside registrations."""

    def document(self, kind: str, name: str) -> str | None:
        """One of them."""

    def keep_document(self, kind: str, name: str, text: str | None) -> None:
        """In the place of the one before, if any; None forgets it. Of two at once one stays. A name is an id's letters;
        RefusedError for a text that is too long.
        """

    def hold_lease(self, holder: str) -> bool:
        """Whether this replica does what only one may do, for LEASE_S from now; to be asked again well before. One that
        is free may take two calls to get.
        """

    def end_lease(self, holder: str) -> None:
        """Free it for another replica, if this one holds it."""


class Issuer(Protocol):
    """A registry whose tokens the center itself checks, because it takes or forwards what devices write."""

    def holder(self, token: Secret) -> str | None:
        """The device that a token was issued to, within seconds of its removal; None for a token that is not known."""


# Random tokens and the hashes that are kept of them. They are long and random, so a plain SHA-256 is enough.


def digest(secret: Secret | None) -> str:
    """What is kept of a secret; empty for none."""
    return hashlib.sha256(secret.reveal().encode()).hexdigest() if secret else ""


def matches(secret: Secret | None, kept: str) -> bool:
    """Whether this is the secret whose digest was kept. Nothing matches none."""
    return bool(secret) and bool(kept) and hmac.compare_digest(digest(secret), kept)


def of_device(secret: Secret, device_id: str) -> Secret:
    """What is hashed of a key that is good for one device alone."""
    return Secret(f"{secret.reveal()} {device_id}")


def opens(secret: Secret | None, device_id: str, kept: str) -> bool:
    """Whether this is the enrollment key whose digest was kept, and lets this device register."""
    return secret is not None and (matches(secret, kept) or matches(of_device(secret, device_id), kept))


def new_enrollment_key(note: str, uses: int | None, expires_ns: int | None) -> tuple[EnrollmentKey, Secret]:
    """What is known of it, and the key itself, which starts with the id: `3f9a2c71.…`."""
    key = EnrollmentKey(secrets.token_hex(4), note, now_ns(), expires_ns, uses, 0, False)
    return key, Secret(f"{key.id}.{secrets.token_urlsafe(24)}")


def enrollment_id(key: Secret | None) -> str:
    """The id within an enrollment key; empty if it has none."""
    head, dot, _ = (key.reveal() if key else "").partition(".")
    return head if dot else ""
