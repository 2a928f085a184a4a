"""How cost grows with the number of points that wait: drain, start, memory and disk, from ten thousand to ten million.

The backlog of each number is made once. The start is the whole agent's, with a server that refuses everything; the
drain works on a copy, in a process of its own.
"""

from __future__ import annotations

import json
import shutil
import sys
import time
from pathlib import Path
from typing import TYPE_CHECKING

from agent.registration.target import Target
from agent.util.secret import Secret
from bench import agents, points, table
from bench.drain import drain, fill
from bench.measure import Figure, Runs, Sample, memory_mb
from bench.plot import Panel
from bench.sinks import Sink, counting
from bench.startup import first_write

if TYPE_CHECKING:
    from collections.abc import Sequence

COUNTS = (10_000, 100_000, 1_000_000, 10_000_000)
MEMORY, DRAINING = "memory over empty", "memory while draining, over empty"
DRAIN, START, DISK = "drain, all of it", "process start to first reading", "disk"
UNITS = {DRAIN: "s", START: "s", MEMORY: "MB", DRAINING: "MB", DISK: "MB"}
MEMORY_MB, DISK_B = 15, 22
QUICK = {"runs": 1, "counts": (1000, 6000)}


def measure(runs: int, folder: Path, counts: tuple[int, ...] = COUNTS) -> list[Figure]:
    """Drain, start, memory and disk by the number of points that wait."""
    found = growth(runs, folder, counts)
    figures = []
    for name, unit in UNITS.items():
        for count in counts:
            target: float | None = MEMORY_MB if unit == "MB" and name != DISK and count == max(counts) else None
            if name == DISK:
                target = DISK_B * count / 1e6 if count == max(counts) else None
            text = f"{name}, {count:,} waiting"
            figures.append(Figure(text, unit, found[name, count], target, growth=(name, count)))
    return figures


def panels(figures: Sequence[Figure]) -> list[Panel]:
    """The pictures of these figures: drain, start, memory, disk."""
    curves: dict[str, dict[int, Sample]] = {}
    for figure in figures:
        if figure.growth and figure.sample:
            curves.setdefault(figure.growth[0], {})[figure.growth[1]] = figure.sample
    if not curves:
        return []
    return [
        Panel(DRAIN, "s", {DRAIN: curves[DRAIN]}),
        Panel(START, "s", {START: curves[START]}),
        Panel("memory over empty", "MB", {"waiting": curves[MEMORY], "draining": curves[DRAINING]}),
        Panel("disk", "MB", {DISK: curves[DISK]}),
    ]


def growth(runs: int, folder: Path, counts: tuple[int, ...]) -> dict[tuple[str, int], Sample]:
    """A sample for each of UNITS and each number of points."""
    found: dict[tuple[str, int], Runs] = {(name, count): Runs() for name in UNITS for count in counts}
    homes = {count: folder / f"waiting-{count}" for count in (0, *counts)}
    for count, home in homes.items():
        fill(home / "state" / "buffer", points.blocks(count, points.start_ns(count)))
        if count:
            size = sum(file.stat().st_size for file in (home / "state" / "buffer").glob("cache.db*"))
            found[DISK, count].add("", size / 1e6)
    with counting("503") as refusing, counting() as taking:
        for _ in range(runs):
            empty, _ = started(homes[0], refusing)
            idle, _ = drained(homes[0], folder / "copy", taking)
            for count in counts:
                peak, seconds = started(homes[count], refusing)
                found[MEMORY, count].add("", peak - empty)
                found[START, count].add("", seconds)
                peak, seconds = drained(homes[count], folder / "copy", taking)
                found[DRAINING, count].add("", peak - idle)
                found[DRAIN, count].add("", seconds)
    return {key: sample for key, these in found.items() if (sample := these.sample("")) is not None}


def started(home: Path, sink: Sink) -> tuple[float, float]:
    """The peak of the memory (MB) of an agent with this backlog, and the seconds to its first reading."""
    with agents.agent(home, sink.target) as one:
        seen = first_write(sink, since_ns=one.started_ns)
        one.wait_for("pending", 1)
        time.sleep(1)
        return memory_mb(one.pid), (seen["first_ns"] - one.started_ns) / 1e9


def drained(home: Path, place: Path, sink: Sink) -> tuple[float, float]:
    """The peak of the memory (MB) of a process that drains a copy of this backlog, and the seconds it takes."""
    shutil.copytree(home / "state" / "buffer", place)
    try:
        found = agents.output_of(sys.executable, "-m", "bench.waiting", "drain", str(place), sink.target.url)
    finally:
        shutil.rmtree(place)
    return found["peak"], found["seconds"]


def _drain(folder: str, url: str) -> None:
    """What drained() starts."""
    sink = Sink("", Target(url, "org", "bench", Secret("token")))
    _, seconds = drain(Path(folder), sink)
    print(json.dumps({"seconds": seconds, "peak": memory_mb()}))


if __name__ == "__main__":
    if sys.argv[1:2] == ["drain"]:
        _drain(*sys.argv[2:4])
    else:
        table.run(measure, QUICK)
