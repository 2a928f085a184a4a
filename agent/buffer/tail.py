"""Points in memory: blocks of lines that wait for server or disk, and the stamps that keep their series in order."""

from __future__ import annotations

from collections.abc import Iterator, Sequence
from dataclasses import dataclass, field, replace

from agent.buffer.line_times import dated, withdrawn
from agent.buffer.rows import Kind, count_health, is_health
from agent.clock.timeline import Stretch
from agent.points.schema import Line

_MS = 1_000_000
_FAR_NS = 60_000_000_000
"""A last stamp so far ahead was given by a clock that turned out to be wrong: nothing is put after it."""


class Stamps:
    """Stamps that no two points of a live series share: they would count once on the server.

    The clock gives whole milliseconds on a lane (agent/clock/timeline.py). Stamps of one lane rise strictly: one that
    would not becomes the last one plus 1 ms. Those of another lane are never the same. Stamps on the boot clock rise
    in the same way, so that adding one offset to all of them is enough to date them, wherever they lie.
    """

    def __init__(self) -> None:
        self._unix: dict[bytes, int] = {}
        self._boot: dict[bytes, int] = {}
        self.floor_ns = 0
        """The latest stamp that an earlier run in this boot is known to have given out: that of any series."""
        self.latest_ns = 0

    def dated(self, series: bytes, time_ns: int) -> int:
        """The stamp, in Unix nanoseconds, for a point of this time."""
        last = self._unix.get(series, self.floor_ns)
        if time_ns <= last < time_ns + _FAR_NS and (last - time_ns) % _MS == 0:
            time_ns = last + _MS
        self._unix[series] = time_ns
        self.latest_ns = max(self.latest_ns, time_ns)
        return time_ns

    def undated(self, series: bytes, boot_ns: int) -> int:
        """The stamp, in boot-clock nanoseconds, for a point that has no time yet."""
        stamp = max((boot_ns + _MS // 2) // _MS, self._boot.get(series, -1) + 1)
        self._boot[series] = stamp
        return stamp * _MS

    def heal(self, offset_ns: int) -> None:
        """The undated stamps of this boot become Unix time by this offset: what follows must be later."""
        for series, stamp in self._boot.items():
            time_ns, last = stamp * _MS + offset_ns, self._unix.get(series, 0)
            self._unix[series] = max(last, time_ns) if (last - time_ns) % _MS == 0 else time_ns
            self.latest_ns = max(self.latest_ns, time_ns)
        self._boot.clear()


@dataclass(slots=True, eq=False)
class Block:
    """Lines in memory that go together: measured ones (`live`), or the parts of a refused batch.

    `deadline_ns` is when it must be on disk, on the boot clock. `in_flight`: given out; `sent`: nobody knows whether
    the server has it, so that its stamps must stay; `committing`: being written; `settled`: delivered or replaced while
    it was being written; `place`: keys of rows that it may take the place of; `thin`: how often every second point
    went.
    """

    id: int
    kind: Kind
    lines: list[bytes]
    live: bool
    deadline_ns: int | None = None
    boot: str = ""
    health: int = 0
    thin: int = 0
    place: tuple[int, ...] = ()
    in_flight: bool = False
    sent: bool = False
    committing: bool = False
    settled: bool = False

    @property
    def free(self) -> bool:
        """Neither given out nor being written."""
        return not (self.in_flight or self.committing)


@dataclass(slots=True)
class Group:
    """Blocks that become rows of one kind together, at `place` (keys of rows that go) where that is possible."""

    kind: Kind
    blocks: list[Block]
    boot: str = ""
    place: tuple[int, ...] = ()

    @property
    def lines(self) -> list[bytes]:
        return [line for block in self.blocks for line in block.lines]

    @property
    def single(self) -> bool:
        """Whether it must be one row: it is in flight, or a part of a refused batch."""
        first = self.blocks[0]
        return len(self.blocks) == 1 and (first.in_flight or first.sent or not first.live)


@dataclass(slots=True)
class Tail:
    """The blocks, oldest first. A part of the queue, guarded by its lock."""

    blocks: dict[int, Block] = field(default_factory=dict)
    stamps: Stamps = field(default_factory=Stamps)
    points: int = 0
    health: int = 0
    _last_id: int = 0
    _open: dict[Kind, Block] = field(default_factory=dict)

    def add(self, block: Block, health: int | None = None) -> Block:
        """Enter a block under a new id."""
        self._last_id -= 1
        block = replace(block, id=self._last_id, health=count_health(block.lines) if health is None else health)
        self.blocks[block.id] = block
        self.points += len(block.lines)
        self.health += block.health
        return block

    def put(self, line: Line, time_ns: int | None, boot: str, window_ns: int) -> bool:
        """A measured point, into the block that is still open for its kind. Whether it is the agent's own."""
        health = is_health(line.head)
        kind = Kind.UNDATED if time_ns is None else Kind.PENDING
        boot = boot if time_ns is None else ""
        at = line.boot_ns if time_ns is None else time_ns
        stamp = (self.stamps.undated if time_ns is None else self.stamps.dated)(line.series, at)
        deadline_ns = line.boot_ns + window_ns
        block = self._open.get(kind)
        if block is None or not block.free or block.id not in self.blocks or block.boot != boot:
            block = self._open[kind] = self.add(Block(0, kind, [], live=True, boot=boot, deadline_ns=deadline_ns))
        block.lines.append(b"%s %d" % (line.head, stamp))
        block.deadline_ns = deadline_ns if block.deadline_ns is None else min(block.deadline_ns, deadline_ns)
        block.health += health
        self.points += 1
        self.health += health
        return health

    def remove(self, block: Block) -> None:
        if self.blocks.pop(block.id, None) is not None:
            self.points -= len(block.lines)
            self.health -= block.health

    def rewrite(self, block: Block, lines: list[bytes], kind: Kind | None = None) -> None:
        """Change what a block holds."""
        self.points += len(lines) - len(block.lines)
        self.health -= block.health
        block.lines, block.health, block.kind = lines, count_health(lines), kind or block.kind
        self.health += block.health

    def date(self, boot: str, offset_ns: int, *, estimated: bool) -> None:
        """Give the undated points of a boot their time."""
        for block in list(self.free(Kind.UNDATED)):
            if block.boot == boot:
                self.rewrite(block, dated(block.lines, offset_ns, estimated=estimated), Kind.PENDING)
                block.boot = ""

    def withdraw(self, boot: str, stretches: Sequence[Stretch]) -> int:
        """Take the time from points that were dated wrongly and not sent. How many."""
        count = 0
        for block in list(self.free(Kind.PENDING)):
            stay, back = ([], []) if block.sent else withdrawn(block.lines, stretches)
            if stay and back:
                self.rewrite(block, stay)
                self.add(replace(block, kind=Kind.UNDATED, boot=boot, lines=back))
            elif back:
                self.rewrite(block, back, Kind.UNDATED)
                block.boot = boot
            count += len(back)
        self._open.clear()
        return count

    def free(self, *kinds: Kind, live: bool | None = None) -> Iterator[Block]:
        """Blocks of these kinds that are neither given out nor being written, oldest first."""
        for block in self.blocks.values():
            if block.free and block.kind in kinds and live in (None, block.live):
                yield block

    def keep_only(self, block: Block, kept: list[bytes]) -> tuple[int, int]:
        """Let the other lines of a block go. How many, and how many of the agent's own."""
        count, health = len(block.lines), block.health
        if kept:
            self.rewrite(block, kept)
        else:
            self.remove(block)
        return count - len(kept), health - (block.health if kept else 0)

    def take_live(self, limit: int) -> Block | None:
        """Dated points that are not on disk yet, the oldest first, up to `limit`, as one block in flight."""
        blocks: list[Block] = []
        points = 0
        for block in self.free(Kind.PENDING, live=True):
            blocks.append(block)
            points += len(block.lines)
            if points >= limit:
                break
        return self._taken(blocks, limit) if blocks else None

    def _taken(self, blocks: Sequence[Block], limit: int) -> Block:
        """One block in flight in the place of these; what is too much stays behind, in order."""
        lines = [line for block in blocks for line in block.lines]
        first = blocks[0]
        deadlines = [block.deadline_ns for block in blocks if block.deadline_ns is not None]
        sent = any(block.sent for block in blocks)
        taken = replace(first, lines=lines[:limit], sent=sent, deadline_ns=min(deadlines, default=None))
        ids = list(self.blocks)
        newer = ids[ids.index(first.id) :]
        for block in blocks:
            self.remove(block)
        taken = self.add(taken)
        taken.in_flight = True
        if len(lines) > limit:
            self.add(replace(taken, lines=lines[limit:], in_flight=False), sum(b.health for b in blocks) - taken.health)
        for at in newer:  # they stand behind what takes the place of older ones
            if at in self.blocks:
                self.blocks[at] = self.blocks.pop(at)
        return taken

    def groups(self, *, live: bool) -> list[Group]:
        """What is to be committed together, parts of refused batches first; from now on it is being written."""
        alone: list[Group] = []
        together: dict[tuple[Kind, str], Group] = {}
        for block in self.blocks.values():
            if block.committing or (block.live and not live):
                continue
            block.committing = True
            if block.in_flight or block.sent or not block.live:
                alone.append(Group(block.kind, [block], block.boot, block.place))
            else:
                together.setdefault((block.kind, block.boot), Group(block.kind, [], block.boot)).blocks.append(block)
        return [*alone, *together.values()]

    def undated(self) -> int:
        """Points that have no time yet."""
        return sum(len(block.lines) for block in self.blocks.values() if block.kind == Kind.UNDATED)

    def deadline_ns(self) -> int | None:
        """When the next block must be on disk."""
        times = [b.deadline_ns for b in self.blocks.values() if b.deadline_ns is not None and not b.committing]
        return min(times, default=None)

    def unsaved(self) -> tuple[int, int]:
        """Measured points, and health points among them, that are in memory only."""
        live = [block for block in self.blocks.values() if block.live and not block.committing]
        return sum(len(b.lines) for b in live), sum(b.health for b in live)
