"""What a transaction is to write: planned by the queue, written by commit.py."""

from __future__ import annotations

from dataclasses import dataclass, field
from typing import TYPE_CHECKING

from agent.buffer.ledger import Counters

if TYPE_CHECKING:
    from agent.buffer.batch import DeadLetter
    from agent.buffer.rows import Header, Row
    from agent.buffer.tail import Group

Stored = tuple[int, "Header", int]
"""A row as it was written: key, header, bytes of its value."""


@dataclass(frozen=True, slots=True)
class Rewrite:
    """Rows, oldest first, that become one at the key of the first. `change`: what the counters have to learn of it."""

    keys: tuple[int, ...]
    row: Row
    change: Counters = field(default_factory=Counters)


@dataclass(slots=True)
class Plan:
    """`change` is what is added to the counters, but for what rewrites add."""

    groups: list[Group]
    gone: list[int]
    letters: list[DeadLetter]
    change: Counters
    rewrites: list[Rewrite] = field(default_factory=list)
    recovered: dict[str, int | None] = field(default_factory=dict)
    """Damaged sets, and up to which key their rows are taken over with this; None: all of it is done."""

    @property
    def empty(self) -> bool:
        return not (self.groups or self.gone or self.letters or self.rewrites or self.recovered)

    @property
    def whole_change(self) -> Counters:
        return sum((rewrite.change for rewrite in self.rewrites), self.change)


@dataclass(frozen=True, slots=True)
class Work:
    """What there is to write. `deadline_ns`: when the oldest of the `points` in memory must be on disk; `gone` rows
    wait to be removed since `gone_since_ns`; `bad` ones cannot be read; `pressing`: letters, or rows that can be dated.
    Moments on the boot clock.
    """

    deadline_ns: int | None
    points: int
    gone: int
    gone_since_ns: int | None
    bad: tuple[int, ...]
    letter_bytes: int
    pressing: bool
