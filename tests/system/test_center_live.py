"""An open page in Chromium while its center, its store or its session goes away, and while its values grow old."""

from __future__ import annotations

import time
from dataclasses import replace

import pytest

from center.app import serve
from center.context import EXTENSION
from center.errors import StoreError
from center.pages import live
from center.times import now_ns
from tests.center_helpers import HASH, PASSWORD, embedded_settings, environment

pytestmark = [pytest.mark.chromium, pytest.mark.timeout(180)]


class Away:
    """A store that does not answer."""

    bucket, failing = "iot_center", {}

    def last_values(self, *_, **__):
        raise StoreError("InfluxDB does not answer at http://influx.local:8086")

    sparklines = last_seen = last_values


@pytest.fixture(scope="module")
def running(tmp_path_factory):
    with serve(embedded_settings(tmp_path_factory.mktemp("center"))) as running:
        yield running


@pytest.fixture(scope="module")
def browser():
    from playwright.sync_api import sync_playwright

    with sync_playwright() as playwright:
        browser = playwright.chromium.launch(executable_path="/usr/bin/chromium", args=["--headless", "--no-sandbox"])
        yield browser
        browser.close()


@pytest.fixture
def page(browser, monkeypatch):
    """Its timers run by a clock of the test's."""
    monkeypatch.setattr(live, "EVERY_S", 0.0)
    context = browser.new_context()
    context.clock.install()
    yield context.new_page()
    context.close()


@pytest.fixture
def center(running):
    kept = running.app.extensions[EXTENSION]
    yield kept
    running.app.extensions[EXTENSION] = kept


def until(page, condition, step_ms=5000):
    """The test's clock goes on until a JavaScript expression holds."""
    from playwright.sync_api import Error

    given_up = time.monotonic() + 100
    while True:
        try:
            if page.evaluate(condition):
                return
            page.clock.run_for(step_ms)
        except Error as error:  # the page has loaded itself anew meanwhile
            if "navigation" not in str(error):
                raise
        assert time.monotonic() < given_up, condition
        page.wait_for_timeout(50)


def test_a_page_says_that_the_store_is_away_and_goes_on_by_itself(page, running, center):
    center.registry.register("pi-7", administrator=True)
    center.telemetry.write([environment("pi-7", now_ns(), Temperature=20.0)])
    page.goto(running.url + "/devices")
    assert page.locator(".state").inner_text() == "Live"
    running.app.extensions[EXTENSION] = replace(center, telemetry=Away())
    until(page, "document.getElementById('away') !== null")
    assert "influx.local" in page.get_by_role("alert").inner_text()
    assert page.locator(".state").inner_text() == "Not known"
    other = page.context.new_page()
    assert other.goto(running.url + "/devices").status == 503
    running.app.extensions[EXTENSION] = center
    until(page, "document.getElementById('away') === null")
    assert page.locator(".state").inner_text() == "Live"
    until(other, "document.getElementById('device-list') !== null")  # it has looked by itself


def test_a_value_fades_with_its_age_and_comes_back_with_the_next_one(page, running, center):
    center.registry.register("pi-8", administrator=True)
    center.telemetry.write([environment("pi-8", now_ns(), Temperature=20.0)])
    page.goto(running.url + "/devices?search=pi-8")
    value = page.locator(".value")
    assert value.get_attribute("data-stale") is None
    page.context.set_offline(True)
    page.clock.fast_forward(400_000)
    until(page, "document.querySelector('.value').dataset.stale !== undefined", 1000)
    page.context.set_offline(False)
    center.telemetry.write([environment("pi-8", now_ns() + 400 * 10**9, Temperature=21.5)])
    until(page, "document.querySelector('.value').textContent.startsWith('21.50')")
    assert value.get_attribute("data-stale") is None
    assert page.locator(".spark").count() == 0  # one point is no course
    assert page.locator("[data-confirm]").count() == 1  # what a part leaves out stays


def test_a_device_that_fell_silent_while_the_center_was_away_is_silent_once_it_is_back(page, running, center):
    center.registry.register("pi-10", administrator=True)
    center.telemetry.write([environment("pi-10", now_ns(), Temperature=20.0)])
    silent = {"last": [], "seen": None, "state": {"name": "silent", "label": "Silent"}, "stale_after": 900}
    heartbeat, live_json = running.url + "/live.json", "**/dashboards/pi-10/live.json*"
    page.route(live_json, lambda route: route.abort())
    page.route(heartbeat, lambda route: route.abort())
    page.goto(running.url + "/dashboards/pi-10")
    until(page, "document.querySelector('[data-state] .state').textContent === 'Not known'")
    page.route(live_json, lambda route: route.fulfill(json=silent))
    until(page, "document.querySelector('[data-state] .state').textContent === 'Silent'")
    assert page.locator("[data-live-values]").get_attribute("data-stale-after") == "900"
    page.unroute(heartbeat)
    page.route(live_json, lambda route: route.fulfill(status=304))
    until(page, "document.getElementById('away') === null")
    assert page.locator("[data-state] .state").inner_text() == "Silent"


def test_ages_are_told_by_the_clock_of_the_center_where_the_browsers_is_wrong(page, running, center):
    center.telemetry.write([environment("pi-9", now_ns() - 90 * 10**9, Temperature=20.0)])
    page.add_init_script("const now = Date.now; Date.now = () => now() - 3600000")
    page.goto(running.url + "/devices/pi-9")
    assert page.locator("time[data-ago]").first.inner_text() in {"1 min ago", "2 min ago"}
    assert page.evaluate("Date.now() < iot.now() - 3500000")


def test_the_first_point_of_a_device_throws_nothing_away_that_is_being_typed(page, running, center):
    center.registry.register("pi-11", administrator=True)
    page.goto(running.url + "/devices/pi-11")
    page.get_by_label("Notes").fill("On the roof")
    center.telemetry.write([environment("pi-11", now_ns(), Temperature=20.0)])
    until(page, "document.querySelector('[data-await] a')?.textContent === 'Load the page'", 1000)
    assert page.get_by_label("Notes").input_value() == "On the roof"
    page.get_by_role("link", name="Load the page").click()
    page.get_by_text("Last 24 hours").first.wait_for()


def test_writing_missing_data_renews_what_stands_above(page, running, center):
    page.goto(running.url + "/virtual")
    assert "not yet: writing data registers it" in page.inner_text("#fill-facts")
    page.get_by_role("button", name="Write missing data").click()
    until(page, "document.querySelector('#fill-state .state').textContent === 'Live'", 100)
    assert "just now" in page.inner_text("#fill-facts") or "ago" in page.inner_text("#fill-facts")
    assert page.locator("#fill-links a").count() == 2


def test_an_ended_session_says_so_and_leads_back(page, running, center):
    center.registry.set_password_hash(HASH)
    page.goto(running.url + "/devices?search=pi")
    page.get_by_label("Password").fill(PASSWORD)
    page.get_by_role("button", name="Log in").click()
    page.wait_for_url("**/devices?search=pi")
    page.context.clear_cookies()
    until(page, "document.getElementById('away') !== null")
    page.get_by_role("alert").get_by_role("link", name="Log in").click()
    page.get_by_label("Password").fill(PASSWORD)
    page.get_by_role("button", name="Log in").click()
    page.wait_for_url("**/devices?search=pi")


def test_a_page_says_that_the_center_is_away(page, running, center):
    page.goto(running.url + "/login")
    page.context.set_offline(True)
    until(page, "document.getElementById('away') !== null")
    assert "The center does not answer" in page.get_by_role("alert").inner_text()
    page.context.set_offline(False)
    until(page, "document.getElementById('away')?.textContent.includes('does not answer') !== true")
