"""What devices write is passed on to VictoriaMetrics: with a token, whole, and 204 only for what it took."""

import contextlib
import dataclasses
import gzip
import json
import threading
import time
from concurrent.futures import ThreadPoolExecutor

import pytest
from pytest_httpserver import HTTPServer
from werkzeug import Response

from agent.util.secret import Secret
from center import write_request
from center.api import forwarding
from center.app import create_app
from center.context import EXTENSION
from center.settings import EmbeddedSettings, ServerSettings, Settings, VictoriaSettings
from tests.center_helpers import HASH, code

PATH = "/api/v2/write?org=iot-center&bucket=iot_center"
LINE = b"environment,clientId=pi-7,device=pi-7 Temperature=20.5"


class Store:
    """A VictoriaMetrics that answers as it is told, and what it was sent."""

    def __init__(self, server):
        self.url, self.answer, self.requests = server.url_for(""), Response(status=204), []
        server.expect_request("/api/v2/write").respond_with_handler(self.handle)
        server.expect_request("/flags").respond_with_data('-retentionPeriod="30d"\n-storageDataPath="x"\n')

    def handle(self, request):
        request.get_data()
        self.requests.append(request)
        return self.answer


@pytest.fixture(scope="module")
def served(tmp_path_factory):
    """A center, and the store that it writes to."""
    with HTTPServer() as server:
        store = Store(server)
        settings = Settings(
            victoria=VictoriaSettings(url=store.url, token=Secret("for-vmauth")),
            store=EmbeddedSettings(data=str(tmp_path_factory.mktemp("center"))),
            server=ServerSettings(port=0, max_body=300_000),
        )
        app = create_app(settings)
        yield app, store
        app.extensions[EXTENSION].close()


@pytest.fixture
def store(served):
    served[1].requests.clear()
    served[1].answer = Response(status=204)
    return served[1]


@pytest.fixture
def app(served):
    return served[0]


@pytest.fixture
def client(app):
    return app.test_client()


@pytest.fixture(scope="module")
def token(served):
    return served[0].test_client().post("/api/devices/pi-7").json["token"]


def sent(client, token, body=LINE, path=PATH, **headers):
    return client.post(path, data=body, headers={"Authorization": f"Token {token}"} | headers)


def test_a_device_is_told_to_write_to_the_center(client):
    told = client.post("/api/devices/pi-8").json
    assert (told["influx_url"], told["influx_org"], told["influx_bucket"]) == (
        "http://localhost", "iot-center", "iot_center"
    )  # fmt: skip


def test_points_go_on_with_the_centers_own_token(client, store, token):
    body = gzip.compress(LINE) + gzip.compress(b"\n" + LINE + b" 1796000000000")
    assert sent(client, token, body, f"{PATH}&precision=ms", **{"Content-Encoding": "gzip"}).status_code == 204
    (request,) = store.requests
    assert request.data == LINE + b"\n" + LINE + b" 1796000000000000000\n"
    assert (request.headers.get("Content-Encoding"), request.args["precision"]) == (None, "ns")
    assert request.headers["Authorization"] == "Bearer for-vmauth"
    assert token not in str(request.headers)


@pytest.mark.parametrize(
    ("line", "written"),
    [
        (b"\t agent,clientId=pi-7 uptime=1i \t", b"uptime=1i"),
        (b"agent,clientId=pi-7 uptime=1i\r\r\n", b"uptime=1i"),
        (b"agent,clientId=pi-7 load=.5,cpu_temperature=-5.,uptime=1E3", b"load=0.5,cpu_temperature=-5.0,uptime=1000.0"),
        (b"agent,clientId=pi-7 load=1,load=2", b"load=1.0"),
    ],
    ids=("white space", "returns", "points", "twice"),
)
def test_what_victoriametrics_reads_otherwise_is_written_for_it(client, store, token, line, written):
    """Each of these it lost, took for 0 (1.79.5), or for a line of another device."""
    assert sent(client, token, line).status_code == 204
    found = [request.data.removesuffix(b"\n").split(b" ") for request in store.requests]
    assert [(series, {*fields.split(b",")}) for series, fields in found] == [
        (b"agent,clientId=pi-7", {*written.split(b",")})
    ]


def test_without_a_live_token_nothing_is_passed_on(client, store):
    token = client.post("/api/devices/pi-9").json["token"]
    assert code(client.post(PATH, data=LINE)) == (401, "unauthorized")
    assert code(sent(client, "pi-9.wrong")) == (401, "unauthorized")
    client.delete("/api/devices/pi-9")
    assert code(sent(client, token)) == (401, "unauthorized")
    assert not store.requests


def test_an_empty_write_says_whether_the_token_is_good(client, store, token):
    assert sent(client, token, b"").status_code == 204
    assert not store.requests
    assert code(sent(client, token, path="/api/v2/write?org=iot-center&bucket=other")) == (404, "not found")
    assert code(sent(client, token, path=f"{PATH}&precision=h")) == (400, "invalid")


@pytest.mark.parametrize(
    ("line", "reason"),
    [
        (b"environment Temperature=", "missing field value"),
        (b'environment,clientId=pi-7 Note="hello"', "keeps numbers only"),
        (b'agent,clientId=pi-7 uptime=1i,why="x\nenvironment,clientId=pi-8 Temperature=99\n"', "keeps numbers only"),
        (b'environment,clientId=pi-7,room=a"b Temperature=1', "quotation mark"),
        (b"environment,clientId=pi-7 Temperature=1 1700000000000000000", "-retentionPeriod"),
        (b"environment,clientId=pi-7 Temperature=1 %d" % (time.time_ns() + 3 * 86_400 * 10**9), "two days ahead"),
        (b"environment,clientId=pi-7,room=a\\\\b Temperature=1", "one backslash"),
        (b"environment,clientId=pi-7,rollup=a Temperature=1", "tag rollup itself"),
        (b"environment,__name__=agent_uptime Temperature=1", "tag __name__ itself"),
        (b"environment" + b"".join(b",t%d=1" % n for n in range(31)) + b" Temperature=1", "keeps 30 tags"),
        (b"environment," + b"k" * 257 + b"=1 Temperature=1", "256 bytes of a tag's name"),
        (b"environment,room=" + b"x" * 1025 + b" Temperature=1", "1024 bytes"),
        (b"environment " + b"x" * 1025 + b"=1", "1024 bytes"),
        (b"environment Temperature=9007199254740993i", "Temperature: VictoriaMetrics keeps no value beyond 2^53"),
        (b"environment Temperature=-1e16", "Temperature: VictoriaMetrics keeps no value beyond 2^53"),
        (b"environment " + b",".join(b"f%06d=1i" % n for n in range(26_300)), "no line of more than 262144 bytes"),
    ],
    ids=(
        "syntax",
        "text",
        "newline in a text",
        "quotation mark",
        "older than kept",
        "ahead",
        "backslashes",
        "rollup",
        "name",
        "tags",
        "name of a tag",
        "tag",
        "field",
        "integer",
        "float",
        "line",
    ),
)
def test_what_it_would_leave_out_without_a_word_is_named_and_nothing_is_passed_on(client, store, token, line, reason):
    answer = sent(client, token, b"\n".join([LINE, line, LINE]))
    assert code(answer) == (400, "invalid")
    assert answer.json["message"].startswith(f"unable to parse '{line.decode()[:60_000]}")
    assert reason in answer.json["message"]
    assert answer.json["message"].count("unable to parse") == 1
    assert not store.requests


@pytest.mark.parametrize(
    ("answer", "expected"),
    [
        (Response("busy", 503, {"Retry-After": "7"}), (503, "7")),
        (Response("slow down", 429, {"Retry-After": "90"}), (429, "90")),
        (Response("too large", 413), (413, None)),
        (Response("unsupported path", 400), (503, "10")),  # a wrong write_url, a token that vmauth does not know
        (Response("broken", 500), (500, None)),
        (Response("no backend", 502), (502, None)),
        (Response("who are you", 401), (503, "10")),  # the center's own token: not the device's to renew
        (Response("no such path", 404), (503, "10")),
        (Response(status=302, headers={"Location": "http://elsewhere/"}), (503, "10")),
        (Response("fine?", 200), (503, "10")),
    ],
)
def test_only_what_it_took_is_answered_with_204(client, store, token, answer, expected):
    store.answer = answer
    found = sent(client, token)
    assert (found.status_code, found.headers.get("Retry-After")) == expected
    assert set(json.loads(found.data)) == {"code", "message"}
    assert "for-vmauth" not in found.text


def test_nobody_there_is_a_503_and_the_health_says_so(app, client, token, monkeypatch):
    victoria = app.extensions[EXTENSION].telemetry.victoria
    for name in ("url", "write_url"):
        monkeypatch.setattr(victoria, name, "http://127.0.0.1:9")
    found = sent(client, token)
    assert code(found) == (503, "unavailable")
    assert "does not answer" in found.json["message"]
    assert found.headers["Retry-After"] == "10"
    assert client.get("/health").status_code == 503


def test_writes_that_wait_for_a_slow_store_leave_threads_for_the_rest(client, store, token, monkeypatch):
    monkeypatch.setattr(forwarding, "passing", threading.BoundedSemaphore(1))
    monkeypatch.setattr(forwarding, "WAIT_S", 0.001)
    with forwarding.passing:
        found = sent(client, token)
    assert (code(found), found.headers["Retry-After"]) == ((503, "unavailable"), "10")
    assert not store.requests
    store.answer = Response("broken", 500)
    for _ in range(2):  # each gives back its place, also one that failed
        assert sent(client, token).status_code == 500
    assert len(store.requests) == 2


def test_writes_that_wait_for_what_a_slow_store_keeps_leave_threads_for_the_rest(
    app, client, store, token, monkeypatch
):
    """A VictoriaMetrics that hangs before it has told its flags."""
    asked, told = threading.Event(), threading.Event()

    def flags():
        asked.set()
        assert told.wait(30)
        return {}

    monkeypatch.setattr(app.extensions[EXTENSION].telemetry.victoria, "flags", flags)
    monkeypatch.setattr(forwarding, "passing", threading.BoundedSemaphore(1))
    monkeypatch.setattr(forwarding, "WAIT_S", 0.001)
    with ThreadPoolExecutor() as threads:
        first = threads.submit(sent, app.test_client(), token)
        assert asked.wait(30)
        second = threads.submit(sent, client, token)
        try:
            assert code(second.result(40)) == (503, "unavailable")
        finally:
            told.set()
        assert first.result().status_code == 204
    assert len(store.requests) == 1


def test_a_body_is_bounded_packed_or_not_and_a_large_one_waits_for_another(client, store, token, monkeypatch):
    packed = gzip.compress(LINE + b"\n" * 400_000)
    assert sent(client, token, packed, **{"Content-Encoding": "gzip"}).status_code == 413
    assert sent(client, token, b"\n" * 400_000).status_code == 413
    monkeypatch.setattr(write_request, "SMALL", 5)
    monkeypatch.setattr(write_request, "LARGE", 10)
    monkeypatch.setattr(write_request, "WAIT_S", 0.01)
    with write_request.one_large:
        assert sent(client, token).status_code == 503
    assert sent(client, token).status_code == 204
    assert len(store.requests) == 1


def test_where_a_password_is_set_a_token_writes_under_its_own_id_only(app, store, tmp_path):
    settings = app.extensions[EXTENSION].settings
    own = create_app(dataclasses.replace(settings, store=EmbeddedSettings(data=str(tmp_path))))
    with contextlib.closing(own.extensions[EXTENSION]) as center:
        client, token = own.test_client(), center.registry.register("pi-7").token.reveal()
        others = LINE + b"\n" + LINE.replace(b"device=pi-7", b"device=pi-8")
        assert sent(client, token, others).status_code == 204
        center.registry.set_password_hash(HASH)
        answer = sent(client, token, others)
        assert code(answer) == (403, "forbidden")
        assert "device 'pi-8' is not 'pi-7'" in answer.json["message"]
        assert sent(client, token).status_code == 204
    assert len(store.requests) == 2
