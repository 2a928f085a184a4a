"""One write: what is sent, what comes back, and that nothing else does."""

import gzip
import logging
import shutil
import ssl
import subprocess
import sys
import time

import pytest

from agent.delivery import writer
from agent.delivery.writer import MAX_ANSWER, Writer
from agent.registration.target import Target
from agent.util.secret import Secret
from tests.certificates import make_certificate, server_context
from tests.servers import InfluxServer

LINE = b"environment,clientId=pi-1 Temperature=7.25 1795500567859224683\n"
BODY = gzip.compress(LINE)


@pytest.fixture
def server():
    with InfluxServer() as running:
        yield running


@pytest.fixture
def write(server):
    """Write to the server; target and timeout can differ."""
    writers = []

    def once(body=BODY, timeout=5.0, **changes):
        given = {"url": server.url, "org": server.org, "bucket": server.bucket, "token": Secret(server.token)}
        target = Target(**{**given, **changes})
        writer = next((w for w in writers if w.target == target), None) or Writer(target, timeout)
        writers.append(writer)
        return writer.write(body)

    yield once
    for made in writers:
        made.close()
        made.close()


def test_a_gzipped_body_arrives_as_it_is_with_its_precision(server, write):
    answer = write()
    assert (answer.status, server.requests[0].lines, server.requests[0].size) == (204, 1, len(BODY))
    assert server.requests[0].query == {"org": "my-org", "bucket": "iot_center", "precision": "ns"}
    assert server.requests[0].headers["content-encoding"] == "gzip"
    assert abs(answer.date_ns - time.time_ns()) < 3_000_000_000


def test_a_path_prefix_of_a_reverse_proxy_stays(server, write):
    server.prefix = "/garden/db"
    assert write(url=server.url).status == 204
    assert server.requests[0].path == "/garden/db/api/v2/write"
    assert write(url=server.url.removesuffix("/db")).status == 404


def test_a_server_that_asks_for_a_certificate_gets_it(tmp_path, write):
    cert, key = make_certificate(tmp_path)
    (tmp_path / "both.pem").write_text(cert.read_text() + key.read_text())
    ca_file, both = str(cert), str(tmp_path / "both.pem")
    with InfluxServer(tls=server_context(cert, key, asks_for=cert)) as server:
        for pair in ((str(cert), str(key)), (both, both)):
            assert write(url=server.url, ca_file=ca_file, client_cert=pair).status == 204
        refused = write(url=server.url, ca_file=ca_file)
        assert refused.status is None
        assert refused.error.endswith("set client_cert and client_key")
        missing = write(url=server.url, ca_file=ca_file, client_cert=("/none.pem", "/none.key"))
        assert "No such file" in missing.error


def test_rows_joined_without_unpacking_are_one_request(server, write):
    assert write(BODY + gzip.compress(LINE.replace(b"683", b"684"))).status == 204
    assert len(server.points) == 2


def test_an_empty_write_asks_and_stores_nothing(server, write):
    assert write(b"").status == 204
    assert write(b"", token=Secret("other")).status == 401
    assert "content-encoding" not in server.requests[0].headers
    assert not server.points


def test_names_with_spaces_and_quotes_and_ids_go_through(server, write):
    server.org, server.bucket = "c497f49c19dc5eda", "sly's Bücket & co"
    assert write(org=server.org, bucket=server.bucket).status == 204


def test_the_connection_is_used_again(server, write):
    server.script.extend([None, server.answer(400, b'{"message":"x"}'), server.answer(503), None])
    assert [write().status for _ in range(5)] == [204, 400, 503, 204, 204]
    assert server.connections == 1


def test_a_path_in_front_of_the_api_is_kept(server, write):
    write(url=f"{server.url}/influx/")
    assert server.requests[0].path == "/influx/api/v2/write"


def test_promise_7_the_token_goes_in_its_header_to_this_server_only(server, write):
    with InfluxServer() as other:
        for status in (301, 302, 303, 307, 308):
            server.always = server.answer(status, location=f"{other.url}/api/v2/write")
            assert write().status == status
        assert not other.requests
    assert all(request.headers["authorization"] == "Token token-1" for request in server.requests)
    assert all("token-1" not in str(request.query) + request.path for request in server.requests)


@pytest.mark.parametrize("token", ["a\nb", "a\r\nX-Evil: 1", "tökén", "a\0b", "\u2028"])
def test_promise_7_a_token_no_header_can_carry_is_not_shown(write, server, token):
    answer = write(token=Secret(token))
    assert answer.status == 401
    assert token not in repr(answer)
    assert not server.requests


def test_promise_7_a_server_that_repeats_the_token_does_not_get_it_into_the_log(server, write, caplog):
    caplog.set_level(logging.DEBUG)
    server.always = server.answer(400, {"message": "bad token-1"}, x_token="token-1")
    answer = write()
    assert "token-1" not in repr(answer) + caplog.text
    assert answer.body == b'{"message": "bad ***"}'


def test_nobody_there_is_an_answer_too(server, write):
    with InfluxServer() as gone:
        pass
    first, second = write(url=gone.url), write(url=gone.url)
    assert first.status is None
    assert "refused" in first.error
    assert first.error == second.error  # no address of an object in it: the same trouble is the same text
    assert "resolve" in write(url="http://nowhere.invalid:1").error


def test_a_hanging_server_is_left_after_the_timeout(server, write):
    server.always = server.hang
    answer = write(timeout=0.3)
    assert answer.status is None
    assert answer.timed_out
    assert not server.released.is_set()  # it still hangs


def test_an_empty_write_has_no_more_than_a_few_seconds_however_long_points_may_take(server, write, monkeypatch):
    monkeypatch.setattr(writer, "ASK_S", 0.2)
    server.script.append(server.hang)
    assert write(b"", timeout=3600).timed_out


def test_points_have_all_the_time_that_is_set(server, write, monkeypatch):
    monkeypatch.setattr(writer, "ASK_S", 0.05)
    server.script.append(server.trickle(0.02))
    assert write(timeout=3600).status == 204


@pytest.mark.parametrize("how", ["cut", "cut_in_answer", "store_then_cut"])
def test_a_cut_connection_is_no_answer_and_the_next_write_opens_another(server, write, how):
    server.script.append(getattr(server, how))
    assert write().status is None
    assert write().status == 204
    assert server.connections == 2


def test_a_head_byte_by_byte_is_not_waited_for_longer_than_the_timeout(server, write):
    server.script.append(server.trickle(0.05, padding=2000))  # which takes 100 s
    before = time.monotonic()
    answer = write(timeout=0.4)
    assert time.monotonic() - before < 50
    assert answer.timed_out
    assert write().status == 204


def test_a_connection_that_the_server_closed_while_idle_is_no_failure(server, write):
    assert write().status == 204
    server.script.append(server.store_then_cut)
    assert write().status == 204
    server.script.extend([server.cut, server.cut])
    assert write().status is None
    assert len(server.requests) == 5
    assert len(server.points) == 1


def test_what_was_sent_over_a_connection_that_was_closed_may_be_stored_whatever_is_said_the_second_time(server, write):
    assert not write().lost
    server.script.extend([server.store_then_cut, server.answer(503)])
    answer = write()
    assert (answer.status, answer.lost) == (503, True)
    server.script.extend([server.store_then_cut, server.cut])
    answer = write()
    assert (answer.status, answer.lost) == (None, True)
    assert len(server.points) == 1


def test_an_answer_that_ends_with_its_connection_is_read_whole(server, write):
    def last(handler, _):
        handler.wfile.write(b"HTTP/1.1 400 X\r\nConnection: close\r\n\r\n" + b"x" * 300_000)
        handler.close_connection = True

    server.script.append(last)
    assert write().body == b"x" * 300_000
    assert write().status == 204


def test_a_body_byte_by_byte_is_not_read_for_longer_than_the_timeout(server, write):
    def slowly(handler, _):
        handler.wfile.write(b"HTTP/1.1 400 X\r\nContent-Length: 100\r\n\r\n")
        while not server.released.wait(0.05):
            handler.wfile.write(b"x")
            handler.wfile.flush()

    server.script.append(slowly)
    answer = write(timeout=2)  # of which its head takes no more
    assert answer.status == 400
    assert answer.cut  # else all 100 bytes would be there
    assert write().status == 204


def test_promise_6_an_answer_without_end_is_read_to_a_bound(server, write):
    server.script.append(server.answer(400, b"x" * (3 * MAX_ANSWER)))
    answer = write()
    assert len(answer.body) == MAX_ANSWER
    assert answer.cut
    server.script.append(server.answer(400, b"y" * 1_400_000))
    assert write().body == b"y" * 1_400_000


def test_bad_utf8_html_and_gzip_in_an_answer_are_taken_as_they_are(server, write):
    server.script.append(server.answer(400, b"\xff\xfe"))
    assert write().body == b"\xff\xfe"
    server.script.append(server.answer(200, b"<html>", content_type="text/html"))
    assert write().headers["content-type"] == "text/html"
    server.script.append(server.answer(400, gzip.compress(b"z" * 10_000_000), content_encoding="gzip"))
    assert len(write().body) < 20_000


def test_tls_is_checked_against_the_named_authority(server, write, tmp_path):
    if not shutil.which("openssl"):
        pytest.skip("install Debian's package openssl")
    key, cert = tmp_path / "key.pem", tmp_path / "cert.pem"
    command = "openssl req -x509 -newkey ec -pkeyopt ec_paramgen_curve:prime256v1 -nodes -days 2 -subj /CN=localhost"
    subprocess.run(
        [*command.split(), "-keyout", key, "-out", cert, "-addext", "subjectAltName=IP:127.0.0.1"],
        check=True,
        capture_output=True,
    )
    context = ssl.SSLContext(ssl.PROTOCOL_TLS_SERVER)
    context.load_cert_chain(cert, key)
    server.httpd.socket = context.wrap_socket(server.httpd.socket, server_side=True)
    url = server.url.replace("http", "https")
    assert write(url=url, ca_file=str(cert)).status == 204
    assert write(url=url, ca_file=str(cert)).status == 204
    assert server.connections == 1
    refused = write(url=url)
    assert refused.status is None
    assert "certificate" in refused.error.lower()
    assert write(url=url, ca_file=str(tmp_path / "missing.pem")).status is None
    assert len(server.requests) == 2


def test_influxdb_client_comes_with_the_service_before_any_thread_and_not_with_quick_commands():
    """Two threads that import it at the same moment deadlock, and a reading would be lost."""
    quick = "import sys, agent.cli.run, agent.cli.status, agent.config.parse, agent.status.socket"
    for modules, there in ((quick, False), ("import sys, agent.service", True)):
        code = f"{modules}; sys.exit(('influxdb_client.service.write_service' in sys.modules) is not {there})"
        assert subprocess.run([sys.executable, "-c", code], check=False).returncode == 0
