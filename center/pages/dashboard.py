"""Dashboards: gauges, charts of every field at about the width of the screen, live data, CSV."""

from __future__ import annotations

from bisect import bisect_left
from collections.abc import Sequence
from dataclasses import replace
from itertools import pairwise
from typing import Any, cast

from flask import abort, redirect, render_template, request, url_for

from center.context import current_center
from center.pages import live, presentation
from center.pages.blueprint import pages
from center.pages.forms import RANGES
from center.pages.states import is_number, newest, shown, state_of
from center.stores.telemetry import DAY_NS, SECOND_NS, Curve, Function, SeriesQuery, Value, finite, labels
from center.tables import csv_answer, ordered
from center.times import now_ns

# Windows that people can name, in seconds.
_STEPS = (
    *(1, 2, 5, 10, 15, 30),
    *(60, 120, 300, 600, 900, 1800),
    *(3600, 7200, 10_800, 21_600, 43_200),
    *(86_400, 2 * 86_400, 7 * 86_400),
)
MS_NS = 1_000_000
RAW_BELOW_S = 600  # a range this short shows every point
LOOK_BACK_NS = 400 * DAY_NS


def window_s(span_s: float, width: int) -> int | None:
    """Seconds of the window that gives at most one point a pixel; None for a range short enough to show as it is."""
    if span_s <= RAW_BELOW_S:
        return None
    return _STEPS[min(bisect_left(_STEPS, span_s / max(width, 100)), len(_STEPS) - 1)]


def _asked(device_id: str, now: int) -> SeriesQuery:
    """What the URL asks to draw: `field`s, `range` or `start` and `stop` (Unix ms), `width` in pixels, `fn`."""
    args = request.args
    width = min(max(args.get("width", 1000, type=int), 100), 2400)
    start_ms, stop_ms = args.get("start", type=int), args.get("stop", type=int)
    if start_ms is not None and stop_ms is not None:
        start, stop = start_ms * MS_NS, stop_ms * MS_NS
    else:
        _, seconds = RANGES.get(args.get("range", "24h"), RANGES["24h"])
        stop = now // MS_NS * MS_NS  # what the answer says, so that a second question is about the same windows
        start = stop - seconds * SECOND_NS
    every_s = window_s((stop - start) / SECOND_NS, width)
    fn = cast("Function", args.get("fn", "mean"))  # checked by SeriesQuery
    return SeriesQuery(
        device_id, start, stop, tuple(args.getlist("field")), every_s * SECOND_NS if every_s else None, fn
    )


@pages.get("/dashboards")
def dashboards() -> Any:
    """The dashboard of the device heard of last; a page that says what to do when there is none."""
    center, now = current_center(), now_ns()
    seen = center.telemetry.last_seen(since_ns=now - DAY_NS) or center.telemetry.last_seen(since_ns=now - LOOK_BACK_NS)
    if seen:
        return redirect(url_for("pages.dashboard", device_id=max(seen, key=seen.__getitem__)))
    return render_template("dashboard_empty.html")


@pages.get("/dashboards/<device_id>")
def dashboard(device_id: str) -> str:
    center, now = current_center(), now_ns()
    values = center.telemetry.last_values([device_id], since_ns=now - LOOK_BACK_NS).get(device_id, ())
    registered = center.registry.device(device_id)
    if registered is None and not values:
        abort(404)
    seen, lasts = newest(values), shown(values, now)
    drawable = [v for v in lasts if presentation.charted(v.field) and is_number(v.value)]
    chosen = request.args.get("range", "24h")
    others = [d.id for d in center.registry.devices(limit=100).devices]
    return render_template(
        "dashboard.html",
        device_id=device_id,
        state=state_of(seen, now, registered=registered is not None),
        seen=seen,
        values=drawable,
        fields=ordered(v.field for v in drawable),
        place={v.field: v for v in reversed(lasts) if v.field in {"Lat", "Lon"}},
        ranges=RANGES,
        chosen=chosen if chosen in RANGES else "24h",
        devices=others if device_id in others else [device_id, *others],
    )


@pages.get("/dashboards/<device_id>/series.json")
def series_json(device_id: str) -> Any:
    """What the charts draw. Times are Unix ms; null breaks the line where points are missing."""
    query = _asked(device_id, now_ns())
    return drawn(query, _curves(query))


def drawn(query: SeriesQuery, curves: Sequence[Curve]) -> dict[str, Any]:
    """These curves for the script that draws them."""
    every_s = query.every_ns // SECOND_NS if query.every_ns else None
    named = labels(c.sensor for c in curves)
    return {
        "start": query.start_ns // MS_NS,
        "stop": query.stop_ns // MS_NS,
        "every": every_s,
        "every_text": presentation.span(every_s) if every_s else None,
        "curves": [_drawn(c, named[c.sensor], (every_s or 0) * 1000) for c in curves],
    }


@pages.get("/dashboards/<device_id>/live.json")
def live_json(device_id: str) -> Any:
    """The last values if they are recent, when they were measured (Unix ms), and the device's state."""
    last, registered = live.look(device_id)
    seen = newest(last)
    state = state_of(seen if seen is not None else 0, now_ns(), registered=registered)
    return {
        "last": [
            {
                "field": v.field,
                "sensor": v.whose,
                "value": v.value,
                "text": presentation.number(v.value, v.field),
                "time": v.time_ns // MS_NS,
            }
            for v in shown(last, now_ns())
        ],
        "seen": seen // MS_NS if seen is not None else None,
        "state": {"name": state.name, "label": state.label},
    }


@pages.get("/dashboards/<device_id>/data.csv")
def series_csv(device_id: str) -> Any:
    """The curves of a view as a table: one row for each time and sensor, one column for each field."""
    return csv_answer(device_id, _curves(_asked(device_id, now_ns())), presentation.unit)


def _curves(query: SeriesQuery) -> Sequence[Curve]:
    """The curves of a view. Where a device sends Temperature_min with its Temperature, that is the minimum."""
    telemetry = current_center().telemetry
    if query.fn not in {"min", "max"}:
        return telemetry.series(query)
    edge = f"_{query.fn}"
    curves = telemetry.series(replace(query, fields=(*query.fields, *(f + edge for f in query.fields))))
    better = {(c.field.removesuffix(edge), c.sensor): c for c in curves if c.field.endswith(edge)}
    plain = [c for c in curves if not c.field.endswith(edge)]
    return [replace(better.get((c.field, c.sensor), c), field=c.field) for c in plain]


def with_gaps(times: Sequence[int], values: Sequence[Value], every: int) -> tuple[list[int], list[Value | None]]:
    """The curve with a None wherever more than three usual steps are missing. Times and `every` in one unit."""
    steps = sorted(b - a for a, b in pairwise(times))
    gap = max(steps[len(steps) // 2] * 3, every * 3) if steps else 0
    out_times: list[int] = []
    out_values: list[Value | None] = []
    for at, value in zip(times, values, strict=True):
        if out_times and at - out_times[-1] > gap:
            out_times.append(out_times[-1] + 1)
            out_values.append(None)
        out_times.append(at)
        out_values.append(value)
    return out_times, out_values


def _drawn(curve: Curve, whose: str, every_ms: int) -> dict[str, Any]:
    times, values = with_gaps([t // MS_NS for t in curve.times_ns], curve.values, every_ms)
    digits = presentation.look(curve.field).decimals + 1
    return {
        "field": curve.field,
        "sensor": whose,
        "t": times,
        "v": [round(v, digits) if isinstance(v, float) else v for v in finite(values)],
    }
