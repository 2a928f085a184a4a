"""One answer, bounded in time and size, whichever client asks; and what is said when there is none."""

import base64
import gzip
import socket
import ssl
import time

import pytest
from hypothesis import given
from hypothesis import strategies as st
from urllib3.exceptions import ConnectTimeoutError, MaxRetryError, NewConnectionError, ProtocolError, ReadTimeoutError

from agent.registration.answers import RegistrationError
from agent.registration.client import MAX_ANSWER, CenterClient
from agent.util.http import RETRY_AFTER_MAX_S, RETRY_AFTER_MIN_S, Answer, Bounds
from agent.util.secret import Secret
from tests.servers import InfluxServer


@pytest.fixture
def server():
    with InfluxServer() as running:
        yield running


@pytest.fixture
def client(server):
    """Makes clients of a center, with so many seconds of patience."""
    made = []

    def make(timeout_s, url=server.url):
        made.append(CenterClient(url, Secret("the-device-secret"), timeout_s=timeout_s))
        return made[-1]

    yield make
    for one in made:
        one.close()


def test_a_center_is_asked_over_one_connection(server, client):
    center = client(40)
    server.script.extend([server.answer(200, {"n": 1}), server.answer(404, b"no"), server.answer(204)])
    assert [center.ask("POST", "/x").status for _ in range(3)] == [200, 404, 204]
    assert server.connections == 1


def test_a_head_byte_by_byte_is_not_waited_for_longer_than_the_timeout(server, client):
    server.script.append(server.trickle(0.05, padding=2000))  # which takes 100 s
    before = time.monotonic()
    with pytest.raises(RegistrationError, match=r"no answer within 0.5 s"):
        client(0.5).ask("POST", "/x")
    assert time.monotonic() - before < 50


def test_an_answer_through_a_proxy_is_bounded_too(server, client, monkeypatch):
    monkeypatch.setenv("http_proxy", server.url)
    patient, other = client(40, "http://center.example"), client(0.5, "http://center.example")
    server.script.extend([server.answer(200, {"n": 1}), server.trickle(0.05), server.answer(200, b"x" * 100_000)])
    assert patient.ask("POST", "/x").record() == {"n": 1}
    with pytest.raises(RegistrationError, match=r"no answer within 0.5 s"):
        other.ask("POST", "/x")
    with pytest.raises(RegistrationError, match=f"over {MAX_ANSWER} bytes"):
        patient.ask("POST", "/x")


def test_a_proxy_is_told_its_login_and_left_out_where_the_environment_says_so(server, client, monkeypatch):
    monkeypatch.setenv("http_proxy", server.url.replace("http://", "http://me:p%40ss@"))
    monkeypatch.setenv("no_proxy", "127.0.0.1")
    server.script.extend([server.answer(200, {"n": 1}), server.answer(200, {"n": 2})])
    for url in ("http://center.example", server.url):
        client(40, url).ask("POST", "/x")
    logins = [request.headers.get("proxy-authorization") for request in server.requests]
    assert logins == [f"Basic {base64.b64encode(b'me:p@ss').decode()}", None]


def test_what_is_packed_is_not_unpacked(server, client):
    body = gzip.compress(b"z" * 10_000_000)
    server.script.append(server.answer(200, body, content_encoding="gzip"))
    assert client(40).ask("POST", "/x").answer.body == body


def broken(error, cause=None):
    """What comes of a request that ends with `error`, raised because of `cause`."""

    def send():
        raise error from cause

    return Bounds(5, 100).exchange(send)


@pytest.mark.parametrize(
    ("error", "cause", "timed_out", "text"),
    [
        (ReadTimeoutError(None, "", "Read timed out."), TimeoutError("timed out"), True, "no answer within 5 s"),
        (ProtocolError("Connection aborted.", TimeoutError("timed out")), None, True, "no answer within 5 s"),
        (ConnectTimeoutError("Timeout"), TimeoutError("timed out"), False, "no connection within 5 s: check"),
        (MaxRetryError(None, "", ConnectTimeoutError(TimeoutError())), None, False, "no connection within 5 s"),
        (ConnectionResetError(104, "Connection reset by peer"), None, False, "ConnectionResetError: Connection reset"),
        (ProtocolError("a Timeout of its own naming"), None, False, "ProtocolError: a Timeout of its own naming"),
        (NewConnectionError(None, ""), ConnectionRefusedError(111, "Connection refused"), False, "refused: check"),
        (NewConnectionError(None, ""), socket.gaierror(-2, "Name not known"), False, "resolved (Name not known)"),
        (OSError("x"), ssl.SSLCertVerificationError(1, "certificate verify failed"), False, "TLS failed"),
        (ValueError("<object at 0x7f> is no port"), None, False, "ValueError"),
    ],
)
def test_a_timeout_is_known_by_its_class_and_every_failure_said_in_words(error, cause, timed_out, text):
    answer = broken(error, cause)
    assert (answer.status, answer.timed_out) == (None, timed_out)
    assert text in answer.error
    assert "\n" not in answer.error
    assert len(answer.error) <= 400


def test_a_request_that_ends_without_an_answer_is_said_to():
    assert Bounds(5, 100).exchange(lambda: None) == Answer(None, error="no answer")


def test_promise_7_the_repr_of_an_answer_shows_nothing_of_its_body_and_headers():
    assert "tok" not in repr(Answer(200, {"x": "tok-1"}, b"tok-2"))


NOW = 1_795_500_567 * 1_000_000_000  # Tue, 24 Nov 2026 06:09:27 GMT


@pytest.mark.parametrize(
    ("text", "seconds"),
    [
        ("7", 7.0),
        (" 30 ", 30.0),
        ("0", RETRY_AFTER_MIN_S),
        ("86400", RETRY_AFTER_MAX_S),
        ("9" * 400, RETRY_AFTER_MAX_S),
        ("Tue, 24 Nov 2026 06:10:27 GMT", 60.0),
        ("Tuesday, 24-Nov-26 06:10:27 GMT", 60.0),
        ("Tue Nov 24 06:10:27 2026", 60.0),
        ("Tue, 24 Nov 2020 06:10:27 GMT", RETRY_AFTER_MIN_S),
        ("Tue, 24 Nov 2099 06:10:27 GMT", RETRY_AFTER_MAX_S),
        ("soon", None),
        ("-5", None),
        ("1.5", None),
        ("٣", None),
        ("", None),
    ],
)
def test_retry_after_is_understood_in_both_forms_and_bounded(text, seconds):
    assert Answer(503, {"retry-after": text}).retry_after_s(NOW) == seconds
    assert Answer(503).retry_after_s(NOW) is None


@given(st.text())
def test_no_header_however_strange_raises(text):
    Answer(503, {"retry-after": text, "date": text}).retry_after_s(NOW)
