"""Registry on SQLite. One transaction does what takes InfluxDB several steps."""

from __future__ import annotations

import secrets
import sqlite3
from collections.abc import Mapping, Sequence
from typing import Any

from agent.util.secret import Secret
from center.embedded.database import Database
from center.errors import ConflictError, EnrollmentError
from center.stores.registry import (
    LEASE_S,
    SESSION_NS,
    Device,
    DevicePage,
    EnrollmentKey,
    Registered,
    check_device_id,
    check_document,
    check_secret,
    digest,
    enrollment_id,
    matches,
    new_enrollment_key,
    not_yours,
    of_device,
    opens,
    refusal,
)
from center.times import now_ns

SCHEMA = """
CREATE TABLE IF NOT EXISTS device (
    id TEXT PRIMARY KEY, key TEXT, secret_hash TEXT, created_ns INTEGER, updated_ns INTEGER) WITHOUT ROWID;
CREATE TABLE IF NOT EXISTS authorization (
    token_hash TEXT PRIMARY KEY, key TEXT UNIQUE, device TEXT, bucket TEXT) WITHOUT ROWID;
CREATE TABLE IF NOT EXISTS enrollment_key (
    id TEXT PRIMARY KEY, hash TEXT, note TEXT, created_ns INTEGER, expires_ns INTEGER, uses INTEGER, used INTEGER,
    revoked INTEGER) WITHOUT ROWID;
CREATE TABLE IF NOT EXISTS ended_session (id TEXT PRIMARY KEY, ended_ns INTEGER) WITHOUT ROWID;
CREATE TABLE IF NOT EXISTS setting (name TEXT PRIMARY KEY, value TEXT) WITHOUT ROWID;
CREATE TABLE IF NOT EXISTS document (kind TEXT, name TEXT, text TEXT, PRIMARY KEY (kind, name)) WITHOUT ROWID;
CREATE TABLE IF NOT EXISTS lease (id INTEGER PRIMARY KEY CHECK (id = 1), holder TEXT, until_ns INTEGER);
"""
_DEVICE = "id, key, created_ns, updated_ns, secret_hash <> ''"
_KEY = "id, note, created_ns, expires_ns, uses, used, revoked"


class EmbeddedRegistry:
    """Implements Registry; also what POST /api/v2/write needs: holder_of."""

    def __init__(self, database: Database, bucket: str) -> None:
        self.database = database
        self.bucket = bucket

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
        token = Secret(secrets.token_urlsafe(64))  # as long as InfluxDB's

        def job(connection: sqlite3.Connection) -> Registered:
            row = connection.execute(
                "SELECT key, secret_hash, created_ns FROM device WHERE id = ?", (device_id,)
            ).fetchone()
            now = now_ns()
            key = secrets.token_hex(8)
            if row is None:
                if needs_key and not administrator:
                    _use_enrollment_key(connection, enrollment_key, device_id, now)
                check_secret(secret)
                created, kept = now, digest(secret)
            else:
                old, kept, created = row
                if not administrator and not matches(secret, kept):
                    if needs_key:
                        _valid_enrollment_key(connection, enrollment_key, device_id, now)
                    raise ConflictError(not_yours(device_id, bool(kept)))
                connection.execute("DELETE FROM authorization WHERE key = ?", (old,))
            connection.execute(
                "INSERT INTO authorization VALUES (?, ?, ?, ?)", (digest(token), key, device_id, self.bucket)
            )
            connection.execute(
                "INSERT OR REPLACE INTO device VALUES (?, ?, ?, ?, ?)", (device_id, key, kept, created, now)
            )
            return Registered(Device(device_id, key, created, now, bool(kept)), token, row is None)

        return self.database.run(job)

    def remove(self, device_id: str) -> bool:
        def job(connection: sqlite3.Connection) -> bool:
            connection.execute("DELETE FROM authorization WHERE device = ?", (device_id,))
            return connection.execute("DELETE FROM device WHERE id = ?", (device_id,)).rowcount > 0

        return self.database.run(job)

    def device(self, device_id: str) -> Device | None:
        row = self.database.row(f"SELECT {_DEVICE} FROM device WHERE id = ?", device_id)  # noqa: S608 - a constant
        return _device(row) if row else None

    def devices(self, *, offset: int = 0, limit: int | None = None, search: str = "") -> DevicePage:
        found = "FROM device WHERE instr(lower(id), lower(?1)) > 0 OR ?1 = ''"
        (total,) = self.database.row(f"SELECT count(*) {found}", search)
        rows = self.database.rows(
            f"SELECT {_DEVICE} {found} ORDER BY id LIMIT ?2 OFFSET ?3",
            search,
            -1 if limit is None else limit,
            offset,
        )
        return DevicePage([_device(row) for row in rows], total)

    def owns(self, device_id: str, secret: Secret | None) -> bool:
        row = self.database.row("SELECT secret_hash FROM device WHERE id = ?", device_id)
        return row is not None and matches(secret, row[0])

    def holder_of(self, token: Secret) -> tuple[str, str] | None:
        """The device this token is of and the bucket it may write to; None for a token that is not known."""
        row = self.database.row("SELECT device, bucket FROM authorization WHERE token_hash = ?", digest(token))
        return (row[0], row[1]) if row else None

    def holder(self, token: Secret) -> str | None:
        found = self.holder_of(token)
        return found[0] if found else None

    def make_enrollment_key(
        self, *, note: str = "", uses: int | None = 1, expires_ns: int | None = None, device_id: str = ""
    ) -> tuple[EnrollmentKey, Secret]:
        key, secret = new_enrollment_key(note, uses, expires_ns)
        kept = of_device(secret, device_id) if device_id else secret
        row = (key.id, digest(kept), note, key.created_ns, expires_ns, uses, 0, 0)
        self.database.change("INSERT INTO enrollment_key VALUES (?, ?, ?, ?, ?, ?, ?, ?)", *row)
        return key, secret

    def enrollment_keys(self) -> Sequence[EnrollmentKey]:
        rows = self.database.rows(f"SELECT {_KEY} FROM enrollment_key ORDER BY created_ns DESC")  # noqa: S608 - a constant
        return [_enrollment_key(row) for row in rows]

    def revoke_enrollment_key(self, key_id: str) -> bool:
        return self.database.change("UPDATE enrollment_key SET revoked = 1 WHERE id = ?", key_id) > 0

    def password_hash(self) -> str | None:
        row = self.database.row("SELECT value FROM setting WHERE name = 'password_hash'")
        return row[0] if row else None

    def set_password_hash(self, password_hash: str | None) -> None:
        self.database.change("INSERT OR REPLACE INTO setting VALUES ('password_hash', ?)", password_hash)

    def end_session(self, session: str) -> None:
        def job(connection: sqlite3.Connection) -> None:
            now = now_ns()
            connection.execute("DELETE FROM ended_session WHERE ended_ns < ?", (now - SESSION_NS,))
            connection.execute("INSERT OR IGNORE INTO ended_session VALUES (?, ?)", (session, now))

        self.database.run(job)

    def session_ended(self, session: str) -> bool:
        return self.database.row("SELECT 1 FROM ended_session WHERE id = ?", session) is not None

    def documents(self, kind: str) -> Mapping[str, str]:
        return dict(self.database.rows("SELECT name, text FROM document WHERE kind = ?", kind))

    def document(self, kind: str, name: str) -> str | None:
        row = self.database.row("SELECT text FROM document WHERE kind = ? AND name = ?", kind, name)
        return None if row is None else str(row[0])

    def keep_document(self, kind: str, name: str, text: str | None) -> None:
        check_document(text)
        if text is None:
            self.database.change("DELETE FROM document WHERE kind = ? AND name = ?", kind, name)
        else:
            self.database.change("INSERT OR REPLACE INTO document VALUES (?, ?, ?)", kind, name, text)

    def hold_lease(self, holder: str) -> bool:
        """One that ends later than it can was taken by a clock that was ahead, and is free."""
        now, lasts = now_ns(), LEASE_S * 1_000_000_000
        return (
            self.database.change(
                "INSERT INTO lease VALUES (1, ?1, ?2) ON CONFLICT DO UPDATE SET holder = ?1, until_ns = ?2 "
                "WHERE holder = ?1 OR until_ns NOT BETWEEN ?3 AND ?2",
                holder,
                now + lasts,
                now,
            )
            > 0
        )

    def end_lease(self, holder: str) -> None:
        self.database.change("DELETE FROM lease WHERE holder = ?", holder)

    def session_key(self) -> Secret:
        """The key that sessions are signed with, made on first use."""
        self.database.change("INSERT OR IGNORE INTO setting VALUES ('session_key', ?)", secrets.token_hex(32))
        return Secret(self.database.row("SELECT value FROM setting WHERE name = 'session_key'")[0])


def _valid_enrollment_key(connection: sqlite3.Connection, secret: Secret | None, device_id: str, now: int) -> str:
    """Its id. Raises EnrollmentError for any other."""
    row = connection.execute(
        f"SELECT hash, {_KEY} FROM enrollment_key WHERE id = ?",  # noqa: S608 - a constant
        (enrollment_id(secret),),
    ).fetchone()
    if row is None or not opens(secret, device_id, row[0]) or not _enrollment_key(row[1:]).valid(now):
        raise EnrollmentError(refusal(secret))
    return str(row[1])


def _use_enrollment_key(connection: sqlite3.Connection, secret: Secret | None, device_id: str, now: int) -> None:
    key_id = _valid_enrollment_key(connection, secret, device_id, now)
    connection.execute("UPDATE enrollment_key SET used = used + 1 WHERE id = ?", (key_id,))


def _device(row: Sequence[Any]) -> Device:
    return Device(*row[:4], bool(row[4]))  # type: ignore[call-arg] # columns of the table above


def _enrollment_key(row: Sequence[Any]) -> EnrollmentKey:
    return EnrollmentKey(*row[:6], bool(row[6]))  # type: ignore[call-arg] # as above
