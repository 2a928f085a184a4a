"""Signals at the worst moment: the agent hears the last one whatever it was doing."""

import random
import signal
import time

from tests.servers import InfluxServer
from tests.system.test_agent_run import Agent, wait_for


def test_a_storm_of_reloads_loses_no_point_and_leaves_an_agent_that_can_be_stopped(tmp_path):
    rng = random.Random(4)
    with InfluxServer() as server:
        agent = Agent(tmp_path, server.url, window="1s")
        try:
            agent.ledger(delivered=5)
            for _ in range(1500):
                agent.process.send_signal(signal.SIGHUP)
                time.sleep(rng.choice([0, 0, 0.0003, 0.001]))
            before = agent.ledger()["measured"]
            agent.ledger(delivered=before + 5)
            assert agent.stop() < 5
            assert agent.process.returncode == 0
        finally:
            agent.process.kill()
            agent.process.wait()
        ledger = wait_for(lambda: agent.status()["ledger"])
        assert ledger["measured"] == ledger["delivered"] + ledger["pending"]
        assert len(server.points) == ledger["delivered"]
