"""What is read from damaged files without SQLite: which pages are frames of a log, which records are rows."""

import errno
import random
import shutil
import sqlite3
import struct

import pytest

from agent.buffer import carving, database, mapped
from agent.buffer import folder as folders
from agent.buffer.carving import Carved, Pages, cells, sound
from agent.buffer.database import DATABASE
from agent.buffer.dead_letters import BASE
from agent.buffer.rows import LAST_KEY, Kind, compress, pack, read_header
from agent.buffer.wal import HEADER, frames, transactions
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
    assert frames(bytes(HEADER) + frame(1, commits=0) + frame(2, commits=0), PAGE) == []


def log_header(magic, order, size=PAGE, salts=b"12345678"):
    """SQLite file format, 4.1: the checksum goes by the order of bytes that the magic number says."""
    head = struct.pack(">IIII", magic, 3_007_000, size, 5) + salts
    one = two = 0
    for at in range(0, 24, 8):
        one = (one + int.from_bytes(head[at : at + 4], order) + two) % 2**32
        two = (two + int.from_bytes(head[at + 4 : at + 8], order) + one) % 2**32
    return head + struct.pack(">II", one, two)


ROUNDS = frame(1, b"earlier.") + frame(2) + frame(3) + frame(4, b"earlier.")


@pytest.mark.parametrize(
    ("header", "pages"),
    [
        (log_header(0x377F0682, "little"), [2, 3]),
        (log_header(0x377F0683, "big"), [2, 3]),
        (log_header(0x377F0682, "little", salts=b"earlier."), [1, 4]),
        # Where the header is not sound, the round is the first that stands in two frames.
        (log_header(0x377F0682, "big"), [1, 4]),
        (log_header(0x377F0683, "little"), [1, 4]),
        (log_header(0x377F0680, "little"), [1, 4]),
        (log_header(0x377F0684, "little"), [1, 4]),
        (bytes(HEADER), [1, 4]),
    ],
)
def test_a_log_is_of_the_round_that_its_header_says_where_that_is_sound(header, pages):
    assert [one.page for one in frames(header + ROUNDS, PAGE)] == pages
    assert [one.page for one in frames(header[:-1] + bytes([header[-1] ^ 1]) + ROUNDS, PAGE)] == [1, 4]


def test_where_no_round_stands_in_two_frames_the_log_is_of_the_first():
    assert [one.page for one in frames(bytes(HEADER) + frame(5, b"earlier.") + frame(6), PAGE)] == [5]
    assert [one.page for one in frames(bytes(HEADER) + frame(5, b"a frame.") + frame(6) + frame(7), PAGE)] == [6, 7]


@pytest.mark.parametrize(("size", "believed"), [(512, 512), (1024, 1024), (65536, 65536), (131072, 512), (256, 512)])
def test_where_transactions_end_is_told_in_frames_of_the_size_that_the_log_says(size, believed):
    def wide(page, commits):
        return struct.pack(">II", page, commits) + b"12345678" + bytes(8 + believed)

    log = log_header(0x377F0682, "little", size) + wide(1, 0) + wide(2, 2) + wide(3, 3) + wide(4, 0)
    assert transactions(log) == [2, 3]
    assert transactions(b"") == []


KEYS = [0, 1, -1, 127, -128, 2**15, 2**23, 2**31, 2**47, 2**62, -(2**62), "ledger", "key of text", b"key of bytes"]


def table_of(folder, size, rng):
    """A database as the buffer has it, of pages of this size, with a log: all its rows, and a copy of both files."""
    made = sqlite3.connect(folder / DATABASE, isolation_level=None)
    for statement in (f"PRAGMA page_size={size}", "PRAGMA journal_mode=wal", "PRAGMA wal_autocheckpoint=0"):
        made.execute(statement).fetchall()
    for text in filter(None, database._SCHEMA.values()):
        made.execute(text)
    lengths = [0, 1, 60, 480, 490, size - 40, size - 35, size, 3 * size + 7, 12_000]
    for part in range(3):
        made.execute("BEGIN")
        for number in range(60):
            key = KEYS[number] if part == 0 and number < len(KEYS) else 1000 * part + number
            value, tag = rng.choice([rng.randbytes(rng.choice(lengths)), None]), rng.randbytes(rng.choice(lengths[:5]))
            rowid = rng.choice([None, None, -(10**6 * part + number + 1), 10**15 + 100 * part + number])
            columns = (rowid, key, rng.choice([tag, None]), value, rng.random(), number % 2)
            made.execute(
                "INSERT INTO Cache (rowid, key, raw, tag, value, store_time, size) VALUES (?,?,1,?,?,?,?)", columns
            )
        made.execute("COMMIT")
        if part == 0:
            made.execute("PRAGMA wal_checkpoint").fetchall()
        made.execute("DELETE FROM Cache WHERE rowid % 3 = ?", (part,))
    copy = folder / "copy"
    copy.mkdir()
    for name in (DATABASE, f"{DATABASE}-wal"):
        shutil.copy(folder / name, copy / name)
    rows = made.execute("SELECT key, tag, value FROM Cache").fetchall()
    made.close()
    return copy, sorted(rows, key=repr)


def read_in(folder):
    return sorted(((cell.key, cell.tag, cell.value) for cell in cells(Pages(folder)) if cell), key=repr)


@pytest.mark.parametrize("size", [512, 1024, 4096, 65536])
def test_what_is_read_from_the_pages_is_what_sqlite_reads(tmp_path, size):
    copy, rows = table_of(tmp_path, size, random.Random(size))
    assert len(rows) > 70
    assert read_in(copy) == rows
    with (copy / DATABASE).open("r+b") as file:
        file.write(bytes(100))  # where the database tells the size of its pages: so does its log
    assert Pages(copy).size == size
    assert {row[0] for row in rows} >= {cell[0] for cell in read_in(copy)}


def test_of_pages_that_hold_nothing_any_more_no_row_comes_back(tmp_path):
    """In a list of free pages that is longer than a page."""
    made = sqlite3.connect(tmp_path / DATABASE, isolation_level=None)
    made.execute("PRAGMA page_size=512")
    made.execute(database._SCHEMA["Cache"])
    made.execute("BEGIN")
    made.executemany("INSERT INTO Cache (key, raw, value) VALUES (?, 1, ?)", [(n, bytes(400)) for n in range(400)])
    made.execute("COMMIT")
    made.execute("DELETE FROM Cache WHERE key < 390")
    assert made.execute("PRAGMA freelist_count").fetchone()[0] > 300
    made.close()
    assert [key for key, _, _ in read_in(tmp_path)] == list(range(390, 400))
    assert sum(Pages(tmp_path).free()) > 300


@pytest.mark.parametrize("key", [1, 17, LAST_KEY])
def test_a_row_whose_header_is_lost_is_a_row_all_the_same(key):
    found, header, value = sound(key, None, VALUE)
    assert (found, header.count, header.kind, value) == (key, 1, Kind.PENDING, VALUE)


@pytest.mark.parametrize(
    ("key", "is_one"),
    [(1, True), (LAST_KEY, True), (LAST_KEY + 1, False), (0, False), (BASE + 1, True), (BASE, False)],
)
def test_a_row_is_known_by_the_key_in_its_header_and_not_by_the_records(key, is_one):
    header = pack([b"environment,clientId=pi-1 Temperature=20.5 %d" % UNIX_NS], Kind.PENDING).header
    found = sound(99, header.encode(VALUE, key, 5), VALUE)
    assert (found[0], found[1].generation) == ((key, 5) if is_one else (99, 0))
    assert (sound(None, header.encode(VALUE, key, 5), VALUE) is not None) is is_one


@pytest.mark.parametrize(
    ("key", "value"),
    [
        *((key, VALUE) for key in (0, -1, LAST_KEY + 1, None, "1", 1.5, b"1", True)),
        *((1, value) for value in (None, "text", 7, VALUE[:-1], b"", compress(b""), compress(b"no whole line"))),
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
