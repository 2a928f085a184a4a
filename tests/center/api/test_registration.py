"""The registration API on both stores, open on loopback."""

import json
import re
from pathlib import Path

import pytest

from center.stores.registry import check_device_id
from tests.center_helpers import code

SECRET = {"X-Device-Secret": "s" * 32}
OTHER = {"X-Device-Secret": "o" * 32}
V2 = json.loads((Path(__file__).parents[2] / "data" / "iot-center-v2.json").read_text())


def test_a_registration_answers_all_a_device_needs(client, center, device):
    answer = client.post(f"/api/devices/{device}", headers=SECRET)
    assert answer.status_code == 201
    assert answer.headers["Cache-Control"] == "no-store"
    told = answer.json
    influx = center.settings.influxdb
    direct = center.settings.series_on == "influxdb"
    url, org = (influx.url, influx.org) if direct else ("http://localhost", "iot-center")
    assert (told["influx_url"], told["influx_org"], told["influx_bucket"]) == (url, org, center.telemetry.bucket)
    assert told["deviceId"] == device
    assert (told["measurement_interval"], told["configuration_refresh"]) == (10, 300)
    assert (told["default_lat"], told["default_lon"]) == (50.0874, 14.4072)
    assert len(told["token"]) > 40
    assert told["key"] == client.get(f"/api/devices/{device}").json["key"]
    for stamp in (told["createdAt"], told["serverTime"]):
        assert re.fullmatch(r"\d{4}-\d\d-\d\dT\d\d:\d\d:\d\d(\.\d+)?Z", stamp)


def test_the_secret_gets_a_new_token_and_whoever_lacks_it_a_409_also_on_loopback(client, device):
    first = client.post(f"/api/devices/{device}", headers=SECRET)
    for headers in ({}, OTHER):
        assert code(client.post(f"/api/devices/{device}", headers=headers)) == (409, "conflict")
    again = client.post(f"/api/devices/{device}", headers=SECRET)
    assert again.status_code == 200
    assert again.json["token"] != first.json["token"]
    assert again.json["createdAt"] == first.json["createdAt"]


def test_the_old_token_ends_when_a_new_one_is_issued(app, client, center, device):
    old = client.post(f"/api/devices/{device}", headers=SECRET).json
    new = client.post(f"/api/devices/{device}", headers=SECRET).json

    def status(told):
        path = f"/api/v2/write?org={told['influx_org']}&bucket={told['influx_bucket']}"
        headers = {"Authorization": f"Token {told['token']}"}
        if center.settings.series_on != "influxdb":
            return client.post(path, headers=headers).status_code
        import requests

        return requests.post(told["influx_url"] + path, headers=headers, timeout=40).status_code

    assert (status(old), status(new)) == (401, 204)
    client.delete(f"/api/devices/{device}")
    assert status(new) == 401


@pytest.mark.parametrize("bad", ["a b", "ä", "a" * 65, "a%0Ab", "a'b"])
def test_an_id_no_device_can_have_is_a_400(client, bad):
    for method, path in (("POST", ""), ("GET", "/measurements"), ("GET", "/measurements/count")):
        assert code(client.open(f"/api/devices/{bad}{path}", method=method)) == (400, "invalid")
    assert code(client.get(f"/api/env/{bad}")) == (400, "invalid")


def test_a_body_may_name_the_device_or_leave_it_to_the_center(client, device):
    body = json.dumps({"deviceId": device})
    assert client.post("/api/devices", data=body).json["deviceId"] == device
    made = client.post("/api/devices").json["deviceId"]
    assert check_device_id(made) == made
    assert client.get(f"/api/devices/{made}").status_code == 200
    for bad in ("[]", '{"deviceId": 3}', "nonsense"):
        assert code(client.post("/api/devices", data=bad)) == (400, "invalid")


def test_a_removed_device_is_gone(client, device):
    client.post(f"/api/devices/{device}", headers=SECRET)
    assert client.delete(f"/api/devices/{device}").status_code == 204
    assert code(client.delete(f"/api/devices/{device}")) == (404, "not found")
    assert code(client.get(f"/api/devices/{device}")) == (404, "not found")
    assert client.post(f"/api/devices/{device}", headers=OTHER).status_code == 201


def test_ids_are_matched_exactly(client, device):
    client.post(f"/api/devices/{device}0", headers=SECRET)
    assert code(client.get(f"/api/devices/{device}")) == (404, "not found")
    assert code(client.delete(f"/api/devices/{device}")) == (404, "not found")
    env = client.get(f"/api/env/{device}?register=false")
    assert (env.status_code, env.json["registered"]) == (403, False)
    assert client.get(f"/api/devices/{device}0").status_code == 200


def test_the_list_has_pages_and_shows_no_token(client, device):
    tokens = [client.post(f"/api/devices/{device}.{n}", headers=SECRET).json["token"] for n in range(3)]
    answer = client.get(f"/api/devices?search={device}&offset=1&limit=5")
    assert [found["deviceId"] for found in answer.json] == [f"{device}.1", f"{device}.2"]
    assert answer.headers["X-Total-Count"] == "3"
    everything = client.get("/api/devices").text
    assert f"{device}.0" in everything
    assert not any(token in everything for token in tokens)
    assert code(client.get("/api/devices?limit=x")) == (400, "invalid")


def test_promise_7_no_answer_but_the_first_shows_a_token(client, device, caplog):
    token = client.post(f"/api/devices/{device}", headers=SECRET).json["token"]
    shown = [
        client.get(path).text
        for path in (
            f"/api/devices/{device}", "/api/devices", f"/api/env/{device}", f"/devices/{device}", "/devices",
            "/api/buckets", f"/api/devices/{device}/measurements", "/",
        )
    ]  # fmt: skip
    assert not any(token in text or "s" * 32 in text for text in [*shown, caplog.text])


def test_the_environment_has_iot_center_v2s_fields(client, device):
    recorded = V2[0]["response"]["body"]
    first = client.get(f"/api/env/{device}", headers=SECRET)
    assert first.status_code == 200
    assert first.headers["Cache-Control"] == "no-store"
    assert set(recorded) - {"write_endpoint", "mqtt_options"} <= set(first.json)
    assert {name: type(first.json[name]) for name in ("id", "default_lat", "newlyRegistered", "influx_token")} == {
        name: type(recorded[name]) for name in ("id", "default_lat", "newlyRegistered", "influx_token")
    }
    assert first.json["newlyRegistered"] is True
    assert len(first.json["influx_token"]) > 40
    again = client.get(f"/api/env/{device}", headers=SECRET).json
    assert (again["newlyRegistered"], again["influx_token"]) == (False, "")
    assert again["createdAt"] == first.json["createdAt"]


def test_asking_for_the_head_of_the_environment_registers_nothing(client, device):
    assert client.head(f"/api/env/{device}").status_code == 403
    assert client.get(f"/api/devices/{device}").status_code == 404


def test_the_environment_does_not_register_when_told_not_to(client, device):
    answer = client.get(f"/api/env/{device}?register=false")
    assert (answer.status_code, answer.json["id"], answer.json["registered"]) == (403, device, False)
    assert client.get(f"/api/devices/{device}").status_code == 404
