"""The center in Debian's Chromium: a user's whole walk, every page for everyone, and pages of foreign sites."""

from __future__ import annotations

import contextlib
import csv
import functools
import http.server
import itertools
import os
import re
import threading
import time
import tomllib
from dataclasses import dataclass, field
from pathlib import Path
from urllib.parse import parse_qs, urlsplit

import pytest
import requests

from agent.util.secret import Secret
from center.alerts import kept
from center.alerts.kept import RECEIVER, Receiver
from center.app import serve
from center.context import EXTENSION
from center.pages.virtual import point_at
from center.profiles import DeviceSettings, Profile, forget, keep_profile, keep_told
from center.stores.telemetry import Point
from center.times import now_ns
from tests.amounts import amount, first
from tests.center_helpers import HASH, PASSWORD, embedded_settings, influx_settings

pytestmark = [pytest.mark.chromium, pytest.mark.timeout(180)]

OUTPUT = Path(__file__).parents[2] / "test-output"
LONG = "greenhouse-with-a-rather-long-name-that-someone-chose-for-it-001"
FLAGS = [
    *("--headless", "--no-sandbox", "--disable-gpu", "--disable-quic", "--no-first-run", "--disable-sync"),
    *("--disable-background-networking", "--disable-component-update"),
    "--host-resolver-rules=MAP foreign.example 127.0.0.1,MAP rebound.example 127.0.0.1",
]
WIDE, TABLET, PHONE = {"width": 1440, "height": 900}, {"width": 800, "height": 1000}, {"width": 390, "height": 844}
DRAWN = "document.querySelector('.plot .u-over')"


@dataclass
class Watched:
    """A page of which everything is noted that a user would not see: errors, violations, requests to elsewhere."""

    page: object
    base: str
    noted: list[str] = field(default_factory=list)

    def __post_init__(self):
        self.page.on("console", self._console)
        self.page.on("pageerror", lambda error: self.noted.append(f"error: {error}"))
        self.page.on("request", self._request)
        self.page.add_init_script(
            "document.addEventListener('securitypolicyviolation', "
            "(e) => console.error('violation', e.violatedDirective, e.blockedURI))"
        )

    def _console(self, message):
        if message.type in {"error", "warning"}:
            self.noted.append(f"{message.type}: {message.text}")

    def _request(self, request):
        if not request.url.startswith((self.base, "data:", "blob:")):
            self.noted.append(f"request to {request.url}")

    def go(self, path):
        answer = self.page.goto(self.base + path)
        assert answer.status == 200, path
        return self.page

    def shoot(self, name):
        OUTPUT.mkdir(exist_ok=True)
        self.page.screenshot(path=OUTPUT / f"center-{name}.png", full_page=True)

    def wait(self, condition):
        """Until a JavaScript expression holds."""
        self.page.wait_for_function(f"() => {condition}", timeout=15_000)


@pytest.fixture(scope="module")
def chromium():
    from playwright.sync_api import sync_playwright

    with sync_playwright() as playwright:
        browser = playwright.chromium.launch(executable_path="/usr/bin/chromium", args=FLAGS)
        yield browser
        browser.close()


@pytest.fixture(scope="module")
def open_center(tmp_path_factory):
    """On loopback without a password, with a device that measures and one that does not."""
    with serve(embedded_settings(tmp_path_factory.mktemp("open"))) as running:
        center = running.app.extensions[EXTENSION]
        for device_id in ("attic", "balcony", "pi-7"):
            center.registry.register(device_id, administrator=True)
        now = now_ns() // 10**9
        center.telemetry.write([point_at("pi-7", now - 60 * i) for i in range(1440)])
        center.telemetry.write([point_at("attic", now - 3 * 3600 - 60 * i) for i in range(300)])
        for name, warm in (("bench", 20.0), ("window", 25.0)):
            own = {"clientId": "pair", "device": "pair", "sensor": name}
            values = {"Temperature": warm, "Humidity": 50.0}
            times = range((now - 5400) * 10**9, now * 10**9, 60 * 10**9)
            center.telemetry.write([Point("environment", own, values, t) for t in times])
        tags = {"clientId": "pi-7", "device": "pi-7"}
        center.telemetry.write([Point("agent", tags, {"rejected": 3, "delivered": 1440}, None)])
        texts = {
            "Note": "a long text that a device may send " * 3,
            "RawValueOfTheSecondSoilMoistureSensor": 1e9,
            "Door": True,
        }
        center.telemetry.write([Point("environment", {"device": LONG}, texts | {"Temperature": 20.0}, None)])
        center.registry.make_enrollment_key(note="Greenhouse", uses=5)
        yield running


@pytest.fixture(params=["embedded", *(["influxdb"] if os.environ.get("INFLUXDB_V2_URL") else [])])
def guarded_center(request, tmp_path):
    """On loopback with an administrator's password; also over InfluxDB, where one is named."""
    with contextlib.ExitStack() as stack:
        embedded = request.param == "embedded"
        settings = embedded_settings(tmp_path) if embedded else stack.enter_context(influx_settings())
        running = stack.enter_context(serve(settings))
        running.app.extensions[EXTENSION].registry.set_password_hash(HASH)
        yield running


@contextlib.contextmanager
def watching(chromium, running, *, theme="light", viewport=WIDE, **more):
    more = {"timezone_id": "Europe/Prague", "locale": "en-GB"} | more
    context = chromium.new_context(viewport=viewport, color_scheme=theme, **more)
    context.grant_permissions(["clipboard-read", "clipboard-write"], origin=running.url)
    try:
        yield Watched(context.new_page(), running.url)
    finally:
        context.close()


@contextlib.contextmanager
def measuring(config):
    """Deliveries as agent.toml says: a point every 0.2 s over HTTP, the temperature rising by one each time."""
    stop = threading.Event()
    device_id, target = config["device"]["id"], config["influxdb"]
    head = f"environment,clientId={device_id},device={device_id},TemperatureSensor=bme280,HumiditySensor=bme280"

    def run():
        with requests.Session() as session:
            for i in itertools.count():
                line = f"{head} Temperature={i % 40}.5,Humidity=48.25 {time.time_ns()}"
                answer = session.post(
                    f"{target['url']}/api/v2/write",
                    params={"org": target["org"], "bucket": target["bucket"]},
                    data=line,
                    headers={"Authorization": f"Token {target['token']}"},
                    timeout=10,
                )
                if answer.status_code != 204 or stop.wait(0.2):
                    return

    thread = threading.Thread(target=run)
    thread.start()
    try:
        yield
    finally:
        stop.set()
        thread.join()


def test_a_user_walks_from_login_to_removal(chromium, guarded_center, tmp_path):
    with watching(chromium, guarded_center) as seen:
        page = seen.go("/add")  # leads to the login, and back
        assert page.title().startswith("Log in")
        page.get_by_label("Password").fill(PASSWORD)
        page.get_by_role("button", name="Log in").click()

        page.get_by_label("Name", exact=True).fill("greenhouse-3")
        page.get_by_label("Sensor").select_option(label="No agent of ours: a token to write with")
        page.get_by_role("button", name="Add device").click()
        token = page.get_by_label("Token of greenhouse-3").input_value()
        page.get_by_role("button", name="Copy").first.click()
        page.get_by_role("button", name="Copied").wait_for()
        assert page.evaluate("navigator.clipboard.readText()") == token
        config = tomllib.loads(page.get_by_role("region", name="agent.toml", exact=True).text_content())
        assert config["influxdb"]["token"] == token
        seen.shoot("token")
        page.get_by_role("link", name="Go to greenhouse-3").click()
        assert "waiting for its first point" in page.inner_text("main")

        with measuring(config):
            _see_points_arrive(seen)
            _use_the_dashboard(seen, tmp_path)
        _write_missing_data(seen)
        _query_and_write(seen)

        seen.go("/devices")
        page.get_by_role("button", name="Remove greenhouse-3").click()
        page.get_by_role("button", name="Keep it").click()
        page.get_by_role("button", name="Remove greenhouse-3").click()
        page.get_by_role("button", name="Remove device").click()
        page.get_by_text("greenhouse-3 is removed").wait_for()
        assert guarded_center.app.extensions[EXTENSION].registry.device("greenhouse-3") is None
        page.get_by_role("button", name="Log out").click()
        page.get_by_text("You are logged out").wait_for()
        assert seen.noted == []


def _see_points_arrive(seen):
    page = seen.page
    page.get_by_text("Live", exact=True).wait_for()
    page.evaluate("window.notReloaded = true")
    before = page.inner_text("[data-last=Temperature]")
    seen.wait(f"document.querySelector('[data-last=Temperature]').textContent !== '{before}'")
    assert page.evaluate("window.notReloaded")
    seen.wait(DRAWN)
    seen.shoot("device")


def _use_the_dashboard(seen, folder):
    page = seen.page
    page.get_by_role("link", name="Dashboard", exact=True).last.click()
    seen.wait(DRAWN)
    assert page.locator(".gauge svg").count() == 2
    with page.expect_response(lambda r: "range=1h" in r.url and "series.json" in r.url) as answer:
        page.get_by_role("button", name="1 h").click()
    assert answer.value.json()["every"] == 5
    assert page.url.endswith("?range=1h")

    with page.expect_download() as picture:
        page.get_by_role("button", name="Save as picture").first.click()
    assert picture.value.suggested_filename == "greenhouse-3-Temperature.png"

    box = page.locator(".u-over").first.bounding_box()
    right = box["x"] + box["width"] - 2
    with page.expect_response(lambda r: "start=" in r.url) as answer:
        page.mouse.move(right - 40, box["y"] + 60)
        page.mouse.down()
        page.mouse.move(right, box["y"] + 60, steps=4)
        page.mouse.up()
    asked = parse_qs(urlsplit(answer.value.url).query)
    assert int(asked["stop"][0]) - int(asked["start"][0]) < 300_000
    assert answer.value.json()["every"] is None  # close enough to see every point
    page.go_back()  # out of the zoom
    seen.wait("document.querySelector('[data-reset]').hidden && location.search === '?range=1h'")

    with page.expect_download() as download:
        page.get_by_role("link", name="Download CSV").click()
    download.value.save_as(folder / "data.csv")
    head, *rows = csv.reader((folder / "data.csv").read_text().splitlines())
    assert "Temperature (°C)" in head
    assert rows
    assert {row[head.index("Humidity (%RH)")] for row in rows} == {"48.25"}
    seen.shoot("dashboard")


def _write_missing_data(seen):
    page = seen.go("/virtual")
    page.get_by_role("button", name="Write missing data").click()
    page.get_by_text(re.compile("Done: 10,08[01] points written")).first.wait_for(timeout=30_000)  # a minute may begin
    bar = page.get_by_label("Progress")
    assert bar.get_attribute("value") == bar.get_attribute("max") == "10080"
    seen.shoot("virtual")
    page.get_by_role("link", name="Open the dashboard").click()
    seen.wait(DRAWN)
    seen.shoot("dashboard-week")


def _query_and_write(seen):
    page = seen.go("/query")
    page.get_by_label("Device").fill("virtual_device")
    page.get_by_label("Field").fill("Temperature")
    page.get_by_label("Range").select_option("7d")
    page.get_by_label("Window").select_option("1h")
    page.get_by_label("Function").select_option("max")
    page.get_by_role("button", name="Query", exact=True).click()
    assert "aggregateWindow(every: 1h, fn: max" in page.get_by_role("region", name="Flux", exact=True).last.inner_text()
    seen.wait(DRAWN)
    seen.shoot("query-result")
    page = seen.go("/write")
    page.get_by_label("Temperature (°C)").fill("21.5")
    page.get_by_role("button", name="Write point").click()
    page.get_by_text("1 point is stored").wait_for()


PAGES = [
    "/",
    "/devices",
    "/fleet",
    "/devices/pi-7",
    "/devices/balcony",
    "/dashboards/pi-7",
    "/dashboards/pi-7?range=7d&with=attic&line=Temperature:12",
    "/dashboards/pair?range=1h",
    "/dashboards/attic?range=15m",
    f"/devices/{LONG}",
    f"/dashboards/{LONG}",
    "/virtual",
    "/query?device=pi-7&range=24h",
    "/write",
    "/buckets",
    "/add",
    "/add/balcony",
    "/enrollment-keys",
    "/alerts",
    "/alerts/rules/new?example=frost",
    "/help",
    "/offline",
]
EVERYTHING = {"rules": {"target-size": {"enabled": True}}}  # WCAG 2.2 AA: axe leaves it out by itself
COLOURS = {"runOnly": ["color-contrast"]}


@pytest.mark.timeout(600)
@pytest.mark.parametrize("viewport", first(1, PHONE, TABLET, WIDE))
def test_every_page_is_for_everyone(chromium, open_center, viewport):
    """axe finds nothing, light or dark; nothing is wider than the screen; the policy is kept; no request leaves."""
    from axe_playwright_python.sync_playwright import Axe

    axe, found = Axe(), []
    with watching(chromium, open_center, viewport=viewport, reduced_motion="reduce") as seen:
        for path in PAGES[:: amount(3, 1)]:
            page = seen.go(path)
            if page.locator(".chart").count():
                seen.wait("document.body.dataset.drawn")
            for theme, rules in (("light", EVERYTHING), ("dark", COLOURS)):
                page.emulate_media(color_scheme=theme)
                for violation in axe.run(page, options=rules).response["violations"]:
                    found += [f"{path} {theme}: {violation['id']}: {n['html'][:150]}" for n in violation["nodes"]]
            if page.evaluate("document.documentElement.scrollWidth") > viewport["width"]:
                found.append(f"{path} is wider than {viewport['width']} px")
        assert not found, "\n".join(found)
        assert seen.noted == []


@pytest.mark.parametrize("viewport", first(1, PHONE, TABLET, WIDE))
def test_the_longest_words_that_a_person_or_a_device_says_stay_within_their_panels(chromium, open_center, viewport):
    registry, word = open_center.app.extensions[EXTENSION].registry, "W" * 64
    keep_profile(registry, "balcony", Profile(word, word, word, DeviceSettings(offset={f"{word}.Temperature": 1.0})))
    keep_told(registry, "balcony", {"version": word, "address": word, "sensors": [{"name": word, "kind": word}]})
    key, _ = registry.make_enrollment_key(note=word)
    kept.keep_receiver(registry, word, Receiver(word, Secret("json://x"), f"json://{word}"))
    kept.keep_rule(registry, word, {"name": word, "what": "clock", "scope": "group", "of": word, "receivers": [word]})
    within = """[...document.querySelectorAll(".panel")].filter(
        (panel) => getComputedStyle(panel).overflowX === "visible" && panel.scrollWidth > panel.clientWidth + 1
    ).map((panel) => panel.innerText.slice(0, 40))"""
    ages = "for (const time of document.querySelectorAll('td time')) time.textContent = '59 min ago'"
    try:
        with watching(chromium, open_center, viewport=viewport) as seen:
            for path in ("/devices", "/devices/balcony", "/fleet", "/enrollment-keys", "/alerts"):
                page = seen.go(path)
                page.evaluate(ages)
                assert page.evaluate("document.documentElement.scrollWidth") <= viewport["width"], path
                assert page.evaluate(within) == [], path
    finally:
        forget(registry, "balcony")
        registry.revoke_enrollment_key(key.id)
        kept.forget_rule(registry, word)
        registry.keep_document(RECEIVER, word, None)


def test_a_keyboard_reaches_the_content_the_menu_and_the_questions(chromium, open_center):
    with watching(chromium, open_center, viewport=PHONE) as seen:
        page = seen.go("/devices")
        page.keyboard.press("Tab")
        assert page.evaluate("document.activeElement.textContent") == "Skip to the content"
        page.get_by_role("button", name="Open the menu").press("Enter")
        seen.wait("document.activeElement.id === 'side'")
        page.keyboard.press("Escape")
        page.get_by_role("link", name="Enrollment keys").wait_for(state="hidden")
        page.get_by_role("button", name="Remove pi-7").press("Enter")
        page.get_by_role("heading", name="Remove pi-7?").wait_for()
        page.keyboard.press("Escape")
        page.get_by_role("heading", name="Remove pi-7?").wait_for(state="hidden")
        assert seen.noted == []


def test_light_and_dark_follow_the_system_and_then_the_choice(chromium, open_center):
    with watching(chromium, open_center, theme="dark") as seen:
        page = seen.go("/dashboards/pi-7")
        assert page.evaluate("document.documentElement.dataset.bsTheme") == "dark"
        page.get_by_role("button", name="Light or dark").click()
        assert page.evaluate("document.documentElement.dataset.bsTheme") == "light"
        seen.go("/devices")
        assert page.evaluate("document.documentElement.dataset.bsTheme") == "light"
        assert seen.noted == []


def test_a_chart_is_read_by_keyboard_and_as_a_table(chromium, open_center):
    with watching(chromium, open_center) as seen:
        page = seen.go("/dashboards/pair?range=1h")
        seen.wait(DRAWN)
        plot = page.get_by_label("Temperature: arrow keys read the values")
        plot.press("End")
        said = page.locator("#announce")
        assert re.fullmatch(r"\d+\s\w+, \d\d:\d\d:\d\d: bench 20\.00\s°C; window 25\.00\s°C", said.text_content())
        last = said.text_content()
        plot.press("ArrowLeft")
        assert said.text_content() != last
        page.get_by_text("Values as a table").first.click()
        table = page.get_by_role("region", name="Values of Temperature")
        table.locator("tbody tr").first.wait_for()  # made once it is open
        assert table.locator("th").all_text_contents()[1:] == ["bench °C", "window °C"]
        assert table.locator("tbody tr").first.locator("td").all_text_contents()[1:] == ["20.00", "25.00"]
        assert seen.noted == []


def test_every_control_shows_that_it_has_the_focus(chromium, open_center):
    """Tab through the dashboard: each stop has a ring, each chart is one stop."""
    with watching(chromium, open_center) as seen:
        page = seen.go("/dashboards/pair?range=1h")
        seen.wait(DRAWN)
        stops = []
        for _ in range(150):
            page.keyboard.press("Tab")
            kind, ring = page.evaluate("""() => {
                const at = document.activeElement, style = getComputedStyle(at);
                const ring = parseFloat(style.outlineWidth) >= 2 && style.outlineStyle !== "none";
                return [at === document.body ? "" : `${at.tagName} ${at.className}`, ring];
            }""")
            if not kind and stops:
                break
            assert ring, kind
            stops.append(kind)
        shown = page.locator(".chart-panel:not([hidden])").count()
        assert sum("plot" in kind.split() for kind in stops) == shown
        assert seen.noted == []


def test_the_chooser_finds_a_device_by_its_letters_and_takes_the_view_along(chromium, open_center):
    with watching(chromium, open_center) as seen:
        page = seen.go("/dashboards/attic?range=7d&field=Temperature&line=Temperature:21.5")
        chooser = page.get_by_label("Another device")
        with page.expect_response("**/devices.json?search=pi-") as found:
            chooser.press_sequentially("pi-")
        assert found.value.json() == {"devices": [{"id": "pi-7", "name": ""}]}
        assert "/attic" in page.url
        chooser.press_sequentially("7")
        page.keyboard.press("Enter")
        page.wait_for_url("**/dashboards/pi-7?range=7d&field=Temperature&line=Temperature%3A21.5")
        seen.wait(DRAWN)
        assert page.locator(".chart-panel:not([hidden])").count() == 1
        page.get_by_text("Lines").first.click()
        page.get_by_role("button", name="Remove the line at 21.50 °C").click()
        page.wait_for_url("**/dashboards/pi-7?range=7d&field=Temperature")
        assert page.get_by_role("link", name="Download CSV").get_attribute("href").endswith("&field=Temperature")
        seen.go("/dashboards/pi-7?range=7d&field=Soil")  # of another device: this one's are shown, not none
        seen.wait(DRAWN)
        assert page.locator(".chart-panel:not([hidden])").count() > 1
        assert seen.noted == []


def test_what_is_shown_stands_in_the_address(chromium, open_center):
    """Calendar, fields, comparison: shared, gone back from, loaded again."""
    with watching(chromium, open_center) as seen:
        page = seen.go("/dashboards/pi-7?range=24h")
        seen.wait(DRAWN)
        page.get_by_role("button", name="CO₂").click()
        page.get_by_role("button", name="All time").click()
        page.get_by_label("Compare with the device").fill("attic")
        page.get_by_role("button", name="Add").click()
        seen.wait("document.querySelectorAll('.chart-figures h3').length >= 2")
        asked = parse_qs(urlsplit(page.url).query)
        assert asked["range"] == ["all"]
        assert asked["with"] == ["attic"]
        assert "CO2" not in asked["field"]
        page.get_by_label("Compare with the device").fill("nobody")
        page.get_by_role("button", name="Add").click()
        page.get_by_text("Nothing of nobody.").wait_for()
        page.go_back()
        page.reload()
        seen.wait("[...document.querySelectorAll('.chart-figures h3')].some((h) => h.textContent.includes('attic'))")
        assert page.get_by_role("button", name="CO₂").get_attribute("aria-pressed") == "false"

        page.get_by_text("From … to").click()
        page.get_by_label("From", exact=False).first.fill("2026-01-05T10:00")
        page.get_by_label("To", exact=True).fill("2026-01-05T16:30")
        page.get_by_role("button", name="Show", exact=True).click()
        asked = parse_qs(urlsplit(page.url).query)
        assert (asked["start"], asked["stop"]) == (["1767603600000"], ["1767627000000"])  # in Prague's time
        page.get_by_text("No data in this range").first.wait_for()
        assert page.locator(".plot .u-over").count() == 0  # and no axis
        page.get_by_role("button", name="Earlier").click()
        assert parse_qs(urlsplit(page.url).query)["stop"] == ["1767603600000"]
        page.go_back()
        page.go_back()
        seen.wait(DRAWN)
        assert parse_qs(urlsplit(page.url).query)["range"] == ["all"]
        assert seen.noted == []


def test_units_and_times_are_the_visitors(chromium, open_center):
    with watching(chromium, open_center, locale="de-DE") as seen:
        page = seen.go("/devices/pi-7")
        seen.wait("document.querySelector('[data-last=Pressure]').textContent.includes(',')")  # 1.013,25
        celsius = float(page.locator("[data-last=Temperature]").first.get_attribute("data-v"))
        assert page.evaluate("iot.exact(Date.UTC(2026, 6, 1))") == "2026-07-01 02:00:00 MESZ"  # in winter, too
        assert page.evaluate("iot.exact(Date.UTC(2026, 0, 1))") == "2026-01-01 01:00:00 MEZ"
        said = """([day, days]) => iot.Reading.prototype.when.call({ chart: { board: {
            data: { every: days * 86400 }, coarse: true, range: () => [0, 4e10],
        } } }, Date.UTC(2026, 6, day))"""
        assert page.evaluate("iot.day(Date.UTC(2023, 6, 1))") == "1\xa0Jul 2023"  # no year is this one
        assert page.evaluate(said, [9, 1]) == "8\xa0Jul 2026"  # its window ends at the midnight after
        assert page.evaluate(said, [10, 2]) == "8\xa0Jul 2026 to 9\xa0Jul 2026"
        assert page.evaluate(said, [9, 0.5]) == "9\xa0Jul 2026, 02:00"
        page.get_by_role("button", name="Units and times").click()
        page.get_by_label("Temperature", exact=True).select_option("°F")
        page.get_by_label("Pressure", exact=True).select_option("inHg")
        page.get_by_label("Times", exact=True).select_option("utc")
        page.get_by_label("Clock", exact=True).select_option("12")
        page.get_by_role("button", name="Done").click()
        for path in ("/", "/devices", "/devices/pi-7", "/dashboards/pi-7"):
            page = seen.go(path)
            settings = page.locator("form[action$='/settings']")  # a device's own: in the units that it measures in
            settings.evaluate_all("forms => forms.forEach((form) => { form.hidden = true; })")
            text = page.inner_text("main")
            assert "°C" not in text, path
            assert "hPa" not in text, path
        shown = page.locator("[data-last=Temperature]").first.inner_text().split()[0].replace("\u2212", "-")
        assert re.fullmatch(r"-?\d+,\d", shown)
        fahrenheit = float(shown.replace(",", "."))
        assert fahrenheit == pytest.approx(celsius * 1.8 + 32, abs=0.0501)
        assert re.search(r"\d+:\d\d:\d\d\s[ap]m UTC", page.inner_text("main"))
        assert seen.noted == []


def test_fingers_move_and_stretch_a_chart(chromium, open_center):
    with watching(chromium, open_center, viewport=PHONE, has_touch=True, is_mobile=True) as seen:
        page = seen.go("/dashboards/pi-7?range=24h")
        seen.wait(DRAWN)
        page.locator(".u-over").first.scroll_into_view_if_needed()
        cdp = page.context.new_cdp_session(page)

        def gesture(*steps):
            box = page.locator(".u-over").first.bounding_box()
            y = box["y"] + box["height"] / 2
            for kind, places in zip(["touchStart", *["touchMove"] * (len(steps) - 1)], steps, strict=True):
                points = [{"x": box["x"] + box["width"] * p, "y": y, "id": i} for i, p in enumerate(places)]
                cdp.send("Input.dispatchTouchEvent", {"type": kind, "touchPoints": points})
            cdp.send("Input.dispatchTouchEvent", {"type": "touchEnd", "touchPoints": []})

        def span():
            asked = parse_qs(urlsplit(page.url).query)
            return [int(asked[name][0]) / 3.6e6 for name in ("start", "stop")]

        drawn = int(page.evaluate("document.body.dataset.drawn"))
        gesture((0.4, 0.6), (0.3, 0.7), (0.2, 0.8))
        page.wait_for_url("**start=**")
        seen.wait(f"document.body.dataset.drawn >= {drawn + 2}")  # with what was answered: all stands still
        start, stop = span()
        assert stop - start == pytest.approx(8, rel=0.1)  # hours: stretched to three times
        drawn = int(page.evaluate("document.body.dataset.drawn"))
        gesture((0.3,), (0.45,), (0.6,))
        seen.wait(f"!location.href.includes('{round(start * 3.6e6)}')")
        moved = span()
        assert moved[1] - moved[0] == pytest.approx(stop - start, rel=0.01)
        assert start - moved[0] == pytest.approx(0.3 * (stop - start), rel=0.2)
        seen.wait(f"document.body.dataset.drawn >= {drawn + 2}")
        page.locator(".u-over").first.tap()
        seen.wait("!document.querySelector('.chart-tip').hidden")
        assert seen.noted == []


def test_without_a_network_a_page_says_so_and_nothing_measured_is_kept(chromium, open_center):
    with watching(chromium, open_center) as seen:
        page = seen.go("/dashboards/pi-7")
        manifest = page.evaluate("async () => (await fetch(document.querySelector('link[rel=manifest]').href)).json()")
        assert {icon["sizes"] for icon in manifest["icons"]} >= {"192x192", "512x512"}
        page.evaluate("navigator.serviceWorker.ready")
        seen.wait("navigator.serviceWorker.controller")
        kept = page.evaluate("""async () => {
            const found = [];
            for (const name of await caches.keys())
                for (const r of await (await caches.open(name)).keys()) found.push(r.url);
            return found;
        }""")
        paths = {urlsplit(url).path for url in kept}
        assert "/offline" in paths
        assert all(path == "/offline" or path.startswith("/assets/") for path in paths)
        page.context.set_offline(True)
        page.goto(seen.base + "/devices/pi-7")
        page.get_by_role("heading", name="No connection to the center").wait_for()
        assert page.evaluate("getComputedStyle(document.querySelector('.panel')).borderRadius") != "0px"
        page.context.set_offline(False)
        page.get_by_role("link", name="Try again").click()
        page.get_by_role("heading", name="pi-7").first.wait_for()  # what was asked for


FOREIGN = """<!doctype html><title>foreign</title>
<iframe src="CENTER/devices"></iframe><iframe name="a"></iframe><iframe name="b"></iframe>
<form id="a" method="post" action="CENTER/api/devices/evil-1" target="a"></form>
<form id="b" method="post" action="CENTER/add" target="b"><input name="device_id" value="evil-2"></form>
<img id="img" src="CENTER/api/env/evil-3" alt="">
<script>
window.read = [];
const keep = async (name, url, options) => {
  try { const a = await fetch(url, options); window.read.push(name + ":" + a.type + ":" + await a.text()); }
  catch (e) { window.read.push(name + ":blocked"); }
};
(async () => {
  await keep("cors-post", "CENTER/api/devices/evil-4", { method: "POST" });
  await keep("blind-post", "CENTER/api/devices/evil-5", { method: "POST", mode: "no-cors" });
  await keep("text-post", "CENTER/api/devices", { method: "POST", mode: "no-cors", body: '{"deviceId": "evil-6"}' });
  await keep("env", "CENTER/api/env/evil-7", {});
  await keep("list", "CENTER/api/devices", {});
  await keep("page", "CENTER/enrollment-keys", { credentials: "include" });
  await keep("delete", "CENTER/api/devices/pi-7", { method: "DELETE" });
  document.getElementById("a").submit();
  document.getElementById("b").submit();
  window.done = true;
})();
</script>"""


def test_a_foreign_page_can_neither_register_a_device_nor_read_anything(chromium, open_center):
    class Handler(http.server.BaseHTTPRequestHandler):
        def do_GET(self):
            body = FOREIGN.replace("CENTER", open_center.url).encode()
            self.send_response(200)
            self.send_header("Content-Type", "text/html")
            self.end_headers()
            self.wfile.write(body)

        def log_message(self, *_):
            pass

    reached = []
    center = open_center.app.extensions[EXTENSION]
    before = [d.id for d in center.registry.devices().devices]

    def note(original, environ, start_response):
        def start(status, headers, *more):
            reached.append((environ["PATH_INFO"], environ.get("HTTP_HOST", ""), int(status[:3])))
            return start_response(status, headers, *more)

        return original(environ, start)

    original = open_center.app.wsgi_app
    open_center.app.wsgi_app = functools.partial(note, original)
    server = http.server.ThreadingHTTPServer(("127.0.0.1", 0), Handler)
    thread = threading.Thread(target=server.serve_forever)
    thread.start()
    context = chromium.new_context()
    try:
        page = context.new_page()
        page.goto(f"http://foreign.example:{server.server_port}/")
        page.wait_for_function("() => window.done")
        page.wait_for_load_state("networkidle")
        read = page.evaluate("window.read")
        rebound = page.goto(f"http://rebound.example:{open_center.port}/api/env/evil-8")
        assert rebound.status == 400
    finally:
        context.close()
        server.shutdown()
        thread.join()
        server.server_close()
        open_center.app.wsgi_app = original
    assert [d.id for d in center.registry.devices().devices] == before
    assert all(line.endswith(("blocked", ":opaque:")) for line in read), read
    asked = {path for path, _, _ in reached}
    assert {"/api/devices/evil-1", "/add", "/api/env/evil-3", "/api/devices/evil-5", "/api/devices"} <= asked
    assert all(status in {400, 403} for _, _, status in reached), reached
