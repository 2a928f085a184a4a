"""Bytes on the wire per point, with the request's headers, by batch size; counted by the server."""

from __future__ import annotations

from typing import TYPE_CHECKING

from agent.delivery.writer import Writer
from bench import clocks, points, references, table
from bench.measure import Figure, Runs
from bench.sinks import counting

if TYPE_CHECKING:
    from pathlib import Path

TARGETS = {10: 75, 60: 25, 5000: 12}
QUICK = {"runs": 1, "batches": (10,)}


def measure(runs: int, folder: Path, batches: tuple[int, ...] = tuple(TARGETS)) -> list[Figure]:
    """Bytes on the wire per point, with headers."""
    found = {size: Runs() for size in batches}
    with counting() as sink:
        for run in range(runs):
            clock = clocks.Stepped()
            for size in batches:
                waiting = clocks.buffer(folder / f"{run}-{size}", clock)
                first = points.start_ns(20_000) + run * 777 * points.SECOND
                waiting.put(points.lines(size, first))
                batch = waiting.take_live(size)
                assert batch is not None
                lines = batch.lines()
                writer = Writer(sink.target, 10)
                before = sink.counts()["bytes"]
                writer.write(batch.body)
                after = sink.counts()["bytes"]
                found[size].add("agent", (after - before) / size)
                waiting.delivered(batch)
                writer.close()
                waiting.close()
                few = lines[:100]
                references.loop_lines(sink.target, few)
                looped = sink.counts()["bytes"]
                found[size].add(references.LOOP, (looped - after) / len(few))
                blocks = [[line.decode() for line in lines]]
                references.batching(sink.target, blocks, size=size, gzip=False)
                batched = sink.counts()["bytes"]
                found[size].add(references.BATCHING, (batched - looped) / size)
                references.batching(sink.target, blocks, size=size)
                found[size].add(f"{references.BATCHING}, gzip", (sink.counts()["bytes"] - batched) / size)
    return [
        Figure(
            f"on the wire, batch of {size:,}",
            "B/point",
            these.sample("agent"),
            TARGETS[size],
            references=tuple(these.reference(name) for name in these.values if name != "agent"),
        )
        for size, these in found.items()
    ]


if __name__ == "__main__":
    table.run(measure, QUICK)
