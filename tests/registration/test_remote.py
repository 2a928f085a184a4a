"""What the center sends later changes the running agent: interval, location, where to write."""

import json
import re

import pytest

from agent.config.settings import Location
from agent.registration.credentials import CredentialStore
from agent.registration.remote_config import RemoteConfiguration
from agent.util.atomic import write_atomic
from agent.util.loops import LoopThread
from agent.util.secret import Secret
from tests.fake_center import FakeCenter, answer

WITH_REFRESH = ["iot-center", "iot-center-v2"]


@pytest.mark.parametrize("api", WITH_REFRESH)
def test_what_the_center_says_at_registration_is_handed_on(httpserver, registrar, api):
    seen = []
    center = FakeCenter(httpserver, api)
    center.extra |= {"default_lat": 50.5, "default_lon": 14.5}
    registrar(center, api=api, on_remote=seen.append).step()
    assert seen == [RemoteConfiguration(60.0, 3600.0, Location(50.5, 14.5))]


@pytest.mark.parametrize("api", WITH_REFRESH)
def test_a_changed_interval_reaches_the_running_agent_at_the_next_refresh(httpserver, registrar, clock, api):
    seen = []
    center = FakeCenter(httpserver, api)
    center.extra["configuration_refresh"] = 100
    device = registrar(center, api=api, on_remote=seen.append)
    device.step()
    token = device.target().token
    clock.now += 31  # one that might hear what it tells is asked soon after the registration
    device.step()
    center.extra["measurement_interval"] = 5
    clock.now += 58
    device.step()
    assert len(seen) == 1  # ± 10 %: not all devices at once
    clock.now += 53
    device.step()
    assert seen[-1].measurement_interval == 5.0
    assert device.target().token == token
    assert ("GET", "/api/env/pi-7?register=false") in center.asked()


def test_a_changed_place_to_write_is_used_and_kept(httpserver, registrar, clock):
    center = FakeCenter(httpserver)
    device = registrar(center, api="iot-center")
    device.step()
    center.place = {"influx_url": "https://db.example:8443", "influx_org": "o2", "influx_bucket": "sly's Bucket"}
    clock.now += 4000
    device.step()
    target = device.target()
    assert (target.url, target.org, target.bucket) == ("https://db.example:8443", "o2", "sly's Bucket")
    again = registrar(center, api="iot-center")
    again.step()
    assert again.target() == target


def test_values_out_of_range_are_refused_shown_and_logged_once_and_the_old_ones_stay(
    httpserver, registrar, clock, caplog
):
    center = FakeCenter(httpserver)
    device = registrar(center, api="iot-center")
    device.step()
    before = device.target(), device.snapshot().remote
    center.extra |= {"measurement_interval": 0.001}
    center.place |= {"influx_url": "ftp://nowhere"}
    for _ in range(3):
        clock.now += 4000
        device.step()
    assert (device.target(), device.snapshot().remote) == before
    refused = " ".join(device.snapshot().refused)
    assert "measurement_interval from the center is refused: 0.001" in refused
    assert "ftp://nowhere" in refused
    assert caplog.text.count("measurement_interval from the center is refused: 0.001") == 1
    assert device.snapshot().state == "registered"


def test_a_value_refused_at_the_first_registration_is_shown_and_logged_too(httpserver, registrar, caplog):
    center = FakeCenter(httpserver)
    center.extra = {"measurement_interval": -5}
    device = registrar(center, api="iot-center")
    device.step()
    assert device.target()
    assert device.snapshot().remote.measurement_interval is None
    assert "measurement_interval from the center is refused: -5" in device.snapshot().refused[0]
    assert "measurement_interval from the center is refused: -5" in caplog.text


def test_settings_named_in_the_file_win_unless_the_center_is_preferred(httpserver, registrar):
    center = FakeCenter(httpserver)
    local = registrar(center, api="iot-center", influx_bucket="mine")
    local.step()
    assert local.target().bucket == "mine"
    remote = registrar(center, api="iot-center", influx_bucket="mine", remote="prefer")
    remote.step()
    assert remote.target().bucket == "iot_center"


def test_a_refresh_never_overwrites_a_token_that_another_command_stored_meanwhile(
    httpserver, registrar, clock, tmp_path
):
    center = FakeCenter(httpserver)
    device = registrar(center, api="iot-center")
    device.step()
    path = tmp_path / "state" / "credentials.json"

    def meanwhile(_):
        stored = json.loads(path.read_text())
        path.unlink()
        write_atomic(path, json.dumps(stored | {"token": "the-newer-token"}).encode())
        return answer(200, {"deviceId": "pi-7", "measurement_interval": 5})

    center.scripted = [meanwhile]
    clock.now += 4000
    device.step()
    assert json.loads(path.read_text())["token"] == "the-newer-token"
    device.step()
    assert device.target().token == Secret("the-newer-token")


def test_what_the_center_told_while_a_command_registered_is_taken_soon_and_that_is_no_failure(
    httpserver, registrar, clock, tmp_path
):
    center = FakeCenter(httpserver)
    device = registrar(center, api="iot-center")
    device.step()
    center.extra = {"measurement_interval": 7}
    clock.now += 4000
    with CredentialStore(tmp_path / "state").exclusive():
        device.step()
    assert (device.snapshot().state, device.snapshot().error) == ("registered", None)
    clock.now += 5
    device.step()
    assert device.snapshot().remote.measurement_interval == 7


def test_a_refresh_that_fails_changes_nothing_and_is_tried_again_sooner(httpserver, registrar, clock, caplog):
    center = FakeCenter(httpserver)
    device = registrar(center, api="iot-center")
    device.step()
    target = device.target()
    clock.now += 4000
    center.scripted = [answer(500, {"message": "down"})] * 2
    device.step()
    assert device.target() == target
    assert device.snapshot().state == "registered"
    assert re.match("the remote configuration is not refreshed: .*down", device.snapshot().error)
    clock.now += 2
    device.step()
    clock.now += 4
    device.step()
    assert device.snapshot().error is None
    assert caplog.text.count("is not refreshed") == 1


def test_a_center_that_forgot_the_device_is_registered_with_again(httpserver, registrar, clock):
    center = FakeCenter(httpserver)
    device = registrar(center, api="iot-center")
    device.step()
    center.secrets.clear()
    center.tokens.clear()
    clock.now += 4000
    device.step()
    assert device.snapshot().state == "renewing"
    clock.now += 100
    device.step()
    assert center.tokens["pi-7"] == [device.target().token.reveal()]


def test_the_tutorials_center_has_no_configuration_and_that_is_no_error(httpserver, registrar, clock):
    center = FakeCenter(httpserver)
    center.extra = {}
    device = registrar(center, api="iot-center")
    device.step()
    center.scripted = [answer(404, "Not Found!")] * 2
    clock.now += 4000
    device.step()
    assert device.snapshot().error is None


def test_a_restarted_agent_has_the_last_configuration_at_once_and_asks_within_half_a_minute(
    httpserver, registrar, clock
):
    center = FakeCenter(httpserver)
    registrar(center, api="iot-center").step()
    seen = []
    again = registrar(center, api="iot-center", on_remote=seen.append)
    assert again.step() <= 30
    assert seen[0].measurement_interval == 60.0


def test_a_callback_that_fails_does_not_end_the_registration(httpserver, registrar, caplog):
    import threading

    told = threading.Event()

    def broken(_):
        told.set()
        raise RuntimeError("a bug elsewhere")

    device = registrar(FakeCenter(httpserver), api="iot-center", on_remote=broken)
    thread = LoopThread("registration", device)
    assert told.wait(40)
    thread.stop()
    thread.join(40)
    assert device.target()
    assert "failed in a way that was not foreseen" in caplog.text


# -- what may be said to whom


def test_require_tls_sends_nothing_over_plain_http(httpserver, registrar):
    center = FakeCenter(httpserver)
    device = registrar(center, api="iot-center", require_tls=True)
    device.step()
    assert center.requests == []
    assert "require_tls" in device.snapshot().error


def test_plain_http_to_a_public_host_is_warned_about_once(httpserver, registrar, caplog):
    center = FakeCenter(httpserver)
    center.place["influx_url"] = "http://db.example.com:8086"
    device = registrar(center, api="iot-center")
    device.step()
    device.step()
    assert caplog.text.count("http://db.example.com:8086 is plain http") == 1
    assert any("plain http" in text for text in device.snapshot().warnings)


def test_a_center_elsewhere_that_names_this_very_board_is_warned_about(registrar, tmp_path):
    from agent.config.settings import CenterSettings
    from agent.registration.policy import warnings_of
    from agent.registration.target import Target
    from agent.util.secret import Secret

    settings = CenterSettings(url="http://center.local:5000")
    here = Target("http://127.0.0.1:8086", "o", "b", Secret("t"))
    assert any("this very board" in text for text in warnings_of(settings, tmp_path, here))
    assert not any("board" in text for text in warnings_of(CenterSettings(url="http://localhost:1"), tmp_path, here))


# -- what the device tells, and what is more than an interval


def test_the_center_hears_what_the_device_tells_soon_after_registering_and_again_once_that_has_changed(
    httpserver, registrar, clock
):
    center, seen = FakeCenter(httpserver), []
    center.heard = []
    device = registrar(center, api="iot-center", on_remote=seen.append, tell=lambda: {"interval": len(seen)})
    device.step()
    clock.now += 31
    device.step()
    run = center.heard[0]["run"]
    assert center.heard == [{"interval": 1, "refresh": 3600.0, "run": run}]
    center.extra |= {"report": "mean_min_max", "deadband": {"CO2": 5}, "offset": {"bench.Temperature": -0.8}}
    clock.now += 4000
    device.step()
    clock.now += 31  # what it came to is told within half a minute
    device.step()
    assert [(told["interval"], told["run"]) for told in center.heard] == [(1, run), (1, run), (2, run)]
    assert seen[-1].report == "mean_min_max"
    assert (seen[-1].deadband, seen[-1].offset) == ({"CO2": 5.0}, {"bench.Temperature": -0.8})
    assert not any("/api/env/" in path for _, path in center.asked())
    again = registrar(center, api="iot-center", on_remote=seen.append)
    httpserver.clear()  # the center is away: a restart has them all the same
    again.step()
    assert seen[-1] == seen[-2]


def test_two_agents_on_copies_of_one_folder_tell_the_center_that_they_are_two(httpserver, registrar, clock):
    center = FakeCenter(httpserver)
    center.heard = []
    for device in (registrar(center, api="iot-center"), registrar(center, api="iot-center")):
        device.step()
        clock.now += 31
        device.step()
    assert len({told["run"] for told in center.heard}) == len(center.heard) == 2


def test_a_center_that_hears_nothing_is_asked_as_before(httpserver, registrar, clock):
    center = FakeCenter(httpserver)
    device = registrar(center, api="iot-center", tell=lambda: {"version": "1.0.0"})
    device.step()
    center.extra["measurement_interval"] = 5
    clock.now += 31
    device.step()
    assert center.asked()[1:] == [
        ("POST", "/api/devices/pi-7/configuration"),
        ("GET", "/api/env/pi-7?register=false"),
    ]
    assert device.snapshot().remote.measurement_interval == 5
