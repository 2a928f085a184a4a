"""Where points are sent, and what may be said to whom over which connection."""

from __future__ import annotations

import ipaddress
import os
from dataclasses import dataclass
from pathlib import Path
from typing import TYPE_CHECKING
from urllib.parse import urlsplit

from agent.config.settings import CenterSettings, InfluxSettings
from agent.util.secret import Secret

if TYPE_CHECKING:
    import ssl

LOCAL_SUFFIXES = (".local", ".localhost", ".lan", ".internal", ".home.arpa", ".home", ".intranet")
"""Under which routers know a host, and no stranger can have a name, nor a certificate of a public authority."""
_PRIVATE_SUFFIXES = (".local", ".localhost", ".home.arpa")
_PRIVATE_NETWORKS = [ipaddress.ip_network(n) for n in ("10.0.0.0/8", "172.16.0.0/12", "192.168.0.0/16", "fc00::/7")]
DEBIAN_BUNDLE = Path("/etc/ssl/certs/ca-certificates.crt")


@dataclass(frozen=True, slots=True)
class Target:
    """An InfluxDB v2 write API. `org` is a name or an id; `ca_file` None means the system's trust store; `client_cert`
    are the files of a certificate and its key.
    """

    url: str
    org: str
    bucket: str
    token: Secret
    ca_file: str | None = None
    client_cert: tuple[str, str] | None = None


def client_cert(section: CenterSettings | InfluxSettings) -> tuple[str, str] | None:
    """The files of the certificate that is shown to a server, and of its key, which may be in the same."""
    if not section.client_cert:
        return None
    return section.client_cert, section.client_key or section.client_cert


def is_private(host: str) -> bool:
    """Whether a host's address says that it is this machine or on a private network: loopback, RFC 1918, RFC 4193,
    link-local; or its name, by RFC 6761, 6762 or 8375. What other names lead to, also those without a dot, depends on
    the network, and no name server is asked.
    """
    host = host.lower().rstrip(".")
    try:
        address = ipaddress.ip_address(host.partition("%")[0])
    except ValueError:
        return host == "localhost" or host.endswith(_PRIVATE_SUFFIXES)
    address = getattr(address, "ipv4_mapped", None) or address
    return address.is_loopback or address.is_link_local or any(address in network for network in _PRIVATE_NETWORKS)


def has_private_authority(host: str) -> bool:
    """Whether no public authority certifies such a host."""
    name = host.lower().rstrip(".")
    return is_private(name) or "." not in name or name.endswith(LOCAL_SUFFIXES)


def origin(url: str) -> str:
    """Scheme, host and port: who answers there."""
    parts = urlsplit(url)
    return f"{parts.scheme}://{parts.netloc}"


def plain_http_warning(url: str) -> str | None:
    """What to say about secrets going over http to a host that is not private; None if all is well."""
    parts = urlsplit(url)
    if parts.scheme == "https" or is_private(parts.hostname or ""):
        return None
    return f"{url} is plain http and not on a private network: tokens and secrets can be read on the way; use https"


def trust_store(ca_file: str | None) -> str | bool:
    """What `requests` takes as `verify`: the named file, else the system's store, else the bundled one."""
    if ca_file:
        return ca_file
    import ssl  # noqa: PLC0415 - the configuration is checked without it

    paths = ssl.get_default_verify_paths()
    for candidate in (paths.cafile, str(DEBIAN_BUNDLE)):
        if candidate and os.path.isfile(candidate):  # noqa: PTH113 - Path's raises where one may not look
            return candidate
    return True


def tls_context(ca_file: str | None) -> ssl.SSLContext:
    """Of a connection that verifies its server by this store. Raises OSError (SSLError) where it cannot be used."""
    import ssl  # noqa: PLC0415 - see above

    store = trust_store(ca_file)
    return ssl.create_default_context(cafile=store if isinstance(store, str) else None)
