"""Writes and syncs of the real disk that fail or take long, in a process of its own."""

import pytest

from agent.buffer import recovery
from agent.buffer.database import DATABASE
from agent.buffer.disk_error import DiskError
from tests.buffers import HandClock, accounted, drain, measure, open_at
from tests.disk_faults import run


@pytest.mark.parametrize("seed", range(4))
def test_each_point_arrives_once_whenever_a_write_or_a_sync_fails(tmp_path, seed):
    """Also when a commit fails after it reached the disk, and nobody can tell."""
    refused = int(run(tmp_path, "failing", seed))
    assert refused > 5


def test_promise_1_a_slow_card_holds_up_no_sensor(tmp_path):
    """However slow: 400 points are taken while one sync hangs, and are on disk in the end."""
    assert run(tmp_path, "hanging", 0).split() == ["0", "401"]


@pytest.mark.parametrize("for_good", [True, False], ids=["the sector is lost", "the card comes back"])
def test_promise_3_a_database_that_cannot_be_read_for_minutes_is_set_aside_and_the_disk_used_again(
    tmp_path, monkeypatch, for_good
):
    clock = HandClock()
    buffer = open_at(tmp_path, clock)
    measure(buffer, clock, 50)
    buffer.close()
    file, began = (tmp_path / DATABASE).stat().st_ino, clock.now_ns
    scan = recovery.scan

    def scanned(store):
        failing = for_good or clock.now_ns < began + 20 * 10**9
        path = tmp_path / DATABASE
        if failing and path.exists() and path.stat().st_ino == file:
            raise DiskError("io", "disk I/O error")
        return scan(store)

    monkeypatch.setattr(recovery, "scan", scanned)
    buffer = open_at(tmp_path, clock, wait=False)
    for _ in range(200):
        measure(buffer, clock, 1)
        buffer.commit()
    status = buffer.snapshot()
    assert status.disk_ok
    assert status.damaged_sets == for_good
    assert len(drain(buffer)) == 250
    accounted(buffer)
    buffer.close()
