"""A device's own settings over the API: given, told to the device, and what it tells in return."""

import json

import pytest

from center import profiles
from tests.center.stores.test_profiles import FULL, TOLD
from tests.center_helpers import PASSWORD, code

SECRET = {"X-Device-Secret": "s" * 32}
OTHER = {"X-Device-Secret": "o" * 32}
ADMIN = {"auth": ("admin", PASSWORD)}


def put(client, device, profile, **how):
    return client.put(f"/api/devices/{device}/settings", data=json.dumps(profile), **how)


def configured(client, device, told=None, headers=SECRET):
    return client.post(f"/api/devices/{device}/configuration", data=json.dumps(told), headers=headers)


def test_the_settings_of_a_device_are_put_whole_and_read(client, device):
    assert code(put(client, device, FULL)) == (404, "not found")
    client.post(f"/api/devices/{device}", headers=SECRET)
    path = f"/api/devices/{device}/settings"
    unset = {"interval": None, "report": None, "deadband": {}, "offset": {}, "location": None}
    assert client.get(path).json == {"name": "", "group": "", "notes": "", "settings": unset}
    assert put(client, device, FULL).json == client.get(path).json == FULL
    assert put(client, device, {"group": "Garden"}).json["name"] == ""
    wrong = put(client, device, {"settings": {"interval": 0, "offset": {"Temperature": 999, "Nothing": 1}}})
    assert code(wrong) == (400, "invalid")
    for name in ("settings.interval: 0.0 ", "settings.offset.Temperature: 999", "settings.offset.Nothing: "):
        assert name in wrong.json["message"]
    assert client.get(path).json["group"] == "Garden"
    half = '{"settings": {"offset": {"\\ud800": 1}}}'  # of a surrogate pair: no text
    for body in ("", "[1]", "{", "[" * 100_000, half):
        assert client.put(path, data=body).status_code in (400, 413)


def test_a_device_is_told_its_own_settings_in_every_dialect(client, device):
    first = client.post(f"/api/devices/{device}", headers=SECRET).json
    assert (first["measurement_interval"], first["offset"]) == (10, None)
    put(client, device, FULL)
    answers = [
        client.post(f"/api/devices/{device}", headers=SECRET).json,
        client.get(f"/api/env/{device}", headers=SECRET).json,
        configured(client, device).json,
    ]
    for told in answers:
        assert (told["measurement_interval"], told["report"]) == (30, "mean_min_max")
        assert (told["default_lat"], told["default_lon"]) == (50.1, 14.4)
        assert (told["deadband"], told["offset"]) == ({"Humidity": 0.5}, {"bench.Temperature": -0.8})
    put(client, device, {"name": "Attic"})
    told = configured(client, device).json
    assert (told["deviceId"], told["measurement_interval"], told["configuration_refresh"]) == (device, 10, 300)
    assert (told["default_lat"], told["report"], told["deadband"], told["offset"]) == (50.0874, None, None, None)
    assert "token" not in str(told)


def test_what_a_device_tells_is_kept_until_it_is_removed(client, center, device):
    client.post(f"/api/devices/{device}", headers=SECRET)
    put(client, device, FULL)
    assert configured(client, device, TOLD).status_code == 200
    assert profiles.told(center.registry)[device].sensors[0].name == "bench"
    for odd in (None, [], "x", {"sensors": 3}):
        assert configured(client, device, odd).status_code == 200
    client.delete(f"/api/devices/{device}")
    assert device not in profiles.told(center.registry)
    assert device not in profiles.profiles(center.registry)
    profiles.keep_profile(center.registry, device, profiles.Profile("Attic"))  # as where the store failed before that
    assert client.delete(f"/api/devices/{device}").status_code == 404
    assert device not in profiles.profiles(center.registry)
    gone = configured(client, device, TOLD)
    assert (gone.status_code, gone.json["registered"]) == (403, False)
    assert device not in profiles.told(center.registry)


@pytest.mark.usefixtures("locked")
def test_settings_are_for_administrators_and_a_configuration_for_its_device(client, center, device):
    client.post(f"/api/devices/{device}", headers=SECRET, **ADMIN)
    assert put(client, device, FULL, **ADMIN).status_code == 200
    for headers in ({}, SECRET):
        assert code(put(client, device, {}, headers=headers)) == (401, "unauthorized")
        assert code(client.get(f"/api/devices/{device}/settings", headers=headers)) == (401, "unauthorized")
    assert configured(client, device).json["measurement_interval"] == 30
    assert code(configured(client, device, TOLD, headers={})) == (401, "unauthorized")
    assert code(configured(client, device, TOLD, headers=OTHER)) == (403, "forbidden")
    assert code(configured(client, f"{device}0", TOLD)) == (403, "forbidden")
    assert device not in profiles.told(center.registry)
