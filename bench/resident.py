"""Memory and CPU of the whole agent at 1 Hz, beside programs that only send: all at work at the same time."""

from __future__ import annotations

import sys
import time
from contextlib import ExitStack
from typing import TYPE_CHECKING

from bench import agents, references, table
from bench.measure import Figure, Reference, Runs, cpu_s, memory_mb
from bench.sinks import counting, database

if TYPE_CHECKING:
    from pathlib import Path

QUICK = {"runs": 1, "seconds": 0.3}
SETTLE_S = 5.0
"""From the last start on, before the CPU is counted."""


def measure(runs: int, folder: Path, seconds: float = 60.0) -> list[Figure]:
    """Resident memory (peak) and CPU per minute at 1 Hz."""
    found, cpu = Runs(), Runs()
    with ExitStack() as stack:
        sink = stack.enter_context(database(folder)) or stack.enter_context(counting())
        pids: list[tuple[str, int]] = []
        token = {"BENCH_TOKEN": sink.target.token.reveal()}
        where = (sink.target.url, sink.target.org, sink.target.bucket)
        for run in range(runs):
            one = agents.agent(folder / f"agent-{run}", sink.target, device=f"bench-{run}", listen="127.0.0.1:0")
            pids.append(("agent", stack.enter_context(one).pid))
            for name, how in ((references.LOOP, "loop"), (references.BATCHING, "batching")):
                command = (sys.executable, "-m", "bench.references", how, *where)
                other = agents.program(*command, environment=token)
                pids.append((name, stack.enter_context(other).pid))
            peer = references.telegraf(folder / f"telegraf-{run}", sink.target)
            if peer:
                pids.append((references.TELEGRAF, stack.enter_context(agents.program(*peer)).pid))
        time.sleep(min(SETTLE_S, seconds * 3))
        before = [cpu_s(pid) for _, pid in pids]
        time.sleep(seconds)
        for (name, pid), used in zip(pids, before, strict=True):
            cpu.add(name, (cpu_s(pid) - used) * 60 / seconds)
            found.add(name, memory_mb(pid))
    others = (references.LOOP, references.BATCHING)

    def beside(runs_: Runs) -> tuple[Reference, ...]:
        return (*(runs_.reference(n) for n in others), runs_.reference(references.TELEGRAF, references.NO_TELEGRAF))

    return [
        Figure("resident memory at 1 Hz, peak", "MB", found.sample("agent"), 60, references=beside(found)),
        Figure("CPU per minute at 1 Hz", "s", cpu.sample("agent"), 0.2, references=beside(cpu)),
    ]


if __name__ == "__main__":
    table.run(measure, QUICK)
