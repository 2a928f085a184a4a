"""The BME280 driver on a register-level chip: what is written, what the options do, how the chip is found."""

import errno
from itertools import pairwise

import pytest

from agent.config.units import parse_duration
from drivers.base import Busy, NotFound, OptionError, Transient, WrongChip, options_for
from drivers.bme280 import Bme280
from drivers.bme280_registers import STANDBY, STANDBY_S, agreed
from drivers.i2c import I2CRegisters, InUse
from tests.bme280_bench import IMAGES, ROOM, Bench


@pytest.fixture
def bench(monkeypatch):
    return Bench(monkeypatch)


# What is written


@pytest.mark.parametrize(("times", "code"), [(1, 1), (2, 2), (4, 3), (8, 4), (16, 5)])
def test_oversampling_is_written_as_the_datasheets_tables_20_22_and_23_have_it(monkeypatch, times, code):
    bench = Bench(monkeypatch, oversampling=times)
    bench.driver.open()
    bench.driver.read()
    assert {(0xF2, code), (0xF4, code << 5 | code << 2 | 1)} <= set(bench.chip.written)


@pytest.mark.parametrize(("coefficient", "code"), [(0, 0), (2, 1), (4, 2), (8, 3), (16, 4)])
def test_the_filter_is_written_as_the_datasheet_has_it(monkeypatch, coefficient, code):
    bench = Bench(monkeypatch, iir_filter=coefficient)
    bench.driver.open()
    assert bench.chip.written[-1] == (0xF5, 0b101 << 5 | code << 2)


@pytest.mark.parametrize(
    ("standby", "code"),
    [("0.5ms", 0), ("62.5ms", 1), ("125ms", 2), ("250ms", 3), ("500ms", 4), ("1s", 5), ("10ms", 6), ("20ms", 7)],
)
def test_the_standby_is_written_as_the_datasheet_has_it(monkeypatch, standby, code):
    bench = Bench(monkeypatch, mode="normal", standby=standby)
    bench.driver.open()
    assert bench.chip.written[-2:] == [(0xF5, code << 5), (0xF4, 0b001_001_11)]


def test_the_calibration_is_read_again_by_registers_whose_numbers_have_all_other_bits(bench):
    """So a bit of the number that is bent each time is noticed: every bit of 0x88, and of 0xE1 what is below it."""
    bench.driver.open()
    log = bench.bus.log
    read = [(log[n - 1][1][0], size) for n, (what, size) in enumerate(log) if what == "read" and size > 6]
    assert read == [(0x88, 26), (0xE1, 7), (0x77, 0x88 - 0x77 + 26), (0xDE, 0xE1 - 0xDE + 7)]


@pytest.mark.parametrize("standby", STANDBY)
def test_each_standby_lasts_as_long_as_it_is_called(standby):
    assert STANDBY_S[STANDBY[standby]] == parse_duration(standby)


def test_a_reading_is_one_conversion_and_two_bursts_that_agree(bench):
    bench.opened()
    before = bench.chip.conversions
    reading = bench.driver.read()
    assert bench.chip.conversions == before + 1
    assert bench.chip.written == [(0xF4, 0b001_001_01)]
    bursts = [bench.bus.log[i + 1] for i, entry in enumerate(bench.bus.log) if entry == ("write", b"\xf7")]
    assert bursts == [("read", 8), ("read", 8)]
    assert reading.raw == ROOM.data


def test_every_transfer_of_a_reading(bench):
    bench.opened().driver.read()
    assert bench.bus.log == [
        ("write", b"\xf4\x25"),
        ("write", b"\xf2"),  # do the settings stand, and has the conversion begun?
        ("read", 4),
        ("write", b"\xf2"),  # has it ended?
        ("read", 4),
        ("write", b"\xf7"),
        ("read", 8),
        ("write", b"\xf7"),  # the same again?
        ("read", 8),
        ("write", b"\xf2"),  # do the settings still stand?
        ("read", 4),
    ]


def test_every_transfer_of_setting_up(bench):
    bench.driver.open()
    assert bench.bus.log == [
        ("write", b""),  # is anybody there?
        *2 * [("write", b"\xd0"), ("read", 1)],  # who?
        ("write", b"\xe0\xb6"),
        *[("write", b"\xf3"), ("read", 1)],  # is the calibration there?
        *[("write", b"\x88"), ("read", 26)],
        *[("write", b"\xe1"), ("read", 7)],
        ("write", b"\xf2\x01"),
        ("write", b"\xf4\x25"),  # the conversion that is thrown away
        *[("write", b"\xf2"), ("read", 4)],  # has it begun?
        *[("write", b"\xf2"), ("read", 4)],  # has it ended?
        ("write", b"\xf5\xa0"),
        *[("write", b"\x77"), ("read", 43)],  # the calibration again
        *[("write", b"\xde"), ("read", 10)],
    ]


def test_options_reach_the_registers(monkeypatch):
    oversampling = {"Temperature": 2, "Humidity": 16, "Pressure": 8}
    bench = Bench(monkeypatch, oversampling=oversampling, iir_filter=16, mode="normal", standby="500ms")
    bench.driver.open()
    assert (0xF2, 0b101) in bench.chip.written
    assert bench.chip.written[-2:] == [(0xF5, 0b100_100_00), (0xF4, 0b010_100_11)]


def test_the_filter_is_set_only_after_the_conversion_that_is_thrown_away(monkeypatch):
    bench = Bench(monkeypatch, iir_filter=4)
    bench.driver.open()
    assert bench.chip.written == [(0xE0, 0xB6), (0xF2, 1), (0xF4, 0x25), (0xF5, 0b101_010_00)]
    assert bench.chip.conversions == 1


def test_the_first_conversion_after_power_on_is_not_reported(monkeypatch):
    data = iter([IMAGES[5].data, ROOM.data, ROOM.data])
    bench = Bench(monkeypatch, source=lambda: next(data))
    assert bench.opened().driver.read().raw == ROOM.data


def test_it_waits_for_the_longest_conversion(monkeypatch):
    bench = Bench(monkeypatch, oversampling=16).opened()
    bench.time.slept = 0
    bench.driver.read()
    assert bench.time.slept == pytest.approx(0.1128, abs=0.0011)  # appendix B: 1.25 + 3 * 2.3 * 16 + 2 * 0.575 ms


def test_without_humidity_it_waits_as_long_as_the_two_others_take(monkeypatch):
    bench = Bench(monkeypatch, humidity=False)
    bench.chip.chip_id = 0x58
    bench.opened()
    bench.time.slept = 0
    bench.driver.read()
    assert bench.time.slept == pytest.approx(0.006425)  # appendix B: 1.25 + 2 * 2.3 + 0.575 ms


def test_normal_mode_waits_for_a_conversion_it_has_not_read(monkeypatch):
    counter = iter(range(10_000))
    bench = Bench(monkeypatch, mode="normal", standby="125ms", source=lambda: IMAGES[next(counter) % 200].data).opened()
    raws = [bench.driver.read().raw for _ in range(20)]
    assert all(before != after for before, after in pairwise(raws))
    assert bench.chip.written == []


def test_closing_puts_normal_mode_to_sleep(monkeypatch):
    bench = Bench(monkeypatch, mode="normal").opened()
    bench.driver.close()
    assert bench.chip.read_register(0xF4, 1)[0] & 0b11 == 0
    assert bench.bus.closed == bench.bus.opened


# Options


@pytest.mark.parametrize(
    ("options", "said"),
    [
        ({"oversampling": 3}, "oversampling.Temperature' is 3: allowed are 1, 2, 4, 8, 16"),
        ({"oversampling": {"Temperatur": 2}}, "no 'Temperatur'; allowed are Temperature, Humidity, Pressure; did you"),
        ({"iir_filter": 3}, "allowed are 0, 2, 4, 8, 16"),
        ({"mode": "force"}, "'mode' is 'force': allowed are forced, normal"),
        ({"standby": "1000"}, "allowed are 0.5ms, 62.5ms, 125ms"),
        ({"address": 0x78}, 'allowed are "auto", 0x76 and 0x77'),
        ({"address": "0x75"}, 'allowed are "auto", 0x76 and 0x77'),
        ({"address": "car"}, 'allowed are "auto", 0x76 and 0x77'),
        ({"bus": -1}, "allowed is a whole number from 0 to 255"),
        ({"bus": "one"}, "allowed is a whole number from 0 to 255"),
        ({"bus": True}, "allowed is a whole number from 0 to 255"),
        ({"humidity": "maybe"}, "allowed is true or false"),
        ({"adress": 0x76}, "no option 'adress'"),
        ({"adress": 0x76}, "did you mean 'address'?"),
    ],
)
def test_a_wrong_option_says_what_is_allowed(options, said):
    with pytest.raises(OptionError) as caught:
        options_for(Bme280, options)
    assert said in str(caught.value)


def test_options_come_from_toml_values_and_from_texts_alike():
    from_toml = options_for(Bme280, {"address": 0x76, "oversampling": {"Humidity": 4}, "humidity": True})
    texts = {"address": "0x76", "oversampling.Humidity": "4", "humidity": "yes"}
    assert options_for(Bme280, texts) == from_toml


# Finding the chip


@pytest.mark.parametrize("address", [0x76, 0x77])
def test_auto_finds_it_at_either_address(monkeypatch, address):
    bench = Bench(monkeypatch)
    bench.bus.chips = {address: bench.chip}
    bench.driver.open()
    assert bench.driver.describe() == f"BME280 at 0x{address:02x} on /dev/i2c-1"


def test_auto_passes_over_another_chip(monkeypatch):
    bench = Bench(monkeypatch)
    bench.bus.chips[0x76] = bench.another_chip(0x61)
    bench.driver.open()
    assert "0x77" in bench.driver.describe()


def test_auto_opens_the_first_address_where_another_sensor_reads_the_other(bench, caplog):
    bench.bus.chips[0x76] = bench.another_chip()
    other = Bme280(options_for(Bme280, {"address": 0x77}), clock=bench.time.clock, sleep=bench.time.sleep)
    with other:
        bench.driver.open()
    assert "0x76" in bench.driver.describe()
    assert "something answers" not in caplog.text


def test_auto_stays_with_the_chip_it_found(bench, caplog):
    bench.bus.chips[0x76] = bench.another_chip()
    bench.driver.open()
    assert "0x76" in bench.driver.describe()
    assert "something answers at 0x77 too" in caplog.text
    del bench.bus.chips[0x76]
    bench.driver.close()
    with pytest.raises(NotFound, match="0x76"):
        bench.driver.open()


def test_two_sensors_do_not_read_the_same_chip(bench):
    bench.driver.open()
    other = Bme280(options_for(Bme280, {"address": 0x77}), clock=bench.time.clock, sleep=bench.time.sleep)
    with pytest.raises(Busy, match="another"):
        other.open()
    bench.driver.close()
    other.open()
    other.close()


@pytest.mark.parametrize(
    ("chip_id", "kind", "said"),
    [
        (0x58, WrongChip, "BMP280 .chip id 0x58., often sold as a BME280: it has no humidity: set humidity = false"),
        (0x56, WrongChip, "BMP280"),
        (0x57, WrongChip, "BMP280"),
        (0x61, WrongChip, "a BME680 .chip id 0x61."),
        (0x55, WrongChip, "no BME280 .chip id 0x55."),
        (0xFF, Transient, "answers nothing but 0xff"),
    ],
)
def test_another_chip_is_named(bench, chip_id, kind, said):
    bench.chip.chip_id = chip_id
    with pytest.raises(kind, match=said) as caught:
        bench.driver.open()
    assert "0x77 on /dev/i2c-1" in str(caught.value)
    assert bench.bus.closed == bench.bus.opened


def test_a_bmp280_is_read_without_humidity_and_named(monkeypatch):
    bench = Bench(monkeypatch, humidity=False)
    bench.chip.chip_id = 0x58
    values = bench.opened().driver.read().values
    assert set(values) == {"Temperature", "Pressure"}
    assert bench.driver.describe() == "BMP280 at 0x77 on /dev/i2c-1"
    assert bench.driver.sensor == "bmp280"
    assert 0xF2 not in [register for register, _ in bench.chip.written]
    assert [size for what, size in bench.bus.log if what == "read"] == [4, 4, 6, 6, 4]


@pytest.mark.parametrize(
    ("number", "kind"),
    [(errno.EBUSY, Busy), (errno.EREMOTEIO, NotFound), (errno.ENXIO, NotFound), (errno.ETIMEDOUT, Transient)],
)
def test_why_nothing_answers(bench, number, kind):
    bench.bus.faults = dict.fromkeys(range(9), number)
    with pytest.raises(kind) as caught:
        bench.driver.open()
    assert caught.value.remedy


# What mutation of the sources has shown to be guarded by no test


def test_auto_does_not_pass_over_a_chip_that_another_sensor_reads(bench):
    """Which of two [[sensor]] tables with `auto` gets which chip must not depend on who is first."""
    bench.bus.chips[0x76] = bench.another_chip()
    bench.driver.open()
    second = Bme280(options_for(Bme280, {}), clock=bench.time.clock, sleep=bench.time.sleep)
    with pytest.raises(InUse, match=r"another .*reads the chip at 0x76"):
        second.open()
    assert "0x76 or 0x77" in second.describe()


@pytest.mark.parametrize("answers", ["abcda", "abcdd", "abb", "aa"])
def test_two_of_five_answers_have_to_agree(bench, answers):
    given = iter(answers)
    bench.chip.read_register = lambda *_: bytearray(next(given).encode())
    assert agreed(bench.chip, 0xF7, 8, "chip") == answers[-1].encode()
    assert next(given, None) is None


def test_five_answers_of_which_no_two_agree_are_no_reading(bench):
    given = iter("abcdef")
    bench.chip.read_register = lambda *_: bytearray(next(given).encode())
    with pytest.raises(Transient, match="the chip gives another answer each time it is asked"):
        agreed(bench.chip, 0xF7, 8, "chip")
    assert "".join(given) == "f"


@pytest.mark.parametrize("mode", ["forced", "normal"])
def test_a_chip_that_is_unplugged_before_it_is_closed_releases_the_bus(monkeypatch, mode):
    bench = Bench(monkeypatch, mode=mode).opened()
    bench.bus.chips = {}
    bench.driver.close()
    assert bench.bus.closed == bench.bus.opened
    bench.driver.close()


@pytest.mark.parametrize("bits", [0b01, 0b10, 0b11])
def test_what_the_bits_of_config_that_mean_nothing_on_i2c_hold_is_no_other_setting(bench, bits):
    bench.opened()
    bench.chip._config |= bits
    assert bench.driver.read().raw == ROOM.data
    assert (0xE0, 0xB6) not in bench.chip.written


@pytest.mark.parametrize(("failures", "fails"), [(1, False), (2, False), (3, True)])
def test_a_reading_is_tried_three_times_in_all(bench, failures, fails):
    bench.opened()
    bench.bus.faults = dict.fromkeys(range(failures), errno.EREMOTEIO)  # each attempt ends at its first transfer
    if fails:
        with pytest.raises(Transient):
            bench.driver.read()
        assert bench.bus.transfers == 3
    else:
        assert bench.driver.read().raw == ROOM.data


@pytest.mark.parametrize("number", [3, 8, 12])
def test_a_set_up_that_fails_leaves_no_bus_open(bench, number):
    bench.bus.faults = dict.fromkeys(range(number, 200), errno.EREMOTEIO)
    with pytest.raises(Transient):
        bench.driver.open()
    assert bench.bus.opened == bench.bus.closed > 0
    bench.bus.faults = {}
    bench.driver.open()  # and the chip is not taken for one in use


def test_every_transfer_but_the_first_sign_of_life_holds_the_lock(bench, monkeypatch):
    """Also the one that reads the chip id: another process in between would move the register pointer."""
    unlocked = []
    transfer = I2CRegisters._transfer

    def watched(chip, call, *arguments):
        if not chip._lock._depth:
            unlocked.append(arguments)
        return transfer(chip, call, *arguments)

    monkeypatch.setattr(I2CRegisters, "_transfer", watched)
    bench.driver.open()
    bench.driver.read()
    bench.driver.close()
    assert bench.bus.transfers > 30
    assert unlocked == []
