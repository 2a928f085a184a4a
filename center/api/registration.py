"""The registration API: the way of a registration, and who may ask what. JSON in and out, errors included."""

from __future__ import annotations

import json
import re
import secrets
from typing import Any

from flask import Blueprint, Response, abort, jsonify, request

from agent.util.secret import Secret
from center.context import current_center
from center.profiles import checked, forget, keep_profile, keep_told, profile_of
from center.security import guessing, is_administrator, is_open
from center.stores.registry import Device, Registered, check_device_id
from center.times import iso, now_ns

blueprint = Blueprint("registration", __name__, url_prefix="/api")
MILLISECOND_NS = 1_000_000


@blueprint.post("/devices/<device_id>")
def register(device_id: str) -> tuple[Response, int]:
    """Register a device, or give its owner a new token: 201 and 200."""
    registered = _register(device_id)
    body = _described(registered.device) | {"token": registered.token.reveal()} | configuration(device_id)
    return jsonify(body), 201 if registered.new else 200


def _register(device_id: str) -> Registered:
    """A first registration is free on open loopback, and elsewhere takes an enrollment key; a further one the secret of
    the first. An administrator who logged in needs neither. Who has none of these does not learn who is registered.
    """
    check_device_id(device_id)
    administrator = not is_open() and is_administrator()
    if is_open() or administrator:
        return _registered(device_id, administrator)
    with guessing() as was_right:
        registered = _registered(device_id, administrator)
        was_right()
    return registered


def _registered(device_id: str, administrator: bool) -> Registered:
    return current_center().registry.register(
        device_id,
        sent_secret("X-Device-Secret"),
        administrator=administrator,
        enrollment_key=sent_secret("X-Enrollment-Key"),
        needs_key=not is_open(),
    )


def configuration(device_id: str) -> dict[str, Any]:
    """What a device is told besides its token: where to write, its own settings, and else the defaults of [devices]."""
    center = current_center()
    settings = center.settings
    if settings.series_on == "influxdb":
        url = settings.influxdb.device_url or settings.influxdb.url
        org = settings.influxdb.org
    else:  # the center takes what they write, or forwards it
        url = settings.server.public_url or request.url_root
        org = settings.store.org if settings.embedded else settings.victoria.org
    devices = settings.devices
    told: dict[str, Any] = {
        "influx_url": url.rstrip("/"),
        "influx_org": org,
        "influx_bucket": center.telemetry.bucket,
        "measurement_interval": devices.measurement_interval,
        "configuration_refresh": devices.configuration_refresh,
        "serverTime": iso(now_ns() // MILLISECOND_NS * MILLISECOND_NS),
    }
    if devices.default_lat is not None:
        told |= {"default_lat": devices.default_lat, "default_lon": devices.default_lon}
    unset = dict.fromkeys(("report", "deadband", "offset"))  # null, or an agent would keep what it was told before
    return {**told, **unset, **profile_of(center.registry, device_id).settings.answer()}


def _described(device: Device) -> dict[str, Any]:
    return {
        "deviceId": device.id,
        "key": device.key,
        "createdAt": iso(device.created_ns),
        "updatedAt": iso(device.updated_ns),
    }


@blueprint.post("/devices")
def register_any() -> tuple[Response, int]:
    given = sent_json() if request.get_data() else {}
    if not isinstance(given, dict) or not isinstance(given.get("deviceId", ""), str):
        abort(400, 'the body should be JSON: {"deviceId": "…"}, or empty for an id made here')
    return register(given.get("deviceId") or f"device-{secrets.token_hex(4)}")


@blueprint.get("/devices")
def devices() -> Response:
    administrators_only()
    page = current_center().registry.devices(
        offset=_number("offset", 0), limit=_number("limit", None), search=request.args.get("search", "")
    )
    response = jsonify([_described(device) for device in page.devices])
    response.headers["X-Total-Count"] = str(page.total)
    return response


def _number(name: str, default: int | None) -> Any:
    text = request.args.get(name, "")
    if not text:
        return default
    if not re.fullmatch(r"[0-9]{1,9}", text):
        abort(400, f"{name} is a whole number of at most nine digits")
    return int(text)


@blueprint.get("/devices/<device_id>")
def device(device_id: str) -> Response:
    device_or_administrator(device_id)
    found = current_center().registry.device(device_id)
    if found is None:
        abort(404, f"{device_id} is not registered")
    return jsonify(_described(found))


@blueprint.delete("/devices/<device_id>")
def remove(device_id: str) -> Response:
    device_or_administrator(device_id)
    registry = current_center().registry
    removed = registry.remove(device_id)
    forget(registry, device_id)  # also what is left where that failed before
    if not removed:
        abort(404, f"{device_id} is not registered")
    return Response(status=204)


@blueprint.get("/devices/<device_id>/settings")
@blueprint.put("/devices/<device_id>/settings")
def settings(device_id: str) -> Response:
    """Its profile: name, group, notes and settings. PUT takes a whole one."""
    administrators_only()
    registry = current_center().registry
    if registry.device(check_device_id(device_id)) is None:
        abort(404, f"{device_id} is not registered")
    if request.method == "PUT":
        keep_profile(registry, device_id, checked(sent_json()))
    return jsonify(profile_of(registry, device_id))


@blueprint.post("/devices/<device_id>/configuration")
def configured(device_id: str) -> tuple[Response, int]:
    """A device tells what it measures by, and is told what it should."""
    device_or_administrator(device_id)
    registry = current_center().registry
    if registry.device(check_device_id(device_id)) is None:
        return _not_registered(device_id)
    if isinstance(given := sent_json(), dict):
        keep_told(registry, device_id, given)
    unset = dict.fromkeys(("default_lat", "default_lon"))
    return jsonify({**unset, **configuration(device_id), "deviceId": device_id}), 200


@blueprint.get("/env/<device_id>")
def environment(device_id: str) -> tuple[Response, int]:
    """iot-center-v2's way to register and to read the configuration. The token is there when newly issued only."""
    registry, token = current_center().registry, ""
    found = registry.device(check_device_id(device_id))
    if found is None or not is_this_device_or_administrator(device_id):
        if request.args.get("register") == "false" or request.method == "HEAD":
            device_or_administrator(device_id)
            return _not_registered(device_id)
        registered = _register(device_id)
        found, token = registered.device, registered.token.reveal()
    told = configuration(device_id) | {
        "id": found.id,
        "influx_token": token,
        "newlyRegistered": bool(token),
        "createdAt": iso(found.created_ns),
        "updatedAt": iso(found.updated_ns),
    }
    return jsonify(told), 200


def _not_registered(device_id: str) -> tuple[Response, int]:
    return jsonify(id=device_id, registered=False, code="forbidden", message=f"{device_id} is not registered"), 403


def sent_secret(header: str) -> Secret | None:
    text = request.headers.get(header, "")
    return Secret(text) if text else None


def sent_json() -> Any:
    """The body, whatever content type it claims; None for one that is no JSON, nested too deep to be read, or with half
    of a surrogate pair in it, which is no text and could neither be kept nor repeated.
    """
    try:
        given = request.get_json(force=True, silent=True)
        json.dumps(given, ensure_ascii=False).encode()
    except (RecursionError, UnicodeEncodeError):
        return None
    return given


def administrators_only() -> None:
    if not is_administrator():
        abort(401, "for administrators: log in, or send HTTP Basic credentials of user admin")


def device_or_administrator(device_id: str) -> None:
    """The device with its secret, or an administrator; whoever is not either learns nothing."""
    if is_this_device_or_administrator(device_id):
        return
    if sent_secret("X-Device-Secret") is None:
        abort(401, "for the device, with its secret in the header X-Device-Secret, and for administrators")
    abort(403, "this is not the device secret that the device registered with")


def is_this_device_or_administrator(device_id: str) -> bool:
    if is_administrator():
        return True
    secret = sent_secret("X-Device-Secret")
    if secret is None:
        return False
    with guessing() as was_right:
        if right := current_center().registry.owns(check_device_id(device_id), secret):
            was_right()
    return right
