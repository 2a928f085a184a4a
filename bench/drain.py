"""How fast a backlog drains: the buffer and the delivery of the agent against a plain loop that posts batches which
are gzipped already, interleaved, into a server that counts and into a real database if there is one.
"""

from __future__ import annotations

import shutil
import time
from itertools import islice
from typing import TYPE_CHECKING

from agent.buffer.buffer import open_buffer
from agent.buffer.committer import Committer
from agent.buffer.offline import OfflineBuffer
from agent.buffer.rows import Kind, pack
from agent.clock.boots import Boots, current_boot_id
from agent.clock.clock import Clock
from agent.config.settings import BufferSettings, DeliverySettings
from agent.config.units import Bytes
from agent.delivery.delivery import Delivery
from agent.util.loops import LoopThread
from bench import agents, points, references, table
from bench.measure import Figure, Runs, timed
from bench.sinks import Sink, counting, database

if TYPE_CHECKING:
    from collections.abc import Iterable, Sequence
    from pathlib import Path

READY = "plain loop over batches gzipped before"
SETTINGS = BufferSettings(max_size=Bytes(4_000_000_000))
ROWS = 10
"""Rows in a transaction when a backlog is made, as `iot-agent buffer import` does it."""
MOST_S = 600
QUICK = {"runs": 1, "count": 10_000}


def steady() -> Clock:
    """This machine's clock, taken as it is."""
    clock = Clock(Boots(None, current_boot_id()), trust="always")
    clock.poll()
    return clock


def fill(folder: Path, blocks: Iterable[Sequence[bytes]]) -> None:
    """A backlog on disk in the place of whatever is there, a row a block."""
    shutil.rmtree(folder, ignore_errors=True)
    with OfflineBuffer(folder, create=True) as beside:
        rows = (pack(block, Kind.PENDING) for block in blocks)
        while some := list(islice(rows, ROWS)):
            beside.add(some)


def bodies_of(folder: Path) -> list[bytes]:
    """The requests that deliver a backlog."""
    buffer = open_buffer(folder, SETTINGS, steady())
    bodies = []
    while batch := buffer.take_backlog(points.BLOCK):
        bodies.append(batch.body)
    buffer.close()
    return bodies


def drain(folder: Path, sink: Sink) -> tuple[float, float]:
    """Seconds from the first request to the last answer, and from opening the buffer until all is off the disk.

    RuntimeError if something is left.
    """
    clock = steady()
    began = time.perf_counter()
    buffer = open_buffer(folder, SETTINGS, clock)
    delivery = Delivery(buffer, lambda: sink.target, clock, DeliverySettings(), lambda: None)
    thread = LoopThread("committer", Committer(buffer))
    opened = time.perf_counter()
    while time.perf_counter() - opened < MOST_S:
        wait = delivery.step()
        if wait > 0:
            if not buffer.snapshot().pending:
                break
            time.sleep(min(wait, 0.25))
    seconds = time.perf_counter() - opened
    thread.stop()
    thread.join()
    buffer.commit_all()
    whole = time.perf_counter() - began
    status = buffer.snapshot()
    delivery.close()
    buffer.close()
    if status.pending or status.unaccounted:
        raise RuntimeError(f"not drained: {status}, {delivery.snapshot()}")
    return seconds, whole


def measure(runs: int, folder: Path, count: int = 1_000_000) -> list[Figure]:
    """Points a second out of a backlog."""
    with counting() as sink:
        figures = into(sink, runs, folder, count, target=150_000)
    with database(folder) as real:
        if real is not None:
            figures += into(real, runs, folder, count // 5, target=None)
    return figures


def into(sink: Sink, runs: int, folder: Path, count: int, target: float | None) -> list[Figure]:
    found = Runs()
    first = points.start_ns(count)
    file = folder / "points.lp"
    command = references.telegraf(folder / "telegraf", sink.target, file=file)
    backlog = folder / "backlog"
    bodies: list[bytes] = []
    for run in range(runs):
        if not bodies or target is None:  # where points are stored, each run has its own: nothing is an overwriting
            fill(backlog, points.blocks(count, first, f"loop-{run}"))
            bodies = bodies_of(backlog)
            fill(backlog, points.blocks(count, first, f"bench-{run}"))
        shutil.copytree(backlog, folder / "copy")
        with timed(found, READY, count):
            references.loop_ready(sink.target, bodies)
        found.add("agent", count / drain(folder / "copy", sink)[0])
        found.add("ratio", found.values["agent"][-1] / found.values[READY][-1])
        shutil.rmtree(folder / "copy")
        few = [[line.decode() for line in block] for block in points.blocks(min(count, 50_000), first, f"own-{run}")]
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
    share = f"the same, as a share of the {READY}"
    least = (
        0.8 if target is None else None
    )  # a server that only counts costs the loop nothing: a share of that says little
    return [
        Figure(
            f"drain into {sink.name}",
            "points/s",
            found.sample("agent"),
            target,
            at_least=True,
            references=tuple(beside),
        ),
        Figure(share, "", found.sample("ratio"), least, at_least=True),
    ]


if __name__ == "__main__":
    table.run(measure, QUICK)
