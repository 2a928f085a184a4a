"""Curves as CSV: for programs with the fields' own names, for people with units."""

from __future__ import annotations

import csv
import io
from typing import TYPE_CHECKING

from flask import Response

from center.pages import presentation
from center.times import iso

if TYPE_CHECKING:
    from collections.abc import Iterator, Sequence

    from center.stores.telemetry import Curve, Value


def csv_answer(device_id: str, curves: Sequence[Curve], *, units: bool = True) -> Response:
    response = Response(_lines(curves, units=units), content_type="text/csv; charset=utf-8")
    response.headers["Content-Disposition"] = f'attachment; filename="{device_id}.csv"'
    return response


def _cell(text: str) -> str:
    """A text that a spreadsheet does not take for a formula: device names come from devices."""
    return f"'{text}" if text[:1] in {"=", "+", "-", "@", "\t", "\r"} else text


def rows_of(curves: Sequence[Curve], fields: Sequence[str]) -> dict[tuple[int, str], list[Value | None]]:
    """A row for each time and sensor (or ""), with a cell for each field."""
    place = {f: i for i, f in enumerate(fields)}
    rows: dict[tuple[int, str], list[Value | None]] = {}
    for curve in curves:
        for at, value in zip(curve.times_ns, curve.values, strict=True):
            rows.setdefault((at, curve.sensor or ""), [None] * len(fields))[place[curve.field]] = value
    return rows


def _lines(curves: Sequence[Curve], *, units: bool) -> Iterator[str]:
    """The rows in their order, in pieces."""
    fields = presentation.ordered(c.field for c in curves)
    rows = rows_of(curves, fields)
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
