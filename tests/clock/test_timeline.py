"""The times that one segment of a boot gives."""

import pytest

from agent.clock.sources import BUILT_NS, DAY, SECOND, Anchor, Observation, consensus, judge
from agent.clock.timeline import (
    LANE_NS,
    MILLISECOND,
    Segment,
    Stretch,
    contradicts,
    extended,
    segment_at,
    stamp_offset,
    stretches,
)

OFFSET_NS = 1_700_000_000 * SECOND
ANCHOR = Anchor(OFFSET_NS, "kernel", 0, 100 * SECOND)


def seconds(segment, boot_s):
    """Of Unix time, since what was the segment's own zero."""
    return (segment.time_of(boot_s * SECOND) - OFFSET_NS) / SECOND


def test_after_a_small_step_back_time_goes_on_at_half_speed_until_it_is_right():
    """At 100 s of the boot clock 110 s had been given out, and right is 100."""
    segment = Segment(100 * SECOND, OFFSET_NS, 0, OFFSET_NS + 110 * SECOND, ANCHOR)
    assert [seconds(segment, at) for at in (99, 100, 102, 110, 119, 120, 130)] == [99, 110, 111, 115, 119.5, 120, 130]


def test_half_speed_lasts_as_long_as_it_takes():
    segment = Segment(100 * SECOND, OFFSET_NS, 0, OFFSET_NS + 400 * SECOND, ANCHOR)
    assert [seconds(segment, at) for at in (100, 300, 699, 700, 800)] == [400, 500, 699.5, 700, 800]


def test_without_one_its_time_is_the_boot_clocks_and_the_offset():
    segment = Segment(100 * SECOND, OFFSET_NS, 0, 0, ANCHOR)
    assert [seconds(segment, at) for at in (0, 100, 250)] == [0, 100, 250]


def test_what_is_ahead_of_the_true_time_counts_into_the_error():
    segment = Segment(100 * SECOND, OFFSET_NS, 0, OFFSET_NS + 110 * SECOND, ANCHOR)
    assert segment.error_of(100 * SECOND) == 10 * SECOND
    noise = Segment(100 * SECOND, OFFSET_NS + 700_000, 0, 0, ANCHOR)  # too small a change for another segment
    assert noise.error_of(100 * SECOND) == 700_000
    assert segment.error_of(110 * SECOND) - segment.error_of(120 * SECOND) > 4.9 * SECOND


def test_stamps_are_whole_milliseconds_the_nearest_one_each_lane_beside_the_others():
    offsets = [0, 499_999, 500_000, 1_499_999, 1_500_000, -400_000, -600_000]
    assert [stamp_offset(ns, 0) // MILLISECOND for ns in offsets] == [0, 0, 1, 1, 2, 0, -1]
    assert stamp_offset(1_700_000, 3) == 2 * MILLISECOND + 3 * LANE_NS


def test_where_the_offset_changes_on_the_same_lane_a_stamp_is_of_one_stretch_only():
    """The clock is put on by 5 s at 100 s of the boot clock, and by another 5 s at 200 s, there on another lane."""
    ahead = 5 * SECOND
    segments = [
        Segment(0, OFFSET_NS, 0, 0, ANCHOR),
        Segment(100 * SECOND, OFFSET_NS + ahead, 0, 0, ANCHOR),
        Segment(200 * SECOND, OFFSET_NS + 2 * ahead, 1, 0, ANCHOR),
        Segment(300 * SECOND, OFFSET_NS + 3 * ahead, 0, 0, ANCHOR),
    ]
    found = stretches(segments, 20 * SECOND, 400 * SECOND)
    seconds = [((s.first_ns - OFFSET_NS) / SECOND, (s.last_ns - OFFSET_NS) / SECOND) for s in found]
    assert seconds == [(20, 99.999), (105, 206), (210.000001, 311.000001), (315, 416)]
    assert [s.lane for s in found] == [0, 0, 1, 0]
    before, after = (segment.stamp_of(100 * SECOND - MILLISECOND * (n == 0)) for n, segment in enumerate(segments[:2]))
    assert [s.holds(before) for s in found] == [True, False, False, False]
    assert [s.holds(after) for s in found] == [False, True, False, False]


def test_of_a_clock_that_is_put_on_every_minute_the_first_segment_and_the_latest_are_kept():
    segments = ()
    for minute in range(200):
        anchor = Anchor(OFFSET_NS + minute * SECOND, "kernel", 0, minute * 60 * SECOND)
        segments = extended(segments, anchor, anchor.boot_ns, lambda _: 0)
        if minute < 10:
            assert len(segments) == minute + 1
    assert [s.start_ns // (60 * SECOND) for s in segments] == [0, *range(200 - len(segments) + 1, 200)]
    assert len(segments) < 70


@pytest.mark.parametrize(
    ("back_ns", "error_ns", "halved"),
    [
        (0, 0, True),
        (SECOND // 10, 0, True),
        (SECOND // 10 + 1, 0, False),
        (SECOND, SECOND, True),
        (SECOND + 1, SECOND, False),
        (2 * SECOND, 9 * SECOND, True),
        (2 * SECOND + 1, 9 * SECOND, False),
    ],
)
def test_back_by_a_tenth_or_by_what_was_stated_up_to_two_seconds_is_gone_slowly(back_ns, error_ns, halved):
    """What is more counts at once, on another lane. A change of less than a millisecond is none."""
    start = 100 * SECOND
    given = OFFSET_NS + start
    anchor = Anchor(OFFSET_NS - back_ns, "kernel", error_ns, start)
    *_, new = extended((Segment(0, OFFSET_NS, 0, 0, ANCHOR),), anchor, start, lambda _: 7)
    if back_ns == 0:
        assert new == Segment(0, OFFSET_NS, 0, 0, anchor)
    else:
        assert (new.lane, new.floor_ns) == ((0, given) if halved else (7, 0))


def test_what_confirms_the_last_segment_leaves_those_before_it():
    at_first = Segment(7, OFFSET_NS, 5, 0, ANCHOR)
    assert extended((), ANCHOR, 7, lambda from_ns: 5 if from_ns == OFFSET_NS else 6) == (at_first,)
    put_on = Anchor(OFFSET_NS + MILLISECOND, "kernel", 0, 200 * SECOND)
    two = extended((at_first,), put_on, 200 * SECOND, lambda _: pytest.fail("it goes forward"))
    assert two == (at_first, Segment(200 * SECOND, put_on.offset_ns, 5, 0, put_on))
    again = Anchor(put_on.offset_ns + MILLISECOND - 1, "servers", 9, 300 * SECOND)
    confirmed = Segment(200 * SECOND, put_on.offset_ns, 5, 0, again)
    assert extended(two, again, 300 * SECOND, lambda _: pytest.fail("it does not move")) == (at_first, confirmed)


@pytest.mark.parametrize("side", [-1, 1])
def test_more_than_was_stated_and_a_leap_second_says_that_the_time_was_wrong(side):
    """Both errors and two seconds. Who is always believed is not asked whether he was right before."""
    segments = (Segment(0, OFFSET_NS, 0, 0, Anchor(OFFSET_NS, "kernel", 3 * SECOND, 100 * SECOND)),)
    for more_ns, wrong in ((0, False), (1, True), (9 * SECOND, True)):
        said = Anchor(OFFSET_NS + side * (6 * SECOND + more_ns), "servers", SECOND, 100 * SECOND)
        assert contradicts(segments, said, 100 * SECOND) == wrong
        assert not contradicts(segments, Anchor(said.offset_ns, "always", 0, 0), 100 * SECOND)
        assert not contradicts((), said, 100 * SECOND)


def test_a_segment_holds_from_its_start_on_and_the_first_one_before_it_too():
    segments = tuple(Segment(start, OFFSET_NS, 0, 0, ANCHOR) for start in (100, 200, 300))
    assert [segment_at(segments, at).start_ns for at in (0, 99, 100, 199, 200, 299, 300, 900)] == [
        100, 100, 100, 100, 200, 200, 300, 300,
    ]  # fmt: skip
    assert segment_at((), 100) is None


def test_a_stretch_holds_what_lies_within_it_on_its_lane():
    stretch = Stretch(OFFSET_NS, OFFSET_NS + 5 * MILLISECOND, OFFSET_NS - SECOND)
    inside = [n for n in range(-2, 8) if stretch.holds(OFFSET_NS + n * MILLISECOND)]
    assert inside == [0, 1, 2, 3, 4, 5]
    assert not stretch.holds(OFFSET_NS + MILLISECOND + LANE_NS)
    lanes = [Stretch(0, 0, stamp_offset(OFFSET_NS, lane)).lane for lane in (0, 1, 9, 999)]
    assert lanes == [0, 1, 9, 999]


@pytest.mark.parametrize("off", [-5 * SECOND, 5 * SECOND])
def test_of_what_servers_allow_the_nearest_to_what_was_known_is_taken_if_that_allows_it(off):
    now = 130 * SECOND
    offset = BUILT_NS + 100 * DAY
    seen = [Observation(offset + at, SECOND, at, at) for at in (100 * SECOND, 110 * SECOND, now)]
    found = consensus(seen, now)
    edge = found.low_ns if off < 0 else found.high_ns
    for error_ns, expected in ((9 * SECOND, edge), (SECOND, found.middle_ns)):
        verdict = judge(
            now_boot_ns=now,
            wall_offset_ns=offset - DAY,
            kernel=None,
            observations=seen,
            held=Anchor(edge + off, "kernel", error_ns, now),
            trust="auto",
            known_ns=offset,
            tolerance_ns=300 * SECOND,
            confirmed_ns=None,
        )
        assert (verdict.anchor.offset_ns, verdict.anchor.evidence) == (expected, "servers")
