"""What the center computes from temperature and humidity: of each sensor for itself, only of what was measured."""

from __future__ import annotations

import pytest

from agent.sensing.derived import dew_point
from center.pages.computed import computable, with_computed
from center.stores.telemetry import Curve, Point, Sensor
from center.times import now_ns

BENCH, WINDOW = Sensor("bench"), Sensor("window")


def curve(field, sensor, *values):
    return Curve(field, sensor, tuple(range(len(values))), values)


def test_each_sensor_has_a_dew_point_of_its_own_at_the_moments_that_have_both():
    curves = [
        curve("Temperature", BENCH, 20.0, 21.0, 22.0),
        curve("Humidity", BENCH, 50.0, 55.0),
        curve("Temperature", WINDOW, 5.0),
    ]
    (found,) = with_computed(curves, ("DewPoint",))
    assert (found.sensor, found.times_ns) == (BENCH, [0, 1])
    assert found.values == [dew_point(20.0, 50.0), dew_point(21.0, 55.0)]


def test_what_a_device_sends_itself_is_not_computed_and_what_no_formula_gives_is_left_out():
    sent = curve("DewPoint", BENCH, 9.0)
    air = [curve("Temperature", BENCH, 20.0), curve("Humidity", BENCH, 50.0)]
    assert with_computed([*air, sent], ("DewPoint",)) == [sent]
    assert with_computed([air[0], curve("Humidity", BENCH, 0.0)], ("DewPoint",)) == []
    assert with_computed(air, ("HeatIndex",)) == []  # below 27 °C there is none
    assert computable(["Temperature", "Humidity", "VPD"]) == ["DewPoint", "AbsoluteHumidity", "HeatIndex"]
    assert computable(["Temperature"]) == []


@pytest.mark.parametrize("every", ["width=100", "every=0"])
def test_a_computed_field_is_asked_for_like_one_that_was_measured(client, center, every):
    now = now_ns() // 10**9 * 10**9
    tags = {"clientId": "pi-7", "device": "pi-7", "sensor": "bench"}
    points = [
        Point("environment", tags, {"Temperature": 20.0, "Humidity": 50.0}, now - n * 10**9) for n in range(1, 60)
    ]
    center.telemetry.write(points)
    answer = client.get(f"/series.json?device=pi-7&range=1h&field=VPD&{every}").get_json()
    (found,) = answer["curves"]
    assert (found["field"], found["sensor"]) == ("VPD", "bench")
    assert set(found["v"]) == {1.1691}
    page = client.get("/dashboards/pi-7").text
    assert page.count("computed from temperature and humidity") == 4
