"""The 200 register images that Bosch's reference driver computed, through the whole driver and through the command.

Bosch's driver cuts humidity to 0 to 100 %; a few of the images, made at random, are far outside and must be refused.
"""

import json
from pathlib import Path

import pytest
from click.testing import CliRunner

from agent.cli import main
from drivers.base import load, options_for

IMAGES = Path(__file__).parents[1] / "data/bme280-bosch.json"
CASES = json.loads(IMAGES.read_text())
GOLDEN = (("Temperature", "temperature_degC"), ("Pressure", "pressure_hPa"), ("Humidity", "humidity_pctRH"))


def far_outside(case):
    """Whether Bosch's formula (datasheet 4.2.3, in double precision) is more than 10 % outside before the cut."""
    calibration = bytes.fromhex(case["calibration_0x88"] + case["calibration_0xE1"])
    h1, h2, h3 = calibration[25], int.from_bytes(calibration[26:28], "little", signed=True), calibration[28]
    middle = calibration[30]
    h4 = int.from_bytes(calibration[29:30], signed=True) << 4 | middle & 0xF
    h5 = int.from_bytes(calibration[31:32], signed=True) << 4 | middle >> 4
    h6 = int.from_bytes(calibration[32:33], signed=True)
    warm = case["temperature_degC"] * 5120 - 76800
    x = int(case["data_0xF7"][12:], 16) - (h4 * 64 + h5 / 16384 * warm)
    x *= h2 / 65536 * (1 + h6 / 67108864 * warm * (1 + h3 / 67108864 * warm)) * (1 + h3 / 67108864 * warm)
    humidity = x * (1 - h1 * x / 524288)
    return not -10 < humidity < 110


def assert_golden(readings):
    assert len(readings) == len(CASES) == 200
    assert sum(map(far_outside, CASES)) == 26
    for values, case in zip(readings, CASES, strict=True):
        for field, key in GOLDEN:
            if field == "Humidity" and far_outside(case):
                assert field not in values
            else:
                assert values[field] == pytest.approx(case[key], abs=0.001)


@pytest.mark.parametrize("options", [{}, {"mode": "normal", "oversampling": 16, "iir_filter": 4, "standby": "10ms"}])
def test_every_image_reads_as_boschs_driver_computes_it(options):
    kind = load("emulated")
    with kind(options_for(kind, {"image": str(IMAGES), **options})) as driver:
        assert_golden([driver.read().values for _ in CASES])


def test_read_prints_one_json_object_for_each_image_in_order():
    command = ["read", "--driver", "emulated", "--option", f"image={IMAGES}", "--count", "200", "--json"]
    result = CliRunner().invoke(main, command)
    assert result.exit_code == 0, result.output
    assert_golden([json.loads(line) for line in result.stdout.splitlines()])


def test_after_the_last_image_the_first_comes_again():
    kind = load("emulated")
    with kind(options_for(kind, {"image": str(IMAGES)})) as driver:
        values = [driver.read().values for _ in range(201)]
    assert values[200] == values[0]
