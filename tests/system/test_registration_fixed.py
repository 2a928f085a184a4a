"""The other way: [influxdb] with a token by hand, towards what takes InfluxDB's v2 writes."""

import json
import re
import signal
import socket
import subprocess
import sys
import urllib.parse
import urllib.request

import pytest

from agent.status.socket import ask
from tests.servers import InfluxServer
from tests.waiting import wait_for

CONFIG = """
[device]
id = "pi-7"
[[sensor]]
driver = "virtual"
interval = "100ms"
[influxdb]
url = "{url}"
org = "{org}"
bucket = "sly's Bucket"
token_file = "{token}"
[delivery]
flush_interval = "300ms"
[status]
listen = ""
"""


@pytest.fixture
def agent(tmp_path):
    started = []

    def start(url, org="my-org", token="a-token"):
        (tmp_path / "token").write_text(f"{token}\n")
        (tmp_path / "token").chmod(0o640)
        (tmp_path / "agent.toml").write_text(CONFIG.format(url=url, org=org, token=tmp_path / "token"))
        arguments = ["run", "-c", str(tmp_path / "agent.toml"), "--state-dir", str(tmp_path / "state")]
        with (tmp_path / "log").open("ab") as log:
            command = [sys.executable, "-m", "agent.cli", *arguments]
            started.append(subprocess.Popen(command, stdout=log, stderr=log))
        return started[-1]

    yield start
    for process in started:
        if process.poll() is None:
            process.kill()
        process.wait()


@pytest.fixture
def status(tmp_path):
    def wait(condition):
        def reached():
            try:
                found = ask(tmp_path / "state")
            except (OSError, ValueError):
                return None
            return found if found and condition(found) else None

        return wait_for(reached)

    return wait


@pytest.fixture
def victoria(tmp_path):
    with socket.socket() as probe:
        probe.bind(("127.0.0.1", 0))
        address = f"127.0.0.1:{probe.getsockname()[1]}"
    options = [f"-storageDataPath={tmp_path / 'victoria'}", f"-httpListenAddr={address}", "-search.latencyOffset=0s"]
    process = subprocess.Popen(["victoria-metrics", *options, "-memory.allowedBytes=64MB"], stderr=subprocess.DEVNULL)

    def get(path):
        try:
            with urllib.request.urlopen(f"http://{address}{path}", timeout=40) as answer:
                return answer.read()
        except OSError:
            return b""

    try:
        wait_for(lambda: get("/health"))
        yield f"http://{address}", get
    finally:
        process.terminate()
        process.wait(20)


@pytest.mark.victoria
@pytest.mark.slow
def test_victoriametrics_takes_the_points_of_a_device_without_any_center(agent, status, victoria, tmp_path):
    url, get = victoria
    process = agent(url)
    status(lambda found: found["ledger"]["delivered"] >= 20)
    process.send_signal(signal.SIGTERM)
    process.wait(20)
    words = (tmp_path / "log").read_text()
    delivered = int(re.search(r"stopped: measured \d+, delivered (\d+)", words)[1])

    def found():
        """What it shows by now, which is some seconds behind what it took."""
        get("/internal/force_flush")
        return json.loads(get(f"/api/v1/export?match[]={urllib.parse.quote('environment_Temperature')}"))

    wait_for(lambda: len(found()["timestamps"]) >= delivered)
    assert found()["metric"]["clientId"] == "pi-7"
    assert len(found()["timestamps"]) == delivered >= 20


@pytest.mark.slow
def test_a_token_file_that_is_replaced_after_a_refusal_is_taken_up_while_running(agent, status, tmp_path):
    with InfluxServer(token="a-good-token", bucket="sly's Bucket") as server:
        agent(server.url, token="a-bad-token")
        refused = status(lambda found: found["registration"]["state"] == "refused")
        assert str(tmp_path / "token") in refused["registration"]["error"]
        (tmp_path / "token").write_text("a-good-token\n")
        found = status(lambda found: found["ledger"]["delivered"] >= 20)
        assert found["ledger"]["unaccounted"] == 0
        log = (tmp_path / "log").read_text()
        assert "a-good-token" not in log
        assert "a-bad-token" not in log
