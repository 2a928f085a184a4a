"""SIGHUP and `iot-agent reload`: the new configuration is checked first, and no point is lost on the way."""

import json
import os
import signal
import subprocess
import sys
import time

import pytest

from tests.amounts import amount
from tests.servers import InfluxServer
from tests.system.notified import Notified

CONFIG = """
[device]
id = "pi-1"
[[sensor]]
name = "bench"
driver = "virtual"
interval = "{interval}"
[influxdb]
url = "{url}"
org = "my-org"
bucket = "iot_center"
token = "token-1"
[buffer]
loss_window = "1s"
[clock]
trust = "always"
[status]
listen = "{listen}"
[health]
enabled = false
"""
COMMAND = [sys.executable, "-m", "agent.cli"]


class Running:
    def __init__(self, folder, **values):
        self.folder, self.values = folder, {"interval": "100ms", "listen": "", **values}
        self.where = ["--config", folder / "agent.toml", "--state-dir", folder / "state"]
        self.notified = Notified(folder)
        self.write()
        environment = {**os.environ, **self.notified.environment()}
        with (folder / "log").open("wb") as log:
            self.process = subprocess.Popen([*COMMAND, "run", *self.where], env=environment, stdout=log, stderr=log)

    def write(self, text=None, **changed):
        self.values |= changed
        (self.folder / "agent.toml").write_text(text or CONFIG.format(**self.values))
        (self.folder / "agent.toml").chmod(0o600)

    def hangup(self):
        self.process.send_signal(signal.SIGHUP)
        self.notified.wait_for("READY=1")

    def status(self):
        return json.loads(self.cli("status", "--json").stdout)

    def cli(self, *arguments):
        return subprocess.run(
            [*COMMAND, *arguments, *self.where], capture_output=True, text=True, timeout=30, check=False
        )

    def log(self):
        return (self.folder / "log").read_text()

    def wait_for(self, condition, seconds=40):
        deadline = time.monotonic() + seconds
        while time.monotonic() < deadline:
            if condition():
                return
            time.sleep(0.05)
        raise AssertionError(self.log())

    def stop(self):
        self.process.terminate()
        assert self.process.wait(20) == 0
        return self.status()["ledger"]


@pytest.fixture
def running(tmp_path):
    started = []

    def start(**values):
        started.append(Running(tmp_path, **values))
        started[-1].notified.wait_for("READY=1")
        return started[-1]

    yield start
    for one in started:
        one.process.kill()
        one.process.wait()
        one.notified.close()


def test_promise_2_another_server_and_interval_take_effect_and_no_point_is_lost(running):
    with InfluxServer() as first, InfluxServer() as second:
        agent = running(url=first.url)
        agent.wait_for(lambda: len(first.points) > 10)
        for turn in range(amount(3, 7)):  # the moment of a reload is arbitrary: so several
            agent.write(url=(second, first)[turn % 2].url, interval=("50ms", "100ms")[turn % 2])
            agent.hangup()
            time.sleep(0.37)
        agent.wait_for(lambda: len(second.points) > 10)
        ledger = agent.stop()
        stored = len(first.points) + len(second.points)
    assert ledger["unaccounted"] == 0
    assert ledger["rejected"] == ledger["dropped"] == 0
    assert ledger["measured"] == ledger["delivered"] + ledger["pending"]
    assert stored == ledger["delivered"]


def test_a_bad_configuration_is_refused_with_the_reason_and_the_old_one_stays(running):
    with InfluxServer() as server:
        agent = running(url=server.url)
        agent.wait_for(lambda: len(server.points) > 3)
        agent.write(CONFIG.format(**agent.values).replace("loss_window", "los_window"))
        agent.hangup()
        assert "the old one stays" in agent.log()
        assert "did you mean loss_window?" in agent.log()
        before = len(server.points)
        agent.wait_for(lambda: len(server.points) > before + 5)
        command = agent.cli("reload")
        assert command.returncode == 78
        assert "did you mean loss_window?" in command.stderr


def test_another_level_of_the_log_takes_effect(running):
    agent = running(url="http://127.0.0.1:9")
    assert "new configuration" not in agent.log()
    agent.write(CONFIG.format(**agent.values) + '[log]\nlevel = "error"\n')
    agent.hangup()
    agent.wait_for(lambda: "new configuration" in agent.log())
    before = agent.log()
    agent.hangup()
    agent.hangup()
    assert agent.log() == before


def test_systemd_hears_of_the_reload_and_of_its_end(running):
    agent = running(url="http://127.0.0.1:9")
    agent.notified.listen()
    assert agent.cli("reload").returncode == 0
    agent.notified.wait_for("READY=1")
    said = [text.partition("=")[0] for _, text in agent.notified.said]
    assert said.index("RELOADING") < said.index("MONOTONIC_USEC") < len(said) - 1 - said[::-1].index("READY")


def test_the_status_page_moves_to_another_port_with_its_history(running):
    import http.client
    import socket

    with socket.create_server(("127.0.0.1", 0)) as one, socket.create_server(("127.0.0.1", 0)) as two:
        ports = one.getsockname()[1], two.getsockname()[1]
    agent = running(url="http://127.0.0.1:9", listen=f"127.0.0.1:{ports[0]}")

    def page(port):
        connection = http.client.HTTPConnection("127.0.0.1", port, timeout=40)
        try:
            connection.request("GET", "/")
            return connection.getresponse().read().decode()
        finally:
            connection.close()

    agent.wait_for(lambda: "<svg" in page(ports[0]))
    agent.write(listen=f"127.0.0.1:{ports[1]}")
    agent.hangup()
    assert "<svg" in page(ports[1])
    with pytest.raises(ConnectionRefusedError):
        page(ports[0])
