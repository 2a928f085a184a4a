"""What is read from damaged files without SQLite: which pages are frames of a log, which records are rows."""

import errno
import shutil
import struct

import pytest

from agent.buffer import carving, mapped
from agent.buffer import folder as folders
from agent.buffer.carving import Carved, Pages, cells, sound
from agent.buffer.database import DATABASE
from agent.buffer.rows import LAST_KEY, Kind, pack, read_header
from agent.buffer.wal import HEADER, frames
from tests.buffers import UNIX_NS, HandClock, measure, open_at

PAGE = 512
VALUE = pack([b"environment,clientId=pi-1 Temperature=20.5 %d" % UNIX_NS], Kind.PENDING).value


def frame(page, salts=b"12345678", commits=1):
    return struct.pack(">II", page, commits) + salts + bytes(8 + PAGE)


@pytest.mark.parametrize(
    ("page", "is_one"), [(0, False), (1, True), (2**31, True), (2**32 - 2, True), (2**32 - 1, False)]
)
def test_an_erased_block_of_a_card_is_no_page_of_the_log(page, is_one):
    found = frames(bytes(HEADER) + frame(7) + frame(page) + frame(9), PAGE)
    assert [one.page for one in found] == [7, *([page] if is_one else []), 9]


def test_a_log_ends_at_its_last_whole_transaction_and_has_nothing_of_an_earlier_round():
    log = bytes(HEADER) + frame(1, commits=0) + frame(2) + frame(3, b"earlier.") + frame(4) + frame(5, commits=0)
    assert [(one.page, one.commits) for one in frames(log, PAGE)] == [(1, False), (2, True), (4, True)]
    assert [one.offset for one in frames(log, PAGE)] == [HEADER + 24 + n * (24 + PAGE) for n in (0, 1, 3)]
    assert frames(log[:-1], PAGE) == frames(log, PAGE)
    assert frames(bytes(HEADER), PAGE) == []


@pytest.mark.parametrize("key", [1, 17, LAST_KEY])
def test_a_row_whose_header_is_lost_is_a_row_all_the_same(key):
    found, header, value = sound(key, None, VALUE)
    assert (found, header.count, header.kind, value) == (key, 1, Kind.PENDING, VALUE)


@pytest.mark.parametrize(
    ("key", "value"),
    [
        *((key, VALUE) for key in (0, -1, LAST_KEY + 1, None, "1", 1.5, b"1", True)),
        *((1, value) for value in (None, "text", 7, VALUE[:-1])),
    ],
)
def test_what_cannot_be_a_row_is_none(key, value):
    assert sound(key, None, value) is None


def test_promise_8_points_of_rows_that_were_merged_since_are_taken_once(tmp_path, monkeypatch):
    """Of damaged files both the small rows and the one that they became can be found."""
    clock = HandClock()
    buffer = open_at(tmp_path / "live", clock)
    merges = 0
    for number in range(60):
        measure(buffer, clock, 2)
        assert buffer.commit_all()
        if number == 20:
            shutil.copytree(tmp_path / "live", tmp_path / "before")
    shutil.copytree(tmp_path / "live", tmp_path / "after")
    buffer.close()
    before = [cell for cell in cells(Pages(tmp_path / "before")) if cell]
    after = [cell for cell in cells(Pages(tmp_path / "after")) if cell]
    headers = {}
    for cell in (*before, *after):
        if isinstance(cell.key, int):
            header = read_header(cell.tag)
            headers[header.key, header.generation] = header
            merges += bool(header.replaced)
    assert merges
    for order in ([*before, *after], [*after, *before]):
        monkeypatch.setattr(carving, "cells", lambda _, order=order: iter([None, *order]))
        carved = Carved(tmp_path / "after", "no ledger")
        assert list(carved.fill()) == [None]
        taken = [headers[place.key, place.generation] for place in carved.places]
        assert sum(header.count for header in taken) == 120
        assert [place.key for place in carved.places] == sorted({place.key for place in carved.places})
    assert sum(header.count for header in headers.values()) > 120


@pytest.fixture
def full_disk(tmp_path, monkeypatch):
    """A folder with a database and the ballast, on a disk that is full as long as the ballast is there."""
    (tmp_path / DATABASE).write_bytes(b"")
    ballast = tmp_path / folders.BALLAST
    ballast.write_bytes(b"x")
    make = mapped._make

    def made(path, like):
        if ballast.exists():
            raise OSError(errno.ENOSPC, "no space left")
        return make(path, like)

    monkeypatch.setattr(mapped, "_make", made)
    return tmp_path


def test_on_a_full_disk_whoever_only_reads_leaves_the_ballast_to_the_agent(full_disk):
    index = mapped.MappedIndex(full_disk / DATABASE)
    with pytest.raises(OSError, match="the disk is full: no room for the index of the log"):
        index.reserve()
    assert (full_disk / folders.BALLAST).exists()


def test_on_a_full_disk_the_ballast_makes_room_for_the_index(full_disk):
    index = mapped.MappedIndex(full_disk / DATABASE)
    index.reserve(give_up_ballast=True)
    assert not (full_disk / folders.BALLAST).exists()
    assert (full_disk / f"{DATABASE}-shm").stat().st_size >= 32_768
    index.let_go()
    index.let_go()
