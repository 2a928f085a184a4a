"""The doctor's look at the way to the servers: clock, names, connections, TLS. No secret is sent by these checks."""

from __future__ import annotations

import contextlib
import http.client
import os
import socket
import ssl
import threading
import time
import warnings
from collections.abc import Iterator, Mapping
from pathlib import Path
from typing import Any, NamedTuple
from urllib.parse import urljoin, urlsplit

from urllib3.exceptions import InsecureRequestWarning

from agent.clock.kernel import kernel_clock
from agent.clock.sources import BUILT_NS, shown
from agent.config.units import rough_duration
from agent.doctor.finding import Finding, Patient, failed, ok, skipped, warning
from agent.registration.client import bounded_session
from agent.registration.target import Target, client_cert, plain_http_warning, tls_context
from agent.util.http import Bounds, of_certificate
from agent.util.proxy import BEHIND_PROXY, VARIABLES, Proxy, place, proxy_for, refusal_of_tunnel

OFF_S = 5.0
DAYS_LEFT = 14
SYNC = "sudo timedatectl set-ntp true; timedatectl timesync-status shows the server; UDP port 123 must be open"


class Server(NamedTuple):
    url: str
    host: str
    port: int
    ca_file: str | None
    client_cert: tuple[str, str] | None
    proxy: Proxy | None

    @property
    def next_hop(self) -> tuple[str, int]:
        """Host and port that are connected to: the server's, or the proxy's."""
        return place(self.proxy) if self.proxy else (self.host, self.port)


def host_and_port(url: str) -> tuple[str, int]:
    parts = urlsplit(url)
    return parts.hostname or "", parts.port or (443 if parts.scheme == "https" else 80)


def servers(patient: Patient) -> list[Server]:
    """The center and where points go, each once, on the way that the agent would take from here."""
    settings, result = patient.settings, dict[tuple[str, int], Server]()
    for named in (settings and settings.center, settings and settings.influxdb, patient.target):
        if named:
            where = host_and_port(named.url)
            cert = named.client_cert if isinstance(named, Target) else client_cert(named)
            result.setdefault(where, Server(named.url, *where, named.ca_file, cert, proxy_for(named.url)))
    return list(result.values())


def clock(patient: Patient) -> Iterator[Finding]:
    """The wall clock against the kernel's word and against a server's Date header."""
    now = time.time()
    at = shown(int(now * 1e9))
    running = (patient.running or {}).get("clock") or {}
    kernel = kernel_clock()
    vouched = kernel is not None and kernel.vouches
    off = next((o for o in (_offset(patient, s) for s in servers(patient)) if o is not None), None)
    if now * 1e9 < BUILT_NS:
        yield failed("clock", f"it shows {at}, which is before this program was made", SYNC)
    elif off is not None and abs(off) > OFF_S:
        way = "behind" if off > 0 else "ahead of"
        text = f"it shows {at}, {rough_duration(abs(off))} {way} the server's"
        yield failed("clock", f"{text}; points are dated by the servers meanwhile", SYNC)
    elif vouched:
        yield ok("clock", f"synchronised; it shows {at}")
    elif off is not None:
        yield ok("clock", f"it agrees with the server's ({at}), though the kernel does not call it synchronised")
    elif running.get("good") and running.get("evidence") != "always":
        yield ok("clock", f"it shows {at}; the running agent knows the time by the {running['evidence']}")
    else:
        always = patient.settings is not None and patient.settings.clock.trust == "always"
        then = 'trust = "always" takes it as it is' if always else "points wait undated"
        text = f"it shows {at}, and neither the kernel nor a server says that this is right: {then}"
        yield warning("clock", text, SYNC)
    if running.get("warning"):
        yield warning("clock", f"the running agent says: {running['warning']}", SYNC)


def _offset(patient: Patient, server: Server) -> float | None:
    """Seconds that the server's Date is ahead of this clock; None without an answer.

    The certificate is not checked: with a wrong clock no certificate is valid, and nothing secret is sent.
    """
    bounds = Bounds(min(patient.timeout_s, 5.0), 0)
    if (server.host, server.port) in patient.unreachable:
        return None
    if isinstance(resolved(server.next_hop[0], bounds.seconds), str):
        return None
    session, root, headers = bounded_session(bounds), urljoin(server.url, "/"), {"User-Agent": "iot-agent doctor"}
    session.trust_env = server.proxy is not None
    options: dict[str, Any] = {"timeout": bounds.seconds, "verify": False, "stream": True}
    with warnings.catch_warnings(), contextlib.closing(session):
        warnings.simplefilter("ignore", InsecureRequestWarning)
        answer = bounds.exchange(lambda: session.head(root, headers=headers, **options))
    return None if answer.date_ns is None else answer.date_ns / 1e9 + 0.5 - time.time()


def proxies(patient: Patient) -> Iterator[Finding]:
    """What the environment says about the way, here and in the running agent. Nothing where it says nothing."""
    for server in servers(patient):
        if server.proxy is None:
            continue
        try:
            place(server.proxy)
        except ValueError as error:
            patient.unreachable.add((server.host, server.port))
            yield failed("proxy", str(error), "mend HTTP_PROXY and HTTPS_PROXY of the agent's environment")
        else:
            yield ok("proxy", f"{server.url} is reached through {server.proxy.url}, as HTTP_PROXY and HTTPS_PROXY say")
    if patient.running is None:
        return
    try:
        environment = Path(f"/proc/{patient.running['pid']}/environ").read_bytes().decode("utf-8", "replace")
    except OSError:
        return
    theirs = dict(pair.split("=", 1) for pair in environment.split("\0") if "=" in pair)
    differ = [name for name in VARIABLES if _named(theirs, name) != _named(os.environ, name)]
    if differ:
        text = f"{' and '.join(differ)} of the running agent are not those of this command, which takes another way"
        yield warning(
            "proxy", text, "run it with the agent's: sudo sh -c 'set -a; . /etc/default/iot-agent; iot-agent doctor'"
        )


def _named(environment: Mapping[str, str], name: str) -> str | None:
    return environment.get(name) or environment.get(name.upper()) or None


def names(patient: Patient) -> Iterator[Finding]:
    found = servers(patient)
    if not found:
        yield skipped("names", "without the configuration it is not known which servers there are")
    known = [server for server in found if (server.host, server.port) not in patient.unreachable]
    for host in dict.fromkeys(server.next_hop[0] for server in known):
        name = f"name {host}"
        answer = resolved(host, patient.timeout_s)
        if isinstance(answer, list):
            yield ok(name, ", ".join(answer))
            continue
        patient.unreachable |= {(s.host, s.port) for s in known if s.next_hop[0] == host}
        hint = (
            "is the server on this network, and does it announce itself (avahi-daemon)? An address works too"
            if host.endswith(".local")
            else "is it spelled right, is a name server known (cat /etc/resolv.conf)? An address works too"
        )
        yield failed(name, answer, hint)


def resolved(host: str, timeout_s: float) -> list[str] | str:
    """Addresses, or why there are none. The resolver has no timeout of its own: it gets a thread."""
    answer: list[list[str] | str] = []

    def ask() -> None:
        try:
            infos = socket.getaddrinfo(host, None, type=socket.SOCK_STREAM)
            answer.append(list(dict.fromkeys(str(info[4][0]) for info in infos)))
        except (OSError, UnicodeError) as error:
            answer.append(f"{host} cannot be resolved: {getattr(error, 'strerror', None) or error}")

    thread = threading.Thread(target=ask, daemon=True)
    thread.start()
    thread.join(timeout_s)
    return answer[0] if answer else f"{host} cannot be resolved: no answer within {timeout_s:g} s"


def connections(patient: Patient) -> Iterator[Finding]:
    for server in servers(patient):
        if (server.host, server.port) in patient.unreachable:
            yield skipped(f"connection to {server.host}:{server.port}", "its name, or its proxy's, is not resolved")
            continue
        host, port = server.next_hop
        name = f"connection to {host}:{port}"
        start = time.monotonic()
        try:
            with socket.create_connection((host, port), timeout=patient.timeout_s):
                through = f": the proxy on the way to {server.host}:{server.port}" if server.proxy else ""
                yield ok(name, f"open after {(time.monotonic() - start) * 1000:.0f} ms{through}")
        except ConnectionRefusedError:
            patient.unreachable.add((server.host, server.port))
            yield failed(name, "refused: nothing listens there", f"does the server run, and is {port} its port?")
        except OSError as error:
            patient.unreachable.add((server.host, server.port))
            late = isinstance(error, TimeoutError)
            why = f"no answer within {patient.timeout_s:g} s" if late else str(error.strerror or error)
            yield failed(name, why, "is there a network (ip route), is the server on, is a firewall between?")


def tls(patient: Patient) -> Iterator[Finding]:
    for server in servers(patient):
        url, host, port, *_ = server
        name = f"TLS of {host}"
        if not url.startswith("https:"):
            if text := plain_http_warning(url):
                yield warning(name, text, "use https where the way leads through other people's networks")
            continue
        if (host, port) in patient.unreachable:
            yield skipped(name, "there is no connection")
            continue
        finding = _handshake(name, server, patient.timeout_s)
        if finding.verdict == "failed":
            patient.unreachable.add((host, port))
        yield finding


def _handshake(name: str, server: Server, timeout_s: float) -> Finding:
    host, port, ca_file, cert = server.host, server.port, server.ca_file, server.client_cert
    try:
        context = tls_context(ca_file)
    except OSError as error:
        return failed(name, f"{ca_file} cannot be used: {error}", "ca_file must be a readable certificate in PEM")
    try:
        if cert is not None:
            context.load_cert_chain(*cert, password="")  # an empty one: it must not ask at the terminal
    except (OSError, ssl.SSLError) as error:
        remedy = "client_cert and client_key must be a readable certificate and its key in PEM, without a password"
        return failed(name, f"{' and '.join(dict.fromkeys(cert or ()))} cannot be used: {error}", remedy)
    try:
        with (
            _connected(server, timeout_s) as plain,
            context.wrap_socket(plain, server_hostname=host) as wrapped,
        ):
            until = ssl.cert_time_to_seconds(str((wrapped.getpeercert() or {}).get("notAfter")))
    except ssl.SSLCertVerificationError as error:
        sync = f". {SYNC}" if error.verify_code == 9 else ""
        return failed(name, f"the certificate is refused: {error.verify_message}", of_certificate(error) + sync)
    except (ssl.SSLError, OSError) as error:
        if server.proxy and (by_proxy := refusal_of_tunnel(server.proxy, error)):
            seen, _, remedy = by_proxy[1].partition(": ")
            return failed(name, seen, remedy or BEHIND_PROXY)
        return failed(name, f"no TLS: {error}", f"does {host}:{port} speak https, or is its url http://?")
    days = (until - time.time()) / 86_400
    text = f"the certificate is good for {days:.0f} more days"
    return warning(name, text, "renew it on the server") if days < DAYS_LEFT else ok(name, text)


def _connected(server: Server, timeout_s: float) -> socket.socket:
    """A connection to the server, also through a proxy. OSError where there is none."""
    host, port = server.next_hop
    if server.proxy is None:
        return socket.create_connection((host, port), timeout=timeout_s)
    told = {"Proxy-Authorization": sent.reveal()} if (sent := server.proxy.authorization) else {}
    tunnel = http.client.HTTPConnection(host, port, timeout=timeout_s)
    tunnel.set_tunnel(server.host, server.port, told)
    try:
        tunnel.connect()
    except BaseException:
        tunnel.close()
        raise
    return tunnel.sock
