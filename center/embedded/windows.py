"""Aggregates over windows in the embedded store, as InfluxDB's aggregateWindow(createEmpty: false) gives them.

Long ranges are read from the hourly sums, with the points themselves for the hours that the range cuts.
"""

from __future__ import annotations

import statistics
from dataclasses import dataclass
from typing import TYPE_CHECKING, Any

from center.embedded.rollup import summed
from center.stores.telemetry import HOUR_NS

if TYPE_CHECKING:
    import sqlite3
    from collections.abc import Callable, Iterable, Sequence

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
class Asked:
    """What is asked of some series, over one column. `every_ns` None: one window of all.

    `rolled_to`: take whole hours before this one from the hourly sums; windows are then multiples of an hour.
    """

    series: Sequence[int]
    column: int
    start_ns: int
    stop_ns: int
    every_ns: int | None
    fn: str
    rolled_to: int | None = None


def windows(connection: sqlite3.Connection, asked: Asked) -> list[tuple[int, Any]]:
    """(end of the window or `stop_ns`, value) for each window that has values."""
    series, column, fn = asked.series, asked.column, asked.fn
    start_ns, stop_ns, every_ns = asked.start_ns, asked.stop_ns, asked.every_ns
    width = every_ns or stop_ns - start_ns
    base = start_ns - start_ns % width if every_ns else start_ns
    marks = ", ".join("?" * len(series))
    if fn == "median":
        return [
            (min(base + (w + 1) * width, stop_ns), m)
            for w, m in _medians(connection, marks, series, column, (base, width, start_ns, stop_ns))
        ]
    first_hour = -(-start_ns // HOUR_NS)
    last_hour = first_hour if asked.rolled_to is None else min(asked.rolled_to, stop_ns // HOUR_NS)
    parts: list[Iterable[tuple[int, Any, Any]]] = []

    def points(low: int, high: int) -> None:
        if low < high:
            parts.append(
                connection.execute(
                    f"SELECT (t - ?) / ? AS w, {POINTS[fn].format(f=f'f{column}')} FROM points "  # noqa: S608 - numbers
                    f"WHERE series IN ({marks}) AND t >= ? AND t < ? AND f{column} IS NOT NULL GROUP BY w ORDER BY w",
                    (base, width, *series, low, high),
                )
            )

    if first_hour < last_hour:
        points(start_ns, first_hour * HOUR_NS)
        parts.append(
            connection.execute(
                f"SELECT (hour * {HOUR_NS} - ?) / ? AS w, {HOURS[fn]} FROM hours "  # noqa: S608 - numbers
                f"WHERE series IN ({marks}) AND field = ? AND hour >= ? AND hour < ? GROUP BY w ORDER BY w",
                (base, width, *series, column, first_hour, last_hour),
            )
        )
        points(last_hour * HOUR_NS, stop_ns)
    else:
        points(start_ns, stop_ns)
    merged: dict[int, tuple[Any, Any]] = {}
    for part in parts:
        for w, value, weight in part:
            merged[w] = MERGE[fn](merged[w], (value, weight)) if w in merged else (value, weight)
    return [
        (min(base + (w + 1) * width, stop_ns), value / weight if fn == "mean" else value)
        for w, (value, weight) in sorted(merged.items())
    ]


def _medians(
    connection: sqlite3.Connection, marks: str, series: Sequence[int], column: int, span: tuple[int, int, int, int]
) -> list[tuple[int, float]]:
    groups: dict[int, list[float]] = {}
    for w, value in connection.execute(
        f"SELECT (t - ?) / ?, f{column} FROM points "  # noqa: S608 - numbers
        f"WHERE series IN ({marks}) AND t >= ? AND t < ? AND f{column} IS NOT NULL",
        (*span[:2], *series, *span[2:]),
    ):
        groups.setdefault(w, []).append(value)
    return [(w, float(statistics.median(values))) for w, values in sorted(groups.items())]
