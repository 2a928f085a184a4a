"""The agent on a real Debian under a real systemd: install, boot without a network, upgrade, a way back, remove."""

import json
import time

import pytest

from tests.system.machines import REPOSITORY, Machine, checkout, package, wait_for

pytestmark = [pytest.mark.nspawn, pytest.mark.slow, pytest.mark.timeout(900)]

CONFIG = """
[device]
id = "pi-1"
[[sensor]]
driver = "virtual"
interval = "200ms"
[influxdb]
url = "http://127.0.0.1:8086"
org = "my-org"
bucket = "iot_center"
token = "token-1"
[buffer]
loss_window = "1s"
[clock]
trust = "always"
[health]
enabled = false
"""
SERVER = """
import json, sys, time
sys.path.insert(0, "/src")
from tests.servers import InfluxServer
with InfluxServer(port=8086) as server:
    while True:
        time.sleep(0.2)
        open("/run/stored.new", "w").write(json.dumps(len(server.points)))
        import os; os.replace("/run/stored.new", "/run/stored")
"""
INSTALL = ("/src/deploy/install.sh", "--wheelhouse", "/wheelhouse")
# What the install.sh of before the package left on a board.
FORMER = """
version=/opt/iot-agent/20260102-030405-77
groupadd --system i2c
useradd --system --user-group --groups i2c --home-dir /var/lib/iot-agent --shell /usr/sbin/nologin iot-agent
python3 -m venv $version
$version/bin/python -m pip install --quiet --no-index --find-links /wheelhouse iot-edge-agent
install -D -m 755 /src/deploy/take-boot-config $version/libexec/take-boot-config
sed 's|/opt/iot-agent/|/opt/iot-agent/current/|' /src/agent/iot-agent.service >$version/iot-agent.service
ln -s $version /opt/iot-agent/current
install -m 644 $version/iot-agent.service /etc/systemd/system/iot-agent.service
cat >/usr/local/bin/iot-agent <<'TEXT'
#!/bin/sh
export STATE_DIRECTORY=/var/lib/iot-agent
exec setpriv --reuid=iot-agent --regid=iot-agent --init-groups -- /opt/iot-agent/current/bin/iot-agent "$@"
TEXT
chmod 755 /usr/local/bin/iot-agent
install -D -m 640 -g iot-agent /root/agent.toml /etc/iot-agent/agent.toml
echo 'NO_PROXY=.local' >/etc/default/iot-agent
echo my-driver >/etc/iot-agent/packages
systemctl enable --quiet --now iot-agent
"""


@pytest.fixture
def machine(tmp_path):
    with Machine(tmp_path / "machine") as machine:
        yield machine


@pytest.fixture(scope="module")
def broken(tmp_path_factory):
    """A package of a version that hangs in its start."""
    runner = (REPOSITORY / "agent/runner.py").read_text()
    hangs = runner.replace("    service.start()\n", "    import time\n\n    time.sleep(3600)\n", 1)
    assert hangs != runner
    folder = tmp_path_factory.mktemp("broken")
    return package(folder, checkout(folder / "checkout", "9.9.2", runner=hangs))


def be_impatient(machine):
    """Systemd gives up a start after 15 s."""
    drop_in = machine.root / "etc/systemd/system/iot-agent.service.d/test.conf"
    drop_in.parent.mkdir(parents=True)
    drop_in.write_text("[Service]\nTimeoutStartSec=15\n")


def status(machine):
    return json.loads(machine.run("iot-agent", "status", "--json"))


def ledger(machine):
    return status(machine)["ledger"]


def stored(machine):
    return json.loads(machine.run("cat", "/run/stored"))


def start_server(machine):
    machine.run("systemd-run", "--unit=influx", "/usr/bin/python3", "-c", SERVER)


def version(machine):
    return machine.run("iot-agent", "--version").split()[-1]


def test_an_image_boots_without_network_measures_buffers_then_delivers_and_survives_a_kill(machine):
    machine.chroot(*INSTALL)
    assert not (machine.root / "etc/iot-agent/agent.toml").exists()
    boot = machine.root / "boot/firmware"
    boot.mkdir(parents=True)
    (boot / "iot-agent.toml").write_text(CONFIG.replace("\n", "\r\n"))  # as a laptop with Windows writes it
    machine.boot()

    wait_for(lambda: machine.show("ActiveState") == "active", 60)  # READY, and nothing but loopback is there
    assert machine.show("NRestarts") == "0"
    assert "taken from /boot/firmware/iot-agent.toml" in machine.run("journalctl", "-u", "iot-agent", "-o", "cat")
    wait_for(lambda: status(machine)["buffer"]["pending_disk"] > 10, 60)
    assert ledger(machine)["delivered"] == 0

    start_server(machine)
    wait_for(lambda: ledger(machine)["delivered"] > 20, 60)

    machine.run("systemctl", "stop", "influx")
    wait_for(lambda: status(machine)["buffer"]["pending_disk"] > 10, 60)
    before = status(machine)["buffer"]["pending_disk"]
    machine.run("systemctl", "kill", "-s", "KILL", "iot-agent")
    wait_for(lambda: machine.show("NRestarts") == "1" and machine.show("ActiveState") == "active", 60)
    after = ledger(machine)
    assert after["pending"] >= before  # promise 1: what was on disk is still there
    assert after["unaccounted"] == 0
    start_server(machine)
    wait_for(lambda: ledger(machine)["delivered"] > after["delivered"] + before, 60)
    wait_for(lambda: stored(machine) > before, 20)

    said = machine.run("iot-agent", "doctor", check=False)
    assert "iot-agent.service runs" in said, said
    assert machine.code == 0, said
    assert " 1.9 " in machine.run("systemd-analyze", "security", "iot-agent.service").splitlines()[-1]
    assert machine.run("stat", "-c", "%U %a", "/var/lib/iot-agent").strip() == "iot-agent 700"
    assert "token-1" not in machine.run("journalctl", "-o", "cat")  # promise 7


def test_install_upgrade_a_failed_upgrade_and_remove_keep_the_data(tmp_path, broken):
    good = checkout(tmp_path / "good", "9.9.1")
    with Machine(tmp_path / "machine", **{"/good": good, "/broken.deb": broken}) as machine:
        machine.boot()
        be_impatient(machine)
        config = machine.root / "etc/iot-agent/agent.toml"
        config.parent.mkdir()
        config.write_text(CONFIG)
        machine.run(*INSTALL, seconds=300)
        assert version(machine) != "9.9.1"
        assert machine.show("UnitFileState") == "enabled"
        wait_for(lambda: ledger(machine)["pending"] > 10, 60)
        mine = CONFIG + "# mine\n"
        config.write_text(mine)

        measured = ledger(machine)["measured"]
        machine.run("/good/deploy/install.sh", *INSTALL[1:], seconds=300)
        assert version(machine) == "9.9.1"
        assert ledger(machine)["measured"] >= measured
        assert ledger(machine)["unaccounted"] == 0
        assert config.read_text() == mine

        said = machine.run("dpkg", "--install", "/broken.deb", check=False, seconds=300)
        assert machine.code == 1
        assert "the new version does not start (its last lines are above): the one before runs again" in said
        assert version(machine) == "9.9.1"
        assert machine.show("ActiveState") == "active"
        begin = ledger(machine)["measured"]
        wait_for(lambda: ledger(machine)["measured"] > begin, 30)

        machine.run("dpkg", "--remove", "iot-edge-agent")
        assert machine.show("ActiveState") == "inactive"
        assert not (machine.root / "opt/iot-agent/bin").exists()
        assert config.read_text() == mine
        assert (machine.root / "var/lib/iot-agent/buffer/cache.db").exists()

        machine.run("/good/deploy/install.sh", *INSTALL[1:], seconds=300)  # and it goes on where it was
        assert ledger(machine)["measured"] >= begin
        machine.run("env", "IOT_PURGE=data", "dpkg", "--purge", "iot-edge-agent")
        for path in ("etc/iot-agent", "var/lib/iot-agent", "opt/iot-agent", "usr/bin/iot-agent"):
            assert not (machine.root / path).exists()


def test_a_board_of_the_former_install_sh_is_taken_over_with_all_that_waits_or_left_as_it_was(tmp_path, broken):
    with Machine(tmp_path / "machine", **{"/broken.deb": broken}) as machine:
        machine.boot()
        be_impatient(machine)
        (machine.root / "root/agent.toml").write_text(CONFIG)
        machine.run("sh", "-euc", FORMER, seconds=300)
        wait_for(lambda: status(machine)["buffer"]["pending_disk"] > 10, 60)
        first = ledger(machine)
        before = version(machine)

        said = machine.run("dpkg", "--install", "--force-confold", "/broken.deb", check=False, seconds=300)
        assert machine.code == 1
        assert "the one before runs again" in said
        assert version(machine) == before
        assert machine.show("FragmentPath") == "/etc/systemd/system/iot-agent.service"
        assert machine.show("ActiveState") == "active"
        waits = ledger(machine)
        assert waits["pending"] == waits["measured"] >= first["measured"]

        said = machine.run(*INSTALL, seconds=300)
        assert "packages of your own (/etc/iot-agent/packages) are for you to install again" in said
        assert machine.show("FragmentPath").endswith("lib/systemd/system/iot-agent.service")
        assert machine.show("UnitFileState") == "enabled"
        assert machine.show("ActiveState") == "active"
        for path in ("opt/iot-agent/current", "usr/local/bin/iot-agent", "etc/systemd/system/iot-agent.service"):
            assert not (machine.root / path).is_symlink()
            assert not (machine.root / path).exists()
        assert list((machine.root / "opt/iot-agent").glob("2*")) == []
        assert (machine.root / "etc/iot-agent/agent.toml").read_text() == CONFIG
        assert (machine.root / "etc/default/iot-agent").read_text() == "NO_PROXY=.local\n"

        after = ledger(machine)
        assert after["pending"] == after["measured"] >= waits["measured"]
        start_server(machine)
        wait_for(lambda: ledger(machine)["delivered"] > after["measured"], 60)  # the whole backlog, and what came since
        wait_for(lambda: stored(machine) > after["measured"], 20)
        assert ledger(machine)["unaccounted"] == 0


def test_the_first_boot_takes_package_configuration_and_key_from_the_boot_partition(machine, tmp_path):
    examples = REPOSITORY / "deploy/examples"
    boot = machine.root / "boot/firmware"
    boot.mkdir(parents=True)
    package(tmp_path).rename(boot / "iot-edge-agent_0_all.deb")
    for name in ("iot-agent.toml", "firstrun.sh"):
        (boot / name).write_text((examples / name).read_text())
    (boot / "cmdline.txt").write_text("root=x rootwait systemd.run=/boot/firmware/firstrun.sh systemd.unit=y.target\n")
    (boot / "iot-agent-enrollment.key").write_text("abcd1234.secret\r\n")
    machine.boot()
    machine.run("bash", "/boot/firmware/firstrun.sh")

    assert machine.show("ActiveState") == "active"
    assert machine.show("UnitFileState") == "enabled"
    for name, text in (
        ("agent.toml", (examples / "iot-agent.toml").read_text()),
        ("enrollment.key", "abcd1234.secret\n"),
    ):
        assert (machine.root / "etc/iot-agent" / name).read_text() == text
        assert machine.run("stat", "-c", "%U %G %a", f"/etc/iot-agent/{name}").strip() == "root iot-agent 640"
    assert sorted(path.suffix for path in boot.iterdir()) == [".deb", ".toml", ".txt"]
    assert (boot / "cmdline.txt").read_text() == "root=x rootwait\n"
    said = machine.run("journalctl", "-u", "iot-agent", "-o", "cat")
    assert "/etc/iot-agent/agent.toml was taken from /boot/firmware/iot-agent.toml" in said
    assert "secret" not in said.replace("device.secret", "").replace("device secret", "")  # promise 7


def test_a_wrong_configuration_ends_with_78_and_is_not_tried_again(machine):
    machine.chroot(*INSTALL)
    (machine.root / "boot/iot-agent.toml").write_text(CONFIG.replace("loss_window", "los_window"))
    machine.boot()
    wait_for(lambda: machine.show("ActiveState") == "failed", 60)
    assert machine.show("ExecMainStatus") == "78"
    time.sleep(6)  # longer than RestartSec
    assert machine.show("NRestarts") == "0"
    said = " ".join(machine.run("iot-agent", "doctor", check=False).split())
    assert "did you mean loss_window?" in said
    assert "does not start: the configuration is wrong" in said
