"""Points in memory: what is taken, what stays behind, what is written together, and what gets or loses its time."""

import pytest

from agent.buffer.index import Entry, Index
from agent.buffer.rows import Kind
from agent.buffer.tail import Block, Tail
from agent.buffer.withdrawn import Spans, Withdrawn, touches
from agent.clock.timeline import Stretch, Wrong
from agent.points.schema import Line
from tests.buffers import BOOT, OTHER_BOOT, UNIX_NS

MS, S = 10**6, 10**9


def filled(*heads, dated=True, window_s=10):
    """A tail with a point a second."""
    tail = Tail()
    for number, head in enumerate(heads):
        tail.put(Line(head, number * S), UNIX_NS + number * S if dated else None, BOOT, window_s * S)
    return tail


def agrees(tail):
    blocks = tail.blocks.values()
    assert tail.points == sum(len(block.lines) for block in blocks)
    assert tail.health == sum(line.startswith(b"agent") for block in blocks for line in block.lines)
    assert all(block.health == sum(line.startswith(b"agent") for line in block.lines) for block in blocks)


HEADS = (b"m a=1", b"agent a=1", b"m a=2", b"agent a=2", b"m a=3")


@pytest.mark.parametrize("limit", range(1, 8))
def test_what_is_taken_is_the_oldest_and_the_rest_stays_in_order_with_its_deadline(limit):
    tail = filled(*HEADS)
    taken = tail.take_live(limit)
    assert [line.rpartition(b" ")[0] for line in taken.lines] == list(HEADS[:limit])
    assert (taken.in_flight, taken.live, taken.deadline_ns, taken.free) == (True, True, 10 * S, False)
    agrees(tail)
    rest = tail.take_live(100)
    assert ([] if rest is None else [line.rpartition(b" ")[0] for line in rest.lines]) == list(HEADS[limit:])
    agrees(tail)
    assert tail.take_live(100) is None
    assert tail.deadline_ns() == 10 * S


def test_what_is_taken_can_come_of_several_blocks_and_is_sent_if_one_of_them_was():
    tail = filled(*HEADS[:2])
    first = tail.take_live(10)
    first.in_flight, first.sent = False, True
    tail.put(Line(HEADS[2], 9 * S), UNIX_NS + 9 * S, BOOT, 10 * S)
    assert len(tail.blocks) == 2
    assert len(tail.take_live(2).lines) == 2
    tail = filled(*HEADS[:2])
    first = tail.take_live(10)
    first.in_flight = False
    tail.put(Line(HEADS[2], 9 * S), UNIX_NS + 9 * S, BOOT, 10 * S)
    first.sent, first.thin = True, 2
    taken = tail.take_live(3)
    assert (len(taken.lines), taken.sent, taken.deadline_ns) == (3, True, 10 * S)
    assert taken.thin == 2, "it is as coarse as its oldest points"
    agrees(tail)


def test_undated_points_are_no_live_batch_and_get_their_time_in_memory():
    tail = filled(*HEADS, dated=False)
    assert (tail.take_live(10), tail.undated(), tail.points) == (None, 5, 5)
    tail.date(OTHER_BOOT, UNIX_NS, estimated=False)
    assert tail.undated() == 5
    tail.date(BOOT, UNIX_NS, estimated=False)
    assert tail.undated() == 0
    taken = tail.take_live(10)
    assert [int(line.split()[-1]) - UNIX_NS for line in taken.lines] == [0, S, 2 * S, 3 * S, 4 * S]
    assert taken.boot == ""
    agrees(tail)


def test_points_go_to_the_block_that_is_open_for_them():
    tail = filled(*HEADS[:2])
    assert len(tail.blocks) == 1
    tail.put(Line(HEADS[2], 0), None, BOOT, 10 * S)
    tail.put(Line(HEADS[2], 0), None, OTHER_BOOT, 10 * S)
    assert [block.boot for block in tail.blocks.values()] == ["", BOOT, OTHER_BOOT]
    next(iter(tail.blocks.values())).committing = True
    tail.put(Line(HEADS[2], 0), UNIX_NS, BOOT, 10 * S)
    assert len(tail.blocks) == 4
    for block in list(tail.blocks.values()):
        tail.remove(block)
    tail.remove(block)
    assert (tail.points, tail.health, tail.deadline_ns()) == (0, 0, None)
    tail.put(Line(HEADS[2], 0), UNIX_NS, BOOT, 10 * S)
    assert tail.points == 1
    agrees(tail)


def test_the_earliest_of_all_points_says_when_the_tail_must_be_written():
    tail = filled(*HEADS[:1])
    tail.put(Line(b"m a=9", -5 * S), UNIX_NS, BOOT, 10 * S)
    assert tail.deadline_ns() == 5 * S
    tail.put(Line(b"m a=9", -6 * S), UNIX_NS, BOOT, 0)
    assert tail.deadline_ns() == -6 * S
    tail.groups(live=True)
    assert tail.deadline_ns() is None


def part(lines, **more):
    return Block(0, Kind.SUSPECT, list(lines), live=False, **more)


def test_what_is_written_together_and_what_alone():
    tail = filled(*HEADS[:2])
    tail.add(part([b"m a=1 5"], place=(7,)))
    tail.put(Line(b"m a=1", 0), None, BOOT, 10 * S)
    assert tail.unsaved() == (3, 1)
    assert [(g.kind, g.place, g.lines) for g in tail.groups(live=False)] == [(Kind.SUSPECT, (7,), [b"m a=1 5"])]
    groups = tail.groups(live=True)
    assert [(group.kind, group.boot, len(group.lines), group.single) for group in groups] == [
        (Kind.PENDING, "", 2, False),
        (Kind.UNDATED, BOOT, 1, False),
    ]
    assert tail.unsaved() == (0, 0)
    assert tail.groups(live=True) == []


def test_what_is_in_flight_or_was_sent_is_a_row_of_its_own():
    for name in ("in_flight", "sent"):
        tail = filled(*HEADS[:3])
        first = tail.take_live(2)
        first.in_flight = False
        setattr(first, name, True)
        groups = tail.groups(live=True)
        assert [(len(group.lines), group.single) for group in groups] == [(2, True), (1, False)]


def test_of_a_block_only_some_lines_can_be_kept_or_none():
    tail = filled(*HEADS)
    (block,) = tail.blocks.values()
    assert tail.keep_only(block, block.lines[:2]) == (3, 1)
    agrees(tail)
    assert tail.keep_only(block, []) == (2, 1)
    assert (tail.points, tail.health, tail.blocks) == (0, 0, {})


def test_a_wrong_time_is_taken_from_what_was_not_sent():
    wrong = Stretch(UNIX_NS + S, UNIX_NS + 2 * S, UNIX_NS)
    tail = filled(*HEADS)
    assert tail.withdraw(BOOT, [wrong]) == 2
    assert [(block.kind, block.boot, len(block.lines)) for block in tail.blocks.values()] == [
        (Kind.PENDING, "", 3),
        (Kind.UNDATED, BOOT, 2),
    ]
    agrees(tail)
    tail.put(Line(b"m a=9", 9 * S), UNIX_NS + 9 * S, BOOT, 10 * S)
    assert len(tail.blocks) == 3, "what follows is of another time"
    whole = Stretch(UNIX_NS, UNIX_NS + 100 * S, UNIX_NS)
    tail = filled(*HEADS)
    assert tail.withdraw(BOOT, [whole]) == 5
    assert [(block.kind, block.boot) for block in tail.blocks.values()] == [(Kind.UNDATED, BOOT)]
    tail = filled(*HEADS)
    next(iter(tail.blocks.values())).sent = True
    assert tail.withdraw(BOOT, [whole]) == 0
    agrees(tail)


# What is known of wrong times


@pytest.mark.parametrize(
    ("first_ms", "last_ms", "does"),
    [(0, 98, False), (0, 99, True), (0, 100, True), (150, 160, True), (200, 300, True), (201, 300, False)],
)
def test_a_row_may_have_points_of_a_stretch_to_the_millisecond(first_ms, last_ms, does):
    assert touches([Stretch(100 * MS, 200 * MS, 0)], first_ms, last_ms) is does
    assert touches([], first_ms, last_ms) is False


def known(*stretches, boot=BOOT):
    return Withdrawn({boot: stretches})


WRONG = Stretch(100 * MS, 200 * MS, 40 * MS)


def test_rows_with_points_of_a_wrong_time_wait_for_all_boots_that_are_in_them():
    wrong = Withdrawn({BOOT: (WRONG,), OTHER_BOOT: (WRONG,)})
    near, far = Entry(5, 1, 0, 1, 0, 150, 160), Entry(6, 1, 0, 1, 0, 300, 400)
    assert not wrong.flag(far, [BOOT])
    assert wrong.flag(near, [BOOT])
    assert wrong.rows == {5: frozenset({BOOT})}
    assert wrong.flag(near, [OTHER_BOOT])
    assert wrong.rows == {5: frozenset({BOOT, OTHER_BOOT})}
    assert wrong.dateable([OTHER_BOOT])
    assert not wrong.dateable([])
    wrong.flag_lines(7, [b"m a=1 %d" % (140 * MS), b"m a=1 %d" % (900 * MS)])
    wrong.flag_lines(8, [b"m a=1 %d" % (140 * MS + 1)])
    assert set(wrong.rows) == {5, 7}


def test_rows_that_became_one_wait_for_what_is_not_dated_yet():
    for dated, left in (((frozenset({BOOT}), 1), {OTHER_BOOT}), ((frozenset({BOOT}), 0), {BOOT, OTHER_BOOT})):
        wrong = Withdrawn(rows={5: frozenset({BOOT}), 6: frozenset({OTHER_BOOT})}, number=1)
        wrong.rewritten((5, 6, 7), dated)
        assert wrong.rows == {5: left}
    wrong.rewritten((5,), (frozenset({BOOT, OTHER_BOOT}), 1))
    assert wrong.rows == {}
    wrong = Withdrawn({BOOT: (WRONG,), OTHER_BOOT: (WRONG,)}, {5: frozenset({BOOT})})
    wrong.done()
    assert set(wrong.stretches) == {BOOT}


def test_boots_that_wait_for_a_time_are_told_with_their_points_on_the_boot_clock():
    index = Index()
    for entry in (Entry(5, 3, 0, 1, 0, 150, 160), Entry(9, 4, 0, 1, 0, 170, 900)):
        index.add(entry)
    wrong = Withdrawn({BOOT: (WRONG,)}, {9: frozenset({BOOT}), 5: frozenset({BOOT}), 11: frozenset({BOOT})})
    (boot,) = wrong.boots(index)
    assert (boot.boot_id, boot.count, boot.first_ns, boot.last_ns, boot.key) == (BOOT, 7, 110 * MS, 160 * MS, 5)
    assert Withdrawn({BOOT: (WRONG,)}, {11: frozenset({BOOT})}).boots(index) == []
    early = Withdrawn({BOOT: (Stretch(100 * MS, 200 * MS, 500 * MS),)}, {5: frozenset({BOOT})})
    assert (early.boots(index)[0].first_ns, early.boots(index)[0].last_ns) == (0, 0)


def test_of_what_was_delivered_that_is_told_which_lies_in_a_stretch():
    spans = Spans()
    spans.add(0, 10 * S, 3)
    spans.add(100 * S, 110 * S, 4)
    spans.add(300 * S, 310 * S, 5)
    stretch = Stretch(110 * S, 300 * S, 0)
    assert spans.within([stretch]) == Wrong(0, 9, 100 * S, 310 * S)
    assert spans.within([stretch]) == Wrong()
    assert spans.within([Stretch(10 * S + 1, 20 * S, 0)]) == Wrong()
    assert spans.within([Stretch(10 * S, 10 * S, 0)]) == Wrong(0, 3, 0, 10 * S)
