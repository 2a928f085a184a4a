"""The Flux of a query as people see it."""

import pytest

from center.stores.telemetry import SeriesQuery
from tests.center_helpers import DAY, SECOND, influx_settings, stores


@pytest.mark.influxdb
def test_flux_that_is_shown_means_the_text_it_was_made_from():
    """Random texts as literals, through the real Flux."""
    import random

    from center.pages import flux

    chars = random.Random(9)
    alphabet = "ab\\\"$${}\n\r\t\0 '`#|äß€😀"
    texts = ["$${x}", "\\${x}", '\\"', "${", *("".join(chars.choices(alphabet, k=12)) for _ in range(300))]
    rows = ", ".join(f"{{n: {n}, same: {flux.literal(text)} == _t{n}}}" for n, text in enumerate(texts))
    with influx_settings() as place, stores(place) as (registry, _):
        params = {f"_t{n}": text for n, text in enumerate(texts)}
        found = registry.influx.rows(f'import "array"\narray.from(rows: [{rows}])', params)
    assert [row["n"] for row in found if not row["same"]] == []
    assert len(found) == len(texts)


def test_a_written_query_has_no_text_of_others_in_it():
    from center.pages import flux

    query = SeriesQuery('pi"1', 0, DAY, ('x") or (true', "$${y}\\"), 90 * SECOND)
    lines = flux.pipeline(query, 'b"${z}').splitlines()
    assert lines[0] == 'from(bucket: "b\\"\\x24{z}")'
    assert lines[1] == "  |> range(start: 1970-01-01T00:00:00Z, stop: 1970-01-02T00:00:00Z)"
    assert lines[3] == '  |> filter(fn: (r) => r.clientId == "pi\\"1" or r.device == "pi\\"1")'
    assert lines[4] == '  |> filter(fn: (r) => r._field == "x\\") or (true" or r._field == "\\x24\\x24{y}\\\\")'
    assert lines[5] == "  |> aggregateWindow(every: 90s, fn: mean, createEmpty: false)"
