"""What [mqtt] costs a whole agent at 1 Hz: memory and CPU with it and without, at work at the same time."""

from __future__ import annotations

import shutil
import socket
import subprocess
import time
from contextlib import ExitStack, contextmanager
from typing import TYPE_CHECKING

from bench import agents, table
from bench.measure import Figure, Runs, cpu_s, memory_mb, unmeasured
from bench.sinks import counting

if TYPE_CHECKING:
    from collections.abc import Iterator
    from pathlib import Path

QUICK = {"runs": 1, "seconds": 0.3}
SETTLE_S = 5.0
WITH, WITHOUT = "with [mqtt]", "without"


@contextmanager
def mosquitto(folder: Path) -> Iterator[int | None]:
    """Its port; None where there is none."""
    program = shutil.which("mosquitto", path="/usr/sbin:/usr/bin")
    if program is None:
        yield None
        return
    with socket.create_server(("127.0.0.1", 0)) as free:
        port = int(free.getsockname()[1])
    folder.mkdir()
    config = folder / "mosquitto.conf"
    config.write_text(f"listener {port} 127.0.0.1\nallow_anonymous true\nlog_type none\n")
    process = subprocess.Popen([program, "-c", str(config)])
    try:
        yield port
    finally:
        agents.stop(process)


def measure(runs: int, folder: Path, seconds: float = 60.0) -> list[Figure]:
    """Resident memory (peak) and CPU per minute of each, and the one over the other, run by run."""
    memory, cpu, shares = Runs(), Runs(), Runs()
    with ExitStack() as stack:
        port = stack.enter_context(mosquitto(folder / "broker"))
        if port is None:
            return [unmeasured("memory and CPU with [mqtt]", "", "install Debian's package mosquitto")]
        sink = stack.enter_context(counting())
        pids: list[tuple[str, int]] = []
        for run in range(runs):
            for name in (WITH, WITHOUT):
                more = f'[mqtt]\nhost = "127.0.0.1"\nport = {port}\n' if name == WITH else ""
                place = folder / f"{name.split()[0]}-{run}"
                one = agents.agent(place, sink.target, device=f"{place.name}", listen="127.0.0.1:0", more=more)
                pids.append((name, stack.enter_context(one).pid))
        time.sleep(min(SETTLE_S, seconds * 3))
        before = [cpu_s(pid) for _, pid in pids]
        time.sleep(seconds)
        for (name, pid), used in zip(pids, before, strict=True):
            cpu.add(name, (cpu_s(pid) - used) * 60 / seconds)
            memory.add(name, memory_mb(pid))
    for name, found in (("memory", memory), ("CPU", cpu)):
        for run in range(runs):
            plain = found.values[WITHOUT][run]
            if plain:
                shares.add(name, found.values[WITH][run] / plain)
    cpu_share = unmeasured("the same CPU, over that without", "", "so short that none was used")
    if sample := shares.sample("CPU"):
        cpu_share = Figure("the same CPU, over that without", "", sample)
    return [
        Figure(
            "resident memory at 1 Hz with [mqtt], peak",
            "MB",
            memory.sample(WITH),
            64,
            references=(memory.reference(WITHOUT),),
        ),
        Figure("CPU per minute at 1 Hz with [mqtt]", "s", cpu.sample(WITH), references=(cpu.reference(WITHOUT),)),
        Figure("the same memory, over that without", "", shares.sample("memory")),
        cpu_share,
    ]


if __name__ == "__main__":
    table.run(measure, QUICK)
