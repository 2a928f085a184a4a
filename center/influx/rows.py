"""Rows of InfluxDB's answers: read from CSV; which fields are numbers; ranges of one field type."""

from __future__ import annotations

import csv
import functools
import io
from collections.abc import Callable, Iterable, Iterator, Sequence
from typing import Any

from center.errors import RefusedError
from center.stores.rows import Row
from center.stores.telemetry import DAY_NS
from center.times import parse_time

Span = tuple[int, int]
csv.field_size_limit(2**21)  # a text has up to 1 MiB, and each newline of it counts twice
RESERVED = {"_start", "_stop", "_time", "_value", "_field", "_measurement", "result"}


def decode(text: str) -> Iterator[Row]:
    """Rows of annotated CSV (datatype only): numbers, booleans, and times as Unix nanoseconds.

    InfluxDB writes an empty string like one that is missing: both have no entry. Raises RefusedError for an error that
    came after the first rows.
    """
    types: list[str] = []
    columns: list[tuple[int, str, Callable[[str], Any]]] = []
    header = failed = False
    for row in csv.reader(io.StringIO(text, newline="")):
        if not row:
            continue
        if row[0] == "#datatype":
            types, header = row, True
        elif header:
            header = False
            failed = row[1:] == ["error", "reference"]
            columns = [
                (place, name, _READ.get(types[place], _plain))
                for place, name in enumerate(row)
                if name and name != "table"
            ]
        elif failed:  # in the midst of an answer that began with status 200
            raise RefusedError(row[1])
        else:
            yield {name: read(row[place]) for place, name, read in columns if row[place]}


@functools.lru_cache(maxsize=16_384)
def _stamp(text: str) -> int:
    """Every field of a point brings the same one."""
    return parse_time(text, 0)


def _plain(value: str) -> str:
    return value.replace("\r\n", "\n")  # InfluxDB writes every newline in its CSV so


_READ: dict[str, Callable[[str], Any]] = {
    "double": float,
    "long": int,
    "unsignedLong": int,
    "boolean": lambda value: value == "true",
    "dateTime:RFC3339": _stamp,
    "dateTime:RFC3339Nano": _stamp,
}


def numbers_of(rows: Iterable[Row]) -> list[str]:
    """The fields all of whose last values are numbers."""
    kinds: dict[str, bool] = {}
    for row in rows:
        kinds[row["_field"]] = kinds.get(row["_field"], True) and type(row.get("_value")) in {int, float}
    return sorted(field for field, number in kinds.items() if number)


def uniform(span: Span, ends: Callable[[Span], Sequence[Row]]) -> list[Span]:
    """The span, cut at the midnights (UTC) between which types change: a shard of a day or longer ends at one.

    InfluxDB keeps a field's type per shard, for all series of the measurement. Over a range in which it was an integer
    first (a device of the tutorial) and a float later (ours), it silently answers with the points of the first type
    only, also for devices that never wrote an integer; last() alone is right (seen with 2.9.1).

    `ends` gives the first and last value of each series in a span. Without a midnight in it nothing is asked.
    """
    start, stop = span
    middle = (start + stop) // 2 // DAY_NS * DAY_NS  # the midnight before the middle, or else the first after the start
    if middle <= start:
        middle = (start // DAY_NS + 1) * DAY_NS
    if not start < middle < stop or not _mixed(ends(span)):
        return [span]
    return uniform((start, middle), ends) + uniform((middle, stop), ends)


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
