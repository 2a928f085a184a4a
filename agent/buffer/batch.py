"""What the buffer gives out and takes back: batches, their parts, dead letters, and its status."""

from __future__ import annotations

from dataclasses import dataclass, field
from typing import Literal

from agent.buffer.ledger import Counters
from agent.buffer.rows import lines_of


@dataclass(frozen=True, slots=True)
class Batch:
    """Points to send in one request: `body` is gzip, members joined.

    `keys` name the rows; a negative key is points in memory, which may be committed while the batch is in flight: the
    buffer knows the row then. `health` of the `count` points are the agent's own.
    """

    keys: tuple[int, ...]
    body: bytes
    count: int
    live: bool = False
    suspect: bool = False
    parked: bool = False
    health: int = 0

    def lines(self) -> list[bytes]:
        """The lines, without newlines, in the order of the body."""
        return lines_of(self.body)


@dataclass(frozen=True, slots=True)
class Part:
    """Lines that stand in the place of a batch. `sent`: the server may have them, so that their time stays."""

    lines: tuple[bytes, ...]
    state: Literal["pending", "suspect", "parked"]
    sent: bool = False


@dataclass(frozen=True, slots=True)
class DeadLetter:
    """A point that the server will never take. `reason` is a short code, `message` the server's words, bounded;
    `time_ns` says when it was refused (Unix, nanoseconds).
    """

    line: bytes
    reason: str
    message: str
    time_ns: int


@dataclass(frozen=True, slots=True)
class UndatedBoot:
    """Points of a boot whose clock was never good, on the boot clock (ns); `key` orders the boots by age."""

    boot_id: str
    count: int
    first_ns: int
    last_ns: int
    key: int


@dataclass(frozen=True, slots=True)
class BufferStatus:
    """The buffer at a moment. Points, the agent's own included, unless said otherwise.

    pending = pending_memory + pending_disk: all that waits, also undated, suspect and parked points. `disk_bytes` is
    what the rows take, `file_bytes` what the file does. `oldest_ns` is the Unix time of the oldest dated point that
    waits. `unaccounted` is 0, or there is a mistake.
    """

    pending_memory: int = 0
    pending_disk: int = 0
    undated: int = 0
    suspect: int = 0
    parked: int = 0
    dead_letters: int = 0
    disk_bytes: int = 0
    file_bytes: int = 0
    disk_ok: bool = False
    problem: str | None = None
    oldest_ns: int | None = None
    rows: int = 0
    damaged_sets: int = 0
    commit_s: float = 0.0
    unaccounted: int = 0
    unaccounted_health: int = 0
    counters: Counters = field(default_factory=Counters)

    @property
    def pending(self) -> int:
        return self.pending_memory + self.pending_disk
