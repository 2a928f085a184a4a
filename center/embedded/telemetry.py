"""Telemetry on SQLite: for laptops, demos and tests."""

from __future__ import annotations

import json
import secrets
import sqlite3
from collections.abc import Iterable, Mapping, Sequence
from functools import partial
from itertools import groupby
from operator import itemgetter

from center.embedded import rollup
from center.embedded.database import Database
from center.embedded.points import Lost, PointWriter, StoredBucket
from center.embedded.queries import StoredField, StoredSeries, Told, by_sensor, last_of, newest, windows
from center.embedded.schema import upgrade
from center.errors import NotSupportedError, RefusedError
from center.line_protocol import encode
from center.stores.telemetry import (
    AHEAD_NS,
    ENVIRONMENT,
    HEALTH,
    HOUR_NS,
    Bucket,
    Curve,
    FieldSummary,
    LastValue,
    Point,
    SeriesQuery,
    newest_of,
    numbers_of_devices,
    recency,
)
from center.times import now_ns

BY_HOURS_FROM_NS = 6 * HOUR_NS
MAX_VALUES = 200_000  # of all curves: an answer in JSON takes some 300 bytes for each on its way


class EmbeddedTelemetry:
    """Implements Telemetry; also what POST /api/v2/write needs: find_bucket and store."""

    def __init__(self, database: Database, bucket: str, retention_s: int = 0) -> None:
        self.database = database
        self.bucket = bucket
        database.run(upgrade)
        self.writer = PointWriter(database)
        database.change(
            "INSERT INTO bucket (id, name, retention_s) VALUES (?, ?, ?) "
            "ON CONFLICT (name) DO UPDATE SET retention_s = excluded.retention_s",
            *(secrets.token_hex(8), bucket, retention_s),
        )
        found = self.find_bucket(bucket)
        assert found is not None
        self._bucket = found
        database.on_idle("summing up by hours", rollup.RollUp(self.writer))
        if retention_s:
            database.on_idle(
                "deleting what is older than the retention",
                lambda connection: rollup.expire(connection, found, now_ns() - retention_s * 1_000_000_000),
            )

    @property
    def failing(self) -> Mapping[str, str]:
        return self.database.failing

    def find_bucket(self, name_or_id: str) -> StoredBucket | None:
        row = self.database.row("SELECT n, id, name, retention_s FROM bucket WHERE name = ?1 OR id = ?1", name_or_id)
        return StoredBucket(*row) if row else None

    def store(self, bucket: StoredBucket, batches: Iterable[Sequence[Point]], writer: str = "") -> str | None:
        """Store the points of one request of a device and return once they are synced, each batch in a transaction of
        its own: InfluxDB's message about those it drops, or None.
        """
        lost, now, write = Lost(), now_ns(), self.writer.write
        for points in batches:
            self.database.run(partial(write, bucket=bucket, points=points, now_ns=now, lost=lost, writer=writer))
        return lost.message(bucket, now)

    def write(self, points: Sequence[Point]) -> None:
        for point in points:
            encode(point)  # refuses what no line can hold, as InfluxDB would
        message = self.store(self._bucket, [points])
        if message:
            raise RefusedError(message)

    def _series(self, device_id: str, measurement: str = ENVIRONMENT) -> list[StoredSeries]:
        rows = self.database.rows(
            "SELECT s.n, s.tags, f.name, f.n, f.type FROM device_series d JOIN series s ON s.n = d.series "
            "JOIN series_field f ON f.series = s.n "
            "WHERE d.bucket = ? AND d.device = ? AND d.measurement = ? ORDER BY s.n, f.name",
            *(self._bucket.n, device_id, measurement),
        )
        return [
            StoredSeries(n, json.loads(tags), {row[2]: StoredField(*row[2:]) for row in fields})
            for (n, tags), fields in groupby(rows, key=itemgetter(0, 1))
        ]

    def last_values(
        self, device_ids: Sequence[str], *, measurement: str = ENVIRONMENT, since_ns: int = 0
    ) -> Mapping[str, Sequence[LastValue]]:
        found = {}
        with self.database.moment() as connection:
            for device_id in device_ids:
                lasts = [
                    last
                    for series in self._series(device_id, measurement)
                    for last in last_of(connection, series)
                    if last.time_ns >= since_ns
                ]
                if lasts:
                    found[device_id] = newest_of(lasts)
        return found

    def last_seen(self, *, since_ns: int) -> Mapping[str, int]:
        with self.database.moment() as connection:
            return dict(
                connection.execute(
                    "SELECT device, max((SELECT max(t) FROM points p WHERE p.series = d.series AND t < ?)) AS seen "
                    "FROM device_series d WHERE bucket = ? AND measurement = ? GROUP BY device HAVING seen >= ?",
                    (now_ns() + AHEAD_NS, self._bucket.n, ENVIRONMENT, since_ns),
                ).fetchall()
            )

    def health(self, fields: Sequence[str], *, since_ns: int) -> Mapping[str, Mapping[str, float]]:
        of = (
            "FROM device_series d JOIN series_field f ON f.series = d.series WHERE d.bucket = ?1 AND d.measurement = ?2"
        )
        told: list[tuple[str, str, float, int]] = []
        with self.database.moment() as connection:
            columns = connection.execute(f"SELECT DISTINCT f.name, f.n {of}", (self._bucket.n, HEALTH))
            for name, n in [row for row in columns if row[0] in fields]:
                last = f"SELECT max(t) FROM points WHERE series = d.series AND t < ?4 AND f{n} IS NOT NULL"  # noqa: S608
                told += connection.execute(
                    f"SELECT device, ?3, f{n}, t FROM (SELECT d.device, d.series AS s, ({last}) AS at {of} "  # noqa: S608 - numbers
                    f"AND f.name = ?3 AND f.n = {n} AND f.type <> 'string') JOIN points ON series = s AND t = at "
                    "WHERE t >= ?5",
                    (self._bucket.n, HEALTH, name, now_ns() + AHEAD_NS, since_ns),
                ).fetchall()
        return numbers_of_devices(told)

    def sparklines(
        self, device_ids: Sequence[str], field: str, *, start_ns: int, stop_ns: int, every_ns: int
    ) -> Mapping[str, Sequence[Curve]]:
        found = {i: self.series(SeriesQuery(i, start_ns, stop_ns, (field,), every_ns)) for i in device_ids}
        return {device_id: curves for device_id, curves in found.items() if curves}

    def summary(self, device_id: str, *, start_ns: int, stop_ns: int) -> Sequence[FieldSummary]:
        found = []
        span, by_hours = (start_ns, stop_ns), stop_ns - start_ns > BY_HOURS_FROM_NS
        with self.database.moment() as connection:
            for told in by_sensor(self._series(device_id)):
                whole = partial(windows, connection, told.places, span, by_hours=by_hours)
                lasts = [newest(connection, one, one.fields[told.field], start_ns, stop_ns) for one in told.series]
                last = max(filter(None, lasts), key=lambda last: recency(last.time_ns, last.value), default=None)
                count = whole(fn="count")
                if last is None or not count:
                    continue
                low = high = None
                if told.kind in {"float", "integer"}:
                    low, high = (whole(fn=fn)[0][1] for fn in ("min", "max"))
                found.append(FieldSummary(told.field, told.sensor, low, high, last.value, last.time_ns, count[0][1]))
        return found

    def series(self, query: SeriesQuery) -> Sequence[Curve]:
        curves = []
        left = MAX_VALUES
        with self.database.moment() as connection:
            for told in by_sensor(self._series(query.device_id), query.fields):
                if query.every_ns is None:
                    curve = _points(connection, query, told, left + 1)
                else:
                    curve = _windows(connection, query, told)
                left -= len(curve.times_ns)
                if left < 0:
                    raise RefusedError(
                        f"more than {MAX_VALUES} values: ask for a shorter range, a longer every, or fewer fields"
                    )
                if curve.times_ns:
                    curves.append(curve)
        return curves

    def count(self, device_id: str) -> int:
        with self.database.moment():
            rows = [
                self.database.row("SELECT count(*) FROM points WHERE series = ?", series.n)
                for series in self._series(device_id)
            ]
        return sum(count for (count,) in rows)

    def buckets(self) -> Sequence[Bucket]:
        rows = self.database.rows("SELECT id, name, retention_s FROM bucket ORDER BY n")
        return [Bucket(i, name, kept, "telemetry" if name == self.bucket else "other") for i, name, kept in rows]

    def raw_flux(self, text: str) -> str:  # noqa: ARG002 - the interface's
        raise NotSupportedError("the embedded store knows no Flux: this needs InfluxDB")


def _points(connection: sqlite3.Connection, query: SeriesQuery, told: Told, most: int) -> Curve:
    """One field of one sensor as it was stored; of several values at one time the largest. `most`: values."""
    parts = [
        f"SELECT t, f{column} AS value FROM points WHERE series = {series} AND t >= ?1 AND t < ?2 "  # noqa: S608 - numbers
        f"AND f{column} IS NOT NULL"
        for series, column in told.places
    ]
    sql = parts[0]
    if len(parts) > 1:
        sql = f"SELECT t, max(value) FROM ({' UNION ALL '.join(parts)}) GROUP BY t"  # noqa: S608 - as above
    times, values = [], []
    value = told.series[-1].fields[told.field].value
    for t, stored in connection.execute(f"{sql} ORDER BY t LIMIT {most}", (query.start_ns, query.stop_ns)):
        times.append(t)
        values.append(value(stored))
    return Curve(told.field, told.sensor, times, values)


def _windows(connection: sqlite3.Connection, query: SeriesQuery, told: Told) -> Curve:
    """One field of one sensor, aggregated."""
    span, every = (query.start_ns, query.stop_ns), query.every_ns
    assert every is not None
    fn = "band" if query.band else query.fn
    if told.kind in {"string", "boolean"} and fn not in {"first", "last", "count"}:
        return Curve(told.field, told.sensor, (), ())
    by_hours = span[1] - span[0] > BY_HOURS_FROM_NS and every % HOUR_NS == 0
    rows = windows(connection, told.places, span, fn=fn, every_ns=every, by_hours=by_hours)
    times = [t for t, _ in rows]
    if query.band and rows:
        return Curve(told.field, told.sensor, times, *(list(part) for part in zip(*(v for _, v in rows), strict=True)))
    value = told.series[-1].fields[told.field].value
    return Curve(told.field, told.sensor, times, [v if fn == "count" else value(v) for _, v in rows])
