"""Retention and reading of the embedded store: both tell the same at any time, and looking writes nothing."""

import contextlib
import sqlite3
from dataclasses import replace

import pytest

from center.app import FILE, create_app
from center.context import EXTENSION
from center.embedded.rollup import RollUp, expire
from center.embedded.telemetry import EmbeddedTelemetry
from center.errors import RefusedError
from center.stores.telemetry import Point, SeriesQuery
from center.times import now_ns
from tests.center_helpers import DAY, HOUR, SECOND, embedded_settings, environment, stores

NOW = now_ns() // HOUR * HOUR


def counts(telemetry, device, stop=NOW):
    """What is left of a device: points, by the hourly sums, and by the summary."""
    curves = telemetry.series(SeriesQuery(device, NOW - 30 * DAY, stop, (), HOUR, "count"))
    summary = telemetry.summary(device, start_ns=NOW - 30 * DAY, stop_ns=stop)
    return telemetry.count(device), sum(sum(c.values) for c in curves), sum(s.count for s in summary)


@pytest.mark.parametrize("rolled_up", [True, False])
def test_the_last_hour_of_a_silent_series_expires_from_the_sums_with_its_points(tmp_path, rolled_up):
    with stores(embedded_settings(tmp_path)) as (_, telemetry):
        assert isinstance(telemetry, EmbeddedTelemetry)
        bucket, start = telemetry.find_bucket("iot_center"), NOW - 10 * DAY
        for device, hours in (("silent", 3), ("talking", 200)):
            telemetry.write([environment(device, start + n * HOUR // 4, Temperature=1.0) for n in range(4 * hours)])

        def round_(before_ns):
            if rolled_up:
                telemetry.database.run(RollUp(telemetry.writer))
            telemetry.database.run(lambda connection: expire(connection, bucket, before_ns))

        for half_hours in range(9):
            round_(start + half_hours * HOUR // 2 + SECOND)
            left = 4 * max(3 - half_hours // 2, 0)  # whole hours
            assert counts(telemetry, "silent") == (left, left, left)
            left = 4 * (200 - half_hours // 2)
            assert counts(telemetry, "talking") == (left, left, left)
        tables = telemetry.database.rows("SELECT count(*) FROM hours WHERE series = 1")
        assert tables == [(0,)]


def test_the_types_of_fields_expire_with_their_shards(tmp_path):
    settings = embedded_settings(tmp_path)
    settings = replace(settings, store=replace(settings.store, retention=DAY // SECOND))
    tags = {"clientId": "pi-1"}
    with stores(settings) as (_, telemetry):
        assert isinstance(telemetry, EmbeddedTelemetry)
        bucket = telemetry.find_bucket("iot_center")
        telemetry.write([Point("agent", tags, {"uptime": 1.5}, NOW - n * HOUR) for n in range(20)])
        assert telemetry.database.row("SELECT count(*) FROM device_type") == (20,)
        telemetry.database.run(lambda connection: expire(connection, bucket, NOW - HOUR + SECOND))
        assert telemetry.database.row("SELECT count(*) FROM device_type") == (2,)
    with stores(settings) as (_, anew), pytest.raises(RefusedError, match="field type conflict"):  # remembers none
        anew.write([Point("agent", tags, {"uptime": "long"}, NOW - HOUR + SECOND)])


def test_looking_at_pages_writes_nothing_whatever_waits_to_be_summed_up(tmp_path):
    """An import of long ago, as after an outage: all its hours wait for the writing thread."""
    app = create_app(embedded_settings(tmp_path))
    with contextlib.closing(app.extensions[EXTENSION]) as center:
        center.registry.register("pi-1")
        center.telemetry.write(
            [environment("pi-1", NOW - n * HOUR // 2, Temperature=20.0, Humidity=40.0) for n in range(2000)]
        )
        with contextlib.closing(sqlite3.connect(tmp_path / FILE)) as other:

            def version():
                return other.execute("PRAGMA data_version").fetchone()

            before = version()
            client = app.test_client()
            for path in (
                "/", "/devices", "/devices/pi-1", "/dashboards/pi-1", "/dashboards/pi-1/live.json", "/query",
                *(f"/dashboards/pi-1/series.json?range={r}&fn={fn}" for r in ("24h", "30d") for fn in ("mean", "max")),
                "/api/devices/pi-1/measurements?start=-30d&every=1h&fn=first", "/api/devices/pi-1/measurements/count",
            ):  # fmt: skip
                assert client.get(path).status_code == 200, path
            assert version() == before
