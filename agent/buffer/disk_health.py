"""How the disk is doing, and when one that refused is tried again."""

from __future__ import annotations

import logging
from dataclasses import dataclass
from typing import TYPE_CHECKING

if TYPE_CHECKING:
    from agent.buffer.disk import DiskError, Trouble

log = logging.getLogger(__name__)

RETRY_S = (1.0, 30.0)
"""The first and the longest wait before a disk that refused is tried again."""


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

    def recovered(self, now_ns: int) -> bool:
        """All is well. True if it was not before."""
        before = self.since_ns
        if before is not None:
            log.warning("buffer: the disk is used again, after %.0f s", (now_ns - before) / 1e9)
        self.problem = self.trouble = self.since_ns = None
        self.wait_s, self.retry_ns = RETRY_S[0], 0
        return before is not None
