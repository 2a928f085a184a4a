"""The buffer's status, from its state."""

from __future__ import annotations

from typing import TYPE_CHECKING

from agent.buffer.batch import BufferStatus
from agent.buffer.rows import Kind

if TYPE_CHECKING:
    from agent.buffer.disk_health import DiskHealth
    from agent.buffer.queue import State


def status_of(state: State, health: DiskHealth) -> BufferStatus:
    with state.lock:
        rows, memory = state.rows, state.memory
        pending, own = state.pending
        undated = sum(len(b.lines) for b in memory.blocks.values() if b.kind == Kind.UNDATED)
        stamped = (rows.queues[kind] for kind in (Kind.PENDING, Kind.SUSPECT, Kind.PARKED))
        oldest = [e.first_ms for q in stamped for e in [next(iter(q), None)] if e is not None]
        total = state.ledger.counters
        return BufferStatus(
            pending_memory=memory.points,
            pending_disk=rows.points,
            undated=undated + sum(queue.points for queue in rows.undated.values()),
            suspect=rows.queues[Kind.SUSPECT].points,
            parked=rows.queues[Kind.PARKED].points,
            dead_letters=rows.queues[Kind.DEAD].points + len(state.letters),
            disk_bytes=health.used_bytes,
            file_bytes=health.file_bytes,
            disk_ok=health.problem is None,
            problem=health.problem,
            problem_since_ns=health.since_ns,
            oldest_ns=min(oldest) * 1_000_000 if oldest else None,
            last_time_ns=state.stamps.latest_ms * 1_000_000 or None,
            rows=sum(len(queue) for queue in rows.waiting()),
            damaged_sets=health.damaged_sets,
            commit_s=health.commit_s,
            unaccounted=total.points.unaccounted(pending - own),
            unaccounted_health=total.health.unaccounted(own),
            counters=total,
        )
