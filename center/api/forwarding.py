"""POST /api/v2/write passed on to VictoriaMetrics, for fleets that one center or a few carry.

VictoriaMetrics asks nobody for a token, takes what it cannot read or keep without a word and tells it in its log. So
here the token is checked and each line read, with InfluxDB's answers for what is wrong; what goes on is written anew.
"""

from __future__ import annotations

import contextlib
import threading
from collections.abc import Iterator
from typing import cast

from flask import Blueprint, Response, abort, request

from center.answers import answer
from center.context import current_center
from center.errors import NotSupportedError, RefusedError, StoreError
from center.faults import log_once
from center.line_protocol import BadLinesError, TooManyLinesError, foreign, parse
from center.security import keeps_to_its_own
from center.stores.registry import Issuer
from center.stores.telemetry import Point
from center.victoria.telemetry import VictoriaTelemetry
from center.write_request import METHODS, Turn, not_post, taken, token_sent, unit_ns

# Writes that wait for VictoriaMetrics: half the threads of a center, which has 16 unless server.threads is set. If it
# hangs, or has them queue (-insert.maxQueueDuration, a minute), the others are left for pages and registrations.
passing = threading.BoundedSemaphore(8)
WAIT_S = 0.5
blueprint = Blueprint("forwarding", __name__)


@blueprint.route("/api/v2/write", methods=METHODS)
def write() -> Response:
    if refusal := not_post():
        return refusal
    device = _device()
    telemetry = cast("VictoriaTelemetry", current_center().telemetry)
    name = request.args.get("bucket", "")
    if name != telemetry.bucket:
        abort(404, f'bucket "{name}" not found')
    precision = unit_ns()
    with _waiting():
        kept = telemetry.kept()
    with Turn() as turn:
        plain = taken(turn)
        own, body = keeps_to_its_own(device), bytearray()

        def refused(point: Point) -> str:
            try:
                body.extend(kept.line(point).encode() + b"\n")
            except (RefusedError, NotSupportedError) as error:
                return str(error)
            return ""

        try:
            for points in parse(plain, precision, refused):
                if own and (why := foreign(points, device)):
                    return answer(403, why)
        except BadLinesError as error:
            return answer(400, str(error))
        except TooManyLinesError as error:
            return answer(413, str(error))
        return _passed_on(telemetry, bytes(body)) if body else Response(status=204)


def _device() -> str:
    """The device whose token came with the request; whoever has none is refused."""
    token = token_sent()
    device = cast("Issuer", current_center().registry).holder(token) if token else None
    if device is None:
        abort(401, "unauthorized access")
    return device


@contextlib.contextmanager
def _waiting() -> Iterator[None]:
    """Around each request to VictoriaMetrics. 503 where too many wait already."""
    if not passing.acquire(timeout=WAIT_S):
        abort(503, "VictoriaMetrics is slow, and as many writes as may be wait for it: try again in a while")
    try:
        yield
    finally:
        passing.release()


def _passed_on(telemetry: VictoriaTelemetry, body: bytes) -> Response:
    """Whole or not at all."""
    try:
        with _waiting():
            taken_by = telemetry.victoria.write(body)
    except StoreError as error:
        log_once(error)
        return answer(503, str(error))
    if taken_by.status == 204:
        return Response(status=204)
    refusal = answer(taken_by.status, f"VictoriaMetrics: {taken_by.message}")
    if taken_by.retry_after:
        refusal.headers["Retry-After"] = taken_by.retry_after
    return refusal


@blueprint.get("/ping")
def ping() -> Response:
    return Response(status=204)
