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

from agent.util.http import TUNNEL, Answer, is_html
from agent.util.secret import Secret

_ASKS = (
    "the proxy {proxy} asks for a user and a password, or refuses them (407): put them into HTTP_PROXY and "
    "HTTPS_PROXY, as http://user:password@proxy:3128, in a file that only the agent can read"
)
_FORBIDS = (
    "the proxy {proxy} lets nobody through to this server (403): it needs a rule for it, or NO_PROXY the server's name"
)
_PAGES = (401, 403, 407, 500, 502, 503, 504)
"""With a page for people these are a proxy's: InfluxDB and the centers say them in JSON or plain text."""
BEHIND_PROXY = "does the server run, and does the proxy let this host and port through?"
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


def refusal(answer: Answer) -> tuple[int, str] | None:
    """Status and words, where a proxy answers in the server's place; None for the server's own answer.

    401 and 407 are one: tinyproxy says the former of a wrong password.
    """
    status = answer.tunnel or answer.status or 0
    if answer.tunnel is None and status != 407 and not (answer.proxy and status in _PAGES and is_html(answer)):
        return None
    proxy = answer.proxy or "on the way"
    if status in (401, 407):
        return 407, _ASKS.format(proxy=proxy)
    if status == 403:
        return 403, _FORBIDS.format(proxy=proxy)
    return status, f"the proxy {proxy} does not reach the server ({status})"


def refusal_of_tunnel(proxy: Proxy, error: Exception) -> tuple[int, str] | None:
    """The same of what http.client raises where a proxy does not connect."""
    found = TUNNEL.search(str(error))
    return refusal(Answer(None, proxy=proxy.url, tunnel=int(found[1]))) if found else None


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
