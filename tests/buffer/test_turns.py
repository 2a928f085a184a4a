"""Long work on the disk takes turns with the loss window."""

import pytest

from agent.buffer.commit import Commits
from tests.buffers import BOOT, SECOND, UNIX_NS, HandClock, accounted, line, measure, open_at

WINDOW_S = 10


@pytest.fixture
def slow_card(monkeypatch):
    """A transaction takes a second, in which a point is measured; says how old the oldest point got in memory."""
    waits = []

    def use(buffer, clock):
        commit = Commits._transaction

        def slowly(self, *arguments, **named):
            buffer.put([line(clock, device="live")])
            clock.pass_s(1)
            oldest = min(block.deadline_ns for block in buffer._queue._tail.blocks.values()) / SECOND - WINDOW_S
            waits.append(clock.now_ns / SECOND - oldest)
            commit(self, *arguments, **named)
            self._disk.health.commit_s = 1.0

        monkeypatch.setattr(Commits, "_transaction", slowly)
        return waits

    return use


def test_promise_1_dating_a_long_backlog_does_not_hold_up_the_newest_points(tmp_path, slow_card):
    clock = HandClock(offset_ns=None)
    buffer = open_at(tmp_path / "buffer", clock, loss_window=WINDOW_S)
    for _ in range(20):
        measure(buffer, clock, 5000, 0.001)
        buffer.commit_all()
    clock.offset_ns = UNIX_NS
    waits = slow_card(buffer, clock)
    buffer.date_boot(BOOT, UNIX_NS, estimated=False)
    buffer.commit()
    assert buffer.snapshot().undated > 50_000  # the rest has its turn later
    while buffer.snapshot().undated:
        buffer.commit()
    assert max(waits) <= WINDOW_S
    accounted(buffer)


def test_promise_1_making_room_does_not_hold_up_the_newest_points(tmp_path, slow_card):
    clock = HandClock()
    buffer = open_at(tmp_path / "buffer", clock, loss_window=WINDOW_S, max_size=4_000_000)
    for _ in range(20):
        measure(buffer, clock, 5000, 0.001)
        buffer.commit_all()
    buffer.configure(type(buffer.settings)(max_size=1_000_000, when_full="thin", loss_window=WINDOW_S))
    waits = slow_card(buffer, clock)
    for _ in range(20):
        buffer.commit()
    assert max(waits) <= WINDOW_S
    accounted(buffer)
