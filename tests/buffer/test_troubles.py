"""What the committer does when something is in its way: damaged rows among good ones, no room, a disk that fails."""

import contextlib
import errno
import fcntl
import sqlite3

import pytest

from agent.buffer import commit, recovery, retention
from agent.buffer import folder as folders
from agent.buffer.batch import DeadLetter
from agent.buffer.buffer import open_buffer
from agent.buffer.database import DATABASE
from agent.buffer.disk_error import DiskError
from agent.buffer.folder import AlreadyRunning
from agent.buffer.offline import OfflineBuffer
from agent.buffer.recovery import LEDGER
from agent.buffer.rows import Kind, pack
from agent.buffer.store import RowDisk, Store
from agent.clock.timeline import Stretch
from agent.config.settings import BufferSettings
from agent.util.errors import AgentError
from tests.buffers import (
    BOOT,
    OTHER_BOOT,
    UNIX_NS,
    HandClock,
    accounted,
    drain,
    measure,
    open_at,
    salvaged,
    store,
    store_of,
    write_rows,
)


def change(buffer, statement, *values):
    """As damage does, or another process: what the agent knows of it is what it finds."""
    with contextlib.closing(sqlite3.connect(buffer.folder / DATABASE, isolation_level=None)) as beside:
        beside.execute(statement, values)


def test_a_damaged_row_among_many_that_are_merged_costs_itself_alone(buffer, clock):
    write_rows(buffer, clock, 36)
    change(buffer, "UPDATE Cache SET value = x'00' WHERE key = 20")
    write_rows(buffer, clock, 2)
    status = buffer.snapshot()
    assert status.counters.points.dropped == {"damaged": 2}
    assert len(drain(buffer)) == 37 * 2
    assert (buffer.folder / folders.DAMAGED / "row-20").read_bytes() == b"\0"
    accounted(buffer)


def test_where_rows_that_are_merged_stand_under_each_others_keys_the_database_is_replaced(buffer, clock, monkeypatch):
    write_rows(buffer, clock, 36)
    read = store_of(buffer).read
    monkeypatch.setattr(store_of(buffer), "read", lambda key: read({7: 8, 8: 7}.get(key, key)))
    measure(buffer, clock, 1)
    assert not buffer.commit_all()
    assert "was found as row" in buffer.snapshot().problem
    assert buffer.commit_all()
    assert buffer.snapshot().damaged_sets == 1
    assert len(drain(buffer)) == 36 * 2 + 1
    accounted(buffer)


def test_a_backlog_of_nothing_but_a_damaged_row_gives_nothing_and_wakes_who_sets_it_aside(buffer, clock):
    write_rows(buffer, clock, 1)
    change(buffer, "UPDATE Cache SET value = x'00'  WHERE key = 1")
    buffer.wake.clear()
    assert buffer.take_backlog(10) is None
    assert buffer.wake.is_set()
    assert buffer.commit_due(clock.boot_ns())
    assert buffer.commit()
    assert (buffer.snapshot().pending, buffer.snapshot().counters.points.dropped) == (0, {"damaged": 2})


def test_what_is_dated_in_one_go_has_an_end_and_the_rest_its_turn_after_the_next_commit(tmp_path, monkeypatch):
    clock = HandClock(offset_ns=None)
    buffer = open_at(tmp_path / "b", clock)
    for boot in (BOOT, OTHER_BOOT):
        clock.boot_id = boot
        write_rows(buffer, clock, 1)
    monkeypatch.setattr(commit, "DATING_S", -1.0)
    for boot in (BOOT, OTHER_BOOT):
        buffer.date_boot(boot, UNIX_NS, estimated=False)
    for left in (2, 0):
        assert buffer.commit_due(clock.boot_ns())
        assert buffer.commit()
        assert buffer.snapshot().undated == left
    assert not buffer.commit_due(clock.boot_ns())
    buffer.close()


def limited(monkeypatch, size, reserve=2_000_000):
    monkeypatch.setattr(retention, "budget", lambda _: size)
    monkeypatch.setattr(retention, "RESERVE_BYTES", reserve)


@pytest.mark.parametrize("policy", ["thin", "drop_oldest"])
def test_what_is_given_out_makes_no_room_whatever_is_too_much(tmp_path, clock, monkeypatch, policy):
    buffer = open_at(tmp_path / "b", clock, when_full=policy)
    write_rows(buffer, clock, 3, 50)
    batch = buffer.take_backlog(5000)
    assert batch.count == 150
    limited(monkeypatch, 0, reserve=0)
    measure(buffer, clock, 1)
    assert buffer.commit_all()
    assert buffer.snapshot().counters.points.dropped == {"max_size": 1}, "what nobody has"
    buffer.delivered(batch)
    assert buffer.snapshot().counters.points.delivered == 150
    accounted(buffer)
    buffer.close()


@pytest.mark.parametrize(("reserve", "before"), [(2_000_000, False), (4000, True)])
def test_an_excess_beyond_the_reserve_goes_before_the_newest_points_are_written(
    tmp_path, clock, monkeypatch, reserve, before
):
    buffer = open_at(tmp_path / "b", clock, when_full="drop_oldest")
    write_rows(buffer, clock, 30, 50)
    used = buffer.snapshot().disk_bytes
    limited(monkeypatch, used - 6000, reserve)
    order = []
    put, delete = store_of(buffer).put, store_of(buffer).delete
    monkeypatch.setattr(store_of(buffer), "put", lambda key, *row: (order.append(key), put(key, *row)))
    monkeypatch.setattr(store_of(buffer), "delete", lambda key: (order.append("gone"), delete(key)))
    measure(buffer, clock, 1)
    assert buffer.commit_all()
    assert "gone" in order
    assert (order.index("gone") < next(at for at, key in enumerate(order) if type(key) is int)) is before
    assert buffer.snapshot().disk_bytes <= used - 6000
    assert set(buffer.snapshot().counters.points.dropped) == {"max_size"}
    accounted(buffer)
    buffer.close()


def test_rows_that_were_imported_and_thinned_keep_their_time(tmp_path, clock, monkeypatch):
    buffer = open_at(tmp_path / "b", clock)
    measure(buffer, clock, 1)
    assert buffer.commit_all()
    for part in range(10):
        store(buffer, [line_at(300 * part + n) for n in range(300)])
    limited(monkeypatch, store_of(buffer).usage()[0] - 3000)
    measure(buffer, clock, 1)
    assert buffer.commit_all()
    lost = buffer.snapshot().counters.points.dropped["thinned"]
    assert 0 < lost < 1500
    monkeypatch.undo()
    buffer.withdraw(BOOT, [Stretch(UNIX_NS, UNIX_NS + 10**14, UNIX_NS)])
    assert sum(b"clientId=x" in text for text in drain(buffer)) == 3000 - lost
    accounted(buffer)
    buffer.close()


def line_at(number):
    class Line:
        def encode(self):
            return b"environment,clientId=x Temperature=%d %d" % (number, UNIX_NS + (2000 + number) * 10**9)

    return Line()


def test_a_disk_that_fails_while_damaged_files_are_read_is_tried_again_and_all_comes_back(tmp_path, clock, monkeypatch):
    buffer = open_at(tmp_path / "b", clock)
    write_rows(buffer, clock, 3)
    batch = buffer.take_backlog(2)
    letters = [DeadLetter(text, "parse", "no", 1) for text in batch.lines()]
    buffer.replace(batch, [], letters)
    assert buffer.commit_all()
    buffer.close()
    path = tmp_path / "b" / DATABASE
    path.write_bytes(bytes(100) + path.read_bytes()[100:])
    buffer = open_at(tmp_path / "b", clock, wait=False)
    assert buffer.open()

    def refuse(*_):
        raise DiskError("full", "no room")

    monkeypatch.setattr(store_of(buffer), "put", refuse)
    for _ in range(20):
        if not buffer.salvage():
            break
    assert buffer.snapshot().problem == "no room"
    assert not buffer.salvage(), "nothing is done while the disk refuses"
    monkeypatch.undo()
    clock.pass_s(2)
    assert buffer.commit_all()
    salvaged(buffer)
    assert (buffer.snapshot().pending, buffer.snapshot().dead_letters) == (4, 2)
    assert buffer.commit_all()
    assert buffer.snapshot().dead_letters == 2
    accounted(buffer)
    buffer.close()


def test_letters_of_damaged_files_stay_where_their_transaction_failed_and_is_there_all_the_same(tmp_path, clock):
    buffer = open_at(tmp_path / "b", clock)
    write_rows(buffer, clock, 2)
    batch = buffer.take_backlog(2)
    buffer.replace(batch, [], [DeadLetter(text, "parse", "no", 1) for text in batch.lines()])
    buffer.close()
    path = tmp_path / "b" / DATABASE
    path.write_bytes(bytes(100) + path.read_bytes()[100:])
    buffer = open_at(tmp_path / "b", clock, wait=False)
    assert buffer.open()
    while not buffer._queue.saved.recovering:
        assert buffer.salvage()
    store = store_of(buffer)
    real = store.transaction

    @contextlib.contextmanager
    def failing():
        with real():
            yield
        raise DiskError("io", "no answer")

    store.transaction = failing
    while buffer.snapshot().problem is None:
        assert buffer.salvage()
    clock.pass_s(2)
    for _ in range(2):
        assert buffer.commit_all()
        salvaged(buffer)
        measure(buffer, clock, 1)
    assert buffer.commit_all()
    accounted(buffer)
    buffer.close()
    with OfflineBuffer(tmp_path / "b") as beside:
        assert sorted(item.letter.line for item in beside.letters()) == sorted(batch.lines())
    buffer = open_at(tmp_path / "b", clock)
    assert len(drain(buffer)) == 4
    buffer.close()


def test_a_disk_that_fails_when_others_changes_are_looked_for_is_a_trouble_like_any_other(buffer, clock, monkeypatch):
    write_rows(buffer, clock, 1)

    def refuse(*_):
        raise DiskError("io", "no answer")

    monkeypatch.setattr(store_of(buffer), "version", refuse)
    assert not buffer.notice()
    assert buffer.snapshot().problem == "no answer"
    assert not buffer.notice(), "it is not open any more"
    monkeypatch.undo()
    clock.pass_s(2)
    assert buffer.commit_all()
    assert buffer.snapshot().pending == 2


def test_what_is_written_counts_once_though_others_changes_cannot_be_read_then(buffer, clock, monkeypatch):
    def add():
        with OfflineBuffer(buffer.folder) as beside:
            beside.add([pack([b"m f=1 1700000000000000000"], Kind.PENDING)])

    def fail(_):
        monkeypatch.undo()
        raise DiskError("locked", "busy")

    add()
    measure(buffer, clock, 5)
    monkeypatch.setattr(buffer._commits._transactions, "all_of_it", fail)
    assert not buffer.commit_all()
    assert (buffer.snapshot().pending, buffer.snapshot().pending_memory) == (5, 0)
    clock.pass_s(31)
    measure(buffer, clock, 1)
    assert buffer.commit_all()
    assert buffer.snapshot().pending == 7, "their row is not forgotten, though they have changed nothing since"
    assert buffer._queue.saved.fixed == ((1, 1),)
    monkeypatch.setattr(buffer._commits._transactions, "all_of_it", fail)
    add()
    measure(buffer, clock, 1)
    assert not buffer.commit_all()
    assert buffer.notice()
    status = buffer.snapshot()
    assert (status.pending, status.counters.points.measured) == (9, 9)
    assert not buffer.notice()
    accounted(buffer)


def test_where_another_process_left_no_ledger_that_can_be_read_the_agents_own_counts(buffer, clock):
    write_rows(buffer, clock, 2)
    change(buffer, "UPDATE Cache SET value = x'00' WHERE key = ?", LEDGER)
    assert buffer.notice()
    assert buffer.snapshot().counters.points.measured == 4
    write_rows(buffer, clock, 1)
    assert len(drain(buffer)) == 6
    accounted(buffer)


def test_where_another_process_left_no_ledger_that_can_be_read_its_rows_are_not_written_over(buffer, clock):
    write_rows(buffer, clock, 2)
    with OfflineBuffer(buffer.folder) as beside:
        beside.add([pack([b"m f=1 1700000000000000000"], Kind.PENDING)])
    change(buffer, "UPDATE Cache SET value = x'00' WHERE key = ?", LEDGER)
    write_rows(buffer, clock, 1)
    assert len(drain(buffer)) == 7


def test_where_a_file_system_knows_no_locks_the_agent_starts_without(tmp_path, clock, monkeypatch):
    def unknown(*_):
        raise OSError(errno.ENOTSUP, "no locks")

    folders.make(tmp_path / "b")
    monkeypatch.setattr(fcntl, "flock", unknown)
    assert folders.lock(tmp_path / "b") is None
    buffer = open_at(tmp_path / "b", clock)
    write_rows(buffer, clock, 1)
    buffer.close()
    monkeypatch.undo()
    buffer = open_at(tmp_path / "b", clock)
    with pytest.raises(AlreadyRunning):
        open_at(tmp_path / "b", clock)
    assert buffer.alive_boot_ns() == clock.boot_ns()
    buffer.close()


def test_a_path_that_would_become_another_one_is_an_error_for_whoever_configured_it(tmp_path, clock):
    with pytest.raises(AgentError, match=r"must not contain \$NAME"):
        open_buffer(tmp_path / "$HOME", BufferSettings(), clock)


@pytest.mark.parametrize(
    ("code", "ballast", "done"),
    [
        (errno.ENOSPC, True, True),
        (errno.EDQUOT, True, True),
        (errno.ENOSPC, False, False),
        (errno.EIO, True, False),
    ],
)
def test_on_a_full_disk_the_ballast_makes_room_to_set_damage_aside(tmp_path, monkeypatch, code, ballast, done):
    (tmp_path / DATABASE).write_bytes(b"x")
    (tmp_path / f"{DATABASE}-shm").write_bytes(b"x")
    if ballast:
        (tmp_path / folders.BALLAST).write_bytes(b"x")
    real, refused = folders.set_aside, []

    def once(*arguments):
        if not refused:
            refused.append(1)
            raise OSError(code, "refused")
        return real(*arguments)

    monkeypatch.setattr(folders, "set_aside", once)
    if done:
        assert sorted(path.name for path in recovery.set_aside(tmp_path, 10**6).iterdir()) == [DATABASE, folders.UNREAD]
    else:
        with pytest.raises(OSError, match="refused"):
            recovery.set_aside(tmp_path, 10**6)
    assert (tmp_path / folders.BALLAST).exists() is (ballast and not done)


def test_diskcache_itself_is_given_and_gives_nothing_but_bytes(tmp_path):
    folders.make(tmp_path / "b")
    opened = Store(tmp_path / "b")
    with opened.transaction():
        opened.put(7, b"value")
    assert list(opened._cache) == [7]
    with pytest.raises(TypeError, match="a value is bytes, not str"):
        opened._cache.set(8, "text")
    disk = RowDisk(str(tmp_path / "b"))
    for value, read in (("text", False), (b"bytes", True)):
        with pytest.raises(TypeError):
            disk.store(value, read)
    for mode, name, value, read in (
        (4, None, b"x", False),
        (1, "x", b"x", False),
        (1, None, b"x", True),
        (1, None, 5, False),
    ):
        with pytest.raises(ValueError, match="neither pickles nor files"):
            disk.fetch(mode, name, value, read)
    assert disk.fetch(1, None, b"x", False) == b"x"
    opened.close()
