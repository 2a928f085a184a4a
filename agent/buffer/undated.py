"""Points that wait for their time, by the boot they were measured in."""

from __future__ import annotations

from typing import TYPE_CHECKING

from agent.buffer import ledger as counters
from agent.buffer.batch import UndatedBoot
from agent.buffer.compaction import dated
from agent.buffer.rows import Kind

if TYPE_CHECKING:
    from collections.abc import Container

    from agent.buffer.queue import Rows, State


def date(state: State, boot_id: str, offset_ms: int, *, estimated: bool) -> None:
    """Unix time is boot time plus the offset: for what is in memory now, for what is on disk with the next commits."""
    with state.lock:
        state.dating[boot_id] = offset_ms, int(estimated)
        if boot_id == state.boot_id:
            state.stamps.heal(offset_ms)
        for block in list(state.memory.free(Kind.UNDATED)):
            if block.boot == boot_id:
                state.memory.rewrite(block, dated(block.lines, offset_ms, estimated=estimated), Kind.PENDING)
                block.boot = ""


def boots(state: State) -> list[UndatedBoot]:
    """Boots with points on disk whose time nobody has told, the oldest first."""
    with state.lock:
        return boots_of(state.rows, state.dating)


def boots_of(rows: Rows, known: Container[str]) -> list[UndatedBoot]:
    """The boots of undated rows, the oldest first, but for those that are `known`."""
    found = [
        UndatedBoot(boot, queue.points, *rows.spans[boot], next(iter(queue)).key)
        for boot, queue in rows.undated.items()
        if boot not in known
    ]
    return sorted(found, key=lambda boot: boot.key)


def discard(state: State, boot_id: str, reason: str) -> None:
    """Give up what a boot left. Under the lock."""
    for entry in list(state.rows.undated.get(boot_id, ())):
        if entry.key not in state.pinned:
            state.drop_row(entry.key)
            state.ledger.count(counters.dropped(reason, entry.points, entry.health))
    for block in list(state.memory.free(Kind.UNDATED)):
        if block.boot == boot_id:
            state.drop_lines(block, [], reason)
