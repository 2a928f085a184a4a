"""The curves that charts draw: of several devices and sensors, with their bands, in whole and as what came since."""

from __future__ import annotations

import pytest

from center.stores.telemetry import Point
from tests.center_helpers import HOUR, SECOND

START = 1_767_225_600 * SECOND  # 2026-01-01
MS = 1_000_000


def write(center, device, values, *, step=60 * SECOND, **tags):
    points = [
        Point("environment", {"clientId": device, "device": device, **tags}, fields, START + n * step)
        for n, fields in enumerate(values)
    ]
    center.telemetry.write(points)


@pytest.fixture
def two(center):
    """Two devices, one of them with two sensors; Temperature 0 … 59 and 100 … 159, once a minute."""
    write(center, "a", [{"Temperature": float(n), "Humidity": 50.0} for n in range(60)], TemperatureSensor="bme280")
    write(center, "b", [{"Temperature": 100.0 + n} for n in range(60)], sensor="attic", TemperatureSensor="bme280")
    write(center, "b", [{"Temperature": -5.0}], sensor="cellar", TemperatureSensor="bme280")


HOUR_URL = f"start={START // MS}&stop={(START + HOUR) // MS}"


def test_devices_and_sensors_are_compared_in_one_answer(client, two):
    url = f"/series.json?device=a&device=b&field=Temperature&every=600&{HOUR_URL}"
    answer = client.get(url).get_json()
    assert (answer["start"], answer["stop"], answer["from"]) == (START // MS, (START + HOUR) // MS, START // MS)
    assert (answer["every"], answer["every_text"], answer["again"], answer["left_out"]) == (600, "10 min", None, 0)
    assert [(c["device"], c["field"], c["sensor"], len(c["t"])) for c in answer["curves"]] == [
        ("a", "Temperature", "bme280", 6),
        ("b", "Temperature", "attic", 6),
        ("b", "Temperature", "cellar", 1),
    ]
    first = answer["curves"][0]
    assert first["t"][0] == START // MS + 600_000
    assert (first["v"][0], first["low"][0], first["high"][0], first["n"][0]) == (4.5, 0.0, 9.0, 10)
    assert first["min"] == [START // MS + 600_000, 0.0]
    assert first["max"] == [(START + HOUR) // MS, 59.0]
    assert first["mean"] == 29.5
    one = client.get(f"{url}&sensor=cellar").get_json()["curves"]
    assert [(c["device"], c["sensor"], c["v"]) for c in one] == [("b", "cellar", [-5.0])]


def test_the_mean_of_a_curve_is_that_of_its_points_not_of_its_windows(client, center):
    write(center, "a", [{"Temperature": 10.0}] * 9)
    center.telemetry.write([Point("environment", {"device": "a"}, {"Temperature": 20.0}, START + 30 * 60 * SECOND)])
    (curve,) = client.get(f"/series.json?device=a&every=600&{HOUR_URL}").get_json()["curves"]
    assert curve["mean"] == 11.0
    assert [v for v in curve["v"] if v is not None] == [10.0, 20.0]


def test_a_small_value_is_not_rounded_to_nothing(client, center):
    write(center, "a", [{"Leak": 1.23456e-6, "Temperature": 20.123456}])
    drawn = {c["field"]: c for c in client.get(f"/series.json?device=a&every=600&{HOUR_URL}").get_json()["curves"]}
    leak = drawn["Leak"]
    assert (leak["v"], leak["low"], leak["mean"]) == ([1.235e-6], [1.235e-6], 1.235e-6)
    assert drawn["Temperature"]["v"] == [20.123]


def test_every_point_is_drawn_and_a_gap_breaks_all_parts_of_a_curve(client, center):
    write(center, "a", [{"Temperature": 1.0}] * 3)
    center.telemetry.write([Point("environment", {"device": "a"}, {"Temperature": 9.0}, START + HOUR - SECOND)])
    (curve,) = client.get(f"/series.json?device=a&every=0&{HOUR_URL}").get_json()["curves"]
    assert (curve["v"], curve["t"][3] - curve["t"][2]) == ([1.0, 1.0, 1.0, None, 9.0], 1)
    assert curve["max"] == [(START + HOUR - SECOND) // MS, 9.0]
    assert "low" not in curve
    (curve,) = client.get(f"/series.json?device=a&every=60&{HOUR_URL}").get_json()["curves"]
    assert all(curve[part][3] is None and len(curve[part]) == 5 for part in ("v", "low", "high", "n"))


def test_a_later_answer_has_only_what_changed_since(client, two):
    for every, stop_min in ((600, 35), (0, 35)):
        url = f"/series.json?device=a&device=b&field=Temperature&every={every}&start={START // MS}"
        stop = START // MS + stop_min * 60_000
        before = client.get(f"{url}&stop={stop}").get_json()
        later = client.get(f"{url}&stop={(START + HOUR) // MS}&since={before['stop']}").get_json()
        whole = client.get(f"{url}&stop={(START + HOUR) // MS}").get_json()
        assert later["start"] == before["start"]
        assert sum(len(c["t"]) for c in later["curves"]) < sum(len(c["t"]) for c in whole["curves"])
        merged = {}
        for answer in (before, later):
            for curve in answer["curves"]:
                kept = merged.setdefault((curve["device"], curve["sensor"]), {})
                if answer is later:
                    kept = {t: v for t, v in kept.items() if t <= later["from"]}
                merged[curve["device"], curve["sensor"]] = kept | dict(zip(curve["t"], curve["v"], strict=True))
        expected = {(c["device"], c["sensor"]): dict(zip(c["t"], c["v"], strict=True)) for c in whole["curves"]}
        assert merged == expected


def test_all_time_starts_before_the_first_point(client, two):
    answer = client.get("/series.json?device=a&field=Temperature&range=all").get_json()
    assert START - 7 * 24 * HOUR < answer["start"] * MS <= START
    assert sum(answer["curves"][0]["n"]) == 60


def test_all_time_of_what_is_computed_begins_with_what_it_is_computed_from(client, two):
    answer = client.get("/series.json?device=a&field=DewPoint&range=all").get_json()
    assert START - 7 * 24 * HOUR < answer["start"] * MS <= START
    assert [(c["field"], len(c["t"]) > 0) for c in answer["curves"]] == [("DewPoint", True)]
    assert len(client.get("/series.csv?device=a&field=DewPoint&range=all").text.splitlines()) > 1


def test_the_minimum_that_a_device_sends_is_the_edge_of_the_band(client, center):
    write(center, "a", [{"Temperature": 20.0, "Temperature_min": 15.0, "Temperature_max": 30.0}] * 20)
    for fields in ("", "&field=Temperature"):
        (curve,) = client.get(f"/series.json?device=a&every=600&{HOUR_URL}{fields}").get_json()["curves"]
        assert (curve["field"], curve["v"], curve["low"], curve["high"]) == (
            "Temperature",
            [20.0] * 2,
            [15] * 2,
            [30] * 2,
        )
        assert (curve["min"][1], curve["max"][1]) == (15.0, 30.0)


def test_the_csv_says_device_and_sensor(client, two):
    head, *rows = client.get(f"/series.csv?device=a&device=b&every=3600&{HOUR_URL}").text.splitlines()
    assert head == "time,device,sensor,Temperature (°C),Humidity (%RH)"
    assert [row.split(",", 1)[1] for row in rows] == ["a,,29.5,50.0", "b,attic,129.5,", "b,cellar,-5.0,"]
    head, *rows = client.get(f"/series.csv?device=a&every=3600&{HOUR_URL}").text.splitlines()
    assert head == "time,Temperature (°C),Humidity (%RH)"


def test_the_csv_has_what_is_computed_where_it_is_named(client, two):
    head, first, *_ = client.get(f"/series.csv?device=a&every=600&field=DewPoint&{HOUR_URL}").text.splitlines()
    assert head == "time,DewPoint (°C)"
    (curve,) = client.get(f"/series.json?device=a&every=600&field=DewPoint&{HOUR_URL}").get_json()["curves"]
    assert round(float(first.split(",")[1]), 3) == curve["v"][0]


def test_a_query_compares_too(client, two):
    asked = "device=a,+b&field=Temperature&since=2026-01-01T00:00:00Z&to=2026-01-01T01:00:00Z&window=1h"
    page = client.get(f"/query?{asked}").text
    assert page.count("<tr><td") == 3
    assert "r.clientId == &#34;b&#34; or r.device == &#34;b&#34;" in page
    rows = client.get(f"/query?{asked}&format=csv").text.splitlines()
    assert rows[0] == "time,device,sensor,Temperature (°C)"
    assert rows[1:] == [f"2026-01-01T01:00:00Z,{row}" for row in ("a,,29.5", "b,attic,129.5", "b,cellar,-5.0")]
    curves = client.get(f"/query?{asked}&format=json").get_json()["curves"]
    assert [(c["device"], c["sensor"], c["v"]) for c in curves] == [
        ("a", "bme280", [29.5]), ("b", "attic", [129.5]), ("b", "cellar", [-5.0])
    ]  # fmt: skip


@pytest.mark.parametrize(
    ("asked", "why"),
    [
        ("", "name 1 to 8 devices"),
        ("&".join(f"device=d{n}" for n in range(9)), "name 1 to 8 devices"),
        ("device=no/body", "no device id"),
        ("device=a&start=0&stop=99999999999&every=1", "at most 50000 windows"),
        ("device=a&fn=evil", "fn is one of"),
        ("device=a&every=-5", "every is longer"),
    ],
)
def test_what_is_too_much_or_makes_no_sense_is_refused(client, asked, why):
    answer = client.get(f"/series.json?{asked}")
    assert answer.status_code == 400
    assert why in answer.get_json()["message"]


def test_more_points_than_a_chart_shows_are_drawn_by_windows(client, center, monkeypatch):
    monkeypatch.setattr("center.pages.series.MAX_POINTS", 50)
    monkeypatch.setattr("center.pages.series.MAX_CURVES", 2)
    write(center, "a", [{f"F{n}": 1.0 for n in range(3)}] * 60)
    answer = client.get(f"/series.json?device=a&every=0&{HOUR_URL}").get_json()
    assert (answer["every"], answer["left_out"], len(answer["curves"])) == (5, 1, 2)
    assert answer["curves"][0]["low"] == answer["curves"][0]["v"]
