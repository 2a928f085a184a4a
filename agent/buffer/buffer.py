"""The buffer: points wait here, in memory and then on disk, until the server has them.

A point is on disk within the loss window of being measured, unless the server acknowledged it before: then nothing is
ever written for it. put() touches no disk; delivery takes batches and says what became of them; the committer thread
(committer.py) writes. See queue.py for what there is in memory, commit.py for how it is written.
"""

from __future__ import annotations

import logging
import threading
from typing import TYPE_CHECKING

from agent.buffer import due, undated
from agent.buffer import folder as folders
from agent.buffer import ledger as counters
from agent.buffer.batch import Batch, BufferStatus, DeadLetter, Part, UndatedBoot
from agent.buffer.buffer_status import status_of
from agent.buffer.commit import Flusher
from agent.buffer.disk import DiskError
from agent.buffer.folder import AlreadyRunning
from agent.buffer.queue import State
from agent.buffer.retention import shrink
from agent.buffer.rows import Kind, count_health, is_health
from agent.buffer.taking import batch_of, take_rows
from agent.util.errors import AgentError

if TYPE_CHECKING:
    from collections.abc import Sequence
    from pathlib import Path

    from agent.buffer.stamps import BootClock
    from agent.buffer.tail import Block
    from agent.config.settings import BufferSettings
    from agent.points.schema import Line

__all__ = ["AlreadyRunning", "Batch", "Buffer", "BufferStatus", "DeadLetter", "Part", "UndatedBoot", "open_buffer"]

log = logging.getLogger(__name__)

_FOREVER = 2**63 - 1


def open_buffer(folder: Path, settings: BufferSettings, clock: BootClock, *, wait: bool = True) -> Buffer:
    """The buffer in this folder, whatever is there; raises AlreadyRunning if another agent holds it.

    With `wait` False the disk is opened by the first commit, in the committer's thread: points are taken meanwhile.
    """
    hold = folders.Hold(folder)
    try:
        folders.make(folder)
        hold.take()
    except ValueError as error:
        raise AgentError(str(error)) from error
    except OSError:
        pass  # no folder: points wait in memory, and the status says why
    buffer = Buffer(folder, settings, clock, hold)
    if wait:
        buffer.open()
    return buffer


class Buffer:
    """Thread-safe. Batches that were taken stay out until one of delivered(), keep() or replace() is called."""

    def __init__(self, folder: Path, settings: BufferSettings, clock: BootClock, hold: folders.Hold) -> None:
        self.settings = settings
        self.clock = clock
        self.wake = threading.Event()
        """Set when the committer has something to do earlier than it thought."""
        self._state = State(clock.boot_id)
        self._flusher = Flusher(folder, settings, self._state, clock, hold)
        self._disk_lock = threading.Lock()
        self._hold = hold
        self._gone_ns: int | None = None
        self._failed: DiskError | None = None
        self._window_ns = int(settings.loss_window * 1e9)

    # Points come in

    def put(self, lines: Sequence[Line]) -> None:
        """Take measured points. Never touches the disk. Points without a time are dated, or wait until they can be."""
        state = self._state
        times = [self.clock.date(line.boot_ns) if line.time_ns is None else line.time_ns for line in lines]
        with state.lock:
            before = state.memory.deadline_ns() if self._window_ns else None
            health = 0
            for line, known in zip(lines, times, strict=True):
                own = is_health(line.head)
                health += own
                time_ns = known
                if time_ns is None and state.boot_id in state.dating:
                    time_ns = self.clock.date(line.boot_ns)  # heal() came between; or the time is not believed any more
                    if time_ns is None:
                        del state.dating[state.boot_id]
                if time_ns is None:
                    kind, stamp = Kind.UNDATED, state.stamps.undated(line.series, line.boot_ns)
                else:
                    kind, stamp = Kind.PENDING, state.stamps.dated(line.series, time_ns)
                state.memory.append(
                    b"%s %d" % (line.head, stamp),
                    kind,
                    boot=state.boot_id if kind == Kind.UNDATED else "",
                    deadline_ns=line.boot_ns + self._window_ns,
                    health=own,
                )
            state.ledger.count(counters.measured(len(lines), health))
            full = state.memory.points > self.settings.memory_points
            if full:
                shrink(state, self.settings)
            early = before is None or due.crowded(state, self.settings)
        if early:
            self.wake.set()

    # Batches go out

    def take_live(self, max_points: int) -> Batch | None:
        """Dated points that are not on disk yet, the oldest first."""
        memory = self._state.memory
        with self._state.lock:
            blocks: list[Block] = []
            points = 0
            for block in memory.free(Kind.PENDING, live=True):
                blocks.append(block)
                points += len(block.lines)
                if points >= max_points:
                    break
            if not blocks:
                return None
            taken = memory.take(blocks, max_points)
        return batch_of(taken)

    def take_backlog(self, max_points: int) -> Batch | None:
        """The oldest rows, up to `max_points` (at least one row); a suspect row comes alone."""
        return self._take((Kind.PENDING, Kind.SUSPECT), max_points)

    def take_parked(self) -> Batch | None:
        """The oldest parked row."""
        return self._take((Kind.PARKED,), 1)

    def _take(self, kinds: tuple[Kind, ...], limit: int) -> Batch | None:
        try:
            return take_rows(self._state, self._flusher, kinds, limit)
        except DiskError as error:
            if self._flusher.health.problem is None:
                self._failed = error
                self.wake.set()
            return None
        finally:
            if self._state.bad:
                self.wake.set()

    # What became of them

    def delivered(self, batch: Batch) -> None:
        """The server has it. A second answer about the same batch counts nothing."""
        state = self._state
        with state.lock:
            if not state.in_flight(batch):
                return
            state.settle(batch)
            state.ledger.count(counters.delivered(batch.count, batch.health))
            self._gone()

    def keep(self, batch: Batch) -> None:
        """It is tried again later."""
        with self._state.lock:
            if self._state.in_flight(batch):
                self._state.keep(batch)
        self.wake.set()

    def replace(self, batch: Batch, parts: Sequence[Part], dead: Sequence[DeadLetter], delivered: int = 0) -> None:
        """Put parts and dead letters in the place of a batch; `delivered` of its points the server has.

        Raises ValueError, and changes nothing, unless these are all of its points.
        """
        total = sum(len(part.lines) for part in parts) + len(dead) + delivered
        if total != batch.count:
            raise ValueError(f"a batch of {batch.count} points cannot be replaced by {total}")
        dead_health = count_health(letter.line for letter in dead)
        health = batch.health - dead_health - sum(count_health(part.lines) for part in parts)
        state = self._state
        with state.lock:
            if not state.in_flight(batch):
                return
            place = state.settle(batch)
            for part in parts:
                if part.lines:
                    state.part(part.state, part.lines, place, self.clock.boot_ns())
            state.letters.extend(dead)
            del state.letters[: -self.settings.memory_points]  # while there is no disk to keep them
            state.ledger.count(counters.delivered(delivered, health) + counters.rejected(len(dead), dead_health))
            self._gone()
        self.wake.set()

    def _gone(self) -> None:
        if self._state.gone and self._gone_ns is None:
            self._gone_ns = self.clock.boot_ns()
            self.wake.set()
        if len(self._state.gone) >= due.SETTLE_ROWS:
            self.wake.set()

    # Time

    def heal(self, boot_id: str, offset_ns: int) -> None:
        """The clock of this boot is known: Unix time is boot time plus the offset. Dates every point of the boot, in
        memory at once, on disk with the next commits.
        """
        self._date(boot_id, offset_ns, estimated=False)

    def date_boot(self, boot_id: str, offset_ns: int, estimated: bool = True) -> None:
        """Date the points of an earlier boot; estimated ones get the tag clock=estimated."""
        self._date(boot_id, offset_ns, estimated=estimated)

    def _date(self, boot_id: str, offset_ns: int, *, estimated: bool) -> None:
        undated.date(self._state, boot_id, round(offset_ns / 1_000_000), estimated=estimated)
        self.wake.set()

    def undated(self) -> list[UndatedBoot]:
        """Boots with points on disk that have no time yet, the oldest first."""
        return undated.boots(self._state)

    def discard_boot(self, boot_id: str, reason: str) -> None:
        """Give up the undated points of a boot; they are counted as dropped for this reason."""
        with self._state.lock:
            undated.discard(self._state, boot_id, reason)
            self._gone()

    # The committer's

    def open(self) -> bool:
        """Open the disk, unless it is open. False if it refuses."""
        with self._disk_lock:
            return self._flusher.ready()

    def alive_boot_ns(self) -> int:
        """Until when the disk was being opened or saved from damage; now, while it is: that takes its time."""
        return self._flusher.alive_boot_ns()

    def next_deadline(self) -> int:
        """When the committer has to do something next, on the boot clock (ns)."""
        with self._state.lock:
            if self._failed is not None:
                return self._flusher.health.retry_ns
            return due.next_ns(self._state, self._flusher, self._window_ns, self._gone_ns)

    def commit_due(self, now_boot_ns: int) -> bool:
        return now_boot_ns >= self.next_deadline()

    def commit(self) -> bool:
        """Write what is due, and only that. False if the disk refused."""
        with self._state.lock:
            tail = due.tail_ns(self._state, self._window_ns, self._flusher.health.commit_s)
            full = due.crowded(self._state, self.settings)
        return self._flush(everything=full or (tail is not None and self.clock.boot_ns() >= tail))

    def commit_all(self) -> bool:
        """Write all that is in memory. False if the disk refuses: it is in memory still."""
        return self._flush(everything=True)

    def _flush(self, *, everything: bool, clean: bool = False) -> bool:
        with self._disk_lock:
            failed, self._failed = self._failed, None
            if failed is not None:
                self._flusher.failed(failed)
            done = self._flusher.flush(everything=everything, clean=clean)
        with self._state.lock:
            self._gone_ns = self.clock.boot_ns() if self._state.gone else None
        return done

    def notice(self) -> bool:
        """Read again what another process has changed on disk. True if one had."""
        with self._disk_lock:
            return self._flusher.noticed()

    def check_in_background(self) -> None:
        """After an unclean stop, have SQLite check its pages in a thread of its own; what it finds starts a rescue."""
        if not self._flusher.unclean:
            return

        def check() -> None:
            try:
                found = self._flusher.store.sound()
            except DiskError:
                return
            if found:
                self._failed = DiskError("damaged", found)
                self.wake.set()

        threading.Thread(target=check, name="quick-check", daemon=True).start()

    def release(self) -> None:
        """Close this thread's connection; the next write opens one again."""
        with self._disk_lock:
            self._flusher.release()

    def configure(self, settings: BufferSettings) -> None:
        """Go on with other settings; the points in memory keep the deadlines that they have. A commit under way may
        still follow the old ones: nobody waits for the disk here.
        """
        with self._state.lock:
            self.settings = self._flusher.settings = settings
            self._window_ns = int(settings.loss_window * 1e9)
        self.wake.set()

    # Status

    def snapshot(self) -> BufferStatus:
        return status_of(self._state, self._flusher.health)

    def close(self) -> None:
        """Commit everything, save the counters as of a clean stop, give the folder back. Twice is fine."""
        if not self._flush(everything=True, clean=True) and (lost := self.snapshot().pending_memory):
            log.error("buffer: %d points in memory are lost, as the disk refused to the last", lost)
        with self._disk_lock:
            self._flusher.close()
            self._flusher.health.retry_ns = _FOREVER
            self._flusher.health.problem = "closed"
        self._hold.release()
