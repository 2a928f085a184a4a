"""What every script measures with: samples, figures, and what /proc says of a process."""

from __future__ import annotations

import os
import statistics
import time
from contextlib import contextmanager
from dataclasses import dataclass, field
from pathlib import Path
from typing import TYPE_CHECKING

if TYPE_CHECKING:
    from collections.abc import Iterable, Iterator


@dataclass(frozen=True, slots=True)
class Sample:
    """The median, least and greatest of some runs."""

    median: float
    low: float
    high: float
    runs: int

    @classmethod
    def of(cls, values: Iterable[float]) -> Sample:
        """ValueError where there is none."""
        known = sorted(values)
        if not known:
            raise ValueError("no run, no figure")
        return cls(statistics.median(known), known[0], known[-1], len(known))


@dataclass(frozen=True, slots=True)
class Reference:
    """What something else takes for the same work in the same run; without a sample `note` says why."""

    name: str
    sample: Sample | None
    note: str = ""


@dataclass(frozen=True, slots=True)
class Figure:
    """One line of the table. `target` is what must be reached: at most, or `at_least`. `note` says why there is no
    sample. `growth` is what grows and the number of points that wait, where the figure is one of such a row.
    """

    name: str
    unit: str
    sample: Sample | None
    target: float | None = None
    at_least: bool = False
    references: tuple[Reference, ...] = ()
    note: str = ""
    growth: tuple[str, int] | None = None

    @property
    def reached(self) -> bool | None:
        """None where there is nothing to reach, or nothing was measured."""
        if self.sample is None or self.target is None:
            return None
        return self.sample.median >= self.target if self.at_least else self.sample.median <= self.target


@dataclass(slots=True)
class Runs:
    """Values by name, collected run by run."""

    values: dict[str, list[float]] = field(default_factory=dict)

    def add(self, name: str, value: float) -> None:
        self.values.setdefault(name, []).append(value)

    def sample(self, name: str) -> Sample | None:
        found = self.values.get(name)
        return Sample.of(found) if found else None

    def reference(self, name: str, note: str = "") -> Reference:
        return Reference(name, self.sample(name), note)


def unmeasured(name: str, unit: str, why: str, target: float | None = None, *, at_least: bool = False) -> Figure:
    return Figure(name, unit, None, target, at_least=at_least, note=why)


@contextmanager
def timed(runs: Runs, name: str, work: float = 0.0) -> Iterator[None]:
    """Adds the seconds that the block took, or with `work` how much of it was done a second."""
    began = time.perf_counter()
    yield
    seconds = time.perf_counter() - began
    runs.add(name, work / seconds if work else seconds)


def written_bytes(pid: int | str = "self") -> int:
    """Bytes that a process has caused to be written to a disk so far. OSError where the kernel does not say."""
    for line in Path(f"/proc/{pid}/io").read_text().splitlines():
        if line.startswith("write_bytes: "):
            return int(line.split()[1])
    raise OSError("this kernel does not count the bytes written")


def memory_mb(pid: int | str = "self", key: str = "VmHWM") -> float:
    """The peak of the resident memory (`VmRSS`: what it is now) in MB of 1,000,000 bytes."""
    for line in Path(f"/proc/{pid}/status").read_text().splitlines():
        if line.startswith(f"{key}:"):
            return int(line.split()[1]) * 1024 / 1e6
    raise OSError("no such process, or no Linux")


def cpu_s(pid: int) -> float:
    """Seconds of CPU, user and system, that a process has used."""
    parts = Path(f"/proc/{pid}/stat").read_text().rpartition(")")[2].split()
    return (int(parts[11]) + int(parts[12])) / os.sysconf("SC_CLK_TCK")


def why_not_here(folder: Path) -> str | None:
    """Why bytes written cannot be measured in this folder; None if they can."""
    try:
        written_bytes()
    except OSError:
        return "needs Linux with /proc/PID/io"
    os.sync()
    before = written_bytes()
    probe = folder / "probe"
    with probe.open("wb") as file:
        file.write(b"x" * 65536)
        file.flush()
        os.fsync(file.fileno())
    probe.unlink()
    return None if written_bytes() > before else f"{folder} is not on a disk: name a folder that is with --folder"
