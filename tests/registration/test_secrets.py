"""Promise 7 for registration: no token, secret or key in any log, error, status, repr, traceback, URL or open file."""

import itertools
import json
import logging
import stat
import traceback

import pytest

from agent.registration.answers import RegistrationError
from agent.registration.client import CenterClient
from agent.registration.dialects import DIALECTS
from agent.util.secret import Secret
from tests.fake_center import FakeCenter, answer
from tests.registering import APIS, FakeClock, maker, settle
from tests.registration.test_registrar import GOOD, TRAPS

KEY = "enrollment-key-that-must-not-be-seen"


def everything_shown(device, caplog):
    yield caplog.text
    for record in caplog.records:
        yield repr(record.args)
    yield repr(device.snapshot())
    yield repr(device.target())
    yield json.dumps(device.snapshot(), default=str)
    yield repr(device._credentials)


@pytest.mark.parametrize("api", APIS)
def test_promise_7_no_secret_is_shown_by_a_whole_life_with_every_trap(httpserver, tmp_path, caplog, api):
    caplog.set_level(logging.DEBUG)
    clock = FakeClock()
    key_file = tmp_path / "enrollment.key"
    key_file.write_text(KEY)
    key_file.chmod(0o600)
    center = FakeCenter(httpserver, api)

    def echo(request):  # a server that says back whatever it was told
        said = {name: value for name, value in request.headers.items() if name.startswith("X-")}
        return answer(500, {"message": f"no such {said}"})

    center.scripted = [echo, *(answer(*scripted) for scripted, _ in TRAPS.values())]
    device = maker(tmp_path, clock)(center, api=api, enrollment_key_file=str(key_file))
    shown = []
    for _ in range(60):
        clock.now += max(device.step(), 1)
        shown += everything_shown(device, caplog)
    assert settle(device, clock, hours=10)
    tokens = [device.target().token.reveal()]
    for _ in range(3):
        clock.now += 4000
        device.renew()
        settle(device, clock)
        tokens.append(device.target().token.reveal())
    shown += everything_shown(device, caplog)
    secret = (tmp_path / "state" / "device.secret").read_text().strip()
    assert any("no such {'X-Device-Secret': '***'" in text for text in shown) or api == "iot-api"
    for hidden, text in itertools.product([*tokens, secret, KEY, "a-good-token"], shown):
        assert hidden not in text
    for request in center.requests:
        assert secret not in request.url
        assert KEY not in request.url
    for path in (tmp_path / "state").iterdir():
        assert stat.S_IMODE(path.stat().st_mode) & 0o077 == 0, path


@pytest.mark.parametrize("trap", TRAPS)
def test_promise_7_tracebacks_of_failed_registrations_hold_no_secret(httpserver, trap):
    center = FakeCenter(httpserver)
    scripted, _ = TRAPS[trap]
    body = scripted[1] | {"influx_token": "tok-hidden"} if isinstance(scripted[1], dict) else scripted[1]
    center.scripted = [answer(scripted[0], body)] * 3
    client = CenterClient(center.url, Secret("the-device-secret"), Secret(KEY), timeout_s=2)
    for dialect in DIALECTS.values():
        try:
            dialect.register(client, "pi-7")
        except RegistrationError as error:
            text = "".join(traceback.format_exception(error)) + repr(error) + str(error)
            for hidden in ("the-device-secret", KEY, "tok-hidden", GOOD["token"], "12345", "X-Evil"):
                assert hidden not in text
    client.close()


def test_promise_7_a_dead_connection_says_nothing_of_the_headers(tmp_path, caplog):
    caplog.set_level(logging.DEBUG)
    client = CenterClient("http://127.0.0.1:1", Secret("the-device-secret"), Secret(KEY), timeout_s=1)
    with pytest.raises(RegistrationError) as caught:
        client.ask("GET", "/api/env/pi-7", enroll=True)
    text = "".join(traceback.format_exception(caught.value)) + caplog.text
    assert "the-device-secret" not in text
    assert KEY not in text
    client.close()


@pytest.mark.parametrize("damaged", ["two\nlines", "a\r\nX-Evil: 1", "t\ufffdken"])
def test_promise_7_a_damaged_secret_that_no_header_can_carry_is_not_shown(damaged):
    for secret, key in ((damaged, "k"), ("s", damaged)):
        client = CenterClient("http://127.0.0.1:1", Secret(secret), Secret(key), timeout_s=1)
        with pytest.raises(RegistrationError, match="no header can carry it") as caught:
            client.ask("GET", "/api/env/pi-7", enroll=True)
        assert repr(damaged)[1:-1] not in "".join(traceback.format_exception(caught.value))
        client.close()
