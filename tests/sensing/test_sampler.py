"""The sampler on a fake clock: schedule, failures, reports."""

import logging
import threading
from dataclasses import asdict, replace
from itertools import cycle, pairwise
from types import MappingProxyType

import pytest

from agent.config.settings import SensorSettings
from agent.config.units import Seconds
from agent.sensing.sampler import Sampler
from agent.util.loops import LoopThread
from drivers.base import Driver, NotFound, Reading, Transient, boot_ns, load, options_for

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
        self.settings = SensorSettings(**settings)
        self.sampler = Sampler(self.settings, Scripted(), self.take, now=lambda: self.now)

    def take(self, reading):
        self.emitted.append(reading)

    def interval(self, seconds):
        self.configure(interval=Seconds(seconds))

    def configure(self, **settings):
        self.settings = replace(self.settings, **settings)
        self.sampler.configure(self.settings)

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
        while (due := self.sampler.sample(self.now)) < end:
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
    assert "reads again after 10.0 s, 10 readings missed" in caplog.text


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
    assert len([r for r in caplog.records if "Temperature refused" in r.message]) == 1


@pytest.mark.parametrize(
    "given",
    [
        None,
        {"Temperature": 20.0},
        Reading({"Temperature": None}, 1),
        Reading({"Temperature": "20"}, 1),
        Reading(None, 1),
    ],
)
def test_promise_4_what_is_no_reading_of_numbers_is_a_failure_of_its_driver(given, caplog):
    world = World(interval=1)
    world.given = lambda: given
    status = world.run(3)
    assert (status.errors, status.readings, world.emitted) == (3, 0, [])
    assert "the driver failed with TypeError" in status.problem
    assert len(caplog.records) == 1
    del world.given
    assert world.run(2).failing_since_boot_ns is None


def test_values_are_a_plain_table_whatever_the_driver_keeps_them_in():
    world = World(lambda _: Reading(MappingProxyType({"Temperature": 20.0}), world.now), interval=1)
    assert asdict(world.run(1))["values"] == {"Temperature": 20.0}


def test_a_real_thread_reads_and_stops():
    got = threading.Event()
    world = World(interval=0.05)
    sampler = Sampler(SensorSettings(interval=Seconds(0.05)), world.sampler.driver, lambda _: got.set())
    world.given = lambda: Reading({"Temperature": 20.0}, boot_ns())
    thread = LoopThread("sensor", sampler)
    assert got.wait(40)
    thread.stop()
    thread.join(40)
    assert not thread.is_alive()


def test_a_transient_error_costs_one_reading():
    world = World({3.0: Transient("a transfer failed")}, interval=1)
    status = world.run(6)
    assert world.moments == [0, 1, 2, 4, 5]
    assert status.missed == 1


def test_when_it_is_plugged_in_again_the_next_moment_is_read():
    world = World(lambda s: NotFound("gone") if 3 <= s < 603 else 20.0, interval=1)
    status = world.run(700)
    assert status.missed == 600
    assert world.moments == [0, 1, 2, *range(603, 700)]


def test_a_failing_fast_sensor_is_opened_less_often_than_it_is_due():
    world = World(lambda _: NotFound("gone"), interval=0.05)
    status = world.run(10)
    assert world.opened < 20
    assert status.missed == 200


def test_a_problem_that_comes_and_goes_is_logged_when_it_changes_only(caplog):
    problems = [NotFound("bus gone"), Transient("transfer failed")]
    world = World(lambda s: problems[int(s) % 2] if s < 60 else 20.0, interval=1)
    world.run(70)
    assert [r.getMessage() for r in caplog.records] == ["sensor bme280: bus gone", "sensor bme280: transfer failed"]


def test_a_change_that_no_air_makes_is_refused_and_what_follows_is_not():
    world = World({5.0: 60.0, 6.0: 60.0}, interval=1)
    status = world.run(10)
    assert status.implausible == 2
    assert world.moments == [0, 1, 2, 3, 4, 7, 8, 9]
    assert status.refused == {}


def test_the_rate_can_be_configured():
    strict = World({5.0: 21.0}, interval=1, max_rate={"Temperature": 0.5})
    assert strict.run(10).implausible == 1
    loose = World({5.0: 60.0}, interval=1, max_rate={"Temperature": 100.0})
    assert loose.run(10).implausible == 0


def test_after_a_real_change_readings_come_through_again_by_themselves():
    world = World(lambda s: 20.0 if s < 10 else 50.0, interval=1)
    status = world.run(60)
    assert status.implausible == 5  # 30 °C at 5 °C/s
    assert world.temperatures[-1] == 50.0


@pytest.mark.parametrize("values", [{}, {"Warmth": 1.0}])
def test_promise_4_a_reading_that_is_none_is_refused(values):
    world = World()
    world.script = lambda _: Reading(values, world.now)
    assert world.run(10).implausible == 1
    assert not world.emitted


def test_promise_4_without_its_sensor_nothing_is_measured_and_nothing_stands_in_for_it():
    driver, emitted, now = load("bme280")(options_for(load("bme280"), {"bus": 250})), [], [1_000 * S]
    sampler = Sampler(SensorSettings(interval=Seconds(1)), driver, emitted.append, now=lambda: now[0])
    for _ in range(20):
        now[0] = sampler.sample(now[0])
    assert not emitted
    assert sampler.snapshot().missed == 20
    assert "no I2C bus /dev/i2c-250" in sampler.snapshot().problem


def test_promise_4_a_stale_reading_is_refused():
    world = World(interval=1)
    old = Reading({"Temperature": 20.0}, world.now)
    world.script = lambda _: old
    status = world.run(5)
    assert len(world.emitted) == 1
    assert status.implausible == 4


def test_a_mean_is_reported_at_the_end_of_each_interval():
    world = World(lambda s: s, interval=10, sample_every=2, max_rate={"Temperature": 99.0})
    status = world.run(30)
    assert world.moments == [8, 18, 28]
    assert world.temperatures == [4.0, 14.0, 24.0]
    assert (status.readings, status.reported) == (15, 3)


def test_minimum_and_maximum_are_reported_where_asked_for():
    world = World(lambda s: s, interval=10, sample_every=5, report="mean_min_max")
    world.run(10)
    assert world.emitted[0].values == {"Temperature": 2.5, "Temperature_min": 0.0, "Temperature_max": 5.0}


def test_a_mean_is_of_what_was_measured_and_a_hole_is_not_filled():
    world = World({2.0: NotFound("gone"), 4.0: 99.0, 8.0: NotFound("gone")}, interval=10, sample_every=2)
    status = world.run(30)
    assert world.moments[0] == 6
    assert world.temperatures[0] == pytest.approx((20.0 + 20.06) / 2)
    assert (status.missed, status.implausible) == (2, 1)


def test_an_interval_without_any_reading_reports_nothing():
    world = World(lambda s: NotFound("gone") if 10 <= s < 20 else 20.0, interval=10, sample_every=5)
    world.run(30)
    assert world.moments == [5, 25]


def test_a_stall_over_the_end_of_an_interval_does_not_mix_two():
    world = World(lambda s: s, interval=10, sample_every=2, max_rate={"Temperature": 99.0})
    world.run(5)
    world.now += 8 * S  # until 13
    world.run(10)
    assert world.moments == [4, 18]
    assert world.temperatures == [2.0, 15.25]  # of 0, 2, 4 and of 13, 14, 16, 18


def test_only_a_change_is_reported_or_a_heartbeat():
    world = World(lambda s: 20.0 if s < 25 else 20.4, interval=1, deadband={"Temperature": 0.3}, heartbeat=Seconds(10))
    status = world.run(40)
    assert world.moments == [0, 10, 20, 25, 35]
    assert (status.reported, status.suppressed) == (5, 35)


@pytest.mark.parametrize(
    ("heartbeat", "moments"), [(10, [0, 10, 20, 30, 40, 50]), (20, [0, 20, 40]), (24, [0, 20, 40]), (26, [0, 30])]
)
def test_a_heartbeat_comes_with_the_reading_that_is_nearest_however_its_moment_jitters(heartbeat, moments):
    world = World(interval=10, deadband={"Temperature": 0.3}, heartbeat=Seconds(heartbeat))
    jitter = cycle((50_000, -50_000))
    world.script = lambda _: Reading({"Temperature": 20.0}, world.now + next(jitter))
    world.run(60)
    assert [round(moment) for moment in world.moments] == moments


def test_a_slow_drift_is_reported_against_what_was_last_reported():
    world = World(lambda s: 20 + s / 128, interval=1, deadband={"Temperature": 10 / 128}, heartbeat=Seconds(600))
    world.run(51)
    assert world.moments == [0, 10, 20, 30, 40, 50]


def test_a_quantity_without_a_deadband_counts_at_any_change():
    world = World(interval=1, deadband={"Temperature": 5.0})
    world.script = lambda s: Reading({"Temperature": 20.0 + s / 100, "Humidity": 50.0 + (s >= 5)}, world.now)
    world.run(10)
    assert world.moments == [0, 5]


def test_a_quantity_that_goes_missing_or_comes_back_is_a_change():
    world = World(interval=1, deadband={"Temperature": 5.0, "Humidity": 5.0})
    both = {"Temperature": 20.0, "Humidity": 50.0}
    world.script = lambda s: Reading({"Temperature": 20.0} if 3 <= s < 6 else both, world.now)
    world.run(10)
    assert world.moments == [0, 3, 6]


def test_a_step_says_in_how_many_seconds_the_next_is_due_but_looks_in_at_least_each_second():
    world = World(interval=0.4)
    assert world.sampler.step() == pytest.approx(0.4)
    world.now += S // 10
    assert world.sampler.step() == pytest.approx(0.3)
    world.now += S
    assert world.sampler.step() == pytest.approx(0.1)  # the moment after those that were missed
    assert World(interval=60).sampler.step() == 1


def test_registers_that_do_not_move_are_noticed_with_when_it_began():
    world = World(lambda s: s if s < 5 else 5.0, interval=1, stuck_after=10)
    assert world.run(14).stuck == {}
    assert world.run(1).stuck == {"Temperature": 1_005 * S}
    world.script = lambda s: 5.01
    assert world.run(2).stuck == {}


def test_a_new_interval_counts_from_the_last_moment_and_loses_no_point():
    world = World(interval=60)
    world.run(130)  # 0, 60, 120
    world.interval(15)
    status = world.run(40)  # at 130: the next is 135
    assert world.moments == [0, 60, 120, 135, 150, 165]
    assert (status.missed, status.interval) == (0, 15)


def test_a_new_interval_that_has_already_passed_is_due_at_once():
    world = World(interval=60)
    world.run(50)
    world.interval(10)
    world.run(15)
    assert world.moments == [0, 50, 60]
    assert world.sampler.snapshot().missed == 0


def test_samples_taken_before_a_new_interval_count_for_its_first_report():
    world = World(lambda s: s, interval=60, sample_every=10, max_rate={"Temperature": 99.0})
    world.run(25)  # 0, 10, 20
    world.interval(20)
    world.run(30)  # 30, 40 | 50
    assert world.temperatures == [20.0]
    assert world.sampler.snapshot().readings == 6


def test_stopping_reports_what_was_sampled():
    world = World(lambda s: s, interval=60, sample_every=10)
    world.run(25)
    world.sampler.finish()
    assert world.temperatures == [10.0]


def test_a_sink_that_fails_does_not_end_the_sensor(caplog):
    world = World(interval=1)
    world.emitted = None  # to which nothing can be appended
    assert world.run(3).readings == 3
    assert caplog.text.count("was not taken") == 1


def test_status_names_the_sensor_and_its_last_values():
    world = World(interval=10, name="bench")
    status = world.run(1)
    assert (status.name, status.kind, status.interval) == ("bench", "scripted", 10)
    assert status.values == {"Temperature": 20.0}
    assert status.boot_ns == 1_000 * S
    assert status.alive_boot_ns == 1_000 * S


def test_a_refused_quantity_is_counted_named_and_logged_when_it_begins_and_ends(caplog):
    caplog.set_level(logging.INFO)
    world = World(interval=1)
    dead = {"Humidity": "its register is at the end of its range"}
    world.script = lambda s: Reading({"Temperature": 20.0}, world.now, refused=dead if 3 <= s < 8 else {})
    status = world.run(6)
    assert status.refused["Humidity"].why == dead["Humidity"]
    assert status.refused["Humidity"].since_boot_ns == 1_003 * S
    assert (status.implausible, status.readings) == (3, 6)
    assert world.moments == [0, 1, 2, 3, 4, 5]
    assert world.run(4).refused == {}
    assert [r.getMessage() for r in caplog.records] == [
        "sensor bme280: Humidity refused: its register is at the end of its range",
        "sensor bme280: Humidity is measured again",
    ]


def test_what_is_reported_is_calibrated_and_status_says_how():
    world = World(lambda _: 20.0, interval=1, offset={"Temperature": -1.5})
    status = world.run(2)
    assert world.temperatures == [18.5, 18.5]
    assert status.values == {"Temperature": 18.5}
    assert status.calibration == {"Temperature": "1 * measured - 1.5 °C"}


# What mutation of the sources has shown to be guarded by no test


def test_sampling_never_takes_longer_than_the_interval_that_the_center_sets():
    """agent.toml says sample_every = 20 s for an interval of 60; the center then asks for a point every 5 s."""
    world = World(lambda _: 20.0, interval=60, sample_every=20)
    world.run(1)
    world.interval(5)
    world.run(30)
    assert [later - earlier for earlier, later in pairwise(world.moments[1:])] == [5] * (len(world.moments) - 2)
    assert len(world.moments) >= 5


def test_after_a_recovery_the_next_outage_backs_off_from_the_beginning():
    world = World(lambda s: NotFound("gone") if 1 <= s < 20 or s >= 25 else 20.0, interval=0.05)
    world.run(25)
    world.opened = 0
    world.run(1)  # after 50, 100, 200 and 400 ms: four attempts in the first 0.75 s
    assert world.opened == 4


def test_an_outage_longer_than_the_board_ran_before_is_told_in_its_whole_length(caplog):
    caplog.set_level(logging.INFO)
    World(lambda s: NotFound("gone") if 100 <= s < 2100 else 20.0, interval=100).run(2200)
    assert "reads again after 2000.0 s, 20 readings missed" in caplog.text


def test_after_a_recovery_the_same_problem_is_logged_again(caplog):
    world = World(lambda s: NotFound("gone") if 1 <= s < 5 or 8 <= s < 12 else 20.0, interval=1)
    world.run(20)
    assert [r.getMessage() for r in caplog.records if r.levelname == "WARNING"] == ["sensor bme280: gone"] * 2


def test_a_true_large_step_is_there_within_a_second_however_rarely_it_is_read(caplog):
    caplog.set_level(logging.INFO)
    world = World(lambda s: 75.0 if 3600 <= s < 7000 else 20.0, interval=3600)
    world.run(3 * 3600)
    assert world.temperatures == [20.0, 75.0, 20.0]
    assert [round(moment, 1) for moment in world.moments] == [0, 3600.6, 7200.6]
    assert world.sampler.snapshot().implausible == 4
    assert not caplog.records


@pytest.mark.parametrize("sample", range(5))
def test_what_is_read_again_within_an_interval_counts_for_its_report_and_makes_none_of_its_own(sample):
    """Five samples make a report; what the last of them leaves open is reported once it is decided."""
    steps_at = 3000 + 600 * sample
    world = World(lambda s: 75.0 if s >= steps_at else 20.0, interval=3000, sample_every=600)
    world.run(5401)
    second = [4800, 5400.6] if sample == 4 else [5400]
    assert [round(moment, 1) for moment in world.moments] == [2400, *second]
    world.run(3600)
    assert [round(moment, 1) for moment in world.moments] == [2400, *second, 8400]
    assert world.temperatures[-1] == 75.0


def test_one_wrong_value_is_not_confirmed_by_reading_again_and_counted():
    world = World({600.0: 75.0}, interval=600)
    world.run(1300)
    assert max(world.temperatures) < 40
    assert world.sampler.snapshot().implausible == 1


def test_values_that_never_agree_are_read_again_a_few_times_and_said_to_be_refused(caplog):
    asked = []

    def script(s):
        asked.append(s)
        return 20.0 if s < 600 else (75.0, -30.0)[len(asked) % 2]

    world = World(script, interval=600)
    status = world.run(1800)
    assert len(asked) <= 1 + 2 * 4
    assert set(world.temperatures) == {20.0}
    assert "Temperature" in status.refused
    assert "Temperature refused: it changed by" in caplog.text


def test_a_doubt_is_decided_also_by_a_thread_that_wakes_late():
    world = World(lambda s: 75.0 if s >= 3600 else 20.0, interval=3600)
    world.run(3600)
    while (due := world.sampler.sample(world.now)) < world.now + 10 * S:  # a step of 55 degrees: is that so?
        world.now = due + S // 10
    assert world.temperatures == [20.0, 75.0]
    assert world.moments[-1] < 3602


# What the center changes meanwhile


def test_promise_4_a_mean_is_of_one_calibration_only():
    world = World(lambda _: 20.0, interval=60, sample_every=10, dew_point=True)
    world.run(25)  # 0, 10, 20
    world.configure(offset={"Temperature": 2.0})
    status = world.run(70)
    assert world.temperatures == [20.0, 22.0]  # the window ended with the readings it had, the next began
    assert [reading.boot_ns // S - 1000 for reading in world.emitted] == [20, 50]
    assert (status.readings, status.missed) == (10, 0)
    assert status.calibration == {"Temperature": "1 * measured + 2 °C"}
    assert status.remote == {"offset.Temperature": 2.0}
    world.configure(offset={})
    assert world.run(60).remote == {}
    assert world.temperatures[2:] == [22.0, 20.0]


def test_a_report_of_another_kind_has_all_that_was_sampled():
    world = World(lambda s: s, interval=30, sample_every=10, max_rate={"Temperature": 99.0})
    world.run(15)  # 0, 10
    world.configure(report="mean_min_max")
    world.run(10)  # 20
    assert world.emitted[0].values == {"Temperature": 10.0, "Temperature_min": 0.0, "Temperature_max": 20.0}


def test_a_deadband_counts_from_what_was_reported_last_and_an_offset_within_it_is_reported_all_the_same():
    world = World(lambda s: 20 + s / 100, interval=1)
    world.run(2)
    world.configure(deadband={"Temperature": 0.045})
    assert world.run(10).suppressed == 8
    assert world.temperatures == pytest.approx([20.0, 20.01, 20.06, 20.11])
    world.configure(deadband={"Temperature": 0.045}, offset={"Temperature": 0.01})
    world.run(1)
    assert world.temperatures[-1] == pytest.approx(20.13)
