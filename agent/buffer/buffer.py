"""The buffer: points wait here, in memory and then on disk, until the server has them.

A point is on disk within the loss window of being measured, unless the server acknowledged it before: then nothing is
ever written for it. put() touches no disk; delivery takes batches and says what became of them; the committer thread
(committer.py) writes. This is the only door; the state is in queue.py, what is done on disk in commit.py.
"""

from __future__ import annotations

import contextlib
import logging
import threading
from collections.abc import Sequence
from dataclasses import replace
from pathlib import Path

from agent.buffer import folder as folders
from agent.buffer.batch import Batch, BufferStatus, DeadLetter, Part, UndatedBoot
from agent.buffer.commit import Commits
from agent.buffer.disk import Disk
from agent.buffer.disk_error import DiskError
from agent.buffer.queue import Queue
from agent.buffer.rows import DamagedRow, Kind, MisplacedRow, check, compress
from agent.buffer.tail import Block
from agent.clock.clock import Clock
from agent.clock.timeline import Stretch, Wrong
from agent.config.settings import BufferSettings
from agent.points.schema import Line
from agent.util.errors import AgentError

log = logging.getLogger(__name__)

_FOREVER = 2**63 - 1
_ORPHAN_S = 1.0


def open_buffer(folder: Path, settings: BufferSettings, clock: Clock, *, wait: bool = True) -> Buffer:
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

    def __init__(self, folder: Path, settings: BufferSettings, clock: Clock, hold: folders.Hold) -> None:
        self.settings = settings
        self.clock = clock
        self.folder = folder
        self.wake = threading.Event()
        """Set when the committer has something to do earlier than it thought."""
        self._queue = Queue(clock)
        self._disk = Disk(folder, hold, clock.boot_ns)
        self._commits = Commits(self._queue, self._disk, settings, clock)
        self._disk_lock = threading.Lock()
        """Held by whoever works on the disk, as long as that takes; delivery only reads, and does not wait for it."""
        self._hold = hold
        self._found_lock = threading.Lock()
        self._found: DiskError | None = None

    # Points come in

    def put(self, lines: Sequence[Line]) -> None:
        """Take measured points. Never touches the disk. Points without a time are dated, or wait until they can be."""
        if self._queue.put(lines, self.settings):
            self.wake.set()

    # Batches go out

    def take_live(self, max_points: int) -> Batch | None:
        """Dated points that are not on disk yet, the oldest first."""
        block = self._queue.take_live(max_points)
        return None if block is None else self._batch_of(block)

    def take_backlog(self, max_points: int) -> Batch | None:
        """The oldest rows, up to `max_points` (at least one row); a suspect row comes alone."""
        return self._take((Kind.PENDING, Kind.SUSPECT), max_points)

    def take_parked(self) -> Batch | None:
        """The oldest parked row."""
        return self._take((Kind.PARKED,), 1)

    def _take(self, kinds: tuple[Kind, ...], limit: int) -> Batch | None:
        """Parts that are not on disk yet come first. A disk that refuses gives nothing."""
        block = self._queue.take_part(kinds)
        if block is not None:
            return self._batch_of(block)
        try:
            while True:
                with self._queue.hold_next(kinds, limit) as (kind, keys):
                    if not keys:
                        return None
                    batch = self._read(kind, keys)
                if batch is not None:
                    return batch
        except DiskError as error:
            self._report(error)
            return None

    def _read(self, kind: Kind, keys: Sequence[int]) -> Batch | None:
        """The batch of these rows, joined as they are after a check of each, without damaged ones. None: ask again."""
        store = self._disk.store
        members: list[bytes] = []
        good: list[int] = []
        count = health = 0
        for key in keys:
            tag, value = store.read(key)
            try:
                header = check(tag, value, key)
            except MisplacedRow as error:
                raise DiskError("damaged", str(error)) from error
            except DamagedRow:
                self._queue.spoil(key)
                self.wake.set()
                continue
            assert isinstance(value, bytes)
            members.append(value)
            good.append(key)
            count += header.count
            health += header.health
        if not good:
            return None
        suspect, parked = kind == Kind.SUSPECT, kind == Kind.PARKED
        batch = Batch(tuple(good), b"".join(members), count, suspect=suspect, parked=parked, health=health)
        return batch if self._queue.give_out(good) else None

    def _batch_of(self, block: Block) -> Batch:
        """The batch of a block in memory, which is in flight; not any more if there is no memory for its body."""
        suspect, parked = block.kind == Kind.SUSPECT, block.kind == Kind.PARKED
        empty = Batch((block.id,), b"", len(block.lines), block.live, suspect, parked, block.health)
        try:
            return replace(empty, body=compress(b"\n".join(block.lines) + b"\n"))
        except BaseException:
            self._queue.keep(empty)
            raise

    # What became of them

    def delivered(self, batch: Batch) -> None:
        """The server has it. A second answer about the same batch counts nothing."""
        if self._queue.delivered(batch):
            self.wake.set()

    def keep(self, batch: Batch, *, sent: bool = False) -> None:
        """It is tried again later. `sent`: the server may have it, and has not said so."""
        self._queue.keep(batch, sent=sent)
        self.wake.set()

    def delivered_lines(self, lines: Sequence[bytes]) -> None:
        """The server has these of a batch that is still out: they are told of if their time turns out to be wrong."""
        self._queue.delivered_lines(lines)

    def replace(self, batch: Batch, parts: Sequence[Part], dead: Sequence[DeadLetter], delivered: int = 0) -> None:
        """Put parts and dead letters in the place of a batch; `delivered` of its points the server has. It may have
        those of the parts, too, where it may have had the batch.

        Raises ValueError, and changes nothing, unless these are all of its points.
        """
        self._queue.replace(batch, parts, dead, delivered, self.settings.memory_points)
        self.wake.set()

    # Time

    def date_boot(self, boot_id: str, offset_ns: int, *, estimated: bool) -> None:
        """The time of a boot is known, or `estimated` (its points get the tag clock=estimated): Unix time is boot time
        plus the offset. Dates every point of the boot, in memory at once, on disk with the next commits.
        """
        self._queue.date(boot_id, offset_ns, estimated=estimated)
        self.wake.set()

    def withdraw(self, boot_id: str, stretches: Sequence[Stretch]) -> Wrong:
        """What of a boot was dated so had a wrong time: it waits for date_boot(), but for points of which nobody knows
        whether the server has them, whose time stays. Takes no time, whatever waits.
        """
        wrong = self._queue.withdraw(boot_id, stretches)
        self.wake.set()
        return wrong

    @property
    def withdrawals(self) -> int:
        """How often withdraw() was called."""
        return self._queue.withdrawals

    def undated(self) -> list[UndatedBoot]:
        """Boots with points on disk that have no time yet, the oldest first."""
        return self._queue.undated()

    def discard_boot(self, boot_id: str, reason: str) -> None:
        """Give up the points of a boot that wait for a time; they are counted as dropped for this reason."""
        if self._queue.discard_boot(boot_id, reason):
            self.wake.set()

    # The committer's

    def open(self) -> bool:
        """Open the disk, unless it is open. False if it refuses."""
        with self._disk_lock:
            return self._commits.ready()

    def alive_boot_ns(self) -> int:
        """Until when the disk was being opened or saved from damage; now, while it is: that takes its time."""
        return self._disk.alive_boot_ns()

    def next_deadline(self) -> int:
        """When the committer has to do something next, on the boot clock (ns)."""
        with self._found_lock:
            found = self._found
        return self._disk.health.retry_ns if found is not None else self._commits.next_ns()

    def commit_due(self, now_boot_ns: int) -> bool:
        return now_boot_ns >= self.next_deadline()

    def commit(self) -> bool:
        """Write what is due, and only that. False if the disk refused."""
        return self._flush(everything=self._commits.pressing())

    def commit_all(self) -> bool:
        """Write all that is in memory. False if the disk refuses: it is in memory still."""
        return self._flush(everything=True)

    def _flush(self, *, everything: bool, clean: bool = False) -> bool:
        with self._disk_lock:
            with self._found_lock:
                found, self._found = self._found, None
            if found is not None:
                self._commits.failed(found)
            return self._commits.flush(everything=everything, clean=clean)

    def _report(self, error: DiskError) -> None:
        """Another thread than the committer's found that the disk refuses: that one does what is to be done."""
        if self._disk.health.problem is None:
            with self._found_lock:
                self._found = error
            self.wake.set()

    def salvage(self) -> bool:
        """A moment's work on what was damaged. False: there is nothing left to do."""
        with self._disk_lock:
            return self._commits.salvage()

    def notice(self) -> bool:
        """Read again what another process has changed on disk. True if one had."""
        with self._disk_lock:
            return self._commits.noticed()

    def check_in_background(self) -> None:
        """After an unclean stop, have SQLite check its pages in a thread of its own; what it finds starts a rescue."""
        if not self._commits.unclean:
            return

        def check_pages() -> None:
            with contextlib.suppress(DiskError):  # it is closed by now
                if found := self._disk.store.sound():
                    self._report(DiskError("damaged", found))

        threading.Thread(target=check_pages, name="quick-check", daemon=True).start()

    def release(self) -> None:
        """Close this thread's connection; the next write opens one again."""
        with self._disk_lock:
            self._disk.release()

    def configure(self, settings: BufferSettings) -> None:
        """Go on with other settings; the points in memory keep the deadlines that they have. A commit under way may
        still follow the old ones: nobody waits for the disk here.
        """
        self.settings = self._commits.settings = settings
        self.wake.set()

    # Status

    def snapshot(self) -> BufferStatus:
        health = self._disk.health
        return replace(
            self._queue.status(),
            disk_bytes=health.used_bytes,
            file_bytes=health.file_bytes,
            disk_ok=health.problem is None,
            problem=health.problem,
            damaged_sets=health.damaged_sets,
            commit_s=health.commit_s,
        )

    def close(self) -> None:
        """Commit everything, save the counters as of a clean stop, give the folder back. Twice is fine."""
        if self._disk.health.retry_ns == _FOREVER:
            return
        saved = self._save_all() or self._save_all()  # what is damaged or gone is out of the way by now
        if saved and self._disk.orphan is not None:  # it was deleted so late that the first try found out
            self._save_all()
        if not saved and (lost := self.snapshot().pending_memory):
            log.error("buffer: %d points in memory are lost, as the disk refused to the last", lost)
        with self._disk_lock:
            self._disk.close()
            self._disk.health.retry_ns = _FOREVER
            self._disk.health.problem = "closed"
        self._hold.release()

    def _save_all(self) -> bool:
        """Try the disk at once, however lately it refused: there is no later."""
        with self._disk_lock:
            self._disk.health.retry_ns = 0
            self._commits.save_orphan(_ORPHAN_S)
        return self._flush(everything=True, clean=True)
