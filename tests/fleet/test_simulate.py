"""A fleet in one process: the arithmetic of its figures, the shared loops, and a small fleet with an outage."""

import json
import subprocess
import sys
import threading
from functools import partial
from types import SimpleNamespace

import pytest
from hypothesis import given
from hypothesis import strategies as st

from agent.fleet import center
from agent.fleet.simulate import SharedLoops, held, passed, peak_to_mean, percentile
from agent.util.loops import Loop
from agent.util.secret import Secret
from center.app import serve
from center.context import EXTENSION
from tests.center_helpers import HASH, embedded_settings

SIMULATE = [sys.executable, "-m", "agent.cli", "simulate"]


def simulate(*arguments):
    run = subprocess.run([*SIMULATE, *arguments], capture_output=True, text=True, timeout=110, check=False)
    return run, json.loads(run.stdout.splitlines()[-1]) if run.stdout else None


def test_an_even_load_has_a_peak_of_its_mean_and_a_burst_stands_out():
    even = [second + part / 10 for second in range(10) for part in range(10)]
    assert peak_to_mean(even, 0, 10) == 1
    assert peak_to_mean([*even, *[3.5] * 10], 0, 10) == pytest.approx(20 / 11)
    assert peak_to_mean([], 0, 10) == 0
    assert peak_to_mean([1.0], 0, 0.5) == 0


@given(st.lists(st.floats(0, 1e6), min_size=1), st.floats(0, 1))
def test_a_percentile_is_one_of_the_values_with_that_share_below(values, share):
    found = percentile(values, share)
    assert found in values
    assert sum(value < found for value in values) <= share * len(values)


@pytest.mark.parametrize(
    ("change", "ok"),
    [({}, True), ({"registered": 9}, False), ({"unequal": 1}, False), ({"pending": 2}, False)],
)
def test_a_run_passes_only_if_every_device_registered_and_every_point_is_there(change, ok):
    assert passed({"registered": 10, "devices": 10, "unequal": 0, "pending": 0, **change}) is ok


def test_a_store_that_shows_late_what_it_took_is_asked_again_and_one_that_never_does_is_not_waited_for(monkeypatch):
    shown = {"a": iter([5]), "b": iter([3, 4, 7])}
    monkeypatch.setattr("agent.fleet.simulate.stored", lambda _, device_id, secret: next(shown[device_id]))
    monkeypatch.setattr("agent.fleet.simulate.time.sleep", lambda _: None)
    own = dict.fromkeys("ab", Secret("s"))
    assert held("http://center", {"a": 5, "b": 6}, own) == [5, 7]
    shown["a"] = iter([4])
    assert held("http://center", {"a": 5}, own, seconds=-1) == [4]


def test_events_happen_at_their_seconds_in_order_until_the_end_or_until_somebody_asks(monkeypatch):
    moment = iter(range(100, 200))
    monkeypatch.setattr(center, "time", SimpleNamespace(monotonic=lambda: next(moment)))
    seen = []
    events = [(second, partial(seen.append, f"event {second}")) for second in (4, 2, 9)]
    center.pass_time(6, events, seen.append)
    assert seen == [1, "event 2", 2, 3, "event 4", 4, 5]
    seen.clear()
    center.pass_time(1000, [], lambda elapsed: seen.append(elapsed) or elapsed == 3)
    assert seen == [1, 2, 3]


class Part(Loop):
    """A loop that makes one mistake, and counts its steps."""

    def __init__(self):
        self.steps, self.seen, self.finished, self.wakeup = 0, threading.Event(), threading.Event(), threading.Event()

    def step(self):
        self.steps += 1
        if self.steps == 2:
            raise RuntimeError("one bad step")
        if self.steps == 4:
            self.seen.set()
        return 0.0 if self.steps < 4 else 1000.0

    def finish(self):
        self.finished.set()


def test_loops_share_threads_survive_a_mistake_and_end_at_once_when_stopped(caplog):
    loops = SharedLoops(2)
    parts = [Part() for _ in range(20)]
    shared = [loops.spawn(f"committer {n}", part) for n, part in enumerate(parts)]
    assert all(part.seen.wait(40) for part in parts)
    for one in shared:
        one.stop()
    for one in shared:
        one.join(40)
        assert one.ended.is_set()
    assert all(part.finished.is_set() and part.steps == 4 for part in parts)
    assert "one bad step" in caplog.text


def test_a_fleet_registers_delivers_and_is_counted_device_by_device_through_an_outage():
    run, result = simulate("--devices", "12", "--interval", "500ms", "--duration", "3s", "--outage", "1s", "--json")
    assert run.returncode == 0, run.stderr + run.stdout
    assert result["registered"] == result["devices"] == 12
    assert result["delivered"] == result["stored"] == result["measured"] >= 12 * 4
    assert result["errors"] == result["unequal"] == result["unaccounted"] == 0


@pytest.mark.slow
def test_a_fleet_that_loses_power_all_at_once_comes_back_with_every_point():
    run, result = simulate("--devices", "12", "--interval", "500ms", "--duration", "6s", "--restart-all", "--json")
    assert run.returncode == 0, run.stderr + run.stdout
    assert result["delivered"] == result["stored"]


@pytest.mark.slow
def test_a_center_with_a_password_is_told_a_key_and_each_device_s_own_secret(tmp_path):
    with serve(embedded_settings(tmp_path)) as guarded:
        registry = guarded.app.extensions[EXTENSION].registry
        registry.set_password_hash(HASH)
        _, key = registry.make_enrollment_key(uses=2)
        file = tmp_path / "key"
        file.write_text(key.reveal())
        file.chmod(0o600)
        arguments = ("--center", guarded.url, "--enrollment-key-file", str(file))
        run, result = simulate(*arguments, "--devices", "2", "--interval", "500ms", "--duration", "2s", "--json")
    assert run.returncode == 0, run.stderr + run.stdout
    assert result["delivered"] == result["stored"] > 0


@pytest.mark.parametrize(
    ("arguments", "words"),
    [
        (["--center", "http://192.0.2.1:5000"], "--allow-remote"),
        (["--outage", "5s", "--duration", "5s"], "shorter"),
        (["--duration", "2h"], "an hour"),
        (["--devices", "0"], "--devices"),
        (["--interval", "soon"], "10s"),
    ],
)
def test_what_is_not_bounded_or_not_ours_is_refused(arguments, words):
    run = subprocess.run([*SIMULATE, *arguments], capture_output=True, text=True, timeout=30, check=False)
    assert run.returncode == 2
    assert words in run.stderr
