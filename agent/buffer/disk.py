"""The disk under the queue: opened, used while it is well, tried again when it refuses, replaced when it is damaged."""

from __future__ import annotations

import logging
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from dataclasses import dataclass
from pathlib import Path

from agent.buffer import folder as folders
from agent.buffer import recovery
from agent.buffer.disk_error import DiskError, Trouble, disk_error
from agent.buffer.ledger import Saved
from agent.buffer.store import Store

log = logging.getLogger(__name__)

RETRY_S = (1.0, 30.0)
"""The first and the longest wait before a disk that refused is tried again."""
IO_TRIES = 8
"""So often, two minutes in all, a disk that fails at reading or writing is tried with the same files: then it can be
these alone, a sector of a card, and they are set aside. Where that fails too, it is tried again after twice as many.
"""


@dataclass(slots=True)
class DiskHealth:
    """How the disk is doing. Times on the boot clock; `commit_s` is how long a commit takes of late."""

    problem: str | None = "not opened yet"
    trouble: Trouble | None = None
    since_ns: int | None = None
    retry_ns: int = 0
    wait_s: float = RETRY_S[0]
    commit_s: float = 0.0
    file_bytes: int = 0
    used_bytes: int = 0
    damaged_sets: int = 0

    def refused(self, error: DiskError, now_ns: int) -> None:
        """Remember it, say so when it begins and changes, and wait longer each time."""
        if self.since_ns is None or self.trouble != error.trouble:
            log.error("buffer: the disk refuses (%s): points wait in memory, delivery goes on", error)
        if self.since_ns is None:
            self.since_ns, self.wait_s = now_ns, RETRY_S[0]
        self.problem, self.trouble = str(error), error.trouble
        self.retry_ns = now_ns + int(self.wait_s * 1e9)
        self.wait_s = min(self.wait_s * 2, RETRY_S[1])

    def recovered(self, now_ns: int) -> None:
        """All is well."""
        if self.since_ns is not None:
            log.warning("buffer: the disk is used again, after %.0f s", (now_ns - self.since_ns) / 1e9)
        self.problem = self.trouble = self.since_ns = None
        self.retry_ns = 0


class Disk:
    """For one thread at a time, but for `store`, `health` and alive_boot_ns(), which any may read."""

    def __init__(self, folder: Path, hold: folders.Hold, boot_ns: Callable[[], int]) -> None:
        self.folder = folder
        self.health = DiskHealth()
        self._hold, self._boot_ns = hold, boot_ns
        self._store: Store | None = None
        self.orphan: Store | None = None
        """A database that was deleted while it was open: its rows are still there, through this connection."""
        self._busy, self._done_ns = False, 0
        self._io_failures, self._io_tries = 0, IO_TRIES

    @property
    def store(self) -> Store:
        """The open store. Raises DiskError while there is none."""
        if self._store is None:
            raise DiskError("io", self.health.problem or "the buffer is closed")
        return self._store

    @property
    def writable(self) -> bool:
        return self._store is not None and not self._store.read_only

    def alive_boot_ns(self) -> int:
        """Until when the disk was being opened or saved from damage; now, while it is: that takes minutes on a slow
        card, and the watchdog has to know.
        """
        return self._boot_ns() if self._busy else self._done_ns

    @contextmanager
    def taking_time(self) -> Iterator[None]:
        self._busy = True
        try:
            yield
        finally:
            self._done_ns, self._busy = self._boot_ns(), False

    def open(self, max_size: int, known: Saved) -> recovery.Opened:
        """Open the folder's store to write. `known` is the ledger as the agent has it in memory.

        Raises DiskError, or AlreadyRunning.
        """
        reader, self._store = self._store, None
        if reader is not None:
            reader.close()
        try:
            self._take_folder()
            opened = recovery.open_store(self.folder, max_size, known)
        except (OSError, ValueError) as error:
            raise disk_error(error) from error
        self._store = opened.store
        self.health.damaged_sets = len(folders.damaged_sets(self.folder))
        folders.fill_ballast(self.folder)
        return opened

    def _take_folder(self) -> None:
        """Somebody may have deleted it meanwhile, with the lock on it, and another agent have begun there."""
        folders.make(self.folder)
        self._hold.take()

    def read_from(self, store: Store) -> None:
        """A store that can only be read: what waits there is delivered, once in this process."""
        self._store = store

    def failed(self, error: DiskError, max_size: int) -> None:
        """Note that it refuses. A database that is damaged or gone is set aside, so that a new one can begin; one that
        cannot be written is kept open, to be read.
        """
        health = self.health
        health.refused(error, self._boot_ns())
        self._io_failures = self._io_failures + 1 if error.trouble == "io" else 0
        given_up = self._io_failures >= self._io_tries
        if (self._store is None and not given_up) or error.trouble in ("full", "locked", "readonly"):
            return
        store, self._store = self._store, None
        if error.trouble == "unlinked" and self.orphan is None:
            self.orphan = store
        elif store is not None:
            store.close()
        cut = error.trouble == "io" and recovery.cut_short(self.folder)
        if given_up:
            self._io_failures, self._io_tries = 0, self._io_tries * 2
        if error.trouble in ("damaged", "unlinked") or cut or given_up:
            try:
                self._take_folder()
                home = recovery.set_aside(self.folder, max_size)
                if home is not None and error.trouble == "unlinked":
                    folders.mark_read(home)  # what is left of it: the open connection has all
                health.retry_ns = 0  # the next commit begins a new one
            except (OSError, ValueError, folders.AlreadyRunning) as worse:
                log.error("buffer: what was damaged could not be set aside (%s)", worse)  # noqa: TRY400 - one line

    def forget_orphan(self) -> None:
        if self.orphan is not None:
            self.orphan.close()
            self.orphan = None

    def recovered(self) -> None:
        self._io_failures, self._io_tries = 0, IO_TRIES
        self.health.recovered(self._boot_ns())
        folders.fill_ballast(self.folder)  # it may have made the room without which the disk would have refused

    def measure(self) -> None:
        """How many bytes are in use. Raises DiskError."""
        self.health.used_bytes, self.health.file_bytes = self.store.usage()

    def release(self) -> None:
        """Close this thread's connection; the next write opens one again."""
        if self._store is not None:
            self._store.release()

    def close(self) -> None:
        for store in (self._store, self.orphan):
            if store is not None:
                store.close()
        self._store = self.orphan = None
