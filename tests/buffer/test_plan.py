"""When rows are written: by the loss window, by what memory holds, by what the card took last."""

import pytest

from agent.buffer.database import DATABASE
from agent.buffer.index import Entry, entry_of
from agent.buffer.plan import crowded
from agent.buffer.recovery import cut_short
from agent.buffer.rows import Header, Kind

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
