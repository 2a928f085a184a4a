"""Each script of bench/ still works: one smoke run at small size. What is measured is not judged here."""

import json
import xml.etree.ElementTree as ET

import pytest

from bench import plot, scale, table, waiting
from bench.__main__ import SCRIPTS, name_of
from bench.measure import Figure, Reference, Sample, unmeasured

SMALL = {"waiting": {"counts": (1000,)}, "written": {"hour_s": 60, "seconds": 0.5}}


@pytest.fixture(autouse=True)
def without_a_database(monkeypatch):
    for name in ("URL", "TOKEN", "ORG"):
        monkeypatch.delenv(f"INFLUXDB_V2_{name}", raising=False)


LONG = {"fleet", "phone", "written", "serving", "waiting", "resident", "mqtt", "stall", "startup"}


@pytest.mark.parametrize(
    "script",
    [pytest.param(s, id=name_of(s), marks=pytest.mark.slow if name_of(s) in LONG else ()) for s in SCRIPTS],
)
def test_each_script_gives_its_figures(script, tmp_path):
    figures = script.measure(**{**script.QUICK, **SMALL.get(name_of(script), {})}, folder=tmp_path)
    assert figures
    for figure in figures:
        assert figure.sample is not None or figure.note, figure
        for reference in figure.references:
            assert reference.sample is not None or reference.note, figure
    assert len(table.markdown(figures).splitlines()) == len(figures) + 2
    json.loads(table.as_json(figures))


def test_the_table_says_what_missed_its_target_and_what_was_not_measured():
    figures = [
        Figure("quick", "s", Sample.of([3, 1, 2]), 2, references=(Reference("other", Sample.of([12_345.0])),)),
        Figure("slow", "1/s", Sample.of([0.5]), 1, at_least=True),
        unmeasured("bytes", "B", "no disk here", 5),
    ]
    assert table.markdown(figures).splitlines()[2:] == [
        "| quick | s | 2 (1 to 3) | ≤ 2 ✓ | other: 12,300 |",
        "| slow | 1/s | 0.5 | ≥ 1 **missed** |  |",
        "| bytes | B | - | ≤ 5 | no disk here |",
    ]


def test_growth_is_drawn_as_a_curve_for_each_quantity():
    figures = [
        Figure("", unit, Sample.of([count / 1e4, count / 1e3]), growth=(name, count))
        for name, unit in waiting.UNITS.items()
        for count in (10_000, 1_000_000)
    ]
    root = ET.fromstring(plot.svg(waiting.panels(figures)))
    lines = root.findall(".//{http://www.w3.org/2000/svg}polyline")
    assert len(lines) == len(waiting.UNITS)
    assert "10 k" in "".join(root.itertext())
    assert table.grown(figures).splitlines()[0] == "| waiting points | 10,000 | 1,000,000 | target |"


@pytest.mark.slow
def test_one_center_on_each_store_gives_its_figures(tmp_path):
    results = {name: scale.measured(name, tmp_path, 3, 3, 1) for name in scale.stores()}
    assert "embedded" in results
    for found in results.values():
        assert (found["unequal"], found["errors"]) == (0, 0)
    assert len(scale.markdown(results).splitlines()) == len(scale.FIGURES) + 2
