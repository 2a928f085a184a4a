"""The traps of diskcache 5.6.3 and SQLite, each by its name, and that the buffer does not step into it."""

import itertools
import os
import pickle
import sqlite3
import struct
import threading
import zlib
from pathlib import Path

import diskcache
import pytest
from hypothesis import given
from hypothesis import strategies as st

from agent.buffer import database
from agent.buffer import folder as folders
from agent.buffer.database import DATABASE, PAGE_BYTES
from agent.buffer.disk_error import DiskError, disk_error
from agent.buffer.rows import (
    DamagedRow,
    Kind,
    MisplacedRow,
    check,
    compress,
    joined,
    lines_of,
    pack,
    read_header,
    unpack,
)
from agent.buffer.store import RowDisk, Store
from tests.buffers import BOOT, HandClock, checkpoint, measure, open_at, store_of


@pytest.fixture
def folder(tmp_path):
    folders.make(tmp_path / "buffer")
    return tmp_path / "buffer"


@pytest.fixture
def store(folder):
    store = Store(folder)
    yield store
    store.close()


def query(folder, text, *arguments):
    with sqlite3.connect(folder / DATABASE) as connection:
        rows = connection.execute(text, arguments).fetchall()
    connection.close()
    return rows


class Evil:
    """Unpickling it leaves a mark."""

    def __reduce__(self):
        return os.mkdir, ("/nonexistent/pickle-was-loaded",)


@pytest.mark.parametrize("value", ["text", 1, 1.5, None, bytearray(b"x"), Evil(), [b"x"]])
def test_trap_anything_but_bytes_would_be_pickled(store, value):
    with pytest.raises(TypeError), store.transaction():
        store.put(1, value)


@pytest.mark.parametrize("key", [Evil(), (1, 2), None, True, 2**70])
def test_trap_a_key_of_another_type_would_be_pickled(folder, key):
    with pytest.raises((TypeError, ValueError)):
        RowDisk(str(folder)).put(key)


def test_trap_a_stored_pickle_would_be_loaded(store, folder):
    with store.transaction():
        store.put("x", b"fine")
    query(folder, "UPDATE Cache SET mode = 4, value = ? WHERE key = 'x'", pickle.dumps(Evil()))
    with pytest.raises(DiskError, match="neither pickles nor files"), store.transaction():
        store.get("x")
    with pytest.raises(ValueError, match="pickled key"):
        RowDisk(str(folder)).get(pickle.dumps(Evil()), 0)


def test_trap_a_file_name_column_reads_and_deletes_files_elsewhere(store, folder, tmp_path):
    secret = tmp_path / "secret"
    secret.write_text("token")
    with store.transaction():
        row = pack([b"m a=1 1"], Kind.PENDING)
        store.put(1, row.value, row.header.encode(row.value, 1, 1))
    query(folder, "UPDATE Cache SET mode = 2, filename = '../secret', value = NULL WHERE key = 1")
    assert store.read(1)[1] is None
    with pytest.raises(DiskError), store.transaction():
        store.get(1)
    with store.transaction():
        store.delete(1)
    assert secret.read_text() == "token"


def test_trap_the_page_size_comes_too_late_once_there_is_a_table(store, folder):
    assert query(folder, "PRAGMA page_size") == [(PAGE_BYTES,)]
    assert query(folder, "PRAGMA auto_vacuum") == [(0,)]
    assert query(folder, "PRAGMA journal_mode") == [("wal",)]


def test_trap_the_default_synchronous_loses_commits(store, folder):
    assert store._cache._sql("PRAGMA synchronous").fetchall() == [(2,)]
    seen = []

    def other():
        with store.transaction():
            seen.append(store._cache._sql("PRAGMA synchronous").fetchall())
        store.release()

    query(folder, "UPDATE Settings SET value = 0 WHERE key = 'sqlite_synchronous'")  # what another process may do
    thread = threading.Thread(target=other)
    thread.start()
    thread.join()
    assert seen == [[(2,)]]


def test_trap_defaults_evict_cull_count_and_map(store):
    cache = store._cache
    assert (cache.eviction_policy, cache.cull_limit, cache.statistics, cache.tag_index) == ("none", 0, 0, 0)
    pragmas = {name: store._cache._sql(f"PRAGMA {name}").fetchone()[0] for name in ("mmap_size", "cache_size")}
    assert pragmas == {"mmap_size": 0, "cache_size": -2000}


def test_trap_stored_settings_win_over_the_defaults(folder):
    Store(folder).close()
    query(folder, "UPDATE Settings SET value = 'least-recently-used' WHERE key = 'eviction_policy'")
    query(folder, "INSERT INTO Settings VALUES ('volume', 1)")
    store = Store(folder)
    assert store._cache.eviction_policy == "none"
    assert callable(store._cache.volume)
    store.close()


def test_trap_triggers_and_an_index_that_nobody_asks_write_two_pages_a_commit(folder):
    """Also in a database of 0.1.0, which has them."""
    diskcache.Cache(str(folder), eviction_policy="none").close()
    query(folder, "INSERT INTO Cache (key, raw, value) VALUES (1, 1, x'00')")
    assert len(query(folder, "SELECT name FROM sqlite_master WHERE type = 'trigger'")) == 5
    for again in range(2):  # diskcache makes what is not there at each opening
        store = Store(folder)
        names = {name for (name,) in query(folder, "SELECT name FROM sqlite_master")}
        assert names == {"Settings", "sqlite_autoindex_Settings_1", "Cache", "Cache_key_raw"}
        log = folder / f"{DATABASE}-wal"
        query(folder, "PRAGMA wal_checkpoint(TRUNCATE)")
        with store.transaction():
            store.put(2 + again, b"x")
        size = query(folder, "PRAGMA page_size")[0][0]
        assert log.stat().st_size == 32 + 2 * (24 + size)  # the row, and its key
        assert [found.key for found in store.scan()] == list(range(1, 3 + again))
        store.close()


def test_two_that_begin_a_database_at_once_begin_the_same(folder, monkeypatch):
    create = database._create

    def both(connection):
        with sqlite3.connect(folder / DATABASE) as other:
            create(other)
        other.close()
        create(connection)

    monkeypatch.setattr(database, "_create", both)
    store = Store(folder)
    with store.transaction():
        store.put(1, b"x")
    assert query(folder, "PRAGMA page_size") == [(PAGE_BYTES,)]
    assert dict(query(folder, "SELECT name, sql FROM sqlite_master")) == database._SCHEMA
    store.close()


def test_trap_a_failed_commit_leaves_the_connection_in_a_transaction(store):
    real = store._cache._sql

    class Failing(diskcache.Cache):
        fails = True

        @property
        def _sql(self):
            def run(text, *arguments):
                if text == "COMMIT" and self.fails:
                    raise sqlite3.OperationalError("disk I/O error")
                return super(Failing, self)._sql(text, *arguments)

            return run

    assert real
    store._cache.__class__ = Failing
    with pytest.raises(DiskError, match="disk I/O error"), store.transaction():
        store.put(1, b"x")
    store._cache.fails = False
    with store.transaction():
        store.put(2, b"y")
    assert [found.key for found in store.scan()] == [2]


def test_trap_a_locked_database_is_an_error_after_a_while_and_not_waited_for_for_ever(store, folder, monkeypatch):
    monkeypatch.setattr(store._cache, "_timeout", 0.1)
    store.release()
    other = sqlite3.connect(folder / DATABASE, isolation_level=None)
    other.execute("BEGIN IMMEDIATE")
    with pytest.raises(DiskError) as caught, store.transaction():
        store.put(1, b"x")
    assert caught.value.trouble == "locked"
    other.execute("ROLLBACK")
    other.close()


def test_trap_a_deleted_database_takes_rows_and_loses_them(store, folder):
    (folder / DATABASE).unlink()
    with pytest.raises(DiskError) as caught, store.transaction():
        store.put(1, b"x")
    assert caught.value.trouble == "unlinked"


def test_trap_dollar_and_tilde_in_the_path_are_expanded(tmp_path, monkeypatch):
    monkeypatch.setenv("ELSEWHERE", "/nonexistent")
    with pytest.raises(ValueError, match=r"must not contain \$NAME"):
        folders.make(tmp_path / "$ELSEWHERE")
    folders.make(tmp_path / "a ~b $0 %41?#")
    Store(tmp_path / "a ~b $0 %41?#").close()


def test_trap_an_open_cursor_keeps_the_log_from_being_reused(folder):
    clock = HandClock()
    buffer = open_at(folder, clock)
    scan = store_of(buffer).scan()
    for _ in range(600):
        measure(buffer, clock, 3)
        buffer.commit_all()
        next(scan, None)
    assert (folder / (DATABASE + "-wal")).stat().st_size < 3 * 2**20
    buffer.close()


def test_trap_a_large_transaction_makes_a_large_log(folder):
    clock = HandClock(offset_ns=None)
    buffer = open_at(folder, clock)
    for _ in range(40):
        measure(buffer, clock, 1000, step_s=0.01)
        buffer.commit_all()
    buffer.date_boot(clock.boot_id, 10**18, estimated=False)
    buffer.commit()
    assert buffer.snapshot().undated == 0
    assert (folder / (DATABASE + "-wal")).stat().st_size < 3 * 2**20
    buffer.close()


def test_trap_connections_are_per_thread_and_stay_open(folder):
    buffer = open_at(folder)

    def work():
        buffer.commit_all()
        buffer.release()

    thread = threading.Thread(target=work)
    thread.start()
    thread.join()
    buffer.close()
    left = [path.readlink() for path in Path("/proc/self/fd").iterdir() if path.is_symlink()]
    assert [path for path in left if path.is_relative_to(folder)] == []


def test_the_folder_and_its_parent_are_synced_when_they_are_made(tmp_path, monkeypatch):
    synced = []
    monkeypatch.setattr(folders, "sync_folder", synced.append)
    folders.make(tmp_path / "new")
    assert synced == [tmp_path / "new", tmp_path]


def sqlite_error(code, text="any words", kind=sqlite3.OperationalError):
    error = kind(text)
    error.sqlite_errorcode = code
    return error


@pytest.mark.parametrize(
    ("error", "trouble"),
    [
        (sqlite_error(sqlite3.SQLITE_FULL), "full"),
        (OSError(28, "No space left on device"), "full"),
        (OSError(122, "Disk quota exceeded"), "full"),
        (sqlite_error(sqlite3.SQLITE_READONLY), "readonly"),
        (OSError(30, "Read-only file system"), "readonly"),
        (PermissionError(13, "Permission denied"), "readonly"),
        (sqlite_error(sqlite3.SQLITE_BUSY), "locked"),
        (sqlite_error(sqlite3.SQLITE_BUSY_SNAPSHOT), "locked"),
        (sqlite_error(sqlite3.SQLITE_IOERR), "io"),
        (sqlite_error(sqlite3.SQLITE_IOERR_FSYNC), "io"),
        (sqlite_error(sqlite3.SQLITE_IOERR_SHORT_READ), "damaged"),
        (OSError(5, "Input/output error"), "io"),
        (sqlite3.ProgrammingError("Cannot operate on a closed database."), "io"),
        (sqlite_error(sqlite3.SQLITE_CORRUPT, kind=sqlite3.DatabaseError), "damaged"),
        (sqlite_error(sqlite3.SQLITE_NOTADB, "the disk is full", sqlite3.DatabaseError), "damaged"),
        (sqlite_error(sqlite3.SQLITE_ERROR, 'unrecognized token: "@"'), "damaged"),
        (sqlite3.OperationalError("Could not decode to UTF-8 column 'name'"), "damaged"),
        (AttributeError("anything a forged file makes diskcache do"), "damaged"),
    ],
)
def test_promise_3_what_is_not_proven_to_be_the_disk_s_fault_is_damage(error, trouble):
    assert disk_error(error).trouble == trouble


@pytest.mark.parametrize("code", [sqlite3.SQLITE_READONLY, sqlite3.SQLITE_READONLY_DBMOVED])
@pytest.mark.usefixtures("store")
def test_promise_3_a_file_that_says_read_only_where_the_system_lets_us_write_is_damaged(folder, code):
    assert disk_error(sqlite_error(code), folder).trouble == "damaged"
    assert disk_error(sqlite_error(code), folder / "not there").trouble == "readonly"


def test_a_hidden_cause_counts():
    def hidden():
        try:
            raise sqlite_error(sqlite3.SQLITE_FULL)
        except sqlite3.Error:
            raise diskcache.Timeout from None

    with pytest.raises(diskcache.Timeout) as caught:
        hidden()
    assert disk_error(caught.value).trouble == "full"


def test_a_row_is_checked_before_it_is_used():
    row = pack([b"m a=1 5", b"agent b=2 3"], Kind.PENDING)
    tag = row.header.encode(row.value, 17, 4)
    header, lines = unpack(tag, row.value, 17)
    assert read_header(tag) == header
    assert (header.count, header.health, header.first_ns, header.last_ns) == (2, 1, 3, 5)
    assert (header.key, header.generation) == (17, 4)
    assert lines == [b"m a=1 5", b"agent b=2 3"]
    assert lines_of(row.value + row.value) == [b"m a=1 5", b"agent b=2 3"] * 2
    with pytest.raises(MisplacedRow, match="row 17 was found as row 18"):
        check(tag, row.value, 18)
    for position in range(len(row.value)):
        broken = bytearray(row.value)
        broken[position] ^= 4
        with pytest.raises(DamagedRow):
            check(tag, bytes(broken), 17)
    for position in range(len(tag)):
        broken = bytearray(tag)
        broken[position] ^= 4
        with pytest.raises(DamagedRow):
            check(bytes(broken), row.value, 17)
    for found, value in [(None, row.value), ("text", row.value), (tag, None), (tag[:-1], row.value)]:
        with pytest.raises(DamagedRow):
            check(found, value, 17)


def test_promise_8_one_flipped_bit_of_a_header_is_seen_without_its_value():
    """The index, and with it what is said to wait, is made of headers alone."""
    row = pack([b"m a=1 5"] * 7, Kind.UNDATED, boot=BOOT, replaced=((19, 30), (40, 41)))
    tag = row.header.encode(row.value, 17, 4)
    assert read_header(tag).replaced == ((19, 30), (40, 41))
    for bit in range(8, 8 * len(tag)):
        broken = bytearray(tag)
        broken[bit // 8] ^= 1 << bit % 8
        with pytest.raises(DamagedRow):
            read_header(bytes(broken))


@given(st.lists(st.tuples(st.integers(1, 2**40), st.integers(0, 2**20)), max_size=20))
def test_what_a_row_replaced_is_kept_as_it_was(spans):
    ranges = joined((100 + first, 100 + first + length) for first, length in spans)
    row = pack([b"m a=1 5"], Kind.PENDING, replaced=ranges)
    assert read_header(row.header.encode(row.value, 100, 1)).replaced == ranges
    assert all(first <= last for first, last in ranges)
    assert all(before[1] + 1 < after[0] for before, after in itertools.pairwise(ranges))


def test_a_row_of_0_1_0_is_read_as_it_was():
    value = compress(b"m a=1 5\n")
    fixed = struct.pack("<BBBBIIqqI", 0xB5, 1, 1, 0, 1, 0, 5, 5, 8)
    tag = fixed + struct.pack("<I", zlib.crc32(value, zlib.crc32(fixed)))
    assert unpack(tag, value, 3)[1] == [b"m a=1 5"]
    with pytest.raises(DamagedRow):
        unpack(tag, value[:-1], 3)


def test_where_the_logs_index_cannot_be_made_a_read_only_disk_is_read_without_its_log(tmp_path, monkeypatch):
    clock = HandClock()
    buffer = open_at(tmp_path / "b", clock)
    for count in (3, 4):
        measure(buffer, clock, count)
        assert buffer.commit_all()
        if count == 3:
            checkpoint(tmp_path / "b", "PASSIVE")
            in_file = (tmp_path / "b" / DATABASE).read_bytes()
    log = (tmp_path / "b" / f"{DATABASE}-wal").read_bytes()
    buffer.close()
    folder = tmp_path / "copy"
    folder.mkdir()
    (folder / DATABASE).write_bytes(in_file)
    (folder / f"{DATABASE}-wal").write_bytes(log)
    connect = sqlite3.connect

    def refused(name, **options):
        if "mode=ro" in name:
            raise sqlite3.OperationalError("unable to open database file")  # as on a read-only disk
        return connect(name, **options)

    monkeypatch.setattr(sqlite3, "connect", refused)
    with pytest.raises(DiskError):  # where it could be written the file alone may be half of a checkpoint
        list(Store(folder, read_only=True).scan())
    monkeypatch.setattr("agent.buffer.store.writable", lambda _: False)
    store = Store(folder, read_only=True)
    rows = [row for row in store.scan() if isinstance(row.key, int)]
    assert sum(read_header(row.tag).count for row in rows) == 3
    store.close()


def filled(store, count):
    with store.transaction():
        for key in range(1, count + 1):
            store.put(key, b"x" * (key % 7), b"tag")
        store.put("ledger", b"a name is no row")


@pytest.mark.parametrize("count", [0, 3, 499, 500, 501, 1000, 1001])
def test_a_scan_finds_each_row_once_however_many_there_are(store, count):
    filled(store, count)
    assert list(store.scan()) == [(key, b"tag", key % 7) for key in range(1, count + 1)]
    assert [row.key for row in store.scan(after=1, before=4)] == [key for key in (2, 3) if key <= count]


def test_a_row_without_a_value_has_no_size(store, folder):
    filled(store, 1)
    query(folder, "UPDATE Cache SET value = NULL WHERE key = 1")
    assert list(store.scan()) == [(1, b"tag", 0)]
    assert store.find(1) == (b"tag", None)


def test_what_is_read_is_what_was_stored_last_and_what_is_not_there_is_damage(store, folder):
    filled(store, 2)
    with store.transaction():
        store.put(1, b"new", b"other")
        store.delete(2)
        assert (store.get(1), store.get(2), store.get("ledger")) == (b"new", None, b"a name is no row")
        assert store.find(1) == (b"tag", b"x"), "as last committed"
    assert store.find(1) == store.read(1) == (b"other", b"new")
    assert store.read_named("ledger") == b"a name is no row"
    assert (store.find(2), store.read_named("nothing")) == (None, None)
    with pytest.raises(DiskError, match="row 2 is not found any more") as caught:
        store.read(2)
    assert caught.value.trouble == "damaged"
    query(folder, "UPDATE Cache SET mode = 4 WHERE key = 1")
    assert store.find(1) == (b"other", None)
    query(folder, "UPDATE Cache SET raw = 0 WHERE key = 1")
    assert store.find(1) is None
    with store.transaction(), pytest.raises(TypeError):
        store.put(1, "text")


def test_a_transaction_that_fails_changes_nothing_and_the_next_is_a_new_one(store):
    filled(store, 1)

    def interrupted(error):
        with store.transaction():
            store.put(1, b"new", b"other")
            raise error("whatever")

    for error in (ValueError, KeyboardInterrupt, sqlite3.OperationalError):
        with pytest.raises(DiskError if error is sqlite3.OperationalError else error):
            interrupted(error)
        assert store.find(1) == (b"tag", b"x")
    filled(store, 2)
    assert store.find(2) == (b"tag", b"xx")


def test_how_much_is_in_use_and_how_large_the_file_is(store, folder):
    with store.transaction():
        for key in range(1, 60):
            store.put(key, b"x" * 5000, b"tag")
    used, size = store.usage()
    checkpoint(folder)
    assert used == size == (folder / DATABASE).stat().st_size > 59 * 5000
    with store.transaction():
        for key in range(1, 60):
            store.delete(key)
    less, same = store.usage()
    assert (less < 10_000, same) == (True, size)


def test_a_change_by_another_is_seen_by_its_version(store, folder):
    before = store.version()
    assert store.version() == before
    query(folder, "DELETE FROM Cache")
    query(folder, "CREATE TABLE other (a)")
    assert store.version() != before


def test_a_store_that_is_closed_or_only_read_refuses(store, folder):
    filled(store, 1)
    reader = Store(folder, read_only=True)
    assert reader.find(1) == (b"tag", b"x")
    with pytest.raises(DiskError) as caught, reader.transaction():
        pass
    assert caught.value.trouble == "readonly"
    reader.close()
    reader.close()
    with pytest.raises(DiskError, match="is closed") as caught:
        reader.find(1)
    assert caught.value.trouble == "io"


def test_a_check_of_the_pages_ends_in_time_and_says_what_it_finds(store, folder, monkeypatch):
    filled(store, 1000)
    assert store.sound() is None
    assert store.sound(1000.0) is None
    assert store.sound(-1.0) is None, "what was seen until then was well"
    with store.transaction():
        for key in range(1, 1000, 2):
            store.put(key, b"x" * 900, b"tag")
    assert store.sound(-1.0) is None
    query(folder, "PRAGMA wal_checkpoint(TRUNCATE)")
    with (folder / DATABASE).open("r+b") as file:
        file.seek(PAGE_BYTES * 40)
        file.write(bytes([255]) * PAGE_BYTES * 20)
    assert store.sound()


def test_whoever_reads_without_a_change_leaves_no_file_behind(store, folder):
    filled(store, 1)
    checkpoint(folder)
    store.close()
    before = sorted(path.name for path in folder.iterdir())
    reader = Store(folder, immutable=True)
    assert reader.read_only
    assert reader.find(1) == (b"tag", b"x")
    reader.close()
    assert sorted(path.name for path in folder.iterdir()) == before


def test_only_the_agents_own_opening_moves_the_log_into_the_database(folder):
    first = Store(folder)
    filled(first, 1)
    assert b"a name is no row" not in (folder / DATABASE).read_bytes()
    Store(folder, owner=False).close()
    assert b"a name is no row" not in (folder / DATABASE).read_bytes()
    Store(folder).close()
    assert b"a name is no row" in (folder / DATABASE).read_bytes()
    first.close()


def test_a_database_is_for_its_owner_only_and_no_link(tmp_path):
    folders.make(tmp_path / "a")
    Store(tmp_path / "a").close()
    assert oct((tmp_path / "a" / DATABASE).stat().st_mode & 0o777) == "0o600"
    folders.make(tmp_path / "b")
    (tmp_path / "b" / DATABASE).symlink_to(tmp_path / "elsewhere")
    with pytest.raises(DiskError):
        Store(tmp_path / "b")
    assert not (tmp_path / "elsewhere").exists()
