"""Each quantity of a burst judged by itself, before anything is cut: a dead element is no 100 %."""

import json
import re
from pathlib import Path

import pytest

from drivers.base import NotReady, WrongChip
from drivers.bme280_compensation import Compensation
from drivers.chip import Image
from tests.bme280_bench import IMAGES, ROOM, Bench

# From a public report: a real calibration, its humidity element dead. The library says 100 %, its formula 248.7.
DEAD = Image.of(json.loads((Path(__file__).parents[1] / "data/bme280-dead-humidity.json").read_text())[0])


def judged(image=ROOM, *, calibration=None, data=None, humidity=True):
    calibration = calibration or image.calibration + (image.calibration_humidity if humidity else b"")
    return Compensation("chip", calibration).judged((data or image.data)[: 8 if humidity else 6], 0)


def with_register(quantity, value):
    data = bytearray(ROOM.data)
    place, size = {"Pressure": (0, 3), "Temperature": (3, 3), "Humidity": (6, 2)}[quantity]
    data[place : place + size] = (value << 4 if size == 3 else value).to_bytes(size)
    return bytes(data)


def test_promise_4_a_dead_humidity_element_is_refused_and_the_others_are_read(monkeypatch):
    reading = Bench(monkeypatch, image=DEAD).opened().driver.read()
    assert set(reading.values) == {"Temperature", "Pressure"}
    assert "0xffff" in reading.refused["Humidity"]


def test_humidity_is_asked_of_the_library_uncut():
    compensation = Compensation("chip", DEAD.calibration + DEAD.calibration_humidity)
    compensation.judged(DEAD.data, 0)
    assert compensation._humidity() == pytest.approx(248.7, abs=0.05)
    compensation.judged(DEAD.data[:6] + b"\x00\x01", 0)
    assert compensation._humidity() == pytest.approx(-115.0, abs=0.05)


def test_humidity_within_its_range_is_what_the_library_says_to_the_last_bit():
    for image in IMAGES:
        compensation = Compensation("chip", image.calibration + image.calibration_humidity)
        coefficients = list(compensation._library._humidity_calib)
        compensation.judged(image.data, 0)
        uncut = compensation._humidity()
        compensation._library._humidity_calib = coefficients
        assert min(100.0, max(0.0, uncut)) == compensation._library.humidity


@pytest.mark.parametrize(("quantity", "value"), [("Humidity", v) for v in (0x0000, 0xFFFF, 0x8000)])
@pytest.mark.parametrize("more", [{}, {"image": IMAGES[1]}])
def test_promise_4_a_humidity_never_measured_or_at_its_end_is_refused(quantity, value, more):
    found = judged(**more, data=with_register(quantity, value))
    assert set(found.values) == {"Temperature", "Pressure"}
    assert set(found.refused) == {quantity}


@pytest.mark.parametrize("value", [0x00000, 0x0000F, 0xFFFF0, 0xFFFFF, 0x80000])
def test_promise_4_a_pressure_never_measured_or_at_its_end_is_refused(value):
    found = judged(data=with_register("Pressure", value))
    assert set(found.values) == {"Temperature", "Humidity"}
    assert set(found.refused) == {"Pressure"}


@pytest.mark.parametrize("value", [0x00000, 0x0000F, 0xFFFF0, 0xFFFFF, 0x80000, 0x10000, 0xF0000])
def test_promise_4_without_a_temperature_nothing_is_computed(value):
    with pytest.raises(NotReady, match="gives no temperature"):
        judged(data=with_register("Temperature", value))


def test_promise_4_a_temperature_that_other_sensors_can_measure_is_none_of_this_one():
    """The data model reaches from -55 to 125 °C, the chip from -40 to 85 (section 1)."""
    for register in range(0x80800, 0xFF000, 0x800):
        try:
            hottest = judged(data=with_register("Temperature", register)).values["Temperature"]
        except NotReady as error:
            said = str(error)
            break
    assert 84 < hottest <= 85
    assert "it would be 85" in said
    assert "outside -40 to 85" in said


@pytest.mark.parametrize(("lines", "said"), [(b"\x00", "0x0"), (b"\xff", "0xfffff")])
def test_promise_4_lines_that_are_stuck_give_nothing(lines, said):
    with pytest.raises(NotReady, match=said):
        judged(data=8 * lines)


@pytest.mark.parametrize(
    ("register", "humidity"),
    [(31_000, 61.966), (39_500, 100.0), (38_500, 100.0), (20_000, 0.181), (19_600, 0.0), (18_500, 0.0)],
)
def test_a_small_overshoot_is_the_limit(register, humidity):
    found = judged(DEAD, data=DEAD.data[:6] + register.to_bytes(2))
    assert found.values["Humidity"] == pytest.approx(humidity, abs=0.001)


@pytest.mark.parametrize("register", [40_000, 60_000, 18_000, 100])
def test_promise_4_a_value_far_outside_is_refused_with_its_number(register):
    found = judged(DEAD, data=DEAD.data[:6] + register.to_bytes(2))
    assert "outside 0 to 100" in found.refused["Humidity"]
    assert found.registers["Humidity"] == register


@pytest.mark.parametrize("byte", [0x00, 0xFF])
@pytest.mark.parametrize(
    ("quantity", "place"), [("Pressure", slice(6, 24)), ("Pressure", slice(6, 8)), ("Humidity", slice(26, 28))]
)
def test_promise_4_a_quantity_without_a_calibration_is_refused_and_the_others_are_read(byte, quantity, place):
    calibration = bytearray(ROOM.calibration + ROOM.calibration_humidity)
    calibration[place] = bytes([byte]) * len(calibration[place])
    found = judged(calibration=bytes(calibration))
    assert found.refused == {quantity: "the chip has an impossible calibration for it"}
    assert len(found.values) == 2


@pytest.mark.parametrize("byte", [0x00, 0xFF])
@pytest.mark.parametrize("place", [0, 2])
def test_promise_4_without_one_of_the_temperatures_factors_nothing_is_computed(byte, place):
    calibration = bytearray(ROOM.calibration + ROOM.calibration_humidity)
    calibration[place : place + 2] = bytes([byte, byte])
    with pytest.raises(NotReady, match=re.escape(f"impossible calibration ({calibration[:6].hex()})")):
        judged(calibration=bytes(calibration))


@pytest.mark.parametrize("byte", [0x00, 0xFF])
def test_a_bmp280_that_says_it_is_a_bme280_is_named_and_read_without_humidity(monkeypatch, byte):
    clone = Image(ROOM.calibration, bytes([byte]) * 7, ROOM.data)
    bench = Bench(monkeypatch, image=clone)
    with pytest.raises(WrongChip, match="looks like a BMP280 that says it is a BME280: set humidity = false"):
        bench.driver.open()
    assert bench.bus.closed == bench.bus.opened
    values = Bench(monkeypatch, image=clone, humidity=False).opened().driver.read().values
    assert values == pytest.approx({"Temperature": 14.1355, "Pressure": 1045.427}, abs=0.001)
