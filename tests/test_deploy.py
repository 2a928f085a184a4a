"""deploy/: the scripts are clean, --dry-run changes nothing, the unit is sandboxed and says what FACTS promise."""

import configparser
import os
import re
import shutil
import subprocess
import tomllib
from pathlib import Path

import pytest

from agent import runner
from drivers.adafruit_table import ROWS

ROOT = Path(__file__).parent.parent
DEPLOY = ROOT / "deploy"
DEBIAN = [path for path in (DEPLOY / "debian").iterdir() if path.read_bytes().startswith(b"#!")]
SCRIPTS = ("install.sh", "uninstall.sh", "take-boot-config", "wrapper")


def tool(name, package):
    return pytest.mark.skipif(shutil.which(name) is None, reason=f"install Debian's package {package}")


def sh(*command, **options):
    return subprocess.run(command, capture_output=True, text=True, check=False, timeout=60, **options)


def unit():
    parser = configparser.ConfigParser(strict=False, interpolation=None)
    parser.optionxform = str
    parser.read(ROOT / "agent" / "iot-agent.service")
    return parser


@tool("shellcheck", "shellcheck")
def test_shellcheck_finds_nothing_in_the_scripts():
    ours = [DEPLOY / name for name in SCRIPTS], (DEPLOY / "examples").glob("*.sh"), DEBIAN
    result = sh("shellcheck", *(path for paths in ours for path in paths))
    assert result.stdout + result.stderr == ""


@tool("systemd-analyze", "systemd")
def test_the_unit_scores_at_most_2_in_systemd_analyze_security():
    result = sh("systemd-analyze", "security", "--offline=yes", "--threshold=20", ROOT / "agent" / "iot-agent.service")
    assert result.returncode == 0, result.stdout
    assert "Overall exposure level" in result.stdout


@tool("systemd-analyze", "systemd")
@pytest.mark.parametrize("name", ["agent/iot-agent.service", "center/iot-center.service"])
def test_systemd_understands_every_line_of_the_unit(name):
    said = sh("systemd-analyze", "verify", ROOT / name).stderr.splitlines()
    assert [line for line in said if Path(name).name in line and "is not executable" not in line] == []


def test_the_unit_starts_without_network_and_restarts_for_ever_but_not_on_a_bad_configuration():
    parsed = unit()
    assert parsed["Unit"]["StartLimitIntervalSec"] == "0"
    assert "online" not in " ".join(parsed["Unit"].values())
    service = parsed["Service"]
    assert (service["Type"], service["Restart"], service["RestartPreventExitStatus"]) == ("notify", "always", "78")
    assert service["User"] == "iot-agent"


def test_the_watchdog_waits_longer_than_the_agent_takes_to_call_a_loop_stalled():
    assert float(unit()["Service"]["WatchdogSec"]) > runner.STALLED_S


def test_install_dry_run_prints_every_step_and_changes_nothing(tmp_path):
    before = sorted(Path("/etc").iterdir()), Path("/opt/iot-agent").exists()
    result = sh(DEPLOY / "install.sh", "--dry-run", "--center", "http://center.local:5000", "--no-i2c")
    assert result.returncode == 0, result.stderr
    steps = [line for line in result.stdout.splitlines() if line.startswith("  + ")]
    for step in ("-m venv", "pip install", "write /etc/iot-agent/agent.toml (mode 640)", "iot-agent.service"):
        assert any(step in line for line in steps), (step, steps)
    assert (sorted(Path("/etc").iterdir()), Path("/opt/iot-agent").exists()) == before


def pip_installs(result):
    (line,) = [line for line in result.stdout.splitlines() if "pip install" in line]
    return line.split()[-1].replace("\\", "")


def test_a_sensor_s_library_is_installed_where_it_is_asked_for_or_named_by_agent_toml(tmp_path):
    install = (DEPLOY / "install.sh", "--dry-run", "--no-i2c")
    assert pip_installs(sh(*install)).endswith("/source")
    assert pip_installs(sh(*install, "--sensor", "bme280")).endswith("/source")
    assert pip_installs(sh(*install, "--sensor", "scd4x", "--sensor", "sht4x")).endswith("/source[scd4x,sht4x]")
    config = tmp_path / "agent.toml"
    config.write_text(
        '[[sensor]]\nname = "a"\ndriver = "veml7700"  # light\n[[sensor]]\n  driver="sht4x"\n# driver = "aht20"\n'
    )
    both = sh(*install, "--config", config, "--sensor", "sht4x")
    assert pip_installs(both).endswith("/source[sht4x,veml7700]")
    assert "scan --write" not in both.stderr


def test_a_driver_named_in_single_quotes_is_seen_too(tmp_path):
    config = tmp_path / "agent.toml"
    config.write_text("[[sensor]]\ndriver = 'scd4x'\n")
    result = sh(DEPLOY / "install.sh", "--dry-run", "--no-i2c", "--config", config)
    assert pip_installs(result).endswith("/source[scd4x]")


def test_a_package_beside_the_agent_is_installed_and_remembered_for_upgrades(tmp_path):
    """Each version has a venv of its own: what was put into the last one by hand is not in the next."""
    install = (DEPLOY / "install.sh", "--dry-run", "--no-i2c")
    result = sh(*install, "--package", "adafruit-circuitpython-sht31d", "--package", tmp_path)
    assert result.returncode == 0, result.stderr
    (line,) = [line for line in result.stdout.splitlines() if "pip install" in line]
    assert f"adafruit-circuitpython-sht31d {tmp_path} " in line
    assert "write /etc/iot-agent/packages (mode 644)" in result.stdout
    assert "packages" not in sh(*install).stdout


def test_the_sensors_that_install_knows_are_the_extras_of_pyproject():
    extras = tomllib.loads((ROOT / "pyproject.toml").read_text())["project"]["optional-dependencies"]
    (known,) = re.findall(r"(?m)^libraries=' (.*) '", (DEPLOY / "install.sh").read_text())
    assert set(known.split()) == set(extras) - {"center", "test", "mutants", "check", "release", "sensors"} == set(ROWS)
    assert {f"iot-edge-agent[{known.replace(' ', ',')}]"} == set(extras["sensors"])


def test_one_wire_is_switched_on_for_a_ds18b20():
    result = sh(DEPLOY / "install.sh", "--dry-run", "--no-i2c", "--sensor", "ds18b20")
    assert result.returncode == 0, result.stderr
    assert "one-wire works after a reboot" in result.stderr
    assert "one-wire" not in sh(DEPLOY / "install.sh", "--dry-run", "--no-i2c").stderr


def test_uninstall_dry_run_keeps_the_data_unless_purge():
    kept = sh(DEPLOY / "uninstall.sh", "--dry-run").stdout
    purged = sh(DEPLOY / "uninstall.sh", "--dry-run", "--purge").stdout
    removed = [line for line in kept.splitlines() if line.startswith("  + rm")]
    assert removed
    assert not any("/var/lib/iot-agent" in line or "/etc/iot-agent" in line for line in removed)
    assert "+ rm -rf /etc/iot-agent" in purged
    assert "/var/lib/iot-agent" in purged


@pytest.mark.parametrize(
    ("arguments", "said"),
    [
        (["--center", "center.local"], "must be a URL"),
        (["--center", 'http://x/"'], "no quotes"),
        (["--device-id", "a b"], "only A-Z"),
        (["--config", "/nonexistent"], "/nonexistent cannot be read"),
        (["--config", "/etc"], "/etc is empty, or no file"),
        (["--enrollment-key", "/dev/null"], "/dev/null is empty, or no file"),
        (["--wheelhouse", "/nonexistent"], "no iot_edge_agent wheel"),
        (["--sensor", "scd30"], "--sensor scd30: there are bme280 bmp280"),
        (["--package", "--index-url=x"], "a name, a wheel or a folder"),
        (["--frobnicate"], "unknown option"),
        (["--center"], "needs a value"),
    ],
)
def test_install_refuses_what_cannot_work_with_a_reason(arguments, said):
    result = sh(DEPLOY / "install.sh", "--dry-run", *arguments)
    assert result.returncode == 1
    assert said in result.stderr


@pytest.mark.parametrize("url", ["http://c:5000/a|b", "http://c/&/x", r"http://c/'$(id)`id`", "http://c/[.*]^#/\\2"])
def test_whatever_stands_in_a_url_is_in_agent_toml_as_it_was_given(url):
    result = sh(DEPLOY / "install.sh", "--dry-run", "--no-i2c", "--center", url.replace("\\", ""))
    assert result.returncode == 0, result.stderr
    (function,) = re.findall(r"(?ms)^set_key\(\) .*?^}$", (DEPLOY / "install.sh").read_text())
    script = f"""edits=(); {function}
      set_key 'url = "http://center.local:5000"' url "$1"; set_key '# id = .*' id "a&b|c"
      sed "${{edits[@]}}" {ROOT}/agent/agent.toml.example"""
    written = sh("bash", "-euc", script, "bash", url).stdout.replace("\\", "\\\\")
    assert tomllib.loads(written)["center"]["url"] == url
    assert tomllib.loads(written)["device"]["id"] == "a&b|c"


class TestBootPartition:
    def take(self, tmp_path):
        return sh(
            DEPLOY / "take-boot-config",
            env={**os.environ, "IOT_AGENT_ETC": str(tmp_path / "etc"), "IOT_AGENT_BOOT": str(tmp_path / "boot")},
        )

    def test_configuration_and_key_are_taken_from_it_at_the_first_start(self, tmp_path):
        (tmp_path / "boot").mkdir()
        (tmp_path / "boot/iot-agent.toml").write_bytes(b'[center]\r\nurl = "http://c:5000"\r\n')
        (tmp_path / "boot/iot-agent-enrollment.key").write_text("k3y\n")
        assert self.take(tmp_path).returncode == 0
        taken = tmp_path / "etc/agent.toml"
        assert taken.read_bytes() == b'[center]\nurl = "http://c:5000"\n'
        assert (tmp_path / "etc/enrollment.key").read_text() == "k3y\n"
        assert (tmp_path / "etc/enrollment.key").stat().st_mode & 0o777 == 0o640
        assert not (tmp_path / "boot/iot-agent-enrollment.key").exists()

    def test_a_configuration_that_is_there_is_never_replaced(self, tmp_path):
        for folder in ("boot", "etc"):
            (tmp_path / folder).mkdir()
        (tmp_path / "etc/agent.toml").write_text("mine")
        (tmp_path / "boot/iot-agent.toml").write_text("other")
        assert self.take(tmp_path).returncode == 0
        assert (tmp_path / "etc/agent.toml").read_text() == "mine"

    @pytest.mark.parametrize("broken", ["no folder", "no file", "full"])
    def test_promise_3_a_configuration_that_cannot_be_kept_is_said_and_no_failure(self, tmp_path, broken):
        (tmp_path / "boot").mkdir()
        (tmp_path / "boot/iot-agent.toml").write_text("x")
        (tmp_path / "boot/iot-agent-enrollment.key").write_text("k3y")
        if broken == "no folder":
            (tmp_path / "etc").write_text("a file")
        else:
            (tmp_path / "etc").mkdir()
            for name in ("agent.toml", "enrollment.key"):
                if broken == "no file":
                    (tmp_path / f"etc/{name}.new").mkdir()
                else:
                    (tmp_path / f"etc/{name}.boot").symlink_to("/dev/full")
        result = self.take(tmp_path)
        assert result.returncode == 0
        assert result.stdout.count("was not taken: ") == 2
        assert (tmp_path / "boot/iot-agent-enrollment.key").read_text() == "k3y"
        assert not (tmp_path / "etc/agent.toml").exists()
        assert unit()["Service"]["ExecStartPre"].startswith("-+")

    def test_what_is_too_large_to_be_a_configuration_or_a_key_is_not_taken(self, tmp_path):
        (tmp_path / "boot").mkdir()
        for name, most in (("iot-agent.toml", 1_000_000), ("iot-agent-enrollment.key", 65_536)):
            with (tmp_path / "boot" / name).open("wb") as file:
                file.truncate(most + 1)
        result = self.take(tmp_path)
        assert result.returncode == 0
        assert "larger than 1000000 bytes" in result.stdout
        assert "larger than 65536 bytes" in result.stdout
        assert list((tmp_path / "etc").iterdir()) == []

    def test_the_folder_that_it_makes_can_be_entered_by_the_agent(self, tmp_path):
        (tmp_path / "boot").mkdir()
        (tmp_path / "boot/iot-agent.toml").write_text("x")
        assert self.take(tmp_path).returncode == 0
        assert (tmp_path / "etc").stat().st_mode & 0o777 == 0o755

    def test_empty_files_as_a_power_cut_leaves_them_on_fat_are_not_taken_for_good(self, tmp_path):
        (tmp_path / "boot").mkdir()
        for name in ("iot-agent.toml", "iot-agent-enrollment.key"):
            (tmp_path / "boot" / name).touch()
        result = self.take(tmp_path)
        assert result.returncode == 0
        assert result.stdout.count("was not taken: it is empty") == 2
        assert list((tmp_path / "etc").iterdir()) == []
        assert (tmp_path / "boot/iot-agent-enrollment.key").exists()

    def test_nothing_on_it_is_no_failure(self, tmp_path):
        result = self.take(tmp_path)
        assert result.returncode == 0
        assert "no iot-agent.toml on the boot partition" in result.stdout


class TestI2c:
    """install.sh on a Raspberry Pi with I2C off, as far as it can be shown without one."""

    @pytest.fixture
    def pi(self, tmp_path):
        if any(Path("/dev").glob("i2c-*")):
            pytest.skip("this machine has an I2C bus")
        tools = tmp_path / "bin"
        tools.mkdir()

        def install(options="rw"):
            for name, text in (("raspi-config", "echo 1"), ("findmnt", f"echo {options},relatime")):
                (tools / name).write_text(f"#!/bin/sh\n{text}\n")
                (tools / name).chmod(0o755)
            path = f"{tools}:{os.environ['PATH']}"
            return sh(DEPLOY / "install.sh", "--dry-run", env={**os.environ, "PATH": path})

        return install

    def test_it_is_switched_on_live_through_raspi_config(self, pi):
        result = pi()
        assert "+ raspi-config nonint do_i2c 0" in result.stdout
        assert result.returncode == 0

    def test_a_read_only_boot_partition_is_named_with_the_remedy(self, pi):
        result = pi("ro")
        assert "do_i2c" not in result.stdout
        assert "is read-only: mount -o remount,rw" in result.stderr
        assert result.returncode == 0
