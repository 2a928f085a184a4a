"""The emulated chip behaves as the datasheet (BST-BME280-DS002) says."""

import json
from pathlib import Path

import pytest

from drivers import bme280_registers as r
from drivers.base import OptionError, options_for
from drivers.chip import Chip, Image
from drivers.emulated import Emulated
from tests.fake_blinka import FakeTime

CASES = json.loads((Path(__file__).parents[1] / "data/bme280-bosch.json").read_text())
IMAGE = Image.of(CASES[0])
CONVERSION_S = 0.0093  # appendix B, everything once: 1.25 + 3 * 2.3 + 2 * 0.575 ms
FORCED = 0b001_001_01
NORMAL = 0b001_001_11


@pytest.fixture
def time():
    return FakeTime()


@pytest.fixture
def chip(time):
    """One whose conversions differ, ready to be talked to."""
    counter = iter(range(1_000_000))
    chip = Chip(IMAGE, clock=time.clock, source=lambda: bytes([next(counter) % 250 + 1]) * 8)
    time.sleep(r.STARTUP_S)
    chip.write(b"\xf2\x01")
    return chip


def data(chip):
    return bytes(chip.read_register(0xF7, 8))


def measuring(chip):
    return bool(chip.read_register(0xF3, 1)[0] & 0x08)


def test_after_power_on_it_sleeps_and_holds_reset_values(time):
    chip = Chip(IMAGE, clock=time.clock)
    time.sleep(1)
    assert data(chip) == bytes.fromhex("8000008000008000")
    assert chip.read_register(0xF2, 4) == b"\0\0\0\0"
    assert chip.conversions == 0


def test_calibration_is_there_once_it_was_copied_from_the_non_volatile_memory(time):
    chip = Chip(IMAGE, clock=time.clock)
    assert chip.read_register(0xF3, 1)[0] & r.NVM_COPY
    assert chip.read_register(0x88, 26) == bytes(26)
    time.sleep(0.002)
    assert not chip.read_register(0xF3, 1)[0] & r.NVM_COPY
    assert chip.read_register(0x88, 26).hex() == CASES[0]["calibration_0x88"]
    assert chip.read_register(0xE1, 7).hex() == CASES[0]["calibration_0xE1"]
    assert chip.read_register(0xD0, 1) == b"\x60"


def test_forced_mode_makes_one_conversion_that_takes_its_time_and_sleeps_again(chip, time):
    chip.write(bytes([0xF4, FORCED]))
    time.sleep(CONVERSION_S - 0.0005)
    assert measuring(chip)
    assert data(chip) == r.NEVER_MEASURED
    time.sleep(0.001)
    assert not measuring(chip)
    assert data(chip) == b"\x01" * 8
    assert chip.read_register(0xF4, 1)[0] == FORCED & ~0b11
    time.sleep(10)
    assert chip.conversions == 1


@pytest.mark.parametrize(("code", "times"), [(1, 1), (2, 2), (3, 4), (4, 8), (5, 16), (7, 16)])
def test_oversampling_takes_longer(chip, time, code, times):
    chip.write(bytes([0xF2, code, 0xF4, code << 5 | code << 2 | 1]))
    expected = (1.25 + 3 * 2.3 * times + 2 * 0.575) / 1000
    time.sleep(expected - 0.0002)
    assert measuring(chip)
    time.sleep(0.0004)
    assert not measuring(chip)


def test_normal_mode_goes_on_with_a_pause_between(chip, time):
    chip.write(bytes([0xF5, 0b001_00000, 0xF4, NORMAL]))  # standby 62.5 ms
    for number in range(1, 5):
        time.sleep(CONVERSION_S + 0.0001)
        assert not measuring(chip)
        assert chip.conversions == number
        time.sleep(0.0625)
        assert measuring(chip)


def test_config_is_ignored_in_normal_mode(chip):
    chip.write(bytes([0xF4, NORMAL, 0xF5, 0b100_000_00]))
    assert chip.read_register(0xF5, 1) == b"\0"


def test_ctrl_hum_counts_only_once_ctrl_meas_is_written(time):
    chip = Chip(IMAGE, clock=time.clock)
    chip.write(bytes([0xF4, FORCED, 0xF2, 0x01]))  # too late for this conversion
    time.sleep(1)
    assert data(chip)[6:] == b"\x80\x00"
    chip.write(bytes([0xF4, FORCED]))
    time.sleep(1)
    assert data(chip) == IMAGE.data


def test_a_quantity_that_is_not_sampled_holds_its_reset_value(chip, time):
    chip.write(bytes([0xF4, 0b001_000_01]))
    time.sleep(1)
    assert data(chip) == b"\x80\x00\x00" + b"\x01" * 5


def test_a_burst_is_of_one_conversion_and_two_bursts_need_not_be(chip, time):
    chip.write(bytes([0xF5, 0, 0xF4, NORMAL]))
    time.sleep(CONVERSION_S + 0.0001)
    chip.write(b"\xf7")
    first = chip.read(3)
    time.sleep(CONVERSION_S + 0.0006)
    assert first[0] != chip.read(3)[0]
    assert len(set(data(chip))) == 1


def test_a_conversion_asked_for_while_one_runs_comes_after_it(chip, time):
    chip.write(bytes([0xF4, FORCED]))
    time.sleep(CONVERSION_S / 2)
    chip.write(bytes([0xF4, FORCED]))
    time.sleep(CONVERSION_S)
    assert measuring(chip)
    assert chip.conversions == 1
    time.sleep(CONVERSION_S)
    assert not measuring(chip)
    assert chip.conversions == 2


def test_reset_forgets_everything_and_only_the_right_word_resets(chip, time):
    chip.write(bytes([0xF5, 0x10, 0xF4, FORCED]))
    time.sleep(1)
    chip.write(b"\xe0\x12")
    assert chip.read_register(0xF5, 1) == b"\x10"
    chip.write(b"\xe0\xb6")
    assert chip.read_register(0xF2, 4) == b"\0\x01\0\0"  # copying its calibration
    assert data(chip) == r.NEVER_MEASURED


def test_a_bmp280_has_neither_ctrl_hum_nor_humidity_calibration(time):
    chip = Chip(IMAGE, chip_id=0x58, clock=time.clock)
    time.sleep(1)
    chip.write(b"\xf2\x01")
    assert chip.read_register(0xF2, 1) == b"\0"
    assert chip.read_register(0xE1, 7) == bytes(7)


@pytest.mark.parametrize(
    ("text", "said"),
    [
        (None, "No such file"),
        ("", "Expecting value"),
        ("[]", "the list is empty"),
        ("{}", "the list is empty"),
        ("[1]", "no attribute"),
        ('[{"calibration_0x88": "00"}]', "calibration_0x88 must be 26 bytes"),
        ('[{"calibration_0x88": "zz"}]', "hexadecimal"),
        ("7", "not iterable"),
    ],
)
def test_a_file_that_holds_no_images_is_refused_with_what_is_allowed(tmp_path, text, said):
    path = tmp_path / "images.json"
    if text is not None:
        path.write_text(text)
    with pytest.raises(OptionError, match="allowed is a JSON file with a list") as caught:
        options_for(Emulated, {"image": str(path)})
    assert said in str(caught.value)
    assert str(path) in str(caught.value)
