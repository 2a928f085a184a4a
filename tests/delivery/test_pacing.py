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
        pace.accepted(0, Batch((1,), b"", 500))
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
