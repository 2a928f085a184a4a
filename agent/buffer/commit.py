"""What the committer does on disk: write what is due, date and merge rows, keep within the bounds, notice others."""

from __future__ import annotations

import contextlib
import logging
import time
from collections.abc import Callable, Iterator, Sequence

from agent.buffer import folder as folders
from agent.buffer import ledger as counters
from agent.buffer import recovery, retention
from agent.buffer.disk import Disk
from agent.buffer.disk_error import DiskError
from agent.buffer.index import Entry
from agent.buffer.ledger import SAVE_EVERY_S
from agent.buffer.pins import Gone
from agent.buffer.plan import Plan, Rewrite, crowded, due_ns, tail_ns
from agent.buffer.queue import Queue
from agent.buffer.rows import (
    MAX_LINES,
    DamagedRow,
    Kind,
    MisplacedRow,
    Ranges,
    count_health,
    joined,
    pack,
    unpack,
)
from agent.buffer.salvage import Salvage
from agent.buffer.transaction import Transactions
from agent.clock.clock import Clock
from agent.config.settings import BufferSettings

log = logging.getLogger(__name__)

DATING_S = 2.0
"""Seconds that a commit may be followed by dating rows …"""
HURRY_S, LEISURE_S = 1.0, 2.0
"""… and be preceded and followed by making room."""


class Commits:
    """For one thread at a time: the committer's, or whoever closes the buffer."""

    def __init__(self, queue: Queue, disk: Disk, settings: BufferSettings, clock: Clock) -> None:
        self.settings = settings
        self.unclean = False
        """Whether the run before this one ended without a last save."""
        self._queue, self._disk, self._clock = queue, disk, clock
        self._transactions = Transactions(queue)
        self._saved_ns = clock.boot_ns()
        self._begun = False
        self._version = -1
        self._salvage = Salvage(disk, queue, self._transaction)

    # When

    def next_ns(self) -> int:
        """When there is something to write next, on the boot clock."""
        health, work = self._disk.health, self._queue.work()
        if health.problem is not None:  # not opened yet, or to be tried again
            return health.retry_ns
        tail = tail_ns(work.deadline_ns, self._window_ns, health.commit_s)
        return max(due_ns(work, Gone.MANY, self.settings.memory_points, tail, self._save_ns), health.retry_ns)

    def pressing(self) -> bool:
        """Whether what is in memory must be committed now: then all other work on the disk waits for its next turn."""
        work = self._queue.work()
        tail = tail_ns(work.deadline_ns, self._window_ns, self._disk.health.commit_s)
        return crowded(work.points, self.settings.memory_points) or (tail is not None and self._clock.boot_ns() >= tail)

    @property
    def _window_ns(self) -> int:
        return int(self.settings.loss_window * 1e9)

    @property
    def _save_ns(self) -> int:
        """When the counters must be saved even if nothing else is written."""
        return self._saved_ns + int(SAVE_EVERY_S * 1e9)

    # Opening

    def ready(self) -> bool:
        """Open the disk unless it is; False while it is given time, or refuses."""
        disk = self._disk
        if disk.writable:
            return True
        if self._clock.boot_ns() < disk.health.retry_ns:
            return False
        with disk.taking_time():
            try:
                self._adopt(disk.open(self.settings.max_size, self._queue.saved))
                self._transaction(force=True)  # from now on, a stop without a last save is unclean
            except folders.AlreadyRunning as other:
                self.failed(DiskError("locked", str(other)))
                return False
            except DiskError as error:
                self.failed(error)
                self._read_only()
                return False
        if disk.health.since_ns is None:
            disk.health.problem = None
        return True

    def _adopt(self, opened: recovery.Opened) -> None:
        if not self._begun:
            self._begun = True
            self.unclean = not opened.saved.clean
            self._queue.begin(opened.saved, time.time())
        saved = self._transactions.believed(opened.rows, opened.saved)
        missing = self._queue.adopt(opened.rows, opened.bad, saved)
        if missing:
            log.warning("buffer: %d points that were counted are not there: they count as damaged until found", missing)

    def _read_only(self) -> None:
        """What cannot be written can perhaps be read: then what waits there is delivered, once in this process."""
        found = recovery.open_reader(self._disk.folder)
        if found is None:
            return
        saved = self._transactions.believed(found.rows, found.saved)
        if self._queue.saved.generation not in (0, saved.generation):
            found.store.close()  # not what we know: rather wait than deliver twice
            return
        self._queue.take_over(found.rows, found.bad, saved)
        self._disk.read_from(found.store)

    # Writing

    def flush(self, *, everything: bool, clean: bool = False) -> bool:
        """Commit what is due. False when the disk refuses; nothing is lost from memory then."""
        if not self.ready():
            return False
        try:
            if not clean:
                self._make_room_before()
            self._transaction(everything=everything, clean=clean, force=clean or self._clock.boot_ns() >= self._save_ns)
            if not clean:
                self._date_rows()
                self._set_bad_rows_aside()
                self._make_room_after()
                self._queue.forget_letters(self.settings.max_rejected)
            self._disk.measure()
        except DiskError as error:
            return self._second_try(error, everything=everything, clean=clean)
        self._disk.recovered()
        return True

    def _second_try(self, error: DiskError, *, everything: bool, clean: bool) -> bool:
        """A full disk: the ballast makes room for removing rows, whose place new rows take."""
        if error.trouble == "full":
            folders.drop_ballast(self._disk.folder)
            try:
                self._transaction()
                self._transaction(everything=everything, clean=clean, force=clean)
            except DiskError as again:
                error = again
            else:
                return True
        self.failed(error)
        return False

    def failed(self, error: DiskError) -> None:
        """The disk refused."""
        self._disk.failed(error, self.settings.max_size)
        self._salvage.begin_again()

    def _transaction(
        self, more: Plan | None = None, *, everything: bool = False, force: bool = False, clean: bool = False
    ) -> None:
        """Write what the queue plans, and more. Raises DiskError; what is not on disk then is in memory still."""
        store = self._disk.store
        with self._queue.writing(everything=everything) as plan, contextlib.ExitStack() as held:
            if more is not None:
                plan.add(more)
            if plan.groups and not plan.rewrites:
                plan.rewrites += held.enter_context(self._merging())
            if plan.empty and not force:
                return
            seconds = self._transactions.write(store, plan, clean=clean)
        health = self._disk.health
        health.commit_s = max(seconds, health.commit_s * 0.8)
        self._saved_ns = self._clock.boot_ns()
        self._version = store.version()

    # Rewriting

    @contextlib.contextmanager
    def _merging(self) -> Iterator[list[Rewrite]]:
        """Many small rows as one, in the transaction of the last of them."""
        runs = self._queue.mergeable()
        keys = [entry.key for run in runs for entry in run]
        with self._queue.hold(keys) as held:
            rewrites = []
            for run in runs if held else ():
                content = self._content(run)
                if content is not None:
                    lines, replaced = content
                    row = pack(lines, Kind.PENDING, thin=run[0].thin, replaced=replaced)
                    rewrites.append(Rewrite(_keys(run), row))
            yield rewrites

    def _content(self, run: Sequence[Entry]) -> tuple[list[bytes], Ranges] | None:
        """The lines of these rows, which are held, and the keys of all that are in them but the first. None if one is
        unreadable: it is spoilt.
        """
        lines: list[bytes] = []
        replaced = [(entry.key, entry.key) for entry in run[1:]]
        for entry in run:
            try:
                header, more = unpack(*self._disk.store.read(entry.key), entry.key)
            except MisplacedRow as error:
                raise DiskError("damaged", str(error)) from error
            except DamagedRow:
                self._queue.spoil(entry.key)
                return None
            lines += more
            replaced += header.replaced
        return lines, joined(replaced)

    def _rewrite(self, run: Sequence[Entry], make: Callable[[list[bytes], Ranges], Rewrite]) -> None:
        """Put one row in the place of a run, unless delivery was faster, or one cannot be read."""
        with self._queue.hold(_keys(run)) as held:
            content = self._content(run) if held else None
            if content is not None:
                self._transaction(Plan(rewrites=[make(*content)]))

    def _date_rows(self) -> None:
        """Date the rows whose boot's offset is known by now, a transaction for up to MAX_LINES points.

        At least one; then as many as fit into DATING_S and before the loss window: the others have their turn after.
        """
        until = time.monotonic() + DATING_S
        while (found := self._queue.dateable()) is not None:
            self._rewrite(found.run, found.rewrite)
            if time.monotonic() > until or self.pressing():
                return

    def _set_bad_rows_aside(self) -> None:
        """Take unreadable rows out: what still unpacks stays, the rest is kept as a file and counted as dropped."""
        for key in self._queue.work().bad:
            lines = recovery.readable(self._disk.folder, key, *self._disk.store.read(key))
            self._queue.set_aside(key, lines)
            log.warning("buffer: row %d was damaged: %d of its lines are still readable", key, len(lines))

    # Room

    def _excess(self) -> int:
        work = self._queue.work()
        return retention.excess(self._disk.store.usage()[0], work.points, work.letter_bytes, self.settings.max_size)

    def _make_room_before(self) -> None:
        """Where the newest points are to go, they go now; else only an excess beyond the reserve is taken down at once,
        as the loss window runs.
        """
        over = self._excess()
        if over > 0 and self.settings.when_full == "drop_newest":
            self._queue.drop_newest()
        elif over > retention.RESERVE_BYTES // 2:
            self._reduce(retention.RESERVE_BYTES // 2, HURRY_S, lambda: False)

    def _make_room_after(self) -> None:
        """What is too old, and what is too much, for a while; the rest after the next commit."""
        now = self._clock.date(self._clock.boot_ns())
        if self.settings.max_age is not None and now is not None:
            before_ms = now // 1_000_000 - int(self.settings.max_age * 1000)
            self._queue.drop_rows(retention.aged(self._queue.view(), before_ms), "max_age")
        if self.settings.when_full != "drop_newest":
            self._reduce(0, LEISURE_S, self.pressing)

    def _reduce(self, allowed: int, seconds: float, pressing: Callable[[], bool]) -> None:
        """Thin or drop the oldest rows until the excess is at most `allowed` bytes, time is up or something presses."""
        until = time.monotonic() + seconds
        while (over := self._excess() - allowed) > 0 and time.monotonic() < until and not pressing():
            if self.settings.when_full == "thin" and self._thin():
                continue
            if not self._queue.drop_rows(retention.oldest(self._queue.view(), over), "max_size"):
                return
            self._transaction()

    def _thin(self) -> bool:
        """Halve the next of the oldest points. False if nothing can be thinned any more."""
        rows = retention.next_to_thin(self._queue.view().oldest_first(), MAX_LINES)
        if not rows:
            return False
        run, kind, boot = [row.entry for row in rows], rows[0].kind, rows[0].boot

        def make(lines: list[bytes], replaced: Ranges) -> Rewrite:
            kept = retention.thinned(lines)
            lost = counters.dropped("thinned", len(lines) - len(kept), count_health(lines) - count_health(kept))
            return Rewrite(_keys(run), pack(kept, kind, boot=boot, thin=run[0].thin + 1, replaced=replaced), lost)

        self._rewrite(run, make)
        return True

    def salvage(self) -> bool:
        """A moment's work on what was damaged. False: there is nothing left to do, or the disk refuses."""
        if not self._disk.writable or self._disk.health.problem is not None:
            return False
        try:
            return self._salvage.step()
        except DiskError as error:
            self.failed(error)
            return True

    def save_orphan(self, seconds: float) -> None:
        """Take what is left of a database that was deleted: with this process its last connection ends."""
        until = time.monotonic() + seconds
        while self._disk.orphan is not None and time.monotonic() < until and self.salvage():
            pass

    # Other processes

    def noticed(self) -> bool:
        """Read the index again if another process has changed the database. True if it had."""
        if not self._disk.writable:
            return False
        try:
            version = self._disk.store.version()
            if version == self._version and not self._transactions.behind:
                return False
            self._queue.take_over(*self._transactions.all_of_it(self._disk.store))
            self._version = version
        except DiskError as error:
            self.failed(error)
            return False
        return True


def _keys(run: Sequence[Entry]) -> tuple[int, ...]:
    return tuple(entry.key for entry in run)
