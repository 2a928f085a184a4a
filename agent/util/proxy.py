"""The proxy that the environment names for an address: HTTP_PROXY, HTTPS_PROXY, NO_PROXY, as `requests` reads them.

This very machine is reached directly: to a proxy its loopback addresses are others.

User and password in its URL are secrets: they travel in a header, and no message shows them.
"""

from __future__ import annotations

import ipaddress
from base64 import b64encode
from collections.abc import Iterator
from dataclasses import dataclass, field
from urllib.parse import unquote, urlsplit

from agent.util.secret import Secret

ASKS = (
    "the proxy {proxy} asks for a user and a password, or refuses them (407): put them into HTTP_PROXY and "
    "HTTPS_PROXY, as http://user:password@proxy:3128, in a file that only the agent can read"
)
VARIABLES = ("http_proxy", "https_proxy", "all_proxy", "no_proxy")


@dataclass(frozen=True, slots=True)
class Proxy:
    """`url` is without user and password; `authorization` is the value of Proxy-Authorization; `hidden` is what no
    message may show.
    """

    url: str
    authorization: Secret | None = None
    hidden: tuple[Secret, ...] = field(default=())


def is_loopback(host: str) -> bool:
    """Whether a host's name or address is this very machine."""
    host = host.lower().rstrip(".")
    try:
        return ipaddress.ip_address(host).is_loopback
    except ValueError:
        return host == "localhost" or host.endswith(".localhost")


def proxy_for(url: str) -> Proxy | None:
    """The proxy on the way to `url`, None for the direct way."""
    from requests.utils import get_environ_proxies, select_proxy  # noqa: PLC0415 - not to check a configuration

    if is_loopback(urlsplit(url).hostname or ""):
        return None
    named = select_proxy(url, get_environ_proxies(url))
    if not named:
        return None
    user_info, at, host = named.rpartition("@")
    if not at:
        return Proxy(named if "://" in named else f"http://{named}")
    scheme, _, user_info = user_info.rpartition("//")
    user, _, password = (unquote(part) for part in user_info.partition(":"))
    basic = b64encode(f"{user}:{password}".encode("latin-1", "replace")).decode()  # as requests does it
    hidden = tuple(Secret(text) for text in _shown(user_info, password, basic))
    return Proxy(f"{scheme or 'http:'}//{host}", Secret(f"Basic {basic}"), hidden)


def _shown(user_info: str, password: str, basic: str) -> Iterator[str]:
    """The forms in which a library could repeat them, the longest first."""
    yield basic
    yield user_info
    yield from (text for text in (user_info.partition(":")[2], password) if len(text) >= 4)


def place(proxy: Proxy) -> tuple[str, int]:
    """Its host and port. ValueError, without its password, for what is no proxy that can be used here."""
    try:
        parts = urlsplit(proxy.url)
        host, port = parts.hostname, parts.port or (443 if parts.scheme == "https" else 80)
    except ValueError:
        host = None
    if not host or parts.scheme not in ("http", "https"):
        raise ValueError(f"the proxy of the environment, {proxy.url}, is none like http://proxy:3128")
    return host, port
