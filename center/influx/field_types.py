"""Ranges in which no field changes its type.

InfluxDB keeps a field's type per shard, for all series of the measurement. Over a range in which it was an integer
first (a device of the tutorial) and a float later (ours), it silently answers with the points of the first type only,
also for devices that never wrote an integer; last() alone is right (seen with 2.9.1).
"""

from __future__ import annotations

from typing import TYPE_CHECKING

from center.stores.telemetry import DAY_NS

if TYPE_CHECKING:
    from collections.abc import Callable, Sequence

    from center.influx.client import Row

RESERVED = {"_start", "_stop", "_time", "_value", "_field", "_measurement", "result"}
Span = tuple[int, int]
FIRST_AND_LAST = '%s |> first() |> yield(name: "first") %s |> last() |> yield(name: "last")'


def uniform(span: Span, ends: Callable[[Span], Sequence[Row]]) -> list[Span]:
    """The span, cut at the midnights (UTC) between which types change: a shard of a day or longer ends at one.

    `ends` gives the first and last value of each series in a span. Without a midnight in it nothing is asked.
    """
    start, stop = span
    middle = cut(span)
    if not start < middle < stop or not _mixed(ends(span)):
        return [span]
    return uniform((start, middle), ends) + uniform((middle, stop), ends)


def cut(span: Span) -> int:
    """The midnight nearest to the middle from below, or else the first one after the start."""
    start, stop = span
    midnight = (start + stop) // 2 // DAY_NS * DAY_NS
    return midnight if midnight > start else (start // DAY_NS + 1) * DAY_NS


def _mixed(rows: Sequence[Row]) -> bool:
    """Whether a field has two types, or a series has a last value and no first one, or the other way round."""
    kinds: dict[str, set[type]] = {}
    ends: dict[str, set[tuple[tuple[str, str], ...]]] = {"first": set(), "last": set()}
    for row in rows:
        kinds.setdefault(row["_field"], set()).add(type(row.get("_value", "")))
        ends[row["result"]].add(tags_of(row, "_field"))
    return ends["first"] != ends["last"] or any(len(found) > 1 for found in kinds.values())


def tags_of(row: Row, *also: str) -> tuple[tuple[str, str], ...]:
    """The series a row is of."""
    return tuple(sorted((key, value) for key, value in row.items() if key in also or key not in RESERVED))
