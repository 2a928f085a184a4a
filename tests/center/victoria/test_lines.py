"""A line for VictoriaMetrics says what the one that came said, and is one line."""

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
    NAMES,
    st.dictionaries(NAMES, NAMES, max_size=3),
    st.dictionaries(NAMES, NUMBERS, min_size=1, max_size=4),
    st.none() | st.integers(0, 10**18),
)


def plain(points):
    return [replace(point, series="", fields=dict(point.fields)) for point in points]


@given(st.lists(POINTS, max_size=4))
def test_each_point_is_one_line_that_says_the_same(given_points):
    sent, kept = [], Kept(0, 10**18)
    for point in given_points:
        try:
            sent.append(encode(point))
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
        assert "\n" not in line
        read = [point for points in parse(line.encode()) for point in points]
        assert plain(read) == plain([point])


@pytest.mark.parametrize("value", [LARGEST, -LARGEST, True, 1e-300, -5.25])
def test_what_a_float_holds_is_kept(value):
    assert Kept(0, 1).line(Point("m", {}, {"f": value})).startswith("m f=")


@pytest.mark.parametrize("value", [LARGEST + 1, -LARGEST - 1, 1e300])
def test_what_it_would_round_is_refused(value):
    with pytest.raises(RefusedError, match="f: VictoriaMetrics keeps no value beyond"):
        Kept(0, 1).line(Point("m", {}, {"f": value}))
