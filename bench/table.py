"""The table of the figures, for people (Markdown) and for programs (JSON), and the command of every script."""

from __future__ import annotations

import json
import os
import platform
import tempfile
from dataclasses import asdict
from datetime import UTC, datetime
from pathlib import Path
from typing import TYPE_CHECKING, Any

import click

if TYPE_CHECKING:
    from collections.abc import Callable, Mapping, Sequence

    from bench.measure import Figure, Sample

RUNS = 5


def number(value: float) -> str:
    """At most three digits that count: 0.123, 12.3, 123, 12,300."""
    if value == 0:
        return "0"
    if abs(value) >= 1000:
        digits = max(0, len(str(int(abs(value)))) - 3)
        return f"{round(value / 10**digits) * 10**digits:,}"
    return f"{value:.3g}"


def _sample(sample: Sample | None) -> str:
    if sample is None:
        return "-"
    if sample.runs == 1 or sample.low == sample.high:
        return number(sample.median)
    return f"{number(sample.median)} ({number(sample.low)} to {number(sample.high)})"


def _target(figure: Figure) -> str:
    if figure.target is None:
        return ""
    sign = "≥" if figure.at_least else "≤"
    return f"{sign} {number(figure.target)}" + {True: " ✓", False: " **missed**", None: ""}[figure.reached]


def markdown(figures: Sequence[Figure]) -> str:
    """One row a figure: median (least-greatest), what it must reach, and the references of the same run."""
    rows = ["| figure | unit | measured | target | beside it, in the same run |", "|---|---|---|---|---|"]
    for figure in figures:
        beside = [f"{r.name}: {_sample(r.sample) if r.sample else r.note}" for r in figure.references]
        if figure.note:
            beside.append(figure.note)
        cells = (figure.name, figure.unit, _sample(figure.sample), _target(figure), "; ".join(beside))
        rows.append("| " + " | ".join(cells) + " |")
    return "\n".join(rows)


def grown(figures: Sequence[Figure]) -> str:
    """The figures of growth: a row for what grows, a column for each number of waiting points."""
    known = {figure.growth: figure for figure in figures if figure.growth}
    counts = sorted({count for _, count in known})
    rows = [
        "| waiting points | " + " | ".join(f"{count:,}" for count in counts) + " | target |",
        "|---" * (len(counts) + 2) + "|",
    ]
    for name in dict.fromkeys(name for name, _ in known):
        row = [known[name, count] for count in counts]
        target = next((_target(figure) for figure in row if figure.target is not None), "")
        cells = " | ".join(_sample(figure.sample) for figure in row)
        rows.append(f"| {name}, {row[0].unit} | {cells} | {target} |")
    return "\n".join(rows)


def heading() -> str:
    """When and where, in one line."""
    known = machine()
    return f"{known['date']}, {known['machine']}, {known['system']}, load {known['load']}."


def machine() -> dict[str, str]:
    """When and where."""
    model = "?"
    info = Path("/proc/cpuinfo")
    if info.exists():
        names = [line.partition(":")[2].strip() for line in info.read_text().splitlines() if "model name" in line]
        model = names[0] if names else platform.machine()
    return {
        "date": datetime.now(UTC).strftime("%Y-%m-%d"),
        "machine": f"{os.cpu_count()} cores {model}",
        "system": f"{platform.system()} {platform.release()}, Python {platform.python_version()}",
        "load": " ".join(f"{value:.1f}" for value in os.getloadavg()),
    }


def as_json(figures: Sequence[Figure]) -> str:
    rows = [{**asdict(figure), "reached": figure.reached} for figure in figures]
    return json.dumps({**machine(), "figures": rows}, ensure_ascii=False)


def work_folder(given: Path | None) -> tempfile.TemporaryDirectory[str]:
    """A folder on a disk, not in memory: /var/tmp, unless another is named."""
    place = given or Path("/var/tmp")
    return tempfile.TemporaryDirectory(prefix="iot-bench-", dir=place if place.is_dir() else None)


def run(measure: Callable[..., list[Figure]], quick: Mapping[str, Any]) -> None:
    """The command line of a script."""

    @click.command(help=measure.__doc__)
    @click.option("--runs", default=RUNS, show_default=True, help="Runs of each; the table shows median, least, most.")
    @click.option("--quick", "small", is_flag=True, help="Small and once: does it work?")
    @click.option("--json", "json_", is_flag=True, help="For programs.")
    @click.option("--folder", type=click.Path(path_type=Path), help="Where to work: on the disk to be measured.")
    def command(runs: int, small: bool, json_: bool, folder: Path | None) -> None:
        with work_folder(folder) as place:
            figures = measure(**quick, folder=Path(place)) if small else measure(runs=runs, folder=Path(place))
        click.echo(as_json(figures) if json_ else markdown(figures))

    command()
