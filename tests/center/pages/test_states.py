"""What pages say of a device: how old its values are, what its agent says is wrong, that nothing was heard of it yet;
and what an open page asks for again.
"""

from __future__ import annotations

import html
import re
from dataclasses import replace

import pytest

from agent.status.board import Board
from agent.status.health_rules import problems
from agent.status.self_telemetry import health_line, trouble_lines
from center import profiles
from center.context import EXTENSION
from center.errors import StoreError
from center.line_protocol import parse
from center.pages import devices, home, live
from center.profiles import DeviceSettings, Profile
from center.stores.telemetry import Point
from center.times import now_ns
from tests.center_helpers import DAY, SECOND, code, environment, measured, text_of
from tests.snapshots import in_trouble, snapshot

PART = {"X-Part": "live", "Accept": "text/html"}


def report(center, device, snapshot, at):
    """The health points of an agent with this snapshot, stored."""
    lines = [health_line(device, snapshot, Board(), 5), *trouble_lines(device, snapshot, 5)]
    for points in parse(b"\n".join(b"%s %d" % (line.head, at) for line in lines)):
        center.telemetry.write(points)


@pytest.mark.parametrize("path", ["/devices/pi-7", "/dashboards/pi-7", "/devices"])
def test_a_value_tells_its_age_and_fades_after_three_intervals(client, center, path):
    center.registry.register("pi-7", administrator=True)
    now = now_ns() // 10**6 * 10**6
    report(center, "pi-7", snapshot(), now)
    center.telemetry.write([environment("pi-7", now - 40 * SECOND, Humidity=50.0)])
    center.telemetry.write([environment("pi-7", now, Temperature=20.0)])
    page = client.get(path).text
    if path == "/devices":
        assert re.findall(r'data-time-ns="(\d+)"( data-stale)?', page) == [
            (str(now), ""),
            (str(now - 40 * SECOND), " data-stale"),
        ]
        assert re.search(r"50\.00 %RH \d+ s ago", text_of(client.get(path)))
    assert 'data-stale-after="30' in page


@pytest.mark.parametrize("path", ["/", "/devices/pi-7", "/dashboards/pi-7", "/devices"])
def test_an_interval_that_the_agent_no_longer_tells_fades_no_value(client, center, path):
    """As once a deadband holds reports back."""
    center.registry.register("pi-7", administrator=True)
    now = now_ns() // 10**6 * 10**6
    for ago_s, told in ((600, {"interval": 10.0}), (0, {"pending": 0})):
        center.telemetry.write([Point("agent", {"device": "pi-7"}, told, now - ago_s * SECOND)])
    center.telemetry.write([environment("pi-7", now - 60 * SECOND, Temperature=20.0)])
    assert set(re.findall(r'data-stale-after="(\d+)', client.get(path).text)) == {"300"}


@pytest.mark.parametrize("path", ["/", "/devices/pi-7", "/dashboards/pi-7", "/devices"])
def test_where_no_interval_is_told_values_fade_by_the_sensor_that_reports_least_often(client, center, path):
    center.registry.register("pi-7", administrator=True)
    slow = {"interval": 10.0, "heartbeat": 600.0, "deadband": {"Temperature": 0.2}}
    profiles.keep_told(center.registry, "pi-7", {"sensors": [{"interval": 10.0}, slow]})
    center.telemetry.write([Point("agent", {"device": "pi-7"}, {"pending": 0}, now_ns())])
    center.telemetry.write([environment("pi-7", now_ns() - 60 * SECOND, Temperature=20.0)])
    assert set(re.findall(r'data-stale-after="(\d+)', client.get(path).text)) == {"1800"}


def test_what_the_agent_says_of_its_sensors_is_an_alert_on_home_and_on_the_device(client, center):
    center.registry.register("pi-7", administrator=True)
    measured(center, "pi-7")
    boot = 10**15
    wrong = in_trouble(boot)
    told = snapshot(boot, sensors=wrong)
    at = now_ns()
    report(center, "pi-7", told, at)
    said = [
        "Sensor attic fails for 90 s: nothing answers there: is it plugged in?",
        "Sensor cellar: Pressure refused for 10 min",
        "Sensor cellar: Humidity has the very same raw value again and again: it seems to be stuck",
        "Sensor roof: no reading for 5 min",
    ]
    # As the agent says it itself, but for the details.
    assert all(any(own.startswith(text.partition(": nothing")[0]) for own in problems(told)) for text in said)
    for path in ("/", "/devices/pi-7"):
        page = text_of(client.get(path))
        for problem in said:
            assert problem in page, path
    report(center, "pi-7", snapshot(), at + SECOND)
    for path in ("/", "/devices/pi-7"):
        assert "Sensor attic" not in text_of(client.get(path))


def test_a_device_without_data_waits_on_every_page(client, center):
    center.registry.register("pi-7", administrator=True)
    for path in ("/devices", "/devices/pi-7", "/dashboards/pi-7"):
        page = text_of(client.get(path))
        assert "Waiting for data" in page, path
        assert "Silent" not in page
    answer = client.get("/dashboards/pi-7/live.json").json
    assert answer["state"]["name"] == "waiting"
    center.telemetry.write([environment("pi-7", now_ns() - DAY, Temperature=20.0)])
    client.application.extensions["iot-center-live"].__init__()
    answer = client.get("/dashboards/pi-7/live.json").json
    assert (answer["state"]["name"], answer["last"]) == ("silent", [])


@pytest.mark.parametrize(
    ("asked", "sensors", "name"),
    [
        (None, [{"interval": 900.0}], "live"),
        (None, [{"interval": 900.0}, {"interval": 10.0}], "silent"),
        (None, [{"interval": 10.0, "heartbeat": 600.0, "deadband": {"Temperature": 0.5}}], "live"),
        (None, [{"interval": 10.0, "heartbeat": 600.0}], "silent"),
        (900.0, [], "live"),
        (900.0, [{"interval": 10.0}], "live"),
        (900.0, [{"interval": 10.0, "file": ["interval"]}], "silent"),
        (None, [{"interval": 1e9}], "live"),
        (None, [], "silent"),
    ],
)
def test_a_device_that_reports_seldom_is_called_silent_after_three_of_its_intervals(
    client, center, asked, sensors, name
):
    center.registry.register("pi-7", administrator=True)
    profiles.keep_profile(center.registry, "pi-7", Profile(settings=DeviceSettings(interval=asked)))
    if sensors:
        profiles.keep_told(center.registry, "pi-7", {"sensors": sensors})
    center.telemetry.write([environment("pi-7", now_ns() - 400 * SECOND, Temperature=20.0)])
    assert_everywhere(client, name)


@pytest.mark.parametrize(
    ("quiet", "age_s", "name"),
    [
        ([], 400, "silent"),
        (["slow"], 400, "silent"),
        (["fast"], 400, "live"),
        (["fast"], 2600, "live"),
        (["fast"], 2800, "silent"),
        (["fast", "slow"], 2600, "live"),  # it is the sensors that are silent, as its agent says
        (["fast", "slow"], 2800, "silent"),
        (["another"], 400, "silent"),
    ],
)
def test_a_sensor_that_gives_nothing_does_not_say_how_soon_its_device_is_silent(client, center, quiet, age_s, name):
    center.registry.register("pi-7", administrator=True)
    sensors = [{"name": "fast", "interval": 10.0}, {"name": "slow", "interval": 900.0}]
    profiles.keep_told(center.registry, "pi-7", {"sensors": sensors, "quiet": quiet})
    center.telemetry.write([environment("pi-7", now_ns() - age_s * SECOND, Temperature=20.0)])
    assert_everywhere(client, name)


def test_an_open_page_judges_by_the_interval_that_holds_now(client, center, monkeypatch):
    center.registry.register("pi-7", administrator=True)
    profiles.keep_told(center.registry, "pi-7", {"sensors": [{"interval": 10.0}]})
    center.telemetry.write([environment("pi-7", now_ns() - 400 * SECOND, Temperature=20.0)])

    def seen(page):
        answer = open_page(client, page)
        return answer["state"]["name"], answer["stale_after"]

    page = client.get("/dashboards/pi-7").text
    assert seen(page) == ("silent", 300)
    profiles.keep_profile(center.registry, "pi-7", Profile(settings=DeviceSettings(interval=900.0)))
    for path in ("/devices/pi-7", "/dashboards/pi-7"):
        assert seen(client.get(path).text) == ("live", 2700)  # at once, as the page itself
    profiles.keep_profile(center.registry, "pi-7", Profile(settings=DeviceSettings(interval=600.0)))
    monkeypatch.setattr(live, "EVERY_S", 0)
    monkeypatch.setattr(live, "KNOWN_EVERY_S", 0)
    assert seen(page) == ("live", 1800)


def assert_everywhere(client, name):
    """That every page says it of pi-7, also once it is open."""
    for path in ("/devices", "/devices/pi-7", "/dashboards/pi-7"):
        page = client.get(path).text
        assert re.findall(r'class="state state-(\w+)"', page.partition("<main")[2]) == [name], path
    assert open_page(client, page)["state"]["name"] == name
    assert ("Live 1" in text_of(client.get("/fleet"))) == ("Live 1" in text_of(client.get("/"))) == (name == "live")


def open_page(client, page):
    """What an open page of a device asks for."""
    return client.get(html.unescape(re.search(r'data-live-values="([^"]+)"', page)[1])).json


@pytest.mark.parametrize("path", ["/", "/devices"])
def test_an_open_list_asks_for_what_changed_and_gets_nothing_twice(client, pi_7, center, path):
    whole, part = client.get(path), client.get(path, headers=PART)
    keys = re.findall(r'data-part="([^"]+)"', whole.text)
    assert keys == re.findall(r'data-part="([^"]+)"', part.text)
    assert "pi-7 values" in keys
    assert "<svg" in whole.text
    assert "<html" not in part.text
    assert "csrf" not in part.text
    assert 'class="spark' not in part.text
    again = client.get(path, headers={**PART, "If-None-Match": part.headers["ETag"]})
    assert (again.status_code, again.data) == (304, b"")
    measured(center, pi_7, minutes=1, ago_s=-2)
    changed = client.get(path, headers={**PART, "If-None-Match": part.headers["ETag"]})
    assert changed.status_code == 200


def test_every_page_hears_whether_all_is_well(client, app, center, monkeypatch):
    page = client.get("/help").text
    (url,) = re.findall(r'data-heartbeat="([^"]+)"', page)
    assert abs(client.get(url).json["now"] - now_ns() // 10**6) < 60_000

    def away(*_, **__):
        raise StoreError("InfluxDB does not answer at http://influx.local:8086")

    class Down:
        last_values = away

    app.extensions[EXTENSION] = replace(center, telemetry=Down())
    app.extensions["iot-center-live"].__init__()
    answer = client.get(url, headers={"Accept": "application/json"})
    assert code(answer) == (503, "unavailable")
    assert "influx.local" in answer.json["message"]


def test_a_copied_card_is_seen_by_its_two_agents_that_take_turns_and_a_restart_is_not(client, center, monkeypatch):
    center.registry.register("pi-7", administrator=True)
    now = now_ns()

    def two_are_seen_after(*runs):
        nonlocal now
        for run in runs:
            now += 300 * SECOND
            profiles.keep_told(center.registry, "pi-7", {"refresh": 300, "run": run})
        return ["Two agents run as this device" in text_of(client.get(path)) for path in ("/", "/devices/pi-7")]

    monkeypatch.setattr(profiles, "now_ns", lambda: now)
    for module in (devices, home):
        monkeypatch.setattr(module, "now_ns", lambda: now)
    assert two_are_seen_after("a", "a", "b", "c") == [False, False]
    assert two_are_seen_after("b") == [True, True]
    assert two_are_seen_after("b", "b", "b") == [False, False]  # the other was stopped
    assert two_are_seen_after("", "d", "") == [False, False]  # an earlier version, that tells no run
