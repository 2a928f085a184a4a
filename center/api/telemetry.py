"""The telemetry API: curves as JSON or CSV, counts, raw Flux, buckets."""

from __future__ import annotations

from typing import cast

from flask import Blueprint, Response, abort, jsonify, request

from center.api.registration import administrators_only, device_or_administrator, sent_json
from center.context import current_center
from center.errors import RefusedError
from center.stores.registry import check_device_id
from center.stores.telemetry import DAY_NS, LOOK_BACK_NS, Function, SeriesQuery, finite, labels
from center.tables import csv_answer
from center.times import iso, now_ns, parse_every, parse_time
from center.transfer import lighter

NAMED = 20  # of the devices that are there, where one is not

blueprint = Blueprint("telemetry", __name__, url_prefix="/api")
blueprint.after_request(lighter)


@blueprint.get("/devices/<device_id>/measurements")
def measurements(device_id: str) -> Response:
    """Curves: `field` (repeated, or none for all), `start` and `stop` (default: the last 24 h), `every`, `fn`."""
    device_or_administrator(device_id)
    query = _asked(device_id)
    curves = current_center().telemetry.series(query)
    if not curves or {curve.field for curve in curves} < set(query.fields):
        _must_be_there(query)
    wants_csv = request.accept_mimetypes.best_match(["application/json", "text/csv"]) == "text/csv"
    if request.args.get("format") == "csv" or wants_csv:
        return csv_answer({device_id: curves})
    named = labels(curves)
    return jsonify(
        deviceId=device_id,
        start=iso(query.start_ns),
        stop=iso(query.stop_ns),
        fn=query.fn if query.every_ns else None,
        series=[
            {
                "field": curve.field,
                "sensor": named[curve.field, curve.sensor] or None,
                "sensorName": curve.sensor.name or None,
                "sensorKind": curve.sensor.kind or None,
                "times": [iso(t) for t in curve.times_ns],
                "values": finite(curve.values),
            }
            for curve in curves
        ],
    )


def _must_be_there(query: SeriesQuery) -> None:
    """404 with those that are, for a device that nobody knows and for a field that it never measured. Whoever is no
    administrator asks for a device that is registered: device_or_administrator().
    """
    center, device_id = current_center(), query.device_id
    since = min(query.start_ns, now_ns() - LOOK_BACK_NS)
    known = {last.field for last in center.telemetry.last_values([device_id], since_ns=since).get(device_id, ())}
    if known and (unknown := [name for name in query.fields if name not in known]):
        abort(404, f"{device_id} has no field {', '.join(unknown)}: it has {', '.join(sorted(known))}")
    if known or center.registry.device(device_id) is not None:
        return
    page = center.registry.devices(limit=NAMED)
    names = ", ".join(device.id for device in page.devices) or "none"
    more = f" and {page.total - NAMED} more" if page.total > NAMED else ""
    abort(404, f"there is no device {device_id}: registered are {names}{more}")


def _asked(device_id: str) -> SeriesQuery:
    """The query that the URL asks for. RefusedError says what is wrong with it."""
    given = request.args
    now = now_ns()
    try:
        stop = parse_time(given.get("stop") or "now", now)
        start = parse_time(given["start"], now) if given.get("start") else stop - DAY_NS
        every = parse_every(given["every"]) if given.get("every") else None
        fields = tuple(name for value in given.getlist("field") for name in value.split(",") if name)
        fn = cast("Function", given.get("fn") or "mean")  # checked by SeriesQuery
        return SeriesQuery(check_device_id(device_id), start, stop, fields, every, fn)
    except ValueError as error:
        raise RefusedError(str(error)) from error


@blueprint.get("/devices/<device_id>/measurements/count")
def count(device_id: str) -> Response:
    device_or_administrator(device_id)
    return jsonify(count=current_center().telemetry.count(check_device_id(device_id)))


@blueprint.post("/devices/<device_id>/measurements")
def raw_flux(device_id: str) -> Response:
    administrators_only()
    check_device_id(device_id)
    given = sent_json()
    if not isinstance(given, dict) or not isinstance(given.get("query"), str):
        abort(400, 'the body should be JSON: {"query": "from(bucket: …) …"}')
    return Response(current_center().telemetry.raw_flux(given["query"]), mimetype="text/csv")


@blueprint.get("/buckets")
def buckets() -> Response:
    administrators_only()
    return jsonify(
        [
            {"id": bucket.id, "name": bucket.name, "retentionSeconds": bucket.retention_s, "role": bucket.role}
            for bucket in current_center().telemetry.buckets()
        ]
    )
