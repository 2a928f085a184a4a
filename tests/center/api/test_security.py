"""Who may do what with the API: open on loopback, and behind a password."""

import base64
import dataclasses
import threading
import time
from concurrent.futures import ThreadPoolExecutor

import pytest

from agent.util.secret import Secret
from center import security
from center.app import create_app
from center.context import EXTENSION
from center.errors import SettingsError
from tests.center_helpers import HASH, HOUR, PASSWORD, code, embedded_settings, environment
from tests.waiting import wait_for

SECRET = {"X-Device-Secret": "s" * 32}
OTHER = {"X-Device-Secret": "o" * 32}
ADMIN = {"Authorization": "Basic " + base64.b64encode(f"admin:{PASSWORD}".encode()).decode()}


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
        {"X-Forwarded": "for=192.0.2.1"},
        {"CF-Connecting-IP": "192.0.2.1"},
        {"CF-Ray": "8a"},
        {"True-Client-IP": "192.0.2.1"},
        {"X-Client-IP": "192.0.2.1"},
        {"X-Cluster-Client-IP": "192.0.2.1"},
        {"Fastly-Client-IP": "192.0.2.1"},
        {"X-Original-Host": "center.example"},
        {"Tailscale-User-Login": "someone"},
        {"Max-Forwards": "10"},
        {"Origin": "http://["},
        {"Referer": "http://[a"},
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


def test_a_proxy_that_says_nothing_speaks_http_1_0(client):
    """As nginx does with nothing but proxy_pass."""
    answer = client.get("/api/devices", environ_overrides={"SERVER_PROTOCOL": "HTTP/1.0"})
    assert code(answer) == (403, "forbidden")


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
        for size, headers in ((66_000, {}), (4_100_000, ADMIN)):
            assert client.post(path, data=b"x" * size, headers=headers).status_code == 413
            assert client.post(path, data={"password": "x" * size}, headers=headers).status_code == 413


def test_of_a_body_in_chunks_only_a_write_may_keep_the_length_to_itself(client, locked):
    in_chunks = {"HTTP_TRANSFER_ENCODING": "chunked", "CONTENT_LENGTH": "", "wsgi.input_terminated": True}
    for path in ("/login", "/api/devices"):
        assert client.post(path, headers=ADMIN, environ_overrides=in_chunks).status_code == 411


def test_with_a_password_everything_needs_one_or_the_device_secret(client, center, locked, device):
    key = center.registry.make_enrollment_key()[1].reveal()
    client.post(f"/api/devices/{device}", headers=SECRET | {"X-Enrollment-Key": key})
    center.telemetry.write([environment(device, time.time_ns() - 2 * HOUR, Temperature=20.0)])
    for path in (f"/api/devices/{device}", f"/api/devices/{device}/measurements", f"/api/env/{device}"):
        assert code(client.get(path)) == (401, "unauthorized")
        stranger = (401, "unauthorized") if "/env/" in path else (403, "forbidden")
        assert code(client.get(path, headers=OTHER)) == stranger
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
    assert code(client.post(f"/api/devices/{device}", headers=SECRET)) == (401, "unauthorized")
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


def basic(password):
    return {"Authorization": "Basic " + base64.b64encode(f"admin:{password}".encode()).decode()}


@pytest.fixture
def clock(app, monkeypatch):
    """Doors that nobody has tried yet, and a clock of ours."""
    monkeypatch.setitem(app.extensions, security.DOORS, security.Doors())
    now = [1000.0]
    monkeypatch.setattr(security.time, "monotonic", lambda: now[0])
    return now


def asked(client, password, address="127.0.0.1"):
    return client.get("/api/devices", headers=basic(password), environ_base={"REMOTE_ADDR": address}).status_code


def test_wrong_passwords_are_slowed_down(client, locked, clock, caplog, monkeypatch):
    for _ in range(security.ATTEMPTS):
        assert asked(client, "wrong") == 401
    answer = client.get("/api/devices", headers=ADMIN)
    assert code(answer) == (429, "too many requests")
    assert answer.headers["Retry-After"] == "60"
    assert "not looked at" in answer.json["message"]
    monkeypatch.setitem(client.application.config, "WTF_CSRF_ENABLED", False)
    form = client.post("/login", data={"password": PASSWORD})
    assert form.status_code == 429
    assert "this one was not looked at" in form.text
    assert asked(client, PASSWORD, "192.0.2.9") == 200
    logged = [record.message for record in caplog.records if "password" in record.message]
    assert logged == ["wrong administrator password from 127.0.0.1"] * security.ATTEMPTS  # none for those not looked at
    clock[0] += 60
    assert asked(client, PASSWORD) == 200


def test_an_ipv6_host_has_the_attempts_of_one_however_many_addresses_it_has(client, locked, clock):
    answers = [asked(client, "wrong", f"2001:db8:0:1::{n:x}") for n in range(1, 100)]
    assert answers.count(401) == security.ATTEMPTS
    assert asked(client, PASSWORD, "2001:db8:0:2::1") == 200
    assert asked(client, PASSWORD, "::ffff:192.0.2.1") == 200


def test_wrong_passwords_from_everywhere_slow_strangers_down_and_lock_nobody_out(client, locked, clock):
    assert asked(client, PASSWORD, "192.0.2.9") == 200
    crowd = [f"198.51.100.{n}" for n in range(30)]
    answers = [asked(client, "wrong", address) for address in crowd for _ in range(security.ATTEMPTS)]
    assert answers.count(401) == security.OF_ALL + len(crowd) - security.OF_ALL // security.ATTEMPTS
    for _ in range(3):
        assert asked(client, PASSWORD, "192.0.2.9") == 200
    assert asked(client, "mistyped", "192.0.2.9") == 401
    assert asked(client, PASSWORD, "192.0.2.9") == 200
    assert asked(client, PASSWORD, "192.0.2.10") == 200  # a stranger has one


def test_attempts_at_once_are_counted_before_they_are_looked_at(app, locked, clock, monkeypatch):
    looked_at, all_came = [], threading.Barrier(security.HASHING + 1)

    def slow(kept, password):
        looked_at.append(password)
        all_came.wait(40)
        return False

    monkeypatch.setattr(security, "check_password_hash", slow)
    with ThreadPoolExecutor(8) as pool:
        first = [pool.submit(asked, app.test_client(), "wrong") for _ in range(security.HASHING)]
        wait_for(lambda: len(looked_at) == security.HASHING)
        assert [asked(app.test_client(), "wrong") for _ in range(20)] == [429] * 20
        all_came.wait(40)
        assert [future.result() for future in first] == [401] * security.HASHING
    monkeypatch.setattr(security, "check_password_hash", lambda *_: False)
    left = [asked(app.test_client(), "wrong") for _ in range(20)]
    assert left.count(401) == security.ATTEMPTS - security.HASHING


def test_a_script_that_sends_the_right_password_is_neither_counted_nor_hashed_each_time(
    client, locked, clock, monkeypatch
):
    assert asked(client, PASSWORD) == 200
    monkeypatch.setattr(security, "check_password_hash", lambda *_: pytest.fail("hashed again"))
    assert {asked(client, PASSWORD) for _ in range(2 * security.ATTEMPTS)} == {200}


def test_strangers_learn_nothing_of_who_is_registered(client, center, locked, device, clock):
    key = center.registry.make_enrollment_key()[1].reveal()
    assert client.post(f"/api/devices/{device}", headers=SECRET | {"X-Enrollment-Key": key}).status_code == 201
    sent = (
        {}, OTHER, {"X-Enrollment-Key": "no.key"}, OTHER | {"X-Enrollment-Key": key}, {"X-Device-Secret": "short"},
        {"X-Device-Secret": "short", "X-Enrollment-Key": "no.key"},
    )  # fmt: skip
    env, measured = "/api/env/{}", "/api/devices/{}/measurements"
    paths = ("/api/devices/{}", env, f"{env}?register=false", measured, f"{measured}/count")
    ways = [(method, path) for path in paths for method in ("GET", "POST", "DELETE", "HEAD")]
    for method, path in ways:
        for headers in sent:
            clock[0] += 60
            told = [client.open(path.format(name), method=method, headers=headers) for name in (device, f"{device}-0")]
            assert told[0].status_code == told[1].status_code, (method, path, headers)
            assert told[0].text == told[1].text
            assert told[0].status_code in {401, 403, 405}


def test_the_limit_of_guesses_does_not_tell_either(client, center, locked, device, clock):
    key = center.registry.make_enrollment_key()[1].reveal()
    client.post(f"/api/devices/{device}", headers=SECRET | {"X-Enrollment-Key": key})
    for query, status in (("", 401), ("?register=false", 403)):
        for name in (device, f"{device}-0"):
            clock[0] += 60
            for _ in range(security.GUESSES - 1):
                client.get(f"/api/devices/{device}", headers=OTHER)
            assert client.get(f"/api/env/{name}{query}", headers=OTHER).status_code == status
            assert client.get(f"/api/env/{name}{query}", headers=OTHER).status_code == 429


def test_credentials_that_are_no_ascii_are_none(client, locked):
    assert code(client.get("/api/devices", headers={"Authorization": "Basic \xff"})) == (401, "unauthorized")


def test_with_a_key_one_learns_that_another_secret_registered(client, center, locked, device, clock):
    keys = [center.registry.make_enrollment_key()[1].reveal() for _ in range(2)]
    client.post(f"/api/devices/{device}", headers=SECRET | {"X-Enrollment-Key": keys[0]})
    for way in ("POST /api/devices/", "GET /api/env/"):
        method, path = way.split()
        answer = client.open(f"{path}{device}", method=method, headers=OTHER | {"X-Enrollment-Key": keys[1]})
        assert code(answer) == (409, "conflict")
    other = client.post(f"/api/devices/{device}-1", headers=OTHER | {"X-Enrollment-Key": keys[1]})
    assert other.status_code == 201  # nothing of it was used up


def test_guesses_at_secrets_are_limited_and_logged_hourly(client, center, locked, device, clock, caplog):  # noqa: PLR0917 - fixtures
    key = center.registry.make_enrollment_key()[1].reveal()
    client.post(f"/api/devices/{device}", headers=SECRET | {"X-Enrollment-Key": key})
    path = f"/api/devices/{device}"
    answers = [client.get(path, headers=OTHER).status_code for _ in range(security.GUESSES)]
    answers += [client.post(path, headers={"X-Enrollment-Key": "no.key"}).status_code for _ in range(10)]
    assert answers == [403] * security.GUESSES + [429] * 10
    assert code(client.get(path, headers=SECRET)) == (429, "too many requests")
    elsewhere = {"REMOTE_ADDR": "192.0.2.1"}
    assert client.get(path, headers=SECRET, environ_base=elsewhere).status_code == 200
    for minute in range(61):
        clock[0] += 60
        client.get(path, headers=OTHER)
        assert client.get(path, headers=SECRET).status_code == 200, minute
    logged = [record.message for record in caplog.records if "wrong device secrets" in record.message]
    assert [line.split()[0] for line in logged] == ["1", str(security.GUESSES - 1 + 60)]


def test_a_device_secret_that_could_be_guessed_is_refused_at_first_and_kept_where_it_was(
    client, center, locked, device
):
    for secret, status in (("s" * 31, 400), ("s" * 32, 201)):
        key = center.registry.make_enrollment_key()[1].reveal()
        sent = {"X-Device-Secret": secret, "X-Enrollment-Key": key}
        assert client.post(f"/api/devices/{device}", headers=sent).status_code == status
    assert client.post(f"/api/devices/{device}-0", headers=ADMIN).status_code == 201  # the tutorial's clients send none


def test_a_password_that_goes_away_under_a_running_center_opens_nothing(tmp_path):
    app = create_app(embedded_settings(tmp_path))
    registry, client = app.extensions[EXTENSION].registry, app.test_client()
    assert client.get("/api/devices").status_code == 200
    registry.set_password_hash(HASH)
    assert client.get("/api/devices").status_code == 401
    registry.set_password_hash(None)
    assert client.get("/api/devices", headers=ADMIN).status_code == 401
    assert client.post("/api/devices/pi-1").status_code == 401
    registry.set_password_hash(HASH)
    app.extensions[EXTENSION].close()
    app = create_app(embedded_settings(tmp_path))
    app.extensions[EXTENSION].registry.set_password_hash(None)  # before anybody asked for anything
    assert app.test_client().get("/api/devices").status_code == 401
    app.extensions[EXTENSION].close()
    app = create_app(embedded_settings(tmp_path))
    assert app.test_client().get("/api/devices").status_code == 200
    app.extensions[EXTENSION].close()


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
