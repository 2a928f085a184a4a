"""What holds on every page: its parts are local, an empty center and a store that is away have one."""

from __future__ import annotations

import gzip
import re
from dataclasses import replace
from types import MappingProxyType

import pytest

from center.context import EXTENSION
from center.stores.telemetry import ENVIRONMENT, Point
from tests.center_helpers import PASSWORD, text_of

PAGES = [
    "/",
    "/devices",
    "/fleet",
    "/virtual",
    "/query",
    "/write",
    "/buckets",
    "/add",
    "/enrollment-keys",
    "/help",
    "/alerts",
]


@pytest.mark.parametrize("path", [*PAGES, "/dashboards"])
def test_an_empty_center_has_every_page_and_says_which_store_it_is(client, center, path):
    answer = client.get(path)
    assert answer.status_code == 200
    assert ("Embedded store" if center.settings.embedded else "InfluxDB") in text_of(answer)


@pytest.mark.parametrize(
    ("path", "advice"),
    [
        ("/", "No device yet"),
        ("/devices", "Add a device"),
        ("/dashboards", "Fill a virtual device"),
        ("/enrollment-keys", "Make one"),
    ],
)
def test_an_empty_page_says_what_to_do(client, path, advice):
    assert advice in text_of(client.get(path))


@pytest.mark.parametrize("path", [*PAGES, "/devices/pi-7", "/dashboards/pi-7", "/query?device=pi-7&range=24h", "/no"])
def test_no_page_has_anything_inline_or_from_elsewhere(client, pi_7, path):
    answer = client.get(path)
    policy = answer.headers["Content-Security-Policy"]
    assert "unsafe" not in policy
    assert "default-src 'none'" in policy
    assert not re.search(r"<script(?![^>]*\bsrc=)|<style|\bstyle=|\son\w+=", answer.text)
    assert not re.findall(r'(?:src|href)="(?:https?:)?//', answer.text)
    assert answer.headers["Cache-Control"] == "no-store"


def test_control_characters_that_a_device_sends_reach_neither_pages_nor_csv(client, center, pi_7):
    for controls in ("\x1b[31m", "\u202e", "\u2028", "\x9b"):
        tags = {"clientId": pi_7, "sensor": f"s{controls}"}
        center.telemetry.write([Point(ENVIRONMENT, tags, {"Note": f"n{controls}", f"f{controls}": 1.0})])
    for path in (
        "/", "/devices/pi-7", "/dashboards/pi-7", "/query?device=pi-7&window=none", "/query?device=pi-7&format=csv",
        "/api/devices/pi-7/measurements?format=csv", "/query?device=%1b%e2%80%ae",
    ):  # fmt: skip
        answer = client.get(path)
        assert not set(answer.text) & set("\x1b\u202e\u2028\x9b"), path
    assert "n\ufffd[31m" in client.get("/devices/pi-7").text + client.get("/query?device=pi-7&window=none").text


def test_assets_are_gzipped_named_by_their_content_and_cached_for_ever(client, pi_7):
    names = re.findall(r'"(/assets/[^"]+)"', client.get("/dashboards/pi-7").text)
    assert any(name.endswith("/charts.js") for name in names)
    for name in set(names):
        zipped = client.get(name, headers={"Accept-Encoding": "gzip"})
        assert zipped.headers["Content-Encoding"] == "gzip"
        assert "immutable" in zipped.headers["Cache-Control"]
        assert gzip.decompress(zipped.data) == client.get(name).data
    assert "charts.js" not in client.get("/devices").text
    assert client.get("/assets/000000000000/app.css").status_code == 404
    assert client.get("/assets/x/../../../../etc/passwd").status_code == 404


def test_a_store_that_does_not_answer_is_a_page_not_a_traceback(app, client, center, monkeypatch):
    from center.errors import StoreError

    class Gone:
        bucket = "iot_center"
        failing = MappingProxyType({})

        def fail(self, *_, **__):
            raise StoreError("InfluxDB at http://127.0.0.1:8086 refused the connection: is it running?")

        buckets = last_values = fail

    app.extensions[EXTENSION] = replace(center, telemetry=Gone())
    answer = client.get("/buckets")
    live = client.get("/dashboards/pi-7/live.json", headers={"Accept": "application/json"})
    app.extensions[EXTENSION] = center
    assert (answer.status_code, live.status_code) == (503, 503)
    assert "is it running?" in text_of(answer)
    assert "is it running?" in live.get_json()["message"]


@pytest.mark.parametrize(
    ("path", "status"),
    [("/devices/%2e%2e", 404), ("/dashboards/pi-9", 404), ("/dashboards/pi-7/data.csv?fn=evil", 400)],
)
def test_what_is_wrong_is_said_to_a_script_as_json(client, path, status):
    answer = client.get(path, headers={"Accept": "application/json"})
    assert (answer.status_code, answer.json["code"]) == (status, {404: "not found", 400: "invalid"}[status])
    assert answer.json["message"]


@pytest.mark.parametrize("who", ["open", "logged in", "public"])
def test_a_store_that_goes_away_is_a_page_with_its_styles(request, client, center, monkeypatch, who):
    """Also where it is the store that knows whether there is a password."""
    from center.errors import StoreError

    if who != "open":
        client = request.getfixturevalue("guarded")
        client.post("/login", data={"password": PASSWORD})
    settings = replace(
        center.settings, server=replace(center.settings.server, host="0.0.0.0" if who == "public" else "::1")
    )
    client.application.extensions[EXTENSION] = replace(center, settings=settings)
    style = re.search(r'/assets/[^"]+app\.css', client.get("/help").text)[0]

    def gone(*_):
        raise StoreError("InfluxDB does not answer: is it running?")

    monkeypatch.setattr(type(center.registry), "password_hash", gone)
    for path in ("/", "/help", "/devices/pi-7", "/login"):
        answer = client.get(path)
        assert answer.status_code == 503, path
        assert "The store does not answer InfluxDB does not answer: is it running?" in text_of(answer)
    assert client.get(style).status_code == 200
    answer = client.get("/api/devices")
    assert (answer.status_code, answer.json["code"]) == (503, "unavailable")
