"""All figures: `python -m bench`, or `make bench`. Prints one table, also as JSON, and draws the growth of cost."""

from __future__ import annotations

import sys
import time
from pathlib import Path
from typing import TYPE_CHECKING, Any

import click

from bench import (
    drain,
    fleet,
    importing,
    mqtt,
    phone,
    plot,
    resident,
    serving,
    stall,
    startup,
    table,
    waiting,
    wire,
    written,
)
from bench.measure import Figure, unmeasured

if TYPE_CHECKING:
    from types import ModuleType

SCRIPTS: tuple[ModuleType, ...] = (
    resident,
    mqtt,
    written,
    wire,
    importing,
    drain,
    startup,
    stall,
    waiting,
    serving,
    phone,
    fleet,
)


def name_of(script: ModuleType) -> str:
    return script.__name__.rpartition(".")[2]


def all_figures(scripts: tuple[ModuleType, ...], runs: int, folder: Path, *, quick: bool) -> list[Figure]:
    """The figures of each script in turn; one that fails says so and leaves the others."""
    figures: list[Figure] = []
    for script in scripts:
        began = time.monotonic()
        print(f"bench.{name_of(script)} …", end=" ", file=sys.stderr, flush=True)
        place = folder / name_of(script)
        place.mkdir()
        options: dict[str, Any] = script.QUICK if quick else {"runs": runs}
        try:
            figures += script.measure(**options, folder=place)
        except Exception as error:  # noqa: BLE001 - the other figures are measured all the same
            figures.append(unmeasured(name_of(script), "", f"failed: {type(error).__name__}: {str(error)[:300]}"))
        print(f"{time.monotonic() - began:.0f} s", file=sys.stderr, flush=True)
    return figures


@click.command(help=__doc__)
@click.argument("only", nargs=-1, type=click.Choice([name_of(script) for script in SCRIPTS]))
@click.option("--runs", default=table.RUNS, show_default=True, help="Runs of each; at least five for a figure.")
@click.option("--quick", is_flag=True, help="Small and once: does it work?")
@click.option("--json", "json_file", type=click.Path(path_type=Path), help="Write the figures there as well; -: only.")
@click.option("--plot", "plot_file", type=click.Path(path_type=Path), help="Write the growth there as SVG.")
@click.option("--folder", type=click.Path(path_type=Path), help="Where to work: on the disk to be measured.")
def main(
    *,
    only: tuple[str, ...],
    runs: int,
    quick: bool,
    json_file: Path | None,
    plot_file: Path | None,
    folder: Path | None,
) -> None:
    scripts = tuple(script for script in SCRIPTS if not only or name_of(script) in only)
    with table.work_folder(folder) as place:
        figures = all_figures(scripts, runs, Path(place), quick=quick)
    if plot_file and (panels := waiting.panels(figures)):
        plot_file.write_text(plot.svg(panels))
    if str(json_file) == "-":
        print(table.as_json(figures))
        return
    if json_file:
        json_file.write_text(table.as_json(figures) + "\n")
    print(table.heading() + "\n\n" + table.markdown([figure for figure in figures if not figure.growth]))
    if any(figure.growth for figure in figures):
        print("\n" + table.grown(figures))


if __name__ == "__main__":
    main()
