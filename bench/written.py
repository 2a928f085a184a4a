"""Bytes written to the disk per point, and bytes on it per waiting point.

An hour at 1 Hz goes through the buffer on a clock that is turned: every commit, sync, merge and saving of the counters
of that hour happens, and SQLite's index of its log, which is mapped, is written back as often as the kernel does it.
Beside it stands the whole agent for a minute of real time, its start counted apart.
"""

from __future__ import annotations

import os
import time
from contextlib import ExitStack
from typing import TYPE_CHECKING

from agent.buffer.database import DATABASE
from agent.clock.boots import Boots
from agent.clock.clock import Clock
from agent.points.schema import Line
from bench import agents, clocks, points, references, table
from bench.measure import Figure, Reference, Runs, unmeasured, why_not_here, written_bytes
from bench.sinks import counting

if TYPE_CHECKING:
    from pathlib import Path

QUICK = {"runs": 1, "hour_s": 120, "seconds": 1.0}
FLUSH_S = 5
WRITE_BACK_S = 32.5
"""How long after a change the kernel writes back what is mapped: 30 s (vm.dirty_expire_centisecs), seen each 5 s."""
DISK_B = 22
UP, DOWN10, DOWN60 = "written, server up", "written, server down, 10 s window", "written, server down, 60 s window"
TARGETS = {UP: 50, DOWN10: 1500, DOWN60: 400}


def measure(runs: int, folder: Path, hour_s: int = 3600, seconds: float = 60.0) -> list[Figure]:
    """Bytes written per point, and on disk per waiting point."""
    why = why_not_here(folder)
    if why:
        return [unmeasured(name, "B/point", why, target) for name, target in TARGETS.items()]
    found, others, rest = Runs(), Runs(), Runs()
    for run in range(runs):
        for name, window in ((UP, 10), (DOWN10, 10), (DOWN60, 60)):
            place = folder / f"{name}-{run}"
            written, left = hour(place, window, hour_s, up=name == UP)
            found.add(name, written / hour_s)
            if name == DOWN10:
                rest.add("agent", left / hour_s)
            others.add(name, appended(folder / "appended", 1 if name == UP else window, hour_s) / hour_s)
    for name, value in whole(runs, folder, seconds):
        found.add(name, value)
    figures = []
    for name, target in TARGETS.items():
        real = Reference("whole agent, a minute of real time", found.sample(f"whole {name}"))
        sync = "each point" if name == UP else f"each {10 if name == DOWN10 else 60} s"
        append = Reference(f"{references.APPEND} {sync}", others.sample(name))
        figures.append(
            Figure(name, "B/point", found.sample(name), target, references=(real, append) if real.sample else (append,))
        )
    figures.append(Figure("written by a first start, in all", "kB", found.sample("start")))
    figures.append(Figure("on disk per waiting point, an hour at 1 Hz", "B", rest.sample("agent"), DISK_B))
    return figures


def hour(folder: Path, window: int, seconds: int, *, up: bool) -> tuple[int, int]:
    """Bytes written in so many seconds of measuring, and bytes in use on disk at the end."""
    clock = clocks.Stepped()
    boots = Boots(folder, clock.boot_id)
    known = Clock(boots, trust="always", boot_ns=clock.boot_ns, wall_ns=lambda: clock.now + clock.offset)
    buffer = clocks.buffer(folder / "buffer", clock, window)
    known.poll()
    buffer.commit_all()
    first = clock.date(clock.now)
    index = os.open(folder / "buffer" / f"{DATABASE}-shm", os.O_RDONLY)
    changed: int | None = None
    os.sync()
    before = written_bytes()
    for second, line in enumerate(points.lines(seconds, first)):
        buffer.put([Line(line.head, clock.now + points.late_ns()[second % points.BLOCK])])
        if up and second % FLUSH_S == 0:
            batch = buffer.take_live(5000)
            assert batch is not None
            buffer.delivered(batch)
        for _ in range(10):
            clock.turn(0.1)
            if buffer.commit_due(clock.now):
                buffer.commit()
                changed = changed or clock.now
        if changed and clock.now - changed > WRITE_BACK_S * clocks.SECOND:
            os.fdatasync(index)
            changed = None
        if second % 60 == 0:
            known.poll()
    os.sync()
    written = written_bytes() - before
    used = buffer.snapshot().disk_bytes
    buffer.close()
    known.close()
    os.close(index)  # not before: that would end SQLite's locks on it
    return written, used


def appended(path: Path, window: int, seconds: int) -> int:
    """Bytes written when lines are appended to a file and synced each `window` seconds."""
    lines = [line for block in points.blocks(seconds, points.start_ns(seconds)) for line in block]
    chunks = [b"\n".join(lines[n : n + window]) + b"\n" for n in range(0, seconds, window)]
    os.sync()
    before = written_bytes()
    references.append(path, chunks)
    os.sync()
    written = written_bytes() - before
    path.unlink()
    return written


def whole(runs: int, folder: Path, seconds: float) -> list[tuple[str, float]]:
    """Real agents side by side: what each wrote per point after its start, and by then."""
    found: list[tuple[str, float]] = []
    with ExitStack() as stack:
        sink = stack.enter_context(counting())
        running = []
        for run in range(runs):
            for name, target, window in ((UP, sink.target, "10s"), (DOWN10, None, "10s"), (DOWN60, None, "60s")):
                new = agents.agent(folder / f"whole-{name}-{run}", target, window=window, device=f"bench-{run}")
                running.append((name, stack.enter_context(new)))
        for name, one in running:
            one.wait_for("delivered" if name == UP else "measured", 1)
        time.sleep(min(3.0, 2 * seconds))
        os.sync()
        before = [(one.status()["ledger"]["measured"], written_bytes(one.pid)) for _, one in running]
        time.sleep(seconds)
        os.sync()
        for (name, one), (measured, written) in zip(running, before, strict=True):
            number = one.status()["ledger"]["measured"] - measured
            found.append((f"whole {name}", (written_bytes(one.pid) - written) / max(1, number)))
            if name == UP:
                found.append(("start", written / 1000))
    return found


if __name__ == "__main__":
    table.run(measure, QUICK)
