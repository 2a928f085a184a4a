"""The embedded store's file: restarts, retention, threads and processes."""

import threading
import time
from pathlib import Path

from agent.util.secret import Secret
from center.stores.telemetry import SeriesQuery
from tests.center_helpers import DAY, HOUR, embedded_settings, environment, stores

A, B = Secret("a" * 32), Secret("b" * 32)
NOW = time.time_ns() // HOUR * HOUR - 2 * HOUR


def test_an_embedded_store_is_one_file_that_holds_after_a_restart_and_no_secret(tmp_path):
    place = embedded_settings(tmp_path / "data")
    with stores(place) as (registry, telemetry):
        token = registry.register("pi-1", A).token
        _, enrollment = registry.make_enrollment_key()
        telemetry.write([environment("pi-1", NOW, Temperature=20.0)])
    (file,) = (tmp_path / "data").iterdir()
    assert file.stat().st_mode & 0o777 == 0o600
    assert file.parent.stat().st_mode & 0o777 == 0o700
    content = Path(file).read_bytes()
    for secret in (token, enrollment, A):
        assert secret.reveal().encode() not in content
    with stores(place) as (registry, telemetry):
        assert registry.owns("pi-1", A)
        assert telemetry.last_values(["pi-1"])["pi-1"]["Temperature"].value == 20.0


def test_points_older_than_the_retention_are_deleted(tmp_path):
    from center.embedded import rollup

    with stores(embedded_settings(tmp_path)) as (_, telemetry):
        telemetry.write([environment("pi-1", NOW - n * HOUR, Temperature=1.0) for n in range(10)])
        telemetry.database.run(lambda c: rollup.expire(c, 1, NOW - 4 * HOUR))
        assert telemetry.count("pi-1") == 5
        (curve,) = telemetry.series(SeriesQuery("pi-1", NOW - 90 * DAY, NOW + HOUR, (), 24 * HOUR, "count"))
        assert sum(curve.values) == 5


def test_the_files_of_threads_that_ended_are_closed(tmp_path):
    """`flask run` answers each request in a thread of its own."""
    with stores(embedded_settings(tmp_path)) as (registry, _):
        registry.devices()
        opened = len(list(Path("/dev/fd").iterdir()))
        for _ in range(20):
            thread = threading.Thread(target=registry.devices)
            thread.start()
            thread.join()
        assert len(list(Path("/dev/fd").iterdir())) <= opened + 4


def test_two_processes_may_use_one_embedded_store(tmp_path):
    """`iot-center enroll` while the center runs."""
    place = embedded_settings(tmp_path)
    with stores(place) as (one, points), stores(place) as (other, more):
        _, key = other.make_enrollment_key()
        points.write([environment("pi-1", NOW, Temperature=1.0)])
        more.write([environment("pi-1", NOW + 1, Temperature=2.0, CO2=1)])
        points.write([environment("pi-1", NOW + 2, CO2=2, TVOC=3)])
        assert one.register("pi-1", A, enrollment_key=key, needs_key=True).new
        assert more.count("pi-1") == 3
        assert points.last_values(["pi-1"])["pi-1"]["TVOC"].value == 3
