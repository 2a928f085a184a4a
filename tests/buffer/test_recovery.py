"""Promise 3: no state of the folder, however damaged, keeps the agent from starting, measuring and delivering."""

import contextlib
import errno
import os
import random
import shutil
import sqlite3
import struct
import threading
import time
from pathlib import Path

import pytest

from agent.buffer import database, recovery, salvage, wal
from agent.buffer import folder as folders
from agent.buffer.committer import Committer
from agent.buffer.database import DATABASE, FILES, PAGE_BYTES
from agent.buffer.dead_letters import BASE
from agent.buffer.disk_error import DiskError
from agent.buffer.offline import BufferUnavailable, OfflineBuffer
from agent.buffer.rows import LAST_KEY, Kind, Row, pack, read_header
from agent.buffer.store import Store
from agent.clock.timeline import Stretch, stamp_offset
from agent.util.loops import LoopThread
from tests.amounts import amount
from tests.buffers import (
    BOOT,
    SECOND,
    UNIX_NS,
    HandClock,
    accounted,
    checkpoint,
    cut_power,
    drain,
    line,
    measure,
    open_at,
    salvaged,
    store_of,
)
from tests.disks import of_kind, use_up

OLD = 400


@pytest.fixture(scope="module")
def used(tmp_path_factory):
    """A folder as a power cut leaves it: a database and a log that is not in it yet."""
    top = tmp_path_factory.mktemp("used")
    clock = HandClock()
    buffer = open_at(top / "live", clock)
    for number in range(40):
        measure(buffer, clock, OLD // 40)
        buffer.commit_all()
        if number == 25:
            shutil.copytree(top / "live", top / "older")
    shutil.copytree(top / "live", top / "copy")
    buffer.close()
    other = open_at(top / "other", HandClock(now_s=20_000))
    for _ in range(20):
        measure(other, other.clock, 7, device="other")
        other.commit_all()
    shutil.copytree(top / "other", top / "other-copy")
    other.close()
    return top / "copy"


@pytest.fixture
def folder(used, tmp_path):
    shutil.copytree(used, tmp_path / "buffer")
    return tmp_path / "buffer"


def works(folder):
    """Open it, measure and deliver. Returns how many of the old points came out, and the last status."""
    clock = HandClock(now_s=100_000)
    buffer = open_at(folder, clock)
    measure(buffer, clock, 5, device="new")
    assert len(drain(buffer)) >= 5
    measure(buffer, clock, 5, device="new")
    assert buffer.commit_all(), buffer.snapshot().problem
    lines = drain(buffer)
    old = sum(b"pi-1" in text for text in lines)
    assert sum(b"device=new" in text for text in lines) == 5
    assert buffer.commit_all()
    accounted(buffer)
    status = buffer.snapshot()
    assert status.pending == 0
    delivered_old = status.counters.points.delivered - 10
    buffer.close()
    again = open_at(folder, clock)
    assert again.snapshot().disk_ok
    accounted(again)
    again.close()
    assert delivered_old >= old
    return delivered_old, status


def damage(folder, rng, used):
    """One of the things that happen to files. Returns what was done."""
    older, other = used.parent / "older", used.parent / "other-copy"
    if rng.random() < 0.25:
        kind = rng.choice(["older database", "older log", "another log", "another database", "stale blocks"])
        if kind == "stale blocks":
            path = folder / rng.choice([DATABASE, DATABASE + "-wal"])
            stale = (older / path.name).read_bytes()
            with path.open("r+b") as file:
                for _ in range(rng.randrange(1, 6)):
                    start = rng.randrange(min(len(stale), path.stat().st_size) // 512) * 512
                    file.seek(start)
                    file.write(stale[start : start + 512])
        else:
            name = DATABASE if "database" in kind else DATABASE + "-wal"
            shutil.copy((older if "older" in kind else other) / name, folder / name)
        return kind
    path = folder / rng.choice([DATABASE, DATABASE, DATABASE, DATABASE + "-wal", DATABASE + "-shm"])
    size = path.stat().st_size
    kind = rng.choice(["bytes", "page", "zeroes", "cut", "gone", "folder", "noise", "longer", "empty", "head"])
    if kind == "gone":
        path.unlink()
    elif kind == "folder":
        path.unlink()
        path.mkdir()
        (path / "inside").write_text("x")
    elif kind == "noise":
        path.write_bytes(rng.randbytes(size))
    elif kind == "empty":
        path.write_bytes(b"")
    elif kind == "cut":
        os.truncate(path, rng.randrange(size))
    elif kind == "longer":
        with path.open("ab") as file:
            file.write(rng.randbytes(rng.randrange(1, 5000)))
    else:
        start = rng.randrange(size) if kind != "head" else 0
        lengths = {"bytes": rng.randrange(1, 40), "page": PAGE_BYTES, "zeroes": rng.randrange(1, 20_000), "head": 100}
        with path.open("r+b") as file:
            file.seek(start)
            length = min(lengths[kind], size - start)
            file.write(bytes(length) if kind == "zeroes" else rng.randbytes(length))
    return f"{kind} of {path.name}"


@pytest.mark.parametrize("seed", range(1000 if os.environ.get("SOAK") else amount(40, 100)))
def test_promise_3_it_starts_from_a_damaged_folder_and_delivers_new_points(folder, used, seed):
    rng = random.Random(seed)
    done = damage(folder, rng, used)
    try:
        old, _ = works(folder)
    except Exception as error:
        error.add_note(f"seed {seed}: {done}")
        raise
    assert old <= OLD


def test_an_untouched_folder_gives_every_point(folder):
    old, status = works(folder)
    assert old == OLD
    assert status.counters.points.dropped == {}
    assert status.damaged_sets == 0


@pytest.mark.parametrize("start", [0, 18, 100, 5000, 8000])
def test_a_damaged_database_under_a_sound_log_costs_nothing(folder, start):
    with (folder / DATABASE).open("r+b") as file:
        file.seek(start)
        file.write(random.Random(start).randbytes(80))
    old, _ = works(folder)
    assert old == OLD


@pytest.mark.parametrize("start", [0, 32, 60, 20_000, 60_000, 90_000])
def test_a_log_damaged_in_the_middle_is_noticed_and_costs_little(folder, start):
    """SQLite reads a log up to its first bad checksum, and says nothing."""
    with (folder / (DATABASE + "-wal")).open("r+b") as file:
        file.seek(start)
        file.write(random.Random(start).randbytes(40))
    old, status = works(folder)
    assert old >= OLD * 0.9
    assert status.damaged_sets == 1


@pytest.mark.parametrize("anew", [False, True], ids=["ends", "goes on"])
def test_a_log_that_another_command_is_done_with_meanwhile_is_no_damage(folder, monkeypatch, anew):
    """`buffer import` beside a starting agent: what it wrote is in the database, and the log is gone or begun anew."""
    beside = sqlite3.connect(folder / DATABASE, isolation_level=None)
    for number in range(20):
        beside.execute("UPDATE Settings SET value = ? WHERE key = 'hits'", (number,))
    connect = sqlite3.connect

    def late(*arguments, **more):
        if anew:
            beside.execute("PRAGMA wal_checkpoint(RESTART)")
            beside.execute("UPDATE Settings SET value = 0 WHERE key = 'hits'")
        else:
            beside.close()
        return connect(*arguments, **more)

    with monkeypatch.context() as patch:
        patch.setattr(sqlite3, "connect", late)
        assert not recovery.broken_log(folder)
    beside.close()
    old, status = works(folder)
    assert (old, status.damaged_sets) == (OLD, 0)


def test_a_log_cut_in_its_last_transaction_is_what_a_power_cut_leaves(folder):
    path = folder / (DATABASE + "-wal")
    os.truncate(path, path.stat().st_size - 500)
    old, status = works(folder)
    assert old == OLD - 10
    assert status.damaged_sets == 0


def test_of_pages_of_another_size_whose_header_is_lost_all_points_come_back(tmp_path, monkeypatch):
    """0.1.0 made pages of 1024 bytes: where the database does not say so any more, its log does."""
    monkeypatch.setattr(database, "PAGE_BYTES", 1024)
    buffer = open_at(tmp_path / "live")
    for _ in range(3):
        measure(buffer, buffer.clock, 10)
        assert buffer.commit_all()
    shutil.copytree(tmp_path / "live", tmp_path / "copy")
    buffer.close()
    monkeypatch.undo()
    log = tmp_path / "copy" / f"{DATABASE}-wal"
    content = bytearray(log.read_bytes())
    for at in range(wal.HEADER + 24, len(content), 24 + 1024):
        if content[at : at + 15] == b"SQLite format 3":
            content[at : at + 100] = bytes(100)
    log.write_bytes(content)
    (tmp_path / "copy" / DATABASE).write_bytes(bytes(1024))
    again = open_at(tmp_path / "copy")
    assert len(drain(again)) == 30
    assert again.snapshot().damaged_sets == 1
    accounted(again)
    again.close()


def test_what_comes_back_comes_in_parts_of_200_rows_or_a_megabyte(tmp_path):
    folders.make(tmp_path / "b")
    store = Store(tmp_path / "b")
    rng = random.Random(1)
    small = pack([b"environment,clientId=x Temperature=1 %d" % UNIX_NS], Kind.PENDING)
    large = Row(small.header, rng.randbytes(600_000))
    with store.transaction():
        for key, row in enumerate([small] * 401 + [large] * 3 + [small], 1):
            store.put(key, row.value, row.header.encode(row.value, key, 1))
    found = list(salvage.parts_of(store))
    assert [(part.upto, len(part.rows)) for part in found] == [(200, 200), (400, 200), (403, 3), (405, 2)]
    assert [key for part in found for key, _, _ in part.rows] == list(range(1, 406))
    assert all(part.ledger is None for part in found)
    store.close()


def test_a_damaged_page_costs_only_what_was_on_it(folder):
    with sqlite3.connect(folder / DATABASE) as connection:
        connection.execute("PRAGMA wal_checkpoint(TRUNCATE)")
        (root,) = connection.execute("SELECT rootpage FROM sqlite_master WHERE name = 'Cache_key_raw'").fetchone()
    connection.close()
    with (folder / DATABASE).open("r+b") as file:
        file.seek((root - 1) * PAGE_BYTES)
        file.write(random.Random(1).randbytes(PAGE_BYTES))
    old, status = works(folder)
    assert old == OLD, "the index is lost, the rows are not"
    assert status.damaged_sets == 1
    assert (folder / folders.DAMAGED / "1" / DATABASE).exists()


@pytest.mark.parametrize(
    ("name", "letter", "other"),
    [("Cache_key_raw", "raw)", "row)"), ("Cache", "PRIMARY", "PRJMARY"), ("Settings", "UNIQUE", "UNIQUF")],
)
def test_promise_8_a_letter_of_the_schema_that_changed_is_damage_and_no_row_goes_astray(folder, name, letter, other):
    """SQLite may take it for a schema all the same, and finds no row by its key."""
    with sqlite3.connect(folder / DATABASE) as connection:
        connection.execute("PRAGMA wal_checkpoint(TRUNCATE)")
        (text,) = connection.execute("SELECT sql FROM sqlite_master WHERE name = ?", (name,)).fetchone()
    connection.close()
    data = (folder / DATABASE).read_bytes()
    assert data.count(text.encode()) == 1
    (folder / DATABASE).write_bytes(data.replace(text.encode(), text.replace(letter, other).encode()))
    old, status = works(folder)
    assert old == OLD
    assert status.damaged_sets == 1


def test_a_flipped_bit_in_a_row_is_noticed_and_the_points_are_counted(folder):
    with sqlite3.connect(folder / DATABASE) as connection:
        key, value = connection.execute("SELECT key, value FROM Cache WHERE key > 0 AND raw = 1").fetchone()
        broken = bytearray(value)
        broken[len(broken) // 2] ^= 1
        connection.execute("UPDATE Cache SET value = ? WHERE key = ?", (bytes(broken), key))
    connection.close()
    old, status = works(folder)
    assert old + status.counters.points.dropped["damaged"] == OLD
    assert list((folder / folders.DAMAGED).glob("row-*"))


def test_a_flipped_bit_in_the_count_of_a_row_of_0_1_0_costs_that_row_alone(folder):
    """Its header has no check of its own: this one would say 2**31 + 3 points."""
    tag = struct.pack("<BBBBIIqqI", 0xB5, 1, Kind.PENDING, 0, 2**31 + 3, 0, UNIX_NS, UNIX_NS, 50) + b"1234"
    with contextlib.closing(sqlite3.connect(folder / DATABASE, isolation_level=None)) as connection:
        key, lost = connection.execute("SELECT key, tag FROM Cache WHERE key > 0 AND raw = 1").fetchone()
        connection.execute("UPDATE Cache SET tag = ?, value = x'00' WHERE key = ?", (tag, key))
    old, status = works(folder)
    damaged = status.counters.points.dropped["damaged"]
    assert (damaged, old) == (read_header(lost).count, OLD - damaged)
    assert folders.damaged_sets(folder) == []


def test_a_lost_ledger_starts_again_with_what_waits(folder):
    with sqlite3.connect(folder / DATABASE) as connection:
        connection.execute("UPDATE Cache SET value = x'00' WHERE key = 'ledger'")
    connection.close()
    old, _ = works(folder)
    assert old == OLD


def test_a_forged_settings_table_changes_nothing(folder):
    with sqlite3.connect(folder / DATABASE) as connection:
        forged = {
            "volume": 1,
            "set": "x",
            "transact": 0,
            "sqlite_synchronous": 0,
            "sqlite_journal_mode": "off",
            "sqlite_x; DROP TABLE Cache": 1,
            "disk_unknown": 1,
            "eviction_policy": "least-recently-used",
            "cull_limit": 10,
            "size_limit": 1,
        }
        for key, value in forged.items():
            connection.execute("INSERT OR REPLACE INTO Settings VALUES (?, ?)", (key, value))
        connection.execute("UPDATE Settings SET value = -7 WHERE key = 'count'")
    connection.close()
    old, _ = works(folder)
    assert old == OLD


@pytest.mark.parametrize("name", FILES)
@pytest.mark.timeout(20)
def test_a_pipe_in_the_place_of_a_file_is_set_aside_unread(folder, name):
    (folder / name).unlink(missing_ok=True)
    os.mkfifo(folder / name)
    works(folder)


def test_a_file_in_the_place_of_the_folder_is_set_aside(tmp_path):
    path = tmp_path / "buffer"
    path.write_text("not a folder")
    works(path)
    assert (tmp_path / "buffer.damaged").read_text() == "not a folder"


def test_a_database_of_another_make_is_set_aside(tmp_path):
    folder = tmp_path / "buffer"
    folder.mkdir()
    with sqlite3.connect(folder / DATABASE) as connection:
        connection.execute("CREATE TABLE cats (name)")
    connection.close()
    _, status = works(folder)
    assert status.damaged_sets == 1


def test_what_is_set_aside_is_bounded(folder):
    for _ in range(6):
        (folder / DATABASE).write_bytes(b"x" * 5000)
        open_at(folder).close()
    assert len(folders.damaged_sets(folder)) == folders.KEPT_SETS


def test_a_log_without_its_database_is_not_applied_to_a_new_one_but_read(folder):
    (folder / DATABASE).unlink()
    old, status = works(folder)
    assert old == OLD
    assert status.damaged_sets == 1


def test_a_read_only_file_of_another_owner_is_replaced(folder, monkeypatch):
    (folder / DATABASE).chmod(0o400)
    real = os.access
    monkeypatch.setattr(os, "access", lambda path, mode: real(path, mode) and (path != folder / DATABASE or mode == 0))
    old, _ = works(folder)
    assert old == OLD


def test_what_the_folder_holds_is_for_its_owner_only(folder):
    works(folder)
    assert folder.stat().st_mode & 0o777 == 0o700
    buffer = open_at(folder)
    buffer.put([line(HandClock())])
    buffer.commit_all()
    assert all((folder / name).stat().st_mode & 0o077 == 0 for name in FILES if (folder / name).exists())
    buffer.close()


def test_damage_that_is_found_while_the_agent_runs_starts_a_new_database(folder):
    clock = HandClock(now_s=100_000)
    buffer = open_at(folder, clock)
    checkpoint(buffer.folder)
    size = (folder / DATABASE).stat().st_size
    with (folder / DATABASE).open("r+b") as file:
        file.seek(PAGE_BYTES)
        file.write(random.Random(3).randbytes(size - 5 * PAGE_BYTES))
    buffer.release()  # and what it remembers of the pages
    tries = 0
    while not (measure(buffer, clock, 10, device="new"), buffer.commit_all())[1]:
        clock.pass_s(31)
        tries += 1
        assert tries < 5
    accounted(buffer)
    lines = drain(buffer)
    status = buffer.snapshot()
    assert sum(b"=new" in text for text in lines) == 10 * (tries + 1)
    assert status.counters.points.dropped.get("damaged", 0) + len(lines) == OLD + 10 * (tries + 1)
    assert buffer.commit_all()
    accounted(buffer)
    buffer.close()


def test_after_an_unclean_stop_the_pages_are_checked_in_the_background(folder, monkeypatch):
    buffer = open_at(folder, HandClock(now_s=100_000), wait=False)
    assert buffer.snapshot().problem == "not opened yet"
    measure(buffer, HandClock(), 3)
    monkeypatch.setattr(Store, "sound", lambda _: "a page is used twice")
    thread = LoopThread("committer", Committer(buffer))
    until = time.monotonic() + 10
    while not (folder / folders.DAMAGED / "1").exists() and time.monotonic() < until:
        time.sleep(0.02)
    thread.stop()
    thread.join()
    assert (folder / folders.DAMAGED / "1").exists()
    buffer.close()
    again = open_at(folder)
    assert again.snapshot().pending == OLD + 3, "every point moved to the new database"
    accounted(again)
    again.close()


def test_a_check_of_the_pages_that_begins_after_the_end_finds_nothing_and_says_nothing(folder, monkeypatch, caplog):
    class Late(threading.Thread):
        def start(self):
            buffer.close()
            super().start()
            self.join()

    buffer = open_at(folder)
    monkeypatch.setattr(threading, "Thread", Late)
    caplog.clear()
    buffer.check_in_background()
    assert caplog.messages == []
    assert buffer.snapshot().problem == "closed"


def test_after_a_clean_stop_nothing_is_checked(tmp_path, monkeypatch):
    open_at(tmp_path / "b").close()
    monkeypatch.setattr(Store, "sound", lambda _: pytest.fail("checked without need"))
    buffer = open_at(tmp_path / "b")
    buffer.check_in_background()
    assert not [t for t in threading.enumerate() if t.name == "quick-check"]
    buffer.close()


def test_quick_check_finds_a_damaged_page(folder):
    store = Store(folder)
    assert store.sound() is None
    checkpoint(folder)
    with (folder / DATABASE).open("r+b") as file:
        file.seek(2048)
        file.write(random.Random(3).randbytes(8192))
    assert store.sound() is not None
    store.close()


def test_promise_5_a_row_whose_header_is_lost_gets_no_wrong_time(tmp_path):
    """Undated lines end in the boot clock: without the header they would look like points of 1970."""
    clock = HandClock(offset_ns=None)
    buffer = open_at(tmp_path / "b", clock)
    measure(buffer, clock, 10)
    buffer.close()
    with sqlite3.connect(tmp_path / "b" / DATABASE) as connection:
        connection.execute("UPDATE Cache SET tag = x'00' WHERE key = 1")
    connection.close()
    again = open_at(tmp_path / "b", HandClock())
    assert again.commit_all()
    assert drain(again) == []
    assert again.snapshot().counters.points.dropped == {"damaged": 10}
    accounted(again)
    again.close()
    assert list((tmp_path / "b" / folders.DAMAGED).glob("row-*"))


def test_a_dated_row_whose_header_is_lost_is_kept(folder):
    with sqlite3.connect(folder / DATABASE) as connection:
        connection.execute("UPDATE Cache SET tag = NULL WHERE key = 1")
    connection.close()
    old, status = works(folder)
    assert old == OLD
    assert status.counters.points.dropped == {}


@pytest.mark.parametrize("steps", range(0, 12, amount(3, 1)))
@pytest.mark.parametrize("how", ["closed", "killed", "full", "io"])
def test_promise_8_a_salvage_that_is_interrupted_goes_on_and_each_point_comes_back_once(
    folder, tmp_path, monkeypatch, steps, how
):
    monkeypatch.setattr(salvage, "_PART_ROWS", 5)
    os.truncate(folder / DATABASE, 3000)
    clock = HandClock(now_s=50_000)
    buffer = open_at(folder, clock, wait=False)
    assert buffer.open()
    measure(buffer, clock, 3, device="early")
    for _ in range(steps):
        buffer.salvage()
    accounted(buffer)
    if how == "killed":
        shutil.copytree(folder, tmp_path / "killed")
        cut_power(buffer)
        buffer.close()
        folder = tmp_path / "killed"
    elif how == "closed":
        buffer.close()
    else:
        store = store_of(buffer)

        def refuse():
            raise DiskError(how, "in the middle")

        monkeypatch.setattr(store, "transaction", refuse)
        salvaged(buffer)
        assert len(drain(buffer)) >= 3, "delivery goes on"
        monkeypatch.undo()
        clock.pass_s(31)
        buffer.commit_all()
        buffer.close()
    clock.pass_s(1)
    again = open_at(folder, clock)
    drain(again)
    status = again.snapshot()
    early = 0 if how == "killed" else 3
    assert status.counters.points.delivered == OLD + early
    assert status.counters.points.measured == OLD + early
    assert (status.pending, dict(status.counters.points.dropped)) == (0, {})
    accounted(again)
    assert not list(folder.rglob(folders.UNREAD))
    again.close()


def test_nothing_is_imported_into_a_buffer_that_is_not_saved_to_the_end_yet(folder):
    folders.set_aside(folder, FILES, 10**9)
    with pytest.raises(BufferUnavailable, match="saved from damage"):
        OfflineBuffer(folder, create=True)
    old, status = works(folder)
    assert old == OLD
    assert status.counters.points.dropped == {}
    OfflineBuffer(folder)._store.close()


class PowerCut(BaseException):
    pass


@pytest.mark.parametrize("moved", [False, True])
def test_promise_3_a_power_cut_while_damaged_files_are_set_aside_loses_no_point(folder, monkeypatch, tmp_path, moved):
    os.truncate(folder / DATABASE, 1500)  # what is behind is in the log, but for the settings
    rename = Path.rename

    def cut(path, target):
        if moved:
            rename(path, target)
        raise PowerCut

    with monkeypatch.context() as patched:
        patched.setattr(Path, "rename", cut)
        with pytest.raises(PowerCut):
            open_at(folder)
    shutil.copytree(folder, tmp_path / "after")
    old, status = works(tmp_path / "after")
    assert old == OLD
    assert status.counters.points.dropped == {}
    assert not list((tmp_path / "after").rglob(folders.UNREAD))


def test_what_is_not_read_yet_is_kept_whatever_the_bound(folder):
    for _ in range(6):
        (folder / DATABASE).write_bytes(b"x" * 5000)
        folders.set_aside(folder, [DATABASE], 1)
    sets = folders.unread_sets(folder)
    assert len(sets) == 6
    for read in sets:
        folders.mark_read(read)
    folders.bound(folder, 10**6)
    assert folders.damaged_sets(folder) == sets[-folders.KEPT_SETS :]


def test_counters_in_memory_outlive_an_empty_folder_in_the_place_of_the_old_one(tmp_path):
    clock = HandClock()
    buffer = open_at(tmp_path / "b", clock)
    measure(buffer, clock, 10)
    buffer.delivered(buffer.take_live(100))
    buffer.commit_all()
    buffer._commits.failed(DiskError("io", "the card was pulled"))
    shutil.rmtree(tmp_path / "b")
    clock.pass_s(31)
    measure(buffer, clock, 5)
    assert buffer.commit_all()
    assert buffer.snapshot().counters.points.measured == 15
    accounted(buffer)
    buffer.close()
    again = open_at(tmp_path / "b", clock)
    assert (again.snapshot().counters.points.delivered, again.snapshot().pending) == (10, 5)
    accounted(again)
    again.close()


def hurt(folder):
    """Nothing is in the log, and the head of the database is lost."""
    with sqlite3.connect(folder / DATABASE) as connection:
        connection.execute("PRAGMA wal_checkpoint(TRUNCATE)")
    connection.close()
    with (folder / DATABASE).open("r+b") as file:
        file.write(b"\xa5" * 100)


def test_promise_8_the_counters_of_a_damaged_database_come_back(tmp_path):
    folder, clock = tmp_path / "buffer", HandClock()
    buffer = open_at(folder, clock)
    measure(buffer, clock, 300)
    drain(buffer)
    measure(buffer, clock, 100)
    buffer.close()
    hurt(folder)
    for _ in range(2):
        buffer = open_at(folder, clock)
        status = buffer.snapshot()
        assert (status.counters.points.measured, status.counters.points.delivered, status.pending) == (400, 300, 100)
        assert status.counters.points.dropped == {}
        accounted(buffer)
        clock.pass_s(1000)
        assert buffer.commit_all()
        buffer.close()


@pytest.mark.parametrize("steps", range(0, 14, amount(3, 1)))
@pytest.mark.parametrize("delivering", [False, True])
def test_promise_8_a_second_damage_while_the_first_is_read_counts_nothing_twice(
    tmp_path, monkeypatch, steps, delivering
):
    monkeypatch.setattr(salvage, "_PART_ROWS", 1)
    folder, clock = tmp_path / "buffer", HandClock()
    buffer = open_at(folder, clock)
    for _ in range(8):
        measure(buffer, clock, 50)
        buffer.commit_all()
    buffer.close()
    hurt(folder)
    buffer = open_at(folder, clock, wait=False)
    assert buffer.open()
    for _ in range(steps):
        buffer.salvage()
    while delivering and (batch := buffer.take_backlog(5000)) is not None:
        buffer.delivered(batch)
    clock.pass_s(2)
    assert buffer.commit_all()
    shutil.copytree(folder, tmp_path / "killed")
    cut_power(buffer)
    hurt(tmp_path / "killed")
    again = open_at(tmp_path / "killed", clock)
    drain(again)
    status = again.snapshot()
    assert status.counters.points.measured == status.counters.points.delivered == 400
    assert status.counters.points.dropped == {}
    accounted(again)
    again.close()


@pytest.mark.parametrize("bytes_lost", [32, 512, 4096, 16_384])
@pytest.mark.parametrize("fill", [b"\0", b"\xff", None], ids=["zeros", "ones", "noise"])
def test_promise_3_a_log_whose_beginning_is_lost_gives_all_that_is_behind(folder, bytes_lost, fill):
    """An erased block of a card: SQLite takes such a log for an empty one, and says nothing."""
    with (folder / (DATABASE + "-wal")).open("r+b") as file:
        file.write(random.Random(bytes_lost).randbytes(bytes_lost) if fill is None else fill * bytes_lost)
    old, status = works(folder)
    assert old >= OLD * 0.9
    assert status.damaged_sets == 1


def test_a_log_that_was_only_begun_anew_is_no_damage(folder):
    """A power cut after the header of a new round was synced: what is behind it is of the round before."""
    path = folder / (DATABASE + "-wal")
    beside, old = sqlite3.connect(folder / DATABASE, isolation_level=None), path.read_bytes()
    beside.execute("PRAGMA wal_checkpoint(RESTART)")
    database = (folder / DATABASE).read_bytes()
    beside.execute("INSERT INTO Settings VALUES ('new', 1)")
    new = path.read_bytes()
    beside.close()
    (folder / DATABASE).write_bytes(database)
    path.write_bytes(new[:32] + old[32:])
    assert new[16:24] != old[16:24]
    count, status = works(folder)
    assert (count, status.damaged_sets) == (OLD, 0)


def test_what_the_card_does_not_give_of_a_damaged_file_costs_only_that(folder, monkeypatch):
    """A sector that cannot be read is an error of that read, and no signal."""
    hurt(folder)
    pread = os.pread

    def failing(number, length, offset):
        if offset <= 4096 < offset + length or 4096 <= offset < 4608:
            raise OSError(errno.EIO, "sector")
        return pread(number, length, offset)

    monkeypatch.setattr(os, "pread", failing)
    assert works(folder)[0] >= OLD * 0.5


@pytest.mark.parametrize("linked", [True, False])
def test_promise_3_a_power_cut_before_a_damaged_log_is_set_aside_loses_nothing_of_it(
    folder, tmp_path, monkeypatch, linked
):
    """Closing the database that SQLite read it into deletes the log."""
    with (folder / (DATABASE + "-wal")).open("r+b") as file:
        file.seek(20_000)
        file.write(bytes(40))

    def refuse(*arguments, **more):
        raise PermissionError

    with monkeypatch.context() as patch:
        patch.setattr(folders, "set_aside", cut)
        if not linked:
            patch.setattr(os, "link", refuse)
        with pytest.raises(PowerCut):
            open_at(folder)
    assert not (folder / (DATABASE + "-wal")).exists()
    shutil.copytree(folder, tmp_path / "after")
    with pytest.raises(BufferUnavailable, match="saved from damage"):
        OfflineBuffer(tmp_path / "after")
    old, status = works(tmp_path / "after")
    assert old >= OLD * 0.9
    assert status.damaged_sets == 1
    assert not (tmp_path / "after" / recovery.LOST_LOG).exists()


def cut(*arguments, **more):
    raise PowerCut


def test_promise_8_halves_of_a_damaged_set_count_once(tmp_path, monkeypatch):
    """A power cut between the database and its log, each with a ledger."""
    clock = HandClock()
    buffer = open_at(tmp_path / "live", clock)
    measure(buffer, clock, 200)
    buffer.close()
    buffer = open_at(tmp_path / "live", clock)
    for _ in range(20):
        measure(buffer, clock, 10)
        buffer.commit_all()
    folder = tmp_path / "buffer"
    shutil.copytree(tmp_path / "live", folder)
    buffer.close()
    for name, count in ((DATABASE, 100), (DATABASE + "-wal", 4)):
        with (folder / name).open("r+b") as file:
            file.write(b"\xa5" * count)
    rename = Path.rename

    def once(path, target):
        rename(path, target)
        raise PowerCut

    with monkeypatch.context() as patched:
        patched.setattr(Path, "rename", once)
        with pytest.raises(PowerCut):
            open_at(folder)
    shutil.copytree(folder, tmp_path / "after")
    again = open_at(tmp_path / "after", clock)
    drain(again)
    status = again.snapshot()
    assert (status.counters.points.measured, status.counters.points.delivered, status.counters.points.dropped) == (
        400,
        400,
        {},
    )
    again.close()


@pytest.mark.parametrize("names", [["-wal"], ["-shm"], ["-wal", "-shm"]], ids=" and ".join)
def test_promise_1_a_log_that_is_deleted_under_the_agent_takes_no_point_with_it(tmp_path, names):
    folder, clock = tmp_path / "buffer", HandClock()
    buffer = open_at(folder, clock)
    measure(buffer, clock, 20)
    assert buffer.commit_all()
    for name in names:
        (folder / (DATABASE + name)).unlink()
    measure(buffer, clock, 20)
    buffer.commit_all()
    assert buffer.commit_all()
    salvaged(buffer)
    accounted(buffer)
    shutil.copytree(folder, tmp_path / "killed")
    buffer.close()
    again = open_at(tmp_path / "killed", clock)
    assert len(drain(again)) == 40
    again.close()


def test_promise_1_a_log_that_is_deleted_just_before_a_stop_takes_no_point_with_it(tmp_path):
    folder, clock = tmp_path / "buffer", HandClock()
    buffer = open_at(folder, clock)
    measure(buffer, clock, 20)
    assert buffer.commit_all()
    (folder / f"{DATABASE}-wal").unlink()
    measure(buffer, clock, 3)
    buffer.close()
    clock.pass_s(5)
    again = open_at(folder, clock)
    assert (again.snapshot().pending, again.snapshot().counters.uncounted_s) == (23, 0)
    accounted(again)
    again.close()


@pytest.mark.parametrize("restart", [False, True])
@pytest.mark.parametrize("late", [False, True], ids=["withdrawn before", "withdrawn after"])
def test_promise_5_what_was_dated_wrongly_waits_for_its_time_also_where_it_comes_back_from_damage(
    tmp_path, restart, late
):
    wrong_ns = stamp_offset(UNIX_NS + 40 * 86_400 * SECOND, 0)
    folder, clock = tmp_path / "buffer", HandClock(offset_ns=wrong_ns)
    buffer = open_at(folder, clock)
    measure(buffer, clock, 100)
    assert buffer.commit_all()
    wrong = [Stretch(wrong_ns, wrong_ns + clock.boot_ns() + SECOND, wrong_ns)]
    clock.offset_ns = None
    if not late:
        assert buffer.withdraw(BOOT, wrong).waiting == 100
        measure(buffer, clock, 1)
        assert buffer.commit_all()
    if restart:
        buffer.close()
        hurt(folder)
        buffer = open_at(folder, clock, wait=False)
        assert buffer.open()
    else:
        buffer._report(DiskError("damaged", "said the pages"))
        buffer.commit_all()
        assert buffer.commit_all()
    if late:
        buffer.withdraw(BOOT, wrong)
    assert drain(buffer) == []
    clock.offset_ns = UNIX_NS
    buffer.date_boot(BOOT, UNIX_NS, estimated=False)
    for _ in range(3):
        assert buffer.commit_all()
    stamps = [int(text.rpartition(b" ")[2]) for text in drain(buffer)]
    assert len(stamps) == 100 + (not late)
    assert max(stamps) < UNIX_NS + 86_400 * SECOND
    accounted(buffer)
    buffer.close()


@pytest.mark.root
def test_what_is_damaged_is_set_aside_on_a_full_disk_too(tmp_path):
    with of_kind("ext4-1k", tmp_path / "disk") as disk:
        clock = HandClock()
        buffer = open_at(disk / "buffer", clock)
        measure(buffer, clock, 500)
        buffer.close()
        hurt(disk / "buffer")
        use_up("ext4-1k", disk)
        buffer = open_at(disk / "buffer", clock)
        measure(buffer, clock, 10)
        assert buffer.commit_all(), buffer.snapshot().problem
        assert buffer.snapshot().pending_disk == 510
        accounted(buffer)
        buffer.close()


def test_a_damaged_database_that_nobody_may_read_can_be_read_once_it_is_set_aside(folder):
    hurt(folder)
    (folder / DATABASE).chmod(0)
    home = folders.set_aside(folder, FILES, 10**9)
    assert (home / DATABASE).stat().st_mode & 0o777 == 0o600


def test_a_database_that_is_begun_after_damage_gives_out_keys_above_all_of_the_old_one(folder):
    (folder / DATABASE).write_bytes(b"no database" * 1000)
    (folder / f"{DATABASE}-wal").unlink()
    buffer = open_at(folder, wait=False)
    assert buffer.open()
    measure(buffer, buffer.clock, 1)
    assert buffer.commit_all()
    with OfflineBuffer(folder, write=False) as beside:
        assert [header.key for header in beside.headers()] == [2**32 + 1]
    buffer.close()


def test_a_store_whose_ledger_cannot_be_read_is_not_delivered_from_without_writing(folder):
    checkpoint(folder)
    opened = recovery.open_reader(folder)
    assert sum(index.points for index, _, _ in opened.rows.waiting()) == OLD
    assert opened.bad == set()
    opened.store.close()
    with contextlib.closing(sqlite3.connect(folder / DATABASE, isolation_level=None)) as beside:
        beside.execute("UPDATE Cache SET value = x'00' WHERE key = ?", (recovery.LEDGER,))
    assert recovery.open_reader(folder) is None


def test_a_key_that_was_never_given_out_is_a_damaged_row(tmp_path):
    folders.make(tmp_path / "b")
    store = Store(tmp_path / "b")
    row = pack([b"environment,clientId=x Temperature=1 %d" % UNIX_NS], Kind.PENDING)
    keys = [1, LAST_KEY, LAST_KEY + 1, BASE + 1, BASE + LAST_KEY, BASE + LAST_KEY + 1]
    with store.transaction():
        for key in keys:
            store.put(key, row.value, row.header.encode(row.value, key, 1))
        store.put(7, b"x", b"no header")
    rows, bad = recovery.scan(store)
    assert bad == {7, LAST_KEY + 1, BASE + LAST_KEY + 1}
    assert all(key in rows for key in keys if key not in bad)
    store.close()


@pytest.mark.parametrize("links", [True, False])
def test_a_log_that_was_saved_before_a_stop_is_read_where_it_was(folder, monkeypatch, links):
    """Between a second name for the log and its end in the database the power may go, also where there are no links."""
    path, lost = folder / f"{DATABASE}-wal", folder / wal.LOST_LOG

    def refuse(*_, **__):
        raise OSError(errno.EPERM, "no links here")

    if not links:
        monkeypatch.setattr(os, "link", refuse)
    content = path.read_bytes()
    assert not recovery.broken_log(folder)
    assert lost.read_bytes() == content
    recovery.forget_log(folder)
    assert not lost.exists()
    path.unlink(missing_ok=True)
    lost.write_bytes(content)
    (folder / DATABASE).write_bytes(b"")
    assert recovery.broken_log(folder), "SQLite would delete the log of an empty database"
    assert lost.read_bytes() == content


def test_without_a_log_or_with_its_header_alone_none_is_broken(folder):
    path, lost = folder / f"{DATABASE}-wal", folder / wal.LOST_LOG
    checkpoint(folder)
    for content in (None, b"", bytes(wal.HEADER)):
        path.unlink(missing_ok=True)
        lost.write_bytes(b"x")
        if content is not None:
            path.write_bytes(content)
        else:
            lost.unlink()
        assert not recovery.broken_log(folder)
        assert not lost.exists()
