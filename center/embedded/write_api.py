"""POST /api/v2/write, /health and /ping of the embedded store, answering as InfluxDB 2.9.1 was recorded to."""

from __future__ import annotations

import hashlib
import threading
import zlib
from dataclasses import dataclass, field

from flask import Blueprint, Response, abort, jsonify, request

from agent.points.line_protocol import NANOSECONDS
from agent.util.secret import Secret
from center.answers import answer
from center.embedded.points import StoredBucket
from center.embedded.registry import EmbeddedRegistry
from center.embedded.telemetry import EmbeddedTelemetry
from center.errors import StoreError
from center.line_protocol import parse

VERSION = "v2.9.1"
BUILD = "iot-center-embedded"
LARGE = 2_000_000  # bytes; a point in memory takes up to 30 times its line, so one body larger than this at a time
WAIT_S = 10.0


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


@dataclass(frozen=True, slots=True)
class WriteApi:
    """`max_body`: bytes, as it is sent and unpacked."""

    registry: EmbeddedRegistry
    telemetry: EmbeddedTelemetry
    org: str
    max_body: int
    one_large: threading.Lock = field(default_factory=threading.Lock)

    def _bucket(self) -> StoredBucket:
        """The bucket to write to; whoever may not is refused."""
        scheme, _, text = request.headers.get("Authorization", "").partition(" ")
        token = Secret(text.strip()) if scheme in {"Token", "Bearer"} else Secret("")
        allowed = self.registry.bucket_of(token) if token else None
        if allowed is None:
            abort(401, "unauthorized access")
        org = request.args.get("orgID") or request.args.get("org")
        if not org:
            abort(400, "Please provide either orgID or org")
        if org not in {self.org, org_id(self.org)}:
            abort(404, f'organization name "{org}" not found')
        name = request.args.get("bucket", "")
        if not name:
            abort(404, "bucket not found")
        bucket = self.telemetry.find_bucket(name)
        if bucket is None:
            abort(404, f'bucket "{name}" not found')
        if bucket.name != allowed:
            abort(403, "insufficient permissions for write")
        return bucket

    def write(self) -> Response:
        if request.method != "POST":
            refusal = answer(405, "allow: OPTIONS, POST")
            refusal.headers["Allow"] = "OPTIONS, POST"
            return refusal
        bucket = self._bucket()
        precision = NANOSECONDS.get(request.args.get("precision", "ns"))
        if precision is None:
            abort(400, "invalid precision; valid precision units are ns, us, ms, and s")
        body = request.get_data(cache=False)
        if request.headers.get("Content-Encoding", "").lower() == "gzip":
            body = gunzip(body, self.max_body)
        if len(body) <= LARGE:
            return self._store(bucket, body, precision)
        if not self.one_large.acquire(timeout=WAIT_S):
            abort(503, "another large body is being stored: try again, or send smaller ones")
        try:
            return self._store(bucket, body, precision)
        finally:
            self.one_large.release()

    def _store(self, bucket: StoredBucket, body: bytes, precision: int) -> Response:
        points, errors = parse(body, precision)
        if errors:
            return answer(400, "\n".join(errors))
        if points:
            try:
                message = self.telemetry.store(bucket, points)
            except StoreError as error:
                return answer(503, str(error))
            if message:
                return answer(422, message)
        return Response(status=204)

    def health(self) -> tuple[Response, int]:
        failing = self.telemetry.failing
        answer = jsonify(
            name="iot-center",
            message="; ".join(f"{name} fails: {why}" for name, why in failing.items()) or "ready for writes",
            status="fail" if failing else "pass",
            checks=[{"name": name, "status": "fail", "message": why} for name, why in failing.items()],
            version=VERSION,
            commit="embedded",
        )
        return answer, 503 if failing else 200

    def blueprint(self) -> Blueprint:
        blueprint = Blueprint("write", __name__)
        blueprint.add_url_rule("/api/v2/write", "write", self.write, methods=["GET", "POST", "PUT", "PATCH", "DELETE"])
        blueprint.add_url_rule("/health", "health", self.health)
        blueprint.add_url_rule("/ping", "ping", lambda: Response(status=204))

        @blueprint.after_request
        def name_yourself(response: Response) -> Response:
            response.headers["X-Influxdb-Build"] = BUILD
            response.headers["X-Influxdb-Version"] = VERSION
            return response

        return blueprint
