"""Who may do what with the API: open on loopback, and behind a password."""

import base64
import dataclasses
import time

import pytest

from agent.util.secret import Secret
from center import security
from center.app import create_app
from center.context import EXTENSION
from center.errors import SettingsError
from tests.center_helpers import HASH, HOUR, PASSWORD, code, embedded_settings, environment

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


def test_with_a_password_everything_needs_one_or_the_device_secret(client, center, locked, device):
    key = center.registry.make_enrollment_key()[1].reveal()
    client.post(f"/api/devices/{device}", headers=SECRET | {"X-Enrollment-Key": key})
    center.telemetry.write([environment(device, time.time_ns() - 2 * HOUR, Temperature=20.0)])
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
