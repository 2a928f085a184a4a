"""POST /api/v2/write, /health and /ping of the embedded store, answering as InfluxDB 2.9.1 was recorded to."""

from __future__ import annotations

import hashlib
from typing import cast

from flask import Blueprint, Response, abort, jsonify, request

from center.answers import answer
from center.context import current_center
from center.embedded.points import StoredBucket
from center.embedded.registry import EmbeddedRegistry
from center.embedded.telemetry import EmbeddedTelemetry
from center.errors import StoreError
from center.faults import log_once
from center.line_protocol import BadLinesError, TooManyLinesError, foreign, parse
from center.security import keeps_to_its_own
from center.write_request import METHODS, Turn, not_post, taken, token_sent, unit_ns

VERSION = "v2.9.1"
BUILD = "iot-center-embedded"
blueprint = Blueprint("write", __name__)


def org_id(org: str) -> str:
    """The id of the embedded store's only organisation."""
    return hashlib.sha256(org.encode()).hexdigest()[:16]


def _stores() -> tuple[EmbeddedRegistry, EmbeddedTelemetry]:
    center = current_center()
    return cast("EmbeddedRegistry", center.registry), cast("EmbeddedTelemetry", center.telemetry)


def _asked() -> tuple[str, StoredBucket]:
    """Whose token writes, and to which bucket; whoever may not is refused."""
    registry, telemetry = _stores()
    token = token_sent()
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


@blueprint.route("/api/v2/write", methods=METHODS)
def write() -> Response:
    if refusal := not_post():
        return refusal
    device, bucket = _asked()
    precision = unit_ns()
    with Turn() as turn:
        body = taken(turn)
        try:
            return _store(device, bucket, body, precision)
        except BadLinesError as error:
            return answer(400, str(error))
        except TooManyLinesError as error:
            return answer(413, str(error))
        except StoreError as error:
            log_once(error)
            return answer(503, str(error))


def _store(device: str, bucket: StoredBucket, body: bytes, precision: int) -> Response:
    """Nothing is stored of a body with a bad line; so one that does not fit into memory at once is parsed twice."""
    own, first, whole = keeps_to_its_own(device), None, True
    for points in parse(body, precision):
        if own and (why := foreign(points, device)):
            return answer(403, why)
        whole = first is None
        first = points if whole else []
    if first is None:
        return Response(status=204)
    message = _stores()[1].store(bucket, [first] if whole else parse(body, precision), device)
    return answer(422, message) if message else Response(status=204)


@blueprint.get("/health")
def health() -> tuple[Response, int]:
    failing = current_center().failing
    told = jsonify(
        name="iot-center",
        message="; ".join(failing.values()) or "ready for writes",
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
