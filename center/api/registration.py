"""The registration and telemetry API. JSON in and out; errors are {"code", "message"}."""

from __future__ import annotations

import re
import secrets
from typing import TYPE_CHECKING, Any

from flask import Blueprint, Response, abort, jsonify, request

from agent.util.secret import Secret
from center.context import current_center
from center.errors import RefusedError
from center.security import is_administrator, is_open, needs_enrollment_key
from center.stores.registry import Device, Registered, check_device_id
from center.stores.telemetry import DAY_NS, SeriesQuery, finite
from center.tables import csv_answer
from center.times import iso, now_ns, parse_every, parse_time

if TYPE_CHECKING:
    from collections.abc import Mapping, Sequence

blueprint = Blueprint("api", __name__, url_prefix="/api")
MILLISECOND_NS = 1_000_000


def _secret() -> Secret | None:
    text = request.headers.get("X-Device-Secret", "")
    return Secret(text) if text else None


def _enrollment_key() -> Secret | None:
    text = request.headers.get("X-Enrollment-Key", "")
    return Secret(text) if text else None


def _checked(device_id: str) -> str:
    try:
        return check_device_id(device_id)
    except ValueError as error:
        abort(400, str(error))


def _described(device: Device) -> dict[str, Any]:
    return {
        "deviceId": device.id,
        "key": device.key,
        "createdAt": iso(device.created_ns),
        "updatedAt": iso(device.updated_ns),
    }


def configuration() -> dict[str, Any]:
    """What a device is told besides its token: where to write, and the defaults of [devices]."""
    center = current_center()
    settings = center.settings
    if settings.embedded:
        url = (settings.server.public_url or request.url_root).rstrip("/")
        org = settings.store.org
    else:
        url = (settings.influxdb.device_url or settings.influxdb.url).rstrip("/")
        org = settings.influxdb.org
    devices = settings.devices
    told: dict[str, Any] = {
        "influx_url": url,
        "influx_org": org,
        "influx_bucket": center.telemetry.bucket,
        "measurement_interval": devices.measurement_interval,
        "configuration_refresh": devices.configuration_refresh,
        "serverTime": iso(now_ns() // MILLISECOND_NS * MILLISECOND_NS),
    }
    if devices.default_lat is not None:
        told |= {"default_lat": devices.default_lat, "default_lon": devices.default_lon}
    return told


def _register(device_id: str) -> Registered:
    return current_center().registry.register(
        _checked(device_id),
        _secret(),
        administrator=not is_open() and is_administrator(),
        enrollment_key=_enrollment_key(),
        needs_key=needs_enrollment_key(),
    )


def _registered(device_id: str) -> tuple[Response, int]:
    registered = _register(device_id)
    body = _described(registered.device) | {"token": registered.token.reveal()} | configuration()
    return jsonify(body), 201 if registered.new else 200


@blueprint.post("/devices/<device_id>")
def register(device_id: str) -> tuple[Response, int]:
    return _registered(device_id)


@blueprint.post("/devices")
def register_any() -> tuple[Response, int]:
    given = _json() if request.get_data() else {}
    if not isinstance(given, dict) or not isinstance(given.get("deviceId", ""), str):
        abort(400, 'the body should be JSON: {"deviceId": "…"}, or empty for an id made here')
    return _registered(given.get("deviceId") or f"device-{secrets.token_hex(4)}")


@blueprint.get("/devices")
def devices() -> Response:
    _administrators_only()
    page = current_center().registry.devices(
        offset=_number("offset", 0), limit=_number("limit", None), search=request.args.get("search", "")
    )
    response = jsonify([_described(device) for device in page.devices])
    response.headers["X-Total-Count"] = str(page.total)
    return response


@blueprint.get("/devices/<device_id>")
def device(device_id: str) -> Response:
    _device_or_administrator(device_id)
    found = current_center().registry.device(device_id)
    if found is None:
        abort(404, f"{device_id} is not registered")
    return jsonify(_described(found))


@blueprint.delete("/devices/<device_id>")
def remove(device_id: str) -> Response:
    _device_or_administrator(device_id)
    if not current_center().registry.remove(device_id):
        abort(404, f"{device_id} is not registered")
    return Response(status=204)


@blueprint.get("/env/<device_id>")
def environment(device_id: str) -> tuple[Response, int]:
    """iot-center-v2's way to register and to read the configuration. The token is there when newly issued only."""
    registry = current_center().registry
    found, token = registry.device(_checked(device_id)), ""
    newly = found is None
    if found is None:
        if request.args.get("register") == "false" or request.method == "HEAD":
            refusal = jsonify(
                id=device_id, registered=False, code="forbidden", message=f"{device_id} is not registered"
            )
            return refusal, 403
        registered = _register(device_id)
        found, token = registered.device, registered.token.reveal()
    else:
        _device_or_administrator(device_id)
    return jsonify(
        configuration()
        | {
            "id": found.id,
            "influx_token": token,
            "newlyRegistered": newly,
            "createdAt": iso(found.created_ns),
            "updatedAt": iso(found.updated_ns),
        }
    ), 200


@blueprint.get("/devices/<device_id>/measurements")
def measurements(device_id: str) -> Response:
    """Curves: `field` (repeated, or none for all), `start` and `stop` (default: the last 24 h), `every`, `fn`."""
    _device_or_administrator(device_id)
    query = query_of(device_id, request.args.to_dict(flat=False))
    curves = current_center().telemetry.series(query)
    wants_csv = request.accept_mimetypes.best_match(["application/json", "text/csv"]) == "text/csv"
    if request.args.get("format") == "csv" or wants_csv:
        return csv_answer(device_id, curves, units=False)
    return jsonify(
        deviceId=device_id,
        start=iso(query.start_ns),
        stop=iso(query.stop_ns),
        fn=query.fn if query.every_ns else None,
        series=[
            {
                "field": curve.field,
                "sensor": curve.sensor,
                "times": [iso(t) for t in curve.times_ns],
                "values": finite(curve.values),
            }
            for curve in curves
        ],
    )


@blueprint.get("/devices/<device_id>/measurements/count")
def count(device_id: str) -> Response:
    _device_or_administrator(device_id)
    return jsonify(count=current_center().telemetry.count(_checked(device_id)))


@blueprint.post("/devices/<device_id>/measurements")
def raw_flux(device_id: str) -> Response:
    _administrators_only()
    _checked(device_id)
    given = _json()
    if not isinstance(given, dict) or not isinstance(given.get("query"), str):
        abort(400, 'the body should be JSON: {"query": "from(bucket: …) …"}')
    return Response(current_center().telemetry.raw_flux(given["query"]), mimetype="text/csv")


@blueprint.get("/buckets")
def buckets() -> Response:
    _administrators_only()
    return jsonify(
        [
            {"id": bucket.id, "name": bucket.name, "retentionSeconds": bucket.retention_s, "role": bucket.role}
            for bucket in current_center().telemetry.buckets()
        ]
    )


def query_of(device_id: str, given: Mapping[str, Sequence[str]]) -> SeriesQuery:
    """The query that parameters of a URL or a form ask for. RefusedError says what is wrong with them."""

    def one(name: str, default: str) -> str:
        values = given.get(name)
        return values[0] if values and values[0] else default

    now = now_ns()
    try:
        stop = parse_time(one("stop", "now"), now)
        text = one("start", "")
        start = parse_time(text, now) if text else stop - DAY_NS
        every = parse_every(one("every", "")) if one("every", "") else None
        fields = tuple(name for value in given.get("field", ()) for name in value.split(",") if name)
        return SeriesQuery(_checked(device_id), start, stop, fields, every, one("fn", "mean"))  # type: ignore[arg-type] # checked there
    except RefusedError:
        raise
    except ValueError as error:
        raise RefusedError(str(error)) from error


def _json() -> Any:
    """The body, whatever content type it claims; None for one that is no JSON, or nested too deep to be read."""
    try:
        return request.get_json(force=True, silent=True)
    except RecursionError:
        return None


def _number(name: str, default: int | None) -> Any:
    text = request.args.get(name, "")
    if not text:
        return default
    if not re.fullmatch(r"[0-9]{1,9}", text):
        abort(400, f"{name} is a whole number of at most nine digits")
    return int(text)


def _administrators_only() -> None:
    if not is_administrator():
        abort(401, "for administrators: log in, or send HTTP Basic credentials of user admin")


def _device_or_administrator(device_id: str) -> None:
    """The device with its secret, or an administrator; whoever is not either learns nothing."""
    if is_administrator():
        return
    secret = _secret()
    if secret is None:
        abort(401, "for the device, with its secret in the header X-Device-Secret, and for administrators")
    if not current_center().registry.owns(_checked(device_id), secret):
        abort(403, "this is not the device secret that the device registered with")
