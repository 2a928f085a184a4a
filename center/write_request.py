"""A request to write points, for whichever store takes them: its token, its precision, and its body, unpacked once it
is its turn, so that many large ones never are in memory together.
"""

from __future__ import annotations

import contextlib
import io
import threading
import zlib

from flask import Response, abort, request

from agent.points.line_protocol import NANOSECONDS
from agent.util.secret import Secret
from center.answers import answer
from center.context import current_center

METHODS = ["GET", "POST", "PUT", "PATCH", "DELETE"]
"""What a route of it answers: all but POST as InfluxDB does, by not_post()."""
# Bytes of a body, as sent or unpacked: a larger one needs a turn, and of the largest one is read at a time.
SMALL, LARGE = 65_536, 2_000_000
MAX_MEMBERS = 50_000  # of a gzip body: as many as the largest batch has points
WAIT_S = 10.0
PIECE = 65_536
some_at_once = threading.BoundedSemaphore(2)
one_large = threading.BoundedSemaphore(1)
waiting = threading.BoundedSemaphore(4)  # further ones are told at once to come again: threads are left for the pages


def not_post() -> Response | None:
    """The answer to another method."""
    if request.method == "POST":
        return None
    refusal = answer(405, "allow: OPTIONS, POST")
    refusal.headers["Allow"] = "OPTIONS, POST"
    return refusal


def token_sent() -> Secret:
    """Empty where there is none."""
    scheme, _, text = request.headers.get("Authorization", "").partition(" ")
    return Secret(text.strip() if scheme in {"Token", "Bearer"} else "")


def unit_ns() -> int:
    """Nanoseconds of a unit of its stamps."""
    unit = NANOSECONDS.get(request.args.get("precision", "ns"))
    if unit is None:
        abort(400, "invalid precision; valid precision units are ns, us, ms, and s")
    return unit


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
