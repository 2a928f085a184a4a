"""The queue is whole after whatever happens: nothing stays pinned, nothing is taken twice."""

import pytest

from agent.buffer.disk_error import DiskError
from agent.buffer.rows import Kind
from tests.buffers import HandClock, accounted, drain, measure, open_at, store_of


@pytest.fixture
def clock():
    return HandClock()


@pytest.fixture
def buffer(tmp_path, clock):
    buffer = open_at(tmp_path / "buffer", clock)
    yield buffer
    buffer.close()


def rows(buffer, clock, number, points):
    for _ in range(number):
        measure(buffer, clock, points, 0.01)
        assert buffer.commit_all()


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
        rows(buffer, clock, 4, 1100)
        rows(buffer, clock, 36, 10)
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
    rows(buffer, clock, 3, 10)
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
    rows(buffer, clock, 2, 10)
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
