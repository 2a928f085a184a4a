"""The first page and the devices: what is live, the list, one device, its token and its end."""

from __future__ import annotations

import html
import re
import tomllib

import pytest

from center.pages import home
from center.profiles import Profile, keep_profile, profiles
from center.stores.telemetry import Point
from center.times import now_ns
from tests.center_helpers import measured, text_of, written


def test_home_says_what_is_live_what_is_silent_and_what_was_refused(client, center, pi_7):
    for name in ("attic", "balcony"):
        center.registry.register(name, administrator=True)
    measured(center, "attic", ago_s=3 * 3600)
    measured(center, "stranger")
    tags = {"clientId": "pi-7", "device": "pi-7"}
    health = {"rejected": 3, "pending": 0, "disk_free": 12_300_000_000, "uptime": 7300.5, "clock_good": 1}
    center.telemetry.write([Point("agent", tags, health, now_ns())])
    page = text_of(client.get("/"))
    assert "3 registered" in page
    assert re.search(r"Live 1 heard of .* Silent 1 nothing .* Waiting 1 ", page)
    assert "Silent attic last point 3 h ago" in page
    assert "pi-7 3 points refused by the server" in page
    assert "Writing without a registration stranger" in page
    agent = text_of(client.get("/devices/pi-7"))
    for said in ("Refused by the server 3 points", "Free on disk 12.3 GB", "Agent running for 2 h", "synchronised yes"):
        assert said in agent


def test_home_names_a_device_whose_points_were_refused_however_many_were_heard_of_since(client, center, monkeypatch):
    monkeypatch.setattr(home, "ASKED", 1)
    for ago_s, device in ((60, "attic"), (0, "barn")):
        center.registry.register(device, administrator=True)
        measured(center, device, ago_s=ago_s)
    assert "no sensor fails of the 1 heard of last, no point was refused" in text_of(client.get("/"))
    told = {"rejected": 3, "dropped": 0, "unaccounted": 1, "clock_good": 0}
    center.telemetry.write([Point("agent", {"device": "attic"}, told, now_ns())])
    page = text_of(client.get("/"))
    for said in ("3 points refused by the server", "1 point unaccounted for", "The clock is not synchronised"):
        assert f"Problem attic {said}" in page


def test_home_names_a_sensor_that_fails_before_counters_that_never_go_back(client, center):
    for number in range(21):
        center.registry.register(f"pi-{number:02}", administrator=True)
        center.telemetry.write([Point("agent", {"device": f"pi-{number:02}"}, {"rejected": 1}, now_ns())])
        measured(center, f"pi-{number:02}")
    center.telemetry.write([Point("agent", {"device": "pi-20", "sensor": "attic"}, {"failing": 90}, now_ns())])
    assert "Sensor attic fails" in text_of(client.get("/"))


def test_the_list_shows_state_sensor_last_values_and_a_sparkline(client, center, pi_7):
    center.registry.register("balcony", administrator=True)
    answer = client.get("/devices")
    page = text_of(answer)
    assert re.search(r"pi-7 virtual_bme280 Live Temperature \u2212?[\d.]+ °C Humidity [\d.]+ %RH", page)
    assert "balcony Waiting for data none yet never" in page
    assert 'aria-label="Temperature from ' in answer.text


def test_the_list_is_searched_and_paged(client, center):
    for i in range(60):
        center.registry.register(f"pi-{i:02}", administrator=True)
    first = text_of(client.get("/devices"))
    assert "60 devices" in first
    assert "Page 1 of 2" in first
    assert "pi-59" not in first
    assert "pi-59" in text_of(client.get("/devices?page=2"))
    assert "No device has “nothing” in its name or id" in text_of(client.get("/devices?search=nothing"))
    assert "10 of 60 devices" in text_of(client.get("/devices?search=pi-3"))


def test_the_device_page_shows_last_values_with_units_a_summary_and_its_configuration(client, pi_7):
    page = text_of(client.get("/devices/pi-7"))
    for unit in ("°C", "%RH", "hPa", "ppm", "ppb"):
        assert unit in page
    assert re.search(r"Temperature \u2212?[\d.]+ °C \u2212?[\d.]+ °C \u2212?[\d.]+ °C 60 virtual_bme280", page)
    assert "Location 50.08740 ° , 14.40720 °" in page


def test_the_device_page_has_the_agent_s_version_address_and_number_of_sensors(client, center, pi_7):
    said = {"version": 1_012_003, "address": 0xC0A80114, "sensors": 3, "interval": 90.0}
    said["clock_error_s"] = 0.155
    center.telemetry.write([Point("agent", {"clientId": "pi-7", "device": "pi-7"}, said, now_ns())])
    page = text_of(client.get("/devices/pi-7"))
    for shown in ("Version 1.12.3", "Address 192.168.1.20", "Sensors 3", "every 90 s", "Clock right within 0.155 s"):
        assert shown in page


def test_a_device_that_is_not_there_says_so(client):
    answer = client.get("/devices/pi-9")
    assert answer.status_code == 404
    assert "No device pi-9" in text_of(answer)
    assert client.get("/dashboards/pi-9").status_code == 404
    assert client.get("/devices/%2e%2e").status_code == 404


def test_integers_of_a_writer_that_tags_only_device_are_shown(client, center):
    center.telemetry.write([Point("environment", {"device": "python-client"}, {"Temperature": 21}, now_ns())])
    assert "21.00 °C" in text_of(client.get("/devices/python-client"))
    assert client.get("/dashboards/python-client").status_code == 200


def test_points_of_a_writer_that_tags_only_clientid_are_shown_as_text_whatever_they_hold(client, center):
    fields = {"Temperature": 21.5, "Mode <b>": "on"}
    center.telemetry.write([Point("environment", {"clientId": "browser"}, fields, now_ns())])
    answer = client.get("/devices/browser")
    assert "Not registered" in text_of(answer)
    assert "21.50 °C" in text_of(answer)
    assert "Mode &lt;b&gt;" in answer.text
    assert "<b>" not in answer.text
    assert client.get("/dashboards/browser").status_code == 200


BY_HAND = {"name": "Greenhouse", "sensor": "by hand"}


def test_creating_a_device_shows_a_working_token_once_with_a_ready_agent_toml(client, center):
    answer = client.post("/add", data=BY_HAND | {"device_id": " greenhouse-3 "})
    assert answer.status_code == 201
    assert answer.headers["Cache-Control"] == "no-store"
    token = re.search(r'id="token" readonly value="([^"]+)"', answer.text)[1]
    config = tomllib.loads(html.unescape(re.search(r"<code>(\[device\].*?)</code>", answer.text, re.DOTALL)[1]))
    assert config["device"]["id"] == "greenhouse-3"
    assert config["influxdb"]["token"] == token
    target = config["influxdb"]
    assert target["bucket"] == center.telemetry.bucket
    if center.settings.embedded:
        line = "environment,clientId=greenhouse-3 Temperature=20.5"
        assert written(client, token, line) == 204
        assert center.telemetry.count("greenhouse-3") == 1
    for path in ("/devices/greenhouse-3", "/devices", "/add"):
        assert token not in client.get(path).text


@pytest.mark.parametrize("bad", ["..", "a b", "x" * 65, "pi/7", "<script>"])
def test_an_id_no_device_can_have_is_refused_with_what_would_be_right(client, center, bad):
    answer = client.post("/add", data=BY_HAND | {"device_id": bad})
    assert answer.status_code == 400
    assert "aria-invalid" in answer.text
    assert center.registry.devices().total == 0


def test_a_new_token_ends_the_old_one(client, center):
    old = center.registry.register("pi-7", administrator=True).token.reveal()
    answer = client.post("/devices/pi-7/token")
    new = re.search(r'id="token" readonly value="([^"]+)"', answer.text)[1]

    assert new != old
    if center.settings.embedded:
        assert (written(client, old), written(client, new)) == (401, 204)


def test_removing_a_device_keeps_its_measurements(client, center, pi_7):
    answer = client.post("/devices/pi-7/remove", follow_redirects=True)
    assert "pi-7 is removed" in text_of(answer)
    assert center.registry.device("pi-7") is None
    assert center.telemetry.count("pi-7") == 60
    keep_profile(center.registry, "pi-7", Profile("Attic"))  # as where the store failed before that was forgotten
    assert "was not registered any more" in text_of(client.post("/devices/pi-7/remove", follow_redirects=True))
    assert "pi-7" not in profiles(center.registry)
