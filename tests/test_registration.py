"""Registration against every dialect and trap, answers as recorded, over a real HTTP server; the clock is ours."""

import json
import random

import pytest

from agent.registration import Registrar
from agent.settings import CenterSettings
from tests.fake_center import FakeCenter

APIS = ["iot-center", "iot-center-v2", "iot-api"]


class Clock:
    def __init__(self):
        self.now = 1000.0

    def __call__(self):
        return self.now


@pytest.fixture
def clock():
    return Clock()


@pytest.fixture
def registrar(tmp_path, clock):
    def make(center, device_id="pi-7", **settings):
        hooks = {name: settings.pop(name) for name in ("on_remote", "observe") if name in settings}
        places = center.place if center.api == "iot-api" else {}
        settings = {"url": center.url.rstrip("/"), "timeout": 2.0} | places | settings
        return Registrar(
            CenterSettings(**settings), device_id, tmp_path / "state", now=clock, rng=random.Random(1), **hooks
        )

    return make


def settle(registrar, clock, hours=1.0):
    """Steps until nothing is due within `hours`."""
    end = clock.now + hours * 3600
    while (delay := registrar.step()) + clock.now < end and registrar.snapshot().state != "registered":
        clock.now += delay
    return registrar.target()


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
