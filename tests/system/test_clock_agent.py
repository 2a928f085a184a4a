"""Promise 5 of a whole running agent: its wall clock is faked by a preload, the server and the truth are real."""

import itertools
import json
import os
import re
import signal
import socket
import subprocess
import sys
import time

import pytest

from agent.status.socket import ask
from drivers.base import boot_ns
from tests.amounts import first
from tests.servers import InfluxServer
from tests.system.lateness import beside
from tests.waiting import wait_for
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

    def __init__(self, folder, url, wall, window, more=""):
        (folder / "numbered.py").write_text(DRIVER)
        info = folder / "numbered-1.dist-info"
        info.mkdir()
        (info / "METADATA").write_text("Metadata-Version: 2.1\nName: numbered\nVersion: 1\n")
        (info / "entry_points.txt").write_text("[iot_agent.drivers]\nnumbered = numbered:Numbered\n")
        (folder / "agent.toml").write_text(CONFIG.format(url=url, window=window) + more)
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

    def committed(self):
        """How many points are on disk, once there are more than ten."""
        told = ask(self.folder / "state")
        return told and told["buffer"]["pending_disk"] > 10 and told["buffer"]["pending_disk"]

    def stop(self):
        self.process.send_signal(signal.SIGTERM)
        assert self.process.wait(20) == 0


@pytest.fixture
def agent(tmp_path):
    agents = []

    def start(url, wall, window="1s", more=""):
        agents.append(Agent(tmp_path, url, wall, window, more))
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


def everything_delivered(agent, server, *, in_order=True):
    """Wait until all that was measured so far is on the server, stop, and compare with the truth."""
    wait_for(lambda: len(agent.true_times()) > 10)
    last = max(agent.true_times())
    wait_for(lambda: stored(server).keys() >= set(range(2, last + 1)))  # the first reading is discarded
    agent.stop()
    true, points = agent.true_times(), stored(server)
    assert all(len(stamps) == 1 for stamps in points.values()), "a reading is there twice"
    errors = {number: (stamps[0] - true[number]) / 1e9 for number, stamps in points.items()}
    stamps = [points[number][0] for number in sorted(points)]
    assert not in_order or all(a < b for a, b in itertools.pairwise(stamps)), "out of order"
    return errors


@pytest.mark.parametrize("after", [25, pytest.param(200, marks=pytest.mark.slow)], ids=["2.5 s", "20 s"])
def test_promise_5_a_clock_40_days_slow_stepped_right_gives_every_point_its_true_time(tmp_path, agent, after):
    wall = WallClock(tmp_path, shift_s=-40 * DAY_S)
    with InfluxServer(date=False) as server:
        running = agent(server.url, wall)
        wait_for(lambda: running.readings.exists() and len(running.true_times()) > after)
        assert not server.points
        wall.synchronise()
        errors = everything_delivered(running, server)
    assert max(map(abs, errors.values())) < 0.05


def test_promise_5_points_of_a_run_that_was_killed_get_their_true_time_from_the_next_run(tmp_path, agent):
    wall = WallClock(tmp_path, shift_s=-40 * DAY_S)
    with InfluxServer(date=False) as server:
        running = agent(server.url, wall)
        committed = wait_for(running.committed)
        running.process.kill()
        running.process.wait()
        killed = max(running.true_times())
        wall.set(-40 * DAY_S + 7200)
        running.start()
        wait_for(lambda: max(running.true_times()) >= killed + 10)
        wall.synchronise()
        wait_for(lambda: stored(server).keys() >= set(range(2, committed + 1)))  # the first reading may be discarded
        running.stop()
    true = running.true_times()
    assert all(len(s) == 1 and abs(s[0] - true[n]) < 50 * MS for n, s in stored(server).items())


def test_promise_5_where_adjtimex_is_refused_points_have_right_times_within_2_s_of_contact(tmp_path, agent):
    wall = WallClock(tmp_path, max_error_us=EPERM)
    with InfluxServer() as server:
        running = agent(server.url, wall, "10s")
        wait_for(lambda: server.requests)
        wait_for(lambda: server.points)
        asked = [request.at for request in server.requests]
        errors = everything_delivered(running, server)
    assert max(map(abs, errors.values())) < 0.05
    assert len(asked) <= 6  # five without points at most, half a second apart


@pytest.mark.slow
def test_promise_5_servers_that_agree_date_the_points_of_a_board_whose_clock_is_wrong(tmp_path, agent):
    wall = WallClock(tmp_path, shift_s=-40 * DAY_S, max_error_us=UNSYNCHRONISED_US)
    with InfluxServer() as server:
        running = agent(server.url, wall)
        wait_for(lambda: server.points)
        time.sleep(1)
        wall.synchronise()
        time.sleep(1)
        errors = everything_delivered(running, server)
    assert max(map(abs, errors.values())) < 1
    assert "40 days behind true time: points are dated by the servers' dates" in running.log.read_text()


@pytest.mark.parametrize("shift", first(1, -2 * DAY_S, 2 * DAY_S))
def test_promise_5_a_synchronised_clock_two_days_wrong_dates_no_point(tmp_path, agent, shift):
    wall = WallClock(tmp_path, shift_s=shift, max_error_us=2_000)
    with InfluxServer() as server:
        running = agent(server.url, wall)
        wait_for(lambda: len(server.points) > 10)
        errors = everything_delivered(running, server)
    assert max(map(abs, errors.values())) < 1
    assert "it is not believed" in running.log.read_text()


@pytest.mark.parametrize("step", first(1, -7200, 5 * 365 * DAY_S))
def test_promise_5_a_step_of_the_wall_clock_neither_reorders_nor_doubles_nor_misdates(tmp_path, agent, step):
    wall = WallClock(tmp_path)
    wall.synchronise()
    with InfluxServer() as server:
        running = agent(server.url, wall)
        wait_for(lambda: len(server.points) > 5)
        wall.set(step)
        time.sleep(1.5)
        errors = everything_delivered(running, server)
    assert max(map(abs, errors.values())) < 0.05


# Who may say what time it is


def exact(agent, server, within_s, begun_with=1):
    """All that was measured so far is there once, so far off at most; how many points that were."""
    errors = {n: e for n, e in everything_delivered(agent, server, in_order=False).items() if n >= begun_with}
    worst = max(map(abs, errors.values()))
    print(f"{len(errors)} points delivered, 0 wrong: the worst is {worst:.3f} s off")
    assert worst < within_s, errors
    return len(errors)


@pytest.mark.slow
@pytest.mark.parametrize("portal_s", [-3600, 3600], ids=["-1h", "+1h"])
@pytest.mark.parametrize("wall_s", [0, -40 * DAY_S], ids=["right", "slow"])
def test_promise_5_the_date_of_a_captive_portal_dates_nothing(tmp_path, agent, portal_s, wall_s):
    wall = WallClock(tmp_path, shift_s=wall_s, max_error_us=EPERM)
    with InfluxServer() as server:
        page = b"<html>please log in</html>"
        server.always, server.skew_s = server.answer(200, page, Content_Type="text/html"), portal_s
        running = agent(server.url, wall)
        wait_for(lambda: len(server.requests) > 3 and len(running.true_times()) > 50)
        assert not server.points
        server.skew_s, server.always = 0, None
        wait_for(lambda: len(server.points) > 60)
        points = exact(running, server, 1 if wall_s else 0.05)
    assert points > 60


@pytest.mark.slow
@pytest.mark.parametrize("late_s", [6, 25])
def test_promise_5_a_server_that_comes_late_has_the_first_points_within_10_s(tmp_path, agent, late_s):
    wall = WallClock(tmp_path, max_error_us=EPERM)
    with socket.create_server(("127.0.0.1", 0)) as taken:
        port = taken.getsockname()[1]
    running = agent(f"http://127.0.0.1:{port}", wall)
    wait_for(running.readings.exists)
    time.sleep(late_s)
    with InfluxServer(port=port) as server, beside(tmp_path / "reference") as machine_s:
        up = time.monotonic()
        wait_for(lambda: server.points)
        took = time.monotonic() - up
        assert took < 10 + machine_s()
        again = "delivery works again" in running.log.read_text()
        points = exact(running, server, 0.05)
    print(f"the first point came {took:.1f} s after the server")
    assert not again or server.points
    assert points > late_s * 8


@pytest.mark.slow
def test_promise_5_a_server_that_hangs_for_14_s_has_the_first_points_10_s_later(tmp_path, agent):
    wall = WallClock(tmp_path, max_error_us=EPERM)
    with InfluxServer() as server:
        server.always = server.hang
        running = agent(server.url, wall)
        wait_for(lambda: server.requests)
        time.sleep(14)
        server.always = None
        with beside(tmp_path / "reference") as machine_s:
            up = time.monotonic()
            wait_for(lambda: server.points)
            took = time.monotonic() - up
            assert took < 10 + machine_s()
        points = exact(running, server, 0.05)
    print(f"the first point came {took:.1f} s after the server")
    assert points > 100


@pytest.mark.slow
@pytest.mark.parametrize("skew_s", [300_000_000, -300_000_000, 3600, -3600], ids=["2036", "2017", "+1h", "-1h"])
def test_promise_5_dates_that_are_wrong_for_8_s_date_nothing_and_hold_nothing_up(tmp_path, agent, skew_s):
    wall = WallClock(tmp_path, max_error_us=EPERM)
    with InfluxServer() as server:
        server.skew_s = skew_s
        running = agent(server.url, wall)
        wait_for(lambda: server.requests)
        with beside(tmp_path / "reference") as machine_s:
            up = time.monotonic()
            time.sleep(8)
            assert not server.points
            server.skew_s = 0
            wait_for(lambda: server.points)
            took = time.monotonic() - up
            assert took < 10.5 + machine_s()
        points = exact(running, server, 0.05)
    print(f"the first point came {took:.1f} s after the server, whose dates were wrong for 8 s")
    assert points > 60


@pytest.mark.slow
def test_promise_5_a_kernel_five_years_ahead_dates_nothing_where_the_server_comes_late(tmp_path, agent):
    wall = WallClock(tmp_path, shift_s=5 * 365 * DAY_S, max_error_us=2_000)
    with socket.create_server(("127.0.0.1", 0)) as taken:
        port = taken.getsockname()[1]
    running = agent(f"http://127.0.0.1:{port}", wall)
    wait_for(lambda: running.readings.exists() and len(running.true_times()) > 75)
    with InfluxServer(port=port) as server:
        wait_for(lambda: server.points)
        points = exact(running, server, 1)
    assert points > 75
    assert "it is not believed" in running.log.read_text()


@pytest.mark.parametrize("ahead_s", first(1, 7200, 5))
def test_promise_5_after_a_step_back_all_points_have_their_true_time_after_one_flush(tmp_path, agent, ahead_s):
    wall = WallClock(tmp_path, shift_s=ahead_s, max_error_us=2_000)
    with InfluxServer() as server:
        running = agent(server.url, wall)
        wait_for(lambda: len(server.points) > 20)
        with beside(tmp_path / "reference") as machine_s:
            wall.synchronise()
            back = time.monotonic()
            wait_for(lambda: re.search(r"\d+ were delivered with a wrong time, from ", running.log.read_text()))
            assert time.monotonic() - back < 2 + machine_s()  # a look a second, a flush each half
        stepped = max(running.true_times())
        wait_for(lambda: max(running.true_times()) > stepped + 10)
        running.process.kill()
        running.process.wait()
        killed = max(running.true_times())
        running.start()
        wait_for(lambda: stored(server).keys() >= set(range(killed + 2, killed + 20)))  # the first is discarded
        running.stop()
    true, found = running.true_times(), stored(server)
    after = {n: s for n, s in found.items() if n > stepped}
    print(f"{len(after)} points delivered after the step back")
    assert all(len(stamps) == 1 for stamps in found.values())
    assert max(abs(s[0] - true[n]) for n, s in after.items()) < 50 * MS


@pytest.mark.parametrize("damage", first(1, "flipped", "shifted"))
def test_promise_5_a_damaged_clock_file_dates_no_point_wrongly(tmp_path, agent, damage):
    wall = WallClock(tmp_path, max_error_us=EPERM)
    with InfluxServer() as server:
        running = agent(server.url, wall)
        wait_for(lambda: len(server.points) > 10)
        running.stop()
        before = max(running.true_times())
        file = running.folder / "state" / "clock.json"
        text = file.read_text()
        if damage == "flipped":
            at = text.index('"offset_ns":') + 15
            text = text[:at] + chr(ord(text[at]) ^ 4) + text[at + 1 :]
        else:  # by somebody who knows how, or an old version
            record = {"version": 1, "boots": json.loads(text)["boots"]}
            for boot in record["boots"]:
                for name in ("offset_ns", "first_offset_ns", "given_ns"):
                    boot[name] += 40_000 * 10**9
            text = json.dumps(record)
        file.write_text(text)
        running.start()
        wait_for(lambda: max(running.true_times()) > before + 30)
        points = exact(running, server, 0.05, begun_with=before + 2)
    assert points > 25


def test_promise_5_what_was_dated_at_last_goes_at_once_and_not_with_the_next_flush(tmp_path, agent):
    wall = WallClock(tmp_path, max_error_us=EPERM)
    with InfluxServer() as server:
        running = agent(server.url, wall, window="10m", more='[delivery]\nflush_interval = "1m"\n')
        wait_for(lambda: len(server.points) > 3)
        running.stop()
