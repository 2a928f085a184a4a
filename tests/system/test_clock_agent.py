"""Promise 5 of a whole running agent: its wall clock is faked by a preload, the server and the truth are real."""

import itertools
import os
import re
import signal
import subprocess
import sys
import time

import pytest

from drivers.base import boot_ns
from tests.servers import InfluxServer
from tests.wallclock import EPERM, UNSYNCHRONISED_US, WallClock

DAY_S = 86_400
MS = 1_000_000
EVERY_S = 0.1

# A sensor of another package whose values number its readings, and which notes on the boot clock when they were.
DRIVER = """
import os
from drivers.virtual import Virtual
from drivers.base import Reading, boot_ns
class Numbered(Virtual):
    number = 0
    def read(self):
        if not Numbered.number and os.path.exists(os.environ["NUMBERED"]):
            Numbered.number = sum(1 for _ in open(os.environ["NUMBERED"]))
        now, Numbered.number = boot_ns(), self.number + 1
        with open(os.environ["NUMBERED"], "a") as log:
            log.write(f"{self.number} {now}\\n")
        return Reading({"Temperature": self.number / 100}, now)
"""
CONFIG = """
[[sensor]]
driver = "numbered"
interval = "100ms"
[influxdb]
url = "{url}"
org = "my-org"
bucket = "iot_center"
token = "token-1"
[buffer]
loss_window = "{window}"
[status]
listen = ""
[health]
enabled = false
"""


class Agent:
    """`iot-agent run` with a wall clock of its own. true_time() is the truth, by the boot clock of this machine."""

    def __init__(self, folder, url, wall, window):
        (folder / "numbered.py").write_text(DRIVER)
        info = folder / "numbered-1.dist-info"
        info.mkdir()
        (info / "METADATA").write_text("Metadata-Version: 2.1\nName: numbered\nVersion: 1\n")
        (info / "entry_points.txt").write_text("[iot_agent.drivers]\nnumbered = numbered:Numbered\n")
        (folder / "agent.toml").write_text(CONFIG.format(url=url, window=window))
        (folder / "agent.toml").chmod(0o600)
        self.readings, self.log, self.folder = folder / "readings", folder / "log", folder
        self.where = ["--config", str(folder / "agent.toml"), "--state-dir", str(folder / "state")]
        self.environment = {
            **os.environ,
            **wall.environment,
            "PYTHONPATH": str(folder),
            "NUMBERED": str(self.readings),
        }
        self.start()

    def start(self):
        with self.log.open("ab") as log:
            self.process = subprocess.Popen(
                [sys.executable, "-m", "agent.cli", "run", *self.where],
                stdout=log,
                stderr=log,
                env=self.environment,
            )

    def true_times(self):
        """Number of each reading → Unix ns."""
        offset = time.time_ns() - boot_ns()
        lines = (line.split() for line in self.readings.read_text().splitlines())
        return {int(number): int(boot) + offset for number, boot in lines}

    def stop(self):
        self.process.send_signal(signal.SIGTERM)
        assert self.process.wait(20) == 0


@pytest.fixture
def agent(tmp_path):
    agents = []

    def start(url, wall, window="1s"):
        agents.append(Agent(tmp_path, url, wall, window))
        return agents[-1]

    yield start
    for one in agents:
        if one.process.poll() is None:
            one.process.kill()
            one.process.wait()


def stored(server):
    """Number of the reading → its stamps on the server, Unix ns."""
    found = {}
    with server.lock:
        for (_, stamp), line in server.points.items():
            number = round(float(re.search(rb"Temperature=([0-9.]+)", line)[1]) * 100)
            found.setdefault(number, []).append(stamp)
    return found


def wait_until(condition, seconds=20):
    deadline = time.monotonic() + seconds
    while not condition():
        assert time.monotonic() < deadline, "it did not happen in time"
        time.sleep(0.02)


def everything_delivered(agent, server):
    """Wait until all that was measured so far is on the server, stop, and compare with the truth."""
    wait_until(lambda: len(agent.true_times()) > 10)
    last = max(agent.true_times())
    wait_until(lambda: stored(server).keys() >= set(range(2, last + 1)))  # the first reading is discarded
    agent.stop()
    true, points = agent.true_times(), stored(server)
    assert all(len(stamps) == 1 for stamps in points.values()), "a reading is there twice"
    errors = {number: (stamps[0] - true[number]) / 1e9 for number, stamps in points.items()}
    stamps = [points[number][0] for number in sorted(points)]
    assert all(a < b for a, b in itertools.pairwise(stamps)), "out of order"
    return errors


@pytest.mark.parametrize("after", [25, pytest.param(200, marks=pytest.mark.slow)], ids=["2.5 s", "20 s"])
def test_promise_5_a_clock_40_days_slow_stepped_right_gives_every_point_its_true_time(tmp_path, agent, after):
    wall = WallClock(tmp_path, shift_s=-40 * DAY_S)
    with InfluxServer(date=False) as server:
        running = agent(server.url, wall)
        wait_until(lambda: running.readings.exists() and len(running.true_times()) > after, 40)
        assert not server.points
        wall.synchronise()
        errors = everything_delivered(running, server)
    assert max(map(abs, errors.values())) < 0.05


def test_promise_5_points_of_a_run_that_was_killed_get_their_true_time_from_the_next_run(tmp_path, agent):
    wall = WallClock(tmp_path, shift_s=-40 * DAY_S)
    with InfluxServer(date=False) as server:
        running = agent(server.url, wall)
        wait_until(lambda: running.readings.exists() and len(running.true_times()) > 30)
        running.process.kill()
        running.process.wait()
        killed = max(running.true_times())
        wall.set(-40 * DAY_S + 7200)
        running.start()
        wait_until(lambda: max(running.true_times()) >= killed + 10)
        wall.synchronise()
        wait_until(lambda: stored(server).keys() >= set(range(2, killed - 10)))  # the loss window is 1 s
        running.stop()
    true = running.true_times()
    assert all(len(s) == 1 and abs(s[0] - true[n]) < 50 * MS for n, s in stored(server).items())


def test_promise_5_where_adjtimex_is_refused_points_have_right_times_within_2_s_of_contact(tmp_path, agent):
    wall = WallClock(tmp_path, max_error_us=EPERM)
    with InfluxServer() as server:
        running = agent(server.url, wall, "10s")
        wait_until(lambda: server.requests)
        contact = time.monotonic()
        wait_until(lambda: server.points, 10)
        took = time.monotonic() - contact
        errors = everything_delivered(running, server)
    assert max(map(abs, errors.values())) < 0.05
    assert took < 2


def test_promise_5_servers_that_agree_date_the_points_of_a_board_whose_clock_is_wrong(tmp_path, agent):
    wall = WallClock(tmp_path, shift_s=-40 * DAY_S, max_error_us=UNSYNCHRONISED_US)
    with InfluxServer() as server:
        running = agent(server.url, wall)
        wait_until(lambda: server.points)
        time.sleep(1)
        wall.synchronise()
        time.sleep(1)
        errors = everything_delivered(running, server)
    assert max(map(abs, errors.values())) < 1
    assert "40.0 days behind true time: points are dated by the servers' dates" in running.log.read_text()


@pytest.mark.parametrize("shift", [-2 * DAY_S, 2 * DAY_S], ids=["slow", "fast"])
def test_promise_5_a_synchronised_clock_two_days_wrong_dates_no_point(tmp_path, agent, shift):
    wall = WallClock(tmp_path, shift_s=shift, max_error_us=2_000)
    with InfluxServer() as server:
        running = agent(server.url, wall)
        wait_until(lambda: len(server.points) > 10)
        errors = everything_delivered(running, server)
    assert max(map(abs, errors.values())) < 1
    assert "it is not believed" in running.log.read_text()


@pytest.mark.parametrize("step", [-7200, 5 * 365 * DAY_S], ids=["-2h", "+5y"])
def test_promise_5_a_step_of_the_wall_clock_neither_reorders_nor_doubles_nor_misdates(tmp_path, agent, step):
    wall = WallClock(tmp_path)
    wall.synchronise()
    with InfluxServer() as server:
        running = agent(server.url, wall)
        wait_until(lambda: len(server.points) > 5)
        wall.set(step)
        time.sleep(1.5)
        errors = everything_delivered(running, server)
    assert max(map(abs, errors.values())) < 0.05
