"""Curves as CSV: for programs with the fields' own names, for people with units."""

from __future__ import annotations

import csv
import io
from typing import TYPE_CHECKING, Any

from flask import Response

from center import presentation
from center.times import iso

if TYPE_CHECKING:
    from collections.abc import Iterator, Sequence

    from center.telemetry import Curve


def csv_answer(device_id: str, curves: Sequence[Curve], *, units: bool = True) -> Response:
    response = Response(_rows(curves, units=units), content_type="text/csv; charset=utf-8")
    response.headers["Content-Disposition"] = f'attachment; filename="{device_id}.csv"'
    return response


def _cell(text: str) -> str:
    """A text that a spreadsheet does not take for a formula: device names come from devices."""
    return f"'{text}" if text[:1] in {"=", "+", "-", "@", "\t", "\r"} else text


def _rows(curves: Sequence[Curve], *, units: bool) -> Iterator[str]:
    """In pieces: a row for each time and sensor in their order, a column for each field."""
    fields = presentation.ordered(c.field for c in curves)
    place = {f: i for i, f in enumerate(fields)}
    rows: dict[tuple[int, str], list[Any]] = {}
    for curve in curves:
        for at, value in zip(curve.times_ns, curve.values, strict=True):
            row = rows.setdefault((at, curve.sensor or ""), [None] * len(fields))
            row[place[curve.field]] = value
    several = any(sensor for _, sensor in rows)
    piece = io.StringIO()
    writer = csv.writer(piece, lineterminator="\n")
    names = [_cell(f"{f} ({u})" if units and (u := presentation.look(f).unit) else f) for f in fields]
    writer.writerow(["time", *(["sensor"] if several else []), *names])
    for count, ((at, sensor), row) in enumerate(sorted(rows.items())):
        cells = [_cell(v) if isinstance(v, str) else v for v in row]
        writer.writerow([iso(at), *([_cell(sensor)] if several else []), *cells])
        if count % 1000 == 999:
            yield piece.getvalue()
            piece.seek(0)
            piece.truncate()
    yield piece.getvalue()
