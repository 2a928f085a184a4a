"""The registration and telemetry API, on both stores, open on loopback and behind a password."""

import base64
import contextlib
import csv
import dataclasses
import io
import json
import re
import time
from pathlib import Path

import pytest
from werkzeug.security import generate_password_hash

from agent.util.secret import Secret
from center import security
from center.app import create_app
from center.context import EXTENSION
from center.errors import SettingsError
from center.pages.flux import pipeline
from center.settings import DeviceDefaults
from center.stores.registry import check_device_id
from center.stores.telemetry import Point
from tests.center_helpers import HOUR, SECOND, embedded_settings, influx_settings

PASSWORD = "correct horse battery"
HASH = generate_password_hash(PASSWORD, method="pbkdf2:sha256:1000")  # quick: the strong one is tried once below
SECRET = {"X-Device-Secret": "s" * 32}
OTHER = {"X-Device-Secret": "o" * 32}
ADMIN = {"Authorization": "Basic " + base64.b64encode(f"admin:{PASSWORD}".encode()).decode()}
V2 = json.loads((Path(__file__).parents[1] / "data" / "iot-center-v2.json").read_text())
NOW = time.time_ns() // HOUR * HOUR - 2 * HOUR


@pytest.fixture(scope="module", params=["embedded", pytest.param("influxdb", marks=pytest.mark.influxdb)])
def app(request, tmp_path_factory):
    with contextlib.ExitStack() as stack:
        if request.param == "embedded":
            settings = embedded_settings(tmp_path_factory.mktemp("center"))
        else:
            settings = stack.enter_context(influx_settings())
        defaults = DeviceDefaults(default_lat=50.0874, default_lon=14.4072)
        app = create_app(dataclasses.replace(settings, devices=defaults))
        yield app
        app.extensions[EXTENSION].close()


@pytest.fixture
def center(app):
    return app.extensions[EXTENSION]


@pytest.fixture
def client(app):
    return app.test_client()


@pytest.fixture
def locked(center):
    """With a password: nobody is trusted for being on this machine."""
    center.registry.set_password_hash(HASH)
    yield
    center.registry.set_password_hash(None)


@pytest.fixture
def device(request):
    return f"{request.node.originalname[5:40]}-{time.time_ns() % 10**9}"


def code(answer):
    """Status and code of an error, which has the one form."""
    assert set(answer.json) >= {"code", "message"}, answer.text
    assert answer.json["message"]
    return answer.status_code, answer.json["code"]


# --- registration


def test_a_registration_answers_all_a_device_needs(client, center, device):
    answer = client.post(f"/api/devices/{device}", headers=SECRET)
    assert answer.status_code == 201
    assert answer.headers["Cache-Control"] == "no-store"
    told = answer.json
    influx = center.settings.influxdb
    url = "http://localhost" if center.telemetry.embedded else influx.url
    org = "iot-center" if center.telemetry.embedded else influx.org
    assert (told["influx_url"], told["influx_org"], told["influx_bucket"]) == (url, org, center.telemetry.bucket)
    assert told["deviceId"] == device
    assert (told["measurement_interval"], told["configuration_refresh"]) == (10, 3600)
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
        if center.telemetry.embedded:
            return client.post(path, headers=headers).status_code
        import requests

        return requests.post(told["influx_url"] + path, headers=headers, timeout=10).status_code

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


# --- iot-center-v2's way


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


# --- measurements


def written(center, device, *fields, step=60 * SECOND):
    tags = {"clientId": device, "device": device}
    center.telemetry.write([Point("environment", tags, values, NOW + n * step) for n, values in enumerate(fields)])


def test_measurements_as_json(client, center, device):
    written(center, device, {"Temperature": 20.0, "CO2": 400}, {"Temperature": 22.0})
    path = f"/api/devices/{device}/measurements?start={NOW}&stop={NOW + HOUR}"
    answer = client.get(path).json
    assert answer["deviceId"] == device
    assert [(s["field"], s["sensor"], s["values"]) for s in answer["series"]] == [
        ("CO2", None, [400]), ("Temperature", None, [20.0, 22.0])
    ]  # fmt: skip
    mean = client.get(f"{path}&every=1h&fn=mean&field=Temperature").json
    assert [(s["field"], s["values"]) for s in mean["series"]] == [("Temperature", [21.0])]
    assert mean["series"][0]["times"] == [mean["stop"]]
    assert client.get(f"/api/devices/{device}/measurements/count").json == {"count": 2}
    assert client.get("/api/devices/nobody/measurements").json["series"] == []
    assert client.get("/api/devices/nobody/measurements/count").json == {"count": 0}


def test_measurements_as_csv(client, center, device):
    written(center, device, {"Temperature": 20.0, "CO2": 400}, {"Temperature": 22.0})
    path = f"/api/devices/{device}/measurements?start={NOW}&stop={NOW + HOUR}"
    for answer in (client.get(f"{path}&format=csv"), client.get(path, headers={"Accept": "text/csv"})):
        assert answer.mimetype == "text/csv"
        assert device in answer.headers["Content-Disposition"]
        rows = list(csv.reader(io.StringIO(answer.text)))
        assert rows[0] == ["time", "Temperature", "CO2"]
        assert [row[1:] for row in rows[1:]] == [["20.0", "400"], ["22.0", ""]]
    written(center, device, {"Note": "=cmd()"})
    assert "'=cmd()" in client.get(f"{path}&format=csv").text  # what a device sends is no formula


@pytest.mark.parametrize(
    "bad",
    [
        *("start=yesterday", "every=5", "every=1h&fn=best", "start=now&stop=-1h", "every=1ns", "every=0s"),
        *("start=-9999y", "start=0001-01-01T00:00:00Z", "stop=9999-12-31T00:00:00Z", "stop=9999999999999999999"),
        *("every=9999y", "every=99999999d"),
    ],
)
def test_a_query_that_makes_no_sense_says_why(client, bad):
    assert code(client.get(f"/api/devices/pi-1/measurements?{bad}")) == (400, "invalid")


@pytest.mark.parametrize("what", ["offset", "limit"])
@pytest.mark.parametrize("number", ["9999999999", "9" * 30, "-1", "1.5", "٣"])
def test_a_number_that_nothing_can_count_to_says_so(client, what, number):
    assert code(client.get(f"/api/devices?{what}={number}")) == (400, "invalid")


@pytest.mark.parametrize("path", ["/api/devices", "/api/devices/pi-1/measurements"])
@pytest.mark.parametrize("body", ["[" * 200_000, b"\xff", "{", '"text"', '{"deviceId": 1}'])
def test_a_body_that_is_no_json_object_says_so(client, path, body):
    assert code(client.post(path, data=body)) == (400, "invalid")


def test_sums_beyond_what_a_number_holds_are_null(client, center, device):
    """As JSON has no infinity; and integers near 2⁶³ must not end in an error for the whole query."""
    written(center, device, {"huge": 1e308, "large": 2**63 - 1}, {"huge": 1e308, "large": 2**63 - 1})
    path = f"/api/devices/{device}/measurements?start={NOW - 8 * HOUR}&stop={NOW + HOUR}&every=1h&fn="
    answer = client.get(f"{path}mean")
    values = {
        series["field"]: series["values"] for series in json.loads(answer.text, parse_constant=pytest.fail)["series"]
    }
    assert values["huge"] == [None]
    if center.telemetry.embedded:  # InfluxDB's own sums of integers run over
        assert values["large"] == [pytest.approx(2**63)]
    assert client.get(f"{path}sum").status_code == 200


def test_raw_flux_runs_on_influxdb_and_is_said_to_be_missing_on_the_embedded_store(client, center):
    query = {"query": f'from(bucket: "{center.telemetry.bucket}") |> range(start: -1m)'}
    answer = client.post("/api/devices/pi-1/measurements", json=query)
    if center.telemetry.embedded:
        assert code(answer) == (501, "not implemented")
    else:
        assert (answer.status_code, answer.mimetype) == (200, "text/csv")
        assert code(client.post("/api/devices/pi-1/measurements", json={"query": "from("})) == (400, "invalid")
    assert code(client.post("/api/devices/pi-1/measurements", json={})) == (400, "invalid")


def test_the_flux_that_is_shown_is_the_query_that_runs(client, center, device):
    if center.telemetry.embedded:
        pytest.skip("needs InfluxDB: the embedded store knows no Flux")
    from center.stores.telemetry import SeriesQuery

    odd = device + '"$${x}\\y'
    center.telemetry.write([Point("environment", {"device": odd}, {"Temperature": 20.0}, NOW)])
    for query in (
        SeriesQuery(odd, NOW, NOW + HOUR, ("Temperature",), 90 * SECOND),
        SeriesQuery(odd, NOW, NOW + HOUR, ("Temperature", 'o"d\n$')),
    ):
        assert "20" in center.telemetry.raw_flux(pipeline(query, center.telemetry.bucket))


def test_the_buckets(client, center):
    roles = {bucket["name"]: bucket["role"] for bucket in client.get("/api/buckets").json}
    assert roles[center.telemetry.bucket] == "telemetry"


# --- open on loopback: only this machine, only its own pages


@pytest.mark.parametrize(
    "headers",
    [
        {"Sec-Fetch-Site": "cross-site"},
        {"Sec-Fetch-Site": "same-site"},
        {"Origin": "https://evil.example"},
        {"Origin": "null"},
        {"Referer": "https://evil.example/page"},
        {"X-Forwarded-For": "192.0.2.1"},
        {"Forwarded": "for=192.0.2.1"},
        {"X-Real-IP": "192.0.2.1"},
        {"X-Forwarded-Port": "443"},
        {"Via": "1.1 proxy"},
    ],
    ids=lambda headers: "-".join(headers.items().__iter__().__next__()),
)
def test_foreign_pages_and_proxies_can_neither_register_nor_read(client, device, headers):
    for method, path in (
        ("GET", f"/api/env/{device}"),
        ("POST", f"/api/devices/{device}"),
        ("GET", "/api/devices"),
        ("DELETE", "/api/devices/pi-1"),
        ("GET", "/api/devices/pi-1/measurements"),
    ):
        assert code(client.open(path, method=method, headers=headers)) == (403, "forbidden")
    assert client.get(f"/api/devices/{device}").status_code == 404


def test_own_pages_may(client):
    own = {"Sec-Fetch-Site": "same-origin", "Origin": "http://localhost", "Referer": "http://localhost/devices"}
    assert client.get("/api/devices", headers=own).status_code == 200
    assert client.get("/api/devices", headers={"Sec-Fetch-Site": "none"}).status_code == 200


def test_a_rebound_name_is_refused(client):
    for host in ("evil.example", "evil.example:5000", "localhost.evil.example", "127.0.0.1.evil.example", "[::2]:5000"):
        assert code(client.get("/api/devices", headers={"Host": host})) == (400, "invalid")
    for host in ("127.0.0.1:5000", "localhost:5000", "[::1]:5000"):
        assert client.get("/api/devices", headers={"Host": host}).status_code == 200


def test_another_machine_is_refused_while_there_is_no_password(client):
    """As when `flask run --host 0.0.0.0` listens more widely than the settings say."""
    for address in ("192.0.2.7", ""):  # none: a proxy's Unix socket
        answer = client.get("/api/devices", environ_base={"REMOTE_ADDR": address})
        assert code(answer) == (403, "forbidden")


def test_a_body_too_large_for_a_form_is_refused_before_anybody_is_asked_who_they_are(client, locked):
    for path in ("/login", "/api/devices"):
        assert client.post(path, data=b"x" * 4_100_000).status_code in {400, 413}
        assert client.post(path, data={"password": "x" * 4_100_000}).status_code == 413


# --- with a password


def test_with_a_password_everything_needs_one_or_the_device_secret(client, center, locked, device):
    key = center.registry.make_enrollment_key()[1].reveal()
    client.post(f"/api/devices/{device}", headers=SECRET | {"X-Enrollment-Key": key})
    written(center, device, {"Temperature": 20.0})
    for path in (f"/api/devices/{device}", f"/api/devices/{device}/measurements", f"/api/env/{device}"):
        assert code(client.get(path)) == (401, "unauthorized")
        assert code(client.get(path, headers=OTHER)) == (403, "forbidden")
        assert client.get(path, headers=SECRET).status_code == 200
        assert client.get(path, headers=ADMIN).status_code == 200
    for path in ("/api/devices", "/api/buckets"):
        assert code(client.get(path)) == (401, "unauthorized")
        assert code(client.get(path, headers=SECRET)) == (401, "unauthorized")
        assert client.get(path, headers=ADMIN).status_code == 200
    path = f"/api/devices/{device}"
    assert code(client.post(f"{path}/measurements", json={"query": "x"}, headers=SECRET)) == (401, "unauthorized")
    assert code(client.delete(path)) == (401, "unauthorized")
    assert code(client.delete(path, headers=OTHER)) == (403, "forbidden")
    assert client.delete(path, headers=SECRET).status_code == 204


@pytest.mark.parametrize("way", ["POST /api/devices/", "GET /api/env/"])
def test_a_first_registration_needs_an_enrollment_key(client, center, locked, device, way):
    method, path = way.split()
    key = center.registry.make_enrollment_key()[1].reveal()

    def attempt(name, **headers):
        sent = SECRET | {name.replace("_", "-"): value for name, value in headers.items()}
        return client.open(f"{path}{name}", method=method, headers=sent)

    assert code(attempt(device)) == (401, "unauthorized")
    assert code(attempt(device, X_Enrollment_Key="wrong.key")) == (403, "forbidden")
    assert attempt(device, X_Enrollment_Key=key).status_code in {200, 201}
    assert code(attempt(f"{device}-2", X_Enrollment_Key=key)) == (403, "forbidden")
    assert attempt(device).status_code == 200
    assert client.open(f"{path}{device}-3", method=method, headers=ADMIN).status_code in {200, 201}


def test_an_administrator_reissues_and_removes(client, center, locked, device):
    client.post(f"/api/devices/{device}", headers=ADMIN)
    assert client.post(f"/api/devices/{device}", headers=ADMIN).status_code == 200
    assert code(client.post(f"/api/devices/{device}", headers=SECRET)) == (409, "conflict")
    assert client.delete(f"/api/devices/{device}", headers=ADMIN).status_code == 204


def test_a_foreign_page_cannot_use_an_administrators_login(client, locked, device):
    for headers in ({"Sec-Fetch-Site": "cross-site"}, {"Origin": "https://evil.example"}):
        for answer in (
            client.post(f"/api/devices/{device}", headers=ADMIN | headers),
            client.get(f"/api/env/{device}", headers=ADMIN | headers),
        ):
            assert code(answer) == (403, "forbidden")


def test_a_password_is_kept_as_a_slow_hash(client, center, locked):
    center.registry.set_password_hash(security.hash_password(Secret(PASSWORD)))
    assert PASSWORD not in center.registry.password_hash()
    assert center.registry.password_hash().startswith("scrypt:")
    assert client.get("/api/devices", headers=ADMIN).status_code == 200
    with pytest.raises(ValueError, match="10 characters"):
        security.hash_password(Secret("short"))


def test_wrong_passwords_are_slowed_down(app, client, locked, monkeypatch):
    monkeypatch.setitem(app.extensions, security.ATTEMPTS_EXTENSION, security.Attempts())
    clock = [1000.0]
    monkeypatch.setattr(security.time, "monotonic", lambda: clock[0])
    wrong = {"Authorization": "Basic " + base64.b64encode(b"admin:wrong").decode()}
    for _ in range(security.ATTEMPTS):
        assert code(client.get("/api/devices", headers=wrong)) == (401, "unauthorized")
    answer = client.get("/api/devices", headers=ADMIN)
    assert code(answer) == (429, "too many requests")
    assert answer.headers["Retry-After"] == "60"
    elsewhere = client.get("/api/devices", headers=ADMIN, environ_base={"REMOTE_ADDR": "192.0.2.9"})
    assert elsewhere.status_code == 200
    clock[0] += security.PER_S
    assert client.get("/api/devices", headers=ADMIN).status_code == 200


# --- the rest


def test_a_balancer_may_ask_whether_it_is_well(client, center, monkeypatch):
    assert client.get("/health").json["status"] == "pass"
    if not center.telemetry.embedded:
        from center.errors import StoreError

        def unreachable(*_):
            raise StoreError("InfluxDB does not answer")

        monkeypatch.setattr(type(center.registry.influx), "rows", unreachable)
        monkeypatch.setattr(center.registry, "_password", (float("-inf"), None))
        assert client.get("/api/devices").status_code == 503


def test_every_error_of_the_api_has_the_one_form(client):
    assert code(client.get("/api/no-such-thing")) == (404, "not found")
    answer = client.put("/api/devices")
    assert code(answer) == (405, "method not allowed")
    assert "POST" in answer.headers["Allow"]


def test_beyond_loopback_it_refuses_to_start_without_a_password(tmp_path):
    settings = embedded_settings(tmp_path)
    wide = dataclasses.replace(settings, server=dataclasses.replace(settings.server, host="0.0.0.0"))
    with pytest.raises(SettingsError, match="iot-center password"):
        create_app(wide)
    app = create_app(settings)
    app.extensions[EXTENSION].registry.set_password_hash(HASH)
    app.extensions[EXTENSION].close()
    app = create_app(wide)
    assert app.test_client().get("/api/devices").status_code == 401
    assert app.test_client().get("/api/devices", headers=ADMIN).status_code == 200
    app.extensions[EXTENSION].close()


def test_behind_a_proxy_the_devices_are_told_the_proxys_address(tmp_path):
    settings = embedded_settings(tmp_path, proxies=1)
    app = create_app(settings)
    app.extensions[EXTENSION].registry.set_password_hash(HASH)
    forwarded = {"X-Forwarded-For": "192.0.2.1", "X-Forwarded-Proto": "https", "X-Forwarded-Host": "localhost:8443"}
    told = app.test_client().post("/api/devices/pi-1", headers=ADMIN | forwarded).json
    assert told["influx_url"] == "https://localhost:8443"
    app.extensions[EXTENSION].close()
    public = embedded_settings(tmp_path, public_url="https://center.example/")
    app = create_app(public)
    told = app.test_client().post("/api/devices/pi-2", headers=ADMIN | {"Host": "center.example"}).json
    assert told["influx_url"] == "https://center.example"
    assert app.config["SESSION_COOKIE_SECURE"] is True
    app.extensions[EXTENSION].close()


@pytest.mark.parametrize(("scheme", "secure"), [("https", True), ("http", False)])
def test_the_cookie_of_a_login_over_tls_is_for_tls_only(tmp_path, scheme, secure):
    app = create_app(embedded_settings(tmp_path, proxies=1))
    app.extensions[EXTENSION].registry.set_password_hash(HASH)
    app.config["WTF_CSRF_ENABLED"] = False
    forwarded = {"X-Forwarded-For": "192.0.2.1", "X-Forwarded-Proto": scheme, "X-Forwarded-Host": "localhost"}
    cookie = app.test_client().post("/login", data={"password": PASSWORD}, headers=forwarded).headers["Set-Cookie"]
    assert ("Secure" in cookie) is secure
    assert "HttpOnly" in cookie
    assert "SameSite=Strict" in cookie
    app.extensions[EXTENSION].close()
