"""`iot-agent buffer import`: points a second from a file of line protocol, checked, compressed and synced; the whole
command from its start to its end.
"""

from __future__ import annotations

import shutil
from typing import TYPE_CHECKING

from bench import agents, points, references, table
from bench.measure import Figure, Runs, timed

if TYPE_CHECKING:
    from pathlib import Path

QUICK = {"runs": 1, "count": 10_000}
CHUNK = 10
"""Blocks in one transaction of the command, and in one sync of the reference."""


def measure(runs: int, folder: Path, count: int = 500_000) -> list[Figure]:
    """Points a second imported from a file."""
    file = folder / "points.lp"
    blocks = list(points.blocks(count, points.start_ns(count)))
    texts = [b"\n".join(block) + b"\n" for block in blocks]
    file.write_bytes(b"".join(texts))
    chunks = [b"".join(texts[n : n + CHUNK]) for n in range(0, len(texts), CHUNK)]
    agents.configure(folder, None, window="10s", interval="1s", device=points.DEVICE, listen="")
    state = folder / "state"
    where = ["--config", str(folder / "agent.toml"), "--state-dir", str(state)]
    found = Runs()
    for _ in range(runs):
        with timed(found, "agent", count):
            agents.command_s(*agents.AGENT, "buffer", "import", *where, str(file))
        shutil.rmtree(state)
        with timed(found, references.APPEND, count):
            references.append(folder / "appended", chunks)
        (folder / "appended").unlink()
    file.unlink()
    beside = (found.reference(references.APPEND, "neither checked nor compressed"),)
    return [Figure("import from a file", "points/s", found.sample("agent"), 100_000, at_least=True, references=beside)]


if __name__ == "__main__":
    table.run(measure, QUICK)
