"""Lines as others read them: a table whose columns are the tags and fields that occur, or a JSON object a line."""

from __future__ import annotations

import csv
import json
from collections.abc import Callable, Iterable, Iterator
from typing import IO

from agent.config.units import format_time
from agent.points.line_protocol import Point, parse, value_of


def write_jsonl(lines: Iterable[bytes], output: IO[bytes]) -> None:
    for point in _points(lines):
        row = {
            "time": format_time(point.stamp),
            "measurement": point.measurement,
            "tags": point.tags,
            "fields": {key: value_of(value) for key, value in point.fields.items()},
        }
        output.write(json.dumps(row, ensure_ascii=False).encode() + b"\n")


def write_csv(lines: Callable[[], Iterable[bytes]], output: IO[bytes]) -> None:
    """`lines` is called twice: the columns are known once all have been seen."""
    tags: dict[str, None] = {}
    names: dict[str, None] = {}
    for point in _points(lines()):
        tags |= dict.fromkeys(point.tags)
        names |= dict.fromkeys(point.fields)

    class Encoded:
        @staticmethod
        def write(text: str) -> int:
            return output.write(text.encode())

    table = csv.writer(Encoded())
    table.writerow(["time", "measurement", *tags, *names])
    for point in _points(lines()):
        values = (str(value_of(point.fields[name])) if name in point.fields else "" for name in names)
        table.writerow([format_time(point.stamp), point.measurement, *(point.tags.get(t, "") for t in tags), *values])


def _points(lines: Iterable[bytes]) -> Iterator[Point]:
    return (point for point in map(parse, lines) if point is not None)
