"""What others see of the queue: whoever plans, and the status. Nothing is changed here."""

from __future__ import annotations

import threading
from collections.abc import Iterator
from dataclasses import replace

from agent.buffer import compaction, retention
from agent.buffer.batch import Batch, BufferStatus, DeadLetter, UndatedBoot
from agent.buffer.index import Entry, RowIndex
from agent.buffer.ledger import Counters, Ledger, Saved
from agent.buffer.line_times import span_of
from agent.buffer.pins import Gone, Pins
from agent.buffer.plan import Dating, Work
from agent.buffer.rows import Kind
from agent.buffer.tail import Tail
from agent.buffer.withdrawn import Withdrawn, undated
from agent.clock.clock import Clock


class QueueViews:
    """A part of the queue: its state, as of one moment."""

    def __init__(self, clock: Clock) -> None:
        self._clock = clock
        self._lock = threading.RLock()
        self._tail = Tail()
        self._rows = RowIndex()
        self._pins = Pins(self._lock, self._tail)
        self._ledger = Ledger()
        self._letters: list[DeadLetter] = []
        self._gone = Gone()
        self._dating: dict[str, tuple[int, int]] = {}
        """Boots whose points get their time: offset in ns, and 1 where it is estimated."""
        self._wrong = Withdrawn()

    @property
    def saved(self) -> Saved:
        """The ledger as it was last known to be on disk."""
        with self._lock:
            return self._ledger.base

    @property
    def counters(self) -> Counters:
        with self._lock:
            return self._ledger.counters

    def undated(self) -> list[UndatedBoot]:
        """Boots with points on disk whose time nobody has told, the oldest first."""
        with self._lock:
            return undated(self._rows, self._wrong, self._dating)

    def wants(self, key: int) -> bool:
        """Whether a row that comes back was not there already, and not settled before."""
        with self._lock:
            return key not in self._rows and key not in self._gone.elsewhere

    def view(self) -> retention.View:
        """The rows that wait, and which of them are not free."""
        with self._lock:
            queues = [(index.columns(), kind, boot) for index, kind, boot in self._rows.waiting()]
            return retention.View(queues, self._pins.taken())

    def mergeable(self) -> list[list[Entry]]:
        """Runs of pending rows that had better be one row each."""
        with self._lock:
            unsure = self._pins.fixed
            return compaction.runs(
                reversed(self._rows.by_kind[Kind.PENDING]), lambda key: self._pins.free(key) and key not in unsure
            )

    def dateable(self) -> Dating | None:
        """Rows that get their time together: undated ones, or one whose time was wrong and is known now or given up."""
        with self._lock:
            boot = next((b for b in self._rows.undated if b in self._dating), "")
            run = compaction.fit(e for e in self._rows.undated.get(boot, ()) if self._pins.free(e.key))
            if run:
                offset_ns, estimated = self._dating[boot]
                return Dating(tuple(run), undated=(offset_ns, bool(estimated)), number=self._wrong.number)
            return self._redateable()

    def _redateable(self) -> Dating | None:
        pending = self._rows.by_kind[Kind.PENDING]
        for key, boots in self._wrong.rows.items():
            known = {boot: self._dating[boot] for boot in boots if boot in self._dating}
            given_up = {boot: self._wrong.given_up[boot] for boot in boots if boot in self._wrong.given_up}
            entry = pending.get(key) if (known or given_up) and self._pins.free(key) else None
            if entry is not None:
                stretches = self._wrong.stretches
                how = {boot: (stretches[boot], offset, bool(guess)) for boot, (offset, guess) in known.items()}
                gone = {boot: (stretches[boot], reason) for boot, reason in given_up.items()}
                return Dating((entry,), withdrawn=how, given_up=gone, number=self._wrong.number)
        return None

    def _spans_of(self, batch: Batch) -> Iterator[tuple[int, int, int]]:
        """From when to when the points of a batch are, and how many."""
        for key in batch.keys:
            row = self._rows.by_kind[Kind.PENDING].get(self._pins.flown.get(key, key))
            if row is not None:
                yield row.first_ms * 1_000_000, row.last_ms * 1_000_000, row.points
            elif (block := self._tail.blocks.get(key)) is not None and block.live:
                yield *span_of(block.lines), len(block.lines)

    def work(self) -> Work:
        with self._lock:
            pressing = bool(self._letters) or any(boot in self._dating for boot in self._rows.undated)
            pressing = pressing or self._wrong.dateable(self._dating) or self._wrong.number > self._wrong.saved
            return Work(
                deadline_ns=self._tail.deadline_ns(),
                points=self._tail.points,
                gone=len(self._gone.keys),
                gone_since_ns=self._gone.since_ns,
                bad=tuple(sorted(self._pins.bad)),
                letter_bytes=self._rows.by_kind[Kind.DEAD].bytes,
                pressing=pressing,
            )

    def status(self) -> BufferStatus:
        """All but what the disk tells of itself."""
        with self._lock:
            of_rows, tail = self._rows.status(), self._tail
            pending, own = self._pending()
            total = self._ledger.counters
            return replace(
                of_rows,
                pending_memory=tail.points,
                undated=of_rows.undated + tail.undated(),
                dead_letters=of_rows.dead_letters + len(self._letters),
                unaccounted=total.points.unaccounted(pending - own),
                unaccounted_health=total.health.unaccounted(own),
                counters=total,
            )

    def _pending(self) -> tuple[int, int]:
        """Points that wait, and the health points among them."""
        return self._rows.points + self._tail.points, self._rows.health + self._tail.health
