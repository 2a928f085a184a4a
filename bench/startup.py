"""Seconds from the start of the process to the first reading and to the first acknowledged point, and of
`iot-agent check`.
"""

from __future__ import annotations

import sys
import time
from typing import TYPE_CHECKING

from bench import agents, references, table
from bench.measure import Figure, Runs, timed
from bench.sinks import Sink, counting

if TYPE_CHECKING:
    from pathlib import Path

QUICK = {"runs": 1}
IMPORT = "python, import influxdb_client"


def measure(runs: int, folder: Path) -> list[Figure]:
    """Process start to first reading, to first acknowledged point; the command check."""
    found = Runs()
    for run in range(runs):
        with counting() as sink, agents.agent(folder / f"agent-{run}", sink.target) as one:
            seen = first_write(sink, one.started_ns)
            found.add("reading", (seen["first_ns"] - one.started_ns) / 1e9)
            found.add("acknowledged", (seen["at_ns"] - one.started_ns) / 1e9)
            where = one.where
        with counting() as sink, timed(found, references.LOOP):
            command = (sys.executable, "-m", "bench.references", "loop", sink.target.url, "org", "bench", "once")
            with agents.program(*command, environment={"BENCH_TOKEN": "token"}) as other:
                other.wait(30)
        found.add("check", agents.command_s(*agents.AGENT, "check", *where))
        found.add(IMPORT, agents.command_s(sys.executable, "-c", "import influxdb_client"))
        found.add("python, empty", agents.command_s(sys.executable, "-c", "pass"))
    return [
        Figure(
            "process start to first reading",
            "s",
            found.sample("reading"),
            0.7,
            references=(found.reference(IMPORT), found.reference("python, empty")),
        ),
        Figure(
            "process start to first acknowledged point",
            "s",
            found.sample("acknowledged"),
            1.5,
            references=(found.reference(references.LOOP, "one point"),),
        ),
        Figure("iot-agent check", "s", found.sample("check"), 0.3, references=(found.reference("python, empty"),)),
    ]


def first_write(sink: Sink, since_ns: int = 0, seconds: float = 30.0) -> dict[str, int]:
    """The first request whose first point was measured after a moment. TimeoutError without one."""
    until = time.monotonic() + seconds
    while time.monotonic() < until:
        for seen in sink.counts()["seen"]:
            if seen["first_ns"] > since_ns:
                return dict(seen)
        time.sleep(0.02)
    raise TimeoutError("no point came")


if __name__ == "__main__":
    table.run(measure, QUICK)
