"""Ranges in which no field changes its type.

InfluxDB keeps a field's type per shard, for all series of the measurement. Over a range in which it was an integer
first (a device of the tutorial) and a float later (ours), it silently answers with the points of the first type only,
also for devices that never wrote an integer; last() alone is right (seen with 2.9.1).
"""

from __future__ import annotations

from typing import TYPE_CHECKING

from center.telemetry import DAY_NS, HOUR_NS

if TYPE_CHECKING:
    from collections.abc import Callable, Sequence

    from center.influx_client import Row

RESERVED = {"_start", "_stop", "_time", "_value", "_field", "_measurement", "result"}
Span = tuple[int, int]
FIRST_AND_LAST = '%s |> first() |> yield(name: "first") %s |> last() |> yield(name: "last")'


def uniform(span: Span, ends: Callable[[Span], Sequence[Row]]) -> list[Span]:
    """The span, cut where types change: at midnights, or at full hours within a day.

    `ends` gives the first and last value of each series in a span. Shards of a day and longer are a day's multiples.
    """
    start, stop = span
    if stop - start <= DAY_NS or not _mixed(ends(span)):
        return [span]
    middle = cut(span)
    if not start < middle < stop:
        return [span]
    return uniform((start, middle), ends) + uniform((middle, stop), ends)


def cut(span: Span) -> int:
    """About the middle of a span, at a midnight (UTC) where there is one."""
    start, stop = span
    middle = (start + stop) // 2
    midnight = middle - middle % DAY_NS
    return midnight if start < midnight else middle - middle % HOUR_NS


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
