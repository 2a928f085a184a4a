"""A power cut: QEMU is killed while the agent measures. What was synced is there, by count; what was not is gone."""

from itertools import pairwise

import pytest

from agent.status.snapshot import from_disk
from tests.system.machines import Machine
from tests.system.virtual_machine import VirtualMachine, look_into, make_disk

pytestmark = [pytest.mark.qemu, pytest.mark.slow, pytest.mark.timeout(900)]

WINDOW_S = 2.0
CONFIG = f"""
[device]
id = "pi-1"
[[sensor]]
name = "weather"
driver = "virtual"
interval = "100ms"
[[sensor]]
name = "stub"
driver = "bme280"
bus = 0
interval = "5s"
[influxdb]
url = "http://127.0.0.1:9"
org = "my-org"
bucket = "iot_center"
token = "token-1"
[buffer]
loss_window = "{WINDOW_S:g}s"
[health]
enabled = false
"""
# Prints what the agent says of itself, and once points are on disk overwrites two files, one with a sync, one without.
# In place: a new file would be written out with the next sync of whatever else.
MONITOR = """
import json, os, subprocess, time
from agent.status.socket import ask
from pathlib import Path
from drivers.base import boot_ns
controls = log = None
with open("/dev/ttyS0", "w", buffering=1) as console:
    while True:
        time.sleep(0.25)
        begin = boot_ns()
        try:
            found = ask(Path("/var/lib/iot-agent"))
        except OSError as error:
            console.write(f"monitor: {error}\\n")
            continue
        if found is None:
            continue
        if controls is None and found["buffer"]["pending_disk"]:
            controls = begin / 1e9
            for name in ("not-synced", "synced"):
                with open(f"/var/lib/control/{name}", "r+b", buffering=0) as file:
                    file.write(b"new" * 1000)
                    if name == "synced":
                        os.fsync(file.fileno())
        state = {"boot_s": begin / 1e9, "on_disk": found["buffer"]["pending_disk"], "controls": controls}
        state |= {key: found["ledger"][key] for key in ("measured", "pending", "unaccounted")}
        state["stub"] = [s["problem"] for s in found["sensors"] if s["name"] == "stub"]
        if log is None and controls and begin / 1e9 > controls + 4:
            shown = ["journalctl", "--unit", "iot-agent", "--output", "cat"]
            log = subprocess.run(shown, capture_output=True, text=True).stdout
        state["log"] = log
        console.write("STATE " + json.dumps(state) + "\\n")
"""
UNIT = """
[Unit]
After=iot-agent.service
[Service]
ExecStart=/opt/iot-agent/bin/python -P /usr/local/lib/monitor.py
"""


def test_promise_1_a_power_cut_loses_no_committed_point_and_at_most_the_loss_window(tmp_path):
    disk = tmp_path / "disk"
    with Machine(tmp_path / "machine") as machine:
        machine.chroot("/src/deploy/install.sh", "--wheelhouse", "/wheelhouse")
        for path, text in (
            ("etc/iot-agent/agent.toml", CONFIG),
            ("usr/local/lib/monitor.py", MONITOR),
            ("etc/systemd/system/monitor.service", UNIT),
            # nothing reaches the disk but what is synced
            ("etc/sysctl.d/90-power-cut.conf", "vm.dirty_writeback_centisecs=0\nvm.dirty_expire_centisecs=60000\n"),
        ):
            (machine.root / path).write_text(text)
            (machine.root / path).chmod(0o644)
        (machine.root / "var/lib/control").mkdir()
        for name in ("synced", "not-synced"):
            (machine.root / f"var/lib/control/{name}").write_bytes(b"old" * 1000)
        wants = machine.root / "etc/systemd/system/multi-user.target.wants"
        (wants / "monitor.service").symlink_to("/etc/systemd/system/monitor.service")
        busybox = tmp_path / "busybox"
        busybox.write_bytes((machine.root / "bin/busybox").read_bytes())
        make_disk(machine.root, disk)

    first = VirtualMachine(disk, busybox)
    try:
        first.wait_for(lambda state: state["controls"] and state["boot_s"] > state["controls"] + 10, 400)
    finally:
        first.pull_the_plug()
    last = first.states[-1]
    # what must be on disk: all that was measured a loss window before the agent was last heard of; how late the guest
    # was, the monitor shows, which says something every quarter of a second
    said = [state["boot_s"] for state in first.states if state["boot_s"] > last["boot_s"] - 3 * WINDOW_S]
    late_s = max((later - earlier for earlier, later in pairwise(said)), default=3 * WINDOW_S) - 0.25
    due = max(s["measured"] for s in first.states if s["boot_s"] < last["boot_s"] - WINDOW_S - 0.5 - late_s)

    state = from_disk(look_into(disk, tmp_path / "cut", "/var/lib/iot-agent"))
    kept = state["buffer"]["pending_disk"]
    controls = look_into(disk, tmp_path / "lib", "/var/lib/control")
    print(f"committed {last['on_disk']}, due {due}, kept {kept}, measured {last['measured']}")
    assert (controls / "synced").read_bytes() == b"new" * 1000
    assert (controls / "not-synced").read_bytes() == b"old" * 1000  # so it was a power cut
    assert last["on_disk"] > 50
    assert kept >= last["on_disk"]
    assert kept >= due

    # the sandbox: the bus may be opened, and the kernel's clock may be asked
    assert "measuring with" in last["log"]
    assert "adjtimex" not in last["log"]
    assert last["stub"]
    assert "permission" not in str(last["stub"])
    assert "no I2C bus" not in str(last["stub"])

    second = VirtualMachine(disk, busybox)  # and it starts again, with every point
    try:
        again = second.wait_for(lambda state: state["measured"] > 0, 400)
    finally:
        second.pull_the_plug()
    assert again["pending"] >= kept
    assert again["unaccounted"] == 0
