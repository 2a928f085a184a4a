"""What is known of this boot and the ones before it: their order and when their time was good.

Kept in `clock.json` in the state folder, written whole when the time becomes good and then at most every 15 minutes,
to spare the flash. A damaged file, which its checksum tells, is set aside.
"""

from __future__ import annotations

import ctypes
import logging
import os
import sys
import uuid
from collections.abc import Iterable, Mapping
from dataclasses import asdict, dataclass, fields, replace
from pathlib import Path
from threading import Lock
from typing import cast, get_args

from agent.clock.sources import BUILT_NS, SECOND, Evidence
from agent.clock.timeline import LANES, Stretch, stamp_offset
from agent.util.atomic import read_regular, set_aside, sweep_temporaries, write_atomic
from agent.util.checked import seal, unseal

log = logging.getLogger(__name__)

FILE = "clock.json"
SAVE_EVERY_NS = 900 * SECOND
MOVED_FAR_NS = SECOND // 10  # less than a restart takes: the order of times holds also without it
_KEPT = 512
_BOOT_ID = Path("/proc/sys/kernel/random/boot_id")


def current_boot_id() -> str:
    """The kernel's id of this boot; where it is hidden, an id of this process (each start then counts as a boot)."""
    try:
        if sys.platform == "darwin":
            text = ctypes.create_string_buffer(64)
            size = ctypes.c_size_t(64)
            if not ctypes.CDLL(None).sysctlbyname(b"kern.bootsessionuuid", text, ctypes.byref(size), None, 0):
                return str(uuid.UUID(text.value.decode()))
        return str(uuid.UUID(_BOOT_ID.read_text().strip()))
    except (OSError, ValueError, AttributeError):
        return str(uuid.uuid4())


@dataclass(frozen=True, slots=True)
class Boot:
    """A boot. While its time was never known, only its id.

    `offset_ns` (Unix time less boot clock) with `evidence` and `error_ns` is the last good one, at `saved_boot_ns`,
    when points got the time `given_ns`; it was good since `since_boot_ns`, first by `first_offset_ns` within
    `first_error_ns`. No point of it that was dated is later than `until_boot_ns`. `placed_ns` is the offset that it
    was given by estimate. `first_lane` and `lane` are the lanes of its stamps (timeline.py), at first and now.
    """

    id: str
    evidence: Evidence | None = None
    offset_ns: int = 0
    error_ns: int = 0
    since_boot_ns: int = 0
    saved_boot_ns: int = 0
    until_boot_ns: int = 0
    given_ns: int = 0
    first_offset_ns: int = 0
    first_error_ns: int = 0
    placed_ns: int = 0
    first_lane: int = 0
    lane: int = 0

    @property
    def good(self) -> bool:
        return self.evidence is not None

    @property
    def known_until_ns(self) -> int:
        """Unix time that no dated point of this boot is later than."""
        return self.until_boot_ns + max(self.offset_ns, self.given_ns - self.saved_boot_ns)

    @property
    def first_stamp_offset_ns(self) -> int:
        """By what its points are dated that had no time."""
        return stamp_offset(self.first_offset_ns, self.first_lane)

    @property
    def stretches(self) -> tuple[Stretch, ...]:
        """What was dated in it, as far as is known."""
        first, last = self.first_stamp_offset_ns, stamp_offset(self.offset_ns, self.lane)
        end = self.known_until_ns + SECOND
        return (Stretch(first, end, first), *((Stretch(last, end, last),) if last != first else ()))


class Boots:
    """The boots in order, this one last. Thread-safe. The disk raises nothing: a failed save is tried again."""

    def __init__(self, folder: Path | None, boot_id: str) -> None:
        self.boot_id = boot_id
        self.folder = folder
        self._path = folder / FILE if folder else None
        self._lock = Lock()
        self._failing = False
        self._lanes: dict[int, int] = {}  # the latest stamp of each lane, of stretches that are over
        found = self._load()
        self._here = next((b for b in found if b.id == boot_id), Boot(boot_id))
        self._before = tuple(b for b in found if b.id != boot_id)
        self._due = self._here not in found

    def order(self) -> tuple[Boot, ...]:
        """All known boots, oldest first; the last one is this."""
        with self._lock:
            return (*self._before, self._here)

    @property
    def known_ns(self) -> int:
        """The latest Unix time that was known before this boot; where none was, when this program was written."""
        with self._lock:
            return max((b.saved_boot_ns + b.offset_ns for b in self._before if b.good), default=BUILT_NS)

    def free_lane(self, from_ns: int) -> int:
        """The first lane on which no stamp is known that is as late as this Unix time."""
        with self._lock:
            taken = {lane for lane, last_ns in self._lanes.items() if last_ns >= from_ns}
            taken |= {b.lane for b in self._before if b.good and b.known_until_ns >= from_ns}
        return next((lane for lane in range(LANES) if lane not in taken), LANES - 1)

    def used(self, lane: int, last_ns: int) -> None:
        """A lane has stamps up to this one, and its offset is left. Written with the next save."""
        with self._lock:
            self._leave(lane, last_ns)

    def _leave(self, lane: int, last_ns: int) -> None:
        self._lanes[lane] = max(last_ns, self._lanes.get(lane, last_ns))

    def doubt(self, boot_id: str) -> Boot:
        """Forget what a boot's time was, as it was wrong; save that at once. What was known of it."""
        with self._lock:
            known = next(b for b in (*self._before, self._here) if b.id == boot_id)
            if known.good:
                self._leave(known.lane, known.known_until_ns)
            if boot_id == self.boot_id:
                self._here = Boot(boot_id)
            self._before = tuple(Boot(boot_id) if b.id == boot_id else b for b in self._before)
            self._save()
        return known

    def remember(self, known: Boot) -> None:
        """Save now when the time became good or by other evidence, or moved by over 0.1 s; else every 15 min."""
        with self._lock:
            here = self._here
            due = (
                self._due
                or here.evidence != known.evidence
                or here.since_boot_ns != known.since_boot_ns
                or here.lane != known.lane
                or abs(here.offset_ns - known.offset_ns) > MOVED_FAR_NS
                or known.saved_boot_ns - here.saved_boot_ns >= SAVE_EVERY_NS
            )
            if due:
                self._here = replace(known, until_boot_ns=known.saved_boot_ns + SAVE_EVERY_NS)
                self._lanes = {lane: last for lane, last in self._lanes.items() if last >= known.first_offset_ns}
                self._save()

    def begin(self) -> None:
        """Save that this boot comes after the others, if that is not yet known: once a boot."""
        with self._lock:
            if self._due:
                self._save()

    def close(self, known: Boot) -> None:
        """A clean end: nothing of this boot is dated later than now."""
        with self._lock:
            self._here = replace(known, until_boot_ns=known.saved_boot_ns)
            self._save()

    def place(self, starts: Mapping[str, int]) -> None:
        """Save where boots were put, before points are dated by that: after a power cut it must be the same."""
        with self._lock:
            before = tuple(replace(b, placed_ns=starts.get(b.id, b.placed_ns)) for b in self._before)
            if before != self._before:
                self._before = before
                self._save()

    def forget(self, ids: Iterable[str]) -> None:
        """Drop earlier boots that nothing waits for, but the last good one. Written with the next save."""
        with self._lock:
            last_good = next((b.id for b in reversed(self._before) if b.good), None)
            gone = set(ids) - {last_good}
            for boot in self._before:
                if boot.id in gone and boot.good:
                    self._leave(boot.lane, boot.known_until_ns)
            self._before = tuple(b for b in self._before if b.id not in gone)

    def _load(self) -> list[Boot]:
        if self._path is None:
            return []
        try:
            sweep_temporaries(self._path)
            data = unseal(read_regular(self._path), unsealed=1)  # that of 0.1.0 had no checksum
            self._lanes = {int(lane): int(last_ns) for lane, last_ns in data.get("lanes", {}).items()}
            return [_boot(b) for b in data["boots"]][-_KEPT:]
        except FileNotFoundError:
            return []
        except (OSError, ValueError, TypeError, KeyError, AttributeError) as error:
            folder = os.path.isdir(self._path)  # noqa: PTH112 - Path's raises where one may not look
            if isinstance(error, OSError) and not folder:  # the next save comes in its place
                log.warning("%s cannot be read (%s): earlier boots are not known", self._path, error.strerror)
                return []
            try:
                set_aside(self._path, error)
            except OSError as problem:
                log.warning("%s is damaged (%s) and cannot be moved: %s", self._path, error, problem.strerror)
            return []

    def _save(self) -> None:
        if self._path is None:
            return
        boots = [asdict(b) for b in (*self._before, self._here)[-_KEPT:]]
        lanes = {str(lane): last_ns for lane, last_ns in self._lanes.items()}
        try:
            write_atomic(self._path, seal({"version": 2, "boots": boots, "lanes": lanes}))
        except OSError as error:
            if not self._failing:
                log.warning("%s cannot be written (%s): tried again", self._path, error.strerror)
            self._failing = self._due = True
            return
        self._failing = self._due = False


_NUMBERS = tuple(field.name for field in fields(Boot) if field.name not in ("id", "evidence"))


def _boot(data: object) -> Boot:
    """A Boot of what the file says. Raises ValueError, TypeError or KeyError for anything else."""
    saved = cast("Mapping[str, object]", data)
    evidence, name = saved["evidence"], saved["id"]
    numbers = [saved.get(k, 0) if k in ("lane", "first_lane") else saved[k] for k in _NUMBERS]
    if not isinstance(name, str) or not (evidence is None or evidence in get_args(Evidence)):
        raise ValueError("not a boot")
    if not all(type(n) is int and abs(n) < 2**63 for n in numbers):
        raise ValueError("not a time")
    return Boot(name, cast("Evidence | None", evidence), *cast("list[int]", numbers))
