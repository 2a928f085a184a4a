"""The agent on a real Debian under a real systemd: install, boot without a network, upgrade, a way back, uninstall."""

import json
import time

import pytest

from tests.system.machines import REPOSITORY, Machine, newer, wait_for

pytestmark = [pytest.mark.nspawn, pytest.mark.slow, pytest.mark.timeout(600)]

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


@pytest.fixture
def machine(tmp_path):
    with Machine(tmp_path / "machine") as machine:
        yield machine


def ledger(machine):
    return json.loads(machine.run("iot-agent", "status", "--json"))["ledger"]


def stored(machine):
    return json.loads(machine.run("cat", "/run/stored"))


def start_server(machine):
    machine.run("systemd-run", "--unit=influx", "/usr/bin/python3", "-c", SERVER)


def version(machine):
    return machine.run("iot-agent", "--version").split()[-1]


def test_an_image_boots_without_network_measures_buffers_then_delivers_and_survives_a_kill(machine):
    machine.chroot("/src/deploy/install.sh", "--wheelhouse", "/wheelhouse", "--no-start")
    assert not (machine.root / "etc/iot-agent/agent.toml").exists()
    boot = machine.root / "boot/firmware"
    boot.mkdir(parents=True)
    (boot / "iot-agent.toml").write_text(CONFIG.replace("\n", "\r\n"))  # as a laptop with Windows writes it
    machine.boot()

    wait_for(lambda: machine.show("ActiveState") == "active", 60)  # READY, and nothing but loopback is there
    assert machine.show("NRestarts") == "0"
    assert "taken from /boot/firmware/iot-agent.toml" in machine.run("journalctl", "-u", "iot-agent", "-o", "cat")
    wait_for(lambda: json.loads(machine.run("iot-agent", "status", "--json"))["buffer"]["pending_disk"] > 10, 60)
    assert ledger(machine)["delivered"] == 0

    start_server(machine)
    wait_for(lambda: ledger(machine)["delivered"] > 20, 60)

    machine.run("systemctl", "stop", "influx")
    wait_for(lambda: json.loads(machine.run("iot-agent", "status", "--json"))["buffer"]["pending_disk"] > 10, 60)
    before = json.loads(machine.run("iot-agent", "status", "--json"))["buffer"]["pending_disk"]
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


def test_install_upgrade_a_failed_upgrade_and_uninstall_keep_the_data(tmp_path):
    runner = (REPOSITORY / "agent/runner.py").read_text()
    hangs = runner.replace("    service.start()\n", "    import time\n\n    time.sleep(3600)\n", 1)
    assert hangs != runner
    good, bad = newer(tmp_path / "good", "9.9.1"), newer(tmp_path / "bad", "9.9.2", runner=hangs)
    with Machine(tmp_path / "machine", **{"/good": good, "/bad": bad}) as machine:
        machine.boot()
        (machine.root / "root/agent.toml").write_text(CONFIG)
        install = ["/src/deploy/install.sh", "--wheelhouse"]
        machine.run(*install, "/wheelhouse", "--config", "/root/agent.toml", seconds=300)
        first = version(machine)
        assert machine.show("UnitFileState") == "enabled"
        wait_for(lambda: ledger(machine)["pending"] > 10, 60)
        mine = (machine.root / "etc/iot-agent/agent.toml").read_text() + "# mine\n"
        (machine.root / "etc/iot-agent/agent.toml").write_text(mine)

        measured = ledger(machine)["measured"]
        machine.run(*install, "/good", seconds=300)
        assert version(machine) == "9.9.1"
        assert ledger(machine)["measured"] >= measured
        assert ledger(machine)["unaccounted"] == 0
        assert (machine.root / "etc/iot-agent/agent.toml").read_text() == mine

        said = machine.run(*install, "/bad", "--ready-timeout", "15", check=False, seconds=300)
        assert machine.code == 1
        assert "the upgrade was taken back: the old version runs as before" in said
        assert version(machine) == "9.9.1"
        assert machine.show("ActiveState") == "active"
        begin = ledger(machine)["measured"]
        wait_for(lambda: ledger(machine)["measured"] > begin, 30)
        kept = sorted(path.name for path in (machine.root / "opt/iot-agent").glob("2*"))
        assert len(kept) == 2  # the running one and the one before it
        assert first != "9.9.1"

        machine.run("/opt/iot-agent/current/libexec/uninstall.sh")
        assert machine.show("LoadState") == "not-found"
        assert not (machine.root / "opt/iot-agent").exists()
        assert (machine.root / "etc/iot-agent/agent.toml").read_text() == mine
        assert (machine.root / "var/lib/iot-agent/buffer/cache.db").exists()

        machine.run(*install, "/good", seconds=300)  # and it goes on where it was
        assert ledger(machine)["measured"] >= begin
        machine.run("/src/deploy/uninstall.sh", "--purge")
        for path in ("etc/iot-agent", "var/lib/iot-agent", "opt/iot-agent", "usr/local/bin/iot-agent"):
            assert not (machine.root / path).exists()


def test_a_wrong_configuration_ends_with_78_and_is_not_tried_again(machine):
    machine.chroot("/src/deploy/install.sh", "--wheelhouse", "/wheelhouse", "--no-start")
    boot = machine.root / "boot"
    (boot / "iot-agent.toml").write_text(CONFIG.replace("loss_window", "los_window"))
    machine.boot()
    wait_for(lambda: machine.show("ActiveState") == "failed", 60)
    assert machine.show("ExecMainStatus") == "78"
    time.sleep(6)  # longer than RestartSec
    assert machine.show("NRestarts") == "0"
    said = " ".join(machine.run("iot-agent", "doctor", check=False).split())
    assert "did you mean loss_window?" in said
    assert "does not start: the configuration is wrong" in said
