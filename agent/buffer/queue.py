"""The buffer's state in memory: points, the index of the rows, what is in flight, what waits to be written.

Every change is made here first, and the next commit writes all of it in one transaction; so a disk that is slow, full
or gone changes when things are written, not what they are. Guarded by one lock that is never held during a sync or a
request.
"""

from __future__ import annotations

import threading
from dataclasses import dataclass, field
from typing import TYPE_CHECKING

from agent.buffer import ledger as counters
from agent.buffer.index import Entry, Queue
from agent.buffer.ledger import Counters, Ledger, Saved
from agent.buffer.rows import Header, Kind, count_health
from agent.buffer.stamps import Stamps
from agent.buffer.tail import Block, Memory

if TYPE_CHECKING:
    from collections.abc import Iterable, Iterator, Sequence

    from agent.buffer.batch import Batch, DeadLetter

_KINDS = {"pending": Kind.PENDING, "suspect": Kind.SUSPECT, "parked": Kind.PARKED}


def entry_of(key: int, header: Header, size: int) -> Entry:
    first, last = header.first_ns // 1_000_000, header.last_ns // 1_000_000
    return Entry(key, header.count, header.health, size, header.thin, first, last)


@dataclass(slots=True)
class Rows:
    """The rows on disk, by kind; undated ones by boot, with the first and last stamp of each boot."""

    queues: dict[Kind, Queue] = field(
        default_factory=lambda: {k: Queue() for k in (Kind.PENDING, Kind.SUSPECT, Kind.PARKED, Kind.DEAD)}
    )
    undated: dict[str, Queue] = field(default_factory=dict)
    spans: dict[str, tuple[int, int]] = field(default_factory=dict)

    def add(self, key: int, header: Header, size: int) -> None:
        self.remove(key)
        if header.kind == Kind.UNDATED:
            first, last = self.spans.get(header.boot, (header.first_ns, header.last_ns))
            self.spans[header.boot] = min(first, header.first_ns), max(last, header.last_ns)
            self.undated.setdefault(header.boot, Queue()).add(entry_of(key, header, size))
        else:
            self.queues[header.kind].add(entry_of(key, header, size))

    def remove(self, key: int) -> Entry | None:
        for queue in self.queues.values():
            if (entry := queue.remove(key)) is not None:
                return entry
        for boot, queue in self.undated.items():
            if (entry := queue.remove(key)) is not None:
                if not len(queue):
                    del self.undated[boot], self.spans[boot]
                return entry
        return None

    def __contains__(self, key: int) -> bool:
        return any(key in queue for queue in (*self.queues.values(), *self.undated.values()))

    def waiting(self) -> Iterator[Queue]:
        """The queues of points that wait: all but the dead letters."""
        yield from (queue for kind, queue in self.queues.items() if kind != Kind.DEAD)
        yield from self.undated.values()

    @property
    def points(self) -> int:
        return sum(queue.points for queue in self.waiting())

    @property
    def health(self) -> int:
        return sum(queue.health for queue in self.waiting())


@dataclass(slots=True)
class Group:
    """Blocks that become rows of one kind together. Rows of it stand at `keys` once written."""

    kind: Kind
    blocks: list[Block]
    boot: str = ""
    place: tuple[int, ...] = ()

    @property
    def lines(self) -> list[bytes]:
        return [line for block in self.blocks for line in block.lines]


@dataclass(slots=True)
class Plan:
    """What one transaction is to write."""

    groups: list[Group]
    gone: list[int]
    letters: list[DeadLetter]
    change: Counters

    @property
    def empty(self) -> bool:
        return not (self.groups or self.gone or self.letters)


class State:
    """See the module. Every method but those of Plan takes the lock itself; it may be taken again."""

    def __init__(self, boot_id: str) -> None:
        self.lock = threading.RLock()
        self.boot_id = boot_id
        self.memory = Memory()
        self.stamps = Stamps()
        self.rows = Rows()
        self.ledger = Ledger()
        self.pinned: set[int] = set()
        self.gone: set[int] = set()
        self.letters: list[DeadLetter] = []
        self.bad: set[int] = set()
        """Rows that cannot be read: pinned, until the next commit sets them aside."""
        self.flown: dict[int, int] = {}
        """Blocks in flight that were committed meanwhile, and their rows."""
        self.dating: dict[str, tuple[int, int]] = {}

    # What waits

    @property
    def pending(self) -> tuple[int, int]:
        """Points that wait, and the health points among them."""
        return self.rows.points + self.memory.points, self.rows.health + self.memory.health

    def pick(self, kinds: Iterable[Kind], limit: int) -> tuple[list[int], Kind]:
        """Pin the next rows of the first kind that has some older than the others': one, or up to `limit` points of
        pending ones.
        """
        heads: list[tuple[int, Kind]] = []
        for kind in kinds:
            first = next((e for e in self.rows.queues[kind] if e.key not in self.pinned), None)
            if first is not None:
                heads.append((first.key, kind))
        if not heads:
            return [], Kind.PENDING
        start, kind = min(heads)
        stop = min((key for key, other in heads if other != kind), default=None)
        keys: list[int] = []
        points = 0
        for entry in self.rows.queues[kind]:
            if entry.key < start or entry.key in self.pinned:
                continue
            if keys and (kind != Kind.PENDING or points + entry.points > limit or (stop and entry.key > stop)):
                break
            keys.append(entry.key)
            points += entry.points
        self.pinned.update(keys)
        return keys, kind

    # What becomes of a batch

    def in_flight(self, batch: Batch) -> bool:
        """Whether all of a batch is still given out: an answer counts once."""
        for key in batch.keys:
            block = self.memory.blocks.get(key)
            if not (key in self.pinned if key > 0 else key in self.flown or (block is not None and block.in_flight)):
                return False
        return True

    def keep(self, batch: Batch) -> None:
        for key in batch.keys:
            if key > 0 or key in self.flown:
                self.pinned.discard(self.flown.pop(key, key))
            elif (block := self.memory.blocks.get(key)) is not None:
                block.in_flight = False

    def settle(self, batch: Batch) -> tuple[int, ...]:
        """Take a batch out, wherever it is by now. Returns the keys of its rows."""
        places = []
        for key in batch.keys:
            if key > 0 or key in self.flown:
                row = self.flown.pop(key, key)
                self.pinned.discard(row)
                self.drop_row(row)
                places.append(row)
            elif (block := self.memory.blocks.get(key)) is not None:
                block.settled = True
                block.in_flight = False
                self.memory.remove(block)
        return tuple(places)

    def drop_row(self, key: int) -> Entry | None:
        """Out of the index now, off the disk with the next commit."""
        entry = self.rows.remove(key)
        if entry is not None:
            self.gone.add(key)
        return entry

    def part(self, kind: Kind | str, lines: Iterable[bytes], place: tuple[int, ...], deadline_ns: int) -> None:
        which = _KINDS[kind] if isinstance(kind, str) else kind
        self.memory.add(Block(0, which, list(lines), live=False, deadline_ns=deadline_ns, place=place))

    def drop_lines(self, block: Block, kept: list[bytes], reason: str) -> int:
        """Keep only some lines of a block; the others are counted as dropped. Returns their number."""
        count, health = len(block.lines), block.health
        if kept:
            self.memory.rewrite(block, kept)
        else:
            self.memory.remove(block)
        lost = count - len(kept)
        self.ledger.count(counters.dropped(reason, lost, health - (count_health(kept) if kept else 0)))
        return lost

    def balance(self) -> None:
        """After damage: what is missing was dropped; what is found beyond the counters was measured. Under the lock."""
        for total, pending, health in zip(
            (self.ledger.counters.points, self.ledger.counters.health),
            (self.pending[0] - self.pending[1], self.pending[1]),
            (False, True),
            strict=True,
        ):
            missing = total.unaccounted(pending)
            if missing > 0:
                self.ledger.count(counters.dropped("damaged", missing, missing if health else 0))
            else:
                self.ledger.count(counters.measured(-missing, -missing if health else 0))

    def take_over(self, rows: Rows, bad: set[int], saved: Saved) -> None:
        """The rows and the ledger as they are found on disk, without what is settled but still there."""
        self.pinned -= self.bad
        self.gone = {key for key in self.gone if key in bad or rows.remove(key) is not None}
        self.bad = bad - self.gone
        self.rows = rows
        self.pinned = {key for key in self.pinned if key in rows} | self.bad
        self.ledger.base = saved

    # Writing

    def plan(self, *, everything: bool) -> Plan:
        """What the next transaction writes: with `everything`, or once the tail is due, all that is in memory; else
        only what belongs to rows and dead letters that change anyhow.
        """
        with self.lock:
            groups: list[Group] = []
            together: dict[tuple[Kind, str], Group] = {}
            for block in self.memory.blocks.values():
                if block.committing or (block.live and not everything):
                    continue
                alone = Group(block.kind, [], block.boot, block.place)
                if block.in_flight or not block.live:
                    groups.append(alone)
                    group = alone
                else:
                    group = together.setdefault((block.kind, block.boot), alone)
                group.blocks.append(block)
            groups += together.values()
            for group in groups:
                for block in group.blocks:
                    block.committing = True
            change = self.ledger.savable(counters.measured(*self.memory.unsaved()))
            return Plan(groups, sorted(self.gone), list(self.letters), change)

    def undo(self, plan: Plan) -> None:
        with self.lock:
            for group in plan.groups:
                for block in group.blocks:
                    block.committing = False

    def written(self, group: Group, stored: Sequence[tuple[int, Header, int]]) -> None:
        """A group is on disk, as these rows: key, header, size. Under the lock."""
        for key, header, size in stored:
            self.rows.add(key, header, size)
        for block in group.blocks:
            block.committing = False
            key = stored[0][0]
            if block.settled:
                self.drop_row(key)
                continue
            self.memory.remove(block)
            if block.in_flight:
                self.flown[block.id] = key
                self.pinned.add(key)
