"""The embedded store's tables and its write path: one wide table of points, columns by number, types a week.

A field's column is the number it has within its measurement, so that what devices send never becomes a name in SQL.
Everything here runs in the database's writing thread.
"""

from __future__ import annotations

import json
import sqlite3
from collections.abc import Iterable
from dataclasses import dataclass

from center.embedded.database import Database
from center.line_protocol import DEVICE_TAGS, series_of
from center.stores.telemetry import DAY_NS, HOUR_NS, Point, Value
from center.times import iso

SCHEMA = """
CREATE TABLE IF NOT EXISTS bucket (n INTEGER PRIMARY KEY, id TEXT UNIQUE, name TEXT UNIQUE, retention_s INTEGER);
CREATE TABLE IF NOT EXISTS series (
    n INTEGER PRIMARY KEY, bucket INTEGER, measurement TEXT, tags TEXT, UNIQUE (bucket, measurement, tags));
CREATE TABLE IF NOT EXISTS device_series (
    bucket INTEGER, device TEXT, measurement TEXT, series INTEGER,
    PRIMARY KEY (bucket, device, measurement, series)) WITHOUT ROWID;
CREATE TABLE IF NOT EXISTS field (
    bucket INTEGER, measurement TEXT, name TEXT, n INTEGER, type TEXT,
    PRIMARY KEY (bucket, measurement, name)) WITHOUT ROWID;
CREATE TABLE IF NOT EXISTS shard_type (
    bucket INTEGER, measurement TEXT, shard INTEGER, field TEXT, type TEXT,
    PRIMARY KEY (bucket, measurement, shard, field)) WITHOUT ROWID;
CREATE TABLE IF NOT EXISTS points (series INTEGER, t INTEGER, PRIMARY KEY (series, t)) WITHOUT ROWID;
CREATE TABLE IF NOT EXISTS hours (
    series INTEGER, field INTEGER, hour INTEGER, count INTEGER, total NUMERIC, low NUMERIC, high NUMERIC,
    first, last, PRIMARY KEY (series, field, hour)) WITHOUT ROWID;
CREATE TABLE IF NOT EXISTS dirty (series INTEGER, hour INTEGER, PRIMARY KEY (series, hour)) WITHOUT ROWID;
"""
TYPES: dict[type, str] = {float: "float", int: "integer", bool: "boolean", str: "string"}
CLASSES = {name: cls for cls, name in TYPES.items()}
MAX_FIELDS = 1000
MAX_CACHED = 100_000
WEEK_NS = 7 * DAY_NS
MONDAY_NS = 4 * DAY_NS  # the first Monday of 1970: InfluxDB's weeks start on Mondays


@dataclass(frozen=True, slots=True)
class StoredBucket:
    n: int
    id: str
    name: str
    retention_s: int


def shard_ns(retention_s: int) -> int:
    """How long a shard is in a bucket with this retention, as InfluxDB chooses it (0: for ever)."""
    if retention_s == 0 or retention_s > 180 * 86_400:
        return WEEK_NS
    return DAY_NS if retention_s >= 2 * 86_400 else HOUR_NS


@dataclass(slots=True)
class Lost:
    """The points of one request that were not stored: the first conflict and how many, the expired."""

    conflict: str = ""
    conflicts: int = 0
    expired: int = 0
    oldest: Point | None = None
    newest: Point | None = None

    def expire(self, point: Point) -> None:
        at = point.time_ns or 0
        self.expired += 1
        if self.oldest is None or at < (self.oldest.time_ns or 0):
            self.oldest = point
        if self.newest is None or at >= (self.newest.time_ns or 0):
            self.newest = point

    def message(self, bucket: StoredBucket, now_ns: int) -> str | None:
        """What InfluxDB says about them with its 422; None if there are none."""
        if self.conflicts:
            return f"failure writing points to database: partial write: {self.conflict} dropped={self.conflicts}"
        if self.oldest is None or self.newest is None:
            return None
        lower = iso(now_ns - bucket.retention_s * 1_000_000_000)
        minutes, seconds = divmod(bucket.retention_s, 60)
        oldest, newest = (
            f"{word} point {series_of(point)} at {iso(point.time_ns or 0)} dropped because it violates a Retention "
            f"Policy Lower Bound at {lower}"
            for word, point in (("oldest", self.oldest), ("newest", self.newest))
        )
        return (
            f"failure writing points to database: partial write: dropped {self.expired} points outside retention "
            f"policy of duration {minutes // 60}h{minutes % 60}m{seconds}s - {oldest}, {newest} "
            f"dropped={self.expired} for database: {bucket.id} for retention policy: autogen"
        )


class PointWriter:
    """Stores parsed lines; answers like InfluxDB's 422 for those it drops."""

    def __init__(self, database: Database) -> None:
        self._forget()
        database.on_reset(self._forget)

    def _forget(self) -> None:
        self._series: dict[tuple[int, str], int] = {}
        self._types: dict[tuple[int, str, int], dict[str, type]] = {}
        self._columns: dict[tuple[int, str], dict[str, int]] = {}
        self.dirty: set[tuple[int, int]] = set()

    def write(
        self, connection: sqlite3.Connection, bucket: StoredBucket, points: Iterable[Point], now_ns: int, lost: Lost
    ) -> None:
        """Store points of one request; those that cannot be stored are counted in `lost`."""
        plans: dict[tuple[str, tuple[str, ...]], tuple[str, list[tuple[Value, ...]]]] = {}  # statements, their rows
        shard_length = shard_ns(bucket.retention_s)
        oldest = now_ns - bucket.retention_s * 1_000_000_000 if bucket.retention_s else None
        hours: set[tuple[int, int]] = set()
        known, remembered, bucket_n = self._series, self._types, bucket.n
        for point in points:
            t = now_ns if point.time_ns is None else point.time_ns
            if oldest is not None and t < oldest:
                lost.expire(point)
                continue
            shard_key = (bucket_n, point.measurement, (t - MONDAY_NS) // shard_length)
            types = remembered.get(shard_key)
            if types is None:
                types = self._load_types(connection, shard_key)
            for name, value in point.fields.items():
                if types.get(name) is not type(value):
                    reason = self._new_type(connection, shard_key, types, point)
                    break
            else:
                reason = None
            if reason is not None:
                lost.conflict, lost.conflicts = lost.conflict or reason, lost.conflicts + 1
                continue
            series = known.get((bucket_n, series_of(point)))
            if series is None:
                series = self._load_series(connection, bucket_n, point)
            names = tuple(point.fields)
            plan = plans.get((point.measurement, names))
            if plan is None:
                plan = self._statement(connection, bucket_n, point.measurement, names), []
                plans[point.measurement, names] = plan
            plan[1].append((series, t, *point.fields.values()))
            hours.add((series, t // HOUR_NS))
        for sql, rows in plans.values():
            connection.executemany(sql, rows)
        fresh = hours - self.dirty
        if fresh:
            connection.executemany("INSERT OR IGNORE INTO dirty VALUES (?, ?)", fresh)
            self.dirty |= fresh

    def _load_series(self, connection: sqlite3.Connection, bucket: int, point: Point) -> int:
        tags = json.dumps(point.tags, ensure_ascii=False, sort_keys=True, separators=(",", ":"))
        key = (bucket, point.measurement, tags)
        row = connection.execute(
            "SELECT n FROM series WHERE bucket = ? AND measurement = ? AND tags = ?", key
        ).fetchone()
        if row is None:
            cursor = connection.execute("INSERT INTO series (bucket, measurement, tags) VALUES (?, ?, ?)", key)
            row = (cursor.lastrowid,)
            devices = {point.tags[tag] for tag in DEVICE_TAGS if tag in point.tags}
            connection.executemany(
                "INSERT OR IGNORE INTO device_series VALUES (?, ?, ?, ?)",
                [(bucket, device, point.measurement, row[0]) for device in devices],
            )
        if len(self._series) >= MAX_CACHED:
            self._series.clear()
        n: int = row[0]
        self._series[bucket, series_of(point)] = n
        return n

    def _load_types(self, connection: sqlite3.Connection, key: tuple[int, str, int]) -> dict[str, type]:
        rows = connection.execute(
            "SELECT field, type FROM shard_type WHERE bucket = ? AND measurement = ? AND shard = ?", key
        )
        if len(self._types) >= MAX_CACHED:
            self._types.clear()
        types = self._types[key] = {name: CLASSES[kind] for name, kind in rows}
        return types

    def _new_type(
        self, connection: sqlite3.Connection, key: tuple[int, str, int], types: dict[str, type], point: Point
    ) -> str | None:
        """Why the point cannot be stored; None, with its fields' types remembered, if it can."""
        for name, value in point.fields.items():
            if name == "time":
                return f'invalid field name: input field "time" on measurement "{point.measurement}" is invalid'
            stored = types.get(name)
            if stored is not None and stored is not type(value):
                return (
                    f'field type conflict: input field "{name}" on measurement "{point.measurement}" is type '
                    f"{TYPES[type(value)]}, already exists as type {TYPES[stored]}"
                )
        columns = self._load_columns(connection, key[0], point.measurement)
        if len(columns.keys() | point.fields.keys()) > MAX_FIELDS:
            return f'field limit: measurement "{point.measurement}" has {MAX_FIELDS} fields already'
        for name, value in point.fields.items():
            if name not in types:
                kind = TYPES[type(value)]
                connection.execute("INSERT INTO shard_type VALUES (?, ?, ?, ?, ?)", (*key, name, kind))
                types[name] = type(value)
                n = columns.setdefault(name, len(columns) + 1)
                connection.execute(
                    "INSERT INTO field VALUES (?, ?, ?, ?, ?) "
                    "ON CONFLICT (bucket, measurement, name) DO UPDATE SET type = excluded.type",
                    (key[0], point.measurement, name, n, kind),
                )
                if n > len(connection.execute("PRAGMA table_info(points)").fetchall()) - 2:  # beside series and t
                    connection.execute(f"ALTER TABLE points ADD COLUMN f{n}")
        return None

    def _load_columns(self, connection: sqlite3.Connection, bucket: int, measurement: str) -> dict[str, int]:
        columns = self._columns.get((bucket, measurement))
        if columns is None:
            rows = connection.execute(
                "SELECT name, n FROM field WHERE bucket = ? AND measurement = ?", (bucket, measurement)
            )
            columns = self._columns[bucket, measurement] = dict(rows.fetchall())
        return columns

    def _statement(self, connection: sqlite3.Connection, bucket: int, measurement: str, names: tuple[str, ...]) -> str:
        columns = self._load_columns(connection, bucket, measurement)
        numbers = [columns[name] for name in names]
        return (
            f"INSERT INTO points (series, t, {', '.join(f'f{n}' for n in numbers)}) "  # noqa: S608 - numbers
            f"VALUES ({', '.join('?' * (len(numbers) + 2))}) ON CONFLICT (series, t) DO UPDATE SET "
            + ", ".join(f"f{n} = excluded.f{n}" for n in numbers)
        )
