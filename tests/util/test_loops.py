"""What runs the parts that work on their own."""

import threading

import pytest

from agent.util import loops
from agent.util.loops import Loop, LoopThread, Steps


class Part(Loop):
    """Steps as its script says: a pause, or an error to raise."""

    def __init__(self, *script):
        self.wakeup = threading.Event()
        self.script = list(script)
        self.steps = self.finished = 0
        self.idle = threading.Event()

    def step(self):
        self.steps += 1
        if not self.script:
            self.idle.set()
            return 3600.0
        then = self.script.pop(0)
        if isinstance(then, Exception):
            raise then
        return then

    def finish(self):
        self.finished += 1


def test_what_nobody_foresaw_is_logged_when_it_begins_and_tried_again_ever_more_slowly(caplog):
    steps = Steps("clock", Part(*[ValueError("x")] * 8, 5.0, ValueError("y")))
    assert [steps.step() for _ in range(8)] == [1.0, 2.0, 4.0, 8.0, 16.0, 30.0, 30.0, 30.0]
    assert steps.step() == 5.0
    assert steps.step() == 1.0
    assert [record.getMessage() for record in caplog.records] == [
        "clock failed in a way that was not foreseen: trying again"
    ] * 2


def test_what_fails_for_a_whole_night_is_still_tried_in_the_morning():
    steps = Steps("clock", Part(*[ValueError("x")] * 1100, 5.0))
    assert [steps.step() for _ in range(1100)][5:] == [30.0] * 1095
    assert steps.step() == 5.0
    assert steps.problem is None


def test_what_goes_wrong_in_the_background_is_told_until_it_is_over():
    steps = Steps("clock", Part(ValueError("x"), 5.0))
    assert steps.problem is None
    steps.step()
    assert steps.problem == "clock fails in a way that was not foreseen (ValueError): see the log"
    steps.step()
    assert steps.problem is None


def test_what_a_part_says_of_itself_is_told_after_each_step():
    part = Part(5.0, 5.0)
    steps = Steps("clock", part)
    for part.problem in ("no server answers", None):
        steps.step()
        assert steps.problem == part.problem


def test_a_thread_steps_sleeps_and_is_woken_and_ends_at_once(monkeypatch):
    monkeypatch.setattr(loops, "MOST_S", 0.001)
    part = Part(ValueError("x"), 0.0, 0.001)
    thread = LoopThread("delivery", part)
    assert part.idle.wait(40)
    assert part.steps == 4
    part.idle.clear()
    part.wakeup.set()
    assert part.idle.wait(40)
    thread.stop()
    thread.join(40)
    assert not thread.is_alive()
    assert (part.steps, part.finished) == (5, 1)


def test_what_wakes_it_during_a_step_is_not_lost():
    part = Part()
    step = part.step

    def woken():
        if part.steps == 0:
            part.wakeup.set()
        return step() if part.steps else (step(), part.idle.clear())[0]

    part.step = woken
    thread = LoopThread("registration", part)
    assert part.idle.wait(40)
    thread.stop()
    thread.join(40)
    assert part.steps >= 2


@pytest.mark.parametrize("error", [ValueError("x"), OSError("disk")])
def test_an_error_at_the_end_is_logged_and_ends_the_thread_all_the_same(caplog, error):
    part = Part()

    def finish():
        raise error

    part.finish = finish
    thread = LoopThread("committer", part)
    thread.stop()
    thread.join(40)
    assert not thread.is_alive()
    assert "committer did not end as it should" in caplog.text
