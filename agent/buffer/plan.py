"""What there is to write, and when it must be: planned by the queue, written by commit.py."""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass, field

from agent.buffer.batch import DeadLetter
from agent.buffer.index import Entry
from agent.buffer.ledger import Counters, dropped
from agent.buffer.line_times import dated, withdrawn
from agent.buffer.rows import Header, Kind, Ranges, Row, count_health, pack
from agent.buffer.tail import Group
from agent.clock.timeline import Stretch

SETTLE_NS = 1_000_000_000
"""What was delivered is removed from disk so much later, together with what follows, or once it is many rows."""
Stored = tuple[int, "Header", int]
"""A row as it was written: key, header, bytes of its value."""


@dataclass(frozen=True, slots=True)
class Rewrite:
    """Rows, oldest first, that become one at the key of the first, or none where that has no line. `change`: what the
    counters have to learn of it;
    `dated`: the boots whose wrong times it takes back, as of which withdrawal; `undated`: as of which it had no time;
    `back`: it comes from damaged files.
    """

    keys: tuple[int, ...]
    row: Row
    change: Counters = field(default_factory=Counters)
    dated: tuple[frozenset[str], int] = frozenset(), 0
    undated: int | None = None
    back: bool = False


@dataclass(frozen=True, slots=True)
class Dating:
    """How rows of `kind` get their time: those of a boot, undated, by its offset (ns), or what was withdrawn of some
    boots, as of the withdrawal of this number. The last of each is whether it is estimated. `given_up`: of these boots
    it goes, for this reason.
    """

    run: tuple[Entry, ...]
    undated: tuple[int, bool] | None = None
    withdrawn: Mapping[str, tuple[tuple[Stretch, ...], int, bool]] = field(default_factory=dict)
    given_up: Mapping[str, tuple[tuple[Stretch, ...], str]] = field(default_factory=dict)
    number: int = 0

    def rewrite(self, lines: list[bytes], replaced: Ranges) -> Rewrite:
        """The row that stands in their place, from their lines and the keys of all that are in them but the first."""
        lost = Counters()
        for stretches, reason in self.given_up.values():
            lines, back = withdrawn(lines, stretches)
            lost += dropped(reason, len(back), count_health(back))
        if self.undated is not None:
            lines = dated(lines, self.undated[0], estimated=self.undated[1])
        for stretches, offset_ns, estimated in self.withdrawn.values():
            stay, back = withdrawn(lines, stretches)
            lines = stay + dated(back, offset_ns, estimated=estimated)
        row = pack(lines, Kind.PENDING, thin=self.run[0].thin, replaced=replaced)
        since = None if self.undated is None else self.number
        boots = frozenset((*self.withdrawn, *self.given_up))
        return Rewrite(tuple(e.key for e in self.run), row, lost, dated=(boots, self.number), undated=since)


@dataclass(slots=True)
class Plan:
    """`change` is what is added to the counters by what the queue counted before; `found`, and what rewrites add, it
    counts once they are written.
    """

    groups: list[Group] = field(default_factory=list)
    gone: list[int] = field(default_factory=list)
    letters: list[DeadLetter] = field(default_factory=list)
    change: Counters = field(default_factory=Counters)
    found: Counters = field(default_factory=Counters)
    rewrites: list[Rewrite] = field(default_factory=list)
    back: list[DeadLetter] = field(default_factory=list)
    """Dead letters that come from damaged files: no memory has them."""
    recovered: dict[str, int | None] = field(default_factory=dict)
    """Damaged sets, and up to which key their rows are taken over with this; None: all of it is done."""
    withdrawals: int | None = None
    """How many there were, if the ledger has yet to learn of the last."""

    def add(self, more: Plan) -> None:
        """What others than the queue have to write."""
        self.back += more.back
        self.found += more.found
        self.rewrites += more.rewrites
        self.recovered |= more.recovered

    @property
    def empty(self) -> bool:
        more = self.withdrawals is not None
        letters = self.letters or self.back
        return not (self.groups or self.gone or letters or self.rewrites or self.recovered or more)

    @property
    def whole_change(self) -> Counters:
        return sum((rewrite.change for rewrite in self.rewrites), self.change + self.found)


@dataclass(frozen=True, slots=True)
class Work:
    """What there is to write. `deadline_ns`: when the oldest of the `points` in memory must be on disk; `gone` rows
    wait to be removed since `gone_since_ns`; `bad` ones cannot be read; `pressing`: letters, rows that can be dated, or
    times that are wrong. Moments on the boot clock.
    """

    deadline_ns: int | None
    points: int
    gone: int
    gone_since_ns: int | None
    bad: tuple[int, ...]
    letter_bytes: int
    pressing: bool


def tail_ns(deadline_ns: int | None, window_ns: int, commit_s: float) -> int | None:
    """When to commit what is in memory: before its deadline by three times what a commit took of late."""
    margin = max(min(window_ns // 10, 500_000_000), int(3e9 * commit_s))
    return None if deadline_ns is None else deadline_ns - min(margin, window_ns // 2)


def crowded(points: int, memory_points: int) -> bool:
    """Whether half of the memory is taken: then it is committed before its time."""
    return points > memory_points // 2


def due_ns(work: Work, many_gone: int, memory_points: int, tail_ns: int | None, save_ns: int) -> int:
    """When there is something to write next, on the boot clock; 0: now. `save_ns`: when the counters must be saved."""
    if work.pressing or work.bad or work.gone >= many_gone or crowded(work.points, memory_points):
        return 0
    moments = [save_ns]
    if tail_ns is not None:
        moments.append(tail_ns)
    if work.gone_since_ns is not None:
        moments.append(work.gone_since_ns + SETTLE_NS)
    return min(moments)
