"""What really arrives at a webhook and a mail server, and that an address is nowhere to be seen."""

import logging
import re
import socket
from email import message_from_bytes

import pytest
from aiosmtpd.controller import Controller
from apprise.manager_plugins import NotificationManager
from werkzeug import Response

from agent.util.secret import Secret
from center.alerts import sending
from center.errors import RefusedError

ADDRESSES = {  # address → what is shown of it
    "json://user:PASSword1@10.0.0.7:8080/hook/SECRETpath?+X-Key=SECRETkey": "json://10.0.0.7",
    "mailtos://me:PASSword1@example.org?to=SECRETperson@example.org": "mailtos://example.org",
    "tgram://123456789:abcdefghijklmnopqrstuvwxyzABCDEFGHI/12315544": "tgram://…",
    "ntfy://SECRETtopic": "ntfy://…",
    "ntfys://user:PASSword1@ntfy.example.org/SECRETtopic": "ntfys://…",
    "discord://4174216298/JHMHI8qBe7bk2ZwO5U711o3dV_js": "discord://…",
}
LOCAL = {"blink1", "dbus", "gio", "glib", "gnome", "kde", "macosx", "qt", "syslog", "windows"}


@pytest.mark.parametrize("address", ADDRESSES)
def test_of_an_address_only_scheme_and_host_are_shown(address):
    assert sending.check(Secret(address)) == ADDRESSES[address]


def test_what_acts_on_the_centers_own_machine_is_refused_and_nothing_else_is():
    manager = NotificationManager()
    refused = {
        schema
        for schema in manager.schemas()
        if any(str(template).rstrip("/_") == "{schema}:" for template in manager[schema].templates)
    }
    assert refused == LOCAL
    with pytest.raises(RefusedError, match="over the network"):
        sending.check(Secret("syslog://"))


@pytest.mark.parametrize(
    "address",
    [
        "",
        "hello",
        "http://",
        "file:///etc/passwd",
        "nosuch://host",
        "json://host?template=/etc/passwd",
        "json://host?t%65mplate=/etc/passwd",
    ],
)
def test_what_is_no_address_is_refused_without_repeating_it(address):
    with pytest.raises(RefusedError) as refused:
        sending.check(Secret(address))
    assert "passwd" not in str(refused.value)
    assert len(str(refused.value)) > 30


def test_a_message_arrives_at_a_webhook(httpserver):
    httpserver.expect_request("/hook", method="POST").respond_with_data("ok")
    url = Secret(f"json://127.0.0.1:{httpserver.port}/hook")
    assert sending.send(url, "Frost", "attic: 1.2 °C\nbarn: 0 °C", good=False) == ""
    sent = httpserver.log[0][0].get_json()
    assert (sent["title"], sent["message"], sent["type"]) == ("Frost", "attic: 1.2 °C\nbarn: 0 °C", "warning")


class Mails:
    def __init__(self):
        self.got = []

    async def handle_DATA(self, server, session, envelope):
        self.got.append(envelope)
        return "250 OK"


@pytest.mark.filterwarnings("ignore::pytest.PytestUnraisableExceptionWarning")
def test_a_message_arrives_at_a_mail_server():
    with socket.create_server(("127.0.0.1", 0)) as free:
        port = free.getsockname()[1]
    mails = Mails()
    server = Controller(mails, hostname="127.0.0.1", port=port)
    server.start()
    try:
        url = Secret(f"mailto://127.0.0.1:{port}?from=center@example.org&to=me@example.org&mode=insecure")
        assert sending.send(url, "Over: Frost", "Frost <2 & *x*\nattic: 3 °C", good=True) == ""
    finally:
        server.stop()
    assert mails.got[0].rcpt_tos == ["me@example.org"]
    mail = message_from_bytes(mails.got[0].content)
    assert mail["subject"] == "Over: Frost"
    assert mail.get_content_type() == "text/plain"
    assert mail.get_payload(decode=True).decode().splitlines() == ["Frost <2 & *x*", "attic: 3 °C"]


def test_a_redirect_is_no_arrival_and_a_slow_answer_is_one(httpserver, monkeypatch):
    """A POST that is redirected comes as a GET, without the message; one that was given up comes again."""
    httpserver.expect_request("/moved").respond_with_response(Response(status=302, headers={"Location": "/login"}))
    httpserver.expect_request("/login").respond_with_data("log in")
    assert "302" in sending.send(Secret(f"json://127.0.0.1:{httpserver.port}/moved"), "t", "b", good=True)
    service = sending._service(Secret("json://127.0.0.1/?rto=1"))
    service.send = lambda *_, **__: True
    monkeypatch.setattr(sending, "_service", lambda url: service)
    assert sending.send(Secret("json://127.0.0.1"), "t", "b", good=True) == ""
    assert service.socket_read_timeout == sending.TIMEOUT_S / 2


@pytest.fixture
def logged():
    """What `iot-center --debug serve` would log, its test server's own lines left out."""
    lines, handler, root = [], logging.Handler(), logging.getLogger()
    handler.emit = lambda record: record.name == "werkzeug" or lines.append(record.getMessage())
    level = root.level
    root.setLevel(logging.DEBUG)
    root.addHandler(handler)
    yield lines
    root.removeHandler(handler)
    root.setLevel(level)


def test_why_it_did_not_arrive_is_said_and_the_address_is_in_no_log(httpserver, logged, monkeypatch):
    monkeypatch.setattr(sending, "TIMEOUT_S", 0.4)
    httpserver.expect_request("/hook/SECRETpath").respond_with_handler(
        lambda request: Response(f"no such hook SECRETpath {request.authorization}", 403)
    )
    with socket.create_server(("127.0.0.1", 0)) as mute:
        for port in (httpserver.port, 1, mute.getsockname()[1]):
            url = f"json://user:PASSword1@127.0.0.1:{port}/hook/SECRETpath?+X-Key=SECRETkey"
            why = sending.send(Secret(url), "t", "b", good=True)
            assert len(why) > 10
            assert not re.search("SECRET|PASSword1|dXNlcj", "".join([why, *logged]))
    sending.check(Secret("ntfys://user:PASSword1@ntfy.example.org/SECRETtopic"))
    sending.hidden(Secret("tgram://123456789:abcdefghijklmnopqrstuvwxyzABCDEFGHI/12315544"), "x")
    assert not re.search("SECRET|PASSword1|12315544", "".join(logged))


def test_of_what_a_service_says_nothing_of_the_address_is_left():
    url = Secret("tgram://123456789:abcdefghijklmnopqrstuvwxyzABCDEFGHI/12315544")
    assert (
        sending.hidden(url, "Failed to send to Telegram:12315544 by 123456789") == "Failed to send to Telegram:… by …"
    )
    url = Secret("json://user:PASSword1@10.0.0.7/hook")
    assert sending.hidden(url, "POST http://user:PASSword1@10.0.0.7/hook") == "POST http://…:…@10.0.0.7/…"
    assert sending.hidden(Secret("mailtos://me:p%40ssWORD@example.org"), "no p@ssWORD") == "no …"


def test_a_server_that_never_ends_its_answer_is_left(httpserver, monkeypatch):
    monkeypatch.setattr(sending, "TIMEOUT_S", 0.3)
    sending._apprise.cache_clear()
    try:
        with socket.create_server(("127.0.0.1", 0)) as mute:
            url = Secret(f"json://127.0.0.1:{mute.getsockname()[1]}/?rto=900")
            assert sending.send(url, "t", "b", good=True)
    finally:
        sending._apprise.cache_clear()
