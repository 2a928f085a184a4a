"""The local page, /metrics and /healthz: what is shown, to whom, and what never is."""

import contextlib
import http.client
import itertools
import json
import logging
import os
import re
import socket
import subprocess
import sys
import threading

import pytest
from prometheus_client.parser import text_string_to_metric_families

from agent.config.settings import StatusSettings
from agent.status import http as status_http
from agent.status.health_rules import failing, problems
from agent.status.history import MINUTE_NS, History
from agent.status.http import StatusPage, cross_site, crowd_of, own_host
from agent.status.page import limits, render, runs, svg
from drivers.base import WHOLE, boot_ns
from tests.snapshots import SECOND, sensor, snapshot


@pytest.fixture
def serve():
    pages = []

    def start(take=snapshot, **settings):
        page = StatusPage(StatusSettings(**{"listen": "127.0.0.1:0", **settings}), take)
        page.start()
        pages.append(page)
        return page

    yield start
    for page in pages:
        page.close()
        page.close()


def ask(page, path="/", method="GET", **headers):
    connection = http.client.HTTPConnection(*page.address, timeout=40)
    try:
        connection.request(method, path, headers={name.replace("_", "-"): value for name, value in headers.items()})
        answer = connection.getresponse()
        return answer.status, dict(answer.getheaders()), answer.read().decode()
    finally:
        connection.close()


def metrics(page):
    text = ask(page, "/metrics")[2]
    return {
        (sample.name, *sample.labels.values()): sample.value
        for family in text_string_to_metric_families(text)
        for sample in family.samples
    }


FETCH = """
import http.client, socket, sys, urllib.parse
url, host, hold = urllib.parse.urlsplit(sys.argv[1]), sys.argv[2], int(sys.argv[3])
try:
    held = [socket.create_connection((url.hostname, url.port), 10) for _ in range(hold)]
    asked = http.client.HTTPConnection(url.netloc, timeout=40)
    asked.request("GET", url.path, headers={"Host": host} if host else {})
    print(asked.getresponse().status)
except OSError as error:
    print(type(error).__name__)
"""
"""Prints the status of an answer, or why there is none, while it holds connections itself."""


def run(command, url, host="", hold=0):
    return subprocess.run([*command, url, host, str(hold)], capture_output=True, text=True, check=True).stdout.strip()


class TestPage:
    def test_it_shows_values_buffer_counters_and_clock(self, serve):
        status, _, text = ask(serve())
        assert status == 200
        for shown in ("greenhouse-3", "21.50 <small>°C", "40.25", "1\u202f013.20", "1,200 on disk", "8,790 delivered"):
            assert shown in text
        assert "good by the kernel" in text
        assert ">works<" in text

    def test_it_needs_nothing_from_anywhere_else(self, serve):
        page = serve()
        _, headers, text = ask(page)
        assert "//" not in text.replace("http://influx.local:8086", "").replace("<!doctype html>", "")
        assert "default-src 'none'" in headers["Content-Security-Policy"]
        assert "unsafe" not in headers["Content-Security-Policy"]
        assert "style=" not in text
        for path in ("/static/page.css", "/static/page.js"):
            assert ask(page, path)[0] == 200

    def test_promise_4_a_value_that_does_not_hold_any_more_is_grey(self, serve):
        now = boot_ns()
        refused = {"Pressure": {"since_boot_ns": now, "why": "out of range"}}
        text = ask(serve(lambda: snapshot(now, sensors=[sensor(now, refused=refused)])))[2]
        assert re.findall(r'<div( class="stale")?><dt>(\w+)</dt>', text) == [
            ("", "Temperature"),
            ("", "Humidity"),
            (' class="stale"', "Pressure"),
        ]

    def test_problems_come_first_in_words_and_escaped(self, serve):
        def bad():
            now = boot_ns()
            broken = sensor(now, failing_since_boot_ns=now - 900 * SECOND, problem="<script>alert(1)</script>")
            return snapshot(now, sensors=[broken], warnings=["a & b"])

        text = ask(serve(bad))[2]
        assert "&lt;script&gt;alert(1)&lt;/script&gt;" in text
        assert "<script>alert" not in text
        assert "a &amp; b" in text
        assert 'class="verdict failing"' in text
        assert text.count('<div class="stale">') == 3

    def test_it_is_read_only(self, serve):
        page = serve()
        for method in ("POST", "PUT", "DELETE"):
            assert ask(page, "/", method)[0] == 501
        assert ask(page, "/", "HEAD")[2] == ""

    def test_unknown_paths_and_ways_out_of_its_folder_are_404(self, serve):
        page = serve()
        for path in ("/etc/passwd", "/static/../page.py", "/static/%2e%2e/page.py", "/static/", "/templates/page.html"):
            assert ask(page, path)[0] == 404

    def test_promise_7_a_token_is_never_on_the_page(self, serve, tmp_path):
        from agent.util.secret import Secret

        def take():
            return snapshot(registration={"state": "registered", "token": Secret("t0ps3cret"), "url": "http://x"})

        page = serve(take)
        for path in ("/", "/metrics", "/healthz"):
            assert "t0ps3cret" not in ask(page, path)[2]

    def test_a_snapshot_of_an_agent_that_just_starts_is_shown_too(self, serve):
        page = serve(lambda: {"sensors": [], "delivery": {"state": "stopped"}})
        for path, status in (("/", 200), ("/metrics", 200), ("/healthz", 200)):
            assert ask(page, path)[0] == status


class TestWhoMayRead:
    def test_a_rebound_name_reads_nothing(self, serve):
        page = serve()
        for host in ("evil.example", "127.0.0.1.evil.example", "", "greenhouse.evil.example:9528"):
            status, _, text = ask(page, "/", Host=host)
            assert status == 400
            assert "21.50" not in text

    def test_a_foreign_page_cannot_read_but_can_link(self, serve):
        page = serve()
        assert ask(page, "/", Sec_Fetch_Site="cross-site", Sec_Fetch_Mode="no-cors")[0] == 403
        assert ask(page, "/", Sec_Fetch_Site="cross-site", Sec_Fetch_Mode="navigate")[0] == 200
        assert ask(page)[1]["Cross-Origin-Resource-Policy"] == "same-origin"

    @pytest.mark.parametrize("host", ["localhost", "localhost:9528", "127.0.0.1:9528", "[::1]:9528", "127.0.0.2"])
    def test_loopback_names_are_ours(self, host):
        assert own_host(host, False, "pi")

    @pytest.mark.parametrize("host", ["192.168.1.5", "pi", "pi.local", "[fe80::1]:9528", "PI.local:80", "pi.lan"])
    def test_the_board_s_own_names_are_ours_only_when_public(self, host):
        assert own_host(host, True, "pi")
        assert not own_host(host, False, "pi")

    @pytest.mark.parametrize("host", ["evil.example", "pi.evil.example", "pi.com", "", "[", ":::", "xn--pi"])
    def test_foreign_names_never_are(self, host):
        assert not own_host(host, True, "pi")

    def test_navigation_is_the_only_thing_that_crosses_sites(self):
        assert not cross_site("", "")
        assert not cross_site("same-origin", "cors")
        assert cross_site("cross-site", "cors")


class TestListening:
    def test_a_name_that_is_none_is_a_warning_not_an_end(self, caplog):
        page = StatusPage(StatusSettings(listen="a..b:9528", public=True), dict)
        page.start()
        assert page.address is None
        assert "no status page on a..b:9528" in caplog.text
        page.close()

    def test_a_taken_port_is_a_warning_not_an_end(self, caplog):
        with socket.create_server(("127.0.0.1", 0)) as other:
            port = other.getsockname()[1]
            page = StatusPage(StatusSettings(listen=f"127.0.0.1:{port}"), snapshot)
            with caplog.at_level(logging.WARNING):
                page.start()
            assert page.address is None
            assert f"no status page on 127.0.0.1:{port}" in caplog.text
            page.close()

    def test_empty_turns_it_off(self):
        page = StatusPage(StatusSettings(listen=""), snapshot)
        page.start()
        assert page.address is None
        page.close()

    def test_whoever_only_holds_connections_keeps_nobody_out(self, serve):
        page = serve()
        idle = [socket.create_connection(page.address, timeout=40) for _ in range(40)]
        try:
            for connection in idle[::2]:
                with contextlib.suppress(OSError):  # some were closed for those that came after them
                    connection.sendall(b"GET / HTTP/1.0\r\nHost: local")
            assert ask(page)[0] == 200
            closed = [connection.recv(1) == b"" for connection in idle[: -status_http.OF_ONE_ADDRESS]]
            assert all(closed)
        finally:
            for connection in idle:
                connection.close()

    def test_headers_that_trickle_in_end_at_a_deadline_of_their_own(self, serve, monkeypatch):
        monkeypatch.setattr(status_http, "HEADERS_S", 0.1)
        with socket.create_connection(serve().address, timeout=40) as slow:
            slow.sendall(b"GET / HTTP/1.0\r\nHo")
            assert slow.recv(1) == b""

    def test_an_address_has_its_share_of_the_connections_and_one_that_has_asked_is_not_ended(self):
        def held(address, count, asked=False):
            return [status_http.Held(None, address, 0.0, asked) for _ in range(count)]

        mine, others = held("10.0.0.1", 8), held("10.0.0.2", 7)
        assert crowd_of(mine, "10.0.0.1") == mine
        assert not crowd_of(mine + others, "10.0.0.2")
        full = [*mine, *others, *held("10.0.0.3", 1)]
        assert crowd_of(full, "10.0.0.2") == full

    def test_a_request_beyond_those_at_work_is_closed_at_once(self, serve):
        entered, go_on = threading.Semaphore(0), threading.Event()

        def slow():
            entered.release()
            assert go_on.wait(40)
            return snapshot()

        page = serve()
        page.snapshot = slow
        busy = [socket.create_connection(page.address, timeout=40) for _ in range(status_http.OF_ONE_ADDRESS)]
        try:
            for connection in busy:
                connection.sendall(b"GET /healthz HTTP/1.0\r\nHost: localhost\r\n\r\n")
                assert entered.acquire(timeout=40)
            with socket.create_connection(page.address, timeout=40) as further:
                assert further.recv(1) == b""
            go_on.set()
            assert all(connection.recv(12) == b"HTTP/1.0 200" for connection in busy)
        finally:
            go_on.set()
            for connection in busy:
                connection.close()


@pytest.fixture
def neighbour():
    """How to run something on another machine of this network, and this one's address there: a network namespace."""
    name, here = f"iot{os.getpid()}", f"v{os.getpid()}"

    def ip(*words):
        subprocess.run(["ip", *words], check=True)

    ip("netns", "add", name)
    try:
        ip("link", "add", here, "type", "veth", "peer", "name", "eth0", "netns", name)
        ip("address", "add", "198.18.77.1/30", "dev", here)
        ip("link", "set", here, "up")
        ip("-n", name, "address", "add", "198.18.77.2/30", "dev", "eth0")
        ip("-n", name, "link", "set", "eth0", "up")
        yield ["ip", "netns", "exec", name], "198.18.77.1"
    finally:
        ip("netns", "del", name)


@pytest.mark.root
def test_another_machine_sees_the_page_only_where_it_is_public_also_while_connections_are_held(serve, neighbour):
    there, address = neighbour
    fetch = [*there, sys.executable, "-c", FETCH]
    port = serve(listen=f"{address}:0", public=True).address[1]
    assert run(fetch, f"http://{address}:{port}/healthz") == "200"
    assert run(fetch, f"http://{address}:{port}/", "evil.example") == "400"
    assert run(fetch, f"http://{address}:{port}/", hold=40) == "200"
    with contextlib.ExitStack() as held:
        for _ in range(40):
            held.enter_context(socket.create_connection((address, port), timeout=40))
        assert run(fetch, f"http://{address}:{port}/") == "200"
    port = serve(listen="127.0.0.1:0").address[1]
    assert run(fetch, f"http://{address}:{port}/healthz") == "ConnectionRefusedError"


class TestCharts:
    def test_three_moments_the_least_and_the_greatest_are_told_by_the_center_s_names(self):
        history = {("a", "PressureSeaLevel"): [(ago, 1020.0 - ago / 10) for ago in range(299, -1, -1)]}
        text = render(snapshot(), history, 300)
        assert "Sea-level pressure in hPa <span>min 990.10, max 1\u202f020.00</span>" in text
        for moment in (">6 h ago<", ">3 h ago<", ">now<"):
            assert moment in text

    def test_a_field_of_somebody_else_s_driver_is_charted_by_its_own_name(self):
        assert "<figcaption>Wind <span>min \N{MINUS SIGN}3.00, max 1.50" in render(
            snapshot(), {("a", "Wind"): [(1, 1.5), (0, -3)]}, 1
        )


class TestHealthz:
    def test_all_well_is_200(self, serve):
        status, _, text = ask(serve(), "/healthz")
        assert (status, json.loads(text)) == (200, {"status": "ok", "problems": [], "warnings": []})

    def test_delivery_that_fails_for_longer_than_configured_is_503_and_says_why(self, serve):
        def take():
            now = boot_ns()
            failed = {"state": "failing", "since_boot_ns": now - 400 * SECOND, "last_error": "connection refused"}
            return snapshot(now, delivery=failed)

        status, _, text = ask(serve(take, unhealthy_after=300.0), "/healthz")
        assert status == 503
        assert "connection refused" in json.loads(text)["problems"][0]
        assert ask(serve(take, unhealthy_after=600.0), "/healthz")[0] == 200

    def test_a_sensor_that_fails_or_hangs_is_named(self):
        now = 10**12
        lost = sensor(now, name="bench", failing_since_boot_ns=now - 301 * SECOND, problem="not found")
        hung = sensor(now, name="roof", boot_ns=now - 301 * SECOND)
        slow = sensor(now, name="soil", interval=600.0, boot_ns=now - 599 * SECOND)
        fresh = sensor(now, name="attic", boot_ns=None, alive_boot_ns=now - SECOND)
        never = sensor(now, name="cellar", boot_ns=None, alive_boot_ns=now - 301 * SECOND)
        found = failing(snapshot(now, sensors=[lost, hung, slow, fresh, never]), 300)
        assert found == [
            "Sensor bench fails for 5 min: not found",
            "Sensor roof: no reading for 5 min",
            "Sensor cellar: no reading for 5 min",
        ]

    def test_waiting_for_a_registration_counts_as_delivery_that_fails(self):
        now = 10**12
        found = failing(
            snapshot(
                now,
                delivery={"state": "waiting", "since_boot_ns": now - 301 * SECOND},
                registration={"state": "failing", "error": "401 enrollment key missing"},
            ),
            300,
        )
        assert found == ["Delivery is waiting for 5 min: 401 enrollment key missing"]

    def test_everything_to_look_at_is_listed_once(self):
        found = problems(
            snapshot(
                buffer={"problem": "disk full"},
                clock={"good": False, "warning": "the wall clock is 40 days off"},
                registration={"error": "x", "warnings": ("plain http",)},
                warnings=["plain http"],
            )
        )
        assert found == ["Registration: x", "Buffer: disk full", "Clock: the wall clock is 40 days off", "plain http"]


class TestMetrics:
    def test_prometheus_reads_them_with_units_and_labels(self, serve):
        found = metrics(serve())
        assert found["iot_agent_temperature_celsius", "bme280"] == 21.5
        assert found["iot_agent_points_measured_total",] == 10_000
        assert found["iot_agent_points_dropped_total", "full"] == 4
        assert found["iot_agent_points_unaccounted",] == 0
        assert found["iot_agent_buffer_points", "disk"] == 1200
        assert found["iot_agent_buffer_oldest_age_seconds",] == 1000
        assert found["iot_agent_delivery_ok",] == 1
        assert found["iot_agent_clock_error_seconds",] == 0.012
        assert found["iot_agent_sensor_missed_total", "bme280"] == 1
        assert found["iot_agent_info", "greenhouse-3", "1.0.0"] == 1

    def test_promise_4_a_failed_sensor_s_old_value_is_not_exported_as_current(self, serve):
        now = boot_ns()
        broken = sensor(now, failing_since_boot_ns=now, problem="gone")
        found = metrics(serve(lambda: snapshot(now, sensors=[broken])))
        assert ("iot_agent_temperature_celsius", "bme280") not in found
        assert found["iot_agent_sensor_ok", "bme280"] == 0

    def test_promise_4_nor_one_of_a_sensor_that_hangs_or_of_which_everything_is_refused(self, serve):
        now = boot_ns()
        since = {"since_boot_ns": now - 3600 * SECOND, "why": "out of range"}
        hangs = sensor(now, name="hangs", boot_ns=now - 3600 * SECOND)
        beyond = sensor(now, name="beyond", values={"Temperature": 21.5}, refused={"Temperature": since})
        empty = sensor(now, name="empty", refused={WHOLE: since})
        derived = sensor(now, name="dew", values={"Humidity": 40.0, "DewPoint": 5.0}, refused={"Humidity": since})
        partly = sensor(now, name="partly", refused={"Pressure": since})
        found = metrics(serve(lambda: snapshot(now, sensors=[hangs, beyond, empty, derived, partly])))
        assert [key for key in found if key[0].startswith(("iot_agent_temp", "iot_agent_hum", "iot_agent_dew"))] == [
            ("iot_agent_temperature_celsius", "partly"),
            ("iot_agent_humidity_percent", "partly"),
        ]
        assert not any(key[0].startswith("iot_agent_pressure") for key in found)
        assert [found["iot_agent_sensor_ok", name] for name in ("hangs", "beyond", "partly")] == [0, 1, 1]

    def test_every_metric_has_a_help_text(self, serve):
        text = ask(serve(), "/metrics")[2]
        for family in text_string_to_metric_families(text):
            assert family.documentation, family.name


class TestHistory:
    def test_a_minute_is_one_mean_and_a_reading_counts_once(self):
        history = History()
        for moment, value in ((60, 10.0), (60, 10.0), (90, 20.0), (130, 5.0)):
            history.take([sensor(0, boot_ns=moment * SECOND, values={"Temperature": value})])
        assert history.series(180 * SECOND) == {("bme280", "Temperature"): [(2, 15.0), (1, 5.0)]}

    def test_promise_6_it_never_holds_more_than_a_day_nor_more_than_32_series(self):
        history = History()
        for minute in range(3000):
            history.take([sensor(0, boot_ns=minute * MINUTE_NS, values={"Temperature": 1.0})])
        for number in range(100):
            history.take([sensor(0, name=f"s{number}", boot_ns=3000 * MINUTE_NS)])
        found = history.series(3000 * MINUTE_NS)
        assert len(found) == 32
        assert len(found["bme280", "Temperature"]) == 1439  # the day before minute 3000
        assert sum(len(minutes) for minutes in history._series.values()) <= 32 * 1440

    def test_a_gap_stays_a_gap(self):
        assert runs([(100, 1.0), (99, 1.0), (50, 2.0), (49, 2.0)], 2) == [
            [(100, 1.0), (99, 1.0)],
            [(50, 2.0), (49, 2.0)],
        ]
        drawing = svg([(100, 1.0), (99, 1.0), (50, 2.0)], "t", 1)
        assert re.findall('data-values="(.*?)"', drawing) == ["1.0 1.0", "2.0"]
        dot = re.findall('points="(.*?)"', drawing)[1].split()
        assert dot[0] == dot[1]  # what stands alone is seen

    def test_a_day_of_minutes_is_drawn_in_at_most_360_points(self):
        drawing = svg([(ago, float(ago % 7)) for ago in range(1439, -1, -1)], "Temperature", 1)
        assert 350 <= drawing.count(",") <= 370
        assert "24 h ago" in drawing

    def test_a_constant_value_is_a_line_in_the_middle(self):
        assert limits([21.5, 21.5], 0.1) == (21.0, 22.0)
        assert "nan" not in svg([(0, 21.5)], "t", 1)
        assert "polyline" not in svg([], "t", 1)


@pytest.fixture(scope="module")
def browser():
    from playwright.sync_api import sync_playwright

    with sync_playwright() as playwright:
        browser = playwright.chromium.launch(executable_path="/usr/bin/chromium", args=["--no-sandbox"])
        yield browser
        browser.close()


@pytest.mark.chromium
class TestInChromium:
    @pytest.fixture
    def phone(self, serve, browser):
        page = serve()
        for minute in range(300):
            values = {"Temperature": 20 + minute % 60 / 10, "Humidity": 40.0, "Pressure": 1000 + minute / 100}
            moment = boot_ns() - (300 - minute) * MINUTE_NS
            page.history.take([sensor(0, boot_ns=moment, values=values)])
        tab = browser.new_page(viewport={"width": 360, "height": 740}, device_scale_factor=2)
        said = []
        tab.on("console", lambda message: said.append(message.text))
        tab.on("pageerror", lambda error: said.append(str(error)))
        asked = []
        tab.on("request", lambda request: asked.append(request.url))
        tab.goto("http://{}:{}/".format(*page.address))
        yield tab, page, said, asked
        tab.close()

    def test_it_fits_a_phone_asks_nobody_else_and_axe_finds_nothing(self, phone):
        from axe_playwright_python.sync_playwright import Axe

        tab, page, said, asked = phone
        assert tab.locator("svg").count() == 3
        assert tab.locator("polyline").count() == 3
        assert tab.evaluate("() => document.documentElement.scrollWidth") <= 360
        widths = tab.evaluate("() => [...document.querySelectorAll('svg')].map(s => s.getBoundingClientRect().width)")
        assert all(250 < width <= 360 for width in widths)
        assert {url.split("/")[2] for url in asked} == {"{}:{}".format(*page.address)}
        # axe itself is injected by the test, past the page's policy
        results = Axe().run(tab)
        assert results.violations_count == 0, results.generate_report()
        assert said == []

    def test_no_value_is_cut_or_written_over_another_at_any_width(self, phone):
        tab, page, _, _ = phone
        values = {"Pressure": 1013.2, "PressureSeaLevel": 1041.37, "GasResistance": 102_400_000, "VPD": 1.5, "CO2": 812}
        page.snapshot = lambda: snapshot(sensors=[sensor(boot_ns(), values=values)])
        for width in (390, 800, 1200, 1440):
            tab.set_viewport_size({"width": width, "height": 900})
            tab.evaluate("() => refresh()")
            boxes = tab.evaluate(
                """() => [...document.querySelectorAll(".values dd")].map((d) => {
                    const range = document.createRange();
                    range.selectNodeContents(d);
                    const { left, top, right } = range.getBoundingClientRect();
                    return [left, top, right, d.closest("section").getBoundingClientRect().right];
                })"""
            )
            assert len(boxes) == len(values)
            assert all(right <= end for _, _, right, end in boxes)
            assert all(a[2] < b[0] for a, b in itertools.pairwise(boxes) if b[0] > a[0])

    def test_the_value_under_the_pointer_is_shown_and_stays_when_the_page_is_made_anew(self, phone):
        tab, _, _, _ = phone
        tab.locator(".charts svg").first.hover(position={"x": 160, "y": 30})
        shown = tab.locator(".pointer text").text_content()
        assert re.fullmatch(r"2\d\.\d\d °C, 3 h \d+ min ago", shown)
        tab.evaluate("() => refresh()")
        assert tab.locator(".pointer text").text_content() == shown
        tab.mouse.move(5, 5)
        assert tab.locator(".pointer").count() == 0

    @pytest.mark.slow
    def test_it_says_so_when_the_agent_is_gone(self, phone):
        tab, page, _, _ = phone
        page.close()
        tab.evaluate("() => refresh()")
        assert "no answer from the agent" in tab.locator(".verdict").inner_text()
