"""What rules look at: values that nobody measured, and windows with a gap in them."""

import pytest

from center.alerts.rules import Rule
from center.alerts.values import MIN_NS, Memory, Newest
from center.stores.telemetry import HOUR_NS, LastValue, Sensor

NOW = 1_700_000_000_000_000_000
KEY = ("r", "attic", "")


def of(rule, *lasts):
    there = Newest({"attic": lasts}, {"attic": lasts}, {})
    return Memory().values("r", rule, "attic", there, (), NOW, 0.0)


@pytest.mark.parametrize(("value", "counts"), [(-30.5, True), (3, True), (1e13, False), (1e308, False), (True, False)])
def test_a_value_that_no_threshold_reaches_is_nobodys_measurement(value, counts):
    last = LastValue("Temperature", Sensor("bench", "bme280"), value, NOW)
    assert bool(of(Rule("x", "above", field="Temperature"), last)) == counts
    pending = LastValue("pending", Sensor(), value, NOW)
    assert bool(of(Rule("x", "backlog"), pending)) == counts


def test_what_rose_over_a_long_gap_did_not_rise_within_the_window():
    memory, rule = Memory(), Rule("x", "rejected", threshold=3, window_min=60)
    assert memory.course(KEY, rule, 5, NOW) is None
    assert memory.course(KEY, rule, 15, NOW + 10 * HOUR_NS) is None
    assert memory.course(KEY, rule, 19, NOW + 10 * HOUR_NS + 30 * MIN_NS) == 4


def test_a_change_is_told_once_the_window_is_known():
    memory, rule = Memory(), Rule("x", "changes", threshold=3, field="Temperature", window_min=60)
    told = [memory.course(KEY, rule, 20 + minute / 10, NOW + minute * MIN_NS) for minute in range(0, 91, 5)]
    assert told[:12] == [None] * 12
    assert told[12:] == pytest.approx([6.0] * 7)
