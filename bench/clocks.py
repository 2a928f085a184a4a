"""A clock that the benchmark turns, so that an hour of measuring takes seconds; and buffers on it."""

from __future__ import annotations

import time
from typing import TYPE_CHECKING

from agent.buffer.buffer import Buffer, open_buffer
from agent.clock.boots import current_boot_id
from agent.config.settings import BufferSettings
from agent.config.units import Bytes, Seconds

if TYPE_CHECKING:
    from pathlib import Path

SECOND = 1_000_000_000


class Stepped:
    """Stands still until it is turned. Its time is always known."""

    def __init__(self) -> None:
        self.boot_id = current_boot_id()
        self.now = time.monotonic_ns()
        self.offset = int(time.time()) * SECOND - self.now

    def boot_ns(self) -> int:
        return self.now

    def date(self, boot_ns: int) -> int:
        return (boot_ns + self.offset) // 1_000_000 * 1_000_000

    def turn(self, seconds: float) -> None:
        self.now += round(seconds * SECOND)


def buffer(folder: Path, clock: Stepped, window_s: float = 10.0) -> Buffer:
    """A buffer with room for whatever is measured."""
    return open_buffer(folder, BufferSettings(loss_window=Seconds(window_s), max_size=Bytes(4_000_000_000)), clock)
