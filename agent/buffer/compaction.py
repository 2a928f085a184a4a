"""Rewriting rows: many small ones into one, undated ones into dated ones, unreadable ones out of the way."""

from __future__ import annotations

import logging
import time
from dataclasses import dataclass, field
from typing import TYPE_CHECKING

from agent.buffer import due
from agent.buffer import folder as folders
from agent.buffer import ledger as counters
from agent.buffer.ledger import Counters
from agent.buffer.rows import MAX_LINES, DamagedRow, Kind, Row, count_health, pack, recovered, unpack
from agent.points.schema import series_of

if TYPE_CHECKING:
    from collections.abc import Iterable

    from agent.buffer.commit import Flusher
    from agent.buffer.index import Entry
    from agent.buffer.queue import State
    from agent.buffer.store import Store

log = logging.getLogger(__name__)

MANY = 36
SMALL = MAX_LINES // MANY
"""Rows of fewer points than SMALL are merged once there are MANY of them."""
MEDIUM, FULL = MAX_LINES // 4, MAX_LINES * 4 // 5
"""Rows of fewer than MEDIUM points are merged once they hold FULL points together."""
DATING_S = 2.0
_ESTIMATED = b",clock=estimated"


@dataclass(frozen=True, slots=True)
class Merge:
    """Rows, oldest first, that become one at the key of the first; `lost` are points that go with it."""

    keys: tuple[int, ...]
    row: Row
    lost: Counters = field(default_factory=Counters)

    def write(self, store: Store) -> None:
        store.put(self.keys[0], self.row.value, self.row.tag)
        for key in self.keys[1:]:
            store.delete(key)


def runs(entries: Iterable[Entry], pinned: set[int]) -> list[list[Entry]]:
    """Which rows to merge, given them newest first: at most one run of small and one of medium ones."""
    small: list[Entry] = []
    medium: list[Entry] = []
    for entry in entries:
        if entry.key in pinned or entry.points >= MEDIUM or (small and entry.thin != small[0].thin):
            break
        if entry.points < SMALL and not medium:
            small.append(entry)
        elif medium and (entry.thin != medium[0].thin or sum(e.points for e in medium) >= FULL):
            break
        else:
            medium.append(entry)
    chosen = []
    if len(small) >= MANY:
        chosen.append(fit(small[::-1]))
    if sum(entry.points for entry in medium) >= FULL:
        chosen.append(fit(medium[::-1]))
    return [run for run in chosen if len(run) > 1]


def fit(entries: Iterable[Entry]) -> list[Entry]:
    """The first of them that make a row of at most MAX_LINES."""
    run: list[Entry] = []
    points = 0
    for entry in entries:
        points += entry.points
        if run and points > MAX_LINES:
            break
        run.append(entry)
    return run


def choose(state: State, store: Store) -> list[Merge]:
    """The merges to write now; their rows are pinned until done() or undo()."""
    with state.lock:
        chosen = runs(reversed(state.rows.queues[Kind.PENDING]), state.pinned)
        state.pinned.update(entry.key for run in chosen for entry in run)
    merges = []
    for run in chosen:
        keys = [entry.key for entry in run]
        lines = read_lines(state, store, keys)
        if lines is not None:
            merges.append(Merge(tuple(keys), pack(lines, Kind.PENDING, thin=run[0].thin)))
    return merges


def read_lines(state: State, store: Store, keys: Iterable[int]) -> list[bytes] | None:
    """The lines of these pinned rows. None if one is unreadable: it is marked as bad, the others are set free."""
    lines: list[bytes] = []
    try:
        for key in keys:
            try:
                lines += unpack(*(store.read(key) or (None, None)))
            except DamagedRow:
                with state.lock:
                    state.bad.add(key)
                    state.pinned.difference_update(set(keys) - state.bad)
                return None
    except BaseException:
        with state.lock:
            state.pinned.difference_update(set(keys) - state.bad)
        raise
    return lines


def undo(state: State, merges: Iterable[Merge]) -> None:
    with state.lock:
        for merge in merges:
            state.pinned.difference_update(merge.keys)


def done(state: State, merges: Iterable[Merge]) -> None:
    """The merges are on disk. Under the lock."""
    for merge in merges:
        state.ledger.count(merge.lost)
        for key in merge.keys:
            state.rows.remove(key)
            state.pinned.discard(key)
        state.rows.add(merge.keys[0], merge.row.header, len(merge.row.value))


def dated(lines: Iterable[bytes], offset_ms: int, *, estimated: bool = False) -> list[bytes]:
    """Undated lines with Unix time instead of the boot clock's; guessed ones carry the tag clock=estimated."""
    result = []
    for line in lines:
        head, _, stamp = line.rpartition(b" ")
        if estimated:
            series = series_of(head)
            head = series + _ESTIMATED + head[len(series) :]
        result.append(b"%s %d" % (head, int(stamp) + offset_ms * 1_000_000))
    return result


def date_rows(flusher: Flusher) -> None:
    """Date the rows on disk whose boot's offset is known by now, a transaction for up to MAX_LINES points.

    At least one; then as many as fit into DATING_S and before the loss window: the others have their turn after.
    """
    state, until = flusher.state, time.monotonic() + DATING_S
    while True:
        with state.lock:
            for boot in set(state.dating) - set(state.rows.undated) - {state.boot_id}:
                del state.dating[boot]
            boot = next((b for b in state.rows.undated if b in state.dating), "")
            run = fit(e for e in state.rows.undated.get(boot, ()) if e.key not in state.pinned)
            if not run:
                return
            offset_ms, guess = state.dating[boot]
            keys = tuple(entry.key for entry in run)
            state.pinned.update(keys)
        lines = read_lines(state, flusher.store, keys)
        if lines is not None:
            row = pack(dated(lines, offset_ms, estimated=bool(guess)), Kind.PENDING)
            flusher.commit(state.plan(everything=False), [Merge(keys, row)])
        if time.monotonic() > until or due.pressing(flusher):
            return


def repair(flusher: Flusher) -> None:
    """Take unreadable rows out: what still unpacks stays, the rest is set aside as a file and counted as dropped."""
    state = flusher.state
    for key in sorted(state.bad):
        tag, value = flusher.store.read(key) or (None, None)
        raw = value if isinstance(value, bytes) else repr(tag).encode()
        try:
            lines = recovered(raw)
        except DamagedRow:
            lines = []
            folders.keep_row(flusher.folder, key, raw)
        with state.lock:
            state.bad.discard(key)
            state.pinned.discard(key)
            entry = state.rows.remove(key)
            state.gone.add(key)
            if lines:
                state.part(Kind.PENDING, lines, (key,), 0)
            if entry is not None:
                lost, health = entry.points - len(lines), entry.health - count_health(lines)
                state.ledger.count(counters.dropped("damaged", lost, health))
            else:
                state.balance()
        log.warning("buffer: row %d was damaged: %d of its lines are still readable", key, len(lines))
