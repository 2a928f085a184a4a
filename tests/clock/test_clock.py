"""When the time counts as good, and what time points get. Nothing here waits."""

from dataclasses import replace

import pytest

from agent.clock.boots import Boots
from agent.clock.clock import open_clock
from agent.clock.kernel import MAX_ERROR_NS
from agent.clock.sources import SECOND
from agent.config.settings import ClockSettings
from agent.config.units import Seconds
from tests.amounts import first
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
    asked = 0

    def kernel_then_step():
        nonlocal asked
        asked += 1
        said = world.kernel()
        if asked == 3:  # the first of the second look
            world.step(-2 * HOUR)
        return said

    clock = world.clock(kernel=kernel_then_step)
    world.synchronise()
    clock.poll()
    clock.poll()
    assert asked == 4
    assert abs(clock.date(world.boot_ns) - world.true_ns) <= MS


@pytest.mark.parametrize("paused_at", [1, 2])
def test_a_pause_while_the_clocks_are_read_makes_no_error(paused_at):
    """10 ms between the first clock and the second, or the second and the third, of the first two readings."""
    world = World()
    world.synchronise()
    reads = iter(())

    def paused(name):
        def now():
            if next(reads, None) in {paused_at, paused_at + 3}:
                world.wait(10 * MS)
            return getattr(world, name)

        return now

    clock = world.clock(boot_ns=paused("boot_ns"), wall_ns=paused("wall_ns"))
    clock.poll()
    world.synchronise()
    reads = iter(range(1000))
    clock.poll()
    assert abs(clock.date(world.boot_ns) - world.true_ns) <= MS
    assert clock.date(world.boot_ns) % MS == 0


def test_by_whom_the_time_is_known_is_said_when_it_begins_and_changes_and_not_again(caplog):
    caplog.set_level("INFO")
    world = World(wall_ns=NOW_NS, max_error_ns=None)
    clock = world.clock()
    world.contact(clock)
    for _ in range(3):
        clock.poll()
    assert caplog.messages == ["The time is known by the servers' dates, within 1.000 s"]
    world.synchronise()
    for _ in range(3):
        clock.poll()
    assert caplog.messages[1:] == ["The time is known by the kernel, within 0.005 s"]
    world.max_error_ns = None
    for _ in range(3):
        clock.poll()
    assert len(caplog.messages) == 2


def test_a_wall_clock_that_is_set_right_meanwhile_is_better_than_whole_seconds():
    """By something that the kernel says nothing of."""
    world = World(true_ns=NOW_NS + 350 * MS, wall_ns=NOW_NS - 40 * DAY, max_error_ns=None)
    clock = world.clock()
    for _ in range(6):
        world.answer(clock, travel_ns=0)
        world.wait(2 * SECOND)
    assert abs(clock.date(world.boot_ns) - world.true_ns) > 100 * MS
    world.wall_ns = world.true_ns
    for _ in range(3):
        world.wait(6 * SECOND)
        world.answer(clock, travel_ns=0)
    assert abs(clock.date(world.boot_ns) - world.true_ns) <= MS
    assert clock.state().warning is None


def test_after_a_reboot_servers_that_go_on_from_what_was_known_need_no_minute(tmp_path):
    world = World()
    world.synchronise()
    world.clock(tmp_path).poll()
    world.reboot(HOUR, "boot-2")
    clock = world.clock(tmp_path)
    assert world.contact(clock) < 10 * SECOND
    assert abs(clock.date(world.boot_ns) - world.true_ns) <= SECOND


@pytest.mark.parametrize("trust", ["auto", "always"])
def test_the_earliest_that_a_wall_clock_can_show_is_said(trust):
    clock = World(wall_ns=-(2**63), max_error_ns=MS).clock(trust=trust)
    assert "shows 1677-09-21 00:12:43 UTC" in clock.poll().warning


def test_what_had_no_time_is_dated_by_the_first_that_is_known_whatever_the_clock_does_later():
    world = World()
    clock = world.clock()
    world.measure()
    assert clock.undated_offset_ns() is None
    world.wait(SECOND)
    world.synchronise()
    clock.poll()
    boot, true = world.readings[0]
    first = clock.undated_offset_ns()
    assert abs(boot + first - true) <= MS
    world.wall_ns += 100 * MS
    clock.poll()
    assert clock.date(world.boot_ns) - world.true_ns == 100 * MS
    assert clock.undated_offset_ns() == first
    clock.close()
    here = clock.boots.order()[-1]
    assert here.offset_ns - here.first_offset_ns == 100 * MS  # as an agent that is started again finds it


@pytest.mark.parametrize("off", [-20 * SECOND, 20 * SECOND])
def test_servers_that_contradict_what_the_kernel_said_have_to_say_so_for_a_while(off):
    world = World()
    world.synchronise()
    clock = world.clock()
    clock.poll()
    world.max_error_ns = MAX_ERROR_NS
    begun = world.true_ns
    while clock.poll().evidence == "kernel":
        assert abs(clock.date(world.boot_ns) - world.true_ns) <= MS
        world.answer(clock, off_ns=off)
        world.wait(SECOND // 2)
    assert 8 * SECOND < world.true_ns - begun < 14 * SECOND
    assert abs(clock.date(world.boot_ns) - world.true_ns - off) <= SECOND


def test_small_steps_that_go_the_same_way_are_no_contradiction():
    world = World(wall_ns=NOW_NS, max_error_ns=MS)
    clock = world.clock()
    clock.on_wrong(lambda *_: pytest.fail("each is less than a leap second and what was stated"))
    for _ in range(4):
        clock.poll()
        assert abs(clock.date(world.boot_ns) - world.wall_ns) <= MS
        world.wait(60 * SECOND)
        world.wall_ns += 3 * SECOND // 2
        world.max_error_ns = MS


def test_what_servers_said_over_an_hour_ago_is_no_evidence():
    world = World(wall_ns=NOW_NS, max_error_ns=None)
    clock = world.clock()
    world.answer(clock)
    world.wait(2 * HOUR)
    assert not clock.poll().good
    world.answer(clock)
    assert not clock.poll().good  # one answer alone, again
    assert world.contact(clock) < 2 * SECOND
    assert clock.state().good


def test_a_wall_clock_that_moves_within_what_the_servers_allow_is_followed():
    world = World()
    world.synchronise()
    clock = world.clock()
    clock.poll()
    world.max_error_ns = None
    world.wall_ns += 300 * MS
    for _ in range(4):
        world.answer(clock)
        world.wait(6 * SECOND)
    assert abs(clock.date(world.boot_ns) - world.wall_ns) <= MS
    assert clock.state().evidence == "servers"


def test_whoever_dates_is_woken_when_the_time_is_known_or_known_otherwise_and_not_at_each_look():
    world = World(wall_ns=NOW_NS, max_error_ns=None)
    clock = world.clock()

    def woken():
        clock.poll()
        was = clock.changed.is_set()
        clock.changed.clear()
        return was

    assert not woken()
    world.contact(clock)
    assert [woken() for _ in range(3)] == [True, False, False]
    world.synchronise()
    assert [woken() for _ in range(3)] == [True, False, False]


def test_one_answer_that_differs_is_no_reason_to_warn():
    world = World(wall_ns=NOW_NS, max_error_ns=MS)
    clock = world.clock()
    world.answer(clock, off_ns=-300 * SECOND)
    assert clock.poll().warning is None
    world.wait(2 * SECOND)
    world.answer(clock, off_ns=-300 * SECOND)
    world.wait(6 * SECOND)
    world.answer(clock, off_ns=-300 * SECOND)
    assert "5 min behind the wall clock" in clock.poll().warning


def test_a_server_whose_date_cannot_be_is_named_for_an_hour():
    world = World(max_error_ns=None)
    clock = world.clock()
    clock.observe(SECOND, SECOND, world.boot_ns, world.boot_ns, "http://influxdb:8086", written=True)
    assert clock.state().warning
    world.wait(HOUR - 1)
    assert clock.poll().warning
    world.wait(1)
    assert clock.poll().warning is None


def test_whoever_asks_a_server_learns_whether_its_dates_are_of_use():
    world = World(max_error_ns=None)
    clock = world.clock()
    at = world.boot_ns, world.boot_ns, "http://influxdb:8086"
    assert clock.observe(NOW_NS, SECOND, *at, written=False), "nothing speaks against it yet"
    assert not clock.observe(SECOND, SECOND, *at, written=True)
    assert clock.observe(NOW_NS, SECOND, *at, written=True)


def test_the_configured_max_error_is_in_seconds(tmp_path, monkeypatch):
    monkeypatch.setattr("agent.clock.clock.Clock", lambda boots, **settings: (boots.folder, settings))
    settings = ClockSettings(max_error=Seconds(0.5), trust="always")
    assert open_clock(tmp_path, settings) == (tmp_path, {"trust": "always", "max_error_ns": SECOND // 2})
    assert (tmp_path / "clock.json").exists()  # the order of boots


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


@pytest.mark.parametrize(
    ("off", "after", "within"),
    [(-40 * DAY, 8, 10), (5 * 365 * DAY, 60, 70), (20 * SECOND, 8, 10)],
    ids=["-40d", "+5y", "+20s"],
)
def test_servers_that_agree_for_a_while_win_against_the_wall_clock(off, after, within):
    world = World(wall_ns=NOW_NS + off)
    clock = world.clock()
    boot, true = world.measure(), world.true_ns
    assert after * SECOND < world.contact(clock, most=80) < within * SECOND
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
        clock.observe(NOW_NS, SECOND, world.boot_ns, world.boot_ns + MS, "http://influxdb:8086", written=True)
        world.wait(3 * SECOND)
    assert not clock.state().good


def test_one_wrong_server_among_three_answers_changes_nothing():
    world = World(max_error_ns=None, wall_ns=NOW_NS)
    clock = world.clock()
    world.answer(clock, off_ns=400 * DAY)
    world.contact(clock)
    assert abs(clock.date(world.boot_ns) - world.true_ns) <= SECOND


@pytest.mark.parametrize("date_ns", [SECOND, 9_300_000_000 * SECOND, 253_402_300_799 * SECOND])
def test_a_server_living_in_the_past_or_after_all_stamps_is_ignored_and_named(date_ns):
    """Heard for minutes it would be believed, and a stamp after 2262 fits neither InfluxDB nor the header of a row."""
    world = World(max_error_ns=None)
    clock = world.clock()
    for _ in range(200):
        clock.observe(date_ns, SECOND, world.boot_ns, world.boot_ns, "http://influxdb:8086", written=True)
        world.wait(SECOND)
    assert not clock.state().good
    assert "in the past" in clock.state().warning


def test_a_synchronised_clock_from_before_this_program_is_not_believed():
    world = World(wall_ns=1_000_000_000 * SECOND, max_error_ns=MS)
    clock = world.clock()
    state = clock.poll()
    assert not state.good
    assert "2001-09-09" in state.warning
    world.contact(clock, most=80)
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


def test_a_server_some_minutes_off_is_reported_and_the_kernel_believed():
    world = World(wall_ns=NOW_NS, max_error_ns=MS)
    clock = world.clock()
    for _ in range(3):
        world.answer(clock, off_ns=-300 * SECOND)
        world.wait(6 * SECOND)
    state = clock.poll()
    assert state.evidence == "kernel"
    assert state.warning == "the servers' clocks are 5 min behind the wall clock"
    assert abs(clock.date(world.boot_ns) - world.true_ns) <= MS


def test_a_server_that_answers_all_the_time_is_listened_to_now_and_then():
    world = World(wall_ns=NOW_NS, max_error_ns=MS)
    asked = 0

    def kernel():
        nonlocal asked
        asked += 1
        return world.kernel()

    clock = world.clock(kernel=kernel)
    clock.poll()
    for _ in range(1000):
        world.answer(clock, travel_ns=10 * MS)
    assert asked <= 2 + 2 * 3


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
    for _ in range(4):
        world.answer(clock)
        world.wait(6 * SECOND)
        dates.append(clock.date(world.boot_ns))
    assert len(set(dates)) == len(dates)
    assert abs(dates[-1] - world.true_ns) <= SECOND  # at once, and not at half speed until it is right
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
    clock.configure("always", 300 * SECOND)
    assert clock.poll().evidence == "always"
    clock.configure("auto", 300 * SECOND)
    assert clock.date(world.boot_ns) is None
    assert not clock.poll().good


PORTAL = "http://influxdb:8086"


@pytest.mark.parametrize("off", [-HOUR, HOUR])
@pytest.mark.parametrize("wall", [0, -40 * DAY])
def test_promise_5_what_anybody_could_have_answered_over_plain_http_is_no_evidence(off, wall):
    world = World(wall_ns=NOW_NS + wall, max_error_ns=None)
    clock = world.clock()
    for _ in range(30):
        world.answer(clock, off_ns=off, written=False)
        world.wait(SECOND)
    assert not clock.state().good
    assert clock.probe_in() == 0.0
    world.contact(clock)
    assert abs(clock.date(world.boot_ns) - world.true_ns) <= SECOND


def test_a_refusal_counts_over_tls_and_from_a_server_that_gave_a_204_before():
    world = World(wall_ns=NOW_NS, max_error_ns=None)
    clock = world.clock()
    for _ in range(2):
        world.answer(clock, source="https://influxdb:8086", written=False)
        world.wait(SECOND)
    assert clock.state().good
    clock = world.clock()
    world.answer(clock)
    world.wait(SECOND)
    world.answer(clock, written=False)
    assert clock.state().good


def test_a_204_replaces_a_refusal_that_contradicts_it_and_not_the_other_way_round():
    world = World(wall_ns=NOW_NS, max_error_ns=None)
    clock = world.clock()
    for _ in range(8):
        world.answer(clock, off_ns=-HOUR, source="https://proxy", written=False)
        world.wait(2 * SECOND)
    assert abs(clock.date(world.boot_ns) - world.true_ns + HOUR) <= SECOND
    world.answer(clock)
    assert clock.date(world.boot_ns) is None  # at once, and not once it has the majority
    for _ in range(3):
        world.wait(SECOND)
        world.answer(clock, off_ns=-HOUR, source="https://proxy", written=False)
        world.answer(clock)
    assert abs(clock.date(world.boot_ns) - world.true_ns) <= SECOND


@pytest.mark.parametrize(
    "off", [-300_000_000 * SECOND, 300_000_000 * SECOND, HOUR, -HOUR], ids=["2017", "2036", "+1h", "-1h"]
)
def test_promise_5_dates_that_are_wrong_for_8_s_date_nothing_and_all_is_right_2_s_after(off):
    world = World(wall_ns=NOW_NS, max_error_ns=None)
    clock = world.clock()
    begun = world.true_ns
    while world.true_ns < begun + 8 * SECOND:
        world.wait(round((clock.probe_in() or 0.5) * SECOND))
        world.answer(clock, off_ns=off)
        assert clock.date(world.boot_ns) is None
    world.contact(clock)
    assert world.true_ns < begun + 10 * SECOND
    assert abs(clock.date(world.boot_ns) - world.true_ns) <= SECOND


def test_two_servers_that_are_a_year_from_all_that_is_known_are_believed_sooner():
    """A board that lay in a drawer for two years: the center and the database say the same."""
    world = World(true_ns=NOW_NS + 730 * DAY, wall_ns=NOW_NS)
    clock = world.clock()
    for number in range(12):
        world.answer(clock, source=f"http://server-{number % 2}")
        world.wait(SECOND)
    assert abs(clock.date(world.boot_ns) - world.true_ns) <= SECOND


def test_promise_5_a_kernel_five_years_ahead_is_not_believed_once_a_server_has_spoken():
    world = World(wall_ns=NOW_NS + 5 * 365 * DAY, max_error_ns=MS)
    clock = world.clock()
    wrong = []
    clock.on_wrong(lambda boot, stretches: wrong.append((boot, stretches)))
    clock.poll()
    given = [clock.date(world.measure())]
    world.wait(20 * SECOND)
    given.append(clock.date(world.measure()))
    world.answer(clock)
    assert clock.date(world.boot_ns) is None
    [(boot, stretches)] = wrong
    assert boot == "boot-1"
    for stamp, (boot_ns, _) in zip(given, world.readings, strict=True):
        [stretch] = [s for s in stretches if s.holds(stamp)]
        assert abs(stamp - stretch.offset_ns - boot_ns) <= MS
    world.contact(clock, most=80)
    assert abs(clock.date(world.boot_ns) - world.true_ns) <= SECOND


@pytest.mark.parametrize("back", [5 * SECOND, 2 * HOUR, 13 * HOUR], ids=["5 s", "2 h", "13 h"])
def test_promise_5_after_a_correction_backwards_the_true_time_counts_at_once_on_a_lane_of_its_own(tmp_path, back):
    world = World(wall_ns=NOW_NS + back, max_error_ns=MS)
    clock = world.clock(tmp_path)
    clock.poll()
    before = set()
    for _ in range(20):
        before.add(clock.date(world.measure()))
        world.wait(SECOND)
    world.synchronise()
    clock.poll()
    after = set()
    for _ in range(20):
        after.add(clock.date(world.measure()))
        assert abs(max(after) - world.true_ns) <= MS
        world.wait(SECOND)
    clock = world.clock(tmp_path)
    for _ in range(round(back / SECOND) if back < HOUR else 20):
        clock.poll()
        after.add(clock.date(world.measure()))
        assert abs(max(after) - world.true_ns) <= MS
        world.wait(SECOND)
    assert not before & after
    assert {stamp % MS for stamp in before} == {0}
    assert {stamp % MS for stamp in after} == {1000}


def test_a_clock_that_is_put_back_again_and_again_has_another_lane_each_time():
    world = World(wall_ns=NOW_NS + 4 * HOUR, max_error_ns=MS)
    clock = world.clock()
    lanes = []
    for _ in range(4):
        clock.poll()
        lanes.append(clock.date(world.boot_ns) % MS)
        world.wait(SECOND)
        world.wall_ns, world.max_error_ns = world.wall_ns - HOUR, MS
    assert lanes == [0, 1000, 2000, 3000]


def test_a_leap_second_is_taken_at_once_and_nothing_is_dated_anew():
    world = World(wall_ns=NOW_NS, max_error_ns=MS)
    clock = world.clock()
    clock.on_wrong(lambda *_: pytest.fail("what was before is right"))
    clock.poll()
    before = clock.date(world.measure())
    world.true_ns -= SECOND
    world.synchronise()
    clock.poll()
    assert abs(clock.date(world.boot_ns) - world.true_ns) <= MS
    assert clock.date(world.boot_ns) % MS != before % MS


def test_trust_always_follows_a_step_back_at_once():
    world = World(max_error_ns=None, wall_ns=NOW_NS)
    clock = world.clock(trust="always")
    clock.poll()
    before = clock.date(world.measure())
    world.step(-2 * HOUR)
    clock.poll()
    assert abs(clock.date(world.boot_ns) - world.wall_ns) <= MS
    assert clock.date(world.boot_ns) % MS != before % MS


def test_two_servers_5_s_apart_make_the_error_larger_and_the_time_does_not_jump():
    world = World(wall_ns=NOW_NS, max_error_ns=None)
    clock = world.clock()
    dates = []
    for number in range(60):
        world.answer(clock, off_ns=5 * SECOND * (number % 2), source=f"http://server-{number % 2}")
        world.wait(SECOND)
        if (given := clock.date(world.boot_ns)) is not None:
            dates.append(given)
            assert abs(given - world.true_ns) <= clock.state().error_ns
    assert len(dates) > 55
    assert dates == sorted(set(dates))
    assert {stamp % MS for stamp in dates} == {0}


@pytest.mark.parametrize("shift", [40_000 * SECOND, -40_000 * SECOND, 10 * SECOND])
def test_what_an_earlier_run_left_does_not_outweigh_the_first_answer_that_contradicts_it(tmp_path, shift):
    world = World(wall_ns=NOW_NS, max_error_ns=None)
    clock = world.clock(tmp_path)
    world.contact(clock)
    clock.close()
    boots = Boots(tmp_path, "boot-1")
    here = boots.order()[-1]
    moved = {name: getattr(here, name) + shift for name in ("offset_ns", "first_offset_ns", "given_ns")}
    boots.close(replace(here, **moved))
    clock = world.clock(tmp_path)
    assert abs(clock.date(world.boot_ns) - world.true_ns - shift) <= SECOND
    world.answer(clock)
    assert clock.date(world.boot_ns) is None
    world.contact(clock)
    assert abs(clock.date(world.boot_ns) - world.true_ns) <= SECOND


@pytest.mark.parametrize("bit", first(2, 2, 6, 0, 1, 3, 4, 5, 7))
def test_a_flipped_bit_in_the_clock_file_is_seen(tmp_path, bit):
    world = World()
    world.synchronise()
    clock = world.clock(tmp_path)
    clock.poll()
    clock.close()
    whole = (tmp_path / "clock.json").read_bytes()
    for at in range(len(whole)):
        damaged = bytearray(whole)
        damaged[at] ^= 1 << bit
        (tmp_path / "clock.json").write_bytes(damaged)
        assert not world.clock(tmp_path).state().good


def test_points_whose_time_may_be_wrong_by_more_than_max_error_wait_until_it_is_known_better():
    world = World(drift_ppm=50, wall_ns=NOW_NS, max_error_ns=MS)
    clock = world.clock()
    clock.poll()
    world.max_error_ns = MAX_ERROR_NS
    for _ in range(40 * 24):
        world.wait(HOUR)
        clock.poll()
        given = clock.date(world.measure())
        assert given is None or abs(given - world.true_ns) <= 300 * SECOND
    state = clock.state()
    assert not state.good
    assert state.error_ns > 300 * SECOND
    assert "max_error: points wait" in state.warning
    assert clock.undated_offset_ns() is None
    world.synchronise()
    assert clock.poll().good
    assert abs(clock.date(world.boot_ns) - world.true_ns) <= MS
    boot_ns, true_ns = world.readings[-1]
    assert abs(boot_ns + clock.undated_offset_ns() - true_ns) <= MS


def answers(world, clock, seconds, **of):
    """A server answers every second for so long; what points got meanwhile that is wrong by over 1.05 s."""
    wrong = 0
    for _ in range(seconds):
        world.answer(clock, **of)
        world.wait(SECOND)
        clock.poll()
        given = clock.date(world.boot_ns)
        wrong += given is not None and abs(given - world.true_ns) > 1.05 * SECOND
    return wrong


@pytest.mark.parametrize("off", [-120, 20, 240])
def test_a_server_some_minutes_off_for_3_s_is_forgotten_soon_after(off):
    world = World(max_error_ns=None)
    clock = world.clock()
    answers(world, clock, 3, off_ns=off * SECOND)
    answers(world, clock, 20)
    assert answers(world, clock, 60) == 0
    assert clock.state().error_ns <= 1.05 * SECOND


def test_a_center_2_min_off_does_not_spoil_what_the_database_says():
    world = World(max_error_ns=None)
    clock = world.clock()
    answers(world, clock, 1, off_ns=120 * SECOND, source="http://center:5000")
    answers(world, clock, 20)
    assert answers(world, clock, 60) == 0


@pytest.mark.parametrize("off", [-3 * DAY, 3 * DAY])
def test_promise_5_a_server_that_agreed_before_and_is_days_off_for_20_s_does_not_outweigh_the_kernel(off):
    world = World()
    world.synchronise()
    clock = world.clock()
    told = []
    clock.on_wrong(lambda *wrong: told.append(wrong))
    answers(world, clock, 10)
    assert answers(world, clock, 20, off_ns=off) == 0
    assert answers(world, clock, 10) == 0
    assert not told


def test_what_a_server_agreed_with_is_not_what_the_kernel_says_since():
    """It goes away in steps from what was agreed with, and the server is three days off meanwhile."""
    world = World(wall_ns=NOW_NS, max_error_ns=MS)
    clock = world.clock()
    clock.poll()
    for off in (0, 3 * DAY, 3 * DAY):
        world.answer(clock, off_ns=off)
        world.wait(SECOND)
    for believed in (True, False):
        world.wall_ns, world.max_error_ns = world.wall_ns + 20 * HOUR, MS
        warning = clock.poll().warning or ""
        assert ("it is not believed" not in warning) == believed


def test_promise_5_after_a_power_cut_a_server_behind_what_the_kernel_said_before_is_not_believed_at_once(tmp_path):
    world = World()
    world.synchronise()
    clock = world.clock(tmp_path)
    answers(world, clock, 10)
    world.reboot(600 * SECOND, "boot-2")
    world.wall_ns = world.true_ns - 2900 * SECOND
    clock = world.clock(tmp_path)
    assert answers(world, clock, 40, off_ns=-2903 * SECOND) == 0
    world.synchronise()
    assert answers(world, clock, 10) == 0


def test_a_jump_of_the_kernels_clock_takes_back_nothing_that_servers_agreed_with(caplog):
    """As of a virtual machine that was halted, or of an NTP server that errs for some seconds."""
    world = World(wall_ns=NOW_NS, max_error_ns=MS)
    clock = world.clock()
    wrong = []
    clock.on_wrong(lambda _, stretches: wrong.extend(stretches))
    clock.poll()
    world.answer(clock)
    before = [clock.date(world.measure())]
    world.wait(100 * SECOND)
    before.append(clock.date(world.measure()))
    world.wall_ns += SECOND
    clock.poll()
    world.wall_ns += 2 * HOUR - SECOND
    clock.poll()
    assert not wrong
    assert "The time moved by 7199.0 s: what was dated before stays" in caplog.text
    world.wait(2 * SECOND)
    jumped = clock.date(world.measure())
    assert abs(jumped - world.true_ns - 2 * HOUR) <= MS
    world.wait(2 * SECOND)
    world.synchronise()
    clock.poll()
    assert wrong
    assert any(stretch.holds(jumped) for stretch in wrong)
    assert not any(stretch.holds(stamp) for stretch in wrong for stamp in before)
    assert abs(clock.date(world.boot_ns) - world.true_ns) <= MS
    assert clock.date(world.boot_ns) % MS == 1000  # the jump has used the stamps of two hours on


def test_servers_that_never_agree_are_named():
    world = World(wall_ns=NOW_NS, max_error_ns=None)
    clock = world.clock()
    for number in range(60):
        world.answer(clock, off_ns=600 * SECOND * (number % 2), source=f"http://server-{number % 2}")
        world.wait(SECOND)
    assert not clock.state().good
    assert "apart: points wait until they agree" in clock.state().warning


def test_an_earlier_run_of_this_boot_is_gone_on_with_unless_it_is_of_later_or_of_no_evidence(tmp_path):
    world = World(wall_ns=NOW_NS, max_error_ns=None)
    world.clock(tmp_path, trust="always").poll()
    saved_ns = world.boot_ns
    for trust, boot_ns, good in (
        ("always", saved_ns, True),
        ("always", saved_ns - 1, False),
        ("always", saved_ns + HOUR, True),
        ("auto", saved_ns + HOUR, False),
    ):
        world.boot_ns = boot_ns
        assert world.clock(tmp_path, trust=trust).state().good == good
    world.boot_ns = saved_ns
    world.synchronise()
    world.clock(tmp_path).poll()
    assert world.clock(tmp_path, trust="always").state().evidence == "kernel"


def test_what_was_dated_before_a_restart_and_after_gets_the_same_time(tmp_path):
    """Two offsets, of which the earlier run remembers the first and the last."""
    world = World()
    world.measure()
    world.synchronise()
    clock = world.clock(tmp_path)
    clock.poll()
    since = world.boot_ns
    world.wait(HOUR)
    world.wall_ns += 500 * MS
    clock.poll()
    clock.close()
    moments = [since - SECOND, since, world.boot_ns, world.boot_ns + HOUR]
    again = world.clock(tmp_path)
    assert [again.date(at) for at in moments] == [clock.date(at) for at in moments]
    assert again.undated_offset_ns() == clock.undated_offset_ns()
    assert (again.state().since_boot_ns, again.state().offset_ns) == (since, clock.state().offset_ns)
    assert again.state().error_ns == clock.state().error_ns


@pytest.mark.parametrize(("away_ns", "moved_ns", "told"), [
    (2 * SECOND, 2 * SECOND, False),
    (2 * SECOND + 1, 2 * SECOND, True),
    (2 * SECOND, 2 * SECOND + 1, True),
])  # fmt: skip
def test_a_jump_takes_nothing_back_where_a_server_agreed_to_two_seconds_with_what_was_there_to_two(
    away_ns, moved_ns, told
):
    """The server is `away_ns` behind the kernel's clock, which goes on by `moved_ns` before it jumps."""
    world = World(wall_ns=NOW_NS, max_error_ns=5 * MS)
    clock = world.clock()
    wrong = []
    clock.on_wrong(lambda *found: wrong.append(found))
    clock.poll()
    says = NOW_NS - SECOND - SECOND // 20 - away_ns  # a second to the next date, and 50 ms of slack
    clock.observe(says, SECOND, world.boot_ns, world.boot_ns, "http://influxdb:8086", written=True)
    for step in (moved_ns, HOUR):
        world.wall_ns += step
        clock.poll()
    assert bool(wrong) == told


@pytest.mark.parametrize(("error_ns", "good"), [(10 * SECOND, True), (10 * SECOND + 1, False)])
def test_the_time_is_good_within_max_error_and_what_was_dated_before_stays(error_ns, good):
    world = World(wall_ns=NOW_NS, max_error_ns=SECOND)
    clock = world.clock()
    clock.configure("auto", 10 * SECOND)
    clock.poll()
    world.wait(HOUR)
    world.max_error_ns, world.wall_ns = error_ns, world.true_ns + MS  # moved: it is known anew, and no better
    since = world.boot_ns
    for _ in range(3):
        state = clock.poll()
        assert state.good == good
        assert (clock.date(since) is not None) == good
        assert abs(clock.date(since - 1) - world.true_ns) <= MS
        assert (clock.undated_offset_ns() is not None) == good
        assert (clock.probe_in() is None) == (good and bool(clock.proven))
    assert good or "known within 10 s only" in state.warning


def test_how_often_the_state_became_another_is_counted():
    world = World(wall_ns=NOW_NS, max_error_ns=None)
    clock = world.clock()
    counts = [clock.changes]
    world.synchronise()
    for max_error_ns in (None, None, SECOND, SECOND, 0, 0, 0):  # at 0 points wait: nothing that is known is another
        if max_error_ns is not None:
            clock.configure("auto", max_error_ns)
        clock.poll()
        counts.append(clock.changes)
    assert counts == [0, 1, 1, 2, 3, 4, 5, 6]


def test_what_a_person_should_know_is_logged_when_it_begins_and_when_it_is_over(caplog):
    caplog.set_level("INFO")
    world = World(wall_ns=NOW_NS, max_error_ns=MS)
    clock = world.clock(trust="always")
    clock.poll()
    clock.configure("auto", SECOND)
    world.max_error_ns, world.wall_ns = MS, SECOND
    for _ in range(2):
        clock.poll()
    world.max_error_ns, world.wall_ns = MS, NOW_NS
    for _ in range(2):
        clock.poll()
    assert [(record.levelname, record.getMessage()) for record in caplog.records] == [
        ("INFO", 'The time is known by trust = "always", within 0.000 s'),
        (
            "WARNING",
            "the wall clock counts as synchronised but shows 1970-01-01 00:00:01 UTC: it is not believed",
        ),
        ("INFO", "The time is known by the kernel, within 0.001 s"),
        ("INFO", "The clock's warning is over"),
    ]


def test_delivery_asks_a_server_until_one_is_heard_and_the_time_is_good():
    world = World(wall_ns=NOW_NS, max_error_ns=MS)
    clock = world.clock()
    assert clock.probe_in() == 0.0
    clock.poll()
    assert clock.probe_in() == 0.0  # known, and no server was heard
    assert not clock.proven
    world.answer(clock)
    assert clock.probe_in() is None
    assert clock.proven
    clock.configure("auto", 0)
    clock.poll()
    assert clock.probe_in() == 0.55
    clock.configure("always", 0)
    assert clock.probe_in() is None


def test_always_is_right_whatever_was_there_before():
    world = World(wall_ns=NOW_NS, max_error_ns=None)
    clock = world.clock(trust="always")
    clock.on_wrong(lambda *_: pytest.fail("nobody says so"))
    clock.poll()
    for step in (2 * HOUR, -2 * HOUR, DAY):
        world.step(step)
        clock.poll()
        assert abs(clock.date(world.boot_ns) - world.wall_ns) <= MS
    clock.configure("always", SECOND)
    assert clock.state().good
