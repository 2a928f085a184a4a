"""Each quantity of a reading judged by itself, calibrated, judged again, and completed."""

import pytest

from agent.config.settings import SensorSettings
from agent.sensing.plausibility import CONFIRMED, Stuck
from agent.sensing.treatment import Treatment
from drivers.base import Reading

S = 1_000_000_000


def treated(values, refused=(), **settings):
    return Treatment(SensorSettings(**settings)).of(Reading(values, 1, refused=dict(refused)))


class Series:
    """Values of one quantity, one after another, `step` seconds apart."""

    def __init__(self, quantity="Temperature", **settings):
        self.treatment = Treatment(SensorSettings(**settings))
        self.quantity, self.now = quantity, 0

    def take(self, *values, step=10.0):
        """Which of them are believed."""
        found = []
        for value in values:
            self.now += round(step * S)
            reading = self.treatment.of(Reading({self.quantity: value}, self.now))
            found.append(self.quantity in reading.values)
            assert found[-1] == (self.quantity not in reading.refused)
        return found


# Judged by itself


def test_promise_4_a_quantity_that_cannot_be_does_not_take_the_others_with_it():
    reading = treated({"Temperature": 20.0, "Humidity": 130.0, "Pressure": float("nan")})
    assert reading.values == {"Temperature": 20.0}
    assert "it is 130 %RH, outside 0 to 100" in reading.refused["Humidity"]
    assert "Pressure" in reading.refused


def test_promise_4_a_reading_not_newer_than_what_was_believed_is_refused_as_a_whole():
    treatment = Treatment(SensorSettings(derive=("DewPoint",), altitude=1.0))
    found = []
    for moment, temperature in ((10, 20.0), (5, 20.0), (7, 20.0), (10, 20.0), (11, 99.0), (11, 20.0), (12, 20.0)):
        reading = treatment.of(Reading({"Temperature": temperature}, moment))
        found.append("Temperature" in reading.values)
        if moment < 11 and not found[-1]:
            assert reading.refused == {"reading": "it is not newer than the one before"}
    assert found == [True, False, False, False, False, True, True]


def test_what_the_driver_refuses_stays_refused():
    reading = treated({"Temperature": 20.0}, {"Humidity": "dead"})
    assert (reading.values, reading.refused) == ({"Temperature": 20.0}, {"Humidity": "dead"})


@pytest.mark.parametrize(("given", "meant"), [(103.0, 100.0), (110.0, 100.0), (-2.0, 0.0), (-10.0, 0.0), (55.5, 55.5)])
def test_a_small_overshoot_of_any_sensors_humidity_means_the_limit(given, meant):
    assert treated({"Humidity": given}).values == {"Humidity": meant}


@pytest.mark.parametrize("given", [110.1, -10.1, 248.7])
def test_promise_4_a_large_overshoot_is_refused(given):
    assert treated({"Humidity": given}).values == {}


def test_promise_4_a_temperature_has_no_overshoot():
    assert treated({"Temperature": 125.01}).values == {}


# How fast it may change


def test_a_change_is_judged_for_the_time_that_passed_up_to_a_largest_step():
    assert Series().take(20.0, 24.9, step=1) == [True, True]
    assert Series().take(20.0, 25.1, step=1) == [True, False]
    assert Series().take(20.0, 39.0, step=10) == [True, True]
    assert Series().take(20.0, 41.0, step=10) == [True, False]  # 50 °C by 5 °C a second
    assert Series().take(20.0, 41.0, step=86_400) == [True, False]
    assert Series("Pressure").take(1000.0, 1031.0, step=60) == [True, False]
    assert Series("Humidity").take(20.0, 81.0, step=60) == [True, False]


def test_readings_closer_than_a_second_are_judged_as_if_a_second_apart():
    """Noise is no change of the air: 0.6 °C within 50 ms would be 12 °C a second."""
    assert Series().take(20.0, 20.6, 20.0, 24.9, step=0.05) == [True] * 4
    assert Series().take(20.0, 25.1, step=0.05) == [True, False]


def test_a_large_step_is_believed_once_readings_agree_and_one_wrong_value_never_is():
    assert Series().take(20.0, 60.0, 60.1, 59.9, 60.0) == [True] + [False] * (CONFIRMED - 1) + [True, True]
    assert Series().take(20.0, 60.0, 20.1, 60.0, 20.2, 60.0, 20.3) == [True, False] * 3 + [True]
    assert Series().take(20.0, 60.0, -20.0, 84.0, -30.0) == [True] + [False] * 4


def test_readings_that_agree_do_not_make_a_step_faster_than_the_rate():
    """Ten times a second: three that agree are 0.3 s, and 30 °C take 6 s."""
    believed = Series().take(20.0, *[50.0] * 70, step=0.1)
    assert believed.index(True, 1) == 60


def test_a_configured_rate_holds_for_a_second_and_no_step_is_larger():
    assert Series(max_rate={"Temperature": 100.0}).take(-20.0, 70.0, step=1) == [True, True]
    assert Series(max_rate={"Temperature": 0.1}).take(20.0, 20.9, step=10) == [True, True]
    assert Series(max_rate={"Temperature": 0.1}).take(20.0, 21.1, step=10) == [True, False]
    assert Series(max_rate={"Temperature": 0.1}).take(20.0, 41.0, step=3600) == [True, False]


def test_a_quantity_without_a_rate_may_change_at_once():
    assert Series("CO2").take(400, 5000, step=1) == [True, True]


def test_the_refused_quantity_is_judged_by_what_was_believed_of_it_last():
    treatment = Treatment(SensorSettings())
    for second, temperature in ((1, 20.0), (2, 60.0), (3, 21.0)):
        reading = treatment.of(Reading({"Temperature": temperature, "Pressure": 1000.0}, second * S))
        assert "Pressure" in reading.values
        assert ("Temperature" in reading.values) == (temperature < 60)


# Calibrated


def test_offset_and_scale():
    reading = treated({"Temperature": 20.0, "Pressure": 1000.0}, offset={"Temperature": -1.5}, scale={"Pressure": 1.01})
    assert reading.values == pytest.approx({"Temperature": 18.5, "Pressure": 1010.0})
    both = treated({"Temperature": 20.0}, offset={"Temperature": -1.5}, scale={"Temperature": 1.1})
    assert both.values == pytest.approx({"Temperature": 20.5})


def test_two_points_make_the_line_through_them():
    calibrate = {"Temperature": ((0.4, 0.0), (98.4, 100.0))}
    for measured, true in ((0.4, 0.0), (49.4, 50.0), (80.0, 81.224)):
        assert treated({"Temperature": measured}, calibrate=calibrate).values["Temperature"] == pytest.approx(
            true, abs=1e-3
        )


def test_what_is_applied_is_said_in_words():
    settings = SensorSettings(
        offset={"Temperature": -0.8},
        scale={"Humidity": 1.05},
        calibrate={"Pressure": ((900.0, 901.0), (1000.0, 1002.0))},
    )
    assert Treatment(settings).calibration.described() == {
        "Temperature": "1 * measured - 0.8 °C",
        "Humidity": "1.05 * measured + 0 %RH",
        "Pressure": "1.01 * measured - 8 hPa",
    }


def test_the_range_is_the_sensors_before_and_the_data_models_after():
    assert treated({"Temperature": 125.5}, offset={"Temperature": -5}).values == {}
    after = treated({"Temperature": 124.0}, offset={"Temperature": 5})
    assert "it is 129 °C, outside -55 to 125, once calibrated" in after.refused["Temperature"]
    assert treated({"Humidity": 98.0}, offset={"Humidity": 5}).values == {"Humidity": 100.0}
    assert treated({"Humidity": 98.0}, offset={"Humidity": 50}).values == {}


# Completed


def test_derived_quantities_are_of_the_calibrated_values_and_off_by_default():
    measured = {"Temperature": 31.5, "Humidity": 50.0, "Pressure": 950.0}
    assert treated(measured).values == measured
    derive = ("AbsoluteHumidity", "HeatIndex", "VPD")
    values = treated(measured, offset={"Temperature": -1.5}, derive=derive, dew_point=True, altitude=500.0).values
    # of 30 °C and 50 %RH; the pressure by ISO 2533 for air of 31.6 °C in the middle
    expected = {"DewPoint": 18.4, "AbsoluteHumidity": 15.2, "HeatIndex": 31.0, "VPD": 2.121, "PressureSeaLevel": 1004.6}
    assert {name: values[name] for name in expected} == pytest.approx(expected, rel=0.005)
    assert set(values) == {*measured, *expected}


def test_what_a_formula_does_not_give_is_not_there():
    reading = treated({"Temperature": 20.0, "Humidity": 0.0}, derive=("HeatIndex", "DewPoint", "VPD"))
    assert set(reading.values) == {"Temperature", "Humidity", "VPD"}
    assert reading.refused == {}


def test_what_is_derived_of_a_refused_quantity_is_not_there():
    reading = treated({"Temperature": 20.0}, {"Humidity": "dead"}, derive=("DewPoint", "VPD"))
    assert (set(reading.values), set(reading.refused)) == ({"Temperature"}, {"Humidity"})


def test_what_a_sensor_can_never_derive_is_named():
    reading = treated({"Temperature": 20.0}, derive=("DewPoint",), altitude=10.0)
    assert reading.values == {"Temperature": 20.0}
    assert reading.refused["DewPoint"] == "it needs Humidity, which this sensor does not give"
    assert reading.refused["PressureSeaLevel"] == "it needs Pressure, which this sensor does not give"


def test_a_derived_value_that_cannot_be_is_refused():
    assert "PressureSeaLevel" in treated({"Temperature": 20.0, "Pressure": 1090.0}, altitude=2000.0).refused


# Stuck


def seen(stuck, times, **registers):
    for _ in range(times):
        stuck.see(Reading(dict.fromkeys(registers, 1.0), 7, registers=registers))
    return set(stuck.since_boot_ns())


def test_one_register_that_does_not_move_is_noticed_although_the_others_do():
    stuck = Stuck(5)
    for n in range(5):
        found = seen(stuck, 1, Temperature=n, Humidity=0x7A3E, Pressure=n)
        assert found == ({"Humidity"} if n == 4 else set())
    assert seen(stuck, 1, Temperature=9, Humidity=0x7A3F, Pressure=9) == set()


def test_zero_never_notices_and_what_has_no_registers_cannot_be_stuck():
    assert seen(Stuck(0), 100, Temperature=5) == set()
    stuck = Stuck(2)
    for _ in range(5):
        stuck.see(Reading({"Temperature": 20.0}, 7))
    assert stuck.since_boot_ns() == {}


def test_a_quantity_without_a_register_hides_no_other_that_is_stuck():
    stuck = Stuck(3)
    for n in range(3):
        stuck.see(Reading({"CO2": 400.0 + n, "Temperature": 20.0}, n, registers={"Temperature": 5}))
    assert stuck.since_boot_ns() == {"Temperature": 0}


def test_one_raw_for_all_stands_for_each():
    stuck = Stuck(2)
    for n in (1, 2, 3):
        stuck.see(Reading({"Temperature": 20.0, "CO2": 400}, n, raw=b"same"))
    assert stuck.since_boot_ns() == {"Temperature": 1, "CO2": 1}
