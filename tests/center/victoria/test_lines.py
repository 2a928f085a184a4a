"""A line for VictoriaMetrics says what the one that came said, but for words, and is one line."""

from dataclasses import replace

import pytest
from hypothesis import given
from hypothesis import strategies as st

from center.errors import RefusedError
from center.line_protocol import encode, parse
from center.stores.telemetry import Point
from center.victoria.lines import LARGEST, Kept

NAMES = st.text(st.sampled_from('ab,= \\"\téß\u2028#.{'), min_size=1, max_size=5)
NUMBERS = st.booleans() | st.integers(-LARGEST, LARGEST) | st.floats(-LARGEST, LARGEST, allow_subnormal=False)
POINTS = st.builds(
    Point,
    st.just("agent") | NAMES,
    st.dictionaries(NAMES, NAMES, max_size=3),
    st.dictionaries(NAMES, NUMBERS, min_size=1, max_size=4),
    st.none() | st.integers(0, 10**18),
)
WORDS = st.none() | st.text(st.sampled_from('a\n," =\\é'), max_size=8)


def plain(points):
    return [replace(point, series="", fields=dict(point.fields)) for point in points]


@given(st.lists(st.tuples(POINTS, WORDS), max_size=4))
def test_each_point_is_one_line_that_says_the_same_but_for_its_words(given_points):
    sent, kept = [], Kept(0, 10**18)
    for point, words in given_points:
        if words is not None and point.measurement == "agent":
            fields = {"why": words, **{f: v for f, v in point.fields.items() if f != "why"}}
        else:
            fields = point.fields
        try:
            sent.append(encode(replace(point, fields=fields)))
        except RefusedError:
            continue
    came = [
        point for line in sent for points in parse(line.encode()) for point in points
    ] * 2  # the second time by heart
    for point in came:
        try:
            line = kept.line(point)
        except RefusedError:
            continue
        numbers = {field: value for field, value in point.fields.items() if not isinstance(value, str)}
        assert "\n" not in line
        read = [point for points in parse(line.encode()) for point in points]
        assert plain(read) == (plain([replace(point, fields=numbers)]) if numbers else [])


@pytest.mark.parametrize("value", [LARGEST, -LARGEST, True, 1e-300, -5.25])
def test_what_a_float_holds_is_kept(value):
    assert Kept(0, 1).line(Point("m", {}, {"f": value})).startswith("m f=")


@pytest.mark.parametrize("value", [LARGEST + 1, -LARGEST - 1, 1e300])
def test_what_it_would_round_is_refused(value):
    with pytest.raises(RefusedError, match="f: VictoriaMetrics keeps no value beyond"):
        Kept(0, 1).line(Point("m", {}, {"f": value}))
