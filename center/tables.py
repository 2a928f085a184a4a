"""Curves as tables: the order of fields and rows, and CSV, for people with units."""

from __future__ import annotations

import csv
import io
import re
from collections.abc import Callable, Iterable, Iterator, Mapping, Sequence
from itertools import compress
from typing import Any

from flask import Response
from markupsafe import Markup

from center.stores.telemetry import Curve, Value, labels, several
from center.times import iso
from drivers.base import QUANTITIES

_ORDER = {name: place for place, name in enumerate(QUANTITIES)}


Curves = Mapping[str, Sequence[Curve]]
"""The curves of each device."""


def csv_answer(curves: Curves, unit: Callable[[str], str] = lambda _: "") -> Response:
    """A file of the curves; `unit` of a field stands behind its name."""
    response = Response(_lines(curves, unit), content_type="text/csv; charset=utf-8")
    name = next(iter(curves)) if len(curves) == 1 else "devices"
    response.headers["Content-Disposition"] = f'attachment; filename="{name}.csv"'
    return response


# Of what devices send: what a terminal acts on, and what turns or breaks a line.
_UNSEEN = re.compile("[\0-\x08\x0b\x0c\x0e-\x1f\x7f-\x9f\u061c\u200e\u200f\u2028-\u202e\u2066-\u2069]")


def seen(value: Any) -> Any:
    """A text with U+FFFD for each control character in it; anything else as it is."""
    if not isinstance(value, str) or not _UNSEEN.search(value):
        return value
    text = _UNSEEN.sub("\ufffd", str(value))
    return Markup(text) if isinstance(value, Markup) else text  # noqa: S704 - markup before, with less in it now


def _cell(text: str) -> str:
    """A text that a spreadsheet does not take for a formula: device names come from devices."""
    text = seen(text)
    return f"'{text}" if text[:1] in {"=", "+", "-", "@", "\t", "\r"} else text


def ordered(fields: Iterable[str]) -> list[str]:
    """The fields as people look for them: what is measured first, the location last, others by name."""
    return sorted(set(fields), key=lambda f: (f in {"Lat", "Lon"}, _ORDER.get(f, len(_ORDER)), f))


def rows_of(curves: Curves, fields: Sequence[str]) -> dict[tuple[int, str, str], list[Value | None]]:
    """A row for each time and device with a cell for each field; where a field of a device is of several sensors, one
    for each of them, by its label; else under "".
    """
    place = {f: i for i, f in enumerate(fields)}
    rows: dict[tuple[int, str, str], list[Value | None]] = {}
    for device_id, found in curves.items():
        named = labels(found) if several(found) else {}
        for curve in found:
            whose, cell = named.get((curve.field, curve.sensor), ""), place[curve.field]
            for at, value in zip(curve.times_ns, curve.values, strict=True):
                rows.setdefault((at, device_id, whose), [None] * len(fields))[cell] = value
    return rows


def columns_of(curves: Curves) -> tuple[bool, bool]:
    """Whether rows say the device, and the sensor."""
    return len(curves) > 1, any(several(found) for found in curves.values())


def _lines(curves: Curves, unit: Callable[[str], str]) -> Iterator[str]:
    """The rows in their order, in pieces."""
    fields = ordered(c.field for found in curves.values() for c in found)
    said = columns_of(curves)
    piece = io.StringIO()
    writer = csv.writer(piece, lineterminator="\n")
    names = [_cell(f"{f} ({unit(f)})" if unit(f) else f) for f in fields]
    writer.writerow(["time", *compress(("device", "sensor"), said), *names])
    for count, ((at, *whose), row) in enumerate(sorted(rows_of(curves, fields).items())):
        cells = [_cell(v) if isinstance(v, str) else str(v).lower() if isinstance(v, bool) else v for v in row]
        writer.writerow([iso(at), *map(_cell, compress(whose, said)), *cells])
        if count % 1000 == 999:
            yield piece.getvalue()
            piece.seek(0)
            piece.truncate()
    yield piece.getvalue()
