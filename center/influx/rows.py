"""Rows of InfluxDB's answers brought together: series of one sensor as one curve, one summary."""

from __future__ import annotations

from typing import TYPE_CHECKING, Any

from center.stores.telemetry import Curve, FieldSummary, Value, kind_of

if TYPE_CHECKING:
    from collections.abc import Callable, Iterable, Sequence

    from center.influx.client import Row

MERGE: dict[str, Callable[[Any, Any], Any]] = {
    "mean": lambda a, b: (a + b) / 2,  # near enough for a sparkline
    "median": lambda a, b: (a + b) / 2,
    "sum": lambda a, b: a + b,
    "count": lambda a, b: a + b,
    "min": min,
    "max": max,
    "first": lambda a, _: a,
    "last": lambda _, b: b,
}


def shared(rows: Sequence[Row]) -> bool:
    """Whether several series of one sensor have values in one window."""
    return len({(row["_field"], row.get("sensor"), row["_time"]) for row in rows}) < len(rows)


def numbers_of(rows: Iterable[Row]) -> list[str]:
    """The fields all of whose last values are numbers."""
    kinds: dict[str, bool] = {}
    for row in rows:
        kinds[row["_field"]] = kinds.get(row["_field"], True) and type(row.get("_value")) in {int, float}
    return sorted(field for field, number in kinds.items() if number)


def summaries(rows: Iterable[Row]) -> list[FieldSummary]:
    """Rows of count, last, min and max of series and parts of the range, brought together by field and sensor."""
    groups: dict[tuple[str, str], dict[str, list[Row]]] = {}
    for row in rows:
        groups.setdefault((row["_field"], row.get("sensor", "")), {}).setdefault(row["result"], []).append(row)
    found = []
    for (field, sensor), by_name in sorted(groups.items()):
        last = max(by_name["last"], key=lambda row: int(row["_time"]))
        values = {name: [row["_value"] for row in by_name.get(name, ())] for name in ("min", "max", "count")}
        found.append(
            FieldSummary(
                field,
                sensor or None,
                kind_of(last, field),
                min(values["min"], default=None),
                max(values["max"], default=None),
                last.get("_value", ""),
                last["_time"],
                sum(values["count"]),
            )
        )
    return found


def devices_of(row: Row) -> set[str]:
    return {row[tag] for tag in ("clientId", "device") if tag in row}


def curves_of(rows: Iterable[Row], fn: str) -> list[Curve]:
    """Rows of several series as one curve for each field and sensor, in the order of time."""
    groups: dict[tuple[str, str], dict[int, Value]] = {}
    for row in rows:
        values = groups.setdefault((row["_field"], row.get("sensor", "")), {})
        t, value = row["_time"], row.get("_value", "")
        values[t] = MERGE[fn](values[t], value) if t in values else value
    return [
        Curve(field, sensor or None, tuple(times), tuple(values[t] for t in times))
        for (field, sensor), values in sorted(groups.items())
        for times in (sorted(values),)
    ]
