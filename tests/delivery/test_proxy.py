"""Both ways through a real proxy (tinyproxy): what gets through, and what becomes of each of its refusals."""

import gzip

import pytest

from agent.delivery.outcome import Delivered, Reauthorise, Retry, Slow, decide, may_be_stored
from agent.delivery.trial import try_out
from agent.delivery.writer import Writer
from agent.registration.answers import RegistrationError
from agent.registration.client import CenterClient
from agent.registration.target import Target
from agent.util.http import Answer
from agent.util.proxy import VARIABLES
from agent.util.secret import Secret
from tests.certificates import make_certificate, server_context
from tests.proxies import PASSWORD, seen_from_there, tinyproxy
from tests.servers import InfluxServer

pytestmark = pytest.mark.tinyproxy

BODY = gzip.compress(b"environment,clientId=pi-1 Temperature=7.25 1795500567859224683\n")
NOW = 1_795_500_567_000_000_000


@pytest.fixture
def through(tmp_path, monkeypatch):
    """Starts a proxy and names it in the environment; gives its address without the password."""
    running = []
    for name in VARIABLES:
        monkeypatch.delenv(name, raising=False)
        monkeypatch.delenv(name.upper(), raising=False)

    def start(password=PASSWORD, **options):
        running.append(tinyproxy(tmp_path, **options))
        url = running[-1].__enter__().replace(PASSWORD, password)
        monkeypatch.setenv("HTTP_PROXY", url)
        monkeypatch.setenv("HTTPS_PROXY", url)
        return f"http://{url.rpartition('@')[2]}"

    yield start
    for proxy in running:
        proxy.__exit__(None, None, None)


def write(url, body=BODY, **tls):
    """One write, and what is made of it."""
    writer = Writer(Target(url, "my-org", "iot_center", Secret("token-1"), **tls), 5.0)
    try:
        answer = writer.write(body)
    finally:
        writer.close()
    assert PASSWORD not in repr(answer) + answer.error
    return answer, decide(answer, None, now_ns=NOW)


def ask(url, **tls):
    center = CenterClient(url, Secret("device-secret"), timeout_s=5.0, **tls)
    try:
        return center.ask("GET", "/api/devices")
    finally:
        center.close()


def test_points_go_through_it(through):
    proxy = through()
    with InfluxServer() as server:
        answer, outcome = write(seen_from_there(server.url))
        assert (answer.status, answer.proxy, outcome) == (204, proxy, Delivered())
        assert "tinyproxy" in server.requests[0].headers["via"]
        assert "proxy-authorization" not in server.requests[0].headers
        assert len(server.points) == 1


def test_this_very_machine_is_reached_directly(through, httpserver):
    through(password="wrong-one")
    with InfluxServer() as server:
        assert write(server.url)[0].status == 204
    httpserver.expect_request("/api/devices").respond_with_json([])
    assert ask(httpserver.url_for("").rstrip("/")).status == 200


def test_points_go_through_a_tunnel_with_tls_checked_to_the_server(through, tmp_path):
    through()
    cert, key = make_certificate(tmp_path)
    with InfluxServer(tls=server_context(cert, key, asks_for=cert)) as server:
        shown = {"ca_file": str(cert), "client_cert": (str(cert), str(key))}
        assert write(seen_from_there(server.url), **shown)[0].status == 204
        assert "via" not in server.requests[0].headers
        assert len(server.points) == 1
        answer, _ = write(seen_from_there(server.url))
        assert answer.status is None
        assert answer.error.startswith("TLS failed")
        assert not may_be_stored(answer)


def test_the_center_is_asked_through_it_too(through, httpserver, tmp_path):
    through()
    httpserver.expect_request("/api/devices").respond_with_json([])
    assert ask(seen_from_there(httpserver.url_for("").rstrip("/"))).status == 200
    assert "tinyproxy" in httpserver.log[0][0].headers["Via"]


@pytest.mark.parametrize("tls", [False, True])
def test_a_refused_password_is_told_with_the_remedy_and_no_token_is_renewed(through, tls):
    proxy = through(password="wrong-one")
    scheme = "https" if tls else "http"
    for body in (BODY, b""):
        answer, outcome = write(f"{scheme}://127.1:9", body)
        assert isinstance(outcome, Slow)
        assert outcome.text.startswith(f"the proxy {proxy} asks for a user and a password")
        assert "HTTP_PROXY" in outcome.text
        assert "wrong-one" not in outcome.text + answer.error
        assert not may_be_stored(answer)
    with pytest.raises(RegistrationError, match=rf"the proxy {proxy} asks for a user and a password") as caught:
        ask(f"{scheme}://127.1:9")
    assert "wrong-one" not in str(caught.value)


@pytest.mark.parametrize("tls", [False, True])
def test_a_server_that_the_proxy_does_not_reach_is_an_outage_and_no_fault_of_the_points(through, tls):
    proxy = through()
    answer, outcome = write(f"{'https' if tls else 'http'}://127.1:9")
    assert isinstance(outcome, Retry)
    assert outcome.kind == "proxy"
    assert outcome.server
    assert outcome.text == f"the proxy {proxy} does not reach the server ({answer.tunnel or answer.status})"


def test_a_rule_of_the_proxy_is_no_refusal_of_the_token(through, tmp_path):
    (tmp_path / "filter").write_text("127.1\n")
    proxy = through(rules=f'Filter "{tmp_path / "filter"}"\nFilterDefaultDeny No\n')
    for scheme in ("http", "https"):
        answer, outcome = write(f"{scheme}://127.1:9")
        assert 403 in (answer.status, answer.tunnel)
        assert isinstance(outcome, Slow)
        assert outcome.text.startswith(f"the proxy {proxy} lets nobody through to this server (403)")


def test_the_center_that_the_proxy_keeps_from_it_is_not_taken_for_one_that_refuses(through, tmp_path):
    (tmp_path / "filter").write_text("example\n")
    proxy = through(rules=f'Filter "{tmp_path / "filter"}"\nFilterDefaultDeny No\n')
    for scheme in ("http", "https"):
        with pytest.raises(RegistrationError, match=rf"the proxy {proxy} lets nobody through"):
            ask(f"{scheme}://center.example:5000")
        with pytest.raises(RegistrationError, match=rf"the proxy {proxy} does not reach the server"):
            ask(f"{scheme}://127.1:9")


def test_the_servers_own_403_through_a_proxy_is_about_the_token(through):
    through()
    with InfluxServer() as server:
        server.always = server.answer(403, {"code": "forbidden", "message": "insufficient permissions"})
        assert isinstance(write(seen_from_there(server.url))[1], Reauthorise)


def test_a_proxy_that_is_not_there_is_named(monkeypatch):
    monkeypatch.setenv("HTTP_PROXY", f"http://me:{PASSWORD}@127.0.0.1:9")
    _, outcome = write("http://influx.example:8086")
    assert isinstance(outcome, Retry)
    assert outcome.text.startswith("the proxy of the environment does not connect: Connection refused")
    with pytest.raises(RegistrationError, match="the proxy of the environment does not connect") as caught:
        ask("http://center.example:5000")
    assert PASSWORD not in str(caught.value)


def test_promise_7_a_proxy_url_that_cannot_be_read_shows_no_password(monkeypatch):
    for url in (f"http://me:{PASSWORD}@[::1", f"http://me:{PASSWORD}@proxy:port", f"socks5://me:{PASSWORD}@proxy:1"):
        monkeypatch.setenv("HTTP_PROXY", url)
        assert write("http://influx.example:8086")[0].status is None
        with pytest.raises(RegistrationError) as caught:
            ask("http://center.example:5000")
        assert PASSWORD not in str(caught.value)


def test_what_register_and_doctor_say_of_a_proxy(through):
    proxy = through(password="wrong-one")
    trial = try_out(Target("http://127.1:9", "o", "b", Secret("token-1")), 5.0, "another token")
    assert not trial.good
    assert trial.seen == f"the proxy {proxy} asks for a user and a password, or refuses them (407)"
    assert trial.remedy.startswith("put them into HTTP_PROXY")


def test_an_html_403_without_a_proxy_is_about_the_token():
    html = {"content-type": "text/html"}
    assert isinstance(decide(Answer(403, html, b"<html>"), None, now_ns=NOW), Reauthorise)
