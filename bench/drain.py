"""How fast a backlog drains: the buffer and the delivery of the agent against a plain loop that posts batches which
are gzipped already, interleaved, into a server that counts and into a real database if there is one.
"""

from __future__ import annotations

import threading
import time
from typing import TYPE_CHECKING

from agent import committer
from agent.boots import Boots, current_boot_id
from agent.buffer import open_buffer
from agent.clock import Clock
from agent.delivery import Delivery
from agent.rows import compress
from agent.settings import BufferSettings, DeliverySettings
from agent.units import Bytes
from bench import agents, points, references, table
from bench.measure import Figure, Runs, timed
from bench.sinks import Sink, counting, database

if TYPE_CHECKING:
    from pathlib import Path

    from agent.schema import Line

READY = "plain loop, gzipped before"
SETTINGS = BufferSettings(max_size=Bytes(4_000_000_000))
QUICK = {"runs": 1, "count": 10_000}


def steady() -> Clock:
    """This machine's clock, taken as it is."""
    clock = Clock(Boots(None, current_boot_id()), trust="always")
    clock.poll()
    return clock


def fill(folder: Path, lines: list[Line]) -> None:
    """A backlog on disk."""
    buffer = open_buffer(folder, SETTINGS, steady())
    buffer.put_committed(lines)
    buffer.close()


def drain(folder: Path, sink: Sink) -> float:
    """Seconds from opening the buffer until all of it is delivered and that is on disk. RuntimeError if it is not."""
    clock, stop = steady(), threading.Event()
    began = time.perf_counter()
    buffer = open_buffer(folder, SETTINGS, clock)
    delivery = Delivery(buffer, lambda: sink.target, clock, DeliverySettings(), lambda: None)
    thread = committer.start(buffer, stop)
    delivery.drain(clock.boot_ns() + 600_000_000_000)
    stop.set()
    buffer.wake.set()
    thread.join()
    buffer.commit_all()
    seconds = time.perf_counter() - began
    status = buffer.snapshot()
    delivery.close()
    buffer.close()
    if status.pending or status.unaccounted:
        raise RuntimeError(f"not drained: {status}, {delivery.snapshot()}")
    return seconds


def measure(runs: int, folder: Path, count: int = 200_000) -> list[Figure]:
    """Points a second out of a backlog."""
    with counting() as sink:
        figures = into(sink, runs, folder, count, target=150_000)
    with database(folder) as real:
        if real is not None:
            figures += into(real, runs, folder, count, target=None)
    return figures


def into(sink: Sink, runs: int, folder: Path, count: int, target: float | None) -> list[Figure]:
    found = Runs()
    first = points.start_ns(count)
    file = folder / "points.lp"
    command = references.telegraf(folder / "telegraf", sink.target, file=file)
    for run in range(runs):
        device = f"bench-{run}"  # each run stores series of its own: nothing is an overwriting
        blocks = list(points.blocks(count, first, f"{device}-loop"))
        bodies = [compress(b"\n".join(block) + b"\n") for block in blocks]
        few = [[line.decode() for line in block] for block in points.blocks(count // 4, first, f"{device}-own")]
        backlog = folder / f"backlog-{run}"
        fill(backlog, points.lines(count, first, device))
        with timed(found, READY, count):
            references.loop_ready(sink.target, bodies)
        found.add("agent", count / drain(backlog, sink))
        found.add("ratio", found.values["agent"][-1] / found.values[READY][-1])
        with timed(found, references.BATCHING, sum(map(len, few))):
            references.batching(sink.target, few)
        with timed(found, references.LOOP, 200):
            references.loop_lines(sink.target, [line.encode() for line in few[0][:200]])
        if command:
            file.write_text("\n".join(line for block in few for line in block) + "\n")
            with timed(found, references.TELEGRAF, sum(map(len, few))):
                agents.command_s(*command)
    beside = [found.reference(name) for name in (READY, references.BATCHING, references.LOOP)]
    beside.append(found.reference(references.TELEGRAF, references.NO_TELEGRAF))
    return [
        Figure(
            f"drain into {sink.name}",
            "points/s",
            found.sample("agent"),
            target,
            at_least=True,
            references=tuple(beside),
        ),
        Figure("the same, as a share of the plain loop's", "", found.sample("ratio"), 0.8, at_least=True),
    ]


if __name__ == "__main__":
    table.run(measure, QUICK)
