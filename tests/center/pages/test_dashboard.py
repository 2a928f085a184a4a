"""Dashboards: what the charts draw, live values, CSV."""

from __future__ import annotations

import re

from center.pages.series import gaps, window_s, with_gaps
from center.stores.telemetry import Point
from center.times import now_ns
from tests.center_helpers import measured, text_of


def test_the_dashboard_aggregates_to_the_width_of_the_screen(client, center):
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


def test_a_device_of_nothing_but_texts_is_not_said_to_have_written_nothing(client, center):
    center.telemetry.write([Point("environment", {"device": "door"}, {"Open": True, "Note": "hello"}, None)])
    page = text_of(client.get("/dashboards/door"))
    assert "What this device writes are no numbers" in page
    assert "has not written" not in page
    assert "<noscript>" in client.get("/dashboards/door").text


def test_nights_are_shaded_at_greenwich_and_on_the_equator_too(client, center):
    values = {"Temperature": 20.0, "Lat": 0.0, "Lon": 0.0}
    center.telemetry.write([Point("environment", {"device": "buoy"}, values, None)])
    for page in ("devices", "dashboards"):
        assert 'data-lat="0.0" data-lon="0.0"' in client.get(f"/{page}/buoy").text


def test_several_sensors_of_a_kind_have_a_curve_each(client, center):
    for name in ("bench", "window"):
        tags = {"clientId": "pi-7", "device": "pi-7", "sensor": name}
        center.telemetry.write([Point("environment", tags, {"Temperature": 20.0}, now_ns())])
    series = client.get("/dashboards/pi-7/series.json?range=1h&field=Temperature").get_json()
    assert [c["sensor"] for c in series["curves"]] == ["bench", "window"]
    page = text_of(client.get("/devices/pi-7"))
    assert "Temperature bench" in page
    assert "Temperature window" in page


def test_two_sensors_of_different_kinds_are_told_apart_everywhere(client, center):
    """One wrote 6.84 °C and one 14.14 °C: nowhere is anything between them."""
    second = 10**9
    now = now_ns() // second * second
    for kind, value in (("bme280", 6.84), ("sht4x", 14.14)):
        tags = {"clientId": "pi-7", "device": "pi-7", "TemperatureSensor": kind}
        center.telemetry.write(
            [Point("environment", tags, {"Temperature": value}, now - n * 60 * second) for n in range(30)]
        )
    both = {("bme280", 6.84), ("sht4x", 14.14)}
    series = client.get("/dashboards/pi-7/series.json?range=24h&width=200&field=Temperature").get_json()
    assert {(c["sensor"], *{v for v in c["v"] if v is not None}) for c in series["curves"]} == both
    live = client.get("/dashboards/pi-7/live.json").get_json()
    assert {(last["sensor"], last["value"]) for last in live["last"]} == both
    for path in ("/dashboards/pi-7/data.csv?range=24h", "/query?device=pi-7&range=24h&window=5m&format=csv"):
        rows = [line.split(",") for line in client.get(path).text.splitlines()]
        assert rows[0] == ["time", "sensor", "Temperature (°C)"]
        assert {(sensor, round(float(value), 9)) for _, sensor, value in rows[1:]} == both
    found = client.get("/api/devices/pi-7/measurements?every=1h").get_json()["series"]
    assert {(s["sensor"], s["sensorKind"], *{round(v, 9) for v in s["values"]}) for s in found} == {
        ("bme280", "bme280", 6.84),
        ("sht4x", "sht4x", 14.14),
    }
    for path in ("/", "/devices", "/devices/pi-7", "/dashboards/pi-7"):
        if path in {"/", "/devices"}:
            center.registry.register("pi-7", administrator=True)
        said = text_of(client.get(path))
        assert re.search(r"bme280 6\.84", said), path
        assert re.search(r"sht4x 14\.14", said), path


def test_live_values_come_with_their_decimals_and_the_state(client, pi_7):
    live = client.get("/dashboards/pi-7/live.json").get_json()
    assert live["state"] == {"name": "live", "label": "Live"}
    texts = {last["field"]: last["text"] for last in live["last"]}
    assert re.fullmatch(r"\u2212?\d+\.\d\d", texts["Temperature"])
    assert re.fullmatch(r"\d+", texts["CO2"])
    shown = re.findall(r'data-last="(\w+)" data-sensor="([^"]*)"', client.get("/dashboards/pi-7").text)
    assert {(last["field"], last["key"]) for last in live["last"]} >= set(shown) != set()


def test_one_of_two_sensors_that_falls_silent_leaves_the_other_live(client, center):
    now = now_ns()
    for kind, age in (("bme280", 3600), ("sht4x", 0)):
        tags = {"clientId": "pi-7", "device": "pi-7", "TemperatureSensor": kind}
        center.telemetry.write([Point("environment", tags, {"Temperature": 20.0}, now - age * 10**9)])
    (last,) = client.get("/dashboards/pi-7/live.json").get_json()["last"]
    shown = re.findall(r'data-last="Temperature" data-sensor="([^"]*)"', client.get("/dashboards/pi-7").text)
    assert last["key"] in shown
    assert len(set(shown)) == 2


def test_the_csv_has_a_column_for_each_field_with_its_unit(client, pi_7):
    answer = client.get("/dashboards/pi-7/data.csv?range=1h&width=100")
    head, *rows = answer.text.splitlines()
    assert head == "time,Temperature (°C),Humidity (%RH),Pressure (hPa),CO2 (ppm),TVOC (ppb),Lat (°),Lon (°)"
    assert answer.headers["Content-Disposition"] == 'attachment; filename="pi-7.csv"'
    assert 58 <= len(rows) <= 62
    assert rows[0].count(",") == 7


def test_a_csv_holds_no_formula_that_a_device_could_have_sent(client, center):
    tags = {"device": "evil", "sensor": "=cmd()"}
    center.telemetry.write([Point("environment", tags, {"=x": 1.0, "Note": "@SUM(A1)", "Open": True}, now_ns())])
    answer = client.get("/query?device=evil&range=1h&window=none&fn=last&format=csv").text
    assert not re.search(r"(^|,)[=+@]", answer, re.MULTILINE)
    assert answer.endswith(",true\n")  # as InfluxDB writes it


def test_windows_fit_the_screen():
    assert window_s(600, 1000) is None
    assert window_s(3600, 1000) == 5
    assert window_s(30 * 86_400, 1000) == 3600
    assert window_s(365 * 86_400, 1000) == 43_200


def test_a_line_breaks_where_points_are_missing():
    assert gaps([0, 10, 20, 100], 10) == {3}
    assert with_gaps([1, 2, 3, 4], {3}) == [1, 2, 3, None, 4]
    assert gaps([], 10) == gaps([5], 10) == set()
