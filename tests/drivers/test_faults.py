"""Promise 4 in the BME280 driver: whatever fails, at whichever transfer, no value that was not measured."""

import errno

import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from drivers.base import NotReady, SensorError, boot_ns
from drivers.chip import Image
from tests.amounts import amount
from tests.bme280_bench import IMAGES, ROOM, Bench


@pytest.fixture
def bench(monkeypatch):
    return Bench(monkeypatch)


def test_promise_4_a_temperature_never_measured_is_an_error(monkeypatch):
    data = ROOM.data[:3] + b"\x80\x00\x00" + ROOM.data[6:]
    bench = Bench(monkeypatch, source=lambda: data)
    bench.driver.open()
    with pytest.raises(NotReady, match="never measured"):
        bench.driver.read()


def test_promise_4_a_conversion_that_never_ends_is_an_error_in_bounded_time(bench):
    bench.opened()
    bench.chip._advance = lambda: None
    start = bench.time.now
    with pytest.raises(NotReady, match="never ends"):
        bench.driver.read()
    assert bench.time.now - start < 0.3


@pytest.mark.parametrize("byte", [0x00, 0xFF])
def test_promise_4_an_impossible_calibration_is_an_error(monkeypatch, byte):
    image = Image(bytes([byte]) * 26, ROOM.calibration_humidity, ROOM.data)
    bench = Bench(monkeypatch, image=image)
    with pytest.raises(NotReady, match="impossible calibration"):
        bench.driver.open()


def test_a_chip_that_lost_power_between_two_readings_is_set_up_again(monkeypatch):
    bench = Bench(monkeypatch, iir_filter=8).opened()
    bench.driver.read()
    bench.chip.power_on()
    bench.chip.written.clear()
    assert bench.driver.read().raw == ROOM.data
    looked = [(0xF4, 0x25)] * 2  # the settings do not stand
    set_up = [(0xE0, 0xB6), (0xF2, 0x01), (0xF4, 0x25), (0xF5, 0b101_011_00)]  # with a conversion that is thrown away
    assert bench.chip.written == [*looked, *set_up, (0xF4, 0x25)]


def test_promise_4_a_chip_that_always_loses_power_gives_no_value(bench):
    bench.opened()
    bench.bus.faults = dict.fromkeys(range(6, 1000), bench.chip.power_on)
    with pytest.raises(NotReady):
        bench.driver.read()


@pytest.mark.parametrize("kept", range(1, 8))
def test_promise_4_power_lost_within_a_burst_gives_no_torn_value(bench, kept):
    bench.opened()
    bench.bus.faults = {7: lambda: setattr(bench.bus, "torn", kept)}
    assert bench.driver.read().raw == ROOM.data
    assert bench.chip.written.count((0xE0, 0xB6)) == 1


@pytest.mark.parametrize(("times", "takes_s"), [(1, 0.02), (16, 0.3)])
def test_a_chip_slower_than_the_datasheet_is_waited_for(monkeypatch, times, takes_s):
    """By datasheet it is 9.3 ms, or 112.8 ms."""
    bench = Bench(monkeypatch, oversampling=times).opened()
    before = bench.chip.conversions
    monkeypatch.setattr("drivers.bme280_registers.conversion_s", lambda *_: takes_s)
    assert bench.driver.read().raw == ROOM.data
    assert bench.chip.conversions == before + 1
    assert bench.time.slept > takes_s


ERRNOS = (errno.EREMOTEIO, errno.EIO, errno.ENXIO, errno.ETIMEDOUT, errno.EAGAIN, errno.EBUSY, errno.ENODEV)
FAULTS = st.sampled_from([*ERRNOS, "short", "power dip", "unplug", "plug in", "torn 1", "torn 4", "torn 7"])


@settings(max_examples=amount(100, 800))
@given(
    faults=st.dictionaries(st.integers(0, 45), FAULTS, max_size=8),
    mode=st.sampled_from(["forced", "normal"]),
    filtered=st.sampled_from([0, 16]),
)
def test_promise_4_every_failure_at_every_transfer_ends_in_a_right_error_or_a_right_reading(faults, mode, filtered):
    with pytest.MonkeyPatch.context() as patch:
        made = []  # (moment, data) of each conversion

        def convert():
            made.append(IMAGES[len(made) % 200].data)
            return made[-1]

        bench = Bench(patch, source=convert, mode=mode, iir_filter=filtered, standby="10ms").opened()
        chip = bench.chip

        def unplug():
            bench.bus.chips = {}

        def plug_in():
            chip.power_on()
            bench.bus.chips = {0x77: chip}

        acts = {"power dip": chip.power_on, "unplug": unplug, "plug in": plug_in}
        acts |= {f"torn {n}": lambda n=n: setattr(bench.bus, "torn", n) for n in (1, 4, 7)}
        bench.bus.faults = {number: acts.get(fault, fault) for number, fault in faults.items()}
        previous = len(made)
        for _ in range(4):
            earliest, started = boot_ns(), len(made)
            reading, error = outcome(bench.driver.read)
            if reading is None:
                assert "on /dev/i2c-1" in str(error)
                assert error.remedy
                bench.driver.close()
                _, again = outcome(bench.driver.open)
                assert again is None or again.remedy
                continue
            # In normal mode what counts is that it was not read before.
            fresh = made[started:] if mode == "forced" else made[previous - 1 :]
            assert reading.raw in fresh
            assert reading.boot_ns >= earliest
            computed = as_the_library_computes(reading.raw)
            assert reading.values == pytest.approx({name: computed[name] for name in reading.values})
            assert set(computed) == {*reading.values, *reading.refused}
            previous = len(made)
        bench.driver.close()


def outcome(call):
    """What it returns, and the SensorError it raises; anything else is a failure."""
    try:
        return call(), None
    except SensorError as error:
        return None, error


def as_the_library_computes(raw):
    """The library on a memory that holds the calibration and these data."""
    from adafruit_bme280.advanced import Adafruit_BME280_Advanced

    from drivers.bme280_compensation import _Copy

    copy = _Copy(ROOM.calibration + ROOM.calibration_humidity)
    copy.put(0xF7, raw)
    library = Adafruit_BME280_Advanced(copy)
    return {"Temperature": library.temperature, "Pressure": library.pressure, "Humidity": library.humidity}


def test_a_conversion_that_is_over_before_anybody_looks_is_made_again(bench):
    """A busy machine: 20 ms pass before each of the first ten looks whether it has begun."""
    bench.opened()
    late = lambda: setattr(bench.time, "now", bench.time.now + 0.02)  # noqa: E731
    bench.bus.faults = {1 + 3 * look: late for look in range(10)}
    assert bench.driver.read().raw == ROOM.data
    assert (0xE0, 0xB6) not in bench.chip.written
    assert bench.chip.written == [(0xF4, 0x25)] * 11


def test_a_flipped_bit_after_a_look_at_settings_that_stand_is_looked_at_again(bench):
    """The first look comes too late, the second one brings a flipped bit of ctrl_hum, the third one is right."""
    bench.opened()
    bench.bus.faults = {1: lambda: setattr(bench.time, "now", bench.time.now + 0.02)}
    bench.bus.flips = {5: 1}
    assert bench.driver.read().raw == ROOM.data
    assert bench.chip.written == [(0xF4, 0x25)] * 3


def test_promise_4_a_conversion_that_never_begins_is_an_error_in_bounded_time(bench):
    bench.opened()
    bench.chip._begin = lambda _: bench.chip.__dict__.update(_ctrl_meas=0x24)
    start = bench.time.now
    with pytest.raises(NotReady, match="did not begin a conversion"):
        bench.driver.read()
    assert bench.time.now - start < 0.3
