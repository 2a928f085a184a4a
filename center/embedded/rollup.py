"""Hourly sums of the embedded store, for long ranges; and its retention.

An hour that was written to is noted as dirty in the same transaction; until it is computed anew it is read from its
points. So what arrives late, twice or changed is counted once, and reading writes nothing.
"""

from __future__ import annotations

import sqlite3
from typing import Any

from center.embedded.points import MONDAY_NS, PointWriter, StoredBucket, shard_ns
from center.errors import StoreError
from center.stores.telemetry import HOUR_NS
from center.times import MAX_TIME, now_ns

CHUNK = 5000
HOURS_AT_ONCE = 1000
COLUMNS_AT_ONCE = 400


class RollUp:
    """Computes the hours that were written to, some at once, round and round."""

    def __init__(self, writer: PointWriter) -> None:
        self._writer = writer
        self._after = (0, 0)  # series and hour that came last

    def __call__(self, connection: sqlite3.Connection) -> StoreError | None:
        """Hours that are over, and were a while ago: the newest are written to all the time. An hour that fails stays
        written to, and keeps no other from being summed up; what failed is said.
        """
        closed = now_ns() // HOUR_NS - 1
        found = connection.execute(
            "SELECT series, hour FROM dirty WHERE hour < ? AND (series, hour) > (?, ?) ORDER BY series, hour LIMIT ?",
            (closed, *self._after, HOURS_AT_ONCE),
        ).fetchall()
        self._after = found[-1] if len(found) == HOURS_AT_ONCE else (0, 0)
        shapes: dict[int, list[tuple[list[int], str]]] = {}
        failed = None
        for number, hour in found:
            if number not in shapes:
                shapes[number] = _shape(connection, number)
            connection.execute("SAVEPOINT hour")
            try:
                _sum_up(connection, shapes[number], number, hour)
            except (
                sqlite3.ProgrammingError,
                ArithmeticError,
                ValueError,
            ) as error:  # of the disk: all ends
                connection.execute("ROLLBACK TO hour")
                failed = StoreError(f"series {number}, hour {hour}: {error}")
            else:
                self._writer.dirty.discard((number, hour))
            connection.execute("RELEASE hour")
        return failed


def _sum_up(connection: sqlite3.Connection, shape: list[tuple[list[int], str]], number: int, hour: int) -> None:
    connection.execute("DELETE FROM dirty WHERE series = ? AND hour = ?", (number, hour))
    span = (number, max(hour * HOUR_NS, -MAX_TIME), min((hour + 1) * HOUR_NS, MAX_TIME + 1))  # 64 bits hold that
    for columns, sums in shape:
        query = f"SELECT {sums} FROM points WHERE series = ? AND t >= ? AND t < ?"  # noqa: S608 - numbers
        row = iter(connection.execute(query, span).fetchone())
        for n, (count, total, low, high) in zip(columns, zip(row, row, row, row, strict=True), strict=True):
            if count:
                (first, _), (last, _) = (edge(connection, n, span, order) for order in ("ASC", "DESC"))
                connection.execute(
                    "INSERT OR REPLACE INTO hours VALUES (?, ?, ?, ?, ?, ?, ?, ?, ?)",
                    (number, n, hour, count, total, low, high, first, last),
                )


def _shape(connection: sqlite3.Connection, series: int) -> list[tuple[list[int], str]]:
    """The columns of a series, and the sums of each: so many in a query as SQLite can answer with."""
    rows = connection.execute("SELECT n FROM series_field WHERE series = ? ORDER BY n", (series,)).fetchall()
    numbers = [n for (n,) in rows]
    parts = [numbers[i : i + COLUMNS_AT_ONCE] for i in range(0, len(numbers), COLUMNS_AT_ONCE)]
    return [
        (columns, ", ".join(f"count(f{n}), {summed(f'f{n}')}, min(f{n}), max(f{n})" for n in columns))
        for columns in parts
    ]


def summed(column: str) -> str:
    """SQL for the sum of numbers, texts left out: of integers an exact one, unless they are so large that 64 bits could
    not hold it (SQLite's own sum() then refuses the whole query).
    """
    large = 2**40
    return (
        f"sum(CASE WHEN typeof({column}) = 'text' THEN NULL WHEN {column} BETWEEN -{large} AND {large} THEN {column} "
        f"ELSE CAST({column} AS REAL) END)"
    )


def edge(connection: sqlite3.Connection, n: int, span: tuple[int, int, int], order: str) -> Any:
    """The first (ASC) or last (DESC) value of a column in `span`, a series and its times [start, stop), and its time;
    None if there is none.
    """
    return connection.execute(
        f"SELECT f{n}, t FROM points WHERE series = ? AND t >= ? AND t < ? AND f{n} IS NOT NULL "  # noqa: S608 - numbers and a fixed word
        f"ORDER BY t {order} LIMIT 1",
        span,
    ).fetchone()


def expire(connection: sqlite3.Connection, bucket: StoredBucket, before_ns: int) -> None:
    """Delete the hours of a bucket that are over before that, points and sums together, so that both tell the same: of
    each series a chunk of points at most. And the types of shards that are over: no point of theirs is taken any more.
    """
    before, shard = before_ns // HOUR_NS, (before_ns - MONDAY_NS) // shard_ns(bucket.retention_s)
    series = connection.execute("SELECT n, owner, measurement FROM series WHERE bucket = ?", (bucket.n,)).fetchall()
    for number, owner, measurement in series:
        connection.execute(
            "DELETE FROM points WHERE series = ?1 AND t IN "
            "(SELECT t FROM points WHERE series = ?1 AND t < ?2 ORDER BY t LIMIT ?3)",
            (number, before * HOUR_NS, CHUNK),
        )
        connection.execute(
            "DELETE FROM hours WHERE series = ?1 AND hour < ?2 "
            "AND field IN (SELECT n FROM series_field WHERE series = ?1)",
            (number, before),
        )
        connection.execute(
            "DELETE FROM device_type WHERE bucket = ? AND device = ? AND measurement = ? AND shard < ?",
            (bucket.n, owner, measurement, shard),
        )
