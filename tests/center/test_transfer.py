"""What an answer weighs: gzipped, and nothing at all where nothing changed."""

from __future__ import annotations

import gzip
import re

import pytest

from center.app import create_app
from center.context import EXTENSION
from tests.center_helpers import embedded_settings, measured

PACKED = {"Accept-Encoding": "gzip, deflate, br"}


@pytest.fixture(scope="module")
def client(tmp_path_factory):
    app = create_app(embedded_settings(tmp_path_factory.mktemp("center")))
    app.config["WTF_CSRF_ENABLED"] = False
    center = app.extensions[EXTENSION]
    center.registry.register("pi-7", administrator=True)
    measured(center, "pi-7", minutes=300)
    yield app.test_client()
    center.close()


@pytest.mark.parametrize(
    "path",
    [
        *("/", "/devices", "/devices/pi-7", "/dashboards/pi-7", "/query?device=pi-7"),
        *("/dashboards/pi-7/series.json", "/dashboards/pi-7/data.csv", "/api/devices/pi-7/measurements"),
    ],
)
def test_pages_and_data_are_gzipped_for_whoever_takes_that(client, path):
    packed, plain = client.get(path, headers=PACKED), client.get(path)
    assert packed.headers["Content-Encoding"] == "gzip"
    assert "Content-Encoding" not in plain.headers
    assert "Accept-Encoding" in packed.headers["Vary"]
    assert "Accept-Encoding" in plain.headers["Vary"]
    text = gzip.decompress(packed.data).decode()
    assert text[:12] == plain.text[:12]
    assert len(packed.data) < len(plain.data) / 2
    assert client.get(path, headers={"Accept-Encoding": "gzip;q=0"}).headers.get("Content-Encoding") is None


def test_what_shows_a_secret_is_not(client):
    answer = client.post("/add", data={"name": "Pi 8", "sensor": "by hand"}, headers=PACKED)
    assert (answer.status_code, answer.headers.get("Content-Encoding")) == (201, None)
    answer = client.post("/devices/pi-8/token", headers=PACKED)
    assert (answer.status_code, answer.headers.get("Content-Encoding")) == (200, None)
    answer = client.post("/enrollment-keys", data={"note": "", "uses": "1", "days": "1"}, headers=PACKED)
    assert (answer.status_code, answer.headers.get("Content-Encoding")) == (201, None)
    answer = client.get("/api/env/pi-9", headers=PACKED)
    assert answer.json["influx_token"]
    assert answer.headers.get("Content-Encoding") is None


def test_what_has_not_changed_is_not_sent_again(client):
    path = "/dashboards/pi-7/live.json"
    first = client.get(path)
    same = client.get(path, headers={"If-None-Match": first.headers["ETag"]})
    assert (same.status_code, same.data) == (304, b"")
    other = client.get(path, headers={"If-None-Match": 'W/"else"'})
    assert (other.status_code, other.data) == (200, first.data)


def test_a_part_that_has_only_become_older_has_not_changed(client, monkeypatch):
    first = client.get("/devices", headers={"X-Part": "live"})
    later = first.headers["ETag"]
    shown = re.findall(r"data-ago>([^<]*)<", first.text)
    real = __import__("center.pages.blueprint", fromlist=["now_ns"]).now_ns
    monkeypatch.setattr("center.pages.blueprint.now_ns", lambda: real() + 3 * 10**9)
    aged = client.get("/devices", headers={"X-Part": "live"})
    assert re.findall(r"data-ago>([^<]*)<", aged.text) != shown
    assert aged.headers["ETag"] == later
