"""When what is sent: flush moments, back-off, the backlog's rate."""

from random import Random

import pytest
from hypothesis import given
from hypothesis import strategies as st

from agent.buffer.batch import Batch
from agent.delivery.pacing import LEAST_POINTS, PROMPT_S, Flow, Gate, Pace, flush_interval_s, next_flush

S = 1_000_000_000


@pytest.mark.parametrize(
    ("configured", "loss_window", "seconds"), [(5, 10, 5), (5, 4, 2), (1, 10, 1), (5, 0, PROMPT_S), (0.5, 0, 0.5)]
)
def test_promise_1_points_are_sent_by_half_the_loss_window(configured, loss_window, seconds):
    assert flush_interval_s(configured, loss_window) == seconds


@given(st.integers(0, 2**62), st.floats(0.05, 3600), st.text())
def test_a_flush_comes_after_now_and_within_an_interval(now, interval_s, device):
    moment = next_flush(now, interval_s, device)
    assert now < moment <= now + interval_s * S + 1
    later = next_flush(moment, interval_s, device)
    assert later - moment == round(interval_s * 1e9)


def test_a_fleet_that_boots_at_once_does_not_flush_at_once():
    moments = sorted(next_flush(0, 5.0, f"device-{n}") for n in range(500))
    in_each_second = [sum(1 for moment in moments if moment // S == second) for second in range(5)]
    assert all(60 < number < 140 for number in in_each_second)


def test_a_server_that_is_away_is_looked_for_within_a_quarter_of_its_absence():
    gate, now = Gate(Random(1)), 0
    while now < 3600 * 10**9:
        gate.fail(now, soon=True)
        assert gate.left_s(now) <= max(4, now / 4e9)
        now = gate.until
    assert gate.failures < 80
    for _ in range(100):
        gate.fail(now, soon=True)
    assert gate.left_s(now) <= 300


def test_waits_grow_to_five_minutes_and_start_again_after_a_success():
    gate = Gate(Random(1))
    waits = []
    for _ in range(40):
        gate.fail(0)
        waits.append(gate.left_s(0))
    assert 0.05 <= waits[0] <= 1
    assert max(waits) <= 300
    assert max(waits[12:]) > 200
    gate.clear()
    gate.fail(0)
    assert gate.left_s(0) <= 1


def test_backlog_rate_holds_over_seconds():
    flow, now, sent = Flow(1000), 0, 0
    while now < 60 * S:
        if flow.until <= now:
            flow.sent(now, flow.allowed(5000))
            sent += flow.allowed(5000)
        now += S // 100
    assert 59_000 <= sent <= 61_000
    assert flow.allowed(5000) == 1000
    assert 950 < flow.rate(now) < 1100


def test_without_a_limit_the_backlog_goes_at_full_speed():
    flow = Flow(0)
    flow.sent(5 * S, 5000)
    assert flow.until <= 5 * S
    assert flow.allowed(5000) == 5000
    assert flow.rate(6 * S) == 0.0  # one request says nothing about a rate


def test_requests_shrink_when_too_large_and_grow_again():
    pace = Pace(5.0, 5000, 0, "pi-1", Random(1))
    pace.shrink(5000)
    pace.shrink(2500)
    assert pace.limit == 1250
    pace.shrink(1250, LEAST_POINTS)
    pace.shrink(625, LEAST_POINTS)
    pace.shrink(100, LEAST_POINTS)
    assert pace.limit == 500
    for _ in range(30):
        pace.accepted(0, Batch((1,), b"", pace.limit))
    assert pace.limit == 5000
    for _ in range(20):
        pace.shrink(pace.limit)
    assert pace.limit == 1


def test_after_a_failure_the_newest_points_are_first_whenever_the_next_flush_is():
    pace = Pace(5.0, 5000, 0, "pi-1", Random(3))
    pace.flushed(0, 10)
    assert not pace.live_due(0)
    pace.server.fail(0)
    assert pace.live_due(0)


def test_trouble_of_the_backlog_does_not_hold_up_the_newest_points():
    pace = Pace(5.0, 5000, 0, "pi-1", Random(3))
    pace.own_gate(Batch((1,), b"", 500)).fail(0)
    assert pace.live_due(0)
    assert not pace.backlog_due(0)
    assert pace.server.until == 0


def test_somebody_who_hurries_while_a_step_looks_for_more_is_served_at_once():
    pace = Pace(5.0, 5000, 0, "pi-1", Random(3))
    pace.flushed(S, 0)
    pace.flush_at = 0  # Delivery.hurry(), from another thread
    assert pace.wait_s(S) == 0


def test_what_is_parked_is_due_at_the_very_moment():
    pace = Pace(5.0, 5000, 0, "pi-1", Random(3))
    pace.parked.fail(0)
    assert [pace.parked_due(pace.parked.until - 1), pace.parked_due(pace.parked.until)] == [False, True]
    pace.backlog.fail(0)
    assert [pace.backlog_due(pace.backlog.until - 1), pace.backlog_due(pace.backlog.until)] == [False, True]


class Widest:
    """Chance at its far end, so that waits are what they are at most."""

    def uniform(self, low, high):
        return high


def test_waits_double_from_their_base_and_are_never_none_at_all():
    gate, waits = Gate(Widest(), base_s=2.0, cap_s=30.0), []
    for _ in range(6):
        gate.fail(5 * S)
        waits.append(gate.left_s(5 * S))
    assert waits == [2, 4, 8, 16, 30, 30]
    assert (gate.left_s(gate.until), gate.left_s(gate.until + S)) == (0, 0)
    gate.clear()
    assert (gate.failures, gate.until, gate.left_s(0)) == (0, 0, 0)
    gate.fail(5 * S, 8.0)
    assert gate.left_s(5 * S) == 8
    least = Gate(Random(1), base_s=1e-9)
    least.fail(0)
    assert least.left_s(0) == 0.05


def test_an_absence_is_counted_from_its_own_beginning():
    gate = Gate(Widest())
    for number in range(20):
        gate.fail(100 * S + number * S, soon=True)
    assert gate.left_s(119 * S) == 19 / 4
    gate.clear()
    for _ in range(20):
        gate.fail(500 * S, soon=True)
    assert gate.left_s(500 * S) == 4


def test_a_server_that_says_how_long_is_asked_up_to_a_tenth_later_and_that_is_a_failure_too():
    gate = Gate(Widest())
    gate.wait(7 * S, 20)
    assert (gate.left_s(7 * S), gate.failures) == (22, 1)
    gate.fail(7 * S)
    assert gate.left_s(7 * S) == 2
    spread = Gate(Random(1))
    waits = []
    for _ in range(50):
        spread.wait(0, 20)
        waits.append(spread.left_s(0))
    assert min(waits) >= 20
    assert len(set(waits)) > 40


def test_the_rate_is_that_of_the_last_half_minute():
    flow = Flow()
    for at, points in ((0, 9999), (10, 100), (20, 200), (35, 500)):
        flow.sent(at * S, points)
    assert flow.rate(40 * S) == 800 / 30
    assert flow.rate(40 * S + 1) == 700 / (20 * S + 1) * S
    assert flow.rate(50 * S) == 700 / 30
    assert flow.rate(51 * S) == 0.0
    quick = Flow()
    for at in (0, S // 4, S // 2):
        quick.sent(at, 10)
    assert quick.rate(S // 2) == 60
    at_once = Flow()
    at_once.sent(S, 10)
    at_once.sent(S, 10)
    assert at_once.rate(S) == 0.0


def test_what_is_remembered_for_the_rate_is_bounded_by_its_half_minute():
    flow = Flow()
    for at in range(1000):
        flow.sent(at * S, 10)
    assert len(flow._sent) == 31


def test_under_a_limit_a_request_is_followed_by_as_long_as_its_points_take():
    flow = Flow(100)
    flow.sent(10 * S, 50)
    assert flow.until == 10 * S + S // 2
    flow.sent(10 * S, 50)
    assert flow.until == 11 * S
    flow.sent(20 * S, 200)
    assert flow.until == 22 * S
    assert [Flow(limit).allowed(5000) for limit in (0.2, 1, 99.6, 5001, 0)] == [1, 1, 100, 5000, 5000]


def test_a_full_request_is_followed_by_another_and_any_other_by_the_next_flush():
    pace = Pace(5.0, 100, 0, "pi-1", Random(3))
    pace.flushed(S, 100)
    assert pace.flush_at == 0
    pace.flushed(S, 99)
    assert pace.flush_at == next_flush(S, 5.0, "pi-1") > S
    assert [pace.live_due(pace.flush_at - 1), pace.live_due(pace.flush_at)] == [False, True]


def test_the_next_wait_ends_with_the_first_thing_that_can_be_due():
    pace = Pace(5.0, 100, 50, "pi-1", Random(3))
    pace.flush_at = 9 * S
    assert pace.wait_s(2 * S) == 7
    pace.flow.until, pace.backlog.until, pace.parked.until = 6 * S, 5 * S, 4 * S
    assert [pace.wait_s(at * S) for at in (2, 4, 5, 6, 8, 9)] == [2, 1, 1, 3, 1, 0]
    for name in ("backlog", "parked"):
        alone = Pace(5.0, 100, 50, "pi-1", Random(3))
        alone.flush_at = 9 * S
        getattr(alone, name).until = 3 * S
        assert alone.wait_s(S) == 2


def test_under_a_limit_neither_backlog_nor_parked_points_are_due_before_their_time():
    pace = Pace(5.0, 100, 50, "pi-1", Random(3))
    pace.flow.sent(0, 50)
    assert [pace.backlog_due(S - 1), pace.backlog_due(S)] == [False, True]
    assert [pace.parked_due(S - 1), pace.parked_due(S)] == [False, True]


def test_what_is_accepted_opens_what_was_closed_for_it_and_the_live_tail_is_no_backlog():
    live, backlog, parked = Batch((1,), b"", 10, live=True), Batch((2,), b"", 10), Batch((3,), b"", 10, parked=True)
    pace = Pace(5.0, 100, 50, "pi-1", Random(3))
    assert [pace.own_gate(batch) for batch in (live, backlog, parked)] == [pace.server, pace.backlog, pace.parked]
    for batch, closed in ((live, ["backlog", "parked"]), (backlog, ["parked"]), (parked, ["backlog"])):
        for gate in (pace.server, pace.backlog, pace.parked):
            gate.fail(0)
        pace.flow.until = 0
        pace.accepted(0, batch)
        assert [name for name in ("server", "backlog", "parked") if getattr(pace, name).failures] == closed
        assert (pace.flow.until > 0) is not batch.live
        for gate in (pace.server, pace.backlog, pace.parked):
            gate.clear()


def test_a_limit_grows_by_an_eighth_and_one_and_shrinks_to_half_of_what_was_too_much():
    pace = Pace(5.0, 100, 0, "pi-1", Random(3))
    pace.shrink(40)
    assert pace.limit == 20
    limits = []
    while pace.limit < 100:
        pace.accepted(0, Batch((1,), b"", (pace.limit + 1) // 2))
        limits.append(pace.limit)
    assert limits == [23, 26, 30, 34, 39, 44, 50, 57, 65, 74, 84, 95, 100]
    pace.shrink(5, least=5)
    assert pace.limit == 100
    pace.shrink(100)
    for _ in range(20):
        pace.accepted(0, Batch((1,), b"", 24))
    assert pace.limit == 50, "small ones do not show that larger ones would go through"
    pace.shrink(6, least=5)
    assert pace.limit == 5


@pytest.mark.parametrize(
    ("batch_size", "limit", "most"), [(5000, 5000, 5000), (5000, 600, 600), (5000, 7, LEAST_POINTS), (100, 7, 100)]
)
def test_a_row_goes_in_portions_by_the_limit_but_not_in_single_points(batch_size, limit, most):
    pace = Pace(5.0, batch_size, 0, "pi-1", Random(3))
    pace.limit = limit
    assert pace.most == most


def test_another_target_is_tried_at_once_the_newest_points_first():
    pace = Pace(5.0, 100, 0, "pi-1", Random(3))
    pace.flushed(0, 1)
    for gate in (pace.server, pace.backlog, pace.parked):
        gate.fail(0)
    pace.start_again()
    assert [gate.until for gate in (pace.server, pace.backlog, pace.parked)] == [0, 0, 0]
    assert pace.live_due(1)


def test_an_interval_of_nothing_is_a_millisecond():
    assert 0 < next_flush(10**15, 0.0, "pi-1") - 10**15 <= 10**6
