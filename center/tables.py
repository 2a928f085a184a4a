"""Curves as tables: the order of fields and rows, and CSV, for people with units."""

from __future__ import annotations

import csv
import io
from collections.abc import Callable, Iterable, Iterator, Sequence

from flask import Response

from center.stores.telemetry import Curve, FieldSummary, Value, labels
from center.times import iso
from drivers.base import QUANTITIES

_ORDER = {name: place for place, name in enumerate(QUANTITIES)}


def csv_answer(device_id: str, curves: Sequence[Curve], unit: Callable[[str], str] = lambda _: "") -> Response:
    """A file of the curves; `unit` of a field stands behind its name."""
    response = Response(_lines(curves, unit), content_type="text/csv; charset=utf-8")
    response.headers["Content-Disposition"] = f'attachment; filename="{device_id}.csv"'
    return response


def _cell(text: str) -> str:
    """A text that a spreadsheet does not take for a formula: device names come from devices."""
    return f"'{text}" if text[:1] in {"=", "+", "-", "@", "\t", "\r"} else text


def ordered(fields: Iterable[str]) -> list[str]:
    """The fields as people look for them: what is measured first, the location last, others by name."""
    return sorted(set(fields), key=lambda f: (f in {"Lat", "Lon"}, _ORDER.get(f, len(_ORDER)), f))


def rows_of(curves: Sequence[Curve], fields: Sequence[str]) -> dict[tuple[int, str], list[Value | None]]:
    """A row for each time with a cell for each field; where a field is told by several sensors, one for each sensor,
    by its label; else under "".
    """
    place = {f: i for i, f in enumerate(fields)}
    named = labels(c.sensor for c in curves) if several_sensors(curves) else {}
    rows: dict[tuple[int, str], list[Value | None]] = {}
    for curve in curves:
        for at, value in zip(curve.times_ns, curve.values, strict=True):
            rows.setdefault((at, named.get(curve.sensor, "")), [None] * len(fields))[place[curve.field]] = value
    return rows


def several_sensors(curves: Sequence[Curve | FieldSummary]) -> bool:
    """Whether a field has more than one curve, so that it must be said whose each is."""
    return len({curve.field for curve in curves}) < len(curves)


def _lines(curves: Sequence[Curve], unit: Callable[[str], str]) -> Iterator[str]:
    """The rows in their order, in pieces."""
    fields = ordered(c.field for c in curves)
    rows = rows_of(curves, fields)
    several = several_sensors(curves)
    piece = io.StringIO()
    writer = csv.writer(piece, lineterminator="\n")
    names = [_cell(f"{f} ({unit(f)})" if unit(f) else f) for f in fields]
    writer.writerow(["time", *(["sensor"] if several else []), *names])
    for count, ((at, sensor), row) in enumerate(sorted(rows.items())):
        cells = [_cell(v) if isinstance(v, str) else v for v in row]
        writer.writerow([iso(at), *([_cell(sensor)] if several else []), *cells])
        if count % 1000 == 999:
            yield piece.getvalue()
            piece.seek(0)
            piece.truncate()
    yield piece.getvalue()
