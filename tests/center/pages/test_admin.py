"""The administrator: what needs a login, logging in and out, enrollment keys."""

from __future__ import annotations

import re
import time
from dataclasses import replace

import pytest

from agent.util.secret import Secret
from center import security
from center.context import EXTENSION
from center.pages.admin import safe_target
from center.security import hash_password
from center.times import now_ns
from tests.center_helpers import PASSWORD, text_of


@pytest.mark.parametrize("path", ["/add", "/write", "/enrollment-keys"])
def test_changing_things_needs_a_login_and_comes_back_afterwards(guarded, path):
    answer = guarded.get(path)
    assert answer.status_code == 302
    assert answer.location == f"/login?next={path}"
    answer = guarded.post(answer.location, data={"password": PASSWORD})
    assert (answer.status_code, answer.location) == (302, path)
    assert guarded.get(path).status_code == 200


@pytest.mark.parametrize(
    "path", ["/add", "/write", "/virtual/fill", "/devices/pi-7/remove", "/devices/pi-7/token", "/query/flux"]
)
def test_nothing_is_changed_without_a_login(guarded, center, pi_7, path):
    assert guarded.post(path, data={"device_id": "x"}).location == "/login"
    assert guarded.post(path, headers={"Accept": "application/json"}).status_code == 401
    assert [d.id for d in center.registry.devices().devices] == ["pi-7"]


LOOKING = ("/", "/devices", "/devices/pi-7", "/dashboards/pi-7", "/dashboards/pi-7/data.csv", "/query", "/help")


@pytest.mark.parametrize("path", LOOKING)
def test_looking_needs_the_login_too(guarded, pi_7, path):
    assert guarded.get(path).location.startswith("/login")
    assert guarded.get(path, headers={"Accept": "application/json"}).status_code == 401
    guarded.post("/login", data={"password": PASSWORD})
    assert guarded.get(path).status_code == 200


def test_where_the_settings_let_anybody_look_nothing_can_be_changed(guarded, center, pi_7):
    settings = center.settings
    public = replace(settings, server=replace(settings.server, public_view=True))
    assert "Looking is open to everyone" not in guarded.get("/login").text
    guarded.application.extensions[EXTENSION] = replace(center, settings=public)
    assert "Looking is open to everyone" in guarded.get("/login").text
    for path in LOOKING:
        assert guarded.get(path).status_code == 200
    assert "Remove" not in guarded.get("/devices").text


def test_a_form_of_a_session_that_has_ended_leads_to_the_login_and_back_to_where_it_stands(guarded, center, pi_7):
    guarded.application.config["WTF_CSRF_ENABLED"] = True
    sent = {"data": {"csrf_token": "of a session before"}, "headers": {"Referer": "http://localhost/devices?page=2"}}
    answer = guarded.post("/devices/pi-7/remove", **sent)
    assert (answer.status_code, answer.location) == (302, "/login?next=/devices?page%3D2")
    assert "Your session has ended" in text_of(guarded.get(answer.location))
    sent["headers"] = {"Referer": "http://evil.example/devices"}
    assert guarded.post("/virtual/fill", **sent).status_code == 403
    sent["headers"] = {"Accept": "application/json"}
    answer = guarded.post("/virtual/fill", **sent)
    assert (answer.status_code, answer.json["message"]) == (401, "your session has ended: log in again")
    assert guarded.get("/live.json", headers={"Accept": "application/json"}).status_code == 401
    assert [d.id for d in center.registry.devices().devices] == ["pi-7"]


def test_logging_out_ends_the_session(guarded):
    guarded.post("/login", data={"password": PASSWORD})
    assert "Log out" in text_of(guarded.get("/"))
    guarded.post("/logout")
    assert guarded.get("/add").status_code == 302


def test_logging_out_ends_the_session_for_every_copy_of_its_cookie_and_no_other(app, guarded):
    other = app.test_client()
    for client in (guarded, other):
        client.post("/login", data={"password": PASSWORD})
    copy = guarded.get_cookie("iot_center").value
    guarded.post("/logout")
    stolen = app.test_client()
    stolen.set_cookie("iot_center", copy)
    assert stolen.get("/add").status_code == 302
    assert other.get("/add").status_code == 200


def test_a_session_lasts_31_days_however_much_it_is_used(guarded, monkeypatch):
    guarded.post("/login", data={"password": PASSWORD})
    now = time.time()
    for days, status in ((16, 200), (30, 200), (32, 302)):
        monkeypatch.setattr(security.time, "time", lambda days=days: now + days * 86_400)
        with guarded.session_transaction() as session:  # signed anew
            session["used"] = days
        assert guarded.get("/add").status_code == status


def test_wrong_passwords_are_refused_and_then_have_to_wait(guarded):
    for _ in range(10):
        assert guarded.post("/login", data={"password": "wrong"}).status_code == 400
    answer = guarded.post("/login", data={"password": PASSWORD})
    assert answer.status_code == 429
    assert answer.headers["Retry-After"] == "60"
    assert "wait a minute; this one was not looked at" in text_of(answer)


def test_a_new_password_ends_the_sessions_of_the_old_one(guarded, center):
    guarded.post("/login", data={"password": PASSWORD})
    center.registry.set_password_hash(hash_password(Secret("another long password")))
    assert guarded.get("/add").status_code == 302


@pytest.mark.parametrize("target", ["//evil.example", "https://evil.example", "/\\evil.example", "/a\tb", "", None])
def test_a_login_leads_nowhere_but_back(target):
    assert safe_target(target) is None
    assert safe_target("/devices?page=2") == "/devices?page=2"


@pytest.mark.parametrize(
    "path", ["/add", "/write", "/enrollment-keys", "/devices/pi-7/remove", "/virtual/fill", "/logout"]
)
def test_a_form_that_this_site_did_not_send_is_refused(app, client, center, pi_7, path):
    app.config["WTF_CSRF_ENABLED"] = True
    answer = client.post(path, data={"device_id": "x", "csrf_token": "forged"})
    assert answer.status_code == 400
    assert "This form is out of date" in text_of(answer)
    assert [d.id for d in center.registry.devices().devices] == ["pi-7"]


def test_an_enrollment_key_is_shown_once_and_lets_a_device_register_until_revoked(client, center):
    answer = client.post("/enrollment-keys", data={"note": "Greenhouse", "uses": "2", "days": "7"})
    assert answer.status_code == 201
    key = re.search(r'id="key" readonly value="([^"]+)"', answer.text)[1]
    page = client.get("/enrollment-keys")
    assert key not in page.text
    assert "Greenhouse" in page.text
    assert re.search(r"Valid used 0 of 2 expires in 7 days", text_of(page))
    center.registry.register("pi-7", Secret("s" * 32), enrollment_key=Secret(key), needs_key=True)
    assert "used 1 of 2" in text_of(client.get("/enrollment-keys"))
    (kept,) = center.registry.enrollment_keys()
    assert "revoked" in text_of(client.post(f"/enrollment-keys/{kept.id}/revoke", follow_redirects=True))
    assert not center.registry.enrollment_keys()[0].valid(now_ns())
    assert client.post("/enrollment-keys/nope/revoke").status_code == 404
    for sent in ({"uses": "0", "days": "999"}, {"uses": "9" * 400, "days": "7"}, {"uses": "1", "days": "9" * 400}):
        assert client.post("/enrollment-keys", data=sent).status_code == 400
