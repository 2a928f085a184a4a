"""The whole run: agent process and center, tokens revoked and files wiped under it, and nothing lost."""

import json
import signal
import subprocess
import sys
from pathlib import Path

import pytest
import requests

from agent.status.socket import ask
from center.app import serve
from center.context import EXTENSION
from center.settings import EmbeddedSettings, Settings
from tests.waiting import wait_for

CONFIG = """
[device]
id = "pi-7"
[[sensor]]
driver = "virtual"
interval = "200ms"
[center]
url = "{url}"
timeout = "2s"
{place}
[delivery]
flush_interval = "300ms"
[buffer]
loss_window = "1s"
[status]
listen = ""
"""


class Agent:
    def __init__(self, folder, url, place=None):
        self.config, self.state, self.log = folder / "agent.toml", folder / "state", folder / "agent.log"
        named = "\n".join(f'{name} = "{value}"' for name, value in (place or {}).items())
        self.config.write_text(CONFIG.format(url=url, place=named))
        self.config.chmod(0o600)
        self.shown = []
        self.start()

    def start(self):
        arguments = [sys.executable, "-m", "agent.cli", "run", "--debug", "-c", self.config, "--state-dir", self.state]
        with self.log.open("ab") as log:
            self.process = subprocess.Popen(list(map(str, arguments)), stdout=log, stderr=log)

    def status(self):
        try:
            found = ask(self.state)
        except (OSError, ValueError):
            return None
        if found:
            self.shown.append(json.dumps(found))
        return found

    def when(self, condition, seconds=40):
        """The status once the condition holds for it."""

        def reached():
            found = self.status()
            return found if found and condition(found) else None

        return wait_for(reached, seconds)

    def delivered(self, more=5):
        begin = (self.status() or {"ledger": {"delivered": 0}})["ledger"]["delivered"]
        return self.when(lambda found: found["ledger"]["delivered"] >= begin + more)

    def stop(self):
        if self.process.poll() is None:
            self.process.send_signal(signal.SIGTERM)
            self.process.wait(30)

    def secrets(self):
        found = [(self.state / "device.secret").read_text().strip()] if (self.state / "device.secret").exists() else []
        if (self.state / "credentials.json").exists():
            found.append(json.loads((self.state / "credentials.json").read_text())["token"])
        return found


@pytest.fixture
def center(tmp_path):
    settings = Settings(embedded=True, store=EmbeddedSettings(data=str(tmp_path / "center")))
    with serve(settings, port=0) as running:
        running.parts = running.app.extensions[EXTENSION]
        yield running


@pytest.fixture
def agent(tmp_path, center):
    running = Agent(tmp_path, center.url)
    yield running
    running.stop()


def nothing_is_lost(agent, center):
    """After a stop: the equation holds, and the center counts what was delivered, and what of the pending points it was
    sent at the last moment.
    """
    found = agent.when(lambda found: found["ledger"]["pending"] <= 10)
    agent.stop()
    status = subprocess.run(
        [sys.executable, "-m", "agent.cli", "status", "--json", "-c", agent.config, "--state-dir", agent.state],
        capture_output=True,
        text=True,
        check=True,
        timeout=30,
    )
    ledger = json.loads(status.stdout)["ledger"]
    assert ledger["unaccounted"] == 0
    assert (ledger["rejected"], ledger["dropped"]) == (0, 0)
    assert ledger["measured"] == ledger["delivered"] + ledger["pending"]
    assert ledger["measured"] >= found["ledger"]["measured"]
    assert 0 <= center.parts.telemetry.count("pi-7") - ledger["delivered"] <= ledger["pending"]


@pytest.mark.slow
def test_a_token_revoked_at_the_center_is_renewed_and_nothing_is_lost(agent, center):
    agent.delivered()
    hidden = agent.secrets()
    center.parts.registry.remove("pi-7")
    failing = agent.when(lambda found: found["registration"]["state"] != "registered")
    measured = failing["ledger"]["measured"]
    renewed = agent.when(lambda found: found["registration"]["renewals"] == 1)
    assert renewed["ledger"]["measured"] >= measured
    agent.delivered()
    hidden += agent.secrets()
    for page in ("/", "/devices", "/devices/pi-7", "/api/devices", "/api/env/pi-7", "/api/devices/pi-7"):
        agent.shown.append(requests.get(center.url + page, timeout=40).text)
    assert len(set(hidden)) == 3  # the device secret stayed, the token is another
    nothing_is_lost(agent, center)
    words = agent.log.read_text() + "".join(agent.shown)
    assert "renewed as pi-7" in words
    for text in hidden:  # promise 7, with every debug message on
        assert text not in words


@pytest.mark.slow
def test_a_token_file_wiped_while_running_and_while_stopped_recovers_by_itself(agent, center):
    agent.delivered()
    path = agent.state / "credentials.json"
    before = path.read_text()
    path.unlink()
    wait_for(path.exists)
    assert path.read_text() == before
    agent.delivered()
    agent.stop()
    path.unlink()
    agent.start()
    agent.when(lambda found: found["registration"]["state"] == "registered")
    agent.delivered()
    assert json.loads(path.read_text())["token"] != json.loads(before)["token"]
    nothing_is_lost(agent, center)


@pytest.mark.slow
def test_with_its_secret_wiped_too_it_goes_on_measuring_and_says_what_the_administrator_must_do(agent, center):
    agent.delivered()
    agent.stop()
    (agent.state / "credentials.json").unlink()
    (agent.state / "device.secret").unlink()
    agent.start()
    stuck = agent.when(lambda found: found["registration"]["state"] == "failing" and found["buffer"]["disk_ok"])
    assert "An administrator of the center must remove pi-7 there" in stuck["registration"]["error"]
    later = agent.when(lambda found: found["ledger"]["measured"] >= stuck["ledger"]["measured"] + 10)
    assert later["ledger"]["pending"] >= 10
    center.parts.registry.remove("pi-7")  # what the administrator does
    agent.when(lambda found: found["registration"]["state"] == "registered", 100)
    agent.delivered()
    nothing_is_lost(agent, center)


@pytest.mark.slow
def test_measuring_starts_while_the_center_is_away_and_the_backlog_follows(tmp_path):
    settings = Settings(embedded=True, store=EmbeddedSettings(data=str(tmp_path / "center")))
    with serve(settings, port=0) as first:
        port = first.port
    agent = Agent(tmp_path, f"http://127.0.0.1:{port}")
    try:
        waiting = agent.when(lambda found: found["ledger"]["measured"] >= 10)
        assert waiting["registration"]["state"] in ("registering", "failing")
        with serve(settings, port=port) as center:
            center.parts = center.app.extensions[EXTENSION]
            agent.when(lambda found: found["registration"]["state"] == "registered", 60)
            agent.delivered(20)
            nothing_is_lost(agent, center)
    finally:
        agent.stop()


def test_promise_7_no_secret_is_on_the_command_line_or_in_the_environment_of_the_agent(agent):
    agent.when(lambda found: found["registration"]["state"] == "registered")
    process = Path("/proc") / str(agent.process.pid)
    for name in ("cmdline", "environ"):
        words = (process / name).read_bytes().decode(errors="replace")
        for text in agent.secrets():
            assert text not in words
