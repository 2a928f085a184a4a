"""What is read from the embedded store's points: newest values, and aggregates over windows as InfluxDB's
aggregateWindow(createEmpty: false) gives them.

Long ranges are read from the hourly sums, with the points themselves for the hours that the range cuts.
"""

from __future__ import annotations

import sqlite3
import statistics
from collections.abc import Callable, Iterable, Mapping, Sequence
from dataclasses import dataclass
from typing import Any

from center.embedded.rollup import edge, summed
from center.stores.telemetry import AHEAD_NS, HOUR_NS, LastValue, Value, kind_of
from center.times import now_ns

RECENT = 20  # points
# For each function: what is summed up in a window, over points (column {f}) and over hours. The second column is the
# weight of a mean, or the time of the first or last value (SQLite takes a bare column from the row of min() or max()).
POINTS = {
    "mean": "total({f}), count({f})",
    "sum": f"{summed('{f}')}, 0",
    "count": "count({f}), 0",
    "min": "min({f}), 0",
    "max": "max({f}), 0",
    "first": "{f}, min(t)",
    "last": "{f}, max(t)",
}
HOURS = {
    "mean": "total(total), sum(count)",
    "sum": f"{summed('total')}, 0",
    "count": "sum(count), 0",
    "min": "min(low), 0",
    "max": "max(high), 0",
    "first": "first, min(hour)",
    "last": "last, max(hour)",
}
MERGE: dict[str, Callable[[Any, Any], Any]] = {
    "mean": lambda a, b: (a[0] + b[0], a[1] + b[1]),
    "sum": lambda a, b: (a[0] + b[0], 0),
    "count": lambda a, b: (a[0] + b[0], 0),
    "min": min,
    "max": max,
    "first": lambda a, _: a,
    "last": lambda _, b: b,
}


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


def newest(
    connection: sqlite3.Connection, series: StoredSeries, field: StoredField, start_ns: int, stop_ns: int
) -> LastValue | None:
    """The newest value of a field of a series in [start, stop)."""
    row = edge(connection, field.n, (series.n, start_ns, stop_ns), "DESC")
    return LastValue(field.value(row[0]), row[1], kind_of(series.tags, field.name)) if row else None


def last_of(
    connection: sqlite3.Connection, series: StoredSeries, fields: Sequence[StoredField]
) -> dict[str, LastValue]:
    """The newest value of each field of a series: from its last points, or else its last hours, so that no series is
    read from its start.
    """
    if not fields:
        return {}
    columns = ", ".join(f"f{f.n}" for f in fields)
    found: dict[str, LastValue] = {}
    rows = connection.execute(
        f"SELECT t, {columns} FROM points WHERE series = ? AND t < ? "  # noqa: S608 - numbers
        f"ORDER BY t DESC LIMIT {RECENT}",
        (series.n, now_ns() + AHEAD_NS),
    ).fetchall()
    for t, *values in rows:
        for field, value in zip(fields, values, strict=True):
            if value is not None and field.name not in found:
                found[field.name] = LastValue(field.value(value), t, kind_of(series.tags, field.name))
    for field in fields if len(rows) == RECENT else ():
        if field.name not in found:
            hour = "SELECT max(hour) FROM hours WHERE series = ? AND field = ?"
            start = (connection.execute(hour, (series.n, field.n)).fetchone()[0] or 0) * HOUR_NS
            if last := newest(connection, series, field, start, start + HOUR_NS):
                found[field.name] = last
    return found


def windows(
    connection: sqlite3.Connection,
    series: Sequence[int],
    column: int,
    span: tuple[int, int],
    *,
    fn: str,
    every_ns: int | None = None,
    rolled_to: int | None = None,
) -> list[tuple[int, Any]]:
    """(end of the window or of the span, value) for each window that has values of some series in one column.

    `every_ns` None: one window of all. `rolled_to`: take whole hours before this one from the hourly sums; windows are
    then multiples of an hour.
    """
    start_ns, stop_ns = span
    width = every_ns or stop_ns - start_ns
    base = start_ns - start_ns % width if every_ns else start_ns
    marks = ", ".join("?" * len(series))
    first_hour = -(-start_ns // HOUR_NS)
    last_hour = first_hour if rolled_to is None else min(rolled_to, stop_ns // HOUR_NS)
    found: dict[int, Any] = {}

    def points(what: str, low: int, high: int) -> Iterable[Any]:
        """The window of each row, counted from `base`, and what is selected of it."""
        return connection.execute(
            f"SELECT (t - ?) / ? AS w, {what.format(f=f'f{column}')} FROM points "  # noqa: S608 - numbers
            f"WHERE series IN ({marks}) AND t >= ? AND t < ? AND f{column} IS NOT NULL "
            + ("" if fn == "median" else "GROUP BY w ORDER BY w"),
            (base, width, *series, low, high),
        )

    if fn == "median":
        for w, value in points("{f}", start_ns, stop_ns):
            found.setdefault(w, []).append(value)
        return [(min(base + (w + 1) * width, stop_ns), float(statistics.median(found[w]))) for w in sorted(found)]
    if first_hour < last_hour:
        hours = connection.execute(
            f"SELECT (hour * {HOUR_NS} - ?) / ? AS w, {HOURS[fn]} FROM hours "  # noqa: S608 - numbers
            f"WHERE series IN ({marks}) AND field = ? AND hour >= ? AND hour < ? GROUP BY w ORDER BY w",
            (base, width, *series, column, first_hour, last_hour),
        )
        before = points(POINTS[fn], start_ns, first_hour * HOUR_NS)
        parts = [before, hours, points(POINTS[fn], last_hour * HOUR_NS, stop_ns)]
    else:
        parts = [points(POINTS[fn], start_ns, stop_ns)]
    for part in parts:
        for w, *value in part:
            found[w] = MERGE[fn](found[w], value) if w in found else value
    return [
        (min(base + (w + 1) * width, stop_ns), value / weight if fn == "mean" else value)
        for w, (value, weight) in sorted(found.items())
    ]
