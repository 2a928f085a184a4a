"""The pages as a user walks them, with the embedded store and Flask's client."""

from __future__ import annotations

import pytest

from center.app import close, create_app
from center.context import EXTENSION
from center.pages_virtual import point_at
from center.settings import EmbeddedSettings, Settings
from center.times import now_ns


@pytest.fixture
def app(tmp_path):
    app = create_app(Settings(embedded=True, store=EmbeddedSettings(data=str(tmp_path))))
    app.config["WTF_CSRF_ENABLED"] = False  # its own tests switch it on
    yield app
    close(app)


@pytest.fixture
def center(app):
    return app.extensions[EXTENSION]


@pytest.fixture
def client(app):
    return app.test_client()


def measured(center, device_id, minutes=60, ago_s=0):
    """Minutes of weather, the last of them `ago_s` seconds ago."""
    last = now_ns() // 10**9 - ago_s
    center.telemetry.write([point_at(device_id, last - 60 * i) for i in range(minutes)])


PAGES = ["/", "/devices", "/virtual", "/query", "/write", "/buckets", "/create", "/enrollment-keys", "/help"]


@pytest.mark.parametrize("path", [*PAGES, "/dashboards"])
def test_an_empty_center_has_every_page_and_says_what_to_do(client, path):
    answer = client.get(path)
    assert answer.status_code == 200
    assert "IoT Center" in answer.text
    assert "Embedded store" in answer.text


@pytest.mark.parametrize("path", [*PAGES, "/devices/pi-7", "/dashboards/pi-7"])
def test_every_page_opens_with_a_device_that_measures(client, center, path):
    center.registry.register("pi-7", administrator=True)
    measured(center, "pi-7")
    answer = client.get(path)
    assert answer.status_code == 200
    assert "unsafe" not in answer.headers["Content-Security-Policy"]
    assert "<script>" not in answer.text
    assert "style=" not in answer.text


def test_the_device_page_shows_last_values_with_units_and_the_course_of_the_day(client, center):
    center.registry.register("pi-7", administrator=True)
    measured(center, "pi-7")
    page = client.get("/devices/pi-7").text
    assert "Live" in page
    for unit in ("°C", "%RH", "hPa", "ppm", "ppb"):
        assert unit in page
    assert 'aria-label="Temperature from ' in page
    series = client.get("/dashboards/pi-7/series.json?range=24h&width=1000&field=Temperature").get_json()
    assert series["every"] == 120
    assert [c["field"] for c in series["curves"]] == ["Temperature"]
    assert 25 <= len(series["curves"][0]["t"]) <= 35
