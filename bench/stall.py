"""The longest delay of a reading while the server hangs and each sync of the disk takes 300 ms longer.

The whole agent reads its sensor ten times a second; the stamps of its points say when. Beside it, at the same time, run
a loop that does nothing else (what this machine itself delays) and one that appends and syncs each point.
"""

from __future__ import annotations

import os
import re
import shutil
import subprocess
import sys
import time
from itertools import pairwise
from pathlib import Path

from bench import agents, table
from bench.measure import Figure, Runs, unmeasured
from bench.sinks import counting

INTERVAL_S = 0.1
TARGET_MS = 20
BARE, SYNCING = "a loop that only waits", "a loop with append + fdatasync"
QUICK = {"runs": 1, "seconds": 0.5, "sync_ms": 20}
_STAMP = re.compile(rb"^environment.* (\d+)$", re.MULTILINE)


def slow_disk(folder: Path, sync_ms: int) -> dict[str, str] | None:
    """The environment of a process whose disk is slow; None without a compiler, or not on Linux."""
    compiler = shutil.which("gcc") or shutil.which("cc")
    if compiler is None or not sys.platform.startswith("linux"):
        return None
    library = folder / "slowdisk.so"
    source = Path(__file__).with_name("slowdisk.c")
    subprocess.run([compiler, "-O1", "-shared", "-fPIC", "-o", library, source, "-ldl"], check=True)
    return {"LD_PRELOAD": str(library), "SLOW_SYNC_MS": str(sync_ms)}


def measure(runs: int, folder: Path, seconds: float = 8.0, sync_ms: int = 300) -> list[Figure]:
    """The longest delay of a reading under a hanging server and a slow disk."""
    name = f"longest delay of a reading, server hangs, syncs take {sync_ms} ms"
    environment = slow_disk(folder, sync_ms)
    if environment is None:
        return [unmeasured(name, "ms", "needs Linux and gcc to slow the disk down", TARGET_MS)]
    found = Runs()
    for run in range(runs):
        with counting("hang") as sink:
            place = folder / f"agent-{run}"
            with agents.agent(
                place, sink.target, window="1s", interval=f"{INTERVAL_S * 1000:.0f}ms", environment=environment
            ) as one:
                one.wait_for("measured", 1)
                loops = {BARE: loop(seconds), SYNCING: loop(seconds, folder / f"synced-{run}", environment)}
                for beside, process in loops.items():
                    found.add(beside, float(process.communicate()[0]))
        done = subprocess.run([*agents.AGENT, "buffer", "export", *one.where], check=True, stdout=subprocess.PIPE)
        found.add("agent", longest_ms([int(stamp) / 1e9 for stamp in _STAMP.findall(done.stdout)]))
    references = (found.reference(BARE), found.reference(SYNCING))
    return [Figure(name, "ms", found.sample("agent"), TARGET_MS, references=references)]


def longest_ms(times: list[float]) -> float:
    """How much longer than the interval the longest pause between two readings was. ValueError for less than two."""
    known = sorted(times)
    return max(0.0, max(b - a for a, b in pairwise(known)) - INTERVAL_S) * 1000


def loop(seconds: float, file: Path | None = None, environment: dict[str, str] | None = None) -> subprocess.Popen[str]:
    """This module as a program that takes a reading each INTERVAL_S and prints its longest delay."""
    command = [sys.executable, "-m", "bench.stall", "loop", str(seconds), *([str(file)] if file else [])]
    return subprocess.Popen(command, stdout=subprocess.PIPE, text=True, env={**os.environ, **(environment or {})})


def _loop(seconds: float, file: str | None) -> None:
    times: list[float] = []
    descriptor = os.open(file, os.O_WRONLY | os.O_CREAT | os.O_APPEND, 0o600) if file else None
    first = time.monotonic()
    while times[-1:] < [first + seconds]:
        due = first + (int((time.monotonic() - first) / INTERVAL_S) + 1) * INTERVAL_S
        time.sleep(max(0.0, due - time.monotonic()))
        times.append(time.monotonic())
        if descriptor is not None:
            os.write(descriptor, b"x" * 177)
            os.fdatasync(descriptor)
    print(longest_ms(times))


if __name__ == "__main__":
    if sys.argv[1:2] == ["loop"]:
        _loop(float(sys.argv[2]), sys.argv[3] if sys.argv[3:] else None)
    else:
        table.run(measure, QUICK)
