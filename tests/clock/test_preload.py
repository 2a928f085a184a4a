"""The real clocks of a real process, under a wall clock of its own."""

import json
import os
import subprocess
import sys

import pytest

from tests.wallclock import EPERM, WallClock

DAY_S = 86_400

PROGRAM = """
import json, sys, time
from agent.clock.boots import Boots
from agent.clock.clock import Clock
from drivers.base import boot_ns
clock = Clock(Boots(None, "boot"))
for line in sys.stdin:
    state = clock.poll()
    taken = boot_ns()
    print(json.dumps({"good": state.good, "evidence": state.evidence, "date": clock.date(taken), "boot": taken,
        "wall": time.time(), "offset": state.offset_ns}), flush=True)
"""


class Process:
    def __init__(self, wallclock):
        self._process = subprocess.Popen(
            [sys.executable, "-c", PROGRAM],
            stdin=subprocess.PIPE,
            stdout=subprocess.PIPE,
            text=True,
            env={**os.environ, **wallclock.environment},
        )

    def look(self):
        self._process.stdin.write("\n")
        self._process.stdin.flush()
        return json.loads(self._process.stdout.readline())

    def close(self):
        self._process.stdin.close()
        self._process.stdout.close()
        self._process.wait(40)


@pytest.fixture
def started():
    processes = []

    def start(wallclock):
        processes.append(Process(wallclock))
        return processes[-1]

    yield start
    for process in processes:
        process.close()


def true_ns(boot_ns):
    """Unix time of a moment on the boot clock, by this process's untouched clocks."""
    import time

    from drivers.base import boot_ns as now

    return time.time_ns() - (now() - boot_ns)


def test_a_process_40_days_slow_dates_nothing_until_it_is_stepped_right(tmp_path, started):
    wall = WallClock(tmp_path, shift_s=-40 * DAY_S)
    process = started(wall)
    seen = process.look()
    assert abs(seen["wall"] * 1e9 - (true_ns(seen["boot"]) - 40 * DAY_S * 10**9)) < 1e9
    assert (seen["good"], seen["date"]) == (False, None)
    wall.synchronise()
    after = process.look()
    assert after["evidence"] == "kernel"
    assert abs(after["date"] - true_ns(after["boot"])) < 20_000_000
    assert abs(seen["boot"] + after["offset"] - true_ns(seen["boot"])) < 20_000_000


def test_what_is_still_to_be_slewed_counts(tmp_path, started):
    wall = WallClock(tmp_path)
    wall.set(-0.3, 5_000, remaining_ns=300_000_000)
    seen = started(wall).look()
    assert abs(seen["date"] - true_ns(seen["boot"])) < 20_000_000


def test_a_step_of_five_years_after_that_changes_nothing(tmp_path, started):
    wall = WallClock(tmp_path)
    wall.synchronise()
    process = started(wall)
    process.look()
    wall.set(5 * 365 * DAY_S)
    seen = process.look()
    assert seen["good"]
    assert abs(seen["date"] - true_ns(seen["boot"])) < 20_000_000


def test_where_adjtimex_is_refused_nothing_is_assumed(tmp_path, started):
    seen = started(WallClock(tmp_path, max_error_us=EPERM)).look()
    assert (seen["good"], seen["evidence"]) == (False, None)
