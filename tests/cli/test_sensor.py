"""`iot-agent read` and `scan` as their users meet them."""

import json
import os
import subprocess
import sys
import time
from datetime import datetime
from io import StringIO
from pathlib import Path

import pytest
from click.testing import CliRunner
from rich.console import Console, Group

import agent.cli.sensor
from agent.cli import main
from agent.cli.live import live
from drivers.base import Reading, boot_ns
from drivers.virtual import Virtual

TO = '[influxdb]\nurl = "http://localhost:8086"\norg = "o"\nbucket = "b"\ntoken_file = "t"\n'


@pytest.fixture(autouse=True)
def no_pause(monkeypatch):
    monkeypatch.setattr(agent.cli.sensor, "PAUSE_S", 0.001)


def run(*arguments):
    return CliRunner().invoke(main, arguments)


def configured(tmp_path, text):
    path = tmp_path / "agent.toml"
    path.write_text(text + TO)
    return "--config", str(path)


def test_virtual_readings_have_the_fields_of_the_data_model():
    result = run("read", "--driver", "virtual", "--count", "2", "--json")
    first, second = map(json.loads, result.stdout.splitlines())
    assert set(first) == set(second) == {"time", "Temperature", "Humidity", "Pressure", "CO2", "TVOC", "Lat", "Lon"}
    assert abs(datetime.fromisoformat(second["time"]).timestamp() - time.time()) < 60
    assert len(repr(first["Temperature"])) > 8  # full precision


def test_without_json_it_draws_a_table():
    result = run("read", "--driver", "virtual", "--count", "2")
    assert result.exit_code == 0
    for word in ("Temperature", "°C", "Humidity", "%RH", "CO₂", "ppm", "virtual weather (seed 0)", "2 readings"):
        assert word in result.stdout


def test_without_a_driver_it_reads_the_configured_sensors(tmp_path):
    text = '[[sensor]]\nname = "in"\ndriver = "virtual"\n[[sensor]]\nname = "out"\ndriver = "emulated"\n'
    result = run("read", "--count", "2", "--json", *configured(tmp_path, text))
    assert [json.loads(line)["sensor"] for line in result.stdout.splitlines()] == ["in", "out", "in", "out"]


DEAD = Path(__file__).parents[1] / "data/bme280-dead-humidity.json"


def test_promise_4_a_dead_humidity_element_is_shown_as_refused_and_the_others_are_read():
    emulated = ("read", "--driver", "emulated", "--option", f"image={DEAD}", "--option", "dew_point=true")
    found = json.loads(run(*emulated, "--count", "1", "--json").stdout)
    assert set(found) == {"time", "Temperature", "Pressure", "refused"}
    assert set(found["refused"]) == {"Humidity"}
    text = " ".join(run(*emulated, "--count", "1").stdout.split())
    assert "refused: its register" in text


def test_what_run_would_refuse_is_shown_with_its_value_as_refused(monkeypatch):
    values = iter([20.0, 60.0, 20.1])
    monkeypatch.setattr(Virtual, "read", lambda _: Reading({"Temperature": next(values)}, boot_ns()))
    lines = run("read", "--driver", "virtual", "--count", "3", "--json").stdout.splitlines()
    found = [json.loads(line) for line in lines]
    assert [line["Temperature"] for line in found] == [20.0, 60.0, 20.1]
    assert ["refused" in line for line in found] == [False, True, False]
    assert "changed by 40 °C" in found[1]["refused"]["Temperature"]


@pytest.mark.parametrize("calibration", ["offset.Temperature=-2", "calibrate.Temperature=[[0,-2],[100,98]]"])
def test_the_calibration_is_applied_and_shown(monkeypatch, calibration, tmp_path):
    monkeypatch.setattr(Virtual, "read", lambda _: Reading({"Temperature": 20.0, "Humidity": 50.0}, boot_ns()))
    options = ("--driver", "virtual", "--option", calibration, "--option", "derive=DewPoint,VPD", "--count", "1")
    found = json.loads(run("read", *options, "--json").stdout)
    assert found["Temperature"] == 18.0
    assert found["calibration"] == {"Temperature": "1 * measured - 2 °C"}
    assert found["DewPoint"] == pytest.approx(7.4, abs=0.1)
    assert "VPD" in found
    assert "1 * measured - 2 °C" in " ".join(run("read", *options).stdout.split())
    config = configured(tmp_path, '[[sensor]]\ndriver = "virtual"\noffset = { Temperature = -2 }\n')
    assert json.loads(run("read", "--count", "1", "--json", *config).stdout)["Temperature"] == 18.0


def test_a_failing_sensor_does_not_hide_the_others(tmp_path):
    text = '[[sensor]]\nname = "a"\ndriver = "virtual"\nerrors = 1.0\n[[sensor]]\nname = "b"\ndriver = "virtual"\n'
    result = run("read", "--count", "3", "--json", *configured(tmp_path, text))
    assert result.exit_code == 0
    assert [json.loads(line)["sensor"] for line in result.stdout.splitlines()] == ["b"] * 3
    assert result.stderr.count("failed a reading on purpose") == 3


def test_what_fails_is_a_row_of_the_table_and_nothing_beside_it(tmp_path):
    text = '[[sensor]]\nname = "a"\ndriver = "virtual"\nerrors = 1.0\n[[sensor]]\nname = "b"\ndriver = "virtual"\n'
    result = run("read", "--count", "1", *configured(tmp_path, text))
    assert result.exit_code == 0
    assert "on purpose" not in result.stderr
    text = " ".join(result.stdout.split())
    assert text.startswith("a: virtual weather (seed 0) failed: the virtual sensor failed a reading on purpose: ")
    assert "b: virtual weather (seed 0) Temperature" in text
    assert text.endswith(" 1 reading")


def test_it_exits_1_if_none_succeeded(tmp_path):
    text = "".join(f'[[sensor]]\nname = "{n}"\ndriver = "virtual"\nerrors = 1.0\n' for n in "ab")
    for more in ((), ("--json",)):
        result = run("read", "--count", "2", *more, *configured(tmp_path, text))
        assert result.exit_code == 1
        assert result.stdout == ""
        assert result.stderr.count("iot-agent: the virtual sensor failed a reading on purpose") == 2


@pytest.mark.parametrize("more", [(), ("--json",)])
def test_it_ends_when_nobody_reads_its_output_any_more(more):
    command = [sys.executable, "-m", "agent.cli", "read", "--driver", "virtual", *more]
    process = subprocess.Popen(command, stdout=subprocess.PIPE, stderr=subprocess.PIPE)
    assert process.stdout.readline()
    process.stdout.close()
    assert b"Traceback" not in process.stderr.read()
    process.stderr.close()
    process.wait(30)


def test_a_terminal_that_knows_ascii_alone_is_shown_what_it_can_show():
    ascii_only = {**os.environ, "PYTHONIOENCODING": "ascii", "PYTHONUTF8": "0"}
    command = [sys.executable, "-m", "agent.cli", "read", "--driver", "virtual", "--count", "1"]
    done = subprocess.run(command, env=ascii_only, capture_output=True, text=True, timeout=60, check=False)
    assert (done.returncode, done.stderr) == (0, "")
    assert "?C" in done.stdout


def test_at_a_terminal_all_is_drawn_in_its_place_and_the_last_stays_whole():
    out = StringIO()
    terminal = Console(file=out, force_terminal=True, width=80, height=6, color_system=None)
    with live(terminal) as draw:
        for number in range(3):
            draw(Group(*(f"{number}: row {row}" for row in range(9))))
    *drawn, last = out.getvalue().split("\x1b[?1049l")  # back to the screen that was there before
    assert drawn[0].startswith("\x1b[?1049h")
    assert "… 4 more rows" in drawn[0]
    assert last.replace("\x1b[?25h", "").split("\n")[:9] == [f"2: row {row}" for row in range(9)]


def test_a_sensor_that_is_not_there_ends_it_with_one_line():
    result = run("read", "--driver", "bme280", "--option", "bus=250", "--json")
    assert result.exit_code == 1
    assert result.stdout == ""
    assert result.stderr.startswith("iot-agent: no I2C bus /dev/i2c-250: ")
    assert result.stderr.count("\n") == 1


def test_a_driver_that_breaks_is_named_in_one_line(monkeypatch):
    monkeypatch.setattr(Virtual, "read", lambda _: {}["oops"])
    result = run("read", "--driver", "virtual", "--json")
    assert result.exit_code == 1
    assert result.stderr == "iot-agent: virtual weather (seed 0): the driver failed with KeyError: 'oops'\n"


def test_a_sensor_that_stops_answering_is_tried_some_more_times(monkeypatch):
    read, calls = Virtual.read, []

    def fails_later(self):
        calls.append(1)
        return read(self) if len(calls) < 3 else {}["oops"]

    monkeypatch.setattr(Virtual, "read", fails_later)
    result = run("read", "--driver", "virtual", "--json")
    assert result.exit_code == 1
    assert len(result.stdout.splitlines()) == 2
    assert len(calls) == 2 + agent.cli.sensor.ROUNDS_IN_VAIN


@pytest.mark.parametrize(
    ("arguments", "said"),
    [
        (("--driver", "bme281"), "no driver 'bme281'; installed are"),
        (("--driver", "virtual", "--option", "seed"), "write key=value"),
        (("--driver", "virtual", "--option", "seed=x"), "option 'seed' is 'x': allowed is a whole number from 0"),
        (("--driver", "virtual", "--option", "sed=1"), "did you mean 'seed'?"),
        (("--option", "seed=1"), "--option needs --driver"),
        (("--driver", "virtual", "--count", "0"), "--count"),
        (("--driver", "virtual", "--option", "offset.Warmth=1"), "offset.Warmth: no quantity that is measured"),
        (("--driver", "virtual", "--option", "offset.Temperature=x"), "offset"),
        (("--driver", "virtual", "--option", "calibrate.CO2=[[1,2]]"), "[[measured, true], [measured, true]]"),
        (("--driver", "virtual", "--option", "derive=Dew"), "'Dew' is nothing that can be derived"),
        (("--driver", "virtual", "--option", "altitude=9001"), "altitude = 9001: must be metres"),
        (("--driver", "emulated", "--option", "image=/nowhere"), "option 'image' is '/nowhere': No such file"),
    ],
)
def test_a_wrong_call_says_what_is_right(arguments, said):
    result = run("read", "--json", *arguments)
    assert result.exit_code == 2
    assert said in result.stderr


def test_a_wrong_configuration_is_named_with_exit_78(tmp_path):
    result = run("read", *configured(tmp_path, '[[sensor]]\ndriver = "bme280"\niir_filter = 3\n'))
    assert result.exit_code == 78
    assert "option 'iir_filter' is 3: allowed are 0, 2, 4, 8, 16" in result.stderr
    assert run("read", "--config", str(tmp_path / "none.toml")).exit_code == 78


@pytest.mark.skipif(any(Path("/dev").glob("i2c-*")), reason="there is an I2C bus")
def test_scan_without_any_bus_says_how_to_enable_it():
    result = run("scan")
    assert result.exit_code == 1
    assert "no I2C bus on this machine: enable I2C with `sudo raspi-config nonint do_i2c 0`" in result.stderr
