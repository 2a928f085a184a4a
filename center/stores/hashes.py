"""Random tokens and the hashes that are kept of them. They are long and random, so a plain SHA-256 is enough."""

from __future__ import annotations

import hashlib
import hmac
import secrets

from agent.util.secret import Secret


def new_token() -> Secret:
    """As long as InfluxDB's: 64 random bytes."""
    return Secret(secrets.token_urlsafe(64))


def digest(secret: Secret | None) -> str:
    """What is kept of a secret; empty for none."""
    return hashlib.sha256(secret.reveal().encode()).hexdigest() if secret else ""


def matches(secret: Secret | None, kept: str) -> bool:
    """Whether this is the secret whose digest was kept. Nothing matches none."""
    return bool(secret) and bool(kept) and hmac.compare_digest(digest(secret), kept)


def new_enrollment_key() -> tuple[str, Secret]:
    """Its id, and the key itself, which starts with the id: `3f9a2c71.…`."""
    key_id = secrets.token_hex(4)
    return key_id, Secret(f"{key_id}.{secrets.token_urlsafe(24)}")


def enrollment_id(key: Secret | None) -> str:
    """The id within an enrollment key; empty if it has none."""
    head, dot, _ = (key.reveal() if key else "").partition(".")
    return head if dot else ""
