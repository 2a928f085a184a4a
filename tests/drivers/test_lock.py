"""Two processes at one chip: who waits gets it."""

import os
import threading
import time

import pytest

from drivers import i2c

pytestmark = pytest.mark.skipif(i2c._SET_LOCK is None, reason="no open file description locks here")


@pytest.fixture
def lock(tmp_path, monkeypatch):
    """A lock of its own each time, as another process has; on a file in place of /dev/i2c-1."""
    real = os.open
    monkeypatch.setattr(i2c.os, "open", lambda _path, flags: real(tmp_path / "i2c-1", flags | os.O_CREAT))
    locks = []

    def make():
        locks.append(i2c.ChipLock(1, 0x10))
        return locks[-1]

    yield make
    for one in locks:
        one.close()


def test_who_reads_slowly_again_and_again_lets_others_in(lock, monkeypatch):
    monkeypatch.setattr(i2c, "LOCKED_AT_MOST_S", 1.0)
    ours, theirs, end = lock(), lock(), threading.Event()

    def read_on():
        while not end.is_set():
            with theirs.held():
                time.sleep(0.1)

    reader = threading.Thread(target=read_on)
    reader.start()
    try:
        for _ in range(5):
            with ours.held():
                pass
    finally:
        end.set()
        reader.join()


def test_the_slowest_reading_is_waited_for():
    assert i2c.LOCKED_AT_MOST_S > 3.6 + 1  # a VEML7700 in the dark
