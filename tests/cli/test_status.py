"""`iot-agent status` where no agent runs: what is on disk, in words."""

import pytest

from agent.buffer.offline import OfflineBuffer
from agent.buffer.rows import Kind, pack
from agent.cli.status import lines
from agent.status.snapshot import from_disk

POINT = b'environment,clientId=pi-1,device=pi-1 Temperature=21.5,Humidity=40.25,Note="x" %d'
HEALTH = b"agent,clientId=pi-1,device=pi-1 uptime=60 %d"


@pytest.fixture
def waiting(tmp_path):
    def put(*rows):
        with OfflineBuffer(tmp_path / "buffer", create=True) as buffer:
            buffer.add(rows)
        return dict(lines(from_disk(tmp_path)))

    return put


def test_the_last_values_that_wait_are_shown_with_their_age(waiting, monkeypatch):
    monkeypatch.setattr("time.time", lambda: 1_790_000_180.0)
    now = 1_790_000_000_000_000_000
    said = waiting(pack([POINT % 5, POINT % 6], Kind.PENDING), pack([POINT % now, HEALTH % now], Kind.PENDING))
    assert said["Last values"] == "Temperature 21.50 °C, Humidity 40.25 %RH (3 min ago)"


def test_values_that_wait_for_the_clock_have_no_age(waiting):
    said = waiting(pack([POINT % 77], Kind.UNDATED, boot="b" * 32))
    assert said["Last values"] == "Temperature 21.50 °C, Humidity 40.25 %RH (time not known yet)"


def test_where_nothing_waits_there_is_no_last_value(waiting):
    assert "Last values" not in waiting()
    assert "Last values" not in waiting(pack([HEALTH % 5], Kind.PENDING))
