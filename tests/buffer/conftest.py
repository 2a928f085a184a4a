"""A buffer on a disk, and the clock that its test turns."""

import pytest

from tests.buffers import HandClock, open_at


@pytest.fixture
def clock():
    return HandClock()


@pytest.fixture
def buffer(tmp_path, clock):
    buffer = open_at(tmp_path / "buffer", clock)
    yield buffer
    buffer.close()
