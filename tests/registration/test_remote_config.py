"""What the center may change, and within which ranges. What wins: tests/sensing/test_sensors.py."""

import json

import pytest
from hypothesis import given
from hypothesis import strategies as st

from agent.config.settings import Location
from agent.registration.remote_config import RANGES, RemoteConfiguration, accept
from tests.fake_center import FIRST

OLD = RemoteConfiguration(measurement_interval=30.0, configuration_refresh=600.0, location=Location(1.0, 2.0))


def test_the_recorded_answer_is_taken_whole():
    found, refused = accept(FIRST, RemoteConfiguration())
    assert found == RemoteConfiguration(60.0, 3600.0, Location(50.0873254, 14.4071543))
    assert refused == ()


def test_what_the_center_does_not_say_stays():
    assert accept({}, OLD) == (OLD, ())


@pytest.mark.parametrize("value", [0, -1, 0.1, 86_401, 10**400, float("nan"), float("inf"), True, "60", [60], {}])
def test_an_interval_out_of_range_is_refused_and_the_old_one_stays(value):
    found, refused = accept({"measurement_interval": value}, OLD)
    assert found == OLD
    (text,) = refused
    assert "measurement_interval" in text
    assert "0.2 to 86400 s" in text
    assert len(text) < 200


def test_half_a_location_is_refused():
    found, refused = accept({"default_lat": 50.0}, OLD)
    assert found.location == OLD.location
    assert "come together" in refused[0]
    found, refused = accept({"default_lat": 91, "default_lon": 14}, OLD)
    assert found.location == OLD.location
    assert any(text.startswith("default_lat ") and ": 91 should be" in text for text in refused)


JSON = st.recursive(
    st.none() | st.booleans() | st.integers() | st.floats() | st.text(max_size=10),
    lambda inner: st.lists(inner, max_size=3) | st.dictionaries(st.text(max_size=5), inner, max_size=3),
    max_leaves=5,
)


@given(st.dictionaries(st.sampled_from([*RANGES, "report", "deadband", "offset", "other"]), JSON))
def test_no_answer_moves_a_value_out_of_its_range(answer):
    found, _ = accept(answer, OLD)
    said = found.said()
    assert all(RANGES[name][0] <= said[name] <= RANGES[name][1] for name in RANGES.keys() & said.keys())
    assert accept(json.loads(json.dumps(said)), RemoteConfiguration())[0] == found


def test_what_is_named_and_empty_is_said_no_more():
    old = RemoteConfiguration(30.0, location=Location(1.0, 2.0), report="mean", offset={"Temperature": 1.0})
    gone = dict.fromkeys(("default_lat", "default_lon", "report", "offset"))
    assert accept(gone, old) == (RemoteConfiguration(30.0), ())
    half, refused = accept({"default_lat": None, "default_lon": 14.0}, old)
    assert half == old
    assert "come together" in refused[0]


def test_each_value_of_a_table_is_checked_alone():
    old = RemoteConfiguration(offset={"Temperature": 1.0, "Pressure": 2.0}, deadband={"CO2": 5.0})
    answer = {
        "offset": {"Temperature": 1000, "bench.Humidity": 2, "Lat": 1, "a b.CO2": 1, "Pressure": True},
        "deadband": {"CO2": 0, "DewPoint": 0.1, "Nonsense": 1},
        "report": ["mean"],
    }
    found, refused = accept(answer, old)
    assert found.offset == {"Temperature": 1.0, "Pressure": 2.0, "bench.Humidity": 2.0}
    assert found.deadband == {"CO2": 5.0, "DewPoint": 0.1}
    assert found.report is None
    wrong = "report", "deadband.CO2", "deadband.Nonsense", "offset.Temperature", "offset.Lat", "offset.a b.CO2"
    assert {text.partition(" from the center")[0] for text in refused} == {*wrong, "offset.Pressure"}
    assert any("must be from -180 to 180 °C" in text for text in refused)


@pytest.mark.parametrize("table", [[], "x", 3, {str(n): 1 for n in range(51)}])
def test_what_is_no_table_leaves_the_old_one(table):
    old = RemoteConfiguration(offset={"Temperature": 1.0})
    found, refused = accept({"offset": table}, old)
    assert (found, len(refused)) == (old, 1)
