"""Profiles and what agents tell, on every store; and what is refused or left out of them."""

import json
import time

import pytest

from agent.config.settings import Location
from center import profiles as p
from center.documents import FieldsError, written
from center.profiles import DeviceSettings, Profile, checked, heard, profile_of
from center.stores.registry import MAX_DOCUMENT

FULL = {
    "name": "Attic",
    "group": "House",
    "notes": "under the roof\nbehind the chimney",
    "settings": {
        "interval": 30,
        "report": "mean_min_max",
        "deadband": {"Humidity": 0.5},
        "offset": {"bench.Temperature": -0.8},
        "location": {"lat": 50.1, "lon": 14.4},
    },
}
TOLD = {
    "version": "1.2.3",
    "address": "192.168.1.20",
    "remote": "local",
    "location": {"lat": 1, "lon": 2},
    "located": True,
    "refresh": 300.0,
    "quiet": ["bench"],
    "sensors": [
        {
            "name": "bench",
            "kind": "bme280",
            "driver": "bme280",
            "interval": 10.0,
            "heartbeat": 600.0,
            "report": "mean",
            "deadband": {},
            "offset": {"Temperature": -0.8},
            "file": ["interval"],
            "quantities": ["Humidity", "Temperature"],
        }
    ],
}


def test_a_profile_is_kept_read_replaced_and_forgotten(registry, device):
    assert profile_of(registry, device) == Profile()
    p.keep_profile(registry, device, checked(FULL))
    assert p.profiles(registry)[device] == profile_of(registry, device) == checked(FULL)
    settings = p.profiles(registry)[device].settings
    assert settings == DeviceSettings(
        30.0, "mean_min_max", {"Humidity": 0.5}, {"bench.Temperature": -0.8}, Location(50.1, 14.4)
    )
    p.keep_profile(registry, device, Profile(group="House"))
    assert p.profiles(registry)[device] == Profile(group="House")
    p.keep_told(registry, device, TOLD)
    p.forget(registry, device)
    p.forget(registry, device)
    assert device not in p.profiles(registry)
    assert device not in p.told(registry)


def test_what_is_told_is_written_only_where_it_changed_and_not_all_the_time(registry, device, monkeypatch):
    kept = []
    keep = registry.keep_document
    monkeypatch.setattr(registry, "keep_document", lambda *given: (kept.append(given), keep(*given)))
    for _ in range(3):
        p.keep_told(registry, device, TOLD)
    p.keep_told(registry, device, TOLD | {"version": "1.2.4"})
    assert len(kept) == 1
    assert p.told(registry)[device].version == "1.2.3"
    monkeypatch.setattr(p, "now_ns", lambda: time.time_ns() + p.TOLD_NS)
    p.keep_told(registry, device, TOLD | {"version": "1.2.4"})
    told = p.told(registry)[device]
    assert (len(kept), told.version, told.remote, told.refresh) == (2, "1.2.4", "local", 300.0)
    (sensor,) = told.sensors
    assert (sensor.offset, sensor.file, sensor.quantities) == (
        {"Temperature": -0.8},
        ("interval",),
        ("Humidity", "Temperature"),
    )


def test_all_that_is_wrong_with_a_profile_is_said_at_once():
    wrong = {
        "name": "x" * 65,
        "group": "bell\a",
        "notes": "n" * 2001,
        "settings": {
            "interval": 0.1,
            "deadband": {"CO2": 0},
            "offset": {"Temperature": 900, "a b.Temperature": 1, "DewPoint": 1},
            "location": {"lat": 91, "lon": 0},
        },
    }
    with pytest.raises(FieldsError) as found:
        checked(wrong)
    assert set(found.value.each) == {
        "name",
        "group",
        "notes",
        "settings.interval",
        "settings.deadband.CO2",
        "settings.offset.Temperature",
        "settings.offset.a b.Temperature",
        "settings.offset.DewPoint",
        "settings.location.lat",
    }
    assert found.value.each["settings.interval"] == "0.1 should be a number from 0.2 to 86400 s"
    with pytest.raises(FieldsError) as found:
        checked({"nam": 1, "group": 3, "settings": {"report": "median", "location": {"lat": 3}}})
    assert "did you mean name?" in found.value.each["nam"]
    assert set(found.value.each) == {"nam", "group", "settings.report", "settings.location.lon"}


def test_a_name_may_be_written_in_any_script_and_notes_may_be_a_table():
    profile = {"name": "👩‍🌾 می‌خواهم", "group": "Süd", "notes": "bed\tpH\r\n1\t6.5"}
    assert checked(profile) == Profile(**profile)


@pytest.mark.parametrize("given", [None, [], "x", 3, True])
def test_what_is_no_profile_at_all_is_said(given):
    with pytest.raises(FieldsError, match="a JSON object"):
        checked(given)


def test_what_a_device_tells_wrongly_is_left_out():
    odd = {
        "version": "1" * 1000,
        "address": "a\x00b",
        "remote": ["local"],
        "location": {"lat": 1e300, "lon": 2},
        "located": "yes",
        "refresh": 10**400,
        "quiet": ["bench", 3, "a\x00b", ["x"]],
        "sensors": [
            3,
            {"name": "<b>", "interval": True, "offset": {"Temperature": float("nan"), "Pressure": 1, "Made": 2}},
        ],
    }
    told = heard(odd)
    assert heard({"refresh": 9e11}).refresh is None  # a moment that no calendar has
    assert told.version == "1" * 64
    assert (told.address, told.remote, told.location, told.located, told.refresh) == ("", "", None, False, None)
    assert told.quiet == ("bench",)
    (sensor,) = told.sensors
    assert (sensor.name, sensor.interval, sensor.offset) == ("<b>", None, {"Pressure": 1.0})
    for nothing in (None, [], "x", {"sensors": {"a": 1}}, {"sensors": [{"file": "interval", "deadband": [1]}]}):
        assert heard(nothing).version == ""


def test_sensors_that_are_too_many_for_a_document_are_left_out(registry, device):
    sensor = TOLD["sensors"][0] | {"name": "ä" * 64, "offset": dict.fromkeys(p.QUANTITIES, 1.25)}
    p.keep_told(registry, device, TOLD | {"sensors": [sensor] * 1000})
    assert 10 < len(p.told(registry)[device].sensors) < 64


class Texts:
    """A registry of so many documents."""

    def __init__(self, texts):
        self.texts = texts

    def documents(self, _):
        return self.texts


def test_ten_thousand_profiles_are_parsed_once():
    registry = Texts({f"d{n}": json.dumps(FULL | {"name": f"n{n}"}) for n in range(10_000)})
    p.profiles(registry)
    parsed = p._profile.cache_info().misses
    assert p.profiles(registry)["d7"].name == "n7"
    assert p._profile.cache_info().misses == parsed


def test_a_profile_of_a_later_version_is_none_rather_than_an_error():
    assert p.profiles(Texts({"d": '{"colour": "red"}'}))["d"] == Profile()


def test_the_longest_profile_fits_a_document():
    most = {f"{'s' * 60}{n:04}.Temperature": -179.123456789 for n in range(50)}
    settings = FULL["settings"] | {"offset": most, "deadband": dict.fromkeys(most, 1e-09)}
    full = {"name": '"' * 64, "group": '"' * 64, "notes": '"' * 2000, "settings": settings}
    assert len(written(checked(full))) < MAX_DOCUMENT


@pytest.mark.parametrize("given", [{"n" * 400: 1}, {"settings": {"offset": {"k" * 400: "x"}}}, {"notes": ["x" * 9000]}])
def test_what_is_wrong_is_named_however_long_it_is(given):
    with pytest.raises(FieldsError) as found:
        checked(given)
    assert found.value.each
    assert all(name and why and len(name) <= 150 and len(why) <= 200 for name, why in found.value.each.items())
