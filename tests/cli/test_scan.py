"""`iot-agent scan`: the tables it prints, and what --write makes of agent.toml."""

import os
import tomllib

import pytest
from click.testing import CliRunner

import drivers.scan
from agent.cli import main
from agent.cli.scan import new_sensors, with_sensors
from drivers.base import SensorError
from drivers.scan import Bus, FoundChip, Sensor

TO = '[influxdb]\nurl = "http://localhost:8086"\norg = "o"\nbucket = "b"\ntoken_file = "t"\n'
OWN = f'# mine\n[[sensor]]   # the bench\ndriver = "bme280"\ninterval = "1s"\n\n{TO}'
SCD4X, SHT4X, POND = Sensor("scd4x", 1, 0x62), Sensor("sht4x", 1, 0x44), Sensor("ds18b20", id="28-0316a279c8ff")


@pytest.fixture
def found(monkeypatch):
    """An SCD4x beside a BME280, and a DS18B20."""
    answers = (FoundChip(0x62, "SCD4x", driver="scd4x"), FoundChip(0x76, "BME280", 0x60, driver="bme280"))
    monkeypatch.setattr(drivers.scan, "scan_buses", lambda: [Bus(1, answers)])
    monkeypatch.setattr(drivers.scan, "one_wire", lambda: [POND])


@pytest.fixture
def config(tmp_path):
    path = tmp_path / "agent.toml"
    path.write_text(OWN)
    path.chmod(0o640)
    return path


def scan(config, *arguments, answer=None):
    return CliRunner().invoke(main, ["scan", "--config", str(config), *arguments], input=answer)


def test_it_prints_the_tables_of_what_is_not_configured(found, config):
    said = scan(config)
    assert said.exit_code == 0
    assert said.stdout == (
        "/dev/i2c-1\n  0x62  SCD4x\n  0x76  BME280 (chip id 0x60)\none-wire\n  28-0316a279c8ff  DS18B20\n"
        "\nNot in agent.toml yet:\n\n"
        '[[sensor]]\nname = "scd4x"\ndriver = "scd4x"\nbus = 1\naddress = 0x62\n\n'
        '[[sensor]]\nname = "ds18b20"\ndriver = "ds18b20"\nid = "28-0316a279c8ff"\n'
    )
    assert config.read_text() == OWN


def test_a_missing_library_is_named_with_what_installs_it(found, config, monkeypatch):
    monkeypatch.setattr(drivers.scan, "find_spec", lambda _: None)
    assert scan(config).stdout.endswith("\nTheir libraries: pip install 'iot-edge-agent[scd4x]'\n")


def test_after_a_yes_they_are_in_agent_toml_and_all_else_stands(found, config):
    said = scan(config, "--write", answer="y\n")
    assert said.exit_code == 0, said.output
    assert f"Write this into {config}? [y/N]" in said.stdout
    text = config.read_text()
    assert text.startswith(
        '# mine\n[[sensor]]   # the bench\nname = "bme280"\ndriver = "bme280"\ninterval = "1s"\n\n' + TO
    )
    assert [table["name"] for table in tomllib.loads(text)["sensor"]] == ["bme280", "scd4x", "ds18b20"]
    assert config.stat().st_mode & 0o777 == 0o640
    assert CliRunner().invoke(main, ["check", "--config", str(config)]).exit_code == 0
    again = scan(config, "--write")
    assert "agent.toml" not in again.stdout
    assert config.read_text() == text


@pytest.mark.parametrize("answer", ["n\n", "\n"])
def test_without_a_yes_nothing_is_written(found, config, answer):
    assert scan(config, "--write", answer=answer).exit_code == 0
    assert config.read_text() == OWN


def test_what_would_not_be_a_configuration_is_not_written(found, config):
    config.write_text(OWN.replace('"1s"', '"soon"'))
    said = scan(config, "--write", answer="y\n")
    assert said.exit_code == 78
    assert "interval" in said.stderr
    assert "soon" in config.read_text()
    assert "scd4x" not in config.read_text()


@pytest.mark.skipif(os.geteuid() == 0, reason="root may write anything")
def test_a_file_that_may_not_be_written_is_named(found, config):
    config.parent.chmod(0o555)
    assert "try it with sudo" in scan(config, "--write", answer="y\n").stderr


def test_a_file_that_is_not_there_or_no_toml_says_what_to_do(found, tmp_path):
    assert "iot-agent init makes one" in scan(tmp_path / "none.toml", "--write").stderr
    assert 'name = "bme280"' in scan(tmp_path / "none.toml").stdout
    (tmp_path / "bad.toml").write_text("[[sensor]\n")
    assert "is not valid TOML" in scan(tmp_path / "bad.toml").stderr


def test_without_i2c_the_one_wire_bus_is_still_shown(found, config, monkeypatch):
    def none():
        raise SensorError("no I2C bus on this machine", "enable it")

    monkeypatch.setattr(drivers.scan, "scan_buses", none)
    said = scan(config)
    assert said.exit_code == 0
    assert "no I2C bus" in said.stderr
    assert said.stdout.startswith("one-wire\n")
    monkeypatch.setattr(drivers.scan, "one_wire", list)
    assert scan(config).exit_code == 1


@pytest.mark.parametrize(
    ("tables", "left"),
    [
        ([], [SCD4X, SHT4X, POND]),
        ([{"driver": "sht4x"}], [SCD4X, POND]),
        ([{"driver": "sht4x", "address": "0x44"}, {"driver": "x", "address": 0x62}], [POND]),
        ([{"driver": "sht4x", "address": 0x45}, {"driver": "scd4x", "bus": 3, "address": 0x62}], [SCD4X, SHT4X, POND]),
        ([{"driver": "ds18b20", "id": "28-0316a279c8ff"}], [SCD4X, SHT4X]),
        ([{"driver": "ds18b20"}], [SCD4X, SHT4X]),
    ],
)
def test_what_a_table_reads_is_not_new(tables, left):
    assert list(new_sensors([SCD4X, SHT4X, POND], tables)) == left


def test_one_that_looks_for_its_place_reads_one_chip():
    second = Sensor("sht4x", 1, 0x45)
    assert list(new_sensors([SHT4X, second], [{"driver": "sht4x"}])) == [second]
    bmp280 = Sensor("bmp280", 1, 0x76)
    assert list(new_sensors([bmp280], [{"driver": "bme280", "humidity": False}])) == []
    assert list(new_sensors([bmp280], [{}])) == [bmp280]


def test_a_sensor_without_a_name_keeps_its_series_unless_another_measures_the_same():
    text, _ = with_sensors('[[sensor]]\ndriver = "veml7700"\n[[sensor]]\n', [SHT4X])
    assert [table.get("name") for table in tomllib.loads(text)["sensor"]] == [None, "bme280", "sht4x"]
    text, _ = with_sensors('[[sensor]]\ndriver = "veml7700"\n', [Sensor("veml7700", 1, 0x10)])
    assert [table.get("name") for table in tomllib.loads(text)["sensor"]] == ["veml7700", "veml7700-2"]


def test_names_are_free_and_each_sensor_gets_one():
    text, _ = with_sensors('[[sensor]]\nname = "scd4x"\n[[ sensor ]]\ndriver = "virtual"\n', [SCD4X, SCD4X])
    assert [table["name"] for table in tomllib.loads(text)["sensor"]] == ["scd4x", "virtual", "scd4x-2", "scd4x-3"]
    text, _ = with_sensors("", [SHT4X])
    assert tomllib.loads(text) == {"sensor": [{"name": "sht4x", "driver": "sht4x", "bus": 1, "address": 0x44}]}


@pytest.mark.parametrize(
    "table",
    [
        'driver = "bme280"\naddress = "AUTO"',
        'driver = "bme280"\naddress = "somewhere"',
        'driver = "bme280"\naddress = [1]',
        'driver = "ds18b20"\nid = 5',
        'driver = "bme280"\nname = [5]',
    ],
)
def test_a_table_that_is_wrong_is_no_reason_to_fall_over(found, config, table):
    config.write_text(f"[[sensor]]\n{table}\n{TO}")
    said = scan(config)
    assert said.exit_code == 0, said.exception
    assert "scd4x" in said.stdout


def test_an_address_or_bus_that_is_written_as_text_is_the_same_place():
    tables = [{"driver": "sht4x", "address": "0x44", "bus": "1"}, {"driver": "scd4x", "address": "98"}]
    assert list(new_sensors([SCD4X, SHT4X, POND], tables)) == [POND]


@pytest.mark.parametrize("sensors", ['sensor = [{ driver = "bme280" }]\n', '[sensor]\ndriver = "bme280"\n'])
def test_sensors_that_are_not_tables_of_an_array_are_left_alone_and_named(found, config, sensors):
    config.write_text(sensors + TO)
    said = scan(config, "--write", answer="y\n")
    assert "not written as [[sensor]] tables" in said.stderr
    assert config.read_text() == sensors + TO


def test_the_line_ends_of_windows_and_a_link_stay(found, config, tmp_path):
    real = tmp_path / "real.toml"
    real.write_bytes(OWN.replace("\n", "\r\n").encode())
    config.unlink()
    config.symlink_to(real)
    assert scan(config, "--write", answer="y\n").exit_code == 0
    assert config.is_symlink()
    written = real.read_bytes()
    assert b"scd4x" in written
    assert written.count(b"\n") == written.count(b"\r\n")


@pytest.mark.root
@pytest.mark.skipif(os.geteuid() != 0, reason="needs root")
def test_the_file_never_stands_there_with_another_owner(found, config, monkeypatch):
    """Killed right after the file is in its place: the agent, which is not root, must still be able to read it."""
    os.chown(config, 0, 12345)
    seen = []
    replace = os.replace
    monkeypatch.setattr(
        "agent.util.atomic.os.replace", lambda new, to: (seen.append(new.stat().st_gid), replace(new, to))
    )
    assert scan(config, "--write", answer="y\n").exit_code == 0
    assert seen == [12345]
    assert config.stat().st_gid == 12345
    assert config.stat().st_mode & 0o777 == 0o640
