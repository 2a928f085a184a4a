"""`iot-center config`, `init` and `install-service`."""

import os
import subprocess
import sys
from pathlib import Path

import pytest
from click.testing import CliRunner

from center.cli import main
from center.settings_files import load
from tests.terminal import answered

PASSWORD = "correct horse battery"


def init(folder, *arguments, text=""):
    """As a process: it calls others, which read the same standard input."""
    environment = {name: value for name, value in os.environ.items() if not name.startswith(("INFLUX_", "IOT_"))}
    return subprocess.run(
        [sys.executable, "-m", "center", "init", *arguments],
        cwd=folder,
        env=environment | {"XDG_STATE_HOME": str(folder / "state"), "PYTHONPATH": str(Path.cwd())},
        input=text,
        capture_output=True,
        text=True,
        timeout=60,
        check=False,
    )


def test_config_prints_the_documented_configuration_which_is_right(tmp_path):
    (tmp_path / "center.toml").write_text(CliRunner().invoke(main, ["config"]).stdout)
    assert load(tmp_path / "center.toml", environ={}, folder=tmp_path).server.port == 5000


def test_an_embedded_center_for_this_machine_needs_nothing_more(tmp_path):
    said = init(tmp_path, "--embedded", "--config", "center.toml")
    assert said.returncode == 0, said.stderr
    settings = load(tmp_path / "center.toml", environ={}, folder=tmp_path)
    assert settings.embedded
    assert (tmp_path / "center.toml").stat().st_mode & 0o777 == 0o600
    assert "opens; 0 devices" in said.stdout
    assert "iot-agent init --center http://127.0.0.1:5000" in said.stdout
    assert "is there already" in init(tmp_path, "--embedded", "--config", "center.toml").stderr


def test_on_the_network_it_sets_the_password_and_says_how_a_device_gets_its_key(tmp_path):
    said = init(tmp_path, "--embedded", "--host", "0.0.0.0", "--config", "center.toml", text=PASSWORD)
    assert said.returncode == 0, said.stderr
    assert "the password is set" in said.stdout
    assert "iot-center enroll" in said.stdout
    assert PASSWORD not in said.stdout + (tmp_path / "center.toml").read_text()


@pytest.mark.parametrize(
    ("options", "words"),
    [
        (("--influxdb", "http://i:8086"), "--org is missing"),
        (("--influxdb", "i", "--org", "o"), "--token-file is missing"),
        (("--influxdb", "http://i:8086", "--embedded"), "--embedded or --influxdb, not both"),
        (("--influxdb", "i", "--org", "o", "--token-file", "token"), "influxdb.url: 'i' is not a URL"),
        (("--influxdb", "http://i", "--org", "o", "--token-file", "empty"), "--token-file empty holds no token"),
        (
            ("--influxdb", "http://i", "--org", "o", "--token-file", "no"),
            "--token-file no cannot be read: No such file",
        ),
        (("--embedded", "--host", "no such host"), "'no such host' is no address"),
        (("--embedded", "--host", "1"), "'1' is no address of this machine"),
    ],
)
def test_what_is_missing_or_wrong_is_named_and_nothing_is_written(tmp_path, options, words):
    (tmp_path / "token").write_text("TOKEN\n")
    (tmp_path / "empty").write_text("\n")
    said = init(tmp_path, "--config", "center.toml", *options)
    assert said.returncode in (2, 78)
    assert words in said.stderr
    assert {file.name for file in tmp_path.iterdir()} == {"token", "empty"}


def test_a_step_that_failed_is_named_so_that_it_can_be_called_again(tmp_path):
    (tmp_path / "token").write_text("TOKEN\n")
    said = init(
        tmp_path, "--influxdb", "http://127.0.0.1:1", "--org", "o", "--token-file", "token", "--config", "c.toml"
    )
    assert said.returncode == 78
    assert "c.toml is written, but iot-center setup --config c.toml failed" in said.stderr


def test_a_password_that_is_too_short_is_asked_for_again_at_a_terminal(tmp_path):
    command = [sys.executable, "-m", "center", "init", "--embedded", "--host", "0.0.0.0", "--config", "center.toml"]
    answers = ["short", "short", PASSWORD, PASSWORD]
    said, code = answered(command, tmp_path, answers, XDG_STATE_HOME=str(tmp_path / "state"))
    assert code == 0, said
    assert "a password has at least 10 characters" in said
    assert "the password is set" in said


def test_who_breaks_off_is_told_what_is_written_and_what_it_needs(tmp_path, monkeypatch):
    def broken_off(*_, **__):
        raise KeyboardInterrupt

    monkeypatch.setattr(subprocess, "run", broken_off)
    options = ["--embedded", "--host", "0.0.0.0", "--config", str(tmp_path / "center.toml")]
    said = CliRunner().invoke(main, ["init", *options])
    assert said.exit_code == 78
    assert f"center.toml is written, but iot-center password --config {tmp_path}" in said.stderr


def test_the_unit_of_a_wheel_starts_the_python_it_is_installed_in():
    said = CliRunner().invoke(main, ["install-service", "--print"]).stdout
    assert f"ExecStart={Path(sys.executable).parent}/iot-center serve --config /etc/iot-center/center.toml" in said
