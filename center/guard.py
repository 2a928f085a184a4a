"""Which requests are answered at all: those to the center's own names, of its own pages, with a body that is not too
large. On open loopback (center/security.py) only this machine's, and none that came through a proxy.
"""

from __future__ import annotations

from ipaddress import ip_address
from urllib.parse import urlsplit

from flask import Flask, Request, Response, abort, g, request

from center.context import current_center
from center.limits import SMALL_BODY
from center.security import is_administrator, is_open
from center.settings import Settings

LOOPBACK_HOSTS = ("localhost", "127.0.0.1", "[::1]")
# What reverse proxies, tunnels and load balancers add to a request, by how the names begin.
FORWARDED = (
    "forwarded", "x-forwarded", "x-real-", "x-original-", "x-client-", "x-cluster-client-ip", "x-remote-", "x-proxy",
    "x-envoy-", "x-amzn-", "x-azure-", "x-appengine-", "x-arr-", "x-scheme", "x-ssl-", "cf-", "cdn-", "fastly-",
    "true-client-ip", "client-ip", "wl-proxy-", "tailscale-", "ngrok-", "remote-user", "max-forwards", "via",
)  # fmt: skip
SAFE = {"GET", "HEAD", "OPTIONS"}
WRITE = "/api/v2/write"
MAX_OTHER_BODY = 4_000_000  # bytes: an administrator's forms and JSON; of strangers SMALL_BODY


def init_app(app: Flask) -> None:
    app.before_request(guard)
    app.after_request(headers)


def _host_of(address: str) -> str | None:
    try:
        return urlsplit(address).netloc
    except ValueError:  # what no browser sends
        return None


def foreign(incoming: Request, *, unsafe_only: bool) -> str | None:
    """Why a request looks as if another site's page had sent it; None if it does not."""
    if unsafe_only and incoming.method in SAFE:
        return None
    site = incoming.headers.get("Sec-Fetch-Site")
    if site not in {None, "same-origin", "none"}:
        return f"a page of another site sent this (Sec-Fetch-Site: {site})"
    for header in ("Origin", "Referer"):
        sent = incoming.headers.get(header)
        if sent and _host_of(sent) != incoming.host:
            return f"a page of another site sent this ({header})"
    return None


def guard() -> None:
    """Before every request, and before a large body is taken in."""
    center = current_center()
    if not host_trusted(request.host, trusted_hosts(center.settings)):
        abort(400, f"{request.host!r} is not a name of this center: add it to server.trusted_hosts or TRUSTED_HOSTS")
    _bound_body(center.settings)
    if request.blueprint == "assets":  # the same files for everyone, also while the store does not answer
        return
    if not center.settings.loopback or not is_open():
        # With a login cookies are SameSite=Strict and forms carry a CSRF token; this guards the API as well.
        # GET /api/env/ID registers, so it is not a safe one.
        if request.path != WRITE and (why := foreign(request, unsafe_only=not request.path.startswith("/api/env/"))):
            abort(403, why)
        return
    if why := foreign(request, unsafe_only=False):
        abort(403, why)
    by_proxy = request.environ.get("SERVER_PROTOCOL") == "HTTP/1.0"  # nginx, where nothing else is configured
    if by_proxy or any(name.lower().startswith(FORWARDED) for name, _ in request.headers):
        abort(403, "forwarded requests need a login: set a password with `iot-center password`")
    if not request.remote_addr or not ip_address(request.remote_addr.partition("%")[0]).is_loopback:
        abort(403, "without a password only this machine is answered: set one with `iot-center password`")


def _bound_body(settings: Settings) -> None:
    """A large body is for writes, whose token the store looks at first, and for administrators."""
    size = request.content_length or 0
    if request.path == WRITE:
        return
    if "HTTP_TRANSFER_ENCODING" in request.environ and not size:
        abort(411, "say in Content-Length how long the body is")
    known = size > SMALL_BODY and "store_down" not in g and is_administrator()
    request.max_content_length = min(settings.server.max_body, MAX_OTHER_BODY if known else SMALL_BODY)
    if size > request.max_content_length:
        abort(413, f"this body is larger than {request.max_content_length} bytes")


def headers(response: Response) -> Response:
    """After every request: nothing is sniffed, framed, referred to or, without saying otherwise, kept."""
    response.headers.setdefault("X-Content-Type-Options", "nosniff")
    response.headers.setdefault("X-Frame-Options", "DENY")
    response.headers.setdefault("Referrer-Policy", "same-origin")
    if request.endpoint != "static":
        response.headers.setdefault("Cache-Control", "no-store")
    return response


def host_trusted(host: str, names: list[str] | None) -> bool:
    """Whether a Host header is one of the names, whatever its port. A name that starts with a dot: any below it.

    Flask's own TRUSTED_HOSTS does the same, but cannot match an IPv6 address.
    """
    if names is None:
        return True
    name = (host if host.endswith("]") else host.rpartition(":")[0] or host).lower().removesuffix(".")
    return any(name == known.lower() or (known.startswith(".") and name.endswith(known.lower())) for known in names)


def trusted_hosts(settings: Settings) -> list[str] | None:
    """The names it answers to: always on loopback (against rebound names), elsewhere where they are configured."""
    named = list(settings.server.trusted_hosts)
    if settings.server.public_url:
        named.append(urlsplit(settings.server.public_url).hostname or "")
    if settings.loopback:
        return [*LOOPBACK_HOSTS, *named]
    return [*named, *LOOPBACK_HOSTS] if named else None
