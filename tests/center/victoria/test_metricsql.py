"""What is asked of VictoriaMetrics has a bound: 16,384 bytes (-search.maxQueryLen)."""

import itertools

import pytest

from center.victoria.metricsql import MOMENTS, chunks, few, rollup, selectors


@pytest.mark.parametrize("character", ["x", "."])
@pytest.mark.parametrize("fields", [[], ["Temperature"], [f"quantity.number.{n:03}" for n in range(300)]])
def test_a_page_of_devices_is_asked_for_in_queries_that_are_not_too_long(character, fields):
    ids = [f"{n:04}".rjust(64, character) for n in range(120)]
    portions = list(chunks(ids))
    assert list(itertools.chain(*portions)) == ids
    for chunk in portions:
        query = rollup(MOMENTS["last"], selectors(chunk, "environment", few(fields)), 10**12)
        assert len(query.encode()) < 16_384


def test_50_devices_are_one_question_and_none_is_none():
    assert list(chunks([])) == []
    assert list(chunks(["pi-1"])) == [["pi-1"]]
    assert [len(chunk) for chunk in chunks([f"greenhouse-{n}" for n in range(120)])] == [50, 50, 20]
    assert few(["Temperature", "Humidity"]) == ["Temperature", "Humidity"]
