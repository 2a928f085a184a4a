"""What an outcome does to the next question: how often the same bytes were answered 500."""

from dataclasses import replace
from random import Random

import pytest

from agent.buffer.batch import Batch, BufferStatus, DeadLetter, Part
from agent.buffer.rows import compress
from agent.delivery.outage_log import FATES, OutageLog
from agent.delivery.outcome import EITHER, Defer, Delivered, Park, Reauthorise, Retry, Slow, Split, Wait
from agent.delivery.pacing import Pace
from agent.delivery.settling import MAX_HALVINGS, Settling
from tests.delivery.test_pacing import Widest

S = 10**9
BROKEN = Retry("500", "500 broken", server=False)


@pytest.fixture
def settling():
    nobody = lambda: pytest.fail("nobody's token was refused")  # noqa: E731
    pace = Pace(5.0, 5000, 0, "pi-1", Random(1))
    return Settling(None, pace, OutageLog(), lambda: 0, on_unauthorised=nobody, on_authorised=nobody)


def test_a_500_counts_for_the_batch_it_came_for_and_of_live_points_for_whatever_is_newest(settling):
    first, second = Batch((7, 8), b"", 5), Batch((9,), b"", 5)
    for _ in range(2):
        assert not settling.apply(BROKEN, first)
    assert not settling.apply(BROKEN, second)
    assert [settling.again(batch) for batch in (first, second, Batch((8,), b"", 5), None)] == [2, 1, 0, 0]
    live, newer = Batch((10, 11), b"", 2, live=True), Batch((12,), b"", 1, live=True)
    assert not settling.apply(BROKEN, live)
    assert [settling.again(batch) for batch in (live, newer, first)] == [1, 1, 2]


def test_the_latest_64_batches_that_were_answered_500_are_remembered(settling):
    for key in range(1, 66):
        settling.apply(BROKEN, Batch((key,), b"", 1))
    assert [settling.again(Batch((key,), b"", 1)) for key in (1, 2, 65)] == [0, 1, 1]


class Kept:
    """A buffer that is told what becomes of batches."""

    def __init__(self):
        self.told = []

    def replace(self, batch, parts, dead):
        self.told.append((batch.keys, [(part.lines, part.state) for part in parts], list(dead)))

    def keep(self, batch):
        self.told.append(("keep", batch.keys))

    def end(self):
        """Nothing goes in portions."""


@pytest.mark.parametrize("parked", [False, True])
def test_points_that_are_parked_are_settled_and_those_that_were_parked_before_stay_out_of_the_round(parked):
    nobody = lambda: pytest.fail("nobody's token was refused")  # noqa: E731
    buffer, pace, outage = Kept(), Pace(5.0, 5000, 0, "pi-1", Random(1)), OutageLog()
    settling = Settling(buffer, pace, outage, lambda: 0, on_unauthorised=nobody, on_authorised=nobody)
    batch = Batch((7,), compress(b"a b=1 1\na b=2 2\n"), 2, parked=parked)
    assert settling.apply(Park("422", "the moon is full"), batch)
    assert settling.held == "the moon is full"
    assert pace.parked.failures == 1
    if parked:
        assert buffer.told == []
        settling.end_round()
        assert buffer.told == [("keep", (7,))]
    else:
        assert buffer.told == [((7,), [((b"a b=1 1", b"a b=2 2"), "parked")], [])]
        settling.end_round()
        assert len(buffer.told) == 1


class Told:
    """A buffer that gives what it is told to give, and remembers what becomes of it."""

    def __init__(self, *rows, pending=0):
        self.rows, self.pending = list(rows), pending
        self.kept, self.done, self.replaced = [], [], []

    def take_backlog(self, points):
        return self.rows.pop(0) if self.rows else None

    def take_parked(self):
        return self.take_backlog(1)

    def keep(self, batch):
        self.kept.append(batch.keys)

    def delivered(self, batch):
        self.done.append(batch.keys)

    def replace(self, batch, parts, dead, delivered=0):
        self.replaced.append((batch.keys, parts, dead, delivered))

    def snapshot(self):
        return BufferStatus(pending_memory=self.pending)

    def end(self):
        """Nothing goes in portions."""


class Desk:
    """Settling with a buffer, a pace whose chances are at their far end, and what was told about the token."""

    def __init__(self, *rows, pending=0):
        self.buffer, self.told, self.now = Told(*rows, pending=pending), [], 100 * S
        self.pace, self.outage = Pace(5.0, 5000, 0, "pi-1", Widest()), OutageLog(url="http://db")
        self.settling = Settling(
            self.buffer,
            self.pace,
            self.outage,
            lambda: self.now,
            on_unauthorised=lambda: self.told.append("refused"),
            on_authorised=lambda: self.told.append("taken"),
        )

    def apply(self, outcome, batch=None):
        return self.settling.apply(outcome, batch)

    def waits(self):
        """Seconds until server, backlog and parked points are tried again."""
        return [gate.left_s(self.now) for gate in (self.pace.server, self.pace.backlog, self.pace.parked)]


def rows(key=7, count=2, **more):
    return Batch((key,), compress(b"a b=1 1\n" * count), count, **more)


LIVE, BACKLOG, PARKED = rows(1, live=True), rows(2), rows(3, parked=True)
HALVED = Split("400", "400 no", (Part((b"a b=1 1",), "suspect"), Part((b"a b=1 1",), "suspect")), blind=True)


def test_an_outage_of_the_server_holds_up_all_for_no_longer_than_a_quarter_of_its_time():
    for kind in ("no answer", "timeout", "502", "504", "proxy", "200", "203"):
        desk = Desk()
        for _ in range(9):
            assert not desk.apply(Retry(kind, "away"), LIVE if kind != "timeout" else None)
        assert desk.waits() == [4, 0, 0]
        assert (desk.outage.kind, desk.outage.count, desk.pace.limit) == (kind, 9, 5000)
    for kind in ("500", "503", "429"):
        desk = Desk()
        for _ in range(9):
            desk.apply(Retry(kind, "ill"), None)
        assert desk.waits() == [256, 0, 0]


def test_after_a_request_without_an_answer_the_next_is_smaller_down_to_500_points():
    desk = Desk()
    desk.apply(Retry("timeout", "no answer in time"), rows(count=3000))
    assert desk.pace.limit == 1500
    desk.apply(Retry("timeout", "no answer in time"), rows(count=500))
    desk.apply(Retry("no answer", "cut"), rows(count=3000))
    assert desk.pace.limit == 1500


def test_a_server_is_given_the_time_it_asks_for_and_a_person_some(caplog):
    desk = Desk()
    assert not desk.apply(Wait("429", "429 slow down", 20), BACKLOG)
    assert desk.waits() == [22, 0, 0]
    desk = Desk()
    assert not desk.apply(Slow("404", "404 no bucket"), BACKLOG)
    assert desk.waits() == [8, 0, 0]
    assert [(record.levelname, desk.outage.kind) for record in caplog.records] == [("WARNING", "404"), ("ERROR", "404")]


def test_a_token_that_is_refused_is_told_each_time_and_once_when_it_is_taken_again():
    desk = Desk()
    for _ in range(2):
        assert not desk.apply(Reauthorise("401", "401 unknown"), BACKLOG)
    assert desk.waits() == [16, 0, 0]
    assert desk.told == ["refused", "refused"]
    assert not desk.apply(Delivered())
    assert desk.apply(Delivered(), BACKLOG)
    assert desk.told == ["refused", "refused", "taken"]
    desk.apply(Reauthorise("401", "401 unknown"), BACKLOG)
    desk.apply(Delivered(), BACKLOG)
    assert desk.told[3:] == ["refused", "taken"]


def test_an_empty_write_that_is_taken_ends_an_outage_once_no_point_waits(caplog):
    caplog.set_level("INFO")
    for pending, said in ((3, 1), (0, 2)):
        desk = Desk(pending=pending)
        caplog.clear()
        desk.apply(Retry("500", "ill"))
        assert not desk.apply(Delivered())
        assert (desk.outage.kind, desk.waits(), desk.settling.delivered) == (None, [0, 0, 0], 0)
        assert len(caplog.records) == said
        assert desk.settling.success is None
        assert not desk.settling.accepting


def test_what_is_delivered_is_counted_and_what_was_deferred_comes_again():
    desk = Desk(BACKLOG)
    desk.apply(BROKEN, BACKLOG)
    assert desk.apply(Defer("500", "500 no"), rows(9, suspect=True))
    assert desk.settling.next_backlog(5000) is BACKLOG
    assert desk.buffer.kept == []
    assert desk.apply(Delivered(), BACKLOG)
    assert (desk.buffer.done, desk.buffer.kept) == ([(2,)], [(9,)])
    assert desk.settling.success == 100 * S
    assert (desk.settling.delivered, desk.settling.accepting, desk.settling.again(BACKLOG)) == (2, True, 0)
    assert desk.pace.limit == 5000


def test_what_was_deferred_or_refused_again_comes_when_there_is_nothing_else_and_then_waits():
    desk = Desk()
    deferred = rows(9, suspect=True)
    assert desk.settling.next_backlog(5000) is None
    assert desk.waits() == [0, 0, 0]
    desk.apply(Defer("500", "500 no"), deferred)
    assert desk.settling.next_backlog(5000) is None
    assert (desk.buffer.kept, desk.waits()) == ([(9,)], [0, 1, 0])
    desk.apply(Park("422", "no"), PARKED)
    assert desk.waits()[2] == 60
    assert desk.settling.next_parked() is None
    assert (desk.buffer.kept, desk.waits()) == ([(9,), (3,)], [0, 1, 120])
    assert desk.settling.next_parked() is None
    assert desk.waits() == [0, 1, 120]


def test_a_500_for_these_points_alone_is_an_outage_from_the_third_on_and_of_parked_ones_never():
    desk = Desk()
    kinds = []
    for _ in range(3):
        assert not desk.apply(BROKEN, BACKLOG)
        kinds.append(desk.outage.kind)
    assert kinds == [None, None, "500"]
    assert desk.waits() == [0, 4, 0]
    desk = Desk()
    for _ in range(5):
        desk.apply(BROKEN, PARKED)
    assert (desk.outage.kind, desk.waits()) == (None, [0, 0, 900])
    desk = Desk()
    desk.apply(BROKEN, LIVE)
    assert desk.waits() == [1, 0, 0]


def test_each_part_of_a_split_is_tried_at_once():
    desk = Desk()
    desk.apply(BROKEN, BACKLOG)
    desk.pace.server.fail(desk.now)
    assert desk.apply(HALVED, BACKLOG)
    assert desk.waits() == [0, 0, 0]
    assert desk.settling.again(BACKLOG) == 0
    assert desk.buffer.replaced == [((2,), HALVED.parts, (), 0)]
    desk.pace.backlog.fail(desk.now)
    desk.apply(HALVED, PARKED)
    assert desk.waits() == [0, 1, 0], "what was parked has nothing to do with the backlog"


@pytest.mark.parametrize(
    ("outcome", "counts"),
    [
        (HALVED, True),
        (replace(HALVED, blind=False), False),
        (replace(HALVED, kind="413", blind=False), True),
        (replace(HALVED, kind="500", blind=False), True),
        (Defer("500", "500 no"), True),
        (Park("500", "500 no"), False),
        (Park("422", "422 no"), True),
    ],
)
def test_after_64_refusals_that_told_nothing_halving_is_given_up_until_something_is_accepted(outcome, counts):
    desk = Desk()
    for _ in range(MAX_HALVINGS - 1):
        desk.apply(outcome, BACKLOG)
    assert desk.settling.may_halve
    desk.apply(outcome, BACKLOG)
    assert desk.settling.may_halve is not counts
    assert desk.outage.kind is None
    desk.apply(outcome, BACKLOG)
    assert (desk.outage.kind == "all refused") is (counts and outcome.kind not in EITHER)
    desk.apply(Delivered(), BACKLOG)
    assert desk.settling.may_halve
    for _ in range(MAX_HALVINGS):
        desk.apply(outcome, BACKLOG)
    desk.settling.start_again()
    assert desk.settling.may_halve


def test_whether_the_server_takes_others_is_asked_anew_for_what_is_put_under_suspicion():
    desk = Desk()
    desk.apply(Delivered(), BACKLOG)
    desk.apply(HALVED, rows(8, suspect=True))
    assert desk.settling.accepting
    desk.apply(HALVED, BACKLOG)
    assert not desk.settling.accepting
    desk.apply(HALVED, rows(8, suspect=True))
    assert not desk.settling.accepting
    desk.apply(Delivered(), BACKLOG)
    desk.settling.start_again()
    assert not desk.settling.accepting


def test_a_413_makes_requests_smaller_and_no_other_refusal_does():
    for kind, limit in (("413", 1000), ("500", 5000), ("400", 5000)):
        desk = Desk()
        desk.apply(replace(HALVED, kind=kind), rows(count=2000))
        assert desk.pace.limit == limit


def test_of_a_split_what_is_stored_is_delivered_what_is_dead_is_told_and_what_is_parked_waits(caplog):
    dead = (DeadLetter(b"a b= 1", "parse", "no", 1),) * 3
    desk = Desk()
    assert desk.apply(Split("400", "400 no", (), dead, stored=2), rows(count=5))
    assert (desk.settling.delivered, desk.settling.accepting) == (2, True)
    assert desk.buffer.replaced == [((7,), (), dead, 2)]
    assert caplog.messages == ["3 points refused for good and kept (iot-agent rejected list): 400 no"]
    assert (desk.settling.held, desk.waits()) == (None, [0, 0, 0])
    caplog.clear()
    parts = (Part((b"a b=1 1",), "pending"), Part((b"a b=1 1",) * 4, "parked"))
    assert desk.apply(Split("422", "422 limit", parts), rows(count=5))
    assert (desk.settling.held, desk.waits(), desk.settling.delivered) == ("422 limit", [0, 0, 60], 2)
    assert [text.partition(":")[0] for text in caplog.messages] == ["4 points " + FATES["parked"]]


def test_another_target_gives_back_what_was_out():
    desk = Desk()
    desk.apply(Defer("500", "500 no"), rows(9, suspect=True))
    desk.apply(Park("422", "no"), PARKED)
    desk.settling.start_again()
    assert sorted(desk.buffer.kept) == [(3,), (9,)]
    assert desk.waits() == [0, 0, 0]
