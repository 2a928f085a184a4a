"""Data: querying by form and in Flux, writing points by hand, the buckets."""

from __future__ import annotations

import csv
import io
from collections.abc import Sequence
from typing import Any
from urllib.parse import urlencode

from flask import flash, redirect, render_template, request, url_for

from center import line_protocol
from center.context import current_center
from center.errors import NotSupportedError, RefusedError
from center.pages.blueprint import administrators_only, pages
from center.pages.flux import pipeline
from center.pages.forms import MEASURED, RANGES, Query, RawFlux, Write, WriteLines
from center.pages.roster import suggestions
from center.pages.series import Found, bounded, drawn, unit_by, window_s
from center.stores.telemetry import ENVIRONMENT, SECOND_NS, Point, SeriesQuery, Value, is_number
from center.tables import Curves, columns_of, csv_answer, ordered, rows_of
from center.times import now_ns, parse_every, parse_time
from drivers.base import QUANTITIES

ROWS_SHOWN = 200
FLUX_ROWS_SHOWN = 500


@pages.get("/query")
def query() -> Any:
    """Ask by form, see the Flux that answers it, the result as chart and table, and the way to get it as CSV."""
    center, now = current_center(), now_ns()
    asked = "device" in request.args
    form = Query(request.args if asked else None, device=next((device_id for device_id, _ in suggestions()), ""))
    asking: list[SeriesQuery] = []
    found: Found = ()
    if asked and form.validate():
        try:
            asking = _asked(form, now)
            found = [(query, center.telemetry.series(query)) for query in asking]
        except RefusedError as error:
            asking = []
            form.window.errors = [f"{error}."]
    curves = {query.device_id: curves for query, curves in found}
    if asking and request.args.get("format") == "csv":
        return csv_answer(curves, unit_by(asking[0]))
    if asking and request.args.get("format") == "json":
        return drawn(bounded(found))
    every = [curve for device in curves.values() for curve in device]
    fields = ordered(c.field for c in every)
    text = pipeline(asking[0], center.telemetry.bucket, *list(curves)[1:]) if asking else None
    rows, total = _rows(curves, fields)
    return render_template(
        "query.html",
        form=form,
        raw=RawFlux(formdata=None, flux=text),
        fields=list(QUANTITIES),
        asking=asking[0] if asking else None,
        flux=text,
        rows=rows,
        total=total,
        said=columns_of(curves),
        found=fields,
        drawable=[f for f in fields if any(c.field == f and c.values and is_number(c.values[0]) for c in every)],
        csv_url=_again("csv"),
        json_url=_again("json"),
    )


def _again(form: str) -> str:
    """The address of this query's answer in another form."""
    return f"{url_for('pages.query')}?{urlencode({**request.args.to_dict(), 'format': form})}"


def _rows(curves: Curves, fields: list[str]) -> tuple[list[tuple[int, str, str, list[Value | None]]], int]:
    """The newest rows, and how many there are in all."""
    rows = rows_of(curves, fields)
    newest = sorted(rows, key=lambda key: (-key[0], *key[1:]))[:ROWS_SHOWN]
    return [(*key, rows[key]) for key in newest], len(rows)


def _asked(form: Query, now: int) -> list[SeriesQuery]:
    """A query for each device."""
    _, seconds = RANGES[form.range.data]
    stop = parse_time(form.to.data, now) if form.to.data else now
    start = parse_time(form.since.data, now) if form.since.data else stop - seconds * SECOND_NS
    window = form.window.data
    if window == "auto":
        every = window_s((stop - start) / SECOND_NS, 600)
        every_ns = every * SECOND_NS if every else None
    else:
        every_ns = None if window == "none" else parse_every(window)
    fields = tuple(name.strip() for name in (form.field.data or "").split(",") if name.strip())
    return [SeriesQuery(i, start, stop, fields=fields, every_ns=every_ns, fn=form.fn.data) for i in form.device_ids()]


@pages.post("/query/flux")
@administrators_only
def flux() -> Any:
    """Flux as typed; administrators only, and only InfluxDB can run it."""
    form = RawFlux()
    tables: list[list[list[str]]] = []
    cut = False
    if form.validate_on_submit():
        try:
            tables, cut = _tables(current_center().telemetry.raw_flux(form.flux.data))
        except (RefusedError, NotSupportedError) as error:
            form.flux.errors = [str(error)]
    return render_template("flux.html", form=form, tables=tables, cut=cut), 400 if form.errors else 200


def _tables(annotated: str) -> tuple[list[list[list[str]]], bool]:
    """The tables of annotated CSV: each a header and its rows, without the annotations."""
    tables: list[list[list[str]]] = []
    fresh, count = True, 0
    for row in csv.reader(io.StringIO(annotated)):
        if not any(row):
            fresh = True
        elif not row[0].startswith("#"):
            if count >= FLUX_ROWS_SHOWN:
                return tables, True
            if fresh:
                tables.append([])
            fresh, count = False, count + 1
            tables[-1].append(row[1:])
    return tables, False


@pages.route("/write", methods=["GET", "POST"])
@administrators_only
def write() -> Any:
    """One point by its values, or lines of line protocol."""
    now = now_ns()
    by_lines = request.method == "POST" and "lines" in request.form
    form = Write(
        formdata=None if by_lines else request.form, device=next((device_id for device_id, _ in suggestions()), "")
    )
    lines = WriteLines(formdata=request.form if by_lines else None)
    chosen = lines if by_lines else form
    if chosen.validate_on_submit():
        try:
            points = _line_points(lines) if by_lines else [_point(form, now)]
            current_center().telemetry.write(points)
        except (RefusedError, NotSupportedError) as error:
            (lines.lines if by_lines else form.device).errors = [str(error)]
        else:
            flash(f"{len(points)} {'point is' if len(points) == 1 else 'points are'} stored.", "success")
            return redirect(url_for("pages.write"))
    page = render_template("write.html", form=form, lines=lines, quantities=[form[f] for f in MEASURED])
    return page, 400 if chosen.errors else 200


def _point(form: Write, now: int) -> Point:
    at = parse_time(form.time.data, now) if form.time.data else now
    device = form.device.data
    return Point(ENVIRONMENT, {"clientId": device, "device": device}, form.values(), at)


def _line_points(form: WriteLines) -> Sequence[Point]:
    body = form.lines.data.replace("\r\n", "\n").strip().encode()
    try:
        return [point for points in line_protocol.parse(body) for point in points]
    except line_protocol.BadLinesError as error:
        raise RefusedError(" ".join(str(error).splitlines()[:5])) from error


@pages.get("/buckets")
def buckets() -> str:
    return render_template("buckets.html", buckets=current_center().telemetry.buckets())
