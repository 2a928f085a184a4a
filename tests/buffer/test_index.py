"""The index of rows in memory: whatever comes and goes, it says what a table of all rows would."""

from random import Random

import pytest

from agent.buffer import index
from agent.buffer.index import Entry, Index, RowIndex, entries_of
from agent.buffer.rows import Header, Kind
from tests.amounts import amount


def entry(key, rng):
    return Entry(
        key, rng.randint(0, 9), rng.randint(0, 3), rng.randint(0, 500), rng.randint(0, 5), key * 10, key * 10 + 5
    )


def agrees(found, table):
    rows = [table[key] for key in sorted(table)]
    assert list(found) == rows
    assert list(reversed(found)) == rows[::-1]
    assert entries_of(found.columns()) == rows
    assert len(found) == len(rows)
    sums = (sum(row.points for row in rows), sum(row.health for row in rows), sum(row.size for row in rows))
    assert (found.points, found.health, found.bytes) == sums


@pytest.mark.parametrize("seed", range(amount(20, 200)))
def test_an_index_says_what_a_table_would(monkeypatch, seed):
    rng = Random(seed)
    monkeypatch.setattr(index, "_COMPACT_AFTER", rng.choice([0, 1, 3, 8]))
    found, table = Index(), {}
    for _ in range(120):
        key = rng.randint(1, 25 + 5 * (seed % 5))
        if rng.random() < (0.3, 0.5, 0.7)[seed % 3]:
            table[key] = entry(key, rng)
            found.add(table[key])
        else:
            key = min(table, default=key) if rng.random() < 0.5 else key
            assert found.remove(key) == table.pop(key, None)
        assert found.get(key) == table.get(key)
        assert (key in found) is (key in table)
        agrees(found, table)


@pytest.mark.parametrize("oldest_first", [True, False])
def test_rows_that_are_gone_take_no_memory_for_long_and_are_not_cleared_away_one_by_one(monkeypatch, oldest_first):
    closed = []
    compact = Index._compact
    monkeypatch.setattr(Index, "_compact", lambda self: (closed.append(len(self)), compact(self)))
    found = Index()
    keys = list(range(1, 6001))
    for key in keys:
        found.add(Entry(key, 1, 0, 40))
    for key in keys if oldest_first else keys[::-1]:
        found.remove(key)
    assert closed == [6000 - index._COMPACT_AFTER - 1]
    assert len(found.columns()[0]) <= 6000 - index._COMPACT_AFTER


HEADERS = {kind: Header(kind, 2, 1, 5_000_000, 9_000_000) for kind in Kind if kind != Kind.UNDATED}


def undated(boot, first_ms, last_ms):
    return Header(Kind.UNDATED, 3, 0, first_ms * 1_000_000, last_ms * 1_000_000, boot=boot)


def test_of_each_boot_without_a_time_it_is_known_from_when_to_when_it_measured():
    rows = RowIndex()
    rows.add(9, undated("late", 50, 60), 10)
    rows.add(3, undated("early", 200, 300), 10)
    rows.add(7, undated("early", 100, 250), 10)
    rows.add(4, undated("early", 400, 500), 10)
    boots = [(boot.boot_id, boot.count, boot.first_ns, boot.last_ns, boot.key) for boot in rows.boots()]
    assert boots == [("early", 9, 100_000_000, 500_000_000, 3), ("late", 3, 50_000_000, 60_000_000, 9)]
    assert rows.remove(9).key == 9
    assert [boot.boot_id for boot in rows.boots()] == ["early"]
    rows.add(9, undated("late", 70, 80), 10)
    assert rows.boots()[1].first_ns == 70_000_000


def test_a_status_tells_what_rows_there_are_and_since_when_the_oldest_waits():
    rows = RowIndex()
    assert (rows.status().oldest_ns, rows.status().rows, rows.status().pending) == (None, 0, 0)
    rows.add(1, undated("a", 1, 2), 10)
    assert rows.status().oldest_ns is None
    for key, (kind, header) in enumerate(HEADERS.items(), 2):
        rows.add(key, header, 100 * kind)
    rows.add(8, Header(Kind.PARKED, 4, 0, 3_000_000, 4_000_000), 7)
    rows.add(9, Header(Kind.SUSPECT, 5, 0, 1_000_000, 4_000_000), 7)
    status = rows.status()
    assert (status.pending_disk, status.undated, status.suspect, status.parked, status.dead_letters) == (18, 3, 7, 6, 2)
    assert (status.rows, status.oldest_ns) == (6, 5_000_000)
    assert (rows.points, rows.health) == (18, 3)
    assert 9 in rows
    assert 10 not in rows
    assert "9" not in rows
    assert rows.remove(10) is None
    assert rows.remove(3).points == 2
    assert rows.status().oldest_ns == 1_000_000


def of(*rows):
    """An index of rows, each a kind and its points, under the keys 1, 2, …"""
    found = RowIndex()
    for key, (kind, points) in enumerate(rows, 1):
        found.add(key, Header(kind, points), 10)
    return found


P, S, X = Kind.PENDING, Kind.SUSPECT, Kind.PARKED


@pytest.mark.parametrize(
    ("rows", "taken", "expected"),
    [
        ([], (), (P, [])),
        ([(P, 4), (P, 6), (P, 1)], (), (P, [1, 2])),  # up to ten points
        ([(P, 4), (P, 7), (P, 1)], (), (P, [1])),
        ([(P, 11), (P, 1)], (), (P, [1])),  # one at least
        ([(P, 4), (P, 1), (P, 6)], (2,), (P, [1, 3])),  # not what another has
        ([(P, 4), (P, 1)], (1,), (P, [2])),
        ([(P, 4), (P, 1)], (1, 2), (P, [])),
        ([(S, 1), (S, 1), (P, 1)], (), (S, [1])),  # a suspect comes alone
        ([(P, 1), (S, 1), (P, 1)], (), (P, [1])),  # the oldest first, of whatever kind
        ([(P, 1), (S, 1), (P, 1)], (2,), (P, [1, 3])),
        ([(X, 1), (P, 1)], (), (P, [2])),  # a kind that is not asked for
    ],
)
def test_what_is_delivered_next_is_the_oldest_up_to_a_request_full(rows, taken, expected):
    assert of(*rows).next_of((P, S), 10, lambda key: key not in taken) == expected
    assert of(*rows).next_of((S, P), 10, lambda key: key not in taken) == expected


def test_of_parked_rows_one_is_taken_at_a_time():
    assert of((X, 1), (X, 1)).next_of((X,), 1, lambda key: True) == (X, [1])
