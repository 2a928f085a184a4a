"""When the time counts as good, and what time points get. Nothing here waits."""

import itertools

import pytest

from agent.clock.kernel import MAX_ERROR_NS
from agent.clock.sources import SECOND
from tests.clock_world import DAY, HOUR, NOW_NS, World, error_ns

MS = 1_000_000


def test_nothing_is_dated_while_nobody_vouches_for_the_clock():
    world = World()
    clock = world.clock()
    assert not clock.poll().good
    assert clock.date(world.boot_ns) is None
    assert clock.state().offset_ns is None


def test_promise_5_three_days_without_network_then_ntp_gives_every_point_its_true_time():
    world = World(drift_ppm=50)
    clock = world.clock()
    for _ in range(3 * 24):
        world.measure()
        world.wait(HOUR)
        clock.poll()
    assert all(clock.date(b) is None for b, _ in world.readings)
    world.synchronise()
    assert clock.poll().evidence == "kernel"
    for boot, true in world.readings:
        assert abs(clock.date(boot) - true) <= error_ns(clock, boot)
        assert abs(clock.date(boot) - true) <= 13.1 * SECOND
    boot, true = world.readings[-1]
    assert abs(clock.date(world.boot_ns) - world.true_ns) <= MS


def test_a_slew_of_300_ms_still_owed_is_counted_in():
    world = World(wall_ns=NOW_NS)
    clock = world.clock()
    world.wait(10 * SECOND)
    first = world.measure(), world.true_ns
    world.synchronise(owed_ns=300 * MS)
    clock.poll()
    assert abs(clock.date(first[0]) - first[1]) <= MS
    dates = []
    for _ in range(900):
        world.wait(SECOND)
        if len(dates) % 60 == 0:
            clock.poll()
        dates.append(clock.date(world.boot_ns))
        assert abs(dates[-1] - world.true_ns) <= 31 * MS  # 60 s at 500 ppm between two looks
    assert dates == sorted(dates)
    assert world.remaining_ns == 0


@pytest.mark.parametrize("step", [-2 * HOUR, 5 * 365 * DAY, -40 * DAY], ids=["-2h", "+5y", "-40d"])
def test_a_step_of_the_wall_clock_changes_no_time_that_points_get(step):
    world = World()
    clock = world.clock()
    world.synchronise()
    clock.poll()
    before = clock.date(world.boot_ns)
    world.step(step)
    clock.poll()
    world.wait(HOUR)
    state = clock.poll()
    assert state.good
    assert "dated by the time known before" in state.warning
    assert clock.date(world.boot_ns) - before == HOUR
    world.synchronise()
    assert clock.poll().warning is None
    assert abs(clock.date(world.boot_ns) - world.true_ns) <= MS


def test_a_step_between_two_looks_at_the_kernel_is_not_taken_for_good():
    world = World()
    clock = world.clock()
    world.synchronise()
    clock.poll()
    asked = 0

    def kernel_then_step():
        nonlocal asked
        asked += 1
        said = world.kernel()
        if asked == 1:
            world.step(-2 * HOUR)
        return said

    clock._kernel = kernel_then_step
    clock.poll()
    assert abs(clock.date(world.boot_ns) - world.true_ns) <= MS


def test_suspend_is_counted():
    world = World()
    clock = world.clock()
    world.synchronise()
    clock.poll()
    world.suspend(9 * HOUR)
    clock.poll()
    assert abs(clock.date(world.boot_ns) - world.true_ns) <= MS


def test_evidence_that_expires_stays_good_for_the_boot_with_a_growing_error():
    world = World(drift_ppm=20)
    clock = world.clock()
    world.synchronise()
    error = clock.poll().error_ns
    for _ in range(48):
        world.wait(HOUR)
        clock.poll()
    assert world.max_error_ns == MAX_ERROR_NS
    state = clock.state()
    assert state.good
    assert state.evidence == "kernel"
    assert state.error_ns > error
    assert abs(clock.date(world.boot_ns) - world.true_ns) <= state.error_ns


@pytest.mark.parametrize("max_error", [None, MAX_ERROR_NS], ids=["adjtimex EPERM", "never synchronises"])
def test_a_machine_that_is_right_but_cannot_show_it_is_good_within_2_s_of_first_contact(max_error):
    world = World(wall_ns=NOW_NS + 5 * MS, max_error_ns=max_error)
    clock = world.clock()
    for _ in range(60):
        world.measure()
        world.wait(SECOND)
        assert not clock.poll().good
    assert world.contact(clock) < 2 * SECOND
    state = clock.state()
    assert (state.good, state.evidence, state.warning) == (True, "servers", None)
    for boot, true in world.readings:
        assert abs(clock.date(boot) - true) <= 6 * MS  # dated by the wall clock, which is better than whole seconds


@pytest.mark.parametrize("off", [-40 * DAY, 5 * 365 * DAY, 20 * SECOND], ids=["-40d", "+5y", "+20s"])
def test_servers_that_agree_with_each_other_win_against_the_wall_clock(off):
    world = World(wall_ns=NOW_NS + off)
    clock = world.clock()
    boot, true = world.measure(), world.true_ns
    assert world.contact(clock) < 2 * SECOND
    state = clock.state()
    assert state.evidence == "servers"
    assert "points are dated by the servers' dates" in state.warning
    assert abs(clock.date(boot) - true) <= SECOND


def test_ntp_after_servers_makes_the_time_exact_and_reorders_nothing():
    world = World()
    clock = world.clock()
    world.contact(clock)
    dates = [clock.date(world.boot_ns)]
    world.synchronise()
    assert clock.poll().evidence == "kernel"
    for _ in range(20):
        dates.append(clock.date(world.boot_ns))
        world.wait(SECOND // 5)
    assert dates == sorted(dates)
    assert abs(clock.date(world.boot_ns) - world.true_ns) <= MS


def test_answers_of_one_moment_are_no_evidence():
    world = World()
    clock = world.clock()
    for _ in range(4):
        world.answer(clock)
    assert not clock.state().good


def test_a_date_that_stands_still_is_no_evidence():
    """A caching proxy."""
    world = World()
    clock = world.clock()
    for _ in range(8):
        clock.observe(NOW_NS, SECOND, world.boot_ns, world.boot_ns + MS)
        world.wait(3 * SECOND)
    assert not clock.state().good


def test_one_wrong_server_among_three_answers_changes_nothing():
    world = World(max_error_ns=None, wall_ns=NOW_NS)
    clock = world.clock()
    world.answer(clock, off_ns=400 * DAY)
    world.contact(clock)
    assert abs(clock.date(world.boot_ns) - world.true_ns) <= SECOND


def test_a_server_living_in_the_past_is_ignored_and_named():
    world = World(max_error_ns=None)
    clock = world.clock()
    for _ in range(4):
        clock.observe(SECOND, SECOND, world.boot_ns, world.boot_ns)
        world.wait(SECOND)
    assert not clock.state().good
    assert "in the past" in clock.state().warning


def test_a_synchronised_clock_from_before_this_program_is_not_believed():
    world = World(wall_ns=1_000_000_000 * SECOND, max_error_ns=MS)
    clock = world.clock()
    state = clock.poll()
    assert not state.good
    assert "2001-09-09" in state.warning
    world.contact(clock)
    assert abs(clock.date(world.boot_ns) - world.true_ns) <= SECOND


def test_a_synchronised_clock_a_day_from_the_servers_date_is_not_believed():
    world = World(wall_ns=NOW_NS - 2 * DAY, max_error_ns=MS)
    clock = world.clock()
    assert clock.poll().good
    assert clock.probe_in() == 0.0  # delivery asks before it sends anything
    world.answer(clock)
    assert not clock.state().good
    assert "not believed" in clock.state().warning
    world.contact(clock)
    assert clock.state().evidence == "servers"
    assert abs(clock.date(world.boot_ns) - world.true_ns) <= SECOND


def test_a_server_speaks_first_for_some_seconds_then_the_kernel_is_believed_alone():
    world = World(wall_ns=NOW_NS, max_error_ns=MS)
    clock = world.clock(first_word_ns=5 * SECOND)
    assert not clock.poll().good
    world.wait(4 * SECOND)
    assert not clock.poll().good
    world.wait(SECOND)
    assert clock.poll().good
    clock = world.clock(first_word_ns=5 * SECOND)
    assert not clock.poll().good
    world.answer(clock)
    assert clock.state().evidence == "kernel"


def test_a_server_some_minutes_off_is_reported_and_the_kernel_believed():
    world = World(wall_ns=NOW_NS, max_error_ns=MS)
    clock = world.clock()
    for _ in range(3):
        world.answer(clock, off_ns=-300 * SECOND)
        world.wait(6 * SECOND)
    state = clock.poll()
    assert state.evidence == "kernel"
    assert state.warning == "the servers' clocks are 5.0 min behind the wall clock"
    assert abs(clock.date(world.boot_ns) - world.true_ns) <= MS


def test_a_server_that_answers_all_the_time_is_listened_to_now_and_then():
    world = World(wall_ns=NOW_NS, max_error_ns=MS)
    clock = world.clock()
    clock.poll()
    asked = 0

    def kernel():
        nonlocal asked
        asked += 1
        return world.kernel()

    clock._kernel = kernel
    for _ in range(1000):
        world.answer(clock, travel_ns=10 * MS)
    assert asked <= 2 * 3


def test_a_board_off_line_for_days_follows_servers_that_agree_again():
    world = World(drift_ppm=60)
    clock = world.clock()
    world.synchronise()
    clock.poll()
    for _ in range(20 * 24):
        world.wait(HOUR)
        clock.poll()
    assert abs(clock.date(world.boot_ns) - world.true_ns) > 100 * SECOND
    dates = []
    for _ in range(40):
        world.answer(clock)
        world.wait(6 * SECOND)
        dates.append(clock.date(world.boot_ns))
    assert all(a < b for a, b in itertools.pairwise(dates))
    assert abs(dates[-1] - world.true_ns) <= SECOND
    assert clock.state().evidence == "servers"


def test_trust_always_dates_at_once_and_asks_nobody():
    world = World(max_error_ns=None, wall_ns=NOW_NS)
    clock = world.clock(trust="always")
    assert clock.probe_in() is None
    assert clock.poll().evidence == "always"
    assert abs(clock.date(world.boot_ns) - world.true_ns) <= MS


def test_times_are_whole_milliseconds():
    world = World(wall_ns=NOW_NS + 123_456, max_error_ns=MS)
    clock = world.clock()
    clock.poll()
    assert clock.date(world.boot_ns + 777_777) % MS == 0


def test_trust_can_be_changed_while_it_runs():
    world = World()
    clock = world.clock()
    assert not clock.poll().good
    clock.configure("always")
    assert clock.poll().evidence == "always"
    clock.configure("auto")
    assert clock.date(world.boot_ns) is None
    assert not clock.poll().good
