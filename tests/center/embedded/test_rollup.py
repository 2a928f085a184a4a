"""The embedded store's hourly sums against its points: what arrives late, twice or changed is counted once."""

import itertools
import time

import pytest
from hypothesis import HealthCheck, given, settings
from hypothesis import strategies as st

from center.embedded.rollup import RollUp
from center.stores.telemetry import Point, Sensor, SeriesQuery
from tests.amounts import amount
from tests.center_helpers import DAY, HOUR, SECOND, embedded_settings, stores

NOW = time.time_ns() // HOUR * HOUR
NUMBERS = itertools.count()


@pytest.fixture(scope="module")
def one_file(tmp_path_factory):
    with stores(embedded_settings(tmp_path_factory.mktemp("center"))) as (_, telemetry):
        yield telemetry


SPREAD = st.integers(0, 4 * 24 * 60 - 1)  # minutes
STORED = st.tuples(SPREAD, st.sampled_from(["", "roof"]), st.sampled_from(["Temperature", "CO2"]), st.integers(-9, 9))


@given(
    st.lists(st.lists(STORED, min_size=1, max_size=25), min_size=1, max_size=4),
    st.tuples(SPREAD, st.integers(7 * 60, 4 * 24 * 60)),
    st.sampled_from([HOUR, 3 * HOUR, 24 * HOUR]),
    st.sampled_from(["mean", "min", "max", "sum", "count", "first", "last"]),
)
@settings(deadline=None, max_examples=amount(15, 60), suppress_health_check=list(HealthCheck))
def test_hourly_sums_are_the_sums_of_the_points_whatever_arrives_late_twice_or_changed(
    one_file, batches, range_, every, fn
):
    """A long range, read from the roll-up after each batch, gives what the points themselves give."""
    telemetry, number = one_file, next(NUMBERS)
    begin = NOW - 30 * DAY
    start = begin + range_[0] * 60 * SECOND
    query = SeriesQuery(f"roll-{number}", start, start + range_[1] * 60 * SECOND, (), every, fn)
    kept = {}
    pure = {"mean": lambda v: sum(v) / len(v), "min": min, "max": max, "sum": sum, "count": len,
            "first": lambda v: v[0], "last": lambda v: v[-1]}[fn]  # fmt: skip
    for batch in batches:
        points = []
        for minute, sensor, field, value in batch:
            t = begin + minute * 60 * SECOND
            kept[field, sensor, t] = value * 1.5 if field == "Temperature" else value
            fields = {field: kept[field, sensor, t]}
            points.append(
                Point("environment", {"device": query.device_id} | ({"sensor": sensor} if sensor else {}), fields, t)
            )
        telemetry.write(points)
        expected = {}
        for (field, sensor, t), value in sorted(kept.items(), key=lambda item: item[0][2]):
            if query.start_ns <= t < query.stop_ns:
                end = min((t // every + 1) * every, query.stop_ns)
                expected.setdefault((field, Sensor(sensor)), {}).setdefault(end, []).append(value)
        found = {(c.field, c.sensor): dict(zip(c.times_ns, c.values, strict=True)) for c in telemetry.series(query)}
        assert found == {
            key: {end: pytest.approx(pure(values)) for end, values in windows.items()}
            for key, windows in expected.items()
        }
    telemetry.database.run(RollUp(telemetry.writer))
    assert {(c.field, c.sensor): dict(zip(c.times_ns, c.values, strict=True)) for c in telemetry.series(query)} == found
