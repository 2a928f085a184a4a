"""The counters: measured = delivered + pending + rejected + dropped, also across kills and other processes."""

import shutil

import pytest
from hypothesis import given
from hypothesis import strategies as st

from agent.buffer.ledger import (
    SAVE_EVERY_S,
    Counters,
    Saved,
    Tally,
    balance,
    delivered,
    dropped,
    measured,
    rejected,
    uncounted_s,
)
from tests.buffers import BOOT, OTHER_BOOT, SECOND, HandClock, accounted, measure, open_at

numbers = st.integers(0, 10**12)
tallies = st.builds(Tally, numbers, numbers, numbers, st.dictionaries(st.sampled_from(["thinned", "max_age"]), numbers))


def test_every_point_is_in_one_place():
    counters = measured(10, 2) + delivered(3, 1) + rejected(2) + dropped("thinned", 1)
    assert counters.points.unaccounted(8 - 2 - 2 - 1) == 0
    assert counters.health.unaccounted(1) == 0
    assert counters.points.dropped == {"thinned": 1}


@given(tallies, tallies)
def test_what_is_added_can_be_taken_away(one, other):
    back = (one + other) - other
    assert (back.measured, back.delivered, back.rejected) == (one.measured, one.delivered, one.rejected)
    assert back.dropped == {reason: number for reason, number in one.dropped.items() if number}


@given(tallies, tallies, numbers, numbers)
def test_after_damage_the_equation_holds_and_what_is_found_again_is_damaged_no_more(points, health, pending, own):
    counters = Counters(points, health) + dropped("damaged", 7, 3)
    change = balance(counters, pending + own, own)
    assert (counters + change).points.unaccounted(pending) == 0
    assert (counters + change).health.unaccounted(own) == 0
    missing = counters.points.unaccounted(pending)
    assert change.points.measured == max(-missing - 4, 0), "more were measured only beyond what was given up"
    assert change.health.measured == max(-counters.health.unaccounted(own) - 3, 0)
    assert change.points.dropped.get("damaged", 0) == (missing if missing > 0 else -min(-missing, 4))
    assert (counters + change).points.measured >= points.measured


@given(tallies, tallies, st.floats(0, 1e9), numbers)
def test_the_row_reads_back_as_it_was_written(points, health, seconds, number):
    saved = Saved(
        Counters(points, health, seconds), number, number, number, True, BOOT, number, 1.5, number, {BOOT: (5, 1)}
    )
    assert Saved.decode(saved.encode()) == saved


@pytest.mark.parametrize(
    "data",
    [
        None,
        b"",
        b"{}",
        b"\xff\xff",
        b"[]",
        b"null",
        b'{"counters":1}',
        b"[" * 100_000,
        Saved().encode().replace(b'"measured":0', b'"measured":-1', 1),
        Saved().encode().replace(b'"measured":0', b'"measured":1.5', 1),
        Saved().encode().replace(b'"last_key":0', b'"last_key":9223372036854775807'),
        Saved().encode().replace(b'"clean":true', b'"clean":1'),
        Saved().encode().replace(b'"dating":{}', b'"dating":{"x":1}'),
        Saved().encode().replace(b'"boot_ns":0', b'"boot_ns":0,"more":1'),
    ],
)
def test_a_row_that_is_not_a_ledger_is_refused(data):
    with pytest.raises(ValueError):
        Saved.decode(data)


TEXT = Saved().encode().partition(b" ")[2]


@pytest.mark.parametrize(
    ("was", "becomes"),
    [
        *((b'"measured":0', b'"measured":%s' % number) for number in (b"-1", b"1.5", b"true", b"null", b'"1"')),
        (b'"dropped":{}', b'"dropped":{"x":-1}'),
        (b'"dropped":{}', b'"dropped":[1]'),
        *(
            (b'"%s":0' % name, b'"%s":%s' % (name, number))
            for name in (b"generation", b"last_key", b"last_dead", b"boot_ns", b"last_ns")
            for number in (b"-1", b"1.5", b"%d" % 2**62, b"false")
        ),
        (b'"clean":true', b'"clean":1'),
        (b'"clean":true', b'"clean":null'),
        (b'"dating":{}', b'"dating":{"x":1}'),
        (b'"dating":{}', b'"dating":{"x":["a","b"]}'),
        (b'"fixed":[]', b'"fixed":[1]'),
        (b'"fixed":[]', b'"fixed":[[1,2,3]]'),
        (b'"withdrawn":{}', b'"withdrawn":{"x":[{"first_ns":1}]}'),
        (b'"recovering":{}', b'"recovering":[1]'),
        (b'"recovering":{}', b'"recovering":{"1":"x"}'),
        (b'"uncounted_s":0.0', b'"uncounted_s":"long"'),
        (b'"wall_s":0.0', b'"wall_s":null'),
        (b'"boot_ns":0', b'"boot_ns":0,"more":1'),
        (b'"points"', b'"dots"'),
    ],
)
def test_a_row_without_a_checksum_is_a_ledger_only_if_all_in_it_can_be(was, becomes):
    """As 0.1.0 wrote them."""
    assert Saved.decode(TEXT) == Saved()
    assert was in TEXT
    with pytest.raises(ValueError, match=r"impossible|not readable|invalid literal|could not convert|unpack"):
        Saved.decode(TEXT.replace(was, becomes, 1))


def test_a_ledger_of_0_1_0_had_milliseconds():
    text = TEXT.replace(b'"last_ns":0', b'"last_ms":7').replace(b'"dating":{}', b'"dating":{"x":[5,1]}')
    text = text.replace(b',"withdrawn":{}', b"")
    found = Saved.decode(text)
    assert (found.last_ns, found.dating, found.withdrawn) == (7_000_000, {"x": (5_000_000, 1)}, {})
    assert Saved.decode(TEXT.replace(b'"generation":0', b'"generation":%d' % (2**62 - 1))).generation == 2**62 - 1


def saved_at(**fields):
    return Saved(generation=1, clean=False, boot_id=BOOT, boot_ns=100 * SECOND, wall_s=1000.0, **fields)


@pytest.mark.parametrize(
    ("boot", "boot_s", "wall_s", "seconds"),
    [
        (BOOT, 130, 0, 30),  # the boot clock tells, whatever the wall clock says
        (BOOT, 10_000, 1030, SAVE_EVERY_S),
        (OTHER_BOOT, 5, 1060, 60),
        (OTHER_BOOT, 5, 10**9, SAVE_EVERY_S),
        (OTHER_BOOT, 5, 3, SAVE_EVERY_S),  # the wall clock went backwards: all that can have been
    ],
)
def test_promise_8_how_long_an_unclean_stop_left_uncounted(boot, boot_s, wall_s, seconds):
    assert uncounted_s(saved_at(), boot, boot_s * SECOND, wall_s) == seconds


def test_a_clean_stop_and_a_first_start_leave_nothing_uncounted():
    assert uncounted_s(Saved(), BOOT, 5, 5.0) == 0
    clean = Saved(generation=1, clean=True, boot_id=BOOT)
    assert uncounted_s(clean, BOOT, 10**12, 5.0) == 0


def killed(folder, copy):
    shutil.copytree(folder, copy)
    return copy


def test_promise_8_after_a_kill_the_equation_holds_and_the_gap_is_known(tmp_path):
    clock = HandClock()
    buffer = open_at(tmp_path / "a", clock)
    measure(buffer, clock, 20)
    buffer.commit_all()
    measure(buffer, clock, 30)
    copy = killed(tmp_path / "a", tmp_path / "b")
    buffer.close()
    again = open_at(copy, clock)
    counters = again.snapshot().counters
    assert counters.points.measured == 20
    assert counters.uncounted_s == 30
    accounted(again)
    again.close()
    once_more = open_at(copy, clock)
    assert once_more.snapshot().counters.uncounted_s == 30, "a clean stop adds nothing"
    once_more.close()


def test_promise_8_the_counters_are_saved_every_15_minutes_without_points_on_disk(tmp_path):
    clock = HandClock()
    buffer = open_at(tmp_path / "a", clock)
    for _ in range(1000):
        measure(buffer, clock, 1)
        buffer.delivered(buffer.take_live(10))
        if buffer.commit_due(clock.boot_ns()):
            buffer.commit()
    copy = killed(tmp_path / "a", tmp_path / "b")
    buffer.close()
    again = open_at(copy, clock)
    counters = again.snapshot().counters
    assert 890 <= counters.points.delivered == counters.points.measured <= 910
    assert counters.uncounted_s <= 110
    again.close()


def test_points_in_memory_are_in_the_live_counters_and_not_in_the_saved_ones(tmp_path):
    clock = HandClock()
    buffer = open_at(tmp_path / "a", clock)
    measure(buffer, clock, 5)
    buffer.delivered(buffer.take_live(2))
    clock.pass_s(-2)
    with buffer._disk_lock:
        buffer._commits._transaction(force=True)
    accounted(buffer)
    assert buffer.snapshot().counters.points.measured == 5
    assert buffer._queue.saved.counters.points.measured == 2
    copy = killed(tmp_path / "a", tmp_path / "b")
    buffer.close()
    again = open_at(copy, clock)
    accounted(again)
    again.close()
