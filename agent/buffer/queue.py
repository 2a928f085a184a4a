"""The queue: the one owner of what waits to be delivered and of what is in flight.

Points in memory, the index of the rows on disk, the rows that are given out, held or unreadable, dead letters and
counters change only by the methods here. Each takes the lock and leaves all of it whole. Every change is made here
first, and the next commit writes it in one transaction: so a disk that is slow, full or gone changes when things are
written, not what they are. The lock is never held during a sync or a request.
"""

from __future__ import annotations

import contextlib
from collections.abc import Collection, Iterable, Iterator, Sequence
from contextlib import contextmanager
from dataclasses import replace

from agent.buffer import ledger as counters
from agent.buffer import retention
from agent.buffer.batch import Batch, DeadLetter, Part
from agent.buffer.index import Entry, RowIndex
from agent.buffer.ledger import Counters, Saved
from agent.buffer.plan import Plan, Stored, crowded
from agent.buffer.rows import Kind, Ranges, count_health, joined
from agent.buffer.tail import Block, Group
from agent.buffer.times import QueueTimes
from agent.clock.timeline import stamp_offset
from agent.config.settings import BufferSettings
from agent.points.schema import Line

_KINDS = {"pending": Kind.PENDING, "suspect": Kind.SUSPECT, "parked": Kind.PARKED}
_MEASURED = (Kind.PENDING, Kind.UNDATED)


class Queue(QueueTimes):
    """Thread-safe."""

    # Points come in

    def put(self, lines: Sequence[Line], limits: BufferSettings) -> bool:
        """Take measured points, dated or not. True if the committer has work earlier than it thought."""
        clock, window_ns = self._clock, int(limits.loss_window * 1e9)
        with self._lock:
            before = self._tail.deadline_ns() if window_ns else None
            health = 0
            for line in lines:
                time_ns = clock.date(line.boot_ns) if line.time_ns is None else stamp_offset(line.time_ns, 0)
                if time_ns is None:
                    self._dating.pop(clock.boot_id, None)  # what was known is not sure enough any more
                health += self._tail.put(line, time_ns, clock.boot_id, window_ns)
            self._ledger.count(counters.measured(len(lines), health))
            self._shrink(limits)
            return before is None or crowded(self._tail.points, limits.memory_points)

    def _shrink(self, limits: BufferSettings) -> None:
        """More points in memory than allowed: as `when_full` says. What is in flight stays."""
        excess = self._tail.points - limits.memory_points
        if excess > 0:
            free = list(self._tail.free(*_MEASURED, Kind.SUSPECT, Kind.PARKED))
            for block, kept in retention.shrunk(free, excess, limits.when_full):
                self._drop_lines(block, kept, "memory")
                block.thin += 1

    def discard_boot(self, boot_id: str, reason: str) -> bool:
        """Give up the points of a boot that wait for a time. True if there is something new to remove from disk."""
        with self._lock:
            before = len(self._gone.keys)
            self.drop_rows([entry.key for entry in self._rows.undated.get(boot_id, ())], reason)
            for block in list(self._tail.free(Kind.UNDATED)):
                if block.boot == boot_id:
                    self._drop_lines(block, [], reason)
            return self._wrong.give_up(boot_id, reason) or self._gone.is_news(before)

    # Batches go out

    def take_live(self, limit: int) -> Block | None:
        """Dated points that are not on disk yet, the oldest first, as one block in flight."""
        with self._lock:
            return self._tail.take_live(limit)

    def take_part(self, kinds: Collection[Kind]) -> Block | None:
        """The oldest part of a refused batch that is not on disk yet."""
        with self._lock:
            block = next(self._tail.free(*kinds, live=False), None)
            if block is not None:
                block.in_flight = True
            return block

    @contextmanager
    def hold_next(self, kinds: Iterable[Kind], limit: int) -> Iterator[tuple[Kind, list[int]]]:
        """Hold the rows that are to be delivered next; those that give_out() or spoil() named stay taken after."""
        with self._lock, contextlib.ExitStack() as stack:
            waits = self._wrong.rows
            kind, keys = self._rows.next_of(kinds, limit, lambda key: self._pins.free(key) and key not in waits)
            stack.enter_context(self._pins.hold(keys))
            held = stack.pop_all()
        with held:
            yield kind, keys

    @contextmanager
    def hold(self, keys: Collection[int]) -> Iterator[bool]:
        """Keep rows from being given out and from any other change meanwhile; False, and nothing is held, unless all
        are there and free.
        """
        with self._lock, contextlib.ExitStack() as stack:
            free = all(key in self._rows and self._pins.free(key) for key in keys)
            stack.enter_context(self._pins.hold(keys if free else ()))
            held = stack.pop_all()
        with held:
            yield free

    def give_out(self, keys: Collection[int]) -> bool:
        """Held rows are in a batch from now on; False, and none is, if the time of some turned out to be wrong."""
        with self._lock:
            if any(key in self._wrong.rows for key in keys):
                return False
            self._pins.give_out(keys)
            return True

    def spoil(self, key: int) -> None:
        """A held row cannot be read: nobody takes it any more, until a commit sets it aside."""
        with self._lock:
            self._pins.bad.add(key)

    # What becomes of them

    def delivered(self, batch: Batch) -> bool:
        """The server has it; a second answer counts nothing. True if there is something new to remove from disk."""
        with self._lock:
            before = len(self._gone.keys)
            if self._pins.has_out(batch):
                for first_ns, last_ns, count in self._spans_of(batch):
                    self._delivered.add(first_ns, last_ns, count)
                self._settle(batch)
                self._ledger.count(counters.delivered(batch.count, batch.health))
            return self._gone.is_news(before)

    def keep(self, batch: Batch, *, sent: bool = False) -> None:
        """It can be taken again. `sent`: the server may have it."""
        with self._lock:
            if self._pins.has_out(batch):
                rows, blocks = self._pins.give_back(batch)
                if sent:
                    self._pins.fixed.update(rows)
                    for block in blocks:
                        block.sent = True
                else:
                    self._withdraw_late(rows)

    def replace(
        self, batch: Batch, parts: Sequence[Part], dead: Sequence[DeadLetter], delivered: int, most_letters: int
    ) -> None:
        """Put parts and dead letters in the place of a batch; `delivered` of its points the server has. It may have
        those of the parts, too, where it may have had the batch.

        Raises ValueError, and changes nothing, unless these are all of its points.
        """
        total = sum(len(part.lines) for part in parts) + len(dead) + delivered
        if total != batch.count:
            raise ValueError(f"a batch of {batch.count} points cannot be replaced by {total}")
        dead_health = count_health(letter.line for letter in dead)
        health = batch.health - dead_health - sum(count_health(part.lines) for part in parts)
        with self._lock:
            if not self._pins.has_out(batch):
                return
            sent = self._pins.sent(batch)
            place = self._settle(batch)
            for part in parts:
                if part.lines:
                    now = self._clock.boot_ns()
                    self._add_part(_KINDS[part.state], part.lines, place, now, sent=sent or part.sent)
            self._catch_up()
            self._letters.extend(dead)
            del self._letters[:-most_letters]  # while there is no disk to keep them
            self._ledger.count(counters.delivered(delivered, health) + counters.rejected(len(dead), dead_health))

    def _settle(self, batch: Batch) -> tuple[int, ...]:
        """Take a batch out, wherever it is by now. Returns the keys of its rows."""
        rows, blocks = self._pins.give_back(batch)
        for row in rows:
            self._drop_row(row)
        for block in blocks:
            block.settled = True
            self._tail.remove(block)
        return tuple(rows)

    def _add_part(
        self, kind: Kind, lines: Iterable[bytes], place: tuple[int, ...], deadline_ns: int, *, sent: bool = False
    ) -> None:
        self._tail.add(Block(0, kind, list(lines), live=False, deadline_ns=deadline_ns, place=place, sent=sent))

    # What goes without being delivered

    def drop_rows(self, keys: Iterable[int], reason: str) -> bool:
        """Give up those of these rows that are free. False if none was."""
        dropped = False
        with self._lock:
            for key in keys:
                if self._pins.free(key) and (entry := self._drop_row(key)) is not None:
                    self._ledger.count(counters.dropped(reason, entry.points, entry.health))
                    dropped = True
        return dropped

    def drop_newest(self) -> None:
        """Give up the measured points in memory."""
        with self._lock:
            for block in list(self._tail.free(*_MEASURED, live=True)):
                self._drop_lines(block, [], "max_size")

    def forget_letters(self, limit: int) -> None:
        """Let the oldest dead letters go while all together take more than `limit` bytes; they stay counted."""
        with self._lock:
            letters = self._rows.by_kind[Kind.DEAD]
            while letters.bytes > limit and len(letters) > 1:
                self._drop_row(next(iter(letters)).key)

    def set_aside(self, key: int, lines: Sequence[bytes]) -> None:
        """In the place of an unreadable row stands what can still be read of it; the rest is counted as dropped."""
        with self._lock:
            self._pins.bad.discard(key)
            self._drop_row(key)
            self._gone.add(key, self._clock.boot_ns())  # also one that the index does not have
            if lines:
                self._add_part(Kind.PENDING, lines, (key,), 0)
                self._catch_up()
            self._ledger.count(counters.balance(self._ledger.counters, *self._pending()))

    def _drop_row(self, key: int) -> Entry | None:
        """Out of the index now, off the disk with the next commit."""
        entry = self._rows.remove(key)
        self._pins.fixed.discard(key)
        self._wrong.rows.pop(key, None)
        if entry is not None:
            self._gone.add(key, self._clock.boot_ns())
        return entry

    def _drop_lines(self, block: Block, kept: list[bytes], reason: str) -> None:
        """Keep only some lines of a block; the others are counted as dropped."""
        self._ledger.count(counters.dropped(reason, *self._tail.keep_only(block, kept)))

    # Writing

    @contextmanager
    def writing(self, *, everything: bool) -> Iterator[Plan]:
        """What the next transaction writes: with `everything` all that is in memory, else only what belongs to rows and
        dead letters that change anyhow. It stays as it was if an error comes before written().
        """
        with self._lock:
            groups = self._tail.groups(live=everything)
            change = self._ledger.savable(counters.measured(*self._tail.unsaved()))
            wrong = self._wrong.number if self._wrong.number > self._wrong.saved else None
            plan = Plan(groups, sorted(self._gone.keys), list(self._letters), change, withdrawals=wrong)
        try:
            yield plan
        except BaseException:
            with self._lock:
                for group in plan.groups:
                    for block in group.blocks:
                        block.committing = False
                self._catch_up()
            raise

    def written(
        self,
        plan: Plan,
        rows: Sequence[Sequence[Stored]],
        letters: Iterable[Stored],
        saved: Saved,
        fresh: tuple[RowIndex, set[int], Saved] | None,
    ) -> None:
        """The plan is on disk: each group as these rows, the dead letters, and the ledger. `fresh`: all that is there,
        where another process had changed it.
        """
        with self._lock:
            for rewrite in plan.rewrites:
                if not self._pins.fixed.isdisjoint(rewrite.keys):
                    self._pins.fixed.difference_update(rewrite.keys)
                    self._pins.fixed.add(rewrite.keys[0])
                for key in rewrite.keys:
                    self._rows.remove(key)
                if rewrite.row.header.count:
                    self._rows.add(rewrite.keys[0], rewrite.row.header, len(rewrite.row.value))
                else:
                    self._drop_row(rewrite.keys[0])
                self._wrong.rewritten(rewrite.keys, rewrite.dated)
                if rewrite.back or rewrite.undated not in (None, self._wrong.number):
                    self._flag(rewrite.keys[0])  # dated by what turned out to be wrong meanwhile
                self._ledger.count(rewrite.change)
            self._ledger.count(plan.found)
            self._pins.fix(saved.fixed, self._ledger.base.last_key + 1)
            self._ledger.saved(saved, plan.whole_change)
            self._wrong.saved = max(self._wrong.saved, plan.withdrawals or 0)
            self._gone.removed(plan.gone, self._clock.boot_ns())  # first: new rows may stand in their place, and go too
            for group, stored in zip(plan.groups, rows, strict=True):
                self._stored(group, stored)
            for entry in letters:
                self._rows.add(*entry)
            kept = set(map(id, plan.letters))
            self._letters = [letter for letter in self._letters if id(letter) not in kept]
            if fresh is not None:
                self.take_over(*fresh)
            self._forget_dated()

    def _stored(self, group: Group, stored: Sequence[Stored]) -> None:
        for key, header, size in stored:
            self._rows.add(key, header, size)
        for block in group.blocks:
            block.committing = False
            key = stored[0][0]
            if block.settled:
                self._drop_row(key)
                continue
            self._tail.remove(block)
            if block.sent:
                self._pins.fixed.add(key)
            if block.in_flight:
                self._pins.flown[block.id] = key
                self._pins.give_out([key])
        if group.kind == Kind.PENDING and self._wrong.stretches:  # it was being written when that was found out
            for key, _, _ in stored:
                if key in self._rows and not self._may_be_there(key):
                    self._wrong.flag_lines(key, group.lines)

    # The ledger, and what another process or an opening finds on disk

    def begin(self, saved: Saved, wall_s: float) -> None:
        """Go on from the ledger of the run before this one."""
        lost_s = counters.uncounted_s(saved, self._clock.boot_id, self._clock.boot_ns(), wall_s)
        with self._lock:
            self._ledger.count(Counters(uncounted_s=lost_s))
            self.join(saved)
            self._tail.stamps.latest_ns = max(self._tail.stamps.latest_ns, saved.last_ns)

    def join(self, saved: Saved) -> None:
        """Go on, too, from the ledger of a database that was damaged, whose counters a transaction takes over."""
        with self._lock:
            if saved.boot_id == self._clock.boot_id:
                self._tail.stamps.floor_ns = max(self._tail.stamps.floor_ns, saved.last_ns)
            self._join_times(saved)

    def _join_times(self, saved: Saved) -> None:
        """What was withdrawn since the start counts for what was dated before, too."""
        wrong = self._wrong.stretches
        before = {boot: offset for boot, offset in saved.dating.items() if boot not in wrong}
        self._dating = {**before, **self._dating}
        boots = {**saved.withdrawn, **wrong}
        self._wrong.stretches = {boot: (*saved.withdrawn.get(boot, ()), *wrong.get(boot, ())) for boot in boots}

    def to_save(self, found: Saved, plan: Plan, *, clean: bool, wall_s: float) -> Saved:
        """The ledger to write, with a plan, over the one that was `found`."""
        with self._lock:
            recovering = {**found.recovering, **plan.recovered}
            return replace(
                found,
                counters=found.counters + plan.whole_change,
                recovering={name: key for name, key in recovering.items() if key is not None},
                generation=found.generation + 1,
                clean=clean,
                boot_id=self._clock.boot_id,
                boot_ns=self._clock.boot_ns(),
                wall_s=wall_s,
                last_ns=max(found.last_ns, self._tail.stamps.latest_ns),
                dating=dict(self._dating),
                withdrawn=dict(self._wrong.stretches),
                fixed=self._fixed(found),
            )

    def _fixed(self, found: Saved) -> Ranges:
        """The rows whose stamps stay, with those that another process has added since it was known last."""
        known = self._ledger.base.last_key
        added = [(max(first, known + 1), last) for first, last in found.fixed if last > known]
        return joined([*((key, key) for key in self._pins.fixed), *added])

    def adopt(self, rows: RowIndex, bad: set[int], saved: Saved) -> int:
        """The same of a disk that was just opened. What does not add up is damage, and is balanced: returns how many
        points were counted and are not there.
        """
        with self._lock:
            self.take_over(rows, bad, saved)
            change = counters.balance(self._ledger.counters, *self._pending())
            self._ledger.count(change)
            return sum(tally.dropped.get("damaged", 0) for tally in (change.points, change.health))

    def take_over(self, rows: RowIndex, bad: set[int], saved: Saved) -> None:
        """The rows and the ledger as they are found on disk, without what is settled but still there."""
        with self._lock:
            there = {key for key in self._gone.keys if key in bad or rows.remove(key) is not None}
            self._gone.elsewhere |= self._gone.keys - there
            self._gone.keys = there
            self._rows = rows
            self._pins.fix(saved.fixed)
            self._pins.found(rows, bad - there)
            self._wrong.rows = {}
            for entry in rows.by_kind[Kind.PENDING] if self._wrong.stretches else ():
                self._flag(entry.key)
            self._ledger.base = saved
