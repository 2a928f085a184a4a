"""Batches out of the buffer: rows are joined as they are, after a check of each."""

from __future__ import annotations

from typing import TYPE_CHECKING

from agent.buffer.batch import Batch
from agent.buffer.rows import DamagedRow, Kind, check, compress

if TYPE_CHECKING:
    from agent.buffer.commit import Flusher
    from agent.buffer.queue import State
    from agent.buffer.tail import Block


def batch_of(block: Block) -> Batch:
    """The batch of a block in memory."""
    body = compress(b"\n".join(block.lines) + b"\n")
    suspect, parked = block.kind == Kind.SUSPECT, block.kind == Kind.PARKED
    return Batch((block.id,), body, len(block.lines), block.live, suspect, parked, block.health)


def take_rows(state: State, flusher: Flusher, kinds: tuple[Kind, ...], limit: int) -> Batch | None:
    """The next rows of these kinds, up to `limit` points, at least one row; parts that are not on disk yet come first.

    Raises DiskError, and then nothing is given out.
    """
    while True:
        with state.lock:
            block = next(state.memory.free(*kinds, live=False), None)
            if block is not None:
                block.in_flight = True
            else:
                keys, kind = state.pick(kinds, limit)
        if block is not None:
            return batch_of(block)
        if not keys:
            return None
        try:
            batch = _read(state, flusher, keys, kind)
        except BaseException:
            with state.lock:
                state.pinned.difference_update(set(keys) - state.bad)
            raise
        if batch is not None:
            return batch


def _read(state: State, flusher: Flusher, keys: list[int], kind: Kind) -> Batch | None:
    """The batch of these pinned rows, without damaged ones, which stay pinned. None if all are."""
    store = flusher.store
    members: list[bytes] = []
    good: list[int] = []
    count = health = 0
    for key in keys:
        tag, value = store.read(key) or (None, None)
        try:
            header = check(tag, value)
        except DamagedRow:
            with state.lock:
                state.bad.add(key)
            continue
        assert isinstance(value, bytes)
        members.append(value)
        good.append(key)
        count += header.count
        health += header.health
    if not good:
        return None
    suspect, parked = kind == Kind.SUSPECT, kind == Kind.PARKED
    return Batch(tuple(good), b"".join(members), count, suspect=suspect, parked=parked, health=health)
