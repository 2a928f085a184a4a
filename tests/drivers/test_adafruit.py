"""Every row of drivers/adafruit_table.py: its real library over an emulated chip, and what happens on a bad bus."""

import errno
import random
import subprocess
import sys
from itertools import pairwise

import pytest

from agent.runner import STALLED_S
from agent.sensing.plausibility import Stuck
from drivers.adafruit_row import address_of
from drivers.adafruit_wire import AT_MOST_S
from drivers.base import NotFound, NotReady, OptionError, SensorError, Transient, WrongChip, load, options_for
from drivers.chip import Image
from tests import shelf_chips
from tests.amounts import amount
from tests.driver_conformance import check
from tests.shelf_bench import Shelf
from tests.shelf_chips import CHIPS

ROWS = sorted(CHIPS)
NOISE = {"Temperature": 0.01, "Humidity": 0.02, "Pressure": 0.01, "CO2": 0, "GasResistance": 0, "Illuminance": 0.6}


@pytest.fixture
def shelf(monkeypatch):
    return lambda name, **more: Shelf(monkeypatch, name, **more)


@pytest.mark.parametrize("name", ROWS)
def test_every_row_keeps_the_contract(shelf, name):
    bench = shelf(name)

    def make():
        return load(name)(options_for(load(name), {}), clock=bench.time.clock, sleep=bench.time.sleep)

    check(load(name), make)


@pytest.mark.parametrize("name", ROWS)
def test_every_row_reads_what_its_chip_measures(shelf, name):
    bench = shelf(name)
    with bench.driver as driver:
        values = driver.read().values
    assert set(values) == set(bench.chip.values)
    for quantity, value in bench.chip.values.items():
        assert values[quantity] == pytest.approx(value, abs=NOISE[quantity] or 0.5, rel=1e-4)


@pytest.mark.parametrize(
    ("name", "conversions"), [("bmp280", 2), ("bme680", 1), ("sht4x", 1), ("scd4x", 1), ("aht20", 1)]
)
def test_one_conversion_feeds_all_quantities_of_a_reading(shelf, name, conversions):
    """The BMP280's first after its reset is thrown away."""
    bench = shelf(name)
    with bench.driver as driver:
        driver.read()
        before = bench.chip.conversions
        driver.read()
    assert bench.chip.conversions == before + conversions


# Promise 4: never a wrong value


def two_readings(bench):
    """Of different air, so that an old value is a wrong one."""
    with bench.driver as driver:
        yield driver.read().values
        bench.chip.raw = bench.chip.later
        yield driver.read().values


def outcomes(shelf, name, fault, seed):
    """How many readings were delivered and refused, and at how many transfers: of `make test` every eighth."""
    """With the fault at each transfer of opening and two readings: how many were delivered, how many refused."""
    bench = shelf(name)
    expected = list(two_readings(bench))
    transfers = bench.bus.transfers
    delivered = refused = 0
    step = amount(8, 1)
    tried = range(list(FAULTS.values()).index(fault) % step, transfers, step)
    for number in tried:
        bench = shelf(name)
        chosen = fault(bench, random.Random(f"{name} {number} {seed}"))
        flip = isinstance(chosen, tuple)
        (bench.bus.flips if flip else bench.bus.faults)[number] = chosen[1] if flip else chosen
        try:
            for values, right in zip(two_readings(bench), expected, strict=True):
                for quantity, value in values.items():
                    assert abs(value - right[quantity]) <= NOISE[quantity], (number, chosen, values)
                delivered += 1
        except SensorError:
            refused += 1
        assert bench.bus.opened == bench.bus.closed
    return delivered, refused, len(tried)


FAULTS = {
    "not acknowledged": lambda bench, chance: errno.EREMOTEIO,
    "arbitration lost": lambda bench, chance: errno.EAGAIN,
    "hangs": lambda bench, chance: errno.ETIMEDOUT,
    "short": lambda bench, chance: "short",
    "loses power": lambda bench, chance: bench.chip.power_on,
    "a bit flips": lambda bench, chance: ("flip", chance.randrange(1000)),
}


@pytest.mark.parametrize("fault", FAULTS)
@pytest.mark.parametrize("name", ROWS)
def test_promise_4_no_fault_at_any_transfer_makes_a_wrong_value(shelf, name, fault):
    """Each is overcome by trying again within the reading, but for a bit that flips in a setting of the light's."""
    for seed in range(4 if fault == "a bit flips" and name not in {"bme680", "scd4x"} else 1):
        delivered, refused, tried = outcomes(shelf, name, FAULTS[fault], seed)
        assert delivered >= 2 * (tried - refused)
        assert refused <= (0.05 * tried if (name, fault) == ("veml7700", "a bit flips") else 0)


@pytest.mark.parametrize("name", ROWS)
def test_promise_4_a_chip_that_is_gone_gives_an_error_and_no_value_and_reads_again_when_it_is_back(shelf, name):
    bench = shelf(name)
    with bench.driver as driver:
        right = driver.read().values
        place, chips = driver._address, dict(bench.bus.chips)
        bench.bus.chips.clear()
        with pytest.raises((NotFound, Transient), match=f"0x{place:02x} on /dev/i2c-1"):
            driver.read()
        chips[place].power_on()
        bench.bus.chips |= chips
        again = driver.read().values
    assert again == pytest.approx(right, abs=0.5)


@pytest.mark.parametrize(
    ("name", "raw", "said"),
    [
        ("sht4x", (0xFFFF, 0x72B0), "no temperature: its register is at the end of its range"),
        ("sht4x", (0x0001, 0x72B0), "outside its -40 to 125"),
        ("scd4x", (0, 0x6666, 0x8000), "never measured"),
        ("scd4x", (40_001, 0x6666, 0x8000), "40001 ppm of CO2, outside its 0 to 40000"),
        ("scd4x", (812, 0xA000, 0x8000), "Temperature, outside its -10 to 60"),
        ("aht20", (0x80000, 0x00000), "outside its -40 to 85"),
        ("bme680", (353485, 0x80000, 19019, 0, 0), "never measured"),
        ("mcp9808", 0x1C00, "-64 °C of Temperature, outside its -40 to 125"),
    ],
)
def test_promise_4_what_a_sound_chip_cannot_measure_is_refused(shelf, name, raw, said):
    bench = shelf(name)
    bench.chip.raw = raw
    with bench.driver as driver, pytest.raises(NotReady, match=said):
        driver.read()


@pytest.mark.parametrize(
    ("name", "raw", "said"),
    [
        ("sht4x", (0x6666, 0x0000), "its register is at the end of its range: the element is dead"),
        ("sht4x", (0x6666, 0xF5C2), "it would be 114.0 %RH"),
        ("scd4x", (812, 0x6666, 0xFFFF), "its register is at the end of its range: the element is dead"),
        ("scd4x", (812, 0x6666, 0x0000), "its register is at the end of its range: the element is dead"),
        ("aht20", (0x00000, 0x60000), "its register is at the end of its range: the element is dead"),
        ("aht20", (0xFFFFF, 0x60000), "its register is at the end of its range: the element is dead"),
        ("bme680", (353485, 501240, 0xFFFF, 0, 0), "its register is at the end of its range: the element is dead"),
        ("bme680", (353485, 501240, 0x1000, 0, 0), "its register is at the end of its range: the element is dead"),
    ],
)
def test_promise_4_a_dead_humidity_element_is_named_and_the_others_go_on(shelf, name, raw, said):
    bench = shelf(name)
    bench.chip.raw = raw
    with bench.driver as driver:
        reading = driver.read()
    assert reading.refused == {"Humidity": said}
    assert "Temperature" in reading.values
    assert "Humidity" not in reading.values


@pytest.mark.parametrize("name", ROWS)
def test_a_reading_that_stands_still_is_stuck_but_where_the_resolution_is_coarse(shelf, name):
    bench, stuck = shelf(name), Stuck(3)
    with bench.driver as driver:
        for _ in range(3):
            stuck.see(driver.read())
    assert bool(stuck.since_boot_ns()) == (name not in {"mcp9808", "veml7700"})


@pytest.mark.parametrize("fill", [0x00, 0xFF])
@pytest.mark.parametrize("name", ["bmp280", "bme680"])
def test_promise_4_an_impossible_calibration_gives_no_values(shelf, monkeypatch, name, fill):
    """All 0xFF gave 0.00 °C and 649 hPa of a BMP280, -0.04 °C and 100 %RH of a BME680."""
    bench = shelf(name)
    if name == "bmp280":
        image = bench.chip.image
        bench.chip.power_on(Image(bytes([fill]) * 26, image.calibration_humidity, image.data))
    else:
        monkeypatch.setattr(shelf_chips, "_bme680_calibration", lambda: bytes([fill]) * 256)
        bench.chip.power_on()
    with pytest.raises(NotReady, match=r"impossible calibration|does not answer as it should"), bench.driver as driver:
        driver.read()


def test_a_small_overshoot_of_the_humidity_is_clamped(shelf):
    bench = shelf("sht4x")
    bench.chip.raw = (0x6666, round((102 + 6) / 125 * 65535))
    with bench.driver as driver:
        assert driver.read().values["Humidity"] == 100


def test_promise_4_an_aht20_that_is_still_busy_is_not_read_whatever_it_kept(shelf, monkeypatch):
    """A status that says "ready" too soon: once right after the command, and again in the answer itself."""
    monkeypatch.setattr(shelf_chips.Aht20, "forgets", False)
    bench = shelf("aht20")
    readings = two_readings(bench)
    next(readings)
    read, chip = bench.chip.read, bench.chip

    def hurried(length):
        data = bytearray(read(length))
        if length == 1:
            data[0] &= 0x7F
        return bytes(data)

    monkeypatch.setattr(chip, "read", hurried)
    monkeypatch.setattr(chip, "clock", lambda: bench.time.now * 0.1)  # a slow one: it takes 750 ms
    with pytest.raises(NotReady, match="busy or not calibrated"):
        next(readings)


@pytest.mark.parametrize(
    ("name", "command", "seconds"), [("bmp280", b"\xf4\x55", 0.0432), ("aht20", b"\xac\x33\x00", 0.08)]
)
def test_a_conversion_has_its_time_whatever_the_chip_says_meanwhile(shelf, name, command, seconds):
    bench = shelf(name)
    with bench.driver as driver:
        bench.bus.log.clear()
        write, moments = bench.bus.writeto, []

        def watched(address, buffer, **slice_):
            moments.append((bytes(buffer), bench.time.now))
            write(address, buffer, **slice_)

        bench.bus.writeto = watched
        read = bench.bus.readfrom_into
        bench.bus.readfrom_into = lambda *a, **s: (moments.append((b"read", bench.time.now)), read(*a, **s))
        driver.read()
    after = [after - before for (what, before), (_, after) in pairwise(moments) if what == command]
    assert after
    assert min(after) >= seconds


# The BME680's heater


def test_gas_resistance_is_left_out_until_the_hot_plate_has_its_temperature(shelf):
    bench = shelf("bme680")
    bench.chip.heater_reaches_its_temperature = False
    with bench.driver as driver:
        reading = driver.read()
        assert set(reading.values) == {"Temperature", "Humidity", "Pressure"}
        assert reading.refused == {
            "GasResistance": "the chip does not mark it as valid: its hot plate has not its temperature"
        }
        bench.chip.heater_reaches_its_temperature = True
        assert "GasResistance" in driver.read().values


def test_without_gas_the_heater_stays_off(shelf):
    bench = shelf("bme680", gas=False)
    with bench.driver as driver:
        reading = driver.read()
    assert set(reading.values) == {"Temperature", "Humidity", "Pressure"}
    assert reading.refused == {}  # what was not asked for is no fault: /healthz fails for what stays refused
    assert bench.chip.memory[0x71] & 0x30 == 0
    assert bench.chip.memory[0x70] & 0x08  # heat_off


# Light


def test_after_the_night_the_day_is_not_capped_by_the_night_s_sensitivity(shelf):
    bench = shelf("veml7700")
    with bench.driver as driver:
        for lux in (0.05, 12_000.0, 0.05):
            bench.chip.raw = lux
            assert driver.read().values["Illuminance"] == pytest.approx(lux, rel=0.8)
        bench.chip.raw = 12_000.0
        assert driver.read().values["Illuminance"] > 12_000


def test_promise_4_light_beyond_what_it_measures_is_refused(shelf):
    bench = shelf("veml7700")
    bench.chip.raw = 150_000.0
    with bench.driver as driver, pytest.raises(NotReady, match="more light than it can measure"):
        driver.read()


# Time


@pytest.mark.parametrize(("name", "asked"), [("aht20", b"\xac\x33\x00"), ("bmp280", b"\xf3")])
def test_a_chip_that_is_busy_for_ever_does_not_hold_the_reading_for_ever(shelf, name, asked, monkeypatch):
    """Their libraries ask it without end. The AHT20 does so where its supply fails (Adafruit_AHTX0, pull request 6)."""
    bench = shelf(name)
    with bench.driver as driver:
        right = driver.read().values
        read, log = bench.chip.read, bench.bus.log

        def busy(length):
            last = next(what for kind, what in reversed(log) if kind == "write" and what)
            return b"\xff" if length == 1 and last == asked else read(length)

        bench.chip.read = busy
        assert 3 * AT_MOST_S < STALLED_S
        monkeypatch.setattr("drivers.adafruit_wire.AT_MOST_S", 1.0)
        begin = bench.time.now
        with pytest.raises(NotReady, match="on /dev/i2c-1 does not end what it was asked for within 1 s"):
            driver.read()
        assert bench.time.now - begin < 4
        bench.chip.read = read
        assert driver.read().values == pytest.approx(right)


def test_a_sensor_that_was_not_read_for_long_is_still_stopped(shelf):
    bench = shelf("scd4x")
    with bench.driver as driver:
        driver.read()
        bench.time.now += 3600
    assert bench.chip.since is None


def test_the_scd4x_is_waited_for_and_never_gives_a_value_twice(shelf):
    bench = shelf("scd4x")
    with bench.driver as driver:
        driver.read()
        begin = bench.time.now
        bench.chip.raw = (900, 0x6666, 0x8000)
        assert driver.read().values["CO2"] == 900
        assert 4 < bench.time.now - begin < 6
        assert bench.chip.since is not None
    assert bench.chip.since is None  # closed, it measures no more


def test_the_mcp9808_is_not_read_before_its_first_conversion(shelf):
    bench = shelf("mcp9808")
    bench.time.now += 10
    bench.chip.power_on()
    with bench.driver as driver:
        assert driver.read().values == {"Temperature": 25.25}


# What is wrong, and what to do


def test_a_library_that_is_not_installed_names_the_extra(shelf, monkeypatch):
    bench = shelf("scd4x")
    monkeypatch.setitem(sys.modules, "adafruit_scd4x", None)
    with pytest.raises(
        SensorError, match=r"adafruit_scd4x of the SCD4x is not installed: `pip install 'iot-edge-agent\[scd4x\]'"
    ):
        bench.driver.open()


@pytest.mark.parametrize(
    ("name", "other"), [("bmp280", "bme680"), ("bme680", "bmp280"), ("mcp9808", "aht20"), ("mcp9808", "veml7700")]
)
def test_another_chip_at_the_address_is_named_as_such(shelf, name, other):
    bench = shelf(name)
    place = next(iter(bench.bus.chips))
    bench.bus.chips[place] = CHIPS[other][1](bench.time.clock)
    with pytest.raises(
        WrongChip, match=f"0x{place:02x} on /dev/i2c-1 is no {bench.driver.row.chip} .*needs another driver"
    ):
        bench.driver.open()
    assert bench.bus.opened == bench.bus.closed


def test_nothing_there_names_where_it_was_looked_for(shelf):
    bench = shelf("sht4x")
    bench.bus.chips.clear()
    with pytest.raises(NotFound, match="SHT4x on /dev/i2c-1: nothing answers at 0x44 or 0x45 or 0x46"):
        bench.driver.open()
    bench = shelf("scd4x")
    bench.bus.chips.clear()
    with pytest.raises(NotFound, match="nothing answers at 0x62 on /dev/i2c-1"):
        bench.driver.open()


def test_it_is_found_at_any_of_its_addresses(shelf):
    bench = shelf("sht4x")
    bench.bus.chips[0x46] = bench.bus.chips.pop(0x44)
    with bench.driver as driver:
        assert driver.describe() == "SHT4x at 0x46 on /dev/i2c-1"
        assert driver.read().values


def test_two_sensors_that_find_the_same_chip_are_told_apart(shelf):
    bench = shelf("sht4x")
    kind = load("sht4x")
    with bench.driver, pytest.raises(SensorError, match=r"another .*sensor.* reads the chip at 0x44"):
        kind(clock=bench.time.clock, sleep=bench.time.sleep).open()


@pytest.mark.parametrize(
    ("name", "options", "said"),
    [
        ("sht4x", {"address": 0x47}, "option 'address' is 0x47: allowed are \"auto\", 0x44, 0x45, 0x46"),
        ("scd4x", {"address": "0x63"}, "is 0x63"),
        ("adafruit", {}, "option 'class' is '': allowed is a class of a library of Adafruit's"),
        ("adafruit", {"class": "os.path"}, "option 'class' is 'os.path'"),
        ("adafruit", {"class": "adafruit_x; import os.A"}, "option 'class'"),
        ("adafruit", {"class": "adafruit_sht4x.SHT4x"}, "option 'fields' is empty"),
        (
            "adafruit",
            {"class": "adafruit_sht4x.SHT4x", "fields": "temperature"},
            "option 'fields' is 'temperature': allowed is a table, like { Temperature = … }",
        ),
        ("adafruit", {"class": "adafruit_sht4x.SHT4x", "fields.Warmth": "x"}, "option 'fields' has no 'Warmth'"),
        ("adafruit", {"class": "adafruit_sht4x.SHT4x", "fields.Humidity": "__class__"}, "the name of an attribute"),
        ("adafruit", {"class": "adafruit_sht4x.SHT4x", "fields.Humidity": "a", "start": "a.b"}, "name of an attribute"),
    ],
)
def test_wrong_options_are_named(name, options, said):
    with pytest.raises(OptionError) as caught:
        options_for(load(name), options)
    assert said in str(caught.value)


# Any other of their sensors


ANY = {"class": "adafruit_sht31d.SHT31D", "fields": {"Temperature": "temperature", "Humidity": "relative_humidity"}}


def test_any_sensor_of_theirs_is_read_by_its_class(shelf):
    bench = shelf("adafruit", chip=shelf_chips.Sht31, address=0x44, **ANY)
    with bench.driver as driver:
        assert driver.sensor == "sht31d"
        assert driver.read().values == pytest.approx({"Temperature": 25.0, "Humidity": 50.0}, abs=0.01)
        before = bench.chip.conversions
        driver.read()
    assert bench.chip.conversions == before + 1


def test_one_that_must_be_started_and_waited_for_too(shelf):
    options = {
        "class": "adafruit_scd4x.SCD4X",
        "fields": {"CO2": "CO2"},
        "start": "start_periodic_measurement",
        "stop": "stop_periodic_measurement",
        "ready": "data_ready",
    }
    bench = shelf("adafruit", chip=shelf_chips.Scd4x, address=0x62, **options)
    with bench.driver as driver:
        assert driver.read().values == {"CO2": 812}
    assert bench.chip.since is None


def test_promise_4_a_method_that_says_whether_it_is_ready_is_called(shelf, monkeypatch):
    import adafruit_scd4x

    asked = []

    def is_ready(chip):
        asked.append(chip.data_ready)
        return asked[-1]

    monkeypatch.setattr(adafruit_scd4x.SCD4X, "is_ready", is_ready, raising=False)
    options = {
        "class": "adafruit_scd4x.SCD4X",
        "fields": {"CO2": "CO2"},
        "start": "start_periodic_measurement",
        "ready": "is_ready",
    }
    bench = shelf("adafruit", chip=shelf_chips.Scd4x, address=0x62, **options)
    with bench.driver as driver:
        assert driver.read().values == {"CO2": 812}
    assert asked[0] is False
    assert asked[-1] is True


def test_a_class_that_takes_no_bus_is_named():
    with pytest.raises(SensorError, match="is no sensor"):
        address_of(type("Err", (Exception,), {}))


def test_one_that_is_never_ready_is_given_up_before_the_agent_is_taken_for_stuck(shelf):
    options = {"class": "adafruit_scd4x.SCD4X", "fields": {"CO2": "CO2"}, "ready": "data_ready", "ready_within": 40}
    bench = shelf("adafruit", chip=shelf_chips.Scd4x, address=0x62, **options)  # nobody starts it
    with bench.driver as driver:
        begin = bench.time.now
        with pytest.raises(NotReady, match="no new value after 40 s"):
            driver.read()
    assert bench.time.now - begin < STALLED_S
    with pytest.raises(OptionError, match="from 0 to 40"):
        options_for(load("adafruit"), options | {"ready_within": 41})


def test_the_address_is_given_as_the_library_calls_it():
    assert address_of(lambda i2c_bus, addr=0x40: None) == ("addr", 0x40)
    assert address_of(lambda i2c_bus, address=0x44: None) == ("address", 0x44)
    assert address_of(lambda i2c_bus, address: None) == ("address", None)
    assert address_of(lambda i2c_bus: None) == ("address", None)


@pytest.mark.parametrize(
    ("options", "said"),
    [
        (
            {"class": "adafruit_nothing.Sensor"},
            "adafruit_nothing of the Sensor is not installed: .*adafruit-circuitpython-nothing",
        ),
        ({"class": "adafruit_sht31d.Sensor"}, "cannot be imported"),
        ({"class": "adafruit_sht31d.MODE_SINGLE"}, "is no class"),
        ({"class": "adafruit_sht31d.I2CDevice"}, "the address of adafruit_sht31d.I2CDevice is not known: give it"),
        ({"fields": {"CO2": "co2"}}, "has no attribute 'co2'"),
    ],
)
def test_what_is_wrong_with_a_class_is_said_when_it_is_opened(shelf, options, said):
    wrong = {**ANY, **options}
    monkey = {k: v for k, v in wrong.items() if k != "class"} | {"class": ANY["class"]}
    bench = shelf("adafruit", chip=shelf_chips.Sht31, address=0x44, **monkey)
    kind = load("adafruit")
    driver = kind(options_for(kind, wrong), clock=bench.time.clock, sleep=bench.time.sleep)
    with pytest.raises(SensorError, match=said), driver:
        driver.read()


def test_no_module_of_another_name_is_ever_imported():
    """Not even the one that a table of options names, nor its parents."""
    for name in (
        "os.path",
        "agent.cli.main",
        "adafruit.X",
        "ADAFRUIT_sht4x.X",
        "adafruit_sht4x",
        "adafruit_é.X",
        ".adafruit_x.X",
    ):
        with pytest.raises(OptionError):
            options_for(load("adafruit"), {**ANY, "class": name})


# Memory

IMPORTED = """
import sys
from pathlib import Path
from agent.config.parse import load_settings
from agent.sensing.sensors import drivers_of
for driver in drivers_of(load_settings(Path(sys.argv[1]), {})):
    try:
        driver.open()
    except Exception:
        pass
print(*sorted(sys.modules))
"""


@pytest.mark.parametrize(
    ("drivers", "there", "not_there"),
    [
        (["bme280", "virtual", "emulated"], [], ["drivers.adafruit", "drivers.adafruit_table", "drivers.ds18b20"]),
        (["ds18b20"], ["drivers.ds18b20"], ["drivers.bme280", "busio", "drivers.adafruit_table"]),
        (["sht4x"], ["adafruit_sht4x"], ["adafruit_scd4x", "adafruit_bme280", "drivers.bme280", "drivers.ds18b20"]),
    ],
)
def test_what_is_not_configured_is_not_imported(tmp_path, drivers, there, not_there):
    config = tmp_path / "agent.toml"
    tables = "".join(f'[[sensor]]\nname = "{name}"\ndriver = "{name}"\n' for name in drivers)
    config.write_text(tables + '[influxdb]\nurl = "http://x"\norg = "o"\nbucket = "b"\ntoken_file = "t"\n')
    command = [sys.executable, "-c", IMPORTED, str(config)]
    modules = subprocess.run(command, capture_output=True, text=True, check=True, timeout=60).stdout.split()
    assert set(there) <= set(modules)
    assert not set(not_there) & set(modules)
