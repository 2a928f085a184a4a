"""POST /api/v2/write passed on to VictoriaMetrics, for fleets that one center or a few carry.

VictoriaMetrics asks nobody for a token, takes what it cannot read or keep without a word and tells it in its log. So
here the token is checked and each line read, with InfluxDB's answers for what is wrong; the body goes on as it came.
"""

from __future__ import annotations

from typing import cast

from flask import Blueprint, Response, abort, request

from agent.points.line_protocol import NANOSECONDS
from agent.util.secret import Secret
from center.answers import answer
from center.context import current_center
from center.embedded.write_api import LARGE, WAIT_S, gunzip, one_large
from center.errors import StoreError
from center.faults import log_once
from center.line_protocol import parse
from center.stores.registry import Issuer
from center.victoria.telemetry import VictoriaTelemetry

blueprint = Blueprint("forwarding", __name__)


@blueprint.route("/api/v2/write", methods=["GET", "POST", "PUT", "PATCH", "DELETE"])
def write() -> Response:
    if request.method != "POST":
        refusal = answer(405, "allow: OPTIONS, POST")
        refusal.headers["Allow"] = "OPTIONS, POST"
        return refusal
    _device()
    telemetry = cast("VictoriaTelemetry", current_center().telemetry)
    name = request.args.get("bucket", "")
    if name != telemetry.bucket:
        abort(404, f'bucket "{name}" not found')
    precision = request.args.get("precision", "ns")
    if precision not in NANOSECONDS:
        abort(400, "invalid precision; valid precision units are ns, us, ms, and s")
    body, encoding = request.get_data(cache=False), request.headers.get("Content-Encoding", "").lower()
    plain = gunzip(body, current_center().settings.server.max_body) if encoding == "gzip" else body
    if len(plain) <= LARGE:
        return _checked(telemetry, plain, body, encoding, precision)
    if not one_large.acquire(timeout=WAIT_S):
        abort(503, "another large body is being read: try again, or send smaller ones")
    try:
        return _checked(telemetry, plain, body, encoding, precision)
    finally:
        one_large.release()


def _device() -> str:
    """The device whose token came with the request; whoever has none is refused."""
    scheme, _, text = request.headers.get("Authorization", "").partition(" ")
    token = Secret(text.strip()) if scheme in {"Token", "Bearer"} else Secret("")
    device = cast("Issuer", current_center().registry).holder(token) if token else None
    if device is None:
        abort(401, "unauthorized access")
    return device


def _checked(telemetry: VictoriaTelemetry, plain: bytes, body: bytes, encoding: str, precision: str) -> Response:
    """Passed on whole or not at all."""
    points, errors = parse(plain, NANOSECONDS[precision], telemetry.refuser())
    if errors:
        return answer(400, "\n".join(errors))
    if not points:
        return Response(status=204)
    try:
        taken = telemetry.victoria.write(body, encoding=encoding if encoding == "gzip" else "", precision=precision)
    except StoreError as error:
        log_once(error)
        return answer(503, str(error))
    if taken.status == 204:
        return Response(status=204)
    refusal = answer(taken.status, f"VictoriaMetrics: {taken.message}")
    if taken.retry_after:
        refusal.headers["Retry-After"] = taken.retry_after
    return refusal


@blueprint.get("/ping")
def ping() -> Response:
    return Response(status=204)
