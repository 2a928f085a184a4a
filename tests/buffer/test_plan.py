"""When rows are written: by the loss window, by what memory holds, by what the card took last."""

from dataclasses import replace

import pytest

from agent.buffer.batch import DeadLetter
from agent.buffer.compaction import MANY, MEDIUM, SMALL, fit, runs
from agent.buffer.database import DATABASE
from agent.buffer.index import Entry, entry_of
from agent.buffer.ledger import measured
from agent.buffer.plan import SETTLE_NS, Plan, Rewrite, Work, crowded, due_ns, tail_ns
from agent.buffer.recovery import cut_short
from agent.buffer.rows import Header, Kind, pack
from agent.buffer.tail import Group

PAGE = 4096


@pytest.mark.parametrize(("points", "is_so"), [(0, False), (50, False), (51, True), (1000, True)])
def test_half_of_the_memory_is_what_makes_it_be_written_before_its_time(points, is_so):
    assert crowded(points, 100) is is_so


@pytest.mark.parametrize(
    ("pages", "there", "log", "is_so"),
    [
        (3, 3 * PAGE, 0, False),
        (3, 4 * PAGE, 0, False),  # longer than its header says: as a checkpoint leaves it
        (3, 2 * PAGE, 0, True),
        (3, 3 * PAGE - 1, 0, True),
        (3, 3 * PAGE + 1, 0, True),
        (1, 511, 0, True),
        (0, 0, 0, True),
        (3, 2 * PAGE, 32, True),  # a log that holds nothing but its header
        (3, 2 * PAGE, 33, False),  # the log may have the rest
    ],
)
def test_a_database_is_cut_short_where_its_header_says_more_than_is_there(tmp_path, pages, there, log, is_so):
    head = bytearray(100)
    head[16:18], head[28:32] = PAGE.to_bytes(2), pages.to_bytes(4)
    (tmp_path / DATABASE).write_bytes((bytes(head) + bytes(5 * PAGE))[:there])
    (tmp_path / f"{DATABASE}-wal").write_bytes(bytes(log))
    assert cut_short(tmp_path) is is_so
    (tmp_path / f"{DATABASE}-wal").unlink()
    assert cut_short(tmp_path) is (is_so or there < pages * PAGE)


def test_pages_of_65536_bytes_are_written_as_1_in_the_header(tmp_path):
    head = bytearray(100)
    head[16:18], head[28:32] = (1).to_bytes(2), (2).to_bytes(4)
    (tmp_path / DATABASE).write_bytes(bytes(head) + bytes(2 * 65536 - 100))
    assert not cut_short(tmp_path)
    (tmp_path / DATABASE).write_bytes(bytes(head) + bytes(65536 - 100))
    assert cut_short(tmp_path)
    (tmp_path / DATABASE).unlink()
    assert not cut_short(tmp_path)


def test_of_a_row_its_times_are_known_in_whole_milliseconds():
    header = Header(Kind.PENDING, 2, 1, first_ns=1_700_000_000_123_999_999, last_ns=1_700_000_001_456_000_000, thin=3)
    assert entry_of(7, header, 95) == Entry(7, 2, 1, 95, 3, 1_700_000_000_123, 1_700_000_001_456)


def test_a_header_without_a_page_size_is_none(tmp_path):
    (tmp_path / DATABASE).write_bytes(bytes(1024))
    assert cut_short(tmp_path)


QUIET = Work(deadline_ns=None, points=0, gone=0, gone_since_ns=None, bad=(), letter_bytes=0, pressing=False)


@pytest.mark.parametrize(
    ("work", "tail", "due"),
    [
        ({}, None, 900),
        ({}, 800, 800),
        ({}, 1000, 900),
        ({"points": 50}, None, 900),
        ({"points": 51}, None, 0),
        ({"pressing": True}, 800, 0),
        ({"bad": (7,)}, 800, 0),
        ({"gone": 19, "gone_since_ns": 100 - SETTLE_NS}, 800, 100),
        ({"gone": 20, "gone_since_ns": 100}, 800, 0),
        ({"gone": 1, "gone_since_ns": 0}, 800, 800),
    ],
)
def test_when_there_is_something_to_write_next(work, tail, due):
    assert due_ns(replace(QUIET, **work), 20, 100, tail, 900) == due
    assert SETTLE_NS == 10**9


@pytest.mark.parametrize(
    ("window_s", "commit_s", "before_s"),
    [
        (10, 0, 0.5),
        (60, 0, 0.5),
        (4, 0, 0.4),
        (10, 0.1, 0.5),
        (10, 0.5, 1.5),  # three times what a commit took
        (10, 4.0, 5),  # half of the window at most
        (0, 1.0, 0),
    ],
)
def test_promise_1_what_is_in_memory_is_written_so_long_before_it_must_be(window_s, commit_s, before_s):
    assert tail_ns(100 * 10**9, window_s * 10**9, commit_s) == int((100 - before_s) * 10**9)
    assert tail_ns(None, window_s * 10**9, commit_s) is None


def test_a_plan_is_empty_only_as_long_as_there_is_nothing_to_write():
    rewrite = Rewrite((1,), pack([b"m a=1 5"], Kind.PENDING), measured(3))
    assert Plan().empty
    for field, value in (
        ("groups", [Group(Kind.PENDING, [])]),
        ("gone", [1]),
        ("letters", [DeadLetter(b"m a=1 5", "parse", "no", 1)]),
        ("rewrites", [rewrite]),
        ("recovered", {"1": None}),
        ("withdrawals", 0),
    ):
        assert not Plan(**{field: value}).empty
    plan = Plan(change=measured(1), found=measured(10))
    plan.add(Plan(found=measured(100), rewrites=[rewrite, rewrite]))
    assert plan.whole_change == measured(117)


def small(count, points=10, **more):
    return [Entry(key, points, 0, 400, **more) for key in range(1, count + 1)]


def merged(rows, taken=()):
    return [[row.key for row in run] for run in runs(reversed(rows), lambda key: key not in taken)]


def test_many_small_rows_are_merged_once_there_are_enough_of_them():
    assert merged(small(MANY - 1)) == []
    assert merged(small(MANY)) == [list(range(1, MANY + 1))]
    assert merged(small(MANY, points=SMALL - 1)) == [list(range(1, MANY + 1))]
    assert merged(small(MANY, points=SMALL)) == []
    assert merged(small(MANY), taken=(1,)) == []
    assert merged(small(MANY + 1), taken=(1,)) == [list(range(2, MANY + 2))]
    assert merged(small(MANY, thin=1)) == [list(range(1, MANY + 1))]
    assert merged([small(1, thin=1)[0], *small(MANY)[1:]]) == []
    assert merged([Entry(1, MEDIUM, 0, 400), *small(MANY)[1:]]) == []


def test_medium_rows_are_merged_once_they_make_a_full_one():
    rows = [Entry(key, 1000, 0, 400) for key in range(1, 6)]
    assert merged(rows[:3]) == []
    assert merged(rows[:4]) == [[1, 2, 3, 4]]
    assert merged(rows) == [[2, 3, 4, 5]]
    assert merged([*rows[:4], *(Entry(key, 10, 0, 400) for key in range(6, 9))]) == [[1, 2, 3, 4]]
    assert merged([rows[0]._replace(thin=1), *rows[1:4]]) == []
    assert merged([*rows[:3], Entry(4, 999, 0, 400)]) == []
    assert merged([Entry(key, MEDIUM, 0, 400) for key in range(1, 5)]) == []
    assert merged([Entry(key, MEDIUM - 1, 0, 400) for key in range(1, 5)]) == [[1, 2, 3, 4]]
    assert merged([Entry(1, 3999, 0, 400)]) == []
    # small ones among them are merged with them
    assert merged([rows[0], rows[1], Entry(3, 10, 0, 400), rows[3], rows[4]]) == [[1, 2, 3, 4, 5]]


def test_a_row_is_filled_with_the_first_that_fit_and_one_at_least():
    rows = [Entry(key, points, 0, 1) for key, points in enumerate((6, 4, 1), 1)]
    assert [[row.key for row in fit(rows, limit)] for limit in (1, 9, 10, 11)] == [[1], [1], [1, 2], [1, 2, 3]]
    assert fit([], 5) == []
    assert len(fit([Entry(key, 1000, 0, 1) for key in range(9)])) == 5
