"""POST /api/v2/write, /health and /ping of the embedded store, answering as InfluxDB 2.9.1 was recorded to."""

from __future__ import annotations

import hashlib
import threading
import zlib
from typing import cast

from flask import Blueprint, Response, abort, jsonify, request

from agent.points.line_protocol import NANOSECONDS
from agent.util.secret import Secret
from center.answers import answer
from center.context import current_center
from center.embedded.points import StoredBucket
from center.embedded.registry import EmbeddedRegistry
from center.embedded.telemetry import EmbeddedTelemetry
from center.errors import StoreError
from center.faults import log_once
from center.line_protocol import foreign, parse
from center.security import keeps_to_its_own

VERSION = "v2.9.1"
BUILD = "iot-center-embedded"
LARGE = 2_000_000  # bytes; a point in memory takes up to 30 times its line, so one body larger than this at a time
WAIT_S = 10.0
blueprint = Blueprint("write", __name__)
one_large = threading.Lock()


def gunzip(body: bytes, limit: int) -> bytes:
    """All members of a gzip body, one after another; at most `limit` bytes. What it is not, InfluxDB's words say."""
    out: list[bytes] = []
    size = 0
    while body:
        unpacker = zlib.decompressobj(wbits=31)
        try:
            part = unpacker.decompress(body, limit - size + 1)
        except zlib.error:
            if not out and not body.startswith(b"\x1f\x8b"):
                abort(500, "An internal error has occurred - check server logs")
            abort(500, "unable to read data: gzip: invalid checksum")
        size += len(part)
        if size > limit:
            abort(413, f"the body unpacks to more than {limit} bytes")
        if not unpacker.eof:
            abort(500, "unable to read data: unexpected EOF")
        out.append(part)
        body = unpacker.unused_data
    return b"".join(out)


def org_id(org: str) -> str:
    """The id of the embedded store's only organisation."""
    return hashlib.sha256(org.encode()).hexdigest()[:16]


def _stores() -> tuple[EmbeddedRegistry, EmbeddedTelemetry]:
    center = current_center()
    return cast("EmbeddedRegistry", center.registry), cast("EmbeddedTelemetry", center.telemetry)


def _asked() -> tuple[str, StoredBucket]:
    """Whose token writes, and to which bucket; whoever may not is refused."""
    registry, telemetry = _stores()
    scheme, _, text = request.headers.get("Authorization", "").partition(" ")
    token = Secret(text.strip()) if scheme in {"Token", "Bearer"} else Secret("")
    holder = registry.holder_of(token) if token else None
    if holder is None:
        abort(401, "unauthorized access")
    device, allowed = holder
    own = current_center().settings.store.org
    org = request.args.get("orgID") or request.args.get("org")
    if not org:
        abort(400, "Please provide either orgID or org")
    if org not in {own, org_id(own)}:
        abort(404, f'organization name "{org}" not found')
    name = request.args.get("bucket", "")
    if not name:
        abort(404, "bucket not found")
    bucket = telemetry.find_bucket(name)
    if bucket is None:
        abort(404, f'bucket "{name}" not found')
    if bucket.name != allowed:
        abort(403, "insufficient permissions for write")
    return device, bucket


@blueprint.route("/api/v2/write", methods=["GET", "POST", "PUT", "PATCH", "DELETE"])
def write() -> Response:
    if request.method != "POST":
        refusal = answer(405, "allow: OPTIONS, POST")
        refusal.headers["Allow"] = "OPTIONS, POST"
        return refusal
    device, bucket = _asked()
    precision = NANOSECONDS.get(request.args.get("precision", "ns"))
    if precision is None:
        abort(400, "invalid precision; valid precision units are ns, us, ms, and s")
    body = request.get_data(cache=False)
    if request.headers.get("Content-Encoding", "").lower() == "gzip":
        body = gunzip(body, current_center().settings.server.max_body)
    if len(body) <= LARGE:
        return _store(device, bucket, body, precision)
    if not one_large.acquire(timeout=WAIT_S):
        abort(503, "another large body is being stored: try again, or send smaller ones")
    try:
        return _store(device, bucket, body, precision)
    finally:
        one_large.release()


def _store(device: str, bucket: StoredBucket, body: bytes, precision: int) -> Response:
    points, errors = parse(body, precision)
    if errors:
        return answer(400, "\n".join(errors))
    if keeps_to_its_own(device) and (why := foreign(points, device)):
        return answer(403, why)
    if points:
        _, telemetry = _stores()
        try:
            message = telemetry.store(bucket, points)
        except StoreError as error:
            log_once(error)
            return answer(503, str(error))
        if message:
            return answer(422, message)
    return Response(status=204)


@blueprint.get("/health")
def health() -> tuple[Response, int]:
    failing = current_center().telemetry.failing
    told = jsonify(
        name="iot-center",
        message="; ".join(f"{name} fails: {why}" for name, why in failing.items()) or "ready for writes",
        status="fail" if failing else "pass",
        checks=[{"name": name, "status": "fail", "message": why} for name, why in failing.items()],
        version=VERSION,
        commit="embedded",
    )
    return told, 503 if failing else 200


@blueprint.get("/ping")
def ping() -> Response:
    return Response(status=204)


@blueprint.after_request
def name_yourself(response: Response) -> Response:
    response.headers["X-Influxdb-Build"] = BUILD
    response.headers["X-Influxdb-Version"] = VERSION
    return response
