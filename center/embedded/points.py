"""The embedded store's write path: one wide table of points, columns by number, types a week (schema.py).

A field's column is the number it has within its series, so that what devices send never becomes a name in SQL, and what
one device sends is nothing to another. Everything here runs in the database's writing thread.
"""

from __future__ import annotations

import json
import sqlite3
from collections.abc import Iterable
from dataclasses import dataclass

from agent.points.schema import quantity_of
from center.embedded.database import Database
from center.line_protocol import DEVICE_TAGS, series_of
from center.stores.telemetry import DAY_NS, ENVIRONMENT, HOUR_NS, Point, Value
from center.times import iso

TYPES: dict[type, str] = {float: "float", int: "integer", bool: "boolean", str: "string"}
CLASSES = {name: cls for cls, name in TYPES.items()}
# Of a device: what a page about it reads. The fields are those of all its series.
MAX_SERIES, MAX_FIELDS = 250, 1000
MAX_CACHED = 16_000_000  # bytes, about
MAX_DIRTY = 50_000
MAX_PLANS = 64
_Shard = tuple[int, str, str, int]  # bucket, device, measurement, week
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


class _ConflictError(Exception):
    """Why a point cannot be stored, in InfluxDB's words."""


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


@dataclass(slots=True)
class _Series:
    """What is known of a series: whose it is, and the column of each of its fields."""

    n: int
    owner: str
    columns: dict[str, int]


def fixed_type(measurement: str, field: str) -> type | None:
    """The type that a field always has: that of the data model, if it is of it."""
    quantity = quantity_of(field) if measurement == ENVIRONMENT else None
    return None if quantity is None else float if quantity.kind == "float" else int


class PointWriter:
    """Stores parsed lines; answers like InfluxDB's 422 for those it drops."""

    def __init__(self, database: Database) -> None:
        self._forget()
        database.on_reset(self._forget)

    def _forget(self) -> None:
        self._named: dict[tuple[int, str], _Series] = {}  # by what was sent, tags in whatever order
        self._series: dict[int, _Series] = {}
        self._owned: dict[tuple[int, str], list[int]] = {}  # a device's series and fields
        self._types: dict[_Shard, dict[str, type]] = {}
        self._cached = self._width = 0  # bytes, about; columns
        self.dirty: set[tuple[int, int]] = set()

    def write(
        self,
        connection: sqlite3.Connection,
        bucket: StoredBucket,
        points: Iterable[Point],
        now_ns: int,
        lost: Lost,
        *,
        writer: str = "",
    ) -> None:
        """Store points of one request; those that cannot be stored are counted in `lost`. `writer`: whose token it is,
        and so whose the points are that name no device.
        """
        if self._cached > MAX_CACHED or len(self.dirty) > MAX_DIRTY:
            self._forget()
        plans: dict[tuple[int, ...], list[tuple[Value, ...]]] = {}  # columns and the rows for them
        shard_length = shard_ns(bucket.retention_s)
        oldest = now_ns - bucket.retention_s * 1_000_000_000 if bucket.retention_s else None
        hours: set[tuple[int, int]] = set()
        bucket_n = bucket.n
        for point in points:
            t = now_ns if point.time_ns is None else point.time_ns
            if oldest is not None and t < oldest:
                lost.expire(point)
                continue
            try:
                series = self._named.get((bucket_n, series_of(point)))
                if series is None:
                    series = self._load(connection, bucket_n, point, writer)
                shard = (bucket_n, series.owner, point.measurement, (t - MONDAY_NS) // shard_length)
                types = self._types.get(shard)
                if types is None:
                    types = self._load_types(connection, shard)
                columns = series.columns
                for name, value in point.fields.items():
                    if types.get(name) is not type(value) or name not in columns:
                        self._learn(connection, series, shard, point)
                        break
            except _ConflictError as error:
                lost.conflict, lost.conflicts = lost.conflict or str(error), lost.conflicts + 1
                continue
            pairs = sorted([(columns[name], value) for name, value in point.fields.items()])
            plan = tuple([n for n, _ in pairs])
            rows = plans.get(plan)
            if rows is None:
                if len(plans) == MAX_PLANS:
                    _insert(connection, plans)
                rows = plans[plan] = []
            rows.append((series.n, t, *[value for _, value in pairs]))
            hours.add((series.n, t // HOUR_NS))
        _insert(connection, plans)
        fresh = hours - self.dirty
        if fresh:
            connection.executemany("INSERT OR IGNORE INTO dirty VALUES (?, ?)", fresh)
            self.dirty |= fresh

    def _load(self, connection: sqlite3.Connection, bucket: int, point: Point, writer: str) -> _Series:
        """A series that is not remembered; a new one is made, if its device may have one more."""
        tags = json.dumps(point.tags, ensure_ascii=False, sort_keys=True, separators=(",", ":"))
        key = (bucket, point.measurement, tags)
        row = connection.execute(
            "SELECT n, owner FROM series WHERE bucket = ? AND measurement = ? AND tags = ?", key
        ).fetchone()
        if row is None:
            owner = next((point.tags[tag] for tag in DEVICE_TAGS if tag in point.tags), writer)
            owned = self._owned_by(connection, bucket, owner)
            if owned[0] >= MAX_SERIES:
                raise _ConflictError(f"series limit: device {owner[:64]!r} has {MAX_SERIES} series already")
            cursor = connection.execute(
                "INSERT INTO series (bucket, measurement, tags, owner) VALUES (?, ?, ?, ?)", (*key, owner)
            )
            owned[0] += 1
            row = (cursor.lastrowid, owner)
            devices = {point.tags[tag] for tag in DEVICE_TAGS if tag in point.tags}
            connection.executemany(
                "INSERT OR IGNORE INTO device_series VALUES (?, ?, ?, ?)",
                [(bucket, device, point.measurement, row[0]) for device in devices],
            )
        series = self._series.get(row[0])
        if series is None:
            columns = dict(connection.execute("SELECT name, n FROM series_field WHERE series = ?", row[:1]).fetchall())
            series = self._series[row[0]] = _Series(row[0], row[1], columns)
            self._cached += 500 + sum(150 + len(column) for column in columns)
        name = series_of(point)
        self._cached += 200 + 2 * len(name)
        self._named[bucket, name] = series
        return series

    def _owned_by(self, connection: sqlite3.Connection, bucket: int, owner: str) -> list[int]:
        owned = self._owned.get((bucket, owner))
        if owned is None:
            self._cached += 400 + len(owner)
            row = connection.execute(
                "SELECT count(DISTINCT s.n), count(f.n) FROM series s LEFT JOIN series_field f ON f.series = s.n "
                "WHERE bucket = ? AND owner = ?",
                (bucket, owner),
            ).fetchone()
            owned = self._owned[bucket, owner] = list(row)
        return owned

    def _load_types(self, connection: sqlite3.Connection, shard: _Shard) -> dict[str, type]:
        rows = connection.execute(
            "SELECT field, type FROM device_type WHERE bucket = ? AND device = ? AND measurement = ? AND shard = ?",
            shard,
        ).fetchall()
        self._cached += 400 + sum(150 + len(name) for name, _ in rows)
        types = self._types[shard] = {name: CLASSES[kind] for name, kind in rows}
        return types

    def _learn(self, connection: sqlite3.Connection, series: _Series, shard: _Shard, point: Point) -> None:
        """Remembers the types and columns of a point's fields. Raises _ConflictError if it cannot be stored."""
        types = self._types[shard]
        fixed = {name: fixed_type(point.measurement, name) for name in point.fields}
        for name, value in point.fields.items():
            if name == "time":
                raise _ConflictError(
                    f'invalid field name: input field "time" on measurement "{point.measurement}" is invalid'
                )
            stored = types.get(name) or fixed[name]
            fits = stored is float and type(value) is int and name not in types  # InfluxDB refuses it after a float
            if stored is not None and stored is not type(value) and not fits:
                raise _ConflictError(
                    f'field type conflict: input field "{name}" on measurement "{point.measurement}" is type '
                    f"{TYPES[type(value)]}, already exists as type {TYPES[stored]}"
                )
        new = [name for name in point.fields if name not in series.columns]
        owned = self._owned_by(connection, shard[0], series.owner)
        if new and owned[1] + len(new) > MAX_FIELDS:  # 0.1.0 may have left more: those stay
            raise _ConflictError(
                f"field limit: device {series.owner[:64]!r} may have {MAX_FIELDS} fields in all its series, "
                f"and has {owned[1]}"
            )
        owned[1] += len(new)
        self._cached += sum(300 + 2 * len(name) for name in fixed)
        for name, value in point.fields.items():
            own_type = fixed[name] or type(value)
            if name not in types and fixed[name] is None:
                connection.execute("INSERT INTO device_type VALUES (?, ?, ?, ?, ?, ?)", (*shard, name, TYPES[own_type]))
            n = series.columns.setdefault(name, len(series.columns) + 1)
            connection.execute(
                "INSERT INTO series_field VALUES (?, ?, ?, ?) ON CONFLICT DO UPDATE SET type = excluded.type",
                (series.n, name, n, TYPES[own_type]),
            )
            self._widen(connection, n)
            if own_type is type(value):
                types[name] = own_type

    def _widen(self, connection: sqlite3.Connection, n: int) -> None:
        """So that the table has a column for the n-th field of a series."""
        if n > self._width:
            self._width = len(connection.execute("PRAGMA table_info(points)").fetchall()) - 2  # beside series and t
        for column in range(self._width + 1, n + 1):
            connection.execute(f"ALTER TABLE points ADD COLUMN f{column}")
            self._width = column


def _insert(connection: sqlite3.Connection, plans: dict[tuple[int, ...], list[tuple[Value, ...]]]) -> None:
    """Stores the planned rows. Numbers of the store's own throughout."""
    for columns, rows in plans.items():
        connection.executemany(
            f"INSERT INTO points (series, t, {', '.join(f'f{n}' for n in columns)}) "  # noqa: S608 - numbers
            f"VALUES ({', '.join('?' * (len(columns) + 2))}) ON CONFLICT (series, t) DO UPDATE SET "
            + ", ".join(f"f{n} = excluded.f{n}" for n in columns),
            rows,
        )
    plans.clear()
