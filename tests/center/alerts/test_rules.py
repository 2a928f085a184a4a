"""When an alert begins and ends, by any course of values; what a rule has to be."""

import math
from dataclasses import replace

import pytest
from hypothesis import given
from hypothesis import strategies as st

from center.alerts.rules import Rule, State, checked, said, step
from center.documents import FieldsError

MINUTE = 60_000_000_000
FROST = Rule("Frost", "below", 2.0, 1.0, 10.0, field="Temperature")
RULES = st.builds(
    Rule,
    st.just("r"),
    st.sampled_from(["above", "below"]),
    st.integers(-3, 3).map(float),
    st.integers(0, 3).map(float),
    st.integers(0, 4).map(float),
    field=st.just("Temperature"),
)
VALUES = st.one_of(st.none(), st.just(math.nan), st.integers(-6, 6).map(float))
COURSES = st.lists(st.tuples(VALUES, st.integers(-2, 5)), max_size=60)


def beyond(rule, value):
    return rule.threshold - value if rule.what == "below" else value - rule.threshold


@given(RULES, COURSES)
def test_no_beginning_without_an_end_before_and_each_has_its_reason(rule, course):
    """Points whose clock is put back among them: minutes may be less than before."""
    state, at, firing, run = None, 100 * MINUTE, False, []
    for value, minutes in course:
        at += minutes * MINUTE
        before = state
        state, event = step(rule, state, value, at, at + 7)
        if value is None or math.isnan(value):
            assert (state, event) == (before, None)
            continue
        run = [*run, at] if beyond(rule, value) > 0 else []
        if event == "begins":
            assert not firing
            assert state.fired_ns == at + 7
            assert at - min(run) >= rule.duration_min * MINUTE  # beyond it at every point for that long
            assert state.value == value
        elif event == "ends":
            assert firing
            assert state is None
            assert beyond(rule, value) <= -rule.hysteresis
        elif firing:
            assert state == before
            assert beyond(rule, value) > -rule.hysteresis
        firing = bool(state and state.fired_ns)
        assert event or firing == bool(before and before.fired_ns)


def walk(rule, *points):
    state, events = None, []
    for minute, value in points:
        state, event = step(rule, state, value, minute * MINUTE, (minute + 1) * MINUTE)
        events.append(event)
    return events


def test_it_begins_after_its_duration_and_ends_after_its_hysteresis():
    assert walk(FROST, (0, 1.5), (5, 1.0), (10, 1.9), (20, 2.5), (30, 3.0)) == [None, None, "begins", None, "ends"]
    assert walk(FROST, (0, 1.5), (5, 2.0), (10, 1.9), (19, 1.9)) == [None] * 4  # at the threshold is not below
    assert walk(replace(FROST, duration_min=0, hysteresis=0), (0, 1.9), (1, 2.0)) == ["begins", "ends"]


def test_a_clock_that_is_put_back_starts_the_duration_anew():
    state = State(1000 * MINUTE, 1.0)
    assert step(FROST, state, 1.0, 10 * MINUTE, 0) == (State(10 * MINUTE, 1.0), None)


@pytest.mark.parametrize(
    ("given", "name"),
    [
        ({"what": "above", "field": "Temperature"}, "name"),
        ({"name": "x"}, "what"),
        ({"name": "x", "what": "colder"}, "what"),
        ({"name": " ", "what": "clock"}, "name"),
        ({"name": "x\x1b", "what": "clock"}, "name"),
        ({"name": "x", "what": "above"}, "field"),
        ({"name": "x", "what": "silent"}, "threshold"),
        ({"name": "x", "what": "silent", "threshold": math.nan}, "threshold"),
        ({"name": "x", "what": "backlog", "threshold": "many"}, "threshold"),
        ({"name": "x", "what": "clock", "hysteresis": -1}, "hysteresis"),
        ({"name": "x", "what": "clock", "duration_min": math.inf}, "duration_min"),
        ({"name": "x", "what": "rejected", "window_min": 0}, "window_min"),
        ({"name": "x", "what": "changes", "field": "T", "threshold": 3, "hysteresis": 3}, "hysteresis"),
        ({"name": "x", "what": "clock", "receivers": ["me"] * 21}, "receivers"),
        ({"name": "x", "what": "clock", "scope": "group"}, "of"),
        ({"name": "x", "what": "clock", "receivers": "me"}, "receivers"),
        ({"name": "x", "what": "clock", "colour": "red"}, "colour"),
        (["x"], "rule"),
        (None, "rule"),
    ],
)
def test_what_is_no_rule_is_refused_with_the_field_and_what_is_right(given, name):
    with pytest.raises(FieldsError) as refused:
        checked(given)
    assert list(refused.value.each) == [name] or name in refused.value.each
    assert refused.value.each[name]


def test_what_a_kind_of_rule_has_no_use_for_keeps_no_alert_from_beginning_or_ending():
    """A form that began as another kind sends also what it hides."""
    left = {"name": "x", "threshold": 2, "hysteresis": 20, "field": "Temperature", "sensor": "bench"}
    clock = checked(left | {"what": "clock", "of": "attic"})
    assert clock.of == ""  # it is for all
    assert walk(clock, (0, 0.0), (1, 1.0), (2, 0.0)) == [None, "begins", "ends"]
    for what in ("silent", "failing", "backlog", "rejected"):
        assert walk(checked(left | {"what": what}), (0, 0.0), (1, 9.0), (2, 0.0)) == [None, "begins", "ends"]


def test_rules_and_values_are_said_in_the_words_and_units_of_the_pages():
    assert FROST.words == "Temperature below 2 °C for 10 min"
    assert Rule("x", "silent", 30).words == "silent for more than 30 min"
    assert Rule("x", "rejected", 0, window_min=60).words == "more than 0 points refused within 60 min"
    assert Rule("x", "changes", 3, field="Temperature", sensor="bench").words == (
        "Temperature of bench changing by more than 3 °C an hour"
    )
    assert [said(FROST, 1.2345), said(FROST, -15.0), said(Rule("x", "backlog", 1), 3e6)] == [
        "1.23 °C",
        "-15 °C",
        "3,000,000 points",
    ]
    assert said(Rule("x", "above", 1, field="Moisture"), 1234.5) == "1,234.5"
    assert Rule("x", "backlog", 1).words == "more than 1 point waiting to be delivered"
