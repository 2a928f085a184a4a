"""A fleet on one machine: what `iot-agent simulate` measures, with the center's embedded store."""

from __future__ import annotations

import importlib.util
from typing import TYPE_CHECKING, Any

from bench import agents, table
from bench.measure import Figure, Sample, unmeasured

if TYPE_CHECKING:
    from pathlib import Path

DEVICES, SECONDS = 1000, 60
TARGETS = {"peak_to_mean": 2.0, "errors": 0.0}
ROWS = (
    ("points a second", "points/s", "points_per_s"),
    ("registrations a second", "1/s", "registrations_per_s"),
    ("latency, p95", "ms", "p95"),
    ("busiest second over the mean", "", "peak_to_mean"),
    ("errors", "", "errors"),
    ("memory of all agents", "MB", "memory_mb"),
)
QUICK = {"runs": 1, "devices": 5, "seconds": 5}


def measure(runs: int, folder: Path, devices: int = DEVICES, seconds: int = SECONDS) -> list[Figure]:
    """1,000 devices at 10 s on one machine, center included. One run, whatever `runs` says: it takes a minute."""
    del runs
    name = f"{devices:,} devices at 10 s"
    if importlib.util.find_spec("agent.fleet.simulate") is None:
        return [unmeasured(name, "", "iot-agent simulate is not here")]
    options = ["--devices", str(devices), "--interval", "10s" if devices > 100 else "1s", "--duration", f"{seconds}s"]
    found = agents.output_of(*agents.AGENT, "simulate", *options, "--json", "--state-dir", str(folder / "fleet"))
    if found["registered"] != devices or found["unequal"]:
        raise RuntimeError(f"the fleet's numbers do not agree: {found}")
    return [_figure(f"{name}: {text}", unit, key, found) for text, unit, key in ROWS]


def _figure(name: str, unit: str, key: str, found: dict[str, Any]) -> Figure:
    value = float(found["latency_ms"][key] if key == "p95" else found[key])
    return Figure(name, unit, Sample.of([value]), TARGETS.get(key), note="one run")


if __name__ == "__main__":
    table.run(measure, QUICK)
