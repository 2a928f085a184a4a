"""Rows that tell of series one by one, brought together to curves and summaries of sensors: the arithmetic that
InfluxDB and VictoriaMetrics share. A row has its series' tags, `_field`, `_time` (ns), `_value`, and in `result` what
it tells.
"""

from __future__ import annotations

import statistics
from collections.abc import Callable, Iterable, Sequence
from dataclasses import dataclass, replace
from typing import Any, cast

from center.stores.telemetry import Curve, FieldSummary, Sensor, recency, sensor_of

Row = dict[str, Any]
Part = tuple[Any, ...]  # a value, and its weight in a mean or its time
MERGE: dict[str, Callable[[Part, Part], Part]] = {
    "mean": lambda a, b: (a[0] + b[0], a[1] + b[1]),
    "sum": lambda a, b: (a[0] + b[0], 0),
    "count": lambda a, b: (a[0] + b[0], 0),
    "min": min,
    "max": max,
    # Of several values at one time the smallest is the first and the largest the last, in both stores.
    "first": lambda a, b: min(a, b, key=lambda part: (part[1], part[0])),
    "last": lambda a, b: max(a, b, key=lambda part: (part[1], part[0])),
}


def summaries(rows: Iterable[Row]) -> list[FieldSummary]:
    """Rows of count, last, min and max of series and parts of the range, brought together by field and sensor."""
    groups: dict[tuple[str, Sensor], dict[str, list[Row]]] = {}
    for row in rows:
        groups.setdefault(of(row), {}).setdefault(row["result"], []).append(row)
    found = []
    for (field, sensor), by_name in sorted(groups.items()):
        last = max(by_name["last"], key=lambda row: recency(row["_time"], row.get("_value", "")))
        values = {name: [row["_value"] for row in by_name.get(name, ())] for name in ("min", "max", "count")}
        found.append(
            FieldSummary(
                field,
                sensor,
                min(values["min"], default=None),
                max(values["max"], default=None),
                last.get("_value", ""),
                last["_time"],
                sum(values["count"]),
            )
        )
    return found


def of(row: Row) -> tuple[str, Sensor]:
    """The field and the sensor that a row tells of."""
    return row["_field"], sensor_of(row, row["_field"])


def devices_of(row: Row) -> set[str]:
    return {row[tag] for tag in ("clientId", "device") if tag in row}


def points_of(rows: Iterable[Row]) -> list[Curve]:
    """Points of several series as one curve for each field and sensor."""
    return _curves(((row, row["_time"], (row.get("_value", ""), row["_time"])) for row in rows), "last")


@dataclass(frozen=True, slots=True)
class Windows:
    """Windows of a range, in nanoseconds; they start at the epoch, and the last one ends with the range."""

    every_ns: int
    stop_ns: int

    def end(self, time_ns: int) -> int:
        """The stamp of the window that ends at this time, or was cut there because the range was asked for in parts."""
        return min(-(-time_ns // self.every_ns) * self.every_ns, self.stop_ns)

    def shared(self, rows: Sequence[Row]) -> bool:
        """Whether several rows are of one window of one sensor: of several series, or of parts of the range."""
        windows = {(*of(row), self.end(row["_time"]), *sorted(devices_of(row))) for row in rows}
        return len(windows) < len(rows)

    def curves(self, rows: Iterable[Row], fn: str) -> list[Curve]:
        """One curve for each field and sensor, of rows that tell of one series each. `result` names what: `sum` and
        `count`, of which a mean is made; `moment`, a value with its own time (the window's end is `_stop`); else the
        value of the window that ends at `_time`.
        """

        def end(row: Row) -> int:
            return self.end(row["_stop" if row["result"] == "moment" else "_time"])

        return _curves(((row, end(row), _part(row, fn)) for row in rows), fn)

    def bands(self, rows: Sequence[Row]) -> list[Curve]:
        """As curves(), of rows of `sum`, `count`, `min` and `max`: means with their edges and counts."""
        parts = (
            self.curves([row for row in rows if row["result"] in results], fn)
            for results, fn in (({"sum", "count"}, "mean"), ({"min"}, "min"), ({"max"}, "max"), ({"count"}, "count"))
        )
        return [
            replace(mean, low=low.values, high=high.values, counts=cast("Sequence[int]", counts.values))
            for mean, low, high, counts in zip(*parts, strict=True)
        ]

    def medians(self, points: Iterable[Row]) -> list[Curve]:
        """One curve for each field and sensor, of all their points, several series' ones among them."""
        groups: dict[tuple[str, Sensor], dict[int, list[float]]] = {}
        for row in points:
            end = min((row["_time"] // self.every_ns + 1) * self.every_ns, self.stop_ns)
            groups.setdefault(of(row), {}).setdefault(end, []).append(row["_value"])
        return [
            Curve(*key, tuple(sorted(found)), tuple(float(statistics.median(found[end])) for end in sorted(found)))
            for key, found in sorted(groups.items())
        ]


def _part(row: Row, fn: str) -> Part:
    value = row.get("_value", "")
    if fn != "mean":
        return value, row["_time"]
    return {"sum": (value, 0), "count": (0, value)}.get(row["result"], (value, 1))


def _curves(parts: Iterable[tuple[Row, int, Part]], fn: str) -> list[Curve]:
    """Parts with their row and time as one curve for each field and sensor, in the order of time."""
    groups: dict[tuple[str, Sensor], dict[int, Part]] = {}
    for row, t, part in parts:
        values = groups.setdefault(of(row), {})
        values[t] = MERGE[fn](values[t], part) if t in values else part
    return [
        Curve(
            field,
            sensor,
            tuple(times),
            tuple(values[t][0] / values[t][1] if fn == "mean" else values[t][0] for t in times),
        )
        for (field, sensor), values in sorted(groups.items())
        for times in (sorted(values),)
    ]
