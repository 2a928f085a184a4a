"""Points in memory: blocks of lines that wait for server or disk."""

from __future__ import annotations

from dataclasses import dataclass, field, replace
from typing import TYPE_CHECKING

from agent.buffer.rows import Kind, count_health

if TYPE_CHECKING:
    from collections.abc import Iterator, Sequence


@dataclass(slots=True, eq=False)
class Block:
    """Lines in memory that go together: measured ones (`live`), or the parts of a refused batch.

    `deadline_ns` is when it must be on disk, on the boot clock. `in_flight`: given out; `committing`: being written;
    `settled`: delivered or replaced while it was being written; `key`: its row, once written; `place`: keys of rows
    that it may take the place of.
    """

    id: int
    kind: Kind
    lines: list[bytes]
    live: bool
    deadline_ns: int | None = None
    boot: str = ""
    health: int = 0
    place: tuple[int, ...] = ()
    in_flight: bool = False
    committing: bool = False
    settled: bool = False
    key: int | None = None

    @property
    def free(self) -> bool:
        """Neither given out nor being written."""
        return not (self.in_flight or self.committing)


@dataclass(slots=True)
class Memory:
    """The blocks, oldest first. Guarded by the buffer's lock."""

    blocks: dict[int, Block] = field(default_factory=dict)
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

    def append(self, line: bytes, kind: Kind, *, boot: str, deadline_ns: int, health: bool) -> None:
        """A measured point, into the block that is still open for its kind."""
        block = self._open.get(kind)
        if block is None or not block.free or block.id not in self.blocks or block.boot != boot:
            block = self._open[kind] = self.add(Block(0, kind, [], live=True, boot=boot, deadline_ns=deadline_ns))
        block.lines.append(line)
        block.deadline_ns = deadline_ns if block.deadline_ns is None else min(block.deadline_ns, deadline_ns)
        block.health += health
        self.points += 1
        self.health += health

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

    def free(self, *kinds: Kind, live: bool | None = None) -> Iterator[Block]:
        """Blocks of these kinds that are neither given out nor being written, oldest first."""
        for block in self.blocks.values():
            if block.free and block.kind in kinds and live in (None, block.live):
                yield block

    def take(self, blocks: Sequence[Block], limit: int) -> Block:
        """Up to `limit` points of these blocks as one block in flight; what is too much stays behind, in order."""
        lines = [line for block in blocks for line in block.lines]
        first = blocks[0]
        deadlines = [block.deadline_ns for block in blocks if block.deadline_ns is not None]
        taken = replace(first, lines=lines[:limit], deadline_ns=min(deadlines, default=None))
        for block in blocks:
            self.remove(block)
        taken = self.add(taken)
        taken.in_flight = True
        if len(lines) > limit:
            self.add(replace(taken, lines=lines[limit:], in_flight=False), sum(b.health for b in blocks) - taken.health)
        return taken

    def deadline_ns(self) -> int | None:
        """When the next block must be on disk."""
        times = [b.deadline_ns for b in self.blocks.values() if b.deadline_ns is not None and not b.committing]
        return min(times, default=None)

    def unsaved(self) -> tuple[int, int]:
        """Measured points, and health points among them, that are in memory only."""
        live = [block for block in self.blocks.values() if block.live and not block.committing]
        return sum(len(b.lines) for b in live), sum(b.health for b in live)
