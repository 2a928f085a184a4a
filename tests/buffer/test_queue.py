"""The queue is whole after whatever happens: nothing stays pinned, nothing is taken twice."""

import pytest

from agent.buffer.batch import DeadLetter, Part
from agent.buffer.disk_error import DiskError
from agent.buffer.rows import Kind
from agent.points.schema import Line
from tests.buffers import (
    BOOT,
    OTHER_BOOT,
    UNIX_NS,
    HandClock,
    accounted,
    drain,
    line,
    measure,
    open_at,
    store_of,
    write_rows,
)


def failing_read(buffer, monkeypatch, number):
    """The disk refuses the read of this number, counted from now, once."""
    store, reads = store_of(buffer), []
    real = store.read

    def read(key):
        reads.append(key)
        if len(reads) == number:
            raise DiskError("io", "a bad sector")
        return real(key)

    monkeypatch.setattr(store, "read", read)
    return reads


@pytest.mark.parametrize("number", [1, 20, 37, 40])
def test_promise_2_a_read_error_in_any_of_several_runs_that_are_merged_leaves_nothing_pinned(
    buffer, clock, monkeypatch, number
):
    """Rows of the first run stayed pinned until a restart once, and their points waited, when the second failed."""
    with monkeypatch.context() as patch:
        patch.setattr(type(buffer._queue), "mergeable", lambda _: [])
        write_rows(buffer, clock, 4, 1100)
        write_rows(buffer, clock, 36, 10)
    assert len([len(run) for run in buffer._queue.mergeable()]) == 2
    reads = failing_read(buffer, monkeypatch, number)
    measure(buffer, clock, 1)
    assert not buffer.commit_all()
    assert len(reads) >= number
    monkeypatch.undo()
    clock.pass_s(2)
    assert buffer.commit_all()
    assert len(drain(buffer)) == 4 * 1100 + 360 + 1
    accounted(buffer)


@pytest.mark.parametrize("error", [DiskError("io", "a bad sector"), MemoryError(), KeyboardInterrupt()])
def test_an_error_while_a_batch_is_read_leaves_its_rows_free(buffer, clock, monkeypatch, error):
    write_rows(buffer, clock, 3, 10)
    store = store_of(buffer)

    def read(_):
        raise error

    monkeypatch.setattr(store, "read", read)
    if isinstance(error, DiskError):
        assert buffer.take_backlog(5000) is None
    else:
        with pytest.raises(type(error)):
            buffer.take_backlog(5000)
    monkeypatch.undo()
    assert len(drain(buffer)) == 30


@pytest.mark.parametrize("on_disk", [False, True])
def test_where_there_is_no_memory_for_a_batch_its_points_can_be_taken_later(buffer, clock, monkeypatch, on_disk):
    measure(buffer, clock, 5)
    if on_disk:
        assert buffer.commit_all()

    def none_left(*_, **__):
        raise MemoryError

    monkeypatch.setattr("agent.buffer.buffer.Batch" if on_disk else "agent.buffer.buffer.compress", none_left)
    with pytest.raises(MemoryError):
        buffer.take_backlog(10) if on_disk else buffer.take_live(10)
    monkeypatch.undo()
    assert len(drain(buffer)) == 5


def test_a_row_is_held_by_one_at_a_time_and_free_after(buffer, clock):
    write_rows(buffer, clock, 2, 10)
    queue = buffer._queue
    with queue.hold_next((Kind.PENDING,), 10) as (_, keys), queue.hold(keys) as twice:
        assert len(keys) == 1
        assert not twice
        assert not queue.drop_rows(keys, "max_size")
        with queue.hold_next((Kind.PENDING,), 10) as (_, others):
            assert others
            assert not set(others) & set(keys)
    with queue.hold(keys) as again:
        assert again
    assert buffer.take_backlog(5000).count == 20


def test_a_plan_that_is_not_written_leaves_the_points_as_they_were(buffer, clock):
    measure(buffer, clock, 5)

    def interrupted():
        with buffer._queue.writing(everything=True) as plan:
            assert [group.kind for group in plan.groups] == [Kind.PENDING]
            assert buffer.take_live(10) is None, "what is being written is not given out too"
            raise RuntimeError("whatever")

    with pytest.raises(RuntimeError):
        interrupted()
    assert buffer.take_live(10).count == 5


def test_a_boot_is_given_up_in_memory_and_on_disk_and_no_other_is(tmp_path):
    clock = HandClock(offset_ns=None)
    buffer = open_at(tmp_path / "b", clock)
    write_rows(buffer, clock, 2, 3)
    clock.boot_id = OTHER_BOOT
    write_rows(buffer, clock, 1, 5)
    measure(buffer, clock, 1)
    clock.boot_id = BOOT
    measure(buffer, clock, 4)
    buffer.wake.clear()
    buffer.discard_boot(BOOT, "undated")
    assert buffer.wake.is_set()
    status = buffer.snapshot()
    assert (status.undated, status.counters.points.dropped) == (6, {"undated": 10})
    assert [boot.boot_id for boot in buffer.undated()] == [OTHER_BOOT]
    buffer.wake.clear()
    buffer.discard_boot(BOOT, "undated")
    assert not buffer.wake.is_set()
    accounted(buffer)
    buffer.close()


def test_of_dead_letters_the_last_row_stays_however_large_it_is(tmp_path, clock):
    buffer = open_at(tmp_path / "b", clock, max_rejected=1)
    for number in range(3):
        measure(buffer, clock, 2)
        batch = buffer.take_live(5)
        buffer.replace(batch, [], [DeadLetter(line, "parse", "no", number) for line in batch.lines()])
        assert buffer.commit_all()
        assert buffer.snapshot().dead_letters == 2
    assert buffer.snapshot().counters.points.rejected == 6
    accounted(buffer)
    buffer.close()


def test_rows_whose_stamps_stay_are_not_merged_with_others(buffer, clock):
    write_rows(buffer, clock, 1, 10)
    batch = buffer.take_backlog(10)
    buffer.keep(batch, sent=True)
    write_rows(buffer, clock, 40, 10)
    assert buffer.take_backlog(10).lines() == batch.lines()


def test_a_refused_batch_is_replaced_by_all_of_its_points_or_not_at_all(buffer, clock):
    measure(buffer, clock, 4)
    batch = buffer.take_live(5)
    lines = batch.lines()
    letters = [DeadLetter(lines[3], "parse", "no", 1)]
    for parts, delivered in (([], 2), ([], 4), ([Part(tuple(lines[:2]), "pending")], 0)):
        with pytest.raises(ValueError, match="a batch of 4 points cannot be replaced by"):
            buffer.replace(batch, parts, letters, delivered)
    buffer.replace(batch, [Part((lines[0],), "suspect"), Part((), "parked"), Part((lines[1],), "parked")], letters, 1)
    status = buffer.snapshot()
    assert (status.pending, status.dead_letters, status.counters.points.delivered) == (2, 1, 1)
    buffer.replace(batch, [], letters, 3)
    assert buffer.snapshot() == status, "once"
    suspect, parked = buffer.take_backlog(5), buffer.take_parked()
    assert (suspect.lines(), suspect.suspect, suspect.parked) == ([lines[0]], True, False)
    assert (parked.lines(), parked.suspect, parked.parked) == ([lines[1]], False, True)
    buffer.keep(suspect)
    buffer.keep(parked)
    assert buffer.commit_all()
    status = buffer.snapshot()
    assert (status.suspect, status.parked, status.rows, status.pending_memory) == (1, 1, 2, 0)
    suspect, parked = buffer.take_backlog(5), buffer.take_parked()
    assert (suspect.suspect, suspect.parked, parked.suspect, parked.parked) == (True, False, False, True)
    accounted(buffer)


def test_the_agents_own_points_are_counted_apart_whatever_becomes_of_them(buffer, clock):
    def own(count):
        buffer.put([line(clock, float(n), measurement="agent") for n in range(count)])
        measure(buffer, clock, 1)

    own(2)
    batch = buffer.take_live(5)
    assert (batch.count, batch.health) == (3, 2)
    buffer.delivered(batch)
    own(3)
    batch = buffer.take_live(5)
    lines = batch.lines()
    buffer.replace(batch, [Part((lines[0],), "parked")], [DeadLetter(lines[1], "parse", "no", 1)], 2)
    own(1)
    assert buffer.commit_all()
    batch = buffer.take_backlog(5)
    assert (batch.count, batch.health) == (2, 1)
    buffer.delivered(batch)
    counted = buffer.snapshot().counters
    assert (counted.health.measured, counted.health.delivered, counted.health.rejected) == (6, 4, 1)
    assert (counted.points.measured, counted.points.delivered, counted.points.rejected) == (3, 3, 0)
    accounted(buffer)


def test_what_was_dated_is_remembered_for_a_boot_until_all_of_its_points_have_their_time(tmp_path):
    clock = HandClock(offset_ns=None, boot_id=OTHER_BOOT)
    buffer = open_at(tmp_path / "b", clock)
    write_rows(buffer, clock, 2, 3)
    buffer.close()
    clock = HandClock(now_s=5)
    buffer = open_at(tmp_path / "b", clock)
    buffer.date_boot(OTHER_BOOT, UNIX_NS, estimated=True)
    assert buffer.commit_due(clock.boot_ns())
    assert buffer.undated() == []
    assert buffer.commit()
    lines = drain(buffer)
    assert len(lines) == 6
    assert all(b",clock=estimated" in text for text in lines)
    assert buffer.commit_all()
    assert buffer._queue.saved.dating == {}
    buffer.close()


def test_a_point_that_comes_with_its_time_keeps_it_to_the_millisecond(buffer):
    buffer.put([Line(b"m a=1", 5, UNIX_NS + 7_000_000), Line(b"n a=1", 5, UNIX_NS + 9_100_000)])
    assert buffer.take_live(5).lines() == [b"m a=1 %d" % (UNIX_NS + 7_000_000), b"n a=1 %d" % (UNIX_NS + 9_000_000)]
