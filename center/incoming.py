"""A request as waitress takes it in, and an application that is asked whether it wants the body."""

from __future__ import annotations

from collections.abc import Callable, Iterable
from dataclasses import dataclass
from typing import Any

from waitress.parser import HTTPRequestParser, ParsingError
from waitress.task import WSGITask
from waitress.utilities import BadRequest

from center.limits import SMALL_BODY

MAX_TRAILER = 16_384  # bytes; also of a line between chunks


class BodyWantedError(BaseException):
    """The application reads a body that it was only asked about. Not to be caught by anything in it."""


class _Unread:
    """The body, as long as it has not been taken in."""

    def read(self, *_: Any) -> bytes:
        raise BodyWantedError

    readline = readlines = __iter__ = read


@dataclass(frozen=True, slots=True)
class Refusal:
    """An answer in place of a request that was not taken in; what waitress asks of its errors."""

    status: str
    headers: tuple[tuple[str, str], ...]
    body: bytes

    def to_response(self, _: str | None = None) -> tuple[str, list[tuple[str, str]], bytes]:
        return self.status, list(self.headers), self.body


FULL = Refusal(
    "503 Service Unavailable",
    (("Content-Type", "application/json"), ("Retry-After", "10")),
    b'{"code":"unavailable","message":"the center holds as many bytes of requests as it may: try again in a while"}\n',
)


def ask(application: Callable[..., Iterable[bytes]], environ: dict[str, Any]) -> Refusal | None:
    """What the application answers without the body; None if it wants to read it."""
    started: list[Any] = []

    def start_response(status: str, headers: list[tuple[str, str]], _: Any = None) -> Callable[[bytes], None]:
        started[:] = status, headers
        return lambda _: None

    try:
        answered = application(environ | {"wsgi.input": _Unread()}, start_response)
    except BodyWantedError:
        return None
    try:
        body = b"".join(answered)
    finally:
        getattr(answered, "close", lambda: None)()
    status, headers = started
    return Refusal(status, tuple(h for h in headers if h[0].lower() != "content-length"), body)


class Task(WSGITask):  # type: ignore[misc] # waitress has no types
    def set_close_on_finish(self) -> None:
        """A 204 and a 304 end with their headers: behind them nothing needs to be closed."""
        asked = self.request.headers.get("CONNECTION", "").lower() == "close"
        if self.has_body or asked or self.version != "1.1":
            super().set_close_on_finish()


class Parser(HTTPRequestParser):  # type: ignore[misc] # as above
    """A request as it comes in. `paused`: nothing of its body is taken in until the application has said that it wants
    it; what came with the headers waits in `early`.
    """

    asked = paused = posed = wants_continue = expect_continue = False
    early = b""

    def received(self, data: bytes) -> int:
        if self.paused:
            self.early += data
            return len(data)
        consumed = int(super().received(data))
        if self.chunked and max(len(self.body_rcv.control_line), len(self.body_rcv.trailer)) > MAX_TRAILER:
            self.error, self.completed = BadRequest("a trailer or a line between chunks is too long"), True
        large = self.chunked or self.content_length > SMALL_BODY
        if large and self.headers_finished and not (self.completed or self.asked):
            self.asked = self.paused = True
            self.wants_continue, self.expect_continue = self.expect_continue, False
        return consumed

    def parse_header(self, header_plus: bytes) -> None:
        """ParsingError for what waitress takes no offence at, or fails with; of two lengths a proxy in front could
        believe the other one (RFC 9112, section 6.3).
        """
        try:
            super().parse_header(header_plus)
        except ValueError as error:
            raise ParsingError(str(error)) from error
        if (self.chunked and "CONTENT_LENGTH" in self.headers) or "TRANSFER_ENCODING" in self.headers:
            raise ParsingError("Transfer-Encoding with Content-Length, or of HTTP/1.0")

    @property
    def held(self) -> int:
        """Bytes of it that are in memory or in a temporary file."""
        return len(self.header_plus) + len(self.early) + (self.body_rcv.__len__() if self.body_rcv is not None else 0)
