"""`iot-agent check`: right, or what `run` could not use and why."""

import pytest
from click.testing import CliRunner

from agent.cli import main
from drivers import adafruit_row

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


def test_a_sensor_whose_library_is_missing_is_one_with_what_installs_it(check, monkeypatch):
    monkeypatch.setattr(adafruit_row, "find_spec", lambda _: None)
    other = 'class = "adafruit_sht31d.SHT31D"\nfields = { CO2 = "co2" }\n'
    result = check(f'{CENTER}[[sensor]]\ndriver = "sht4x"\n[[sensor]]\nname = "roof"\ndriver = "adafruit"\n{other}')
    assert result.exit_code == 78
    assert "[[sensor]] 1: the library adafruit_sht4x of the SHT4x is not installed: `pip install 'iot" in result.stderr
    assert "[[sensor]] 2 (roof): the library adafruit_sht31d " in result.stderr
