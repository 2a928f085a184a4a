"""The index of SQLite's log: whole before anybody maps it, and one descriptor of it for all who do."""

import contextlib
import errno
import fcntl
import os
import struct
import subprocess
import sys
from pathlib import Path

import pytest

from agent.buffer import folder as folders
from agent.buffer import mapped
from agent.buffer.database import DATABASE
from agent.buffer.mapped import RESERVED_BYTES, MappedIndex, reserved

ASK = """
import fcntl, os, struct, sys
number = os.open(sys.argv[1], os.O_RDWR)
answer = fcntl.fcntl(number, fcntl.F_GETLK, struct.pack("hhqqi4x", fcntl.F_WRLCK, os.SEEK_SET, 128, 1, 0))
print(struct.unpack("hhqqi4x", answer)[0] == fcntl.F_UNLCK)
"""


@pytest.fixture
def database(tmp_path):
    path = tmp_path / DATABASE
    path.write_bytes(b"")
    path.chmod(0o640)
    return path


@pytest.fixture
def index(database):
    return database.with_name(f"{DATABASE}-shm")


def descriptors(path):
    """How many this process has of a file."""
    count = 0
    for own in Path("/proc/self/fd").iterdir():
        with contextlib.suppress(OSError):
            count += own.samefile(path)
    return count


def is_free(path):
    """Whether another process could have it for itself, and so truncate it."""
    return (
        subprocess.run([sys.executable, "-c", ASK, str(path)], capture_output=True, text=True, check=True).stdout
        == "True\n"
    )


@pytest.mark.parametrize(
    ("block", "size"), [(1024, RESERVED_BYTES), (2048, RESERVED_BYTES), (4096, 32_768), (8192, 32_768)]
)
def test_on_small_blocks_more_of_it_is_reserved(database, index, monkeypatch, block, size):
    class Disk:
        f_bsize, f_frsize = 65536, block

    monkeypatch.setattr(os, "statvfs", lambda _: Disk)
    with reserved(database):
        assert index.stat().st_size == size
        assert index.stat().st_blocks * 512 >= size
        assert oct(index.stat().st_mode & 0o777) == "0o640"


def test_what_a_dead_process_left_in_it_is_forgotten_and_what_others_use_is_not_touched(database, index):
    index.write_bytes(b"x" * 40_000)
    with reserved(database):
        content = index.read_bytes()
        assert content == bytes(136) + b"x" * (40_000 - 136)
        number = os.open(index, os.O_RDWR)
        os.pwrite(number, b"used", 0)
        with reserved(database):
            assert index.read_bytes()[:4] == b"used"
        os.close(number)


def test_a_process_that_uses_it_keeps_all_others_from_truncating_it_until_it_is_done(database, index):
    before = dict(mapped._open)
    one, other = MappedIndex(database), MappedIndex(database)
    one.reserve()
    one.reserve()
    other.reserve()
    assert descriptors(index) == 1
    assert not is_free(index)
    one.let_go()
    one.let_go()
    assert descriptors(index) == 1
    assert not is_free(index)
    other.let_go()
    assert descriptors(index) == 0
    assert mapped._open == before
    assert is_free(index)


def test_one_that_was_deleted_is_made_anew_and_the_old_one_let_go(database, index):
    one = MappedIndex(database)
    one.reserve()
    kept = index.with_name("kept")
    os.link(index, kept)
    index.unlink()
    one.reserve()
    assert index.stat().st_size == 32_768
    assert (descriptors(kept), descriptors(index)) == (0, 1)
    one.let_go()


def full(code):
    def allocate(*_):
        raise OSError(code, "refused")

    return allocate


@pytest.mark.parametrize("code", [errno.ENOSPC, errno.EDQUOT])
def test_on_a_full_disk_it_says_so_and_holds_nothing(database, index, monkeypatch, code):
    monkeypatch.setattr(os, "posix_fallocate", full(code))
    for ballast in (False, True):
        if ballast:
            (database.parent / folders.BALLAST).write_bytes(b"x")
        with pytest.raises(OSError, match="the disk is full: no room for the index of the log"), reserved(database):
            pass
        assert descriptors(index) == 0
    assert not (database.parent / folders.BALLAST).exists()


def test_what_else_is_wrong_with_it_is_left_to_sqlite(database, index, monkeypatch):
    monkeypatch.setattr(os, "posix_fallocate", full(errno.EOPNOTSUPP))
    with reserved(database):
        assert descriptors(index) == 0
    index.unlink()
    index.symlink_to(database)
    monkeypatch.undo()
    with reserved(database):
        assert database.read_bytes() == b"", "no link is followed"


def test_where_there_are_no_such_locks_sqlite_decides(database, index, monkeypatch):
    monkeypatch.delattr(fcntl, "F_OFD_SETLK")
    with reserved(database):
        assert index.stat().st_size == 0
    assert struct.calcsize("hhqqi4x") == 32
