"""What charts draw and what is downloaded of them: the curves of one device, or of several to compare.

    GET /series.json?device=ID&device=ID2…      several devices (at most 8)
    GET /dashboards/ID/series.json              one
    GET /series.csv, /dashboards/ID/data.csv    the same curves as a table

Parameters, all optional: `field` (repeated, also one that is computed, see computed.py; none: all that have a chart),
`sensor` (repeated, a curve's label; none: all), `range` (1h, 24h, …; all: from the first point on) or `start` and
`stop` (Unix ms), `width` (pixels: windows are chosen so that each has one at least), `every` (seconds of a window, 0:
every point; instead of `width`), `fn` (mean),
and `since` (Unix ms: of this range only what changed after an earlier answer's `stop`).

    {"start": ms, "stop": ms,       the range; it ends now unless `stop` was asked for
     "from": ms,                    without `since` the start; with it: drop what you have with t > from, append these
     "every": s | null,             seconds of a window; null: every point
     "every_text": "2 min" | null,
     "again": s | null,             when something new may be there; null: never, the range is over
     "left_out": 0,                 curves beyond the 60 that are drawn: choose fewer fields or devices
     "curves": [{"device": "pi-7", "field": "Temperature",
                 "sensor": "attic",         label, unique for this field of this device; "" where nothing names it
                 "t": [ms, …],              ends of windows; a null in v, low, high and n breaks the line
                 "v": [number, …],
                 "low": […], "high": […],   minimum and maximum of each window, and
                 "n": […],                  how many points it has; these three with means of windows only
                 "min": [ms, number], "max": [ms, number], "mean": number}]}    of all that is in this answer

Points that arrive late, with a time before `since`, are in the next answer without one: ask so now and then.
"""

from __future__ import annotations

from bisect import bisect_left
from collections.abc import Callable, Sequence
from dataclasses import replace
from itertools import pairwise
from typing import Any, cast

from flask import Response, request

from center.context import current_center
from center.errors import RefusedError
from center.pages import computed, presentation
from center.pages.blueprint import pages
from center.pages.forms import MAX_DEVICES, RANGES
from center.stores.registry import check_device_id
from center.stores.telemetry import DAY_NS, SECOND_NS, Curve, Function, SeriesQuery, Value, finite, is_number, labels
from center.tables import csv_answer
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
MAX_CURVES = 60
MAX_POINTS = 50_000  # of every point; more are drawn by windows
WIDTH = 1000
Found = Sequence[tuple[SeriesQuery, Sequence[Curve]]]


def window_s(span_s: float, width: int) -> int | None:
    """Seconds of the window that gives at most one point a pixel; None for a range short enough to show as it is."""
    if span_s <= RAW_BELOW_S:
        return None
    return _step(span_s, width)


def _step(span_s: float, width: int) -> int:
    return _STEPS[min(bisect_left(_STEPS, span_s / max(width, 100)), len(_STEPS) - 1)]


@pages.get("/series.json")
def compared_json() -> Any:
    """The curves of several devices."""
    return answer(request.args.getlist("device"))


@pages.get("/series.csv")
def compared_csv() -> Any:
    return table(request.args.getlist("device"))


def answer(device_ids: Sequence[str], *, fields: Sequence[str] = (), width: int = WIDTH) -> dict[str, Any]:
    """What the URL asks to draw. RefusedError says what is wrong with it. `fields` instead of the URL's; `width` where
    it names none.
    """
    queries = _asked(device_ids, fields, width)
    since = request.args.get("since", type=int)
    first = queries[0].start_ns
    if since is not None and first < since * MS_NS < queries[0].stop_ns:
        every = queries[0].every_ns
        first = since * MS_NS // every * every if every else since * MS_NS
    told = _read([replace(query, start_ns=max(first, query.start_ns)) for query in queries])
    return drawn(told, start_ns=queries[0].start_ns)


def table(device_ids: Sequence[str]) -> Response:
    """The same as CSV; what is computed only where it is named."""
    found, queries = {}, _asked(device_ids)
    for query in queries:
        asked = replace(query, fields=computed.sources(query.fields), band=False)
        curves = computed.with_computed(current_center().telemetry.series(asked), query.fields)
        found[query.device_id] = _chosen(curves)
    return csv_answer(found, unit_by(queries[0]))


def unit_by(query: SeriesQuery) -> Callable[[str], str]:
    """The unit of a field in the answer to this query: a count has none."""
    return (lambda _: "") if query.fn == "count" and query.every_ns else presentation.unit


def _asked(device_ids: Sequence[str], fields: Sequence[str] = (), width: int = WIDTH) -> list[SeriesQuery]:
    """The query of the URL for each device."""
    now, args = now_ns(), request.args
    ids = list(dict.fromkeys(device_ids))
    if not 0 < len(ids) <= MAX_DEVICES:
        raise RefusedError(f"name 1 to {MAX_DEVICES} devices")
    fields = tuple(fields or args.getlist("field"))
    start_ms, stop_ms, seconds = args.get("start", type=int), args.get("stop", type=int), args.get("every", type=int)
    if start_ms is not None and stop_ms is not None:
        start, stop = start_ms * MS_NS, stop_ms * MS_NS
    else:
        stop = now // MS_NS * MS_NS  # what the answer says, so that a second question is about the same windows
        chosen = args.get("range", "24h")
        _, length = RANGES.get(chosen, RANGES["24h"])
        start = stop - length * SECOND_NS
        if chosen == "all":
            start = _first(ids, computed.sources(fields), stop)
    if seconds is None:
        seconds = window_s((stop - start) / SECOND_NS, min(max(args.get("width", width, type=int), 100), 2400))
    fn = cast("Function", args.get("fn", "mean"))  # checked by SeriesQuery
    every_ns = seconds * SECOND_NS if seconds else None
    banded = fn == "mean" and every_ns is not None
    try:
        return [SeriesQuery(check_device_id(i), start, stop, fields, every_ns, fn, banded) for i in ids]
    except ValueError as error:
        raise RefusedError(str(error)) from error


def _first(device_ids: Sequence[str], fields: tuple[str, ...], stop_ns: int) -> int:
    """The start of the week of the first point of these devices; a day before the stop if there is none."""
    week = 7 * DAY_NS
    counts = (SeriesQuery(device_id, 0, stop_ns, fields, week, "count") for device_id in device_ids)
    firsts = [curve.times_ns[0] for query in counts for curve in current_center().telemetry.series(query)]
    return (min(firsts) - 1) // week * week if firsts else stop_ns - DAY_NS


def _read(queries: Sequence[SeriesQuery]) -> Found:
    """The curves of the queries. Minimum and maximum of a window are those that a device sent, where it did."""
    telemetry = current_center().telemetry
    edges = ("_min", "_max") if queries[0].band else (f"_{queries[0].fn}",)
    found = []
    for query in queries:
        fields = computed.sources(query.fields)
        more = tuple(field + edge for field in fields for edge in edges) if edges[0] != "_mean" else ()
        curves = telemetry.series(replace(query, fields=(*fields, *more)))
        measured = _with_sent_edges(replace(query, fields=fields), curves)
        found.append((query, _chosen(computed.with_computed(measured, query.fields))))
    return bounded(found)


def bounded(found: Found) -> Found:
    """The same, by windows where these are more points than a chart can show."""
    queries = [query for query, _ in found]
    if queries[0].every_ns is not None or sum(len(c.times_ns) for _, curves in found for c in curves) <= MAX_POINTS:
        return found
    every_ns = _step((queries[0].stop_ns - queries[0].start_ns) / SECOND_NS, WIDTH) * SECOND_NS
    return _read([replace(query, every_ns=every_ns, fn="mean", band=True) for query in queries])


def _chosen(curves: Sequence[Curve]) -> Sequence[Curve]:
    """Those of the sensors that the URL names; it may name none."""
    wanted = request.args.getlist("sensor")
    if not wanted:
        return curves
    named = labels(curves)
    return [curve for curve in curves if named[curve.field, curve.sensor] in wanted]


def _with_sent_edges(query: SeriesQuery, curves: Sequence[Curve]) -> list[Curve]:
    """Where a device sends Temperature_min with its Temperature, that is the minimum."""
    sent = {(curve.field, curve.sensor): curve for curve in curves}

    def edge(curve: Curve, suffix: str, own: Sequence[Value], part: str) -> tuple[Value, ...]:
        other = sent.get((curve.field + suffix, curve.sensor))
        better = dict(zip(other.times_ns, getattr(other, part), strict=True)) if other else {}
        return tuple(better.get(t, value) for t, value in zip(curve.times_ns, own, strict=True))

    found = [c for c in curves if presentation.charted(c.field) or c.field in query.fields]
    if query.band:
        return [replace(c, low=edge(c, "_min", c.low, "low"), high=edge(c, "_max", c.high, "high")) for c in found]
    if query.fn in {"min", "max"}:
        return [replace(c, values=edge(c, f"_{query.fn}", c.values, "values")) for c in found]
    return found


def drawn(found: Found, *, start_ns: int | None = None) -> dict[str, Any]:
    """These curves for the script that draws them; `start_ns`: of the range, where only its end was asked."""
    query = found[0][0]
    every_s = query.every_ns // SECOND_NS if query.every_ns else None
    named = {query.device_id: labels(curves) for query, curves in found}
    curves = [(query.device_id, curve) for query, curves in found for curve in curves]
    first = query.start_ns if start_ns is None else start_ns
    part = query.start_ns != first
    return {
        "start": first // MS_NS,
        "stop": query.stop_ns // MS_NS,
        "from": query.start_ns // MS_NS - (1 if part and not every_s else 0),
        "every": every_s,
        "every_text": presentation.span(every_s) if every_s else None,
        "again": None if "stop" in request.args else min(max(every_s or 0, 2), 60),
        "left_out": max(len(curves) - MAX_CURVES, 0),
        "curves": [
            {"device": device_id, "field": c.field, "sensor": named[device_id][c.field, c.sensor], **_drawn(c, every_s)}
            for device_id, c in curves[:MAX_CURVES]
        ],
    }


def _drawn(curve: Curve, every_s: int | None) -> dict[str, Any]:
    digits = presentation.look(curve.field).decimals + 1
    times = [t // MS_NS for t in curve.times_ns]
    breaks = gaps(times, (every_s or 0) * 1000)

    def shown(values: Sequence[Value]) -> list[Value | None]:
        return [rounded(v, digits) if isinstance(v, float) else v for v in finite(with_gaps(values, breaks))]

    band = {name: shown(values) for name, values in (("low", curve.low), ("high", curve.high)) if values}
    if curve.counts:
        band["n"] = with_gaps(curve.counts, breaks)
    return {
        "t": with_gaps(times, breaks, lambda k: times[k - 1] + 1),
        "v": shown(curve.values),
        **band,
        **_extremes(curve, digits),
    }


def _extremes(curve: Curve, digits: int) -> dict[str, Any]:
    """Minimum and maximum with their times, and the mean of all points. Nothing for texts."""
    if not all(is_number(value) for value in curve.values[:1]):
        return {}
    weights = curve.counts or [1] * len(curve.values)

    def at(values: Sequence[Value], choose: Any) -> list[Any]:
        k = choose(range(len(values)), key=values.__getitem__)
        return [curve.times_ns[k] // MS_NS, finite([values[k]])[0]]

    total = sum(float(v) * n for v, n in zip(curve.values, weights, strict=True))
    mean = finite([total / sum(weights)])[0]
    return {
        "min": at(curve.low or curve.values, min),
        "max": at(curve.high or curve.values, max),
        "mean": rounded(mean, digits) if is_number(mean) else None,
    }


def rounded(value: float, digits: int) -> float:
    """To so many digits behind the point, but never to less than four of its own: what is small is not nothing."""
    return float(f"{value:.4g}") if abs(value) < 10 ** (3 - digits) else round(value, digits)


def gaps(times: Sequence[int], every: int) -> set[int]:
    """Before which of these times more than three usual steps are missing. Times and `every` in one unit."""
    steps = sorted(b - a for a, b in pairwise(times))
    gap = max(steps[len(steps) // 2] * 3, every * 3) if steps else 0
    return {k for k, (a, b) in enumerate(pairwise(times), 1) if b - a > gap}


def with_gaps(values: Sequence[Any], breaks: set[int], gap: Callable[[int], Any] = lambda _: None) -> list[Any]:
    """The values with something before each break: `gap` of its place."""
    found: list[Any] = []
    for k, value in enumerate(values):
        found += [gap(k), value] if k in breaks else [value]
    return found
