"""How the disk is doing: when it is tried again, and what is said of it."""

import logging
import os
from types import SimpleNamespace

import pytest

from agent.buffer.database import DATABASE
from agent.buffer.disk import DiskHealth
from agent.buffer.disk_error import DiskError, writable
from tests.buffers import SECOND


def test_a_disk_that_refuses_is_tried_after_twice_as_long_each_time_up_to_half_a_minute():
    health, waits = DiskHealth(), []
    for _ in range(7):
        health.refused(DiskError("full", "no room"), 5 * SECOND)
        waits.append(health.retry_ns / SECOND - 5)
    assert waits == [1, 2, 4, 8, 16, 30, 30]
    assert (health.problem, health.trouble, health.since_ns) == ("no room", "full", 5 * SECOND)
    assert health.recovered(65 * SECOND)
    assert (health.problem, health.trouble, health.since_ns, health.retry_ns) == (None, None, None, 0)
    assert not health.recovered(66 * SECOND)
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
