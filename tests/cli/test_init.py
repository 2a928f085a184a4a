"""`iot-agent config`, `init` and `install-service`: from a wheel to a configuration that is right."""

import os
import sys
import tomllib
from pathlib import Path

import pytest
from click.testing import CliRunner

import drivers.scan
from agent.cli import main
from agent.cli.options import SYSTEM_CONFIG, default_config
from agent.config.parse import load_settings
from agent.util import service
from center.settings_files import load
from drivers.base import SensorError
from drivers.scan import Bus, FoundChip, Sensor
from tests import terminal


def init(*arguments):
    return CliRunner().invoke(main, ["init", *arguments])


@pytest.fixture
def config(tmp_path):
    return tmp_path / "agent.toml"


def test_config_prints_the_documented_configuration_which_is_right(config):
    said = CliRunner().invoke(main, ["config"])
    config.write_text(said.stdout)
    assert load_settings(config, {}).sensor[0].driver == "bme280"


def test_all_answers_as_options_make_a_configuration_that_is_right_and_read_once(config):
    said = init(
        *("--config", str(config), "--center", "http://127.0.0.1:5000", "--sensor", "virtual", "--interval", "2s"),
        *("--device-id", "attic"),
    )
    assert said.exit_code == 0, said.output
    settings = load_settings(config, {})
    assert (settings.device.id, settings.sensor[0].driver, settings.sensor[0].interval) == ("attic", "virtual", 2)
    assert settings.center.url == "http://127.0.0.1:5000"
    assert config.stat().st_mode & 0o777 == 0o600
    assert "virtual measures: Temperature" in said.stdout
    assert f"iot-agent run --config {config}" in said.stdout


def test_promise_7_a_key_is_put_beside_the_configuration_for_the_owner_alone_and_is_not_shown(config, tmp_path):
    key = tmp_path / "key.txt"
    key.write_text("SECRET-KEY\r\n")
    said = init("--config", str(config), "--center", "http://c:5000", "--key-file", str(key), "--sensor", "virtual")
    kept = tmp_path / "enrollment.key"
    assert kept.read_text() == "SECRET-KEY\n"
    assert kept.stat().st_mode & 0o777 == 0o600
    assert load_settings(config, {}).center.enrollment_key_file == str(kept)
    assert "SECRET-KEY" not in said.output + config.read_text()


def test_promise_7_a_key_comes_by_standard_input_and_an_empty_one_is_said(config, tmp_path):
    options = ("--config", str(config), "--center", "http://c:5000", "--key-file", "-", "--sensor", "virtual")
    said = CliRunner().invoke(main, ["init", *options], input="\n")
    assert (said.exit_code, said.stderr) == (1, "iot-agent: --key-file - holds no key\n")
    assert not config.exists()
    said = CliRunner().invoke(main, ["init", *options], input="SECRET-KEY\n")
    assert said.exit_code == 0, said.output
    assert (tmp_path / "enrollment.key").read_text() == "SECRET-KEY\n"
    assert "SECRET-KEY" not in said.output + config.read_text()


@pytest.mark.parametrize(
    ("content", "words"),
    [
        (None, "cannot be read: Is a directory"),
        ("key\n".encode("utf-16"), "cannot be read: it is UTF-16: save it as UTF-8"),
        (b"[center]\nurl = 'http://c:5000'\n", "does not hold a secret: one line of printable ASCII without spaces\n"),
        (b"Token abc\n", "does not hold a secret: one line of printable ASCII without spaces\n"),
        ("sch\N{LATIN SMALL LETTER U WITH DIAERESIS}ssel".encode(), "does not hold a secret: one line of"),
    ],
)
def test_why_a_key_file_is_not_taken_is_said_in_words_and_nothing_is_written(config, tmp_path, content, words):
    key = tmp_path / "key.txt"
    key.mkdir() if content is None else key.write_bytes(content)
    said = init("--config", str(config), "--center", "http://c:5000", "--key-file", str(key), "--sensor", "virtual")
    assert said.exit_code == 1
    assert f"iot-agent: --key-file {key} {words}" in said.stderr
    assert "Errno" not in said.stderr
    assert [path.name for path in tmp_path.iterdir()] == ["key.txt"]


def test_an_influxdb_and_two_sensors(config, tmp_path):
    (tmp_path / "token").write_text("TOKEN")
    options = ("--influxdb", "http://i:8086", "--org", "o", "--key-file", str(tmp_path / "token"))
    said = init("--config", str(config), *options, "--sensor", "virtual", "--sensor", "virtual")
    assert said.exit_code == 0, said.output
    settings = load_settings(config, {})
    assert [sensor.name for sensor in settings.sensor] == ["virtual", "virtual-2"]
    assert (settings.influxdb.org, settings.influxdb.bucket) == ("o", "iot_center")
    assert (tmp_path / "influxdb.token").read_text() == "TOKEN\n"


@pytest.mark.parametrize(
    ("options", "words"),
    [
        (("--center", "http://127.0.0.1:5000"), "--sensor is missing"),
        (("--sensor", "virtual"), "--center or --influxdb is missing"),
        (("--influxdb", "http://i"), "--org is missing"),
        (("--influxdb", "http://i", "--org", "o"), "--key-file is missing"),
        (("--influxdb", "http://i", "--center", "http://c"), "not both"),
        (("--center", "http://127.0.0.1:5000", "--sensor", "vitual"), "did you mean 'virtual'?"),
        (("--center", "127.0.0.1:5000", "--sensor", "virtual"), "center.url"),
    ],
)
def test_what_is_missing_or_wrong_is_named_and_nothing_is_written(config, monkeypatch, options, words):
    monkeypatch.setattr(drivers.scan, "scan_buses", list)
    said = init("--config", str(config), *options)
    assert said.exit_code in (2, 78)
    assert words in said.stderr
    assert not list(config.parent.iterdir())


def test_a_configuration_that_is_there_stays(config):
    config.write_text("mine")
    said = init("--config", str(config), "--center", "http://127.0.0.1", "--sensor", "virtual")
    assert said.exit_code == 1
    assert "is there already" in said.stderr
    assert config.read_text() == "mine"


def test_what_the_scan_finds_is_taken_and_a_sensor_that_does_not_answer_is_said(config, monkeypatch):
    chips = (FoundChip(0x76, "BME280", 0x60, driver="bme280"),)
    monkeypatch.setattr(drivers.scan, "scan_buses", lambda: [Bus(77, chips)])
    monkeypatch.setattr(drivers.scan, "one_wire", lambda: [Sensor("ds18b20", id="28-0316a279c8ff")])
    said = init("--config", str(config), "--center", "http://127.0.0.1")
    assert said.exit_code == 0, said.output
    tables = tomllib.loads(config.read_text())["sensor"]
    assert [(table["driver"], table.get("bus")) for table in tables] == [("bme280", 77), ("ds18b20", None)]
    assert "no reading yet" in said.stderr
    assert "starts all the same" in said.stdout


def answered(folder, answers):
    return terminal.answered([sys.executable, "-m", "agent.cli", "init", "--config", "agent.toml"], folder, answers)


def test_at_a_terminal_it_asks_four_questions(tmp_path):
    """Center or InfluxDB, address, key, sensor; the key is not echoed, and the interval is the center's to say. What is
    no key is asked for again.
    """
    said, code = answered(tmp_path, ["center", "http://center.lan:5000", "Token SECRET-KEY", "SECRET-KEY", "virtual"])
    assert code == 0, said
    assert "SECRET-KEY" not in said
    assert said.count("Enrollment key") == 2
    assert (tmp_path / "enrollment.key").read_text() == "SECRET-KEY\n"
    settings = load_settings(tmp_path / "agent.toml", {})
    assert settings.center.url == "http://center.lan:5000"
    assert settings.named.isdisjoint({"sensor[0].interval"})


@pytest.mark.parametrize(("status", "typed"), [(401, ["SECRET-KEY", "virtual"]), (200, ["virtual"])])
def test_of_a_center_on_this_machine_the_key_is_asked_where_it_wants_one(tmp_path, httpserver, status, typed):
    httpserver.expect_request("/api/devices", method="GET").respond_with_json([], status)
    said, code = answered(tmp_path, ["center", httpserver.url_for("").rstrip("/"), *typed])
    assert code == 0, said
    assert ("Enrollment key" in said) == (tmp_path / "enrollment.key").exists() == (status == 401)


def test_a_wrong_answer_is_asked_for_again_and_keeps_the_others(tmp_path):
    answers = ["centre", "center", "center.lan", "http://center.lan:5000", "", "", "vitual", "virtual"]
    said, code = answered(tmp_path, answers)
    assert code == 0, said
    assert "'center.lan' is not a URL" in said
    assert "did you mean 'virtual'?" in said
    settings = load_settings(tmp_path / "agent.toml", {})
    assert (settings.center.url, settings.sensor[0].driver) == ("http://center.lan:5000", "virtual")


def test_the_unit_of_a_wheel_starts_the_python_it_is_installed_in_and_nothing_that_only_debian_brings():
    said = CliRunner().invoke(main, ["install-service", "--print"]).stdout
    programs = Path(sys.executable).parent
    assert f"ExecStart={programs}/iot-agent run --config /etc/iot-agent/agent.toml" in said
    assert "ExecStartPre" not in said
    assert "DevicePolicy=closed" in said


def test_a_service_in_a_home_is_refused_because_its_sandbox_hides_homes(monkeypatch):
    monkeypatch.setattr(service.sys, "executable", "/home/pi/venv/bin/python")
    said = CliRunner().invoke(main, ["install-service"])
    assert said.exit_code == 1
    assert "lies below /home, which the service's sandbox hides" in said.stderr


def test_a_python_whose_home_is_hidden_or_without_the_program_beside_it_makes_no_service(monkeypatch, tmp_path):
    home, programs = tmp_path / "home", tmp_path / "opt"
    for folder in (home, programs):
        folder.mkdir()
    (home / "python3").touch()
    (programs / "python").symlink_to(home / "python3")
    (programs / "iot-agent").touch()
    monkeypatch.setattr(service, "HIDDEN", (home,))
    monkeypatch.setattr(service.sys, "executable", str(programs / "python"))
    said = CliRunner().invoke(main, ["install-service"])
    assert (said.exit_code, f"{home}/python3 lies below {home}" in said.stderr) == (1, True)
    monkeypatch.setattr(service, "HIDDEN", ())
    (programs / "iot-agent").unlink()
    said = CliRunner().invoke(main, ["install-service"])
    assert (said.exit_code, f"there is no {programs}/iot-agent beside this Python" in said.stderr) == (1, True)


def test_install_service_makes_the_folder_that_init_writes_into_and_says_how_to_call_it(monkeypatch, tmp_path):
    called = []
    monkeypatch.setattr(service, "_call", lambda *command: called.append(" ".join(command)))
    monkeypatch.setattr(service, "UNITS", tmp_path)
    monkeypatch.setattr(service, "PACKAGED", tmp_path / "none")
    monkeypatch.setattr(service, "HIDDEN", ())
    programs = tmp_path / "bin"
    programs.mkdir()
    (programs / "iot-agent").touch()
    monkeypatch.setattr(service.sys, "executable", str(programs / "python"))
    monkeypatch.setattr(os, "geteuid", lambda: 0)
    said = CliRunner().invoke(main, ["install-service"])
    assert said.exit_code == 0, said.stderr
    assert f"next: sudo {programs}/iot-agent init, which starts it" in said.stdout
    assert called[0] == "groupadd --system --force iot-agent"  # also where the user is there already
    assert called.index("install -d /etc/iot-agent") < called.index("systemctl enable --quiet iot-agent.service")
    assert f"ExecStart={programs}/iot-agent run" in (tmp_path / "iot-agent.service").read_text()


def test_no_bus_says_what_to_do_and_asks_for_a_driver(config, monkeypatch):
    def none():
        raise SensorError("no I2C bus on this machine: enable I2C")

    monkeypatch.setattr(drivers.scan, "scan_buses", none)
    said = init("--config", str(config), "--center", "http://127.0.0.1")
    assert "No sensor is found: no I2C bus" in said.stderr
    assert "--sensor is missing" in said.stderr
    assert not config.exists()


def test_in_a_folder_that_the_service_s_user_may_not_look_into_the_service_s_configuration_is_taken(monkeypatch):
    """`sudo iot-agent status` in a home of mode 0700: the wrapper calls it as the user iot-agent."""
    real = os.stat

    def stat(path, *arguments, **options):
        if str(path) in ("agent.toml", str(Path.cwd() / "center.toml")):
            raise PermissionError(13, "Permission denied", str(path))
        return real(path, *arguments, **options)

    monkeypatch.setattr(os, "stat", stat)
    assert default_config() == SYSTEM_CONFIG
    assert not load(environ={}).embedded
