"""Transactions that failed while they were committed: they may be on disk all the same.

Their points stay in memory and may be delivered or dropped from there. When the ledger shows that such a transaction
is on disk, its rows are removed and its numbers taken back with the next one: so no point is there twice.
"""

from __future__ import annotations

from dataclasses import dataclass, replace
from typing import TYPE_CHECKING

if TYPE_CHECKING:
    from agent.buffer.ledger import Counters, Saved
    from agent.buffer.queue import Rows
    from agent.buffer.store import Store

_KEPT = 8
"""Each that fails is built on the last one that did not: more never come into question."""


@dataclass(frozen=True, slots=True)
class Doubt:
    """The ledger that was written, what was counted in it, and the keys of the new rows."""

    saved: Saved
    change: Counters
    keys: tuple[int, ...]


class Doubts:
    """Those since the last transaction that went well."""

    def __init__(self) -> None:
        self._doubts: list[Doubt] = []

    def add(self, doubt: Doubt) -> None:
        self._doubts = [*self._doubts, doubt][-_KEPT:]

    def clear(self) -> None:
        self._doubts.clear()

    def _shown_by(self, found: Saved) -> Doubt | None:
        return next((doubt for doubt in self._doubts if doubt.saved == found), None)

    def undo(self, store: Store, found: Saved) -> Saved | None:
        """Inside a transaction that found this ledger: remove the rows. The ledger without them, or None if there is
        no doubt.
        """
        doubt = self._shown_by(found)
        if doubt is None:
            return None
        for key in doubt.keys:
            store.delete(key)
        return replace(found, counters=found.counters - doubt.change)

    def believed(self, rows: Rows, found: Saved) -> Saved:
        """Index and ledger as read, without a transaction in doubt."""
        doubt = self._shown_by(found)
        if doubt is None:
            return found
        for key in doubt.keys:
            rows.remove(key)
        return replace(found, counters=found.counters - doubt.change)
