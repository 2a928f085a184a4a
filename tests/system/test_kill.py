"""SIGKILL at random moments, with outages of the server: at most the loss window is lost, by count on the server."""

import random
import signal
import subprocess
import sys
import threading
import time

import pytest

from drivers.base import boot_ns
from tests.servers import InfluxServer
from tests.system.lateness import lateness_s

WINDOW_S = 0.4


class Killer:
    """Starts the worker again and again, and kills it."""

    def __init__(self, folder, server, seed):
        self.folder, self.server, self.rng = folder, server, random.Random(seed)
        self.kills = []  # the moment, and how many points had been measured by then

    def measured(self):
        path = self.folder / "measured"
        if not path.exists():
            return []
        rows = path.read_bytes().split(b"\n")[:-1]
        return [tuple(map(int, row.split())) for row in rows]

    def start(self):
        first = self.measured()[-1][0] + 1 if self.measured() else 0
        command = [sys.executable, "-m", "tests.system.kill_worker", self.folder, self.server.url, first, WINDOW_S]
        return subprocess.Popen(list(map(str, command)), stdout=subprocess.PIPE, text=True)

    def kill_one(self):
        before = len(self.measured())
        process = self.start()
        until = time.monotonic() + 20
        while len(self.measured()) == before and time.monotonic() < until:
            assert process.poll() is None, "the worker ended by itself"
            time.sleep(0.01)
        time.sleep(self.rng.uniform(0.05, 2.5 * WINDOW_S))
        at = boot_ns()
        process.send_signal(signal.SIGKILL)
        process.wait()
        process.stdout.close()
        self.kills.append((at, len(self.measured())))

    def finish(self):
        (self.folder / "enough").touch()
        process = self.start()
        output, _ = process.communicate(timeout=60)
        return list(map(int, output.split()))


def outages(server, stop, rng):
    """Turns the server's mood at random, until `stop`."""
    moods = [
        None,
        server.answer(503, b""),
        server.answer(500, b"x"),
        server.store_then_cut,
        server.cut,
        server.twice,
        server.trickle(0.2),
        server.answer(401, {"code": "unauthorized", "message": "unauthorized access"}),
    ]
    while not stop.wait(rng.uniform(0.05, 0.6)):
        server.always = rng.choice(moods)
    server.always = None


@pytest.mark.parametrize(
    "kills",
    [
        3,
        pytest.param(50, marks=[pytest.mark.slow, pytest.mark.timeout(400)]),
    ],
)
def test_promise_1_kills_during_outages_lose_at_most_the_loss_window_each(tmp_path, kills):
    seed = 20
    with InfluxServer() as server:
        killer = Killer(tmp_path, server, seed)
        stop = threading.Event()
        mood = threading.Thread(target=outages, args=(server, stop, random.Random(seed)))
        mood.start()
        for _ in range(kills):
            killer.kill_one()
        stop.set()
        mood.join()
        pending, unaccounted, _, _ = killer.finish()
        arrived = {int(line.split(b"Number=")[1].split()[0]) for line in server.points.values()}
        stored = len(server.points)
    assert (pending, unaccounted) == (0, 0)
    assert stored == len(arrived), "no point has two times"
    points, begin = killer.measured(), 0
    for killed_ns, end in killer.kills:
        allowed = WINDOW_S + lateness_s(tmp_path / "reference", killed_ns - 2e9 * WINDOW_S, killed_ns)
        for number, at in points[begin:end]:
            gap = (killed_ns - at) / 1e9
            assert number in arrived or gap <= allowed, f"point {number} was lost {gap:.3f} s after it was measured"
        begin = end
    assert {number for number, _ in points[begin:]} <= arrived
    assert len(arrived) > kills * 5
