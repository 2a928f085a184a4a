"""What is read from the embedded store's points: newest values, and aggregates over windows as InfluxDB's
aggregateWindow(createEmpty: false) gives them.

Long ranges are read from the hourly sums, with the points themselves for the hours that the range cuts.
"""

from __future__ import annotations

import sqlite3
import statistics
from collections.abc import Callable, Collection, Iterable, Mapping, Sequence
from dataclasses import dataclass
from typing import Any

from center.embedded.rollup import edge, summed
from center.stores.rows import MERGE as OF_ROWS
from center.stores.telemetry import AHEAD_NS, HOUR_NS, LastValue, Sensor, Value, sensor_of
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
    "median": "{f}, t",
    "first": "{f}, min(t)",
    "last": "{f}, max(t)",
    "band": "total({f}), count({f}), min({f}), max({f})",
}
HOURS = {
    "mean": "total(total), sum(count)",
    "sum": f"{summed('total')}, 0",
    "count": "sum(count), 0",
    "min": "min(low), 0",
    "max": "max(high), 0",
    "first": f"first, min(hour) * {HOUR_NS}",
    "last": f"last, max(hour) * {HOUR_NS}",
    "band": "total(total), sum(count), min(low), max(high)",
}
# By window; the first and last values of each series by themselves, because several can have one at the same time.
GROUPED = {"median": "", "first": "GROUP BY w, series", "last": "GROUP BY w, series"}
Part = tuple[Any, ...]
MERGE: dict[str, Callable[[Part, Part], Part]] = OF_ROWS | {
    "band": lambda a, b: (a[0] + b[0], a[1] + b[1], min(a[2], b[2]), max(a[3], b[3])),
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
    """A series of a device, and its fields by their names."""

    n: int
    tags: Mapping[str, str]
    fields: Mapping[str, StoredField]

    def last(self, field: StoredField, stored: Value, time_ns: int) -> LastValue:
        return LastValue(field.name, sensor_of(self.tags, field.name), field.value(stored), time_ns)


@dataclass(frozen=True, slots=True)
class Told:
    """A field of one sensor, and the series that it has written to; `kind` is that of the newest."""

    field: str
    sensor: Sensor
    series: Sequence[StoredSeries]

    @property
    def kind(self) -> str:
        return self.series[-1].fields[self.field].kind

    @property
    def places(self) -> list[tuple[int, int]]:
        """Where its values are: series and column."""
        return [(one.n, one.fields[self.field].n) for one in self.series]


def by_sensor(series: Iterable[StoredSeries], fields: Collection[str] = ()) -> list[Told]:
    """The fields (none named: all) of a device's series for each sensor, in the order of both."""
    groups: dict[tuple[str, Sensor], list[StoredSeries]] = {}
    for one in series:
        for name in one.fields:
            if not fields or name in fields:
                groups.setdefault((name, sensor_of(one.tags, name)), []).append(one)
    return [Told(*key, groups[key]) for key in sorted(groups)]


def newest(
    connection: sqlite3.Connection, series: StoredSeries, field: StoredField, start_ns: int, stop_ns: int
) -> LastValue | None:
    """The newest value of a field of a series in [start, stop)."""
    row = edge(connection, field.n, (series.n, start_ns, stop_ns), "DESC")
    return series.last(field, *row) if row else None


def last_of(connection: sqlite3.Connection, series: StoredSeries) -> list[LastValue]:
    """The newest value of each field of a series: from its last points, or else its last hours, so that no series is
    read from its start.
    """
    fields = list(series.fields.values())
    if not fields:
        return []
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
                found[field.name] = series.last(field, value, t)
    for field in fields if len(rows) == RECENT else ():
        if field.name not in found and (last := _older(connection, series, field)):
            found[field.name] = last
    return list(found.values())


def _older(connection: sqlite3.Connection, series: StoredSeries, field: StoredField) -> LastValue | None:
    """The newest value of a field by the hours: those that are summed up, and those that were written to since."""
    row = connection.execute(
        f"SELECT hour FROM dirty CROSS JOIN points USING (series) WHERE series = ? "  # noqa: S608 - numbers
        f"AND t >= hour * {HOUR_NS} AND t < (hour + 1) * {HOUR_NS} AND f{field.n} IS NOT NULL "
        "ORDER BY hour DESC LIMIT 1",
        (series.n,),
    ).fetchone()
    (summed_up,) = connection.execute(
        "SELECT max(hour) FROM hours WHERE series = ? AND field = ?", (series.n, field.n)
    ).fetchone()
    hours = [hour for hour in (row and row[0], summed_up) if hour is not None]
    start = max(hours, default=0) * HOUR_NS
    return newest(connection, series, field, start, min(start + HOUR_NS, now_ns() + AHEAD_NS))


def from_hours(fn: str, places: Sequence[Any]) -> bool:
    """Whether hourly sums can tell this: not the order of several series within an hour, nor a median."""
    return fn != "median" and (len(places) == 1 or fn not in {"first", "last"})


def windows(
    connection: sqlite3.Connection,
    places: Sequence[tuple[int, int]],
    span: tuple[int, int],
    *,
    fn: str,
    every_ns: int | None = None,
    by_hours: bool = False,
) -> list[tuple[int, Any]]:
    """(end of the window or of the span, value) for each window that has values in some of these places, series and
    columns; of a `band` the value is (mean, minimum, maximum, count).

    `every_ns` None: one window of all. `by_hours`: take whole hours from the hourly sums, and from their points only
    those that were written to since; windows are then multiples of an hour. To be called within one moment.
    """
    stop_ns = span[1]
    by_column: dict[int, list[int]] = {}
    for series, column in places:
        by_column.setdefault(column, []).append(series)
    by_hours = by_hours and from_hours(fn, places)
    found: dict[int, Any] = {}
    for column, numbers in by_column.items():
        for w, *value in connection.execute(_question(numbers, column, span, fn, every_ns, by_hours=by_hours)):
            if fn == "median":
                found.setdefault(w, []).append(value[0])
            else:
                found[w] = MERGE[fn](found[w], value) if w in found else value

    def end(w: int) -> int:
        return min((w + 1) * every_ns, stop_ns) if every_ns else stop_ns

    if fn == "median":
        return [(end(w), float(statistics.median(found[w]))) for w in sorted(found)]
    return [(end(w), _value(fn, *found[w])) for w in sorted(found)]


def _question(
    series: Sequence[int], column: int, span: tuple[int, int], fn: str, every_ns: int | None, *, by_hours: bool
) -> str:
    """SQL for the parts of windows (their number since 1970, what is summed up) over one column."""
    start_ns, stop_ns = span
    # Numbers of the center's own throughout: the series', the column's, times.
    marks = ", ".join(map(str, series))
    what, grouped = POINTS[fn].format(f=f"f{column}"), GROUPED.get(fn, "GROUP BY w")

    def number(of: str, width: int | None) -> str:  # rounded down, also before 1970; nothing here leaves 64 bits
        return f"{of} / {width} - ({of} % {width} < 0)" if width else "0"

    def points(low: int, high: int) -> str:
        return (
            f"SELECT {number('t', every_ns)} AS w, {what} FROM points "  # noqa: S608
            f"WHERE series IN ({marks}) AND t >= {low} AND t < {high} AND f{column} IS NOT NULL {grouped}"
        )

    first, last = -(-start_ns // HOUR_NS), stop_ns // HOUR_NS
    parts = [points(start_ns, stop_ns)]
    if by_hours and first < last:
        hours = (
            f"SELECT {number('hour', every_ns and every_ns // HOUR_NS)} AS w, {HOURS[fn]} FROM hours "  # noqa: S608
            f"WHERE series IN ({marks}) AND field = {column} AND hour >= {first} AND hour < {last} AND NOT EXISTS "
            f"(SELECT 1 FROM dirty WHERE dirty.series = hours.series AND dirty.hour = hours.hour) {grouped}"
        )
        written = (
            f"SELECT {number('t', every_ns)} AS w, {what} FROM dirty CROSS JOIN points USING (series) "  # noqa: S608
            f"WHERE series IN ({marks}) AND hour >= {first} AND hour < {last} "
            f"AND t >= hour * {HOUR_NS} AND t < (hour + 1) * {HOUR_NS} AND f{column} IS NOT NULL {grouped}"
        )
        parts = [points(start_ns, first * HOUR_NS), hours, written, points(last * HOUR_NS, stop_ns)]
    return " UNION ALL ".join(f"SELECT * FROM ({part})" for part in parts)  # noqa: S608


def _value(fn: str, value: Any, weight: Any, *edges: Any) -> Any:
    """What a window's part says."""
    if fn == "band":
        return value / weight, *edges, weight
    return value / weight if fn == "mean" else value
