"""The newest values in the embedded store, found without reading a series from its start."""

from __future__ import annotations

import time
from dataclasses import dataclass
from typing import TYPE_CHECKING

from center.errors import StoreError
from center.stores.telemetry import AHEAD_NS, HOUR_NS, LastValue, Value, kind_of

if TYPE_CHECKING:
    import sqlite3
    from collections.abc import Mapping, Sequence

RECENT = 20  # points


@dataclass(frozen=True, slots=True)
class StoredField:
    name: str
    n: int
    kind: str

    def value(self, stored: Value) -> Value:
        return bool(stored) if self.kind == "boolean" else stored


@dataclass(frozen=True, slots=True)
class StoredSeries:
    """A series of a device."""

    n: int
    tags: Mapping[str, str]


def last_of(
    connection: sqlite3.Connection, series: StoredSeries, fields: Sequence[StoredField]
) -> dict[str, LastValue]:
    """The newest value of each field of a series: from its last points, or else its last hours."""
    if not fields:
        return {}
    columns = ", ".join(f"f{f.n}" for f in fields)
    found: dict[str, LastValue] = {}
    rows = connection.execute(
        f"SELECT t, {columns} FROM points WHERE series = ? AND t < ? "  # noqa: S608 - numbers
        f"ORDER BY t DESC LIMIT {RECENT}",
        (series.n, time.time_ns() + AHEAD_NS),
    ).fetchall()
    for t, *values in rows:
        for field, value in zip(fields, values, strict=True):
            if value is not None and field.name not in found:
                found[field.name] = LastValue(field.value(value), t, kind_of(series.tags, field.name))
    if len(rows) == RECENT:
        for field in fields:
            if field.name not in found and (row := _last_in_hours(connection, series.n, field.n)):
                found[field.name] = LastValue(field.value(row[0]), row[1], kind_of(series.tags, field.name))
    return found


def _last_in_hours(connection: sqlite3.Connection, series: int, column: int) -> tuple[Value, int] | None:
    hour = connection.execute("SELECT max(hour) FROM hours WHERE series = ? AND field = ?", (series, column))
    start = (hour.fetchone()[0] or 0) * HOUR_NS
    row: tuple[Value, int] | None = connection.execute(
        f"SELECT f{column}, t FROM points WHERE series = ? AND t >= ? AND t < ? AND f{column} IS NOT NULL "  # noqa: S608 - a number
        "ORDER BY t DESC LIMIT 1",
        (series, start, start + HOUR_NS),
    ).fetchone()
    return row


def newest(
    connection: sqlite3.Connection, group: Sequence[StoredSeries], field: StoredField, start_ns: int, stop_ns: int
) -> LastValue:
    best: LastValue | None = None
    for series in group:
        row = connection.execute(
            f"SELECT t, f{field.n} FROM points WHERE series = ? AND t >= ? AND t < ? "  # noqa: S608 - a number
            f"AND f{field.n} IS NOT NULL ORDER BY t DESC LIMIT 1",
            (series.n, start_ns, stop_ns),
        ).fetchone()
        if row and (best is None or row[0] > best.time_ns):
            best = LastValue(field.value(row[1]), row[0], kind_of(series.tags, field.name))
    if best is None:
        raise StoreError(f"the points of {field.name} went away while they were counted: try again")
    return best
