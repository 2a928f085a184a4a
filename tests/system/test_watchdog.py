"""What systemd is told: READY, WATCHDOG while all loops are at work, and not any more when one of them hangs."""

import os
import subprocess
import sys
import time
from itertools import pairwise
from pathlib import Path

import pytest

from tests.servers import InfluxServer
from tests.system.lateness import beside
from tests.system.notified import Notified

WATCHDOG_S = 6.0
CONFIG = """
[device]
id = "pi-1"
[[sensor]]
driver = "virtual"
interval = "200ms"
[influxdb]
url = "{url}"
org = "my-org"
bucket = "iot_center"
token = "token-1"
[buffer]
loss_window = "1s"
[delivery]
flush_interval = "500ms"
[status]
listen = ""
"""
# In the agent's process, before anything of it runs: the named method waits for as long as the file is there.
HANG = """
import importlib, os, time
module, name, method = os.environ["HANG"].split(":")
cls = getattr(importlib.import_module(module), name)
real = getattr(cls, method)
def waits(*arguments, **more):
    while os.path.exists(os.environ["HANG_WHILE"]):
        time.sleep(0.05)
    return real(*arguments, **more)
setattr(cls, method, waits)
"""


class Agent:
    def __init__(self, folder, url, hang):
        self.folder, self.trigger = folder, folder / "hang"
        (folder / "agent.toml").write_text(CONFIG.format(url=url))
        (folder / "agent.toml").chmod(0o600)
        (folder / "site").mkdir()
        (folder / "site/sitecustomize.py").write_text(HANG)
        self.notified = Notified(folder)
        environment = {
            **os.environ,
            **self.notified.environment(WATCHDOG_S),
            "PYTHONPATH": f"{folder / 'site'}{os.pathsep}{Path.cwd()}",
            "HANG": hang,
            "HANG_WHILE": str(self.trigger),
        }
        command = [
            sys.executable,
            "-m",
            "agent.cli",
            "run",
            "-c",
            folder / "agent.toml",
            "--state-dir",
            folder / "state",
        ]
        with (folder / "log").open("wb") as log:
            self.process = subprocess.Popen(command, env=environment, stdout=log, stderr=log)

    def log(self):
        return (self.folder / "log").read_text()

    def __enter__(self):
        return self

    def __exit__(self, *_):
        self.process.kill()
        self.process.wait()
        self.notified.close()


@pytest.mark.slow
@pytest.mark.parametrize(
    ("hang", "loop"),
    [
        ("drivers.virtual:Virtual:read", "sensor"),
        ("agent.buffer.buffer:Buffer:commit_due", "committer"),
        ("agent.delivery.writer:Writer:write", "delivery"),
    ],
)
def test_a_hung_loop_is_restarted_by_the_watchdog_and_named_in_the_log(tmp_path, hang, loop):
    with (
        InfluxServer() as server,
        Agent(tmp_path, server.url, hang) as agent,
        beside(tmp_path / "reference") as machine_s,
    ):
        agent.notified.wait_for("READY=1")
        begin = agent.notified.wait_for("WATCHDOG=1")
        while time.monotonic() < begin + WATCHDOG_S:  # all is well for longer than that
            assert "WATCHDOG=trigger" not in agent.notified.listen()
            time.sleep(0.1)
        fed = [at for at, text in agent.notified.said if text == "WATCHDOG=1"]
        assert max(later - earlier for earlier, later in pairwise(fed)) < WATCHDOG_S / 2 + machine_s()
        agent.trigger.touch()
        hung = time.monotonic()
        assert agent.notified.wait_for("WATCHDOG=trigger") - hung < WATCHDOG_S + 3 + machine_s()
        assert f"ERROR agent.runner: {loop}" in agent.log()
        assert agent.log().count("not seen at work") == 1
        agent.trigger.unlink()
        agent.notified.wait_for("WATCHDOG=1")
        assert "at work again" in agent.log()


def test_ready_needs_neither_network_nor_sensor_and_status_says_what_is_missing(tmp_path):
    (tmp_path / "agent.toml").write_text(
        CONFIG.format(url="http://127.0.0.1:9").replace('"virtual"', '"bme280"\nbus = 250')
    )
    with Notified(tmp_path) as notified:
        command = [sys.executable, "-m", "agent.cli", "run", "-c", tmp_path / "agent.toml"]
        process = subprocess.Popen(
            [*command, "--state-dir", tmp_path / "state"],
            env={**os.environ, **notified.environment()},
            stderr=subprocess.DEVNULL,
        )
        try:
            notified.wait_for("READY=1")
            notified.wait_for("STATUS=")
            status = [text for _, text in notified.said if text.startswith("STATUS=") and "/dev/i2c-250" in text]
            if not status:
                notified.wait_for("STATUS=")
                status = [text for _, text in notified.said if text.startswith("STATUS=") and "/dev/i2c-250" in text]
            assert status
        finally:
            process.terminate()
            assert process.wait(20) == 0
        assert "STOPPING=1" in notified.listen()
