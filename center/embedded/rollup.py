"""Hourly sums of the embedded store, for long ranges; and its retention.

An hour that was written to is noted as dirty in the same transaction; until it is computed anew it is read from its
points. So what arrives late, twice or changed is counted once, and reading writes nothing.
"""

from __future__ import annotations

import sqlite3
from typing import Any

from center.embedded.points import PointWriter
from center.stores.telemetry import HOUR_NS
from center.times import now_ns

CHUNK = 5000
HOURS_AT_ONCE = 1000
COLUMNS_AT_ONCE = 400


def roll_up(connection: sqlite3.Connection, writer: PointWriter) -> None:
    """Compute the hours that were written to, some at once. Those that are over, and were a while ago: the newest are
    written to all the time.
    """
    closed = now_ns() // HOUR_NS - 1
    found = connection.execute(
        "SELECT series, hour FROM dirty WHERE hour < ? ORDER BY series, hour LIMIT ?", (closed, HOURS_AT_ONCE)
    ).fetchall()
    shapes: dict[int, list[tuple[range, str]]] = {}
    for number, hour in found:
        if number not in shapes:
            shapes[number] = _shape(connection, number)
        connection.execute("DELETE FROM dirty WHERE series = ? AND hour = ?", (number, hour))
        writer.dirty.discard((number, hour))
        span = (number, hour * HOUR_NS, (hour + 1) * HOUR_NS)
        for columns, sums in shapes[number]:
            query = f"SELECT {sums} FROM points WHERE series = ? AND t >= ? AND t < ?"  # noqa: S608 - numbers
            row = iter(connection.execute(query, span).fetchone())
            for n, (count, total, low, high) in zip(columns, zip(row, row, row, row, strict=True), strict=True):
                if count:
                    (first, _), (last, _) = (edge(connection, n, span, order) for order in ("ASC", "DESC"))
                    connection.execute(
                        "INSERT OR REPLACE INTO hours VALUES (?, ?, ?, ?, ?, ?, ?, ?, ?)",
                        (number, n, hour, count, total, low, high, first, last),
                    )


def _shape(connection: sqlite3.Connection, series: int) -> list[tuple[range, str]]:
    """The columns of a series' measurement, and the sums of each: so many in a query as SQLite can answer with."""
    count = connection.execute(
        "SELECT count(*) FROM series JOIN field USING (bucket, measurement) WHERE series.n = ?", (series,)
    ).fetchone()[0]
    parts = [range(n, min(n + COLUMNS_AT_ONCE, count + 1)) for n in range(1, count + 1, COLUMNS_AT_ONCE)]
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


def expire(connection: sqlite3.Connection, bucket: int, before_ns: int) -> None:
    """Delete the hours of a bucket that are over before that, points and sums together, so that both tell the same: of
    each series a chunk of points at most.
    """
    before = before_ns // HOUR_NS
    for (number,) in connection.execute("SELECT n FROM series WHERE bucket = ?", (bucket,)).fetchall():
        connection.execute(
            "DELETE FROM points WHERE series = ?1 AND t IN "
            "(SELECT t FROM points WHERE series = ?1 AND t < ?2 ORDER BY t LIMIT ?3)",
            (number, before * HOUR_NS, CHUNK),
        )
        connection.execute(
            "DELETE FROM hours WHERE series = ? AND field IN (SELECT n FROM field) AND hour < ?", (number, before)
        )
