"""Writes and syncs of the real disk that fail or take long, in a process of its own."""

import pytest

from tests.disk_faults import run


@pytest.mark.parametrize("seed", range(4))
def test_each_point_arrives_once_whenever_a_write_or_a_sync_fails(tmp_path, seed):
    """Also when a commit fails after it reached the disk, and nobody can tell."""
    refused = int(run(tmp_path, "failing", seed))
    assert refused > 5


def test_promise_1_a_slow_card_holds_up_no_sensor(tmp_path):
    """Each sync takes 300 ms. The machine's own scheduling may delay a few points; a sync would delay dozens."""
    _, fourth, pending = map(float, run(tmp_path, "slow", 0).split())
    assert fourth < 20
    assert pending == 400
