"""The whole `iot-agent run`, killed at random moments while its server comes and goes: what is lost, by count on it."""

import json
import random
import re
import signal
import threading
import time

import pytest

from agent.status.socket import ask
from drivers.base import boot_ns
from tests.servers import InfluxServer
from tests.system.lateness import lateness_s
from tests.system.numbered import NumberedAgent
from tests.system.test_kill import outages
from tests.waiting import wait_for

WINDOW_S = 1.0
TO = """
[influxdb]
url = "{url}"
org = "my-org"
bucket = "iot_center"
token = "token-1"
"""


def numbers(server):
    """The numbers of the readings that the server has."""
    with server.lock:
        return [int(re.search(rb"CO2=([0-9]+)i", line)[1]) for line in server.points.values()]


def kill_one(agent, rng):
    """Start it, and kill it once it has measured for a random while. The moment of the kill, boot clock in ns."""
    before = len(agent.measured())
    agent.start()
    wait_for(lambda: len(agent.measured()) > before)
    time.sleep(rng.uniform(0.05, 2.5 * WINDOW_S))
    at = boot_ns()
    agent.process.send_signal(signal.SIGKILL)
    agent.process.wait()
    return at


@pytest.fixture
def agent(tmp_path):
    agents = []

    def make(to, **more):
        agents.append(NumberedAgent(tmp_path, to, **more))
        return agents[-1]

    yield make
    for one in agents:
        one.end()


@pytest.mark.parametrize("kills", [2, pytest.param(50, marks=[pytest.mark.slow, pytest.mark.timeout(600)])])
def test_promise_1_a_killed_agent_loses_at_most_the_loss_window_each_time(tmp_path, agent, kills):
    rng, reference = random.Random(kills), tmp_path / "reference"
    with InfluxServer() as server:
        running = agent(TO.format(url=server.url), window_s=WINDOW_S, environment={"REFERENCE": str(reference)})
        stop = threading.Event()
        mood = threading.Thread(target=outages, args=(server, stop, rng))
        mood.start()
        killed = [kill_one(running, rng) for _ in range(kills)]
        stop.set()
        mood.join()
        running.start()
        known = len(running.measured())
        wait_for(lambda: len(running.measured()) > known + 10)
        known = max(running.measured())
        wait_for(lambda: max(numbers(server)) >= known, 60)
        wait_for(lambda: ask(running.state)["buffer"]["pending_disk"] == 0, 60)  # the backlog comes behind it
        assert running.stop() == 0
        arrived = numbers(server)
        ledger = json.loads(running.command("status", "--json").stdout)["ledger"]
    assert len(arrived) == len(set(arrived)), "no reading has two times"
    assert (ledger["unaccounted"], ledger["rejected"], ledger["dropped"]) == (0, 0, 0)
    for number, at in running.measured().items():
        if number not in set(arrived) and number <= known:
            kill = min((moment for moment in killed if moment >= at), default=at + 10**18)
            allowed_s = WINDOW_S + lateness_s(reference, kill - 2e9 * WINDOW_S, kill)
            gap_s = (kill - at) / 1e9
            assert gap_s <= allowed_s, f"reading {number} is lost, and was measured {gap_s:.3f} s before the kill"
    assert len(arrived) > kills * 5
