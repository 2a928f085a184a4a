"""Signals at the worst moment: the agent hears the last one whatever it was doing."""

import contextlib
import os
import random
import signal
import subprocess
import threading
import time

import pytest

from tests.agents import AGENT, Agent
from tests.amounts import amount
from tests.servers import InfluxServer


def test_a_storm_of_reloads_loses_no_point_and_leaves_an_agent_that_can_be_stopped(tmp_path):
    rng = random.Random(4)
    with InfluxServer() as server:
        agent = Agent(tmp_path, server.url, window="1s")
        try:
            agent.ledger(delivered=5)
            for _ in range(amount(300, 1500)):
                agent.process.send_signal(signal.SIGHUP)
                time.sleep(rng.choice([0, 0, 0.0003, 0.001]))
            before = agent.ledger()["measured"]
            agent.ledger(delivered=before + 5)
            agent.stop()
            assert agent.process.returncode == 0
        finally:
            agent.process.kill()
            agent.process.wait()
        ledger = agent.status()["ledger"]
        assert ledger["measured"] == ledger["delivered"] + ledger["pending"]
        assert len(server.points) == ledger["delivered"]


def drained(terminal):
    with contextlib.suppress(OSError):  # nobody has the other end any more
        while os.read(terminal, 65536):
            pass


@pytest.mark.parametrize("command", [["read", "--driver", "virtual"], ["status", "--watch"]], ids=["read", "watch"])
def test_ctrl_c_is_how_a_live_table_ends_and_no_error(tmp_path, command):
    terminal, screen = os.openpty()
    where = ["--state-dir", str(tmp_path / "state")]
    heard = ["env", "--default-signal=INT"]  # a shell's background, where this may run, does not hear it
    with subprocess.Popen(
        [*heard, *AGENT, *command, *where], stdout=screen, stderr=subprocess.PIPE, text=True
    ) as process:
        try:
            assert os.read(terminal, 1)
            reader = threading.Thread(target=drained, args=(terminal,))  # a full screen would hold it up
            reader.start()
            time.sleep(0.3)
            process.send_signal(signal.SIGINT)
            _, words = process.communicate(timeout=40)
        finally:
            process.kill()
            os.close(screen)
            reader.join(20)
            os.close(terminal)
    assert (process.returncode, words) == (0, "")
