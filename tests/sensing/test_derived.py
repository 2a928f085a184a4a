"""Derived quantities against published tables."""

import pytest

from agent.sensing.derived import FORMULAS, absolute_humidity, dew_point, heat_index, vapour_pressure_deficit
from agent.sensing.derived import sea_level_pressure as at_sea_level
from drivers.base import QUANTITIES


def celsius(fahrenheit):
    return (fahrenheit - 32) / 1.8


def test_whatever_is_derived_is_in_the_data_model_and_has_a_formula():
    assert {*FORMULAS, "PressureSeaLevel"} == {name for name, quantity in QUANTITIES.items() if quantity.derived}


# WMO-No. 8 and Sonntag (1990): dew points of psychrometric tables, to 0.1 °C.
@pytest.mark.parametrize(
    ("t", "h", "point"), [(20, 50, 9.3), (25, 60, 16.7), (30, 80, 26.2), (0, 100, 0.0), (10, 30, -6.8)]
)
def test_dew_point(t, h, point):
    assert dew_point(t, h) == pytest.approx(point, abs=0.1)


def test_air_without_water_or_too_dry_has_no_dew_point():
    assert dew_point(20, 0) is None
    assert dew_point(-40, 0.1) is None


# Density of saturated water vapour (CRC Handbook of Chemistry and Physics), g/m³.
@pytest.mark.parametrize(("t", "density"), [(0, 4.85), (10, 9.40), (20, 17.30), (30, 30.38), (40, 51.19)])
def test_absolute_humidity(t, density):
    assert absolute_humidity(t, 100) == pytest.approx(density, rel=0.005)
    assert absolute_humidity(t, 50) == pytest.approx(density / 2, rel=0.005)


# FAO Irrigation and Drainage Paper 56, annex 2, table 2.3: saturation vapour pressure in kPa.
@pytest.mark.parametrize(("t", "saturation"), [(1, 0.657), (10, 1.228), (20, 2.338), (30, 4.243)])
def test_vapour_pressure_deficit(t, saturation):
    assert vapour_pressure_deficit(t, 0) == pytest.approx(saturation, abs=0.001)
    assert vapour_pressure_deficit(t, 75) == pytest.approx(saturation / 4, abs=0.001)
    assert vapour_pressure_deficit(t, 100) == 0


# The US National Weather Service's chart, °F and %RH.
@pytest.mark.parametrize(
    ("t", "h", "index"),
    [
        (80, 40, 80),
        (84, 60, 88),
        (90, 50, 95),
        (90, 70, 105),
        (96, 65, 121),
        (100, 55, 124),
        (104, 40, 119),
        (110, 40, 136),
    ],
)
def test_heat_index_by_the_chart(t, h, index):
    assert heat_index(celsius(t), h) == pytest.approx(celsius(index), abs=0.6)


def test_heat_index_where_the_regression_is_adjusted_and_where_it_does_not_hold():
    assert heat_index(celsius(95), 5) == pytest.approx(celsius(90.18 - 2), abs=0.01)  # the first adjustment
    assert heat_index(celsius(82), 95) == pytest.approx(celsius(92.97 + 1), abs=0.01)  # the second
    assert heat_index(celsius(82), 86) == pytest.approx(celsius(90.37 + 0.1), abs=0.01)  # from 85 % on
    assert heat_index(celsius(80), 55) == pytest.approx(celsius(81.29), abs=0.01)  # from 80 °F of Steadman's on
    assert heat_index(celsius(81), 5) == pytest.approx(celsius(79.04), abs=0.01)  # Steadman's
    assert heat_index(celsius(79.9), 50) is None
    assert heat_index(celsius(115), 60) is None
    assert heat_index(celsius(104), 55) == pytest.approx(celsius(137), abs=0.3)  # the chart's last but one row
    assert heat_index(celsius(110), 45) is None  # and where it is empty


# ISO 2533: 1013.25 hPa and 15 °C at sea level.
@pytest.mark.parametrize(("altitude", "pressure", "t"), [(0, 1013.25, 15.0), (500, 954.61, 11.75), (1000, 898.75, 8.5)])
def test_sea_level_pressure(altitude, pressure, t):
    assert at_sea_level(pressure, t, altitude) == pytest.approx(1013.25, abs=0.05)
