"""The data model that existing dashboards read, and that no other line can come out."""

import math
from dataclasses import replace

import pytest
from hypothesis import given
from hypothesis import strategies as st
from line_protocol_parser import parse_line

from agent.points.schema import Line, line_for, series_of
from drivers.base import QUANTITIES

VALUES = st.fixed_dictionaries(
    {},
    optional={
        q.field: st.integers(int(q.low), int(q.high)) if q.kind == "integer" else st.floats(q.low, q.high)
        for q in QUANTITIES.values()
    },
).filter(bool)


def test_a_reading_becomes_the_point_of_the_data_model():
    line = line_for("pi-1", "bme280", {"Temperature": 21.504, "Humidity": 40.0, "Pressure": 1001.5}, boot_ns=5)
    assert replace(line, time_ns=1795500567859000000).encode() == (
        b"environment,HumiditySensor=bme280,PressureSensor=bme280,TemperatureSensor=bme280,clientId=pi-1,device=pi-1"
        b" Humidity=40,Pressure=1001.5,Temperature=21.5 1795500567859000000"
    )


def test_integers_stay_integers_and_the_location_of_the_device_is_added_where_the_sensor_has_none():
    line = line_for("p", "virtual_bme280", {"CO2": 412.6, "TVOC": 3}, boot_ns=1, location=(50.0874, 14.4072))
    assert line.head.endswith(b" CO2=413i,Lat=50.0874,Lon=14.4072,TVOC=3i")
    own = line_for("p", "gps", {"Lat": 1.5, "Lon": 2.5}, boot_ns=1)
    assert own.head.endswith(b" Lat=1.5,Lon=2.5")
    assert b"GPSSensor=gps" in own.head
    assert line_for("p", "gps", {"Lat": 1.5, "Lon": 2.5}, boot_ns=1, location=(3, 4)).head.endswith(b" Lat=3,Lon=4")


def test_several_sensors_of_a_kind_are_told_apart_by_their_names():
    assert b",sensor=bench " in line_for("p", "bme280", {"Temperature": 1.0}, boot_ns=1, sensor_name="bench").head


@pytest.mark.parametrize("value", [math.nan, math.inf, -math.inf])
def test_promise_4_what_is_no_number_never_becomes_a_point(value):
    with pytest.raises(ValueError, match="not a number that can be stored"):
        line_for("p", "bme280", {"Temperature": value}, boot_ns=1)


@pytest.mark.parametrize("values", [{}, {"Colour": 1.0}])
def test_no_fields_and_unknown_fields_are_refused(values):
    with pytest.raises(ValueError, match=r"at least one value|not a field"):
        line_for("p", "bme280", values, boot_ns=1)


def test_a_point_without_a_time_cannot_be_sent():
    with pytest.raises(ValueError, match="no time yet"):
        Line(b"m f=1", 1).encode()


@given(VALUES, st.integers(0, 2**62))
def test_every_line_is_parsed_back_to_the_same_values_within_the_resolution(values, time_ns):
    encoded = line_for("pi-1", "bme280", values, boot_ns=1, time_ns=time_ns).encode()
    parsed = parse_line(encoded.decode())
    assert parsed["measurement"] == "environment"
    assert parsed["time"] == time_ns
    assert set(parsed["fields"]) == set(values)
    for name, value in values.items():
        quantity = QUANTITIES[name]
        assert abs(parsed["fields"][name] - value) <= 0.5001 * 10**-quantity.decimals
        assert isinstance(parsed["fields"][name], int if quantity.kind == "integer" else float)


def test_the_series_ends_at_the_first_space_that_is_not_escaped():
    assert series_of(rb"m\ x,tag=a\ b,c=d\\\ e f=1 2") == rb"m\ x,tag=a\ b,c=d\\\ e"
    assert series_of(b"nospace") == b"nospace"
