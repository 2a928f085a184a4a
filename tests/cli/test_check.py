"""`iot-agent check`: right, or what `run` could not use and why."""

import pytest
from click.testing import CliRunner

from agent.cli import main
from agent.cli.options import Duration
from agent.registration.credentials import Credentials, CredentialStore
from agent.util.secret import Secret
from drivers import adafruit_row
from tests.unsearchable import hide

CENTER = '[center]\nurl = "http://center.local:5000"\n'


@pytest.fixture
def check(tmp_path):
    def run(text):
        path = tmp_path / "agent.toml"
        path.write_text(text)
        return CliRunner().invoke(main, ["check", "--config", str(path)])

    return run


def test_a_right_one_is_told_with_its_sensors_and_where_points_go(check):
    result = check(f'{CENTER}[[sensor]]\nname = "in"\ninterval = "1s"\n[[sensor]]\ndriver = "veml7700"\n')
    assert result.exit_code == 0, result.output
    assert "is right: in (the default) every 1s, veml7700 every 10s, to http://center.local:5000" in result.stdout


@pytest.mark.parametrize(
    "secret",
    [
        (0o644, "k3y\n", "can be read by others: chmod o-rwx"),
        (0o600, "two words\n", "does not hold a secret"),
        (0o600, "", "does not hold a secret"),
    ],
)
@pytest.mark.parametrize("key", ["center.enrollment_key_file", "influxdb.token_file"])
def test_a_secret_that_run_would_not_use_is_a_mistake(check, tmp_path, key, secret):
    mode, content, words = secret
    file = tmp_path / "secret"
    file.write_text(content)
    file.chmod(mode)
    influx = '[influxdb]\nurl = "http://i:8086"\norg = "o"\nbucket = "b"\n'
    text = (CENTER if key.startswith("center") else influx) + f'{key.partition(".")[2]} = "{file}"\n'
    result = check(text)
    assert result.exit_code == 78
    assert f": {key}: {file} " in result.stderr
    assert words in result.stderr
    assert "k3y" not in result.output
    file.write_text("k3y")
    file.chmod(0o640)
    assert check(text).exit_code == 0


@pytest.mark.parametrize("key", ["center.enrollment_key_file", "influxdb.token_file"])
def test_a_secret_in_a_folder_that_this_user_may_not_search_is_a_warning(check, tmp_path, monkeypatch, key):
    folder = tmp_path / "private"
    folder.mkdir()
    influx = '[influxdb]\nurl = "http://i:8086"\norg = "o"\nbucket = "b"\n'
    hide(monkeypatch, folder)
    text = CENTER if key.startswith("center") else influx
    result = check(f'{text}{key.partition(".")[2]} = "{folder}/secret"\n')
    assert result.exit_code == 0, result.output
    assert f"warning: {key}: {folder}/secret may not be read by this user: try sudo iot-agent check" in result.stderr


def test_all_wrong_options_of_a_driver_are_told_at_once_each_with_its_line(check, tmp_path):
    result = check(f'{CENTER}[[sensor]]\ndriver = "bme280"\niir_filter = 3\nintervall = "1s"\nbus = 999\n')
    path = tmp_path / "agent.toml"
    told = [line.removeprefix(f"iot-agent: {path}:") for line in result.stderr.splitlines()]
    assert [line[:31] for line in told] == [
        "5: [[sensor]] 1: option 'iir_fi",
        "6: [[sensor]] 1: no option 'int",
        "7: [[sensor]] 1: option 'bus' i",
    ]
    assert told[1].endswith("; did you mean interval?")


def test_a_driver_may_be_written_as_it_stands_on_the_chip(check):
    assert check(f'{CENTER}[[sensor]]\ndriver = "BME280"\n').exit_code == 0


@pytest.mark.parametrize("encoding", ["utf-16", "utf-16-be", "utf-16-le"])
def test_a_file_in_utf_16_says_what_to_do(tmp_path, encoding):
    path = tmp_path / "agent.toml"
    path.write_bytes(f"\ufeff{CENTER}".encode(encoding) if encoding.endswith("be") else CENTER.encode(encoding))
    result = CliRunner().invoke(main, ["check", "--config", str(path)])
    assert result.exit_code == 78
    assert "it is UTF-16: save it as UTF-8" in result.stderr


def test_a_mistyped_command_is_answered_with_the_near_one():
    result = CliRunner().invoke(main, ["chekc"])
    assert result.exit_code == 2
    assert "no command 'chekc': did you mean check?" in result.stderr
    assert "No such command 'frobnicate'" in CliRunner().invoke(main, ["frobnicate"]).stderr


def test_status_of_an_agent_that_does_not_run_tells_whose_it_is_and_where_it_writes(tmp_path):
    (tmp_path / "device.id").write_text("pi-7\n")
    said = CliRunner().invoke(main, ["status", "--state-dir", str(tmp_path)]).stdout
    assert "Device pi-7 Agent not running" in " ".join(said.split())
    CredentialStore(tmp_path).save(
        Credentials("http://c", "pi-8", "iot-center", Secret("t0ps3cret"), url="http://db:8086", bucket="air")
    )
    said = " ".join(CliRunner().invoke(main, ["status", "--state-dir", str(tmp_path)]).stdout.split())
    assert "Device pi-8 Agent" in said
    assert "Server http://db:8086, bucket air" in said
    assert "t0ps3cret" not in said


@pytest.mark.parametrize(("text", "seconds"), [("25", 25), ("25s", 25), ("0.5", 0.5), ("2m", 120)])
def test_a_duration_of_a_command_may_be_a_number_of_seconds(text, seconds):
    assert Duration().convert(text, None, None) == seconds


def test_a_sensor_whose_library_is_missing_is_one_with_what_installs_it(check, monkeypatch):
    monkeypatch.setattr(adafruit_row, "find_spec", lambda _: None)
    other = 'class = "adafruit_sht31d.SHT31D"\nfields = { CO2 = "co2" }\n'
    result = check(f'{CENTER}[[sensor]]\ndriver = "sht4x"\n[[sensor]]\nname = "roof"\ndriver = "adafruit"\n{other}')
    assert result.exit_code == 78
    assert "[[sensor]] 1: the library adafruit_sht4x of the SHT4x is not installed: `pip install 'iot" in result.stderr
    assert "[[sensor]] 2 (roof): the library adafruit_sht31d " in result.stderr
