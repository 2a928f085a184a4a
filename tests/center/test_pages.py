"""The pages as a user walks them, with the embedded store and Flask's client."""

from __future__ import annotations

import contextlib
import gzip
import html
import os
import re
import tomllib
from dataclasses import replace

import pytest

from agent.util.secret import Secret
from center.app import create_app
from center.context import EXTENSION
from center.pages import presentation
from center.pages.admin import safe_target
from center.pages.dashboard import window_s, with_gaps
from center.pages.states import judge
from center.pages.virtual import DAYS, point_at
from center.security import hash_password
from center.stores.telemetry import DAY_NS, Point
from center.times import now_ns
from tests.center_helpers import embedded_settings, influx_settings, points_of

PASSWORD = "correct horse battery"
PAGES = ["/", "/devices", "/virtual", "/query", "/write", "/buckets", "/create", "/enrollment-keys", "/help"]


# Without an InfluxDB there is nothing to skip here: tests/center/test_stores.py says how to name one.
STORES = ["embedded", pytest.param("influxdb", marks=pytest.mark.influxdb)]


@pytest.fixture(params=STORES if os.environ.get("INFLUXDB_V2_URL") else STORES[:1])
def app(request, tmp_path):
    """The center over either store; InfluxDB where one is named by the environment."""
    with contextlib.ExitStack() as stack:
        embedded = request.param == "embedded"
        settings = embedded_settings(tmp_path) if embedded else stack.enter_context(influx_settings())
        app = create_app(settings)
        app.config["WTF_CSRF_ENABLED"] = False  # its own test switches it on
        yield app
        app.extensions[EXTENSION].close()


@pytest.fixture
def center(app):
    return app.extensions[EXTENSION]


@pytest.fixture
def client(app):
    return app.test_client()


@pytest.fixture
def pi_7(center):
    """A registered device with an hour of weather."""
    center.registry.register("pi-7", administrator=True)
    measured(center, "pi-7")
    return "pi-7"


def measured(center, device_id, minutes=60, ago_s=0):
    """Minutes of weather, the last of them `ago_s` seconds ago."""
    last = now_ns() // 10**9 - ago_s
    center.telemetry.write([point_at(device_id, last - 60 * i) for i in range(minutes)])


def written(client, token, line=""):
    """The status of a write to the embedded store's endpoint."""
    headers = {"Authorization": f"Token {token}"}
    return client.post("/api/v2/write?org=iot-center&bucket=iot_center", data=line, headers=headers).status_code


def text_of(answer):
    """What a page says, without its tags."""
    return " ".join(html.unescape(re.sub(r"<[^>]+>", " ", answer.text)).split())


@pytest.mark.parametrize("path", [*PAGES, "/dashboards"])
def test_an_empty_center_has_every_page_and_says_which_store_it_is(client, center, path):
    answer = client.get(path)
    assert answer.status_code == 200
    assert ("Embedded store" if center.settings.embedded else "InfluxDB") in text_of(answer)


@pytest.mark.parametrize(
    ("path", "advice"),
    [
        ("/", "No device yet"),
        ("/devices", "Create device"),
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


def test_assets_are_gzipped_named_by_their_content_and_cached_for_ever(client, pi_7):
    names = re.findall(r'"(/assets/[^"]+)"', client.get("/dashboards/pi-7").text)
    assert any(name.endswith("/plotly.js") for name in names)
    for name in set(names):
        zipped = client.get(name, headers={"Accept-Encoding": "gzip"})
        assert zipped.headers["Content-Encoding"] == "gzip"
        assert "immutable" in zipped.headers["Cache-Control"]
        assert gzip.decompress(zipped.data) == client.get(name).data
    assert "plotly.js" not in client.get("/devices").text
    assert client.get("/assets/000000000000/app.css").status_code == 404
    assert client.get("/assets/x/../../../../etc/passwd").status_code == 404


# ---------- home and devices


def test_home_says_what_is_live_what_is_silent_and_what_was_refused(client, center, pi_7):
    for name in ("attic", "balcony"):
        center.registry.register(name, administrator=True)
    measured(center, "attic", ago_s=3 * 3600)
    measured(center, "stranger")
    tags = {"clientId": "pi-7", "device": "pi-7"}
    health = {"rejected": 3, "pending": 0, "disk_free": 12_300_000_000, "uptime": 7300.5, "clock_good": 1}
    center.telemetry.write([Point("agent", tags, health, now_ns())])
    page = text_of(client.get("/"))
    assert "3 registered" in page
    assert re.search(r"Live 1 heard of .* Silent 1 nothing .* Waiting 1 ", page)
    assert "Silent attic last point 3 h ago" in page
    assert "pi-7 3 points refused by the server" in page
    assert "Writing without a registration stranger" in page
    agent = text_of(client.get("/devices/pi-7"))
    for said in ("Refused by the server 3 points", "Free on disk 12.3 GB", "Agent running for 2 h", "synchronised yes"):
        assert said in agent


def test_the_list_shows_state_sensor_last_values_and_a_sparkline(client, center, pi_7):
    center.registry.register("balcony", administrator=True)
    answer = client.get("/devices")
    page = text_of(answer)
    assert re.search(r"pi-7 virtual_bme280 Live Temperature \u2212?[\d.]+ °C Humidity [\d.]+ %RH", page)
    assert "balcony Waiting for data none yet never" in page
    assert 'aria-label="Temperature from ' in answer.text


def test_the_list_is_searched_and_paged(client, center):
    for i in range(60):
        center.registry.register(f"pi-{i:02}", administrator=True)
    first = text_of(client.get("/devices"))
    assert "60 devices" in first
    assert "Page 1 of 2" in first
    assert "pi-59" not in first
    assert "pi-59" in text_of(client.get("/devices?page=2"))
    assert "No device has “nothing” in its id" in text_of(client.get("/devices?search=nothing"))
    assert "10 devices with “pi-3”" in text_of(client.get("/devices?search=pi-3"))


def test_the_device_page_shows_last_values_with_units_a_summary_and_its_configuration(client, pi_7):
    page = text_of(client.get("/devices/pi-7"))
    for unit in ("°C", "%RH", "hPa", "ppm", "ppb"):
        assert unit in page
    assert re.search(r"Temperature \u2212?[\d.]+ °C \u2212?[\d.]+ °C \u2212?[\d.]+ °C 60 virtual_bme280", page)
    assert "Measures every 10 s" in page
    assert "Location 50.08740 ° , 14.40720 °" in page


def test_a_device_that_is_not_there_says_so(client):
    answer = client.get("/devices/pi-9")
    assert answer.status_code == 404
    assert "No device pi-9" in text_of(answer)
    assert client.get("/dashboards/pi-9").status_code == 404
    assert client.get("/devices/%2e%2e").status_code == 404


def test_integers_of_a_writer_that_tags_only_device_are_shown(client, center):
    center.telemetry.write([Point("environment", {"device": "python-client"}, {"Temperature": 21}, now_ns())])
    assert "21.00 °C" in text_of(client.get("/devices/python-client"))
    assert client.get("/dashboards/python-client").status_code == 200


def test_points_of_a_writer_that_tags_only_clientid_are_shown_as_text_whatever_they_hold(client, center):
    fields = {"Temperature": 21.5, "Mode <b>": "on"}
    center.telemetry.write([Point("environment", {"clientId": "browser"}, fields, now_ns())])
    answer = client.get("/devices/browser")
    assert "Not registered" in text_of(answer)
    assert "21.50 °C" in text_of(answer)
    assert "Mode &lt;b&gt;" in answer.text
    assert "<b>" not in answer.text
    assert client.get("/dashboards/browser").status_code == 200


def test_creating_a_device_shows_a_working_token_once_with_a_ready_agent_toml(client, center):
    answer = client.post("/create", data={"device_id": " greenhouse-3 "})
    assert answer.status_code == 201
    assert answer.headers["Cache-Control"] == "no-store"
    token = re.search(r'id="token" readonly value="([^"]+)"', answer.text)[1]
    config = tomllib.loads(html.unescape(re.search(r"<code>(\[device\].*?)</code>", answer.text, re.DOTALL)[1]))
    assert config["device"]["id"] == "greenhouse-3"
    assert config["influxdb"]["token"] == token
    target = config["influxdb"]
    assert target["bucket"] == center.telemetry.bucket
    if center.settings.embedded:
        line = "environment,clientId=greenhouse-3 Temperature=20.5"
        assert written(client, token, line) == 204
        assert center.telemetry.count("greenhouse-3") == 1
    for path in ("/devices/greenhouse-3", "/devices", "/create"):
        assert token not in client.get(path).text


@pytest.mark.parametrize("bad", ["", "..", "a b", "x" * 65, "pi/7", "<script>"])
def test_an_id_no_device_can_have_is_refused_with_what_would_be_right(client, center, bad):
    answer = client.post("/create", data={"device_id": bad})
    assert answer.status_code == 400
    assert "aria-invalid" in answer.text
    assert center.registry.devices().total == 0


def test_a_registered_device_is_not_created_again(client, pi_7):
    answer = client.post("/create", data={"device_id": "pi-7"})
    assert answer.status_code == 400
    assert "registered already" in text_of(answer)


def test_a_new_token_ends_the_old_one(client, center):
    old = center.registry.register("pi-7", administrator=True).token.reveal()
    answer = client.post("/devices/pi-7/token")
    new = re.search(r'id="token" readonly value="([^"]+)"', answer.text)[1]

    assert new != old
    if center.settings.embedded:
        assert (written(client, old), written(client, new)) == (401, 204)


def test_removing_a_device_keeps_its_measurements(client, center, pi_7):
    answer = client.post("/devices/pi-7/remove", follow_redirects=True)
    assert "pi-7 is removed" in text_of(answer)
    assert center.registry.device("pi-7") is None
    assert center.telemetry.count("pi-7") == 60
    assert "was not registered any more" in text_of(client.post("/devices/pi-7/remove", follow_redirects=True))


# ---------- dashboard


def test_the_dashboard_aggregates_to_the_width_of_the_screen(client, center, pi_7):
    measured(center, "pi-7", minutes=3000)
    series = client.get("/dashboards/pi-7/series.json?range=24h&width=1000&field=Temperature").get_json()
    assert series["every"] == 120
    assert [c["field"] for c in series["curves"]] == ["Temperature"]
    assert 715 <= len(series["curves"][0]["t"]) <= 725
    answers = {"mean": client.get("/dashboards/pi-7/series.json?range=24h&width=200&field=Temperature").get_json()}
    same = f"start={answers['mean']['start']}&stop={answers['mean']['stop']}&width=200&field=Temperature"
    for fn in ("min", "max"):
        answers[fn] = client.get(f"/dashboards/pi-7/series.json?{same}&fn={fn}").get_json()
    mean, low, high = (answers[fn]["curves"][0] for fn in ("mean", "min", "max"))
    assert mean["t"] == low["t"] == high["t"]
    assert all(a <= v <= b for a, v, b in zip(low["v"], mean["v"], high["v"], strict=True))
    assert client.get(f"/dashboards/pi-7/series.json?{same}&fn=evil").status_code == 400
    stop = now_ns() // 10**6
    zoomed = client.get(f"/dashboards/pi-7/series.json?start={stop - 300_000}&stop={stop}&field=CO2").get_json()
    assert zoomed["every"] is None
    assert 4 <= len(zoomed["curves"][0]["t"]) <= 6
    assert client.get("/dashboards/pi-7/series.json?start=5&stop=1").status_code == 400


def test_the_minimum_a_device_sends_shades_the_chart_of_its_mean_and_has_no_chart_of_its_own(client, center):
    now = now_ns() // 10**9 * 10**9
    tags = {"clientId": "pi-7", "device": "pi-7"}
    center.telemetry.write(
        [
            Point("environment", tags, {"Temperature": 20.0, "Temperature_min": 15.0, "Temperature_max": 30.0}, t)
            for t in range(now - 3600 * 10**9, now, 60 * 10**9)
        ]
    )
    page = client.get("/dashboards/pi-7").text
    assert page.count('class="chart"') == 1
    url = "/dashboards/pi-7/series.json?range=6h&width=100&field=Temperature"
    for fn, value in (("mean", 20.0), ("min", 15.0), ("max", 30.0)):
        (curve,) = client.get(f"{url}&fn={fn}").get_json()["curves"]
        assert (curve["field"], set(curve["v"])) == ("Temperature", {value})


def test_several_sensors_of_a_kind_have_a_curve_each(client, center):
    for name in ("bench", "window"):
        tags = {"clientId": "pi-7", "device": "pi-7", "sensor": name}
        center.telemetry.write([Point("environment", tags, {"Temperature": 20.0}, now_ns())])
    series = client.get("/dashboards/pi-7/series.json?range=1h&field=Temperature").get_json()
    assert [c["sensor"] for c in series["curves"]] == ["bench", "window"]
    page = text_of(client.get("/devices/pi-7"))
    assert "Temperature bench" in page
    assert "Temperature window" in page


def test_live_values_come_with_their_decimals_and_the_state(client, pi_7):
    live = client.get("/dashboards/pi-7/live.json").get_json()
    assert live["state"] == {"name": "live", "label": "Live"}
    assert re.fullmatch(r"\u2212?\d+\.\d\d", live["last"]["Temperature"]["text"])
    assert re.fullmatch(r"\d+", live["last"]["CO2"]["text"])


def test_the_csv_has_a_column_for_each_field_with_its_unit(client, pi_7):
    answer = client.get("/dashboards/pi-7/data.csv?range=1h&width=100")
    head, *rows = answer.text.splitlines()
    assert head == "time,Temperature (°C),Humidity (%RH),Pressure (hPa),CO2 (ppm),TVOC (ppb),Lat (°),Lon (°)"
    assert answer.headers["Content-Disposition"] == 'attachment; filename="pi-7.csv"'
    assert 58 <= len(rows) <= 62
    assert rows[0].count(",") == 7


def test_a_csv_holds_no_formula_that_a_device_could_have_sent(client, center):
    tags = {"device": "evil", "sensor": "=cmd()"}
    center.telemetry.write([Point("environment", tags, {"=x": 1.0, "Note": "@SUM(A1)"}, now_ns())])
    answer = client.get("/query?device=evil&range=1h&window=none&fn=last&format=csv").text
    assert not re.search(r"(^|,)[=+@]", answer, re.MULTILINE)


def test_windows_fit_the_screen():
    assert window_s(600, 1000) is None
    assert window_s(3600, 1000) == 5
    assert window_s(30 * 86_400, 1000) == 3600
    assert window_s(365 * 86_400, 1000) == 43_200


def test_a_line_breaks_where_points_are_missing():
    assert with_gaps([0, 10, 20, 100], [1, 2, 3, 4], 10) == ([0, 10, 20, 21, 100], [1, 2, 3, None, 4])
    assert with_gaps([], [], 10) == ([], [])


# ---------- data


def test_a_query_shows_its_flux_its_rows_and_its_csv(client, pi_7):
    answer = client.get("/query?device=pi-7&field=Temperature&range=24h&window=5m&fn=max")
    page = text_of(answer)
    assert "aggregateWindow(every: 5m, fn: max" in page
    assert 'r._field == "Temperature"' in page
    assert re.search(r"Time UTC Temperature °C 20\d\d-", page)
    csv_url = html.unescape(re.search(r'href="([^"]+)" download', answer.text)[1])
    assert client.get(csv_url).text.startswith("time,Temperature (°C)")


def test_a_query_counts_without_a_unit(client, pi_7):
    page = text_of(client.get("/query?device=pi-7&field=Temperature&range=24h&window=1d&fn=count"))
    assert "°C" not in page


@pytest.mark.parametrize(
    ("path", "status"),
    [
        ("/devices?page=99999999999999999999", 200),
        ("/dashboards/pi-7/series.json?start=0&stop=9999999999999", 400),
        ("/dashboards/pi-7/series.json?range=1h&width=99999999999999999999", 200),
    ],
)
def test_a_number_that_nothing_can_count_to_is_no_error_of_the_center(client, pi_7, path, status):
    assert client.get(path).status_code == status


def test_a_query_that_cannot_be_says_why(client, pi_7):
    assert "No point in this range" in text_of(client.get("/query?device=nobody&range=1h"))
    assert "Use 1 to 64 letters" in text_of(client.get("/query?device=no/body"))
    assert "at most 50000 windows" in text_of(client.get("/query?device=pi-7&range=1y&window=10s"))


def test_raw_flux_is_run_where_there_is_influxdb(client, center, pi_7):
    flux = f'from(bucket: "{center.telemetry.bucket}") |> range(start: -2h) |> filter(fn: (r) => r._field == "CO2")'
    answer = client.post("/query/flux", data={"flux": f"{flux} |> count()"})
    if center.settings.embedded:
        assert answer.status_code == 400
        assert "InfluxDB" in text_of(answer)
        return
    assert "Table 1 1 rows" in text_of(answer)
    assert '<td class="nowrap">60</td>' in answer.text
    wrong = client.post("/query/flux", data={"flux": "from(bucket"})
    assert wrong.status_code == 400


def test_a_point_written_by_hand_is_there_in_the_types_of_the_data_model(client, center):
    data = {"device": "pi-7", "Temperature": "21", "CO2": "400", "time": "2026-01-02T03:04:05Z"}
    assert "1 point is stored" in text_of(client.post("/write", data=data, follow_redirects=True))
    points = points_of(center.telemetry, "pi-7")
    assert points == {1_767_323_045_000_000_000: {"Temperature": 21.0, "CO2": 400}}
    assert isinstance(points[1_767_323_045_000_000_000]["Temperature"], float)


@pytest.mark.parametrize(
    ("data", "said"),
    [
        ({"device": "pi-7"}, "Give at least one value"),
        ({"device": "pi-7", "Temperature": "90"}, "From -40 to 85 °C"),
        ({"device": "pi-7", "Temperature": "nan"}, "From -40 to 85 °C"),
        ({"device": "pi-7", "Temperature": "20", "time": "yesterday"}, "is not a time"),
        ({"device": "pi-7", "Temperature": "20", "time": "9999-12-31T00:00:00Z"}, "too far away"),
        ({"device": "p i", "Temperature": "20"}, "Use 1 to 64"),
        ({"lines": "environment,clientId=x"}, "unable to parse"),
        ({"lines": ""}, "Write at least one line"),
    ],
)
def test_what_cannot_be_written_says_what_would_be_right(client, center, data, said):
    answer = client.post("/write", data=data)
    assert answer.status_code == 400
    assert said in text_of(answer)
    assert center.telemetry.count("pi-7") == 0


def test_what_is_wrong_is_said_at_its_field(client):
    assert 'id="time-error"' in client.post("/write", data={"device": "pi-7", "CO2": "400", "time": "soon"}).text
    assert 'id="Temperature-error"' in client.post("/write", data={"device": "pi-7"}).text


def test_lines_written_by_hand_are_there(client, center):
    lines = "environment,device=pi-7 Temperature=1 1000000000\r\nenvironment,device=pi-7 Temperature=2 2000000000\r\n"
    assert "2 points are stored" in text_of(client.post("/write", data={"lines": lines}, follow_redirects=True))
    assert center.telemetry.count("pi-7") == 2


def test_missing_data_of_the_virtual_device_is_written_in_batches_and_once(client, center, monkeypatch):
    now = now_ns()
    monkeypatch.setattr("center.pages.virtual.now_ns", lambda: now)
    headers = {"Accept": "application/json"}
    states, start = [], 0
    while not states or not states[-1]["finished"]:
        states.append(client.post("/virtual/fill", data={"from": start}, headers=headers).get_json())
        start = states[-1]["next"]
    assert len(states) == DAYS
    assert [s["done"] for s in states] == [1440 * (i + 1) for i in range(DAYS)]
    assert center.telemetry.count("virtual_device") == DAYS * 1440
    assert center.registry.device("virtual_device") is not None
    again = client.post("/virtual/fill", data={"from": states[-2]["next"]}, headers=headers).get_json()
    assert again["written"] == 0
    assert "Nothing was missing" in text_of(client.post("/virtual/fill", follow_redirects=True))


def test_the_buckets_page_names_what_each_bucket_holds(client, center):
    assert f"{center.telemetry.bucket} Measurements keeps data for ever" in text_of(client.get("/buckets"))


# ---------- the administrator


@pytest.fixture
def guarded(app, center):
    center.registry.set_password_hash(hash_password(Secret(PASSWORD)))
    return app.test_client()


@pytest.mark.parametrize("path", ["/create", "/write", "/enrollment-keys"])
def test_changing_things_needs_a_login_and_comes_back_afterwards(guarded, path):
    answer = guarded.get(path)
    assert answer.status_code == 302
    assert answer.location == f"/login?next={path}"
    answer = guarded.post(answer.location, data={"password": PASSWORD})
    assert (answer.status_code, answer.location) == (302, path)
    assert guarded.get(path).status_code == 200


@pytest.mark.parametrize(
    "path", ["/create", "/write", "/virtual/fill", "/devices/pi-7/remove", "/devices/pi-7/token", "/query/flux"]
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


def test_logging_out_ends_the_session(guarded):
    guarded.post("/login", data={"password": PASSWORD})
    assert "Log out" in text_of(guarded.get("/"))
    guarded.post("/logout")
    assert guarded.get("/create").status_code == 302


def test_wrong_passwords_are_refused_and_then_have_to_wait(guarded):
    for _ in range(10):
        assert guarded.post("/login", data={"password": "wrong"}).status_code == 400
    answer = guarded.post("/login", data={"password": PASSWORD})
    assert answer.status_code == 429
    assert answer.headers["Retry-After"] == "60"
    assert "Wait a minute" in text_of(answer)


def test_a_new_password_ends_the_sessions_of_the_old_one(guarded, center):
    guarded.post("/login", data={"password": PASSWORD})
    center.registry.set_password_hash(hash_password(Secret("another long password")))
    assert guarded.get("/create").status_code == 302


@pytest.mark.parametrize("target", ["//evil.example", "https://evil.example", "/\\evil.example", "/a\tb", "", None])
def test_a_login_leads_nowhere_but_back(target):
    assert safe_target(target) is None
    assert safe_target("/devices?page=2") == "/devices?page=2"


@pytest.mark.parametrize(
    "path", ["/create", "/write", "/enrollment-keys", "/devices/pi-7/remove", "/virtual/fill", "/logout"]
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
    assert client.post("/enrollment-keys", data={"uses": "0", "days": "999"}).status_code == 400


def test_a_store_that_does_not_answer_is_a_page_not_a_traceback(app, client, center, monkeypatch):
    from center.errors import StoreError

    class Gone:
        embedded = False
        bucket = "iot_center"

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


# ---------- presentation


def test_numbers_have_the_decimals_of_their_field():
    assert presentation.number(-3.456, "Temperature") == "\N{MINUS SIGN}3.46"
    assert presentation.number(1013.2, "Pressure") == "1\u202f013.20"
    assert presentation.number(412, "CO2") == "412"
    assert presentation.number(None) == "\N{EN DASH}"
    assert presentation.number(86_400) == "86\u202f400"
    assert presentation.number(0.5, "ratio") == "0.5"
    assert presentation.number("on", "mode") == "on"


@pytest.mark.parametrize(
    ("seconds", "said"),
    [
        (0, "just now"),
        (59, "59 s ago"),
        (60, "1 min ago"),
        (7200, "2 h ago"),
        (86_400, "1 day ago"),
        (-604_790, "in 7 days"),
    ],
)
def test_times_are_said_as_people_say_them(seconds, said):
    assert presentation.ago(seconds) == said


def test_a_sparkline_breaks_at_a_gap_and_a_flat_course_stays_flat():
    drawn = presentation.sparkline([(t, 20.0) for t in (0, 1, 2, 50, 51, 52)], "Temperature", 0, 60)
    line = re.search(r'class="line" d="([^"]+)"', drawn)[1]
    assert line.count("M") == 2
    assert {pair.split()[1] for pair in re.findall(r"[\d.]+ [\d.]+", line)} == {"15.0"}
    assert "no course yet" in presentation.sparkline([], "Temperature", 0, 60)


def test_a_device_is_waiting_then_live_then_silent():
    now = 1000 * DAY_NS
    assert judge(None, now, 300).name == "waiting"
    assert judge(now - 299 * 10**9, now, 300).name == "live"
    assert judge(now - 301 * 10**9, now, 300).name == "silent"
    assert judge(now, now, 300, registered=False).name == "unregistered"
