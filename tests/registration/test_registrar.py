"""Registration against every dialect and trap, answers as recorded, over a real HTTP server; the clock is ours."""

import itertools
import json
import logging
import re
import threading
from types import SimpleNamespace

import pytest

from agent.registration.answers import RegistrationError
from agent.registration.client import CenterClient
from agent.util.http import Answer, Bounds
from agent.util.secret import Secret
from tests.fake_center import AGAIN, FIRST, RECORDED, FakeCenter, answer
from tests.registering import APIS, settle


@pytest.mark.parametrize("api", APIS)
def test_a_new_device_gets_a_token_and_where_to_write(httpserver, registrar, api):
    center = FakeCenter(httpserver, api)
    device = registrar(center, api=api)
    assert device.target() is None
    device.step()
    target = device.target()
    assert [target.token.reveal()] == center.tokens["pi-7"]
    assert (target.url, target.org, target.bucket) == ("http://127.0.0.1:8086", "my-org", "iot_center")
    assert device.snapshot().state == "registered"


@pytest.mark.parametrize("api", APIS)
def test_auto_finds_the_api_and_remembers_it(httpserver, registrar, clock, api):
    center = FakeCenter(httpserver, api)
    device = registrar(center)
    device.step()
    assert device.snapshot().dialect == api
    center.requests.clear()
    device.renew()
    clock.now += 3600
    device.step()
    assert device.snapshot().renewals == 1
    first = {"iot-center": "POST /api/devices/pi-7", "iot-center-v2": "GET /api/env/pi-7"}
    assert " ".join(center.asked()[0]) == first.get(api, "POST /api/devices/create")


@pytest.mark.parametrize("api", APIS)
def test_a_restarted_agent_uses_its_stored_token_without_asking(httpserver, registrar, api):
    center = FakeCenter(httpserver, api)
    registrar(center, api=api).step()
    center.requests.clear()
    again = registrar(center, api=api)
    again.step()
    assert again.target().token.reveal() in center.tokens["pi-7"]
    assert center.requests == []


@pytest.mark.parametrize("api", APIS)
def test_a_lost_token_file_is_mended_and_leaves_one_authorization(httpserver, registrar, tmp_path, api):
    center = FakeCenter(httpserver, api)
    registrar(center, api=api).step()
    (tmp_path / "state" / "credentials.json").unlink()
    again = registrar(center, api=api)
    again.step()
    assert center.tokens["pi-7"] == [again.target().token.reveal()]
    stored = json.loads((tmp_path / "state" / "credentials.json").read_text())
    assert stored["token"] == again.target().token.reveal()


def fails_with(registrar, *words):
    registrar.step()
    status = registrar.snapshot()
    assert registrar.target() is None
    for word in words:
        assert word in status.error, status.error
    assert status.state == "failing"
    assert status.next_attempt_s >= 1
    return status


HTML = "<!doctype html><html><head><title>Welcome</title></head></html>"
GOOD = FIRST | {"deviceId": "pi-7", "token": "a-good-token"}
TRAPS = {
    "html": ((200, HTML), ["200 with HTML", "<!doctype html>"]),
    "nothing": ((200, ""), ["empty body"]),
    "not json": ((200, "{broken"), ["bytes that are not JSON"]),
    "a list": ((200, []), ["with JSON: a list, not an object"]),
    "a number": ((200, 7), ["with JSON: a number, not an object"]),
    "null": ((200, None), ["with JSON: null, not an object"]),
    "deep": ((200, "[" * 30_000), ["not JSON"]),
    "no id": ((200, {"token": "t"}), ["without deviceId"]),
    "another device": ((200, GOOD | {"deviceId": "pi-70"}), ["'pi-70'", "not for pi-7"]),
    "id is a number": ((200, GOOD | {"deviceId": 7}), ["not for pi-7"]),
    "token is a number": ((200, GOOD | {"token": 12345}), ["token is JSON: a number, not text"]),
    "token with a newline": ((200, GOOD | {"token": "abc\nX-Evil: 1"}), ["holds what no token holds"]),
    "token without end": ((200, GOOD | {"token": "a" * 2000}), ["holds what no token holds"]),
    "placeholder": ((200, GOOD | {"token": "fake_auth_token_pi-7"}), ["placeholder", "[influxdb]"]),
    "url is a file": ((200, GOOD | {"influx_url": "file:///etc/passwd"}), ["influx_url", "is not a URL"]),
    "url with a password": ((200, GOOD | {"influx_url": "http://a:b@host"}), ["influx_url", "user or password"]),
    "bucket is a list": ((200, GOOD | {"influx_bucket": ["x"]}), ["influx_bucket"]),
    "no such api": ((404, "Not Found!"), ["404"]),
    "key missing": ((401, {"code": "unauthorized", "message": "no key"}), ["no key", "enrollment_key_file"]),
    "key wrong": ((403, {"code": "forbidden", "message": "wrong key"}), ["wrong key", "enrollment_key_file"]),
    "another secret": (
        (409, {"code": "conflict", "message": "is taken"}),
        ["taken", "administrator", "remove pi-7"],
    ),
    "server error": ((500, {"error": "InfluxDB is down"}), ["500", "InfluxDB is down"]),
    "gateway": ((502, HTML), ["502"]),
}


@pytest.mark.parametrize("trap", TRAPS)
def test_an_answer_that_is_no_registration_is_an_error_that_says_what_came(httpserver, registrar, trap):
    center = FakeCenter(httpserver)
    scripted, words = TRAPS[trap]
    center.scripted = [answer(*scripted)] * 9
    fails_with(registrar(center, api="iot-center"), *words)


STRANGE = [5, True, None, {}, [None], "[" * 30_000]
"""JSON, and text that is none, in the place of any answer."""


@pytest.mark.parametrize("api", APIS)
@pytest.mark.parametrize(
    "wrong", list(itertools.product(STRANGE, range(3))), ids=lambda wrong: f"{wrong[1]}: {wrong[0]!r:.9}"
)
def test_whatever_a_center_of_any_kind_answers_at_any_place_is_an_error_in_words(
    httpserver, registrar, clock, api, wrong
):
    """The device is registered and has lost its token: so each request of the dialect is made. Then it is refreshed."""
    strange, place = wrong
    center = FakeCenter(httpserver, api)
    center.issue("pi-7")
    center.scripted = [None] * place + [answer(200, strange)]
    device = registrar(center, api=api)
    settle(device, clock)
    clock.now += 7200
    center.scripted = [answer(200, strange)]
    device.step()
    for problem in (device.snapshot().error, *device.snapshot().refused):
        assert problem is None or "JSON" in problem or "without" in problem, problem


def test_iot_center_v2_with_something_else_than_its_list_of_devices_says_so(httpserver, registrar):
    for strange, words in ((5, "a number"), (True, "true or false"), (None, "null"), ([None], "null in its list")):
        center = FakeCenter(httpserver, "iot-center-v2")
        center.scripted = [answer(200, AGAIN | {"id": "pi-7"}), answer(200, strange)]
        fails_with(registrar(center, api="iot-center-v2"), "GET", f"/api/devices: 200 with JSON: {words}")
        assert "DELETE" not in dict(center.asked())
        httpserver.clear()


@pytest.mark.parametrize("trap", ["html", "no such api"])
def test_a_server_of_no_known_kind_is_named_with_what_each_attempt_got(httpserver, registrar, trap):
    center = FakeCenter(httpserver)
    center.scripted = [answer(*TRAPS[trap][0])] * 9
    status = fails_with(registrar(center), "no device registration API")
    for path in ("POST", "/api/devices/pi-7", "/api/env/pi-7", "/api/devices/create"):
        assert path in status.error


def test_the_empty_token_of_iot_center_v2_is_mended_by_removing_and_registering_once(httpserver, registrar):
    center = FakeCenter(httpserver, "iot-center-v2")
    center.issue("pi-7")  # registered, and the device has lost its token
    device = registrar(center, api="iot-center-v2")
    device.step()
    assert center.tokens["pi-7"] == [device.target().token.reveal()]
    assert center.asked() == [
        ("GET", "/api/env/pi-7"),
        ("GET", "/api/devices"),
        ("DELETE", "/api/devices/pi-7"),
        ("GET", "/api/env/pi-7"),
    ]


def test_a_center_that_never_gives_a_token_is_asked_twice_and_then_with_back_off(httpserver, registrar, clock):
    center = FakeCenter(httpserver, "iot-center-v2")
    center.scripted = [
        answer(200, AGAIN),
        answer(*RECORDED["list"].values()),
        answer(204, ""),
        answer(200, AGAIN),
    ] * 3
    device = registrar(center, api="iot-center-v2")
    fails_with(device, "empty influx_token")
    assert len(center.requests) == 4
    device.step()
    assert len(center.requests) == 4  # not due yet
    clock.now += device.snapshot().next_attempt_s
    fails_with(device, "empty influx_token")
    assert len(center.requests) == 8


def test_a_device_whose_id_begins_anothers_never_removes_the_other_from_iot_center_v2(httpserver, registrar):
    center = FakeCenter(httpserver, "iot-center-v2")
    center.issue("pi-10")
    fails_with(registrar(center, "pi-1", api="iot-center-v2"), "cannot tell pi-1 from 'pi-10'", "another [device] id")
    assert center.tokens["pi-10"]


@pytest.mark.parametrize("token", ["", None])
def test_an_iot_center_that_withholds_the_token_is_mended_by_removing_first(httpserver, registrar, token):
    center = FakeCenter(httpserver)
    center.scripted = [answer(200, GOOD | {"token": token})]
    device = registrar(center, api="iot-center")
    device.step()
    assert [method for method, _ in center.asked()] == ["POST", "DELETE", "POST"]
    assert device.target()


def test_already_registered_at_the_js_server_is_fetched(httpserver, registrar):
    center = FakeCenter(httpserver, "iot-api")
    token = center.issue("pi-7")["token"]
    device = registrar(center, api="iot-api")
    device.step()
    assert device.target().token.reveal() == token
    assert center.requests[0].mimetype == "text/plain"  # that server parses the text itself


def test_a_center_that_does_not_say_where_to_write_asks_for_it_in_the_settings(httpserver, registrar):
    center = FakeCenter(httpserver)
    center.place = {}
    device = registrar(center, api="iot-center")
    fails_with_place = device.step() and device.snapshot()
    assert "influx_url" in fails_with_place.error
    assert "[center] of agent.toml" in fails_with_place.error
    assert len(center.requests) == 1
    device.step()
    assert len(center.requests) == 1  # the token is kept: asking again would not help
    named = {"influx_url": "http://db:8086", "influx_org": "o", "influx_bucket": "b"}
    again = registrar(center, api="iot-center", **named)
    again.step()
    assert again.target().url == "http://db:8086"


def test_influx_url_wins_over_write_endpoint(httpserver, registrar):
    center = FakeCenter(httpserver, "iot-center-v2")
    assert FIRST["write_endpoint"] == "/influx"
    device = registrar(center, api="iot-center-v2")
    device.step()
    assert device.target().url == FIRST["influx_url"]


# -- the connection


def test_a_redirect_to_another_host_is_refused_and_the_secret_does_not_go_there(httpserver, registrar):
    center = FakeCenter(httpserver)
    center.scripted = [answer(307, "", Location="http://elsewhere.example:81/api/devices/pi-7?q=1")]
    fails_with(registrar(center, api="iot-center"), "redirected to http://elsewhere.example:81", "goes nowhere else")


@pytest.mark.parametrize("named", ["http://[", "http://127.0.0.1:99999/", "http://127.0.0.1:x/"])
def test_a_redirect_to_what_is_no_address_is_a_sentence(monkeypatch, named):
    monkeypatch.setattr(Bounds, "exchange", lambda *_: Answer(301, {"location": named}))
    with pytest.raises(RegistrationError, match=re.escape(f"redirected to {named!r}, which is no address")):
        CenterClient("http://c:5000", Secret("s" * 40)).ask("POST", "/api/devices/pi-7")


def test_a_redirect_on_the_same_host_is_followed_and_a_circle_is_not(httpserver, registrar, clock):
    center = FakeCenter(httpserver)
    center.scripted = [answer(308, "", Location="/api/devices/pi-7")] * 4
    device = registrar(center, api="iot-center")
    fails_with(device, "circle")
    center.scripted = [answer(308, "", Location="/api/devices/pi-7")]
    clock.now += 400
    device.step()
    assert device.target()


def test_an_answer_without_end_is_cut_off(httpserver, registrar):
    center = FakeCenter(httpserver)
    center.scripted = [answer(200, "x" * 70_000)]
    fails_with(registrar(center, api="iot-center"), "over 65536 bytes")


def test_a_server_that_drips_its_answer_is_given_up(httpserver, registrar):
    from werkzeug import Response

    gone = threading.Event()

    def drip():
        for _ in range(1000):
            yield b" "
            if gone.wait(0.1):
                return

    center = FakeCenter(httpserver)
    center.scripted = [lambda _: Response(drip(), 200)]
    fails_with(registrar(center, api="iot-center", timeout=2), "did not end within 2 s")
    gone.set()


def test_a_server_that_says_nothing_is_given_up(httpserver, registrar):
    gone = threading.Event()
    center = FakeCenter(httpserver)
    center.scripted = [lambda _: gone.wait(40) and answer(204, "")]
    fails_with(registrar(center, api="iot-center", timeout=0.3), "no answer within 0.3 s")
    gone.set()


def test_a_closed_port_is_said_in_words(httpserver, registrar):
    center = FakeCenter(httpserver)
    center.url = "http://127.0.0.1:1"
    status = fails_with(registrar(center, api="iot-center"), "Connection refused")
    assert "Max retries" not in status.error


def test_a_name_that_no_server_knows_is_said_in_words(httpserver, registrar, monkeypatch):
    import socket

    def unknown(*_, **__):
        raise socket.gaierror(-2, "Name or service not known")

    monkeypatch.setattr(socket, "getaddrinfo", unknown)
    center = FakeCenter(httpserver)
    center.url = "http://center.invalid:5000"
    fails_with(registrar(center, api="iot-center"), "Name or service not known")


def test_secret_and_key_travel_in_headers_only(httpserver, registrar, tmp_path):
    (tmp_path / "key").write_text("the-enrollment-key\n")
    (tmp_path / "key").chmod(0o640)
    center = FakeCenter(httpserver, enrollment_key="the-enrollment-key")
    device = registrar(center, enrollment_key_file=str(tmp_path / "key"))
    device.step()
    secret = (tmp_path / "state" / "device.secret").read_text().strip()
    request = center.requests[0]
    assert request.headers["X-Device-Secret"] == secret
    assert request.headers["X-Enrollment-Key"] == "the-enrollment-key"
    for sent in center.requests:
        assert secret not in sent.url
        assert "enrollment-key" not in sent.url
        assert secret.encode() not in sent.get_data()


def test_a_netrc_of_the_user_is_not_sent_along(httpserver, registrar, tmp_path, monkeypatch):
    (tmp_path / "netrc").write_text("default login someone password something\n")
    (tmp_path / "netrc").chmod(0o600)
    monkeypatch.setenv("NETRC", str(tmp_path / "netrc"))
    center = FakeCenter(httpserver)
    registrar(center, api="iot-center").step()
    assert "Authorization" not in center.requests[0].headers


def test_a_missing_enrollment_key_file_is_named_when_the_center_asks_for_one(httpserver, registrar, tmp_path, clock):
    missing = str(tmp_path / "no.key")
    center = FakeCenter(httpserver, enrollment_key="the-enrollment-key")
    device = registrar(center, api="iot-center", enrollment_key_file=missing)
    status = fails_with(device, missing, "is not there", "the enrollment key is missing")
    assert status.error.startswith(f"no enrollment key was sent, since {missing} is not there")
    center.enrollment_key = None
    clock.now += 400
    device.step()
    assert device.target()  # whoever is let in without does not need it


def test_times_in_answers_reach_the_clock(httpserver, registrar):
    told = []
    center = FakeCenter(httpserver)
    registrar(center, api="iot-center", observe=lambda *told_, **proof: told.append((*told_, proof))).step()
    [(server_time, millisecond, sent, received, source, proof)] = told
    assert (server_time, millisecond) == (1_795_501_860_122_000_000, 1_000_000)
    assert 0 < sent <= received
    assert (source, proof) == (httpserver.url_for("").rstrip("/"), {"written": True})


def test_promise_5_an_answer_without_a_usable_token_says_nothing_of_the_time(httpserver, registrar):
    """A captive portal knows no better."""
    told = []
    httpserver.expect_request("/api/devices/pi-7").respond_with_data("<html>please log in", content_type="text/html")
    center = SimpleNamespace(api="iot-center", url=httpserver.url_for(""))
    registrar(center, api="iot-center", observe=lambda *told_, **_: told.append(told_)).step()
    assert not told


# -- trying again


def test_registration_is_tried_until_the_center_comes_up_and_the_log_says_begin_and_end(
    httpserver, registrar, clock, caplog
):
    caplog.set_level(logging.INFO)
    center = FakeCenter(httpserver)
    center.scripted = [answer(503, {"message": "starting"})] * 5 + [answer(500, {"message": "broken"})] * 5
    device = registrar(center, api="iot-center")
    assert settle(device, clock, hours=2)
    texts = [record.message for record in caplog.records]
    assert sum("starting" in text for text in texts) == 1
    assert sum("broken" in text for text in texts) == 1
    assert any("works again after 11 attempts" in text for text in texts)


def test_back_off_grows_to_five_minutes_and_no_further(httpserver, registrar, clock):
    center = FakeCenter(httpserver)
    center.scripted = [answer(500, {})] * 60
    device, waits = registrar(center, api="iot-center"), []
    for _ in range(60):
        device.step()
        waits.append(device.snapshot().next_attempt_s)
        clock.now += waits[-1]
    assert waits[0] <= 2
    assert 200 < max(waits) <= 300


@pytest.mark.parametrize(("status", "header", "wait"), [(409, "7", 7), (429, "120", 120), (503, "99999999", 3600)])
def test_retry_after_is_followed_within_bounds(httpserver, registrar, status, header, wait):
    center = FakeCenter(httpserver)
    center.scripted = [answer(status, {"message": "later"}, **{"Retry-After": header})]
    device = registrar(center, api="iot-center")
    device.step()
    assert wait <= device.snapshot().next_attempt_s <= wait + 3
    assert "administrator" not in device.snapshot().error


@pytest.mark.parametrize("api", ["iot-center", "iot-center-v2"])
def test_a_center_under_a_path_of_a_reverse_proxy_is_found_there(httpserver, registrar, api):
    center = FakeCenter(httpserver, api)
    center.behind(httpserver, "/garden/center")
    device = registrar(center, api=api)
    device.step()
    assert device.target().token.reveal() in center.tokens["pi-7"]


# -- renewal


@pytest.mark.parametrize("api", APIS)
def test_a_refused_token_is_replaced_and_one_authorization_is_left(httpserver, registrar, clock, api):
    center = FakeCenter(httpserver, api)
    device = registrar(center, api=api)
    device.step()
    old = device.target()
    clock.now += 3600
    device.renew()
    assert device.target() == old  # until there is another
    device.step()
    assert device.target().token != old.token
    assert center.tokens["pi-7"] == [device.target().token.reveal()]
    assert device.snapshot().renewals == 1


def test_a_token_that_the_server_takes_again_is_kept_and_no_other_asked_for(httpserver, registrar, clock):
    center = FakeCenter(httpserver)
    device = registrar(center)
    device.step()
    device.accepted()  # nothing was wrong
    token = device.target().token
    device.renew()
    assert device.snapshot().state == "renewing"
    device.accepted()
    clock.now += 100
    device.step()
    assert (device.snapshot().state, device.snapshot().error) == ("registered", None)
    assert device.target().token == token
    assert center.asked().count(("POST", "/api/devices/pi-7")) == 1


@pytest.mark.parametrize("api", APIS)
def test_a_revoked_registration_is_made_anew(httpserver, registrar, clock, api):
    center = FakeCenter(httpserver, api)
    device = registrar(center, api=api)
    device.step()
    center.tokens.clear()
    center.secrets.clear()
    clock.now += 3600
    device.renew()
    device.step()
    assert center.tokens["pi-7"] == [device.target().token.reveal()]


def test_an_old_center_that_hands_out_the_refused_token_again_is_made_to_issue_another(httpserver, registrar, clock):
    center = FakeCenter(httpserver, "iot-center-v2")
    device = registrar(center, api="iot-center-v2")
    device.step()
    old = device.target().token
    center.scripted = [answer(200, FIRST | {"influx_token": old.reveal()})]
    clock.now += 3600
    device.renew()
    device.step()
    assert device.target().token != old
    assert ("DELETE", "/api/devices/pi-7") in center.asked()


def test_a_token_refused_moments_after_registration_is_renewed_within_seconds(httpserver, registrar, clock):
    center = FakeCenter(httpserver)
    device = registrar(center, api="iot-center")
    device.step()
    clock.now += 0.5
    device.renew()
    assert device.snapshot().next_attempt_s <= 5


def renewed(device, clock):
    """The token is refused: how long until there is another one."""
    start, before = clock.now, device.snapshot().renewals
    device.target()
    device.renew()
    while (wait := device.step()) and device.snapshot().renewals == before:
        clock.now += wait
    return clock.now - start


def test_renewals_are_ten_seconds_apart_and_rarer_when_they_do_not_help(httpserver, registrar, clock):
    device = registrar(FakeCenter(httpserver), api="iot-center")
    device.step()
    clock.now += 86_400
    assert renewed(device, clock) == 0
    waits = [renewed(device, clock) for _ in range(12)]  # every token is refused at once
    for wait, least in zip(waits, (10, 20, 40, 80, 160, 320, 640, 1280, 2560, *[3600] * 3), strict=True):
        assert least <= wait <= 1.2 * least + 1


def test_after_the_first_204_the_next_renewal_waits_no_longer_for_those_before(httpserver, registrar, clock):
    device = registrar(FakeCenter(httpserver), api="iot-center")
    device.step()

    assert sum(renewed(device, clock) for _ in range(7)) > 600  # every token is refused at once
    device.target()
    device.accepted()
    clock.now += 120
    assert renewed(device, clock) < 10
    assert 19 < renewed(device, clock) < 25  # and from there on rarer again


def test_a_wiped_influxdb_is_written_to_within_a_minute_of_being_set_up(httpserver, registrar, clock):
    """The center answers 503 until it is, and what it then gives out first is for a bucket that is made once more."""
    center = FakeCenter(httpserver, "iot-center")
    device = registrar(center, api="iot-center")
    device.step()
    clock.now += 86_400
    center.scripted = [answer(503, {"code": "unavailable", "message": "gone"}, **{"Retry-After": "10"})] * 60
    device.target()
    device.renew()
    gone = clock.now
    while clock.now < gone + 330:
        clock.now += device.step()
    posts = center.asked().count(("POST", "/api/devices/pi-7"))
    assert 25 < posts <= 34  # each after what it asked for, none at once
    center.scripted, set_up = [], clock.now
    while (wait := device.step()) and device.snapshot().renewals == 0:
        clock.now += wait
    for _ in range(2):
        renewed(device, clock)
    assert clock.now - set_up < 60


def test_delivery_may_ask_for_a_renewal_a_thousand_times(httpserver, registrar, clock):
    center = FakeCenter(httpserver)
    device = registrar(center, api="iot-center")
    device.step()
    clock.now += 3600
    for _ in range(1000):
        device.renew()
    device.step()
    assert device.snapshot().renewals == 1
    assert len(center.requests) == 2


def test_a_renewal_that_fails_keeps_the_old_token_and_is_tried_again(httpserver, registrar, clock):
    center = FakeCenter(httpserver)
    device = registrar(center, api="iot-center")
    device.step()
    old = device.target()
    clock.now += 3600
    center.scripted = [answer(500, {})] * 3
    device.renew()
    device.step()
    assert device.target() == old
    assert device.snapshot().state == "failing"
    assert device.snapshot().next_attempt_s >= 10
    assert settle(device, clock).token != old.token


def test_a_renewal_that_fails_after_the_server_took_the_token_again_is_no_failure_for_ever(
    httpserver, registrar, clock
):
    center = FakeCenter(httpserver)
    device = registrar(center, api="iot-center")
    device.step()
    target = device.target()
    device.renew()
    clock.now += 3600

    def taken_meanwhile(_):
        device.accepted()
        return answer(500, {"message": "down"})

    center.scripted = [taken_meanwhile]
    device.step()
    device.step()
    assert (device.snapshot().state, device.snapshot().error) == ("registered", None)
    assert device.target() == target


def test_a_refusal_of_a_token_that_was_replaced_meanwhile_changes_nothing(httpserver, registrar, clock, tmp_path):
    center = FakeCenter(httpserver)
    device = registrar(center, api="iot-center")
    device.step()
    device.target()  # delivery is under way with this one
    (tmp_path / "state" / "credentials.json").unlink()
    registrar(center, api="iot-center").step()  # as `register --force` does
    device.step()
    device.renew()  # and now comes the 401
    assert device.snapshot().state == "registered"
    assert device.snapshot().next_attempt_s is None
    device.target()
    device.renew()
    assert device.snapshot().state == "renewing"
