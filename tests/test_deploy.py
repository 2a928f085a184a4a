"""deploy/: the scripts are clean, install.sh looks first, the unit is sandboxed and says what FACTS promise."""

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
SCRIPTS = ("install.sh", "take-boot-config", "wrapper")


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


def bin_with(folder, **scripts):
    """PATH with these in front, or without one that is None."""
    folder.mkdir()
    for program in ("bash", "dirname", "df", "awk", "id", "dpkg-deb"):
        if program not in scripts:
            (folder / program).symlink_to(shutil.which(program) or "/nonexistent")
    for name, text in scripts.items():
        if text is not None:
            (folder / name).write_text(f"#!/bin/sh\n{text}\n")
            (folder / name).chmod(0o755)
    return {**os.environ, "PATH": str(folder)}


@tool("dpkg-deb", "dpkg")
def test_install_dry_run_looks_and_changes_nothing():
    before = sorted(Path("/etc").iterdir()), Path("/opt/iot-agent").exists()
    result = sh(DEPLOY / "install.sh", "--dry-run")
    assert result.returncode == 0, result.stderr
    assert result.stdout == "it can be installed; nothing was changed: this was --dry-run\n"
    assert (sorted(Path("/etc").iterdir()), Path("/opt/iot-agent").exists()) == before


@pytest.mark.parametrize(
    ("arguments", "scripts", "said"),
    [
        (["--wheelhouse", "/nonexistent"], {}, "no iot_edge_agent wheel in /nonexistent: make wheelhouse"),
        (["--wheelhouse"], {}, "--wheelhouse needs a folder"),
        (["--center", "http://c:5000"], {}, "sudo iot-agent init"),
        ([], {"dpkg-deb": None}, "there is no dpkg-deb: this is for Debian and Raspberry Pi OS"),
        ([], {"df": "printf 'head\\n/dev/x 9 9 99999 1%% /opt\\n'"}, "only 97 MB free on /opt: 200 MB are needed"),
    ],
)
def test_install_refuses_what_cannot_work_with_a_reason(tmp_path, arguments, scripts, said):
    result = sh(DEPLOY / "install.sh", "--dry-run", *arguments, env=bin_with(tmp_path / "bin", **scripts))
    assert result.returncode == 1
    assert said in result.stderr


@tool("dpkg-deb", "dpkg")
@pytest.mark.parametrize("fits", [True, False])
def test_install_refuses_a_wheelhouse_of_another_version(tmp_path, fits):
    constraints = (ROOT / "constraints.txt").read_text()
    (tmp_path / "iot_edge_agent-0-py3-none-any.whl").touch()
    (tmp_path / "constraints.txt").write_text(constraints if fits else constraints.replace("==", "==1"))
    result = sh(DEPLOY / "install.sh", "--dry-run", "--wheelhouse", tmp_path)
    assert result.returncode == (not fits)
    assert ("is of another version than this checkout" in result.stderr) == (not fits)


def test_the_package_brings_the_libraries_of_all_sensors():
    extras = tomllib.loads((ROOT / "pyproject.toml").read_text())["project"]["optional-dependencies"]
    ours = set(extras) - {"center", "mqtt", "test", "mutants", "check", "release", "sensors"}
    assert ours == set(ROWS)
    (named,) = extras["sensors"]
    assert set(named.removeprefix("iot-edge-agent[").removesuffix("]").split(",")) == ours


@tool("dpkg-deb", "dpkg")
@pytest.mark.parametrize(
    ("minors", "wanted"),
    [
        ((11, 13), "python3 (>= 3.11~), python3 (<< 3.14~), python3 (<< 3.12~) | python3 (>= 3.13~)"),
        ((13,), "python3 (>= 3.13~), python3 (<< 3.14~)"),
    ],
)
def test_a_package_asks_for_the_pythons_whose_libraries_it_has_and_whatever_the_umask_others_may_read_it(
    tmp_path, minors, wanted
):
    stage = tmp_path / "stage"
    for minor in minors:
        (stage / f"opt/iot-agent/lib/python3.{minor}/site-packages").mkdir(parents=True)
    stage.chmod(0o700)
    made = sh(DEPLOY / "debian/package", "iot-agent", "all", stage, tmp_path, "-Znone", umask=0o077)
    assert made.returncode == 0, made.stderr
    (deb,) = tmp_path.glob("iot-edge-agent_*_all.deb")
    assert sh("dpkg-deb", "--field", deb, "Pre-Depends").stdout.strip() == wanted  # dpkg looks before it unpacks
    listed = sh("dpkg-deb", "--contents", deb).stdout.splitlines()
    assert {line[1:10] for line in listed} <= {"rwxr-xr-x", "rw-r--r--", "rwxrwxrwx"}
    scripts = tmp_path / "scripts"
    assert sh("dpkg-deb", "--control", deb, scripts).returncode == 0
    assert "@" not in (scripts / "postinst").read_text()
    files = {line.split()[5] for line in listed}
    assert {"./opt/iot-agent/bin/iot-agent", "./usr/lib/systemd/system/iot-agent.service"} <= files
    assert {f"./opt/iot-agent/lib/python3.{minor}/site-packages/agent/__init__.py" for minor in minors} <= files


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

    def test_a_key_in_a_comment_of_the_configuration_is_taken_as_well_and_not_in_the_place_of_one_that_is_there(
        self, tmp_path
    ):
        (tmp_path / "boot").mkdir()
        text = '# for attic\r\n# enrollment key: 3f9a.k3y_-\r\n[center]\r\nurl = "http://c:5000"'
        (tmp_path / "boot/iot-agent.toml").write_text(text, newline="")
        assert self.take(tmp_path).returncode == 0
        key, taken = tmp_path / "etc/enrollment.key", tmp_path / "etc/agent.toml"
        assert key.read_text() == "3f9a.k3y_-\n"
        assert key.stat().st_mode & 0o777 == taken.stat().st_mode & 0o777 == 0o640
        assert taken.read_text() == text.replace("\r", "")
        taken.unlink()
        key.write_text("mine")
        assert self.take(tmp_path).returncode == 0
        assert key.read_text() == "mine"

    def test_another_key_for_the_configuration_that_was_taken_is_taken_at_the_next_start(self, tmp_path):
        (tmp_path / "boot").mkdir()
        file, key, taken = (tmp_path / name for name in ("boot/iot-agent.toml", "etc/enrollment.key", "etc/agent.toml"))
        for given in ("first", "second"):
            file.write_text(f'# enrollment key: {given}\r\n[center]\r\nurl = "http://c"\r\n', newline="")
            assert self.take(tmp_path).returncode == 0
            assert (key.read_text(), given in taken.read_text()) == (f"{given}\n", True)
        assert "taken" not in self.take(tmp_path).stdout
        taken.write_text(f"{taken.read_text()}# mine\n")
        file.write_text('# enrollment key: third\n[center]\nurl = "http://c"\n')
        assert "taken" not in self.take(tmp_path).stdout
        assert key.read_text() == "second\n"

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


class Board:
    """A folder in the place of /, for the package's scripts: what asks or changes the machine is only noted."""

    NOTED = "groupadd useradd usermod chgrp install udevadm modprobe raspi-config journalctl sleep systemctl getent"

    def __init__(self, folder):
        self.root, self.programs = folder / "root", folder / "programs"
        self.programs.mkdir()
        for name in self.NOTED.split():
            self.program(name)
        self.program("timeout", 'shift; exec "$@"')
        self.program("dpkg-query", "echo 2.0")
        self.write("opt/iot-agent/bin/python", "exit 1")
        self.write("opt/iot-agent/lib/python3.11/site-packages/agent/__init__.py", '__version__ = "2.0"')
        self.write("etc/default/iot-agent", "")

    def program(self, name, text=""):
        path = self.programs / name
        path.write_text(f'#!/bin/sh\necho "${{0##*/}} $*" >>{self.programs}/log\n{text}\n')
        path.chmod(0o755)

    def write(self, name, text):
        path = self.root / name
        path.parent.mkdir(parents=True, exist_ok=True)
        path.write_text(text)
        path.chmod(0o755)

    def run(self, script, *arguments):
        text = (DEPLOY / "debian" / script).read_text().replace("@NAME@", "iot-agent")
        text = re.sub(r"(?<![\w$}])/(opt|etc|boot|var/lib|usr/local|run/systemd)\b", rf"{self.root}/\1", text)
        (self.programs / "log").write_text("")
        path = f"{self.programs}:{os.environ['PATH']}"
        environment = {**os.environ, "PATH": path, "DPKG_MAINTSCRIPT_PACKAGE": "iot-edge-agent"}
        return sh("sh", "-c", text, script, *arguments, env=environment)

    def noted(self):
        return (self.programs / "log").read_text().splitlines()


class TestThePackagesScripts:
    @pytest.fixture
    def board(self, tmp_path):
        return Board(tmp_path)

    def test_a_user_without_a_group_of_its_name_and_a_deleted_environment_are_no_failure(self, board):
        (board.root / "etc/default/iot-agent").unlink()
        board.program("getent", '[ "$2" != iot-agent ] || [ "$1" = passwd ]')
        result = board.run("postinst", "configure", "1.0")
        assert result.returncode == 0, result.stderr
        assert "groupadd --system iot-agent" in board.noted()
        assert "chgrp" not in " ".join(board.noted())

    def test_the_copy_of_what_ran_is_whole_and_stays_when_the_power_was_cut_in_an_upgrade(self, board):
        before = board.root / "opt/iot-agent.before"
        board.program("cp", "mkdir $3; exit 1")
        assert board.run("preinst", "upgrade", "1.0").returncode == 1
        assert not before.exists()
        (board.programs / "cp").unlink()
        assert board.run("preinst", "upgrade", "1.0").returncode == 0
        assert (before / "bin/python").stat().st_ino == (board.root / "opt/iot-agent/bin/python").stat().st_ino
        (board.root / "opt/iot-agent/bin/python").unlink()  # as far as dpkg came
        assert board.run("preinst", "upgrade", "1.0").returncode == 0
        assert (before / "bin/python").exists()
        assert board.run("postrm", "remove").returncode == 0
        assert [path.name for path in (board.root / "opt").iterdir()] == ["iot-agent"]

    def upgrade_that_does_not_start(self, board, restarts):
        """`restarts`: how systemctl restart ends, in shell."""
        (board.root / "run/systemd/system").mkdir(parents=True)
        board.write("etc/iot-agent/agent.toml", "")
        board.write("opt/iot-agent.before/lib/python3.11/site-packages/agent/__init__.py", '__version__ = "1.0"')
        answers = f"restart*) {restarts} ;; *ActiveState*) echo active ;; *NRestarts*) echo 0 ;;"
        board.program("systemctl", f"case $* in {answers} esac")
        return board.run("postinst", "configure", "1.0")

    def version(self, board):
        return (board.root / "opt/iot-agent/lib/python3.11/site-packages/agent/__init__.py").read_text()

    def test_what_runs_after_an_upgrade_that_does_not_start_is_said_as_it_is(self, board):
        result = self.upgrade_that_does_not_start(board, f"grep -q 1.0 {board.root}/opt/iot-agent/lib/*/*/agent/*.py")
        assert result.returncode == 1
        assert result.stderr.endswith("(its last lines are above): the one before runs again\n")
        assert "1.0" in self.version(board)
        assert [path.name for path in (board.root / "opt").iterdir()] == ["iot-agent"]
        again = board.run("postinst", "configure", "1.0")  # by apt, whatever it installs next
        assert again.returncode == 1
        assert "2.0 did not start and the version before was put back" in again.stderr
        assert [line.split()[0] for line in board.noted()] == ["dpkg-query"]

    def test_a_version_before_that_does_not_start_either_is_not_said_to_run(self, board):
        result = self.upgrade_that_does_not_start(board, "exit 1")
        assert result.returncode == 1
        assert result.stderr.endswith("the one before is back, and does not start either: sudo iot-agent doctor\n")

    @pytest.mark.parametrize("at", ["opt/iot-agent", "opt/iot-agent.before"])
    def test_a_power_cut_while_the_version_before_is_put_back_leaves_no_board_without_a_program(self, board, at):
        board.program("mv", f'[ "$1" = {board.root}/{at} ] && kill -9 $PPID || exec /bin/mv "$@"')
        assert self.upgrade_that_does_not_start(board, "exit 1").returncode == -9
        (board.programs / "mv").unlink()
        assert board.run("postinst", "configure", "1.0").returncode == 1
        assert "1.0" in self.version(board)

    @pytest.mark.parametrize("last", ["", "1.0"])
    def test_who_switched_service_and_i2c_off_finds_them_off_after_an_upgrade(self, board, last):
        (board.root / "run/systemd/system").mkdir(parents=True)
        board.write("etc/iot-agent/agent.toml", "")
        if last:
            (board.root / "opt/iot-agent.before").mkdir()
        enabled = f"grep -q '^systemctl enable' {board.programs}/log"
        answers = (
            f"is-enabled*) {enabled} ;; is-active*) exit 3 ;; *ActiveState*) echo active ;; *NRestarts*) echo 0 ;;"
        )
        board.program("systemctl", f"case ${{*#--quiet }} in {answers} esac")
        board.program("raspi-config", '[ "$2" != get_i2c ] || echo 1')
        result = board.run("postinst", "configure", last)
        assert result.returncode == 0, result.stderr
        for done in ("systemctl enable", "systemctl restart", "raspi-config nonint do_i2c"):
            assert any(line.startswith(done) for line in board.noted()) == (not last)
        assert ("iot-agent is disabled, and stays so" in result.stdout) == bool(last)
        assert not (board.root / "opt/iot-agent.before").exists()

    def test_a_spare_configuration_is_none(self, board):
        (board.root / "run/systemd/system").mkdir(parents=True)
        board.write("etc/iot-agent/other.toml", "")
        assert "Next: sudo iot-agent init" in board.run("postinst", "configure", "").stdout

    def test_a_unit_that_hides_the_packages_is_named(self, board):
        board.write("etc/systemd/system/iot-agent.service", "[Service]\nExecStart=/opt/iot/bin/iot-agent run\n")
        said = board.run("postinst", "configure", "").stderr
        assert "starts another program than this package's; to change over: sudo rm " in said
