"""The HTTP server's bounds, with an application of a few lines behind it."""

import contextlib
import socket
import threading
from types import SimpleNamespace

import pytest
from waitress import wasyncore

from center import channel
from center import server as of_all
from center.incoming import FULL, Refusal, ask
from center.limits import SMALL_BODY
from center.server import Server, dispensable
from tests.waiting import wait_for

BIG = 300_000


def application(environ, start_response):
    """/write wants its body where there is a token; /large answers with much; anything else with nothing."""
    if environ["PATH_INFO"] == "/write":
        if "HTTP_AUTHORIZATION" not in environ:
            start_response("401 UNAUTHORIZED", [("Content-Type", "text/plain"), ("Content-Length", "4")])
            return [b"who?"]
        size = str(len(environ["wsgi.input"].read())).encode()
        start_response("200 OK", [("Content-Length", str(len(size)))])
        return [size]
    if environ["PATH_INFO"] == "/large":
        start_response("200 OK", [("Content-Length", "8000000")])
        return [bytes(8_000_000)]
    start_response("204 NO CONTENT", [])
    return []


@pytest.fixture
def serving(monkeypatch):
    """A function that starts a server with these bounds; what the module's constants are meanwhile."""
    with contextlib.ExitStack() as stack:

        def start(connections=100, held=4_000_000, each=1000, **constants):
            for name, value in constants.items():
                monkeypatch.setattr(channel if hasattr(channel, name) else of_all, name, value)
            listening = stack.enter_context(socket.create_server(("127.0.0.1", 0)))
            server = Server(application, listening, connections, held, each, threads=2, max_request_body_size=8_000_000)
            server.adj.cleanup_interval = 0
            over = threading.Event()

            def loop():
                while not over.is_set():
                    wasyncore.loop(timeout=0.02, use_poll=True, map=server.map, count=1)

            def stop():
                over.set()
                thread.join()
                server.task_dispatcher.shutdown()
                wasyncore.close_all(server.map)

            thread = threading.Thread(target=loop)
            thread.start()
            stack.callback(stop)

            def connect(source="127.0.0.1"):
                address = ("127.0.0.1", server.effective_port)
                return stack.enter_context(socket.create_connection(address, 10, source_address=(source, 0)))

            return server, connect

        yield start


def head(path="/", length=None, **headers):
    lines = [f"{'GET' if length is None else 'POST'} {path} HTTP/1.1", "Host: a"]
    lines += [] if length is None else [f"Content-Length: {length}"]
    lines += [f"{name.replace('_', '-')}: {value}" for name, value in headers.items()]
    return "\r\n".join([*lines, "", ""]).encode()


def answer(connection):
    """Status and body of what comes, read to its Content-Length or the end."""
    got = b""
    while b"\r\n\r\n" not in got and (piece := connection.recv(65_536)):
        got += piece
    first, _, rest = got.partition(b"\r\n\r\n")
    lengths = [int(line.split(b":")[1]) for line in first.split(b"\r\n") if line.lower().startswith(b"content-length")]
    while lengths and len(rest) < lengths[0] and (piece := connection.recv(65_536)):
        rest += piece
    return first.split(b"\r\n")[0].split()[1:2], rest


def ended(connection):
    """Once the server has closed it."""
    try:
        while connection.recv(65_536):
            pass
    except ConnectionResetError:
        pass
    return True


def test_a_large_body_that_the_application_refuses_is_not_taken_in_and_the_answer_is_read(serving):
    server, connect = serving()
    connection = connect()
    connection.sendall(head("/write", BIG) + bytes(1000))
    assert answer(connection) == ([b"401"], b"who?")
    assert server._held < 2000
    connection.sendall(bytes(BIG - 1000))  # it is read all the same: no reset takes the answer from who sends first
    assert ended(connection)
    assert server._held == 0


@pytest.mark.parametrize("expects", [False, True])
def test_a_large_body_that_the_application_wants_arrives_whole(serving, expects):
    server, connect = serving()
    connection = connect()
    more = {"Expect": "100-continue"} if expects else {}
    connection.sendall(head("/write", BIG, Authorization="t", **more))
    if expects:
        assert answer(connection) == ([b"100"], b"")
    connection.sendall(bytes(BIG))
    assert answer(connection) == ([b"200"], str(BIG).encode())
    connection.sendall(head("/write", 3, Authorization="t") + b"abc")
    assert answer(connection) == ([b"200"], b"3")
    assert server.full() is False


def test_who_waits_to_be_told_to_continue_is_told_not_to(serving):
    _, connect = serving()
    connection = connect()
    connection.sendall(head("/write", BIG, Expect="100-continue"))
    assert answer(connection) == ([b"401"], b"who?")
    assert ended(connection)


def test_a_body_in_chunks_is_asked_about_whatever_its_length(serving):
    _, connect = serving()
    for more, expected in (({}, ([b"401"], b"who?")), ({"Authorization": "t"}, ([b"200"], b"5"))):
        connection = connect()
        connection.sendall(head("/write", **more, Transfer_Encoding="chunked").replace(b"GET", b"POST"))
        connection.sendall(b"5\r\nhello\r\n0\r\n\r\n")
        assert answer(connection) == expected


FRAMED = b"POST /write HTTP/1.1\r\nHost: a\r\nAuthorization: t\r\nTransfer-Encoding: chunked\r\n"


@pytest.mark.parametrize(
    "sent",
    [
        FRAMED + b"Content-Length: 5\r\n\r\n0\r\n\r\n",
        FRAMED.replace(b"1.1", b"1.0") + b"Content-Length: 5\r\n\r\n0\r\n\r\n",
        FRAMED + b"\r\n1;a=" + b"a" * 20_000,
        FRAMED + b"\r\n0\r\nA: " + b"a" * 20_000,
        b"GET http://[ HTTP/1.1\r\nHost: a\r\n\r\n",
        b"POST /write HTTP/1.1\r\nHost: a\r\nContent-Length: " + b"0" * 5000 + b"5\r\n\r\n",
    ],
    ids=["two lengths", "HTTP/1.0", "extension", "trailer", "address", "digits"],
)
def test_what_is_framed_oddly_is_refused_and_ends_the_connection(serving, caplog, sent):
    _, connect = serving()
    connection = connect()
    connection.sendall(sent)
    assert answer(connection)[0] == [b"400"]
    assert ended(connection)
    assert "exception" not in caplog.text


def test_a_204_leaves_the_connection_open(serving):
    _, connect = serving()
    connection = connect()
    for _ in range(3):
        connection.sendall(head())
        assert answer(connection) == ([b"204"], b"")
    connection.sendall(head(Connection="close"))
    assert ended(connection)


@pytest.mark.parametrize(
    ("constants", "sent"),
    [
        ({"HEADERS_S": 0.1}, b""),
        ({"HEADERS_S": 0.1}, b"GET / HTTP/1.1\r\nHost"),
        ({"BODY_S": 0.1}, head("/write", 100) + b"abc"),
        ({"BODY_S": 0.1}, head("/write", BIG, Authorization="t") + b"abc"),
    ],
    ids=["nothing", "headers", "a body", "a large body"],
)
def test_who_is_slow_is_not_waited_for(serving, constants, sent):
    _, connect = serving(**constants)
    connection = connect()
    connection.sendall(sent)
    assert ended(connection)


def test_an_answer_that_nobody_reads_is_dropped(serving):
    server, _ = serving(held=20_000_000, BODY_S=0.1, SLOWEST=1e9)
    with socket.socket() as connection:
        connection.setsockopt(socket.SOL_SOCKET, socket.SO_RCVBUF, 4096)  # the kernel does not read it all in its place
        connection.connect(("127.0.0.1", int(server.effective_port)))
        connection.sendall(head("/large"))
        assert connection.recv(1) == b"H"
        wait_for(lambda: not server.active_channels)
    assert server._held == 0


def test_requests_behind_an_answer_that_nobody_reads_wait_and_no_thread_with_them(serving):
    server, connect = serving(held=100_000_000)
    started, inner = [], server.application

    def counted(environ, start_response):
        started.append(environ["PATH_INFO"])
        return inner(environ, start_response)

    server.application = counted
    unread = [connect() for _ in range(2)]  # as many as there are threads
    for connection in unread:
        connection.sendall(head("/large") * 5)
    wait_for(lambda: [channel.waits for channel in list(server.active_channels.values())] == [True, True])
    with connect() as other:
        other.sendall(head())
        assert other.recv(12) == b"HTTP/1.1 204"
    assert started.count("/large") == 2
    unread[0].close()
    left = 5 * 8_000_000
    while left > 0:
        left -= len(unread[1].recv(1_000_000))
    unread[1].close()
    wait_for(lambda: not server.active_channels)


def test_of_too_many_connections_that_owe_a_request_the_oldest_of_the_fullest_address_go(serving):
    server, connect = serving(OWING=20)
    other = connect("127.0.0.2")
    other.sendall(b"GET / HTTP/1.1\r\n")
    idle = connect("127.0.0.3")
    idle.sendall(head())
    assert answer(idle) == ([b"204"], b"")
    many = [connect() for _ in range(100)]
    assert ended(many[0])
    last = connect()
    last.sendall(head())
    assert answer(last) == ([b"204"], b"")
    other.sendall(b"Host: a\r\n\r\n")
    assert answer(other) == ([b"204"], b"")
    idle.sendall(head())
    assert answer(idle) == ([b"204"], b"")
    assert len(server.owing) <= 20


def test_an_address_that_owes_too_many_requests_gets_no_further_connection(serving):
    server, connect = serving(each=10)
    many = [connect("127.0.0.2") for _ in range(20)]
    assert all(ended(connection) for connection in many[10:])
    other = connect()
    other.sendall(head())
    assert answer(other) == ([b"204"], b"")
    many[0].sendall(head())
    assert answer(many[0]) == ([b"204"], b"")
    again = connect("127.0.0.2")
    again.sendall(head())
    assert answer(again) == ([b"204"], b"")
    assert len(server.owing) == 9


def test_all_that_is_held_is_bounded(serving):
    """Strangers' first; then whoever brings too much is told to come again."""
    server, connect = serving(held=BIG)
    strangers = [connect("127.0.0.2") for _ in range(6)]
    for connection in strangers:
        with contextlib.suppress(ConnectionError):
            connection.sendall(head("/write", SMALL_BODY) + bytes(SMALL_BODY - 1))
    assert ended(strangers[0])
    known = [connect() for _ in range(2)]
    for connection in known:  # the first one's bytes are all there before the other's come
        connection.sendall(head("/write", BIG, Authorization="t"))
        connection.sendall(bytes(BIG - 100_000))
        wait_for(lambda: max(channel.held for channel in list(server.active_channels.values())) >= BIG - 100_000)
    assert answer(known[1]) == ([b"503"], FULL.body)
    known[0].sendall(bytes(100_000))
    assert answer(known[0]) == ([b"200"], str(BIG).encode())
    assert server._held <= BIG


def test_what_can_be_spared_goes_in_this_order():
    def channel(name, network, stage, since):
        return SimpleNamespace(name=name, network=network, stage=lambda: stage, began_s=since, last_activity=since)

    channels = [
        channel("at work", "a", 3, 0), channel("does not read", "a", 2, 0), channel("idle", "a", 1, 0),
        channel("owes, alone", "b", 0, 1), channel("owes, late", "a", 0, 3), channel("owes, first", "a", 0, 2),
    ]  # fmt: skip
    assert [c.name for c in dispensable(channels, lambda _: 1)] == [
        "owes, first", "owes, late", "owes, alone", "idle", "does not read",
    ]  # fmt: skip


def test_asked_about_a_body_the_application_answers_or_wants_it():
    assert ask(application, {"PATH_INFO": "/write", "HTTP_AUTHORIZATION": "t"}) is None
    headers = (("Content-Type", "text/plain"),)
    assert ask(application, {"PATH_INFO": "/write"}) == Refusal("401 UNAUTHORIZED", headers, b"who?")
    assert ask(application, {"PATH_INFO": "/large"}) == Refusal("200 OK", (), bytes(8_000_000))
