"""The settings on a device's page: what is asked, what the device says that it uses, and why these differ."""

from __future__ import annotations

import html
import re
from dataclasses import replace

import pytest

from agent.config.settings import Location
from center import profiles
from center.pages.settings_form import entries, sent
from center.profiles import DeviceSettings, Profile, Told, ToldSensor, checked, heard
from center.settings import DeviceDefaults
from tests.center.stores.test_profiles import FULL, TOLD
from tests.center_helpers import PASSWORD, text_of

MEASURES = ("Humidity", "Temperature")
BENCH = ToldSensor("bench", "bme280", "bme280", 10.0, "mean", {}, {}, (), MEASURES)


def notes(settings, *sensors, location=None, located=False):
    """What stands beside each setting, where something does."""
    told = Told(version="1.0.0", remote="local", location=location, located=located, sensors=sensors)
    found = entries(Profile(settings=settings), told, DeviceDefaults(), ())
    return {entry.name.removeprefix("settings."): entry.note for entry in found if entry.note}


@pytest.mark.parametrize(
    ("settings", "sensor", "name", "note"),
    [
        ({}, {}, "interval", "In use: 10 s"),
        ({"interval": 30.0}, {"interval": 30.0}, "interval", "In use: 30 s"),
        ({"interval": 30.0}, {}, "interval", "In use: 10 s, until it asks again"),
        ({"interval": 30.0}, {"file": ("interval",)}, "interval", "In use: 10 s, as its agent.toml says"),
        ({}, {"interval": 2.5, "file": ("interval",)}, "interval", "In use: 2.5 s, as its agent.toml says"),
        ({"report": "mean_min_max"}, {"file": ("report",)}, "report", "In use: mean, as its agent.toml says"),
        ({}, {"report": "mean_min_max"}, "report", "In use: mean, min, max, until it asks again"),
        ({"offset": {"Temperature": -0.8}}, {}, "offset.Temperature", "In use: none, until it asks again"),
        (
            {},
            {"offset": {"Temperature": -0.8}},
            "offset.Temperature",
            "In use: \N{MINUS SIGN}0.80 °C, until it asks again",
        ),
        (
            {"offset": {"bench.Temperature": 1.0}},
            {"file": ("offset.Temperature",)},
            "offset.bench.Temperature",
            "In use: a calibration, as its agent.toml says",
        ),
        (
            {"deadband": {"Humidity": 0.5}},
            {"deadband": {"Humidity": 2.0}, "file": ("deadband.Humidity",)},
            "deadband.Humidity",
            "In use: 2.00 %RH, as its agent.toml says",
        ),
    ],
)
def test_beside_each_setting_stands_what_is_in_use_and_why_it_is_not_what_is_asked(settings, sensor, name, note):
    found = notes(DeviceSettings(**settings), replace(BENCH, **sensor))
    assert found[name] == note


def test_where_nothing_is_asked_and_nothing_is_in_use_nothing_is_said():
    assert set(notes(DeviceSettings(), BENCH)) == {"interval", "report"}


def test_sensors_that_differ_are_told_apart_and_a_quantity_of_both_has_an_entry_for_each():
    roof = ToldSensor(
        "roof", "ds18b20", "ds18b20", 60.0, "mean", {}, {"Temperature": 0.1}, ("interval",), ("Temperature",)
    )
    settings = DeviceSettings(interval=10.0, offset={"Temperature": 0.1})
    found = notes(settings, BENCH, roof)
    assert found["interval"] == "In use: bench 10 s; roof 1 min, as its agent.toml says"
    assert found["offset.Temperature"] == "In use: bench none, until it asks again; roof 0.10 °C"
    told = Told(sensors=(BENCH, roof))
    names = [entry.name for entry in entries(Profile(settings=settings), told, DeviceDefaults(), ())]
    assert [name for name in names if ".offset." in name] == [
        "settings.offset.bench.Temperature",
        "settings.offset.roof.Temperature",
        "settings.offset.Humidity",
        "settings.offset.Temperature",  # asked for all: it is there to be changed, too
    ]
    assert found["offset.roof.Temperature"] == "In use: 0.10 °C"  # what is asked for all is asked for this one
    own = notes(replace(settings, offset={"Temperature": 0.1, "bench.Temperature": 2.0}), BENCH, roof)
    assert own["offset.Temperature"] == "In use: 0.10 °C"
    assert own["offset.bench.Temperature"] == "In use: none, until it asks again"


def test_the_location_in_use_is_the_file_s_the_device_s_own_or_the_center_s():
    asked = DeviceSettings(location=Location(50.0, 14.5))
    assert notes(asked, location=Location(50.0, 14.5))["location.lon"] == "In use: 14.5°"
    assert notes(asked, location=Location(48.0, 16.0))["location.lat"] == "In use: 48°, until it asks again"
    ruled = notes(asked, location=Location(48.0, 16.0), located=True)
    assert ruled["location.lat"] == "In use: 48°, as its agent.toml says"


def test_what_a_form_holds_is_the_profile_it_was_made_of():
    profile = checked(FULL)
    form = {entry.name: entry.value for entry in entries(profile, heard(TOLD), DeviceDefaults(), ())}
    assert checked(sent(form)) == profile
    assert sent(
        {"settings.interval": "5m", "csrf_token": "x", "settings": "x", "settings.offset": "y", "name": " "}
    ) == {"settings": {"interval": 300.0}}


def test_the_page_of_a_device_keeps_its_settings_and_says_when_they_are_asked_for(client, center, pi_7):
    profiles.keep_told(center.registry, "pi-7", TOLD)
    answer = client.post(
        "/devices/pi-7/settings",
        data={
            "name": "Attic",
            "group": "House",
            "notes": "one\r\ntwo",
            "settings.interval": "30 s",
            "settings.report": "",
            "settings.offset.Temperature": "-0.8",
            "settings.location.lat": "50.1",
            "settings.location.lon": "14.4",
        },
    )
    assert (answer.status_code, answer.headers["Location"]) == (302, "/devices/pi-7")
    kept = profiles.profile_of(center.registry, "pi-7")
    assert kept == Profile(
        "Attic", "House", "one\ntwo", DeviceSettings(30.0, None, {}, {"Temperature": -0.8}, Location(50.1, 14.4))
    )
    page = text_of(client.get("/devices/pi-7"))
    assert "asks for its settings in 5 min" in page
    assert "Attic Live pi-7 · House · Last point" in page
    assert "In use: 10 s, as its agent.toml says" in page
    assert "Agent 1.2.3 at 192.168.1.20 Sensor bench bme280, every 10 s Asks again every 5 min" in page
    client.post("/devices/pi-7/remove")
    assert profiles.profile_of(center.registry, "pi-7") == Profile()


def test_settings_that_cannot_be_are_shown_again_with_what_is_wrong_with_each(client, center, pi_7):
    typed = {
        "name": "<b>Attic</b>",
        "settings.interval": "soon",
        "settings.offset.Temperature": "0,5",
        "settings.deadband.Humidity": "0",
        "settings.location.lat": "50",
    }
    answer = client.post("/devices/pi-7/settings", data=typed)
    assert answer.status_code == 400
    for said in ("'soon': must be a number", "'0,5': must be a number", "missing; it has no default"):
        assert said in html.unescape(answer.text)
    for name, value in typed.items():
        shown = re.search(f'<input[^>]*name="{re.escape(name)}"[^>]*>', answer.text)[0]
        assert f'value="{html.escape(value)}"' in shown
    assert profiles.profile_of(center.registry, "pi-7") == Profile()
    last = client.post("/devices/pi-7/settings", data={"settings.deadband.Humidity": "0"})
    assert "0: must be above 0" in last.text
    assert client.post("/devices/nobody/settings", data={}).status_code == 404


def test_who_keeps_settings_over_what_somebody_else_kept_meanwhile_is_asked_first(client, center, pi_7):
    def stamp(answer):
        return re.search('name="stamp" value="([^"]+)"', answer.text)[1]

    opened = stamp(client.get("/devices/pi-7"))
    first = {"name": "Attic", "stamp": opened}
    for _ in "double click":
        assert client.post("/devices/pi-7/settings", data=first).status_code == 302
    second = client.post("/devices/pi-7/settings", data={"name": "Loft", "stamp": opened})
    assert (second.status_code, profiles.profile_of(center.registry, "pi-7").name) == (409, "Attic")
    assert "Somebody else changed these settings meanwhile" in second.text
    assert 'value="Loft"' in second.text
    again = client.post("/devices/pi-7/settings", data={"name": "Loft", "stamp": stamp(second)})
    assert (again.status_code, profiles.profile_of(center.registry, "pi-7").name) == (302, "Loft")


def test_what_a_device_tells_is_escaped_and_whoever_is_not_logged_in_gets_no_form(center, guarded, pi_7):
    profiles.keep_told(center.registry, "pi-7", TOLD | {"version": "<script>x", "sensors": [{"name": "<i>s"}]})
    profiles.keep_profile(center.registry, "pi-7", Profile(name="<u>n", notes="<s>t"))
    assert guarded.post("/devices/pi-7/settings", data={"name": "x"}).status_code == 302
    assert profiles.profile_of(center.registry, "pi-7").name == "<u>n"
    guarded.post("/login", data={"password": PASSWORD})
    page = guarded.get("/devices/pi-7").text
    for tag in ("<script>x", "<i>s", "<u>n", "<s>t"):
        assert tag not in page
        assert html.escape(tag) in page
