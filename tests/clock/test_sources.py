"""Who vouches for the time, at the limits of each rule: to the nanosecond what is still believed, and what no more."""

from dataclasses import replace

import pytest

from agent.clock.kernel import KernelClock
from agent.clock.servers import Servers
from agent.clock.sources import Anchor, Consensus, Observation, aged, consensus, joined, judge

MS = 1_000_000
S = 1_000_000_000
DAY = 86_400 * S
BUILT_NS = 1_767_225_600 * S  # 2026-01-01
OFFSET_NS = 1_800_000_000 * S
NOW = 1000 * S
SLACK = 50 * MS


def heard(at_ns, off_ns=0, **how):
    """An answer without travel: the time is between what it says and a second more, and 50 ms of slack."""
    return Observation(OFFSET_NS + off_ns + at_ns, S, at_ns, at_ns, **how)


def verdict(*observations, wall_ns=OFFSET_NS, **how):
    asked = {
        "now_boot_ns": NOW,
        "kernel": None,
        "held": None,
        "trust": "auto",
        "known_ns": OFFSET_NS,
        "tolerance_ns": 300 * S,
        "confirmed_ns": None,
    }
    return judge(wall_offset_ns=wall_ns, observations=observations, **asked | how)


KERNEL = KernelClock(5 * MS)


def test_the_kernel_is_believed_from_the_day_on_that_this_program_was_written():
    assert verdict(wall_ns=BUILT_NS - NOW, kernel=KERNEL).anchor == Anchor(BUILT_NS - NOW, "kernel", 5 * MS, NOW)
    early = verdict(wall_ns=BUILT_NS - NOW - 1, kernel=KERNEL)
    assert early.anchor is None
    assert (
        early.warning == "the wall clock counts as synchronised but shows 2025-12-31 23:59:59 UTC: it is not believed"
    )
    assert verdict(wall_ns=BUILT_NS - NOW, trust="always").warning is None
    assert "shows 2025-12-31 23:59:59 UTC" in verdict(wall_ns=BUILT_NS - NOW - 1, trust="always").warning


@pytest.mark.parametrize(
    ("wall_ns", "believed", "where"),
    [
        (OFFSET_NS - SLACK - DAY, True, "24 h ahead of"),
        (OFFSET_NS - SLACK - DAY - 1, False, "24 h behind"),
        (OFFSET_NS + S + SLACK + DAY, True, "24 h behind"),
        (OFFSET_NS + S + SLACK + DAY + 1, False, "24 h ahead of"),
    ],
)
def test_the_kernel_is_believed_within_a_day_of_a_servers_date(wall_ns, believed, where):
    """Where it is not, the wall clock is said to be behind or ahead; where it is, the servers are."""
    found = verdict(heard(NOW - S), heard(NOW), wall_ns=wall_ns, kernel=KERNEL)
    assert (found.anchor is not None) == believed
    assert where in found.warning


@pytest.mark.parametrize(
    ("confirmed_ns", "for_ns", "believed"),
    [
        (OFFSET_NS, 60 * S - 1, True),
        (OFFSET_NS, 60 * S, False),
        (OFFSET_NS, 61 * S, False),
        (OFFSET_NS + DAY - 1, 2 * S, True),
        (OFFSET_NS + DAY, 2 * S, False),
        (OFFSET_NS - DAY, 2 * S, False),
        (OFFSET_NS - 2 * DAY, 2 * S, False),
        (None, 2 * S, False),
    ],
)
def test_what_a_server_agreed_with_before_is_believed_for_a_minute_against_days_that_it_is_off(
    confirmed_ns, for_ns, believed
):
    off = [heard(NOW - for_ns, 3 * DAY), heard(NOW, 3 * DAY)]
    found = verdict(*off, kernel=KERNEL, confirmed_ns=confirmed_ns)
    assert (found.anchor is not None and found.anchor.evidence == "kernel") == believed


@pytest.mark.parametrize(("away_ns", "warned"), [(0, False), (2 * S, False), (2 * S + 1, True), (9 * S, True)])
@pytest.mark.parametrize("side", [-1, 1])
def test_over_two_seconds_between_the_servers_and_the_wall_clock_are_told(away_ns, warned, side):
    edge = OFFSET_NS - SLACK if side < 0 else OFFSET_NS + S + SLACK
    # the first answer allows a little more, by the drift of a second, than the one of now
    found = verdict(heard(NOW - S), heard(NOW), wall_ns=edge + side * away_ns, kernel=KERNEL)
    assert found.anchor.evidence == "kernel"
    assert bool(found.warning) == warned
    if warned:
        words = f"the servers' clocks are {away_ns / S:.0f} s {'ahead of' if side < 0 else 'behind'} the wall clock"
        assert found.warning == words


def test_the_kernels_error_is_what_it_states_and_what_it_owes_or_less_where_it_was_better_known_before():
    owing = KernelClock(300 * MS, -40 * MS)
    assert verdict(kernel=owing).anchor == Anchor(OFFSET_NS - 40 * MS, "kernel", 340 * MS, NOW)

    def error(away_ns):
        held = Anchor(OFFSET_NS + away_ns, "kernel", 5 * MS, NOW - 100 * S)
        return verdict(kernel=KernelClock(300 * MS), held=held).anchor.error_ns

    drifted = 5 * MS + 10 * MS  # 100 ppm of 100 s
    assert [error(away) for away in (0, MS - 1, MS, -MS + 1, -MS)] == [drifted, drifted, 300 * MS, drifted, 300 * MS]
    assert verdict(kernel=KernelClock(MS), held=Anchor(OFFSET_NS, "kernel", 5 * MS, NOW)).anchor.error_ns == MS


@pytest.mark.parametrize(
    ("evidence", "stored", "limit_ns"),
    [("servers", False, 300 * S), ("kernel", False, DAY), ("kernel", True, 2 * S), ("servers", True, 2 * S)],
)
@pytest.mark.parametrize("side", [-1, 1])
def test_one_answer_takes_back_what_was_known_where_it_is_too_far_from_it(evidence, stored, limit_ns, side):
    """Of the kernel over a day, of servers over max_error, of an earlier run over two seconds: beyond its own error."""
    edge = OFFSET_NS - SLACK if side < 0 else OFFSET_NS + S + SLACK
    for more_ns, stays in ((0, True), (1, False)):
        offset = edge + side * (limit_ns + 7 * MS + more_ns)
        held = Anchor(offset, evidence, 7 * MS, NOW, stored)
        assert verdict(heard(NOW), held=held).anchor == (held if stays else None)


def test_it_is_the_newest_answer_that_takes_back_what_was_known():
    held = Anchor(OFFSET_NS, "kernel", 5 * MS, NOW, stored=True)
    agrees, differs = heard(NOW - S + 1), heard(NOW, 9 * S)
    assert verdict(agrees, differs, held=held).anchor is None
    assert verdict(replace(differs, received_boot_ns=NOW - 9), heard(NOW), held=held).anchor == held


def test_answers_that_agree_count_from_a_second_apart_on():
    assert consensus([], NOW) is None
    assert consensus([heard(NOW - S + 1), heard(NOW)], NOW) is None
    drift = 100_000  # 100 ppm of a second
    both = [replace(heard(NOW - S), source="b"), replace(heard(NOW, 300 * MS), resolution_ns=2 * S)]
    assert consensus(both, NOW) == Consensus(OFFSET_NS + 300 * MS - SLACK, OFFSET_NS + S + SLACK + drift, S, S, 2)
    apart = [heard(NOW - S), heard(NOW, 5 * S)]  # all that one of them allows
    assert consensus(apart, NOW) == Consensus(OFFSET_NS - SLACK - drift, OFFSET_NS + 6 * S + SLACK, S, S, 1)


@pytest.mark.parametrize(
    ("off_ns", "known_ns", "sources", "needed_ns"),
    [
        (0, OFFSET_NS, 1, S),  # the wall clock lies within what they allow
        (60 * S, OFFSET_NS, 1, 8_500 * MS),  # it does not
        (366 * DAY, OFFSET_NS + 366 * DAY, 1, 8_500 * MS),  # a year from the wall clock, and not from what was known
        (366 * DAY, OFFSET_NS, 1, 60 * S),  # a year from all that is known
        (-500 * DAY, BUILT_NS, 1, 60 * S),  # and also if it is before that
        (366 * DAY, OFFSET_NS, 2, 8_500 * MS),
        (0, OFFSET_NS + NOW + 3 * S, 1, 60 * S),  # before what was known
        (0, OFFSET_NS + NOW + 2 * S, 1, S),
        (0, OFFSET_NS + NOW + 3 * S, 2, S),
    ],
)
def test_servers_must_say_the_same_the_longer_the_further_it_is_from_what_is_known(
    off_ns, known_ns, sources, needed_ns
):
    def by_servers(span_ns):
        said = [heard(NOW - span_ns, off_ns), heard(NOW - MS, off_ns), heard(NOW, off_ns)]
        said[1:] = [replace(one, source=f"http://{n % sources}") for n, one in enumerate(said[1:])]
        said[0] = replace(said[0], source="http://0")
        anchor = verdict(*said, known_ns=known_ns).anchor
        return anchor is not None and anchor.evidence == "servers"

    assert [by_servers(needed_ns - 1), by_servers(needed_ns)] == [False, True]


def test_of_what_is_known_and_agrees_the_better_word_stays():
    """What an earlier run left is then confirmed; where the wall clock agrees too, and is not there, it is taken."""
    said = heard(NOW - S), heard(NOW)
    held = Anchor(OFFSET_NS + 400 * MS, "servers", 200 * MS, NOW, stored=True)
    confirmed = replace(held, stored=False)
    for wall_ns, found in (
        (OFFSET_NS + 450 * MS - 1, confirmed),
        (OFFSET_NS + 450 * MS, Anchor(OFFSET_NS + 450 * MS, "servers", S, NOW)),
        (OFFSET_NS - DAY, confirmed),
    ):
        assert verdict(*said, wall_ns=wall_ns, held=held).anchor == found
    for error_ns, by in ((S, "kernel"), (S + 1, "servers")):  # the servers' own is a second
        held = Anchor(OFFSET_NS + 400 * MS, "kernel", error_ns, NOW)
        assert verdict(*said, wall_ns=OFFSET_NS - DAY, held=held).anchor == Anchor(held.offset_ns, by, S, NOW)


def test_a_wall_clock_two_seconds_off_is_told():
    held = Anchor(OFFSET_NS, "kernel", 5 * MS, NOW)
    assert [verdict(wall_ns=OFFSET_NS + away, held=held).warning for away in (2 * S, -2 * S)] == [None, None]
    ahead, behind = (verdict(wall_ns=OFFSET_NS + away, held=held).warning for away in (2 * S + 1, -2 * S - 1))
    assert ahead == "the wall clock is 2 s ahead of true time: points are dated by the time known before"
    assert behind.startswith("the wall clock is 2 s behind true time")
    servers = Anchor(OFFSET_NS, "servers", S, NOW)
    assert verdict(wall_ns=0, held=servers).warning.endswith("by the servers' dates, within 1 s")
    assert verdict(wall_ns=0).warning is None


def test_an_error_grows_by_100_ppm_to_either_side():
    assert [aged(Anchor(0, "kernel", 7, 50 * S), at * S).error_ns for at in (50, 60, 40)] == [7, MS + 7, MS + 7]


def test_a_date_that_stands_still_is_told_from_one_that_is_asked_for_again_by_its_resolution():
    first = heard(NOW, source="a")
    again = replace(first, sent_boot_ns=NOW + 1050 * MS, received_boot_ns=NOW + 1050 * MS)
    late = replace(again, received_boot_ns=NOW + 1050 * MS + 1)
    assert joined([first], again, 300 * S) == (first, again)
    assert joined([first], late, 300 * S) == (first,)
    for other in (replace(late, source="b"), replace(late, date_ns=late.date_ns + 1)):
        assert joined([first], other, 300 * S) == (first, other)


def test_what_contradicts_the_newest_is_forgotten_unless_it_is_of_a_better_source():
    seen = heard(NOW)
    near, far = (heard(NOW, off) for off in (2 * (S // 2 + SLACK) + 300 * S, 2 * (S // 2 + SLACK) + 300 * S + 1))
    assert [seen.apart_ns(near), seen.apart_ns(far), far.apart_ns(seen)] == [300 * S, 300 * S + 1, 300 * S + 1]
    assert joined([near, far], seen, 300 * S) == (near, seen)
    said = replace(seen, written=False)
    assert joined([near, far], said, 300 * S) == (near, far)
    assert joined([near, replace(far, written=False)], said, 300 * S) == (near, said)


@pytest.mark.parametrize(
    ("wrong_for_ns", "right_for_ns", "forgotten"),
    [(0, 8500 * MS - 1, False), (0, 8500 * MS, True), (20 * S, 20 * S - 1, False), (20 * S, 20 * S, True)],
)
def test_what_was_said_before_is_forgotten_once_the_latest_agree_for_as_long_without_it(
    wrong_for_ns, right_for_ns, forgotten
):
    """20 s off is within a point's error. For as long: as from the first answer to the last that is wrong."""
    wrong = [heard(NOW + at, 20 * S) for at in (0, wrong_for_ns)]
    start = NOW + wrong_for_ns + 2 * S
    right = [heard(start), heard(start + right_for_ns)]
    found = joined([*wrong, right[0]], right[1], 300 * S)
    assert (found == tuple(right)) == forgotten
    assert forgotten or len(found) == 4


class Told:
    """What servers said, without the clock."""

    def __init__(self):
        self.servers = Servers()

    def hear(self, at_ns, off_ns=0, *, known=False, **how):
        return self.servers.hear(replace(heard(at_ns, off_ns), **how), 300 * S, known=known)

    def warning(self, at_ns, *, known=False):
        return self.servers.warning(at_ns, known=known)


def test_over_plain_http_a_server_is_heard_from_its_first_204_on():
    told = Told()
    assert told.hear(NOW, source="http://a", written=False) is None
    assert told.servers.newest is None
    assert told.hear(NOW, source="https://b", written=False)
    assert told.hear(NOW, source="http://a")
    assert told.hear(NOW + S, source="http://a", written=False)
    assert told.hear(NOW + S, source="http://c", written=False) is None


def test_dates_that_cannot_be_are_told_for_an_hour_and_not_listened_to():
    latest_ns = 9_000_000_000 * S
    for date_ns, fine in ((BUILT_NS, True), (BUILT_NS - 1, False), (latest_ns - 1, True), (latest_ns, False)):
        told = Told()
        assert told.hear(NOW, date_ns=date_ns) is fine
        assert (told.servers.newest is not None) == fine
        assert (told.warning(NOW) is None) == fine
    assert told.warning(NOW + 3600 * S - 1, known=True)
    assert told.warning(NOW + 3600 * S) is None
    told = Told()
    assert told.hear(NOW, sent_boot_ns=NOW + 1) is False  # received before it was sent
    assert told.servers.newest is None


def test_a_date_that_stands_still_counts_once():
    told = Told()
    date_ns = heard(NOW).date_ns
    assert [told.hear(NOW + at, date_ns=date_ns) for at in (0, S // 2, 3 * S, 6 * S)] == [True, True, False, False]
    assert told.hear(NOW + 9 * S)


def test_while_the_time_is_known_a_server_that_agrees_is_listened_to_every_five_seconds():
    told = Told()
    assert told.hear(NOW, known=True)
    assert [told.hear(NOW + at, known=True) for at in (0, 5 * S - 1, 5 * S)] == [None, None, True]
    assert told.hear(NOW + 5 * S - 1, known=True)  # one that was under way for longer
    assert told.hear(NOW + 5 * S, -2 * S, known=True)
    assert told.hear(NOW + 5 * S)


def test_servers_that_are_further_apart_than_a_points_error_are_named_for_a_minute():
    told = Told()
    told.hear(NOW, source="http://a")
    told.hear(NOW + S, -300 * S - S - 2 * SLACK - 100_000, source="http://b")
    assert told.warning(NOW + S) is None
    told.hear(NOW + 2 * S, source="http://a")
    told.hear(NOW + 3 * S, -600 * S, source="http://b")
    words = "the servers' dates are 599 s apart: points wait until they agree"
    assert [told.warning(NOW + at) for at in (3 * S, 63 * S - 1, 63 * S)] == [words, words, None]
    assert told.warning(NOW + 3 * S, known=True) is None


def test_answers_are_asked_for_every_half_second_and_after_a_quarter_of_a_minute_every_five_seconds():
    told = Told()
    assert told.servers.ask_in(NOW) == 0.0
    told.hear(NOW)
    assert [told.servers.ask_in(NOW + at) for at in (0, 250 * MS, S)] == [0.55, pytest.approx(0.3), 0.0]
    told.hear(NOW + 15 * S - 1)
    assert told.servers.ask_in(NOW + 15 * S - 1) == 0.55
    told.hear(NOW + 15 * S)
    assert [told.servers.ask_in(NOW + at * S) for at in (15, 16, 30)] == [5.0, 4.0, 0.0]


def test_of_a_server_that_agrees_all_day_the_first_answer_and_the_latest_dozen_are_remembered():
    told = Told()
    moments = [NOW + n * 6 * S for n in range(40)]
    assert all(told.hear(at, known=True) for at in moments)
    assert [o.received_boot_ns for o in told.servers.observations] == [moments[0], *moments[-12:]]


def test_what_was_said_is_remembered_for_an_hour():
    told = Told()
    told.hear(NOW)
    assert [len(told.servers.recent(NOW + at)) for at in (0, 3600 * S - 1, 3600 * S)] == [1, 1, 0]
