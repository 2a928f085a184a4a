"""What an outcome does to the next question: how often the same bytes were answered 500."""

from random import Random

import pytest

from agent.buffer.batch import Batch
from agent.buffer.rows import compress
from agent.delivery.outage_log import OutageLog
from agent.delivery.outcome import Park, Retry
from agent.delivery.pacing import Pace
from agent.delivery.settling import Settling

BROKEN = Retry("500", "500 broken", server=False)


@pytest.fixture
def settling():
    nobody = lambda: pytest.fail("nobody's token was refused")  # noqa: E731
    pace = Pace(5.0, 5000, 0, "pi-1", Random(1))
    return Settling(None, pace, OutageLog(), lambda: 0, on_unauthorised=nobody, on_authorised=nobody)


def test_a_500_counts_for_the_batch_it_came_for_and_of_live_points_for_whatever_is_newest(settling):
    first, second = Batch((7, 8), b"", 5), Batch((9,), b"", 5)
    for _ in range(2):
        assert not settling.apply(BROKEN, first)
    assert not settling.apply(BROKEN, second)
    assert [settling.again(batch) for batch in (first, second, Batch((8,), b"", 5), None)] == [2, 1, 0, 0]
    live, newer = Batch((10, 11), b"", 2, live=True), Batch((12,), b"", 1, live=True)
    assert not settling.apply(BROKEN, live)
    assert [settling.again(batch) for batch in (live, newer, first)] == [1, 1, 2]


def test_the_latest_64_batches_that_were_answered_500_are_remembered(settling):
    for key in range(1, 66):
        settling.apply(BROKEN, Batch((key,), b"", 1))
    assert [settling.again(Batch((key,), b"", 1)) for key in (1, 2, 65)] == [0, 1, 1]


class Kept:
    """A buffer that is told what becomes of batches."""

    def __init__(self):
        self.told = []

    def replace(self, batch, parts, dead):
        self.told.append((batch.keys, [(part.lines, part.state) for part in parts], list(dead)))

    def keep(self, batch):
        self.told.append(("keep", batch.keys))


@pytest.mark.parametrize("parked", [False, True])
def test_points_that_are_parked_are_settled_and_those_that_were_parked_before_stay_out_of_the_round(parked):
    nobody = lambda: pytest.fail("nobody's token was refused")  # noqa: E731
    buffer, pace, outage = Kept(), Pace(5.0, 5000, 0, "pi-1", Random(1)), OutageLog()
    settling = Settling(buffer, pace, outage, lambda: 0, on_unauthorised=nobody, on_authorised=nobody)
    batch = Batch((7,), compress(b"a b=1 1\na b=2 2\n"), 2, parked=parked)
    assert settling.apply(Park("422", "the moon is full"), batch)
    assert settling.held == "the moon is full"
    assert pace.parked.failures == 1
    if parked:
        assert buffer.told == []
        settling.end_round()
        assert buffer.told == [("keep", (7,))]
    else:
        assert buffer.told == [((7,), [((b"a b=1 1", b"a b=2 2"), "parked")], [])]
        settling.end_round()
        assert len(buffer.told) == 1
