"""The 200 register images that Bosch's reference driver computed, through the whole driver and through the command."""

import json
from pathlib import Path

import pytest
from click.testing import CliRunner

from agent.cli import main
from drivers.base import load, options_for

IMAGES = Path(__file__).parents[1] / "data/bme280-bosch.json"
CASES = json.loads(IMAGES.read_text())
GOLDEN = (("Temperature", "temperature_degC"), ("Pressure", "pressure_hPa"), ("Humidity", "humidity_pctRH"))


def assert_golden(readings):
    assert len(readings) == len(CASES) == 200
    for values, case in zip(readings, CASES, strict=True):
        for field, key in GOLDEN:
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
