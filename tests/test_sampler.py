"""The sampler on a fake clock: schedule, failures, reports."""

import logging
import threading

import pytest

from agent.sampler import Sampler
from agent.settings import SensorSettings
from agent.units import Seconds
from drivers.base import Driver, NotFound, Reading, Transient

S = 1_000_000_000


class World:
    """A clock, and a sensor that gives what it is told: numbers are temperatures, exceptions are raised."""

    def __init__(self, script=None, **settings):
        self.now = 1_000 * S
        self.script = script if script is not None else {}
        self.opened = 0
        self.emitted = []
        world = self

        class Scripted(Driver):
            sensor = "scripted"
            Options = dict

            def __init__(self):
                pass

            def open(self):
                world.opened += 1

            def read(self):
                return world.given()

            def close(self):
                pass

        settings = {k: Seconds(v) if k in {"interval", "sample_every"} else v for k, v in settings.items()}
        self.sampler = Sampler(SensorSettings(**settings), Scripted(), self.emitted.append, now=lambda: self.now)

    @property
    def second(self):
        return (self.now - 1_000 * S) / S

    def given(self):
        value = (
            self.script(self.second) if callable(self.script) else self.script.get(self.second, 20 + self.second / 100)
        )
        if isinstance(value, Exception):
            raise value
        if isinstance(value, Reading):
            return value
        return Reading({"Temperature": value}, self.now, repr(value).encode())

    def run(self, seconds):
        """Let time pass as the thread would, waking exactly when due."""
        end = self.now + round(seconds * S)
        while (due := self.sampler.step(self.now)) < end:
            self.now = max(due, self.now)
        self.now = end
        return self.sampler.snapshot()

    @property
    def moments(self):
        return [(r.boot_ns - 1_000 * S) / S for r in self.emitted]

    @property
    def temperatures(self):
        return [r.values["Temperature"] for r in self.emitted]


def test_readings_come_on_a_grid_without_drift():
    world = World(interval=10)
    world.run(100)
    assert world.moments == [0, 10, 20, 30, 40, 50, 60, 70, 80, 90]


def test_after_a_stall_there_is_one_reading_and_the_missed_ones_are_counted():
    world = World(interval=1)
    world.run(3)
    world.now += 7 * S + S // 2
    status = world.run(2)
    assert world.moments == [0, 1, 2, 10.5, 11, 12]
    assert status.missed == 7
    assert status.readings == 6


def test_a_sensor_that_fails_gives_nothing_until_it_answers_again(caplog):
    caplog.set_level(logging.INFO)
    gone = NotFound("BME280 not found on /dev/i2c-1", "is it wired?")
    world = World(lambda s: gone if 5 <= s < 15 else 20.0, interval=1)
    world.run(8)
    failing = world.sampler.snapshot()
    assert failing.failing_since_boot_ns == 1_005 * S
    assert "not found" in failing.problem
    status = world.run(12)
    assert world.moments == [0, 1, 2, 3, 4, *range(15, 20)]
    assert (status.missed, status.failing_since_boot_ns, status.problem) == (10, None, None)
    assert [r.levelname for r in caplog.records] == ["WARNING", "INFO"]
    assert "10 readings missed" in caplog.text


def test_a_driver_that_raises_anything_does_not_end_the_thread():
    world = World({1.0: ZeroDivisionError("oops")}, interval=1)
    status = world.run(3)
    assert world.moments == [0, 2]
    assert status.errors == 1


@pytest.mark.parametrize("value", [float("nan"), float("inf"), -40.01, 85.01, 40.0])
def test_promise_4_what_cannot_be_is_counted_and_not_delivered(value, caplog):
    world = World({2.0: value, 3.0: value}, interval=1)
    status = world.run(6)
    assert world.moments == [0, 1, 4, 5]
    assert (status.implausible, status.readings, status.missed) == (2, 4, 0)
    assert len([r for r in caplog.records if "cannot be" in r.message]) == 1


def test_a_real_thread_reads_and_stops():
    stop, got = threading.Event(), threading.Event()
    world = World(interval=0.05)
    sampler = Sampler(SensorSettings(interval=Seconds(0.05)), world.sampler.driver, lambda _: got.set())
    world.given = lambda: Reading({"Temperature": 20.0}, sampler._now())
    thread = threading.Thread(target=sampler.run, args=(stop,))
    thread.start()
    assert got.wait(5)
    stop.set()
    thread.join(5)
    assert not thread.is_alive()


def test_a_transient_error_costs_one_reading():
    world = World({3.0: Transient("a transfer failed")}, interval=1)
    status = world.run(6)
    assert world.moments == [0, 1, 2, 4, 5]
    assert status.missed == 1
