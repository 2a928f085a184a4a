"""Without any credential: bodies, connections that trickle, answers that nobody reads, passwords, secrets, cookies."""

import contextlib
import multiprocessing
import re
import resource
import socket
import threading
import time
from collections import Counter
from concurrent.futures import ThreadPoolExecutor

import pytest
import requests

from center.pages.assets import load
from tests.attack import FULL
from tests.attack.victim import BOUND_MB, MB, PASSWORD, victim
from tests.from_address import From


@pytest.fixture(scope="module")
def center(tmp_path_factory):
    with victim(tmp_path_factory.mktemp("center")) as running:
        yield running


def request_head(target, length, host="127.0.0.1", **headers):
    lines = [f"POST {target} HTTP/1.1", f"Host: {host}", f"Content-Length: {length}"]
    lines += [f"{name.replace('_', '-')}: {value}" for name, value in headers.items()]
    return "\r\n".join([*lines, "", ""]).encode()


WRITE = "/api/v2/write?org=iot-center&bucket=iot_center"


@pytest.mark.parametrize(
    ("target", "host"),
    [("/login", "127.0.0.1"), ("/login", "evil.example"), (WRITE, "127.0.0.1"), ("/api/devices", "127.0.0.1")],
    ids=["login", "foreign Host", "write without a token", "api"],
)
def test_bodies_of_strangers_are_not_spooled(center, target, host):
    connections, size = (20, 70 * MB) if FULL else (4, 4 * MB)
    answers = []

    def send():
        with center.connect() as connection, contextlib.suppress(OSError):
            connection.sendall(request_head(target, size, host))
            for _ in range(size // 65_536):
                connection.sendall(bytes(65_536))
            connection.recv(16)
        with center.connect() as connection:  # the answer can be read, though much is still to be sent
            connection.sendall(request_head(target, size, host))
            connection.sendall(bytes(1_000_000))
            answers.append(connection.recv(65_536).split(b"\r\n")[0].decode())

    with center.watched():
        threads = [threading.Thread(target=send) for _ in range(connections)]
        for thread in threads:
            thread.start()
        for thread in threads:
            thread.join()
    center.told(f"{connections} bodies of {size // MB} MB to {target} of {host}", answers=set(answers))
    assert {answer.split()[1] for answer in answers} <= {"400", "401", "413"}
    assert len(answers) == connections
    assert center.spooled < MB
    assert center.memory_mb < BOUND_MB
    assert center.stood() or not FULL


def hold(port, number, first, piece, seconds, addresses):  # noqa: PLR0917 - of a process
    """That many connections which each begin with `first` and then send `piece` twice a second; in its own process."""
    resource.setrlimit(resource.RLIMIT_NOFILE, (resource.getrlimit(resource.RLIMIT_NOFILE)[1],) * 2)
    opened, closed = [], 0
    end = time.monotonic() + seconds
    while time.monotonic() < end:
        began = time.monotonic()
        while len(opened) < number and time.monotonic() < began + 0.5:
            with contextlib.suppress(OSError):
                address = f"127.0.2.{len(opened) % addresses}"
                connection = socket.create_connection(("127.0.0.1", port), timeout=1, source_address=(address, 0))
                opened.append(connection)
                connection.sendall(first)
                connection.setblocking(False)
        for connection in list(opened):
            try:
                connection.send(piece)
                if connection.recv(1, socket.MSG_PEEK) == b"":
                    raise ConnectionError
            except BlockingIOError:
                pass
            except OSError:
                connection.close()
                opened.remove(connection)
                closed += 1
        time.sleep(max(0.0, began + 0.5 - time.monotonic()))
    print(f"{len(opened)} are open, {closed} were closed")


TRICKLES = {
    "headers": (b"GET / HTTP/1.1\r\nHost: 127.0.0.1\r\nX-A: ", b"a"),
    "long headers": (b"GET / HTTP/1.1\r\nHost: 127.0.0.1\r\nX-A: " + b"a" * 15_000, b"a"),
    "bodies": (request_head("/login", 65_000) + b"a" * 60_000, b"a"),
}


@pytest.mark.skipif(not FULL, reason="thousands of connections: make attack")
@pytest.mark.parametrize(("kind", "addresses"), [*((kind, 1) for kind in TRICKLES), ("headers", 100)])
def test_connections_that_trickle_do_not_silence_it(center, kind, addresses):
    first, piece = TRICKLES[kind]
    arguments = (center.port, 6050, first, piece, 60, addresses)
    attacker = multiprocessing.get_context("spawn").Process(target=hold, args=arguments)
    with center.watched():
        attacker.start()
        attacker.join()
    center.told(f"6,050 connections of {addresses} addresses that trickle {kind} for 60 s")
    assert center.stood()


def test_answers_that_nobody_reads_are_not_kept(center):
    """The largest thing that strangers may ask for, the script of the charts, as often as fits into one packet."""
    number, asset = 200 if FULL else 10, load("charts.js")
    asked = f"GET /assets/{asset.digest}/charts.js HTTP/1.1\r\nHost: 127.0.0.1\r\n\r\n".encode()
    times = 8192 // len(asked)
    with center.watched(), contextlib.ExitStack() as stack:
        for _ in range(number):
            connection = stack.enter_context(socket.socket())
            connection.setsockopt(socket.SOL_SOCKET, socket.SO_RCVBUF, 4096)
            connection.connect(("127.0.0.1", center.port))
            connection.sendall(asked * times)
            assert connection.recv(1) == b"H"
        time.sleep(10 if FULL else 0)
    center.told(f"{number} times {times} answers of {len(asset.plain) // 1000} kB that nobody reads")
    assert center.memory_mb < (BOUND_MB if FULL else 150)
    assert center.spooled < 80 * MB


def machine(address):
    session = requests.Session()
    session.mount("http://", From(address))
    return session


def statuses(center, passwords, addresses):
    """Of requests with these passwords, as many at once as there are addresses."""

    def ask(n, password):
        with machine(addresses[n % len(addresses)]) as session:
            return session.get(f"{center.url}/api/devices", auth=("admin", password), timeout=60).status_code

    with ThreadPoolExecutor(len(passwords)) as pool:
        return Counter(pool.map(ask, range(len(passwords)), passwords))


@pytest.mark.skipif(not FULL, reason="in tests/center/api/test_security.py without a process: make attack")
def test_wrong_passwords_lock_nobody_out_and_are_counted_before_they_are_looked_at(tmp_path):
    with victim(tmp_path) as center, center.watched():
        at_once = statuses(center, ["wrong"] * 60, ["127.0.0.2"])
        known = statuses(center, [PASSWORD], ["127.0.0.3"])
        crowd = Counter()
        for _ in range(3):  # from ten addresses, a few at once each
            crowd += statuses(center, ["wrong"] * 50, [f"127.0.1.{n}" for n in range(10)])
        later = statuses(center, [PASSWORD], ["127.0.0.3"]), statuses(center, [PASSWORD], ["127.0.0.4"])
    lines = center.log.count("wrong administrator password")
    center.told(
        "wrong passwords", at_once=dict(at_once), crowd=dict(crowd), known_later=dict(later[0]),
        new_later=dict(later[1]), logged=lines,
    )  # fmt: skip
    assert at_once[401] <= 10
    assert crowd[401] <= 100
    assert known == later[0] == later[1] == {200: 1}
    assert lines == at_once[401] + crowd[401]
    assert center.memory_mb < BOUND_MB


@pytest.mark.skipif(not FULL, reason="in tests/center/api/test_security.py without a process: make attack")
def test_guesses_at_secrets_and_keys_tell_nothing_and_stop(tmp_path):
    with victim(tmp_path) as center, center.watched(), requests.Session() as session:
        session.auth = None
        admin = {"auth": ("admin", PASSWORD), "timeout": 10}
        assert session.post(f"{center.url}/api/devices/known", **admin).status_code == 201
        told = set()
        for device in ("known", "unknown"):
            for path in (f"/api/devices/{device}", f"/api/env/{device}"):
                method = "GET" if "env" in path else "POST"
                answer = session.request(method, center.url + path, headers={"X-Device-Secret": "x" * 32}, timeout=40)
                told.add((method, answer.status_code, answer.text))
        began, guesses = time.monotonic(), 2000 if FULL else 200
        seen = Counter(
            session.post(
                f"{center.url}/api/devices/known", headers={"X-Device-Secret": f"{n:032}"}, timeout=10
            ).status_code
            for n in range(guesses)
        )
        took = time.monotonic() - began
    lines = center.log.count("wrong device secrets")
    center.told(
        "guesses", different_answers=len(told) - 2, statuses=dict(seen), a_s=round(guesses / took), logged=lines
    )
    assert len(told) == 2
    assert set(seen) == {401, 429}
    assert seen[401] <= 60 * (took // 60 + 1)
    assert lines == 1


@pytest.mark.skipif(not FULL, reason="in tests/center/pages/test_admin.py without a process: make attack")
def test_a_copy_of_a_cookie_is_worth_nothing_after_the_logout(tmp_path):
    with victim(tmp_path) as center, requests.Session() as session:

        def form(path, **fields):
            token = re.search(r'name="csrf_token"[^>]*value="([^"]+)"', session.get(center.url + path, timeout=40).text)
            sent = fields | {"csrf_token": token[1]}
            return session.post(f"{center.url}{'/logout' if path == '/add' else path}", sent, timeout=40)

        form("/login", password=PASSWORD)
        copy = dict(session.cookies)
        assert requests.get(f"{center.url}/add", cookies=copy, timeout=10, allow_redirects=False).status_code == 200
        form("/add")
        after = requests.get(f"{center.url}/add", cookies=copy, timeout=10, allow_redirects=False).status_code
        center.told("a cookie after the logout", status=after)
        assert after == 302
