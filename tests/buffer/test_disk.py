"""How the disk is doing: when it is tried again, and what is said of it."""

import logging
import os
from types import SimpleNamespace

import pytest

from agent.buffer import folder as folders
from agent.buffer.database import DATABASE
from agent.buffer.disk import Disk, DiskHealth
from agent.buffer.disk_error import DiskError, writable
from agent.buffer.ledger import Saved
from tests.buffers import SECOND, HandClock


def test_a_disk_that_refuses_is_tried_after_twice_as_long_each_time_up_to_half_a_minute():
    health, waits = DiskHealth(), []
    for _ in range(7):
        health.refused(DiskError("full", "no room"), 5 * SECOND)
        waits.append(health.retry_ns / SECOND - 5)
    assert waits == [1, 2, 4, 8, 16, 30, 30]
    assert (health.problem, health.trouble, health.since_ns) == ("no room", "full", 5 * SECOND)
    health.recovered(65 * SECOND)
    assert (health.problem, health.trouble, health.since_ns, health.retry_ns) == (None, None, None, 0)
    health.refused(DiskError("io", "no answer"), 70 * SECOND)
    assert (health.since_ns, health.retry_ns) == (70 * SECOND, 71 * SECOND)


def test_a_disk_that_refuses_is_told_of_when_it_begins_changes_and_ends(caplog):
    health = DiskHealth()
    for at, error in enumerate((DiskError("full", "no room"), DiskError("full", "no room"), DiskError("io", "ill"))):
        health.refused(error, (10 + at) * SECOND)
    health.recovered(73 * SECOND)
    assert [(record.levelno, record.getMessage()) for record in caplog.records] == [
        (logging.ERROR, "buffer: the disk refuses (no room): points wait in memory, delivery goes on"),
        (logging.ERROR, "buffer: the disk refuses (ill): points wait in memory, delivery goes on"),
        (logging.WARNING, "buffer: the disk is used again, after 63 s"),
    ]
    assert health.since_ns is None


@pytest.mark.parametrize(
    ("refused", "read_only", "is_so"),
    [(None, False, True), (None, True, False), ("", False, False), (DATABASE, False, False), ("other", False, True)],
)
def test_a_folder_can_be_written_where_it_its_files_and_its_file_system_can(
    tmp_path, monkeypatch, refused, read_only, is_so
):
    (tmp_path / DATABASE).write_bytes(b"")
    (tmp_path / "other").write_bytes(b"")
    monkeypatch.setattr(os, "access", lambda path, mode: refused is None or path != tmp_path / refused)
    monkeypatch.setattr(os, "statvfs", lambda _: SimpleNamespace(f_flag=os.ST_NOSUID | read_only * os.ST_RDONLY))
    assert writable(tmp_path) is is_so


def test_a_folder_that_is_not_there_cannot_be_written(tmp_path):
    assert not writable(tmp_path / "nothing")


@pytest.fixture
def disk(tmp_path):
    clock = HandClock()
    made = Disk(tmp_path / "buffer", folders.Hold(tmp_path / "buffer"), clock.boot_ns)
    made.clock = clock
    yield made
    made.close()


def sets(disk):
    return [home.name for home in folders.damaged_sets(disk.folder)]


def fails(disk, times, trouble="io"):
    """Whether its files were set aside each time, with what stands there now."""
    found = []
    for _ in range(times):
        (disk.folder / DATABASE).write_bytes(b"x" * 512)
        before = len(sets(disk))
        disk.failed(DiskError(trouble, "ill"), 10**6)
        found.append(len(sets(disk)) > before)
        assert (disk.health.retry_ns == 0) is found[-1], "a new one is begun at once"
    return found


def test_files_that_cannot_be_read_are_set_aside_after_eight_tries_and_then_after_twice_as_many(disk):
    folders.make(disk.folder)
    assert fails(disk, 8) == [False] * 7 + [True]
    assert fails(disk, 16) == [False] * 15 + [True]
    disk.recovered()
    assert fails(disk, 5) == [False] * 5
    assert fails(disk, 1, "full") == [False]
    assert fails(disk, 8) == [False] * 7 + [True], "they are counted one after the other"


@pytest.mark.parametrize(
    ("trouble", "is_kept", "set_aside"),
    [
        ("full", True, False),
        ("locked", True, False),
        ("readonly", True, False),
        ("io", False, False),
        ("damaged", False, True),
        ("unlinked", False, True),
    ],
)
def test_what_becomes_of_an_open_database_by_what_is_wrong(disk, trouble, is_kept, set_aside):
    with pytest.raises(DiskError, match="not opened yet"):
        assert disk.store
    opened = disk.open(10**6, Saved())
    assert disk.writable
    assert disk.store is opened.store
    assert (disk.folder / folders.BALLAST).exists()
    disk.failed(DiskError(trouble, "ill"), 10**6)
    assert (disk.writable, bool(sets(disk))) == (is_kept, set_aside)
    assert (disk.orphan is opened.store) is (trouble == "unlinked")
    if trouble == "unlinked":
        assert folders.unread_sets(disk.folder) == [], "the open connection has all of it"
    elif set_aside:
        assert len(folders.unread_sets(disk.folder)) == 1
    if not is_kept:
        with pytest.raises(DiskError, match="ill"):
            assert disk.store
    disk.forget_orphan()
    disk.forget_orphan()
    assert disk.orphan is None
    disk.open(10**6, Saved())
    assert disk.health.damaged_sets == len(sets(disk))
    disk.measure()
    assert 0 < disk.health.used_bytes <= disk.health.file_bytes
    disk.close()
    assert not disk.writable


def test_what_takes_minutes_is_a_sign_of_life_while_it_does(disk):
    assert disk.alive_boot_ns() == 0
    with disk.taking_time():
        disk.clock.pass_s(50)
        assert disk.alive_boot_ns() == disk.clock.boot_ns()
    done = disk.clock.boot_ns()
    disk.clock.pass_s(50)
    assert disk.alive_boot_ns() == done
