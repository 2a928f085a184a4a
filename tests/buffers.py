"""What the tests of the buffer share: a clock that is moved by hand, lines, a buffer in a folder."""

from __future__ import annotations

import contextlib
import math
import sqlite3

from agent.buffer.buffer import open_buffer
from agent.buffer.database import DATABASE
from agent.buffer.offline import OfflineBuffer
from agent.buffer.rows import MAX_LINES, Kind, pack
from agent.clock.timeline import stamp_offset
from agent.config.settings import BufferSettings
from agent.points.schema import Line

BOOT = "11111111-2222-4333-8444-555555555555"
OTHER_BOOT = "99999999-2222-4333-8444-555555555555"
UNIX_NS = 1_700_000_000_000_000_000
SECOND = 1_000_000_000


class HandClock:
    """A boot clock that is moved by hand; `offset_ns` None means that the time is not known."""

    def __init__(self, now_s: float = 1000.0, offset_ns: int | None = UNIX_NS, boot_id: str = BOOT) -> None:
        self.now_ns = int(now_s * SECOND)
        self.offset_ns = offset_ns
        self.boot_id = boot_id

    def boot_ns(self) -> int:
        return self.now_ns

    def date(self, boot_ns: int) -> int | None:
        """As the clock does: whole milliseconds."""
        return None if self.offset_ns is None else stamp_offset(boot_ns + self.offset_ns, 0)

    def pass_s(self, seconds: float) -> None:
        self.now_ns += math.ceil(seconds * SECOND)


def line(clock: HandClock, value: float = 20.5, device: str = "pi-1", measurement: str = "environment") -> Line:
    head = f"{measurement},clientId={device},device={device} Temperature={value}"
    return Line(head.encode(), clock.boot_ns())


def measure(buffer, clock: HandClock, count: int, step_s: float = 1.0, device: str = "pi-1") -> None:
    """Put points, one by one, one every `step_s` seconds."""
    for number in range(count):
        buffer.put([line(clock, float(number), device)])
        clock.pass_s(step_s)


def write_rows(buffer, clock, number, points=2):
    """Rows on the disk, each of some points."""
    for _ in range(number):
        measure(buffer, clock, points, 0.01)
        assert buffer.commit_all()


def store(buffer, lines) -> None:
    """Put points of any age on disk, as `iot-agent buffer import` does beside the running agent."""
    encoded = [line.encode() for line in lines]
    rows = [pack(encoded[n : n + MAX_LINES], Kind.PENDING) for n in range(0, len(encoded), MAX_LINES)]
    with OfflineBuffer(buffer.folder) as beside:
        beside.add(rows)
    assert buffer.notice()


def store_of(buffer):
    """Where its disk can be made to fail: below everything else."""
    return buffer._disk.store


def checkpoint(folder, how="TRUNCATE") -> None:
    """What is in SQLite's log goes to the database, as whoever opens it last has it done."""
    with contextlib.closing(sqlite3.connect(folder / DATABASE)) as beside:
        beside.execute(f"PRAGMA wal_checkpoint({how})").fetchall()


def cut_power(buffer) -> None:
    """Nothing of it is written any more; what is on the disk is there."""
    buffer._disk.close()


def open_at(folder, clock=None, wait=True, **settings):
    buffer = open_buffer(folder, BufferSettings(**settings), clock or HandClock(), wait=wait)
    return salvaged(buffer) if wait else buffer


def salvaged(buffer):
    """As the committer does when it has nothing else to do: all that can be read of damaged files is back."""
    while buffer.salvage():
        pass
    return buffer


def drain(buffer, limit: int = 5000) -> list[bytes]:
    """Deliver all that can be, live first. Returns the lines in the order they went."""
    lines = []
    salvaged(buffer)
    while (batch := buffer.take_live(limit) or buffer.take_backlog(limit)) is not None:
        lines += batch.lines()
        buffer.delivered(batch)
    return lines


def accounted(buffer) -> None:
    status = buffer.snapshot()
    assert status.unaccounted == 0
    assert status.unaccounted_health == 0


def pending_after(folder) -> int:
    """How many points wait when the folder is opened again."""
    buffer = open_at(folder)
    try:
        return buffer.snapshot().pending
    finally:
        buffer.close()
