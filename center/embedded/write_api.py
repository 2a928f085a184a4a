"""POST /api/v2/write, /health and /ping of the embedded store, answering as InfluxDB 2.9.1 was recorded to."""

from __future__ import annotations

import contextlib
import hashlib
import io
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
from center.line_protocol import BadLinesError, TooManyLinesError, foreign, parse
from center.security import keeps_to_its_own

VERSION = "v2.9.1"
BUILD = "iot-center-embedded"
# Bytes of a body, as sent or unpacked: a larger one needs a turn, and of the largest one is read at a time.
SMALL, LARGE = 65_536, 2_000_000
MAX_MEMBERS = 50_000  # of a gzip body: as many as the largest batch has points
WAIT_S = 10.0
PIECE = 65_536
blueprint = Blueprint("write", __name__)
some_at_once = threading.BoundedSemaphore(2)
one_large = threading.BoundedSemaphore(1)
waiting = threading.BoundedSemaphore(4)  # further ones are told at once to come again: threads are left for the pages


class Turn(contextlib.ExitStack):
    """What a request has to wait for before it may take memory; given back at its end."""

    def __init__(self) -> None:
        super().__init__()
        self._bounds = [(SMALL, some_at_once), (LARGE, one_large)]

    def for_size(self, size: int) -> None:
        """503 if others are in front of it for too long."""
        while self._bounds and size > self._bounds[0][0]:
            _, turn = self._bounds.pop(0)
            if not waiting.acquire(blocking=False):
                abort(503, "many bodies are being stored: try again, or send smaller ones")
            try:
                if not turn.acquire(timeout=WAIT_S):
                    abort(503, "another large body is being stored: try again, or send smaller ones")
            finally:
                waiting.release()
            self.callback(turn.release)


def taken(turn: Turn) -> bytes:
    """The body of the request, unpacked, once it is its turn."""
    request.environ["wsgi.input"].read(0)  # where the server only asks whether the body is wanted, this ends it
    turn.for_size(LARGE + 1 if request.content_length is None else request.content_length)
    body = request.get_data(cache=False)
    if request.headers.get("Content-Encoding", "").lower() != "gzip":
        return body
    return gunzip(body, current_center().settings.server.max_body, turn)


def gunzip(body: bytes, limit: int, turn: Turn) -> bytes:
    """All members of a gzip body, one after another; at most `limit` bytes. What it is not, InfluxDB's words say."""
    out = io.BytesIO()
    view = memoryview(body)
    place = members = 0
    while place < len(body):
        members += 1
        if members > MAX_MEMBERS:
            abort(413, f"the body has more than {MAX_MEMBERS} gzip members")
        unpacker, size = zlib.decompressobj(wbits=31), 256
        while not unpacker.eof:
            piece = view[place : place + size]
            size = min(2 * size, PIECE)
            try:
                part = unpacker.decompress(piece, PIECE)
            except zlib.error:
                if members == 1 and not body.startswith(b"\x1f\x8b"):
                    abort(500, "An internal error has occurred - check server logs")
                abort(500, "unable to read data: gzip: invalid checksum")
            if not piece and not part and not unpacker.eof:
                abort(500, "unable to read data: unexpected EOF")
            place += len(piece) - len(unpacker.unconsumed_tail) - len(unpacker.unused_data)
            out.write(part)
            if out.tell() > limit:
                abort(413, f"the body unpacks to more than {limit} bytes")
            turn.for_size(out.tell())
    return out.getvalue()


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
