"""A power cut: QEMU is killed while the agent measures. What was synced is there, by count; what was not is gone."""

import pytest

from agent.status import from_disk
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
# Prints what the agent says of itself, and every second writes two files: one with a sync, one without.
MONITOR = """
import json, os, time
from agent.control import ask
from pathlib import Path
from drivers.base import boot_ns
controls = 0
with open("/dev/ttyS0", "w", buffering=1) as console:
    for turn in range(1_000_000):
        time.sleep(0.25)
        begin = boot_ns()
        try:
            found = ask(Path("/var/lib/iot-agent"))
        except OSError as error:
            console.write(f"monitor: {error}\\n")
            continue
        if found is None:
            continue
        if found["buffer"]["pending_disk"] and turn % 4 == 0:
            controls += 1
            with open(f"/var/lib/control/{controls}-synced", "wb") as file:
                file.write(b"x" * 4096)
                os.fsync(file.fileno())
            Path(f"/var/lib/control/{controls}-not-synced").write_bytes(b"x" * 4096)
        state = {"boot_s": begin / 1e9, "on_disk": found["buffer"]["pending_disk"], "controls": controls}
        state |= {key: found["ledger"][key] for key in ("measured", "pending", "unaccounted")}
        state["stub"] = [s["problem"] for s in found["sensors"] if s["name"] == "stub"]
        state["clock"] = found["clock"]["evidence"]
        console.write("STATE " + json.dumps(state) + "\\n")
"""
UNIT = """
[Unit]
After=iot-agent.service
[Service]
ExecStart=/opt/iot-agent/current/bin/python -P /usr/local/lib/monitor.py
"""


def test_promise_1_a_power_cut_loses_no_committed_point_and_at_most_the_loss_window(tmp_path):
    disk = tmp_path / "disk"
    with Machine(tmp_path / "machine") as machine:
        machine.chroot("/src/deploy/install.sh", "--wheelhouse", "/wheelhouse", "--no-start", "--no-i2c")
        for path, text in (
            ("etc/iot-agent/agent.toml", CONFIG),
            ("usr/local/lib/monitor.py", MONITOR),
            ("etc/systemd/system/monitor.service", UNIT),
        ):
            (machine.root / path).write_text(text)
            (machine.root / path).chmod(0o644)
        (machine.root / "var/lib/control").mkdir()
        wants = machine.root / "etc/systemd/system/multi-user.target.wants"
        (wants / "monitor.service").symlink_to("/etc/systemd/system/monitor.service")
        busybox = tmp_path / "busybox"
        busybox.write_bytes((machine.root / "bin/busybox").read_bytes())
        make_disk(machine.root, disk)

    first = VirtualMachine(disk, busybox)
    try:
        first.wait_for(lambda state: state["controls"] >= 12, 400)
    finally:
        first.pull_the_plug()
    last = first.states[-1]
    # what must be on disk: all that was measured a loss window before the agent was last heard of
    due = max(state["measured"] for state in first.states if state["boot_s"] < last["boot_s"] - WINDOW_S - 0.5)

    state = from_disk(look_into(disk, tmp_path / "cut", "/var/lib/iot-agent"))
    kept = state["buffer"]["pending_disk"]
    controls = look_into(disk, tmp_path / "lib", "/var/lib/control")
    written = range(1, last["controls"] + 1)
    synced = [n for n in written if content(controls / f"{n}-synced")]
    survived = [n for n in written if content(controls / f"{n}-not-synced")]
    print(f"committed {last['on_disk']}, due {due}, kept {kept}, measured {last['measured']}")
    print(f"control files written {len(written)}: synced {len(synced)} there, not synced {len(survived)} there")
    assert synced == list(written)
    assert last["controls"] not in survived  # so it was a power cut
    assert last["on_disk"] > 50
    assert kept >= last["on_disk"]
    assert kept >= due

    # the sandbox: the bus may be opened, and the kernel's clock may be asked
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


def content(path):
    return path.exists() and path.read_bytes() == b"x" * 4096
