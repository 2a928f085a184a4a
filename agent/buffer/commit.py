"""Writing the buffer's state to disk: one transaction for rows, what is gone, dead letters and the counters."""

from __future__ import annotations

import logging
import time
from contextlib import contextmanager
from dataclasses import replace
from typing import TYPE_CHECKING

from agent.buffer import compaction, dead_letters, opening, retention
from agent.buffer import folder as folders
from agent.buffer.disk import DiskError, disk_error
from agent.buffer.disk_health import DiskHealth
from agent.buffer.doubts import Doubt, Doubts
from agent.buffer.ledger import SAVE_EVERY_S, Counters, Saved, uncounted_s
from agent.buffer.rows import MAX_LINES, Header, Row, pack

if TYPE_CHECKING:
    from collections.abc import Iterator, Sequence
    from pathlib import Path

    from agent.buffer.queue import Group, Plan, Rows, State
    from agent.buffer.stamps import BootClock
    from agent.buffer.store import Store
    from agent.config.settings import BufferSettings

log = logging.getLogger(__name__)


class Flusher:
    """Used by one thread at a time: the committer's, or whoever closes the buffer."""

    def __init__(
        self, folder: Path, settings: BufferSettings, state: State, clock: BootClock, hold: folders.Hold
    ) -> None:
        self.folder = folder
        self._hold = hold
        self.settings = settings
        self.state = state
        self.clock = clock
        self.boot_ns = clock.boot_ns
        self.health = DiskHealth()
        self.saved_ns = clock.boot_ns()
        self.unclean = False
        self._opening, self._opened_ns = False, 0
        self._open_store: Store | None = None
        self._started = False
        self._version = -1
        self._doubts = Doubts()

    # The store

    @property
    def store(self) -> Store:
        """The open store. Raises DiskError while there is none."""
        if self._open_store is None:
            raise DiskError("io", self.health.problem or "the buffer is closed")
        return self._open_store

    def ready(self) -> bool:
        """Open the store unless it is; False while the disk is given time."""
        if self._open_store is not None and not self._open_store.read_only:
            return True
        if self.boot_ns() < self.health.retry_ns:
            return False
        reader, self._open_store = self._open_store, None
        if reader is not None:
            reader.close()
        with self._taking_time():
            try:
                self._take_folder()
                self._open()
            except folders.AlreadyRunning as other:
                self.failed(DiskError("locked", str(other)))
            except (DiskError, OSError, ValueError) as error:
                self.failed(disk_error(error))
                self._read_only()
            else:
                return True
        return False

    def _take_folder(self) -> None:
        """Somebody may have deleted it meanwhile, with the lock on it, and another agent have begun there."""
        folders.make(self.folder)
        self._hold.take()

    @contextmanager
    def _taking_time(self) -> Iterator[None]:
        """Opening the disk, or saving it from damage, takes minutes on a slow card: the watchdog has to know."""
        self._opening = True
        try:
            yield
        finally:
            self._opened_ns, self._opening = self.boot_ns(), False

    def alive_boot_ns(self) -> int:
        """Now, while the disk is being opened; then when that ended."""
        return self.boot_ns() if self._opening else self._opened_ns

    def _read_only(self) -> None:
        """What cannot be written can perhaps be read: then what waits there is delivered, once in this process."""
        found = opening.open_reader(self.folder)
        if found is None:
            return
        store, rows, bad, saved = found
        saved = self._doubts.believed(rows, saved)
        with self.state.lock:
            if self.state.ledger.base.generation not in (0, saved.generation):
                store.close()  # not what we know: rather wait than deliver twice
                return
            self.state.take_over(rows, bad, saved)
        self._open_store = store

    def _open(self) -> None:
        state = self.state
        with state.lock:
            known = state.ledger.base if state.ledger.base.generation else None
        opened = opening.open_store(self.folder, self.settings, known)
        saved = opened.saved
        if not self._started:
            self._started = True
            self.unclean = not saved.clean
            lost_s = uncounted_s(saved, state.boot_id, self.boot_ns(), time.time())
            with state.lock:
                state.ledger.count(Counters(uncounted_s=lost_s))
                if saved.boot_id == state.boot_id:
                    state.stamps.floor_ms = saved.last_ms
                state.stamps.latest_ms = max(state.stamps.latest_ms, saved.last_ms)
                state.dating = {**saved.dating, **state.dating}
        saved = self._doubts.believed(opened.rows, saved)
        with state.lock:
            state.take_over(opened.rows, opened.bad, saved)
        self._open_store = opened.store
        self.health.damaged_sets = len(folders.damaged_sets(self.folder))
        if opened.note:
            log.warning("buffer: %s", opened.note)
        folders.fill_ballast(self.folder)
        self.commit(state.plan(everything=False), force=True)  # from now on, a stop without a last save is unclean
        if self.health.since_ns is None:
            self.health.problem = None

    # Writing

    @property
    def save_due_ns(self) -> int:
        """When the counters must be saved even if nothing else is written."""
        return self.saved_ns + int(SAVE_EVERY_S * 1e9)

    def flush(self, *, everything: bool, clean: bool = False) -> bool:
        """Commit what is due. False when the disk refuses; nothing is lost from memory then."""
        if not self.ready():
            return False
        try:
            if not clean:
                retention.before(self)
            self.commit(
                self.state.plan(everything=everything), clean=clean, force=clean or self.boot_ns() >= self.save_due_ns
            )
            if not clean:
                self._maintain()
            self.health.used_bytes, self.health.file_bytes = self.store.usage()
        except DiskError as error:
            return self._second_try(error, everything=everything, clean=clean)
        self._recovered()
        return True

    def _second_try(self, error: DiskError, *, everything: bool, clean: bool) -> bool:
        """A full disk: the ballast makes room for removing rows, whose place new rows take."""
        if error.trouble == "full":
            folders.drop_ballast(self.folder)
            try:
                self.commit(self.state.plan(everything=False))
                self.commit(self.state.plan(everything=everything), clean=clean, force=clean)
            except DiskError as again:
                error = again
            else:
                return True
        self.failed(error)
        return False

    def commit(
        self, plan: Plan, extra: Sequence[compaction.Merge] = (), *, force: bool = False, clean: bool = False
    ) -> None:
        """Write a plan and rewritten rows. Raises DiskError, and then nothing has changed."""
        state = self.state
        merges = list(extra)
        began = time.monotonic()
        doubt: Doubt | None = None
        try:
            packed = [_pack(group) for group in plan.groups]
            letters = dead_letters.pack(plan.letters)
            store = self.store
            if plan.groups and not extra:
                merges += compaction.choose(state, store)
            if plan.empty and not merges and not force:
                return
            stored: list[list[tuple[int, Header, int]]] = []
            free = set(plan.gone)
            with store.transaction():
                found, undone = self._found(store)
                key, dead = found.last_key, found.last_dead
                taken: set[int] = set()
                for gone in plan.gone:
                    store.delete(gone)
                for group, rows in zip(plan.groups, packed, strict=True):
                    entries = []
                    for row in rows:
                        place = next((k for k in group.place if k in free and k not in taken), None)
                        if place is None:
                            key += 1
                            place = key
                        taken.add(place)
                        store.put(place, row.value, row.tag)
                        entries.append((place, row.header, len(row.value)))
                    stored.append(entries)
                dead_rows = []
                for row in letters:
                    dead += 1
                    store.put(dead_letters.BASE + dead, row.value, row.tag)
                    dead_rows.append((dead_letters.BASE + dead, row.header, len(row.value)))
                for merge in merges:
                    merge.write(store)
                change = sum((merge.lost for merge in merges), plan.change)
                saved = self._saved(replace(found, last_key=key, last_dead=dead), change, clean=clean)
                store.put(opening.LEDGER, saved.encode())
                doubt = Doubt(saved, plan.change, (*taken, *(number for number, _, _ in dead_rows)))
            seconds = time.monotonic() - began
            foreign = undone or found.generation != state.ledger.base.generation
            fresh = self._all_of_it() if foreign else None
        except BaseException:
            if doubt is not None:
                self._doubts.add(doubt)
            state.undo(plan)
            compaction.undo(state, merges)
            raise
        self._doubts.clear()
        with state.lock:
            compaction.done(state, merges)
            state.ledger.saved(saved, change)
            state.gone.difference_update(plan.gone)
            for group, entries in zip(plan.groups, stored, strict=True):
                state.written(group, entries)
            for entry in dead_rows:
                state.rows.add(*entry)
            kept = set(map(id, plan.letters))
            state.letters = [letter for letter in state.letters if id(letter) not in kept]
            if fresh is not None:
                state.take_over(*fresh)
        self.health.commit_s = max(seconds, self.health.commit_s * 0.8)
        self.saved_ns = self.boot_ns()
        self._version = store.version()

    def _found(self, store: Store) -> tuple[Saved, bool]:
        """The ledger as it stands on disk, inside a transaction, and whether a transaction in doubt was undone."""
        try:
            found = Saved.decode(store.get(opening.LEDGER))
        except ValueError:
            return self.state.ledger.base, True
        undone = self._doubts.undo(store, found)
        return undone or found, undone is not None

    def _saved(self, found: Saved, change: Counters, *, clean: bool) -> Saved:
        state = self.state
        with state.lock:
            return replace(
                found,
                counters=found.counters + change,
                generation=found.generation + 1,
                clean=clean,
                boot_id=state.boot_id,
                boot_ns=self.boot_ns(),
                wall_s=time.time(),
                last_ms=max(found.last_ms, state.stamps.latest_ms),
                dating=dict(state.dating),
            )

    def _maintain(self) -> None:
        """Date what waits to be dated, set unreadable rows aside, keep the dead letters within their bound."""
        compaction.date_rows(self)
        compaction.repair(self)
        retention.after(self)
        dead_letters.bound(self.state, self.settings.max_rejected)

    # Other processes

    def noticed(self) -> bool:
        """Read the index again if another process has changed the database. True if it had."""
        if self._open_store is None or self._open_store.read_only:
            return False
        try:
            version = self.store.version()
            if version == self._version:
                return False
            fresh = self._all_of_it()
            with self.state.lock:
                self.state.take_over(*fresh)
            self._version = version
        except DiskError as error:
            self.failed(error)
            return False
        return True

    def _all_of_it(self) -> tuple[Rows, set[int], Saved]:
        """Index and ledger as they are on disk now."""
        store = self.store
        with store.transaction():  # nothing changes in between
            rows, bad = opening.scan(store)
            try:
                return rows, bad, self._doubts.believed(rows, Saved.decode(store.get(opening.LEDGER)))
            except ValueError:
                return rows, bad, self.state.ledger.base

    # Trouble

    def failed(self, error: DiskError) -> None:
        """Note that the disk refuses. A database that is damaged or gone is replaced at once; one that cannot be
        written is kept open, to be read.
        """
        health = self.health
        health.refused(error, self.boot_ns())
        if self._open_store is None or error.trouble in ("full", "locked", "readonly"):
            return
        store, self._open_store = self._open_store, None
        if error.trouble in ("damaged", "unlinked") or (error.trouble == "io" and opening.cut_short(self.folder)):
            with self.state.lock:
                known = self.state.ledger.base
            try:
                self._take_folder()
                with self._taking_time():
                    opening.rescue(store, self.folder, self.settings, known, deleted=error.trouble == "unlinked")
                health.retry_ns = 0
            except (DiskError, OSError, folders.AlreadyRunning) as worse:
                log.error("buffer: what was damaged could not be set aside (%s)", worse)  # noqa: TRY400 - one line
        store.close()

    def _recovered(self) -> None:
        if self.health.recovered(self.boot_ns()):
            folders.fill_ballast(self.folder)

    def release(self) -> None:
        """Close this thread's connection."""
        if self._open_store is not None:
            self._open_store.release()

    def close(self) -> None:
        if self._open_store is not None:
            self._open_store.close()
            self._open_store = None


def _pack(group: Group) -> list[Row]:
    """One row for what is in flight or was refused, else rows of up to MAX_LINES."""
    lines = group.lines
    single = len(group.blocks) == 1 and (group.blocks[0].in_flight or not group.blocks[0].live)
    step = len(lines) if single else MAX_LINES
    return [pack(lines[n : n + step], group.kind, boot=group.boot) for n in range(0, len(lines), step)]
