"""Telemetry on InfluxDB, with more points than a test could write."""

import pytest

from center.errors import RefusedError
from center.influx.telemetry import InfluxTelemetry
from center.stores.telemetry import MAX_VALUES, SeriesQuery
from tests.center_helpers import DAY, HOUR


class Influx:
    """An InfluxDB of two series with so many points each, of which it gives one."""

    def __init__(self, *counts):
        self.counts, self.asked = counts, []

    def rows(self, flux, params):
        self.asked.append(flux)
        counted = flux.endswith("|> count()")
        return [
            {"_field": "a", "sensor": f"s{n}"} | ({"_value": count} if counted else {"_time": HOUR, "_value": 1.5})
            for n, count in enumerate(self.counts)
        ]


QUERY = SeriesQuery("pi-1", 0, DAY)


def test_points_are_given_whole_or_refused():
    influx = Influx(MAX_VALUES - 5, 5)
    assert [curve.values for curve in InfluxTelemetry(influx, "series", "auth").series(QUERY)] == [(1.5,), (1.5,)]
    assert "limit" not in "".join(influx.asked)
    influx = Influx(MAX_VALUES - 5, 6)
    with pytest.raises(RefusedError, match=f"more than {MAX_VALUES} values: choose a shorter range"):
        InfluxTelemetry(influx, "series", "auth").series(QUERY)
    assert len(influx.asked) == 1
