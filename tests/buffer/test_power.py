"""A power cut: there is what was synced, and any part of what was written since. No committed point is lost.

With synchronous=FULL the log is synced by each commit; the database file before the log begins anew.
"""

import random

import pytest

from agent.buffer.database import DATABASE
from tests.buffers import HandClock, accounted, checkpoint, drain, measure, open_at

COMMITS = 160


@pytest.fixture(scope="module")
def history(tmp_path_factory):
    """Database, log and the number of committed points after each commit; the log began anew in between."""
    folder = tmp_path_factory.mktemp("power") / "buffer"
    clock = HandClock()
    buffer = open_at(folder, clock)
    states = []
    for number in range(COMMITS):
        measure(buffer, clock, 10)
        assert buffer.commit_all()
        if number % 40 == 39:
            checkpoint(folder, "RESTART")
        files = [(folder / name).read_bytes() for name in (DATABASE, DATABASE + "-wal")]
        states.append((*files, buffer.snapshot().counters.points.measured))
    buffer.close()
    return states


def torn(rng, before, after):
    """A file of which the sectors that changed were written, or not, or hold something else."""
    result = bytearray(before.ljust(len(after), b"\0"))
    if rng.random() < 0.3:
        del result[rng.randrange(len(before), len(after) + 1) :]
    for start in range(0, len(after), 512):
        old, new = before[start : start + 512], after[start : start + 512]
        if old != new and start < len(result):
            fate = rng.choice(["old", "new", "new", "noise"])
            if fate == "new":
                result[start : start + 512] = new[: len(result) - start]
            elif fate == "noise" and not old.strip(b"\0"):
                result[start : start + 512] = rng.randbytes(len(new))[: len(result) - start]
    return bytes(result)


@pytest.mark.parametrize("seed", range(40))
def test_promise_1_a_power_cut_loses_no_committed_point(history, tmp_path, seed):
    rng = random.Random(seed)
    number = rng.randrange(COMMITS - 1) if seed % 4 else 39 + 40 * rng.randrange(3)
    (database, log, safe), (later_database, later_log, _) = history[number], history[number + 1]
    folder = tmp_path / "buffer"
    folder.mkdir()
    if later_log[:32] == log[:32]:  # the log grew; a checkpoint may have begun
        files = torn(rng, database, later_database), torn(rng, log, later_log)
    elif rng.random() < 0.2:  # the log begins anew: the database was synced before, the log's header comes next …
        files = later_database, rng.choice([log, later_log[:32] + log[32:]])
    else:  # … and is synced before the first frame
        files = later_database, later_log[:32] + torn(rng, log, later_log)[32:]
    for name, data in zip((DATABASE, DATABASE + "-wal"), files, strict=True):
        (folder / name).write_bytes(data)
    buffer = open_at(folder, HandClock(now_s=100_000))
    lines = drain(buffer)
    assert len(lines) == len(set(lines))
    assert safe <= len(lines) <= safe + 10
    accounted(buffer)
    buffer.close()
