"""Errors of the API: JSON {"code", "message"} with a fitting status, in InfluxDB's words for the codes."""

from __future__ import annotations

from flask import Flask, Response, jsonify, request
from werkzeug.exceptions import HTTPException

from center.errors import ConflictError, EnrollmentError, NotSupportedError, RefusedError, StoreError
from center.faults import log_once

CODES = {
    400: "invalid",
    401: "unauthorized",
    403: "forbidden",
    404: "not found",
    405: "method not allowed",
    409: "conflict",
    413: "request too large",
    415: "unsupported media type",
    422: "unprocessable entity",
    429: "too many requests",
    500: "internal error",
    501: "not implemented",
    503: "unavailable",
}
API = ("/api/", "/health", "/ping")
RETRY_AFTER_S = 2


def answer(status: int, message: str) -> Response:
    said = message.encode(errors="backslashreplace").decode()  # JSON can hold half a character, UTF-8 not
    response = jsonify(code=CODES.get(status, "error"), message=said)
    response.status_code = status
    response.headers["X-Platform-Error-Code"] = CODES.get(status, "error")
    if status in {429, 503}:
        response.headers["Retry-After"] = "60" if status == 429 else "10"
    return response


def is_api() -> bool:
    """Whether the request is one of a program."""
    return request.path.startswith(API)


def _http(error: HTTPException) -> Response | HTTPException:
    if not is_api():
        return error
    response = answer(error.code or 500, error.description or error.name)
    for name, value in error.get_headers():
        if name in {"Allow", "Retry-After"}:
            response.headers[name] = value
    return response


def _conflict(error: ConflictError) -> Response:
    response = answer(409, str(error))
    if error.raced:
        response.headers["Retry-After"] = str(RETRY_AFTER_S)
    return response


def _enrollment(error: EnrollmentError) -> Response:
    return answer(403 if request.headers.get("X-Enrollment-Key") else 401, str(error))


def _store(error: StoreError) -> Response:
    log_once(error)
    return answer(503, str(error))


def init_app(app: Flask) -> None:
    app.register_error_handler(HTTPException, _http)
    app.register_error_handler(ConflictError, _conflict)
    app.register_error_handler(EnrollmentError, _enrollment)
    app.register_error_handler(StoreError, _store)
    app.register_error_handler(RefusedError, lambda error: answer(400, str(error)))
    app.register_error_handler(NotSupportedError, lambda error: answer(501, str(error)))
