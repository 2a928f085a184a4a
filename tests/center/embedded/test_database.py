"""The embedded store's file: restarts, retention, threads and processes."""

import contextlib
import dataclasses
import logging
import sqlite3
import threading
import time
from pathlib import Path

import pytest

from agent.util.secret import Secret
from center.app import FILE, create_app
from center.context import EXTENSION
from center.stores.telemetry import SeriesQuery
from tests.center_helpers import DAY, HOUR, embedded_settings, environment, stores, text_of

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
        assert telemetry.last_values(["pi-1"])["pi-1"][0].value == 20.0


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
        assert points.last_values(["pi-1"])["pi-1"][1].value == 3


BROKEN = "CREATE TRIGGER broken BEFORE DELETE ON points BEGIN SELECT RAISE(ABORT, '{}'); END"


def hourly(folder):
    """Settings that keep points for an hour."""
    settings = embedded_settings(folder)
    return dataclasses.replace(settings, store=dataclasses.replace(settings.store, retention=3600))


def broken(folder, message):
    """A connection to a store that now holds an old point, and refuses to delete it."""
    connection = sqlite3.connect(folder / FILE)
    with connection:
        connection.execute(BROKEN.format(message))
        connection.execute("INSERT INTO series VALUES (1, 1, 'environment', '{}', '')")
        connection.execute("INSERT INTO points (series, t) VALUES (1, 1)")
    return connection


@pytest.fixture
def keeping(tmp_path, monkeypatch):
    """Such a center, with a half minute of some ms; its folder."""
    monkeypatch.setattr("center.embedded.database.IDLE_EVERY_S", 0.005)
    app = create_app(hourly(tmp_path))
    yield app, tmp_path
    app.extensions[EXTENSION].close()


def two_rounds(database):
    """Until all idle jobs ran once from their start: the last of them runs for the second time."""
    rounds, twice = [], threading.Event()

    def last(_):
        rounds.append(1)
        if len(rounds) == 2:
            twice.set()

    database.on_idle("counting rounds", last)
    assert twice.wait(10)
    database._idle.pop()


def test_a_retention_that_fails_is_logged_when_it_begins_changes_and_ends_and_is_shown(keeping, caplog, request):
    caplog.set_level(logging.INFO, "center")
    app, folder = keeping
    file = broken(folder, "no deleting here")
    request.addfinalizer(file.close)
    database, client = app.extensions[EXTENSION].telemetry.database, app.test_client()

    def said():
        return [record.getMessage() for record in caplog.records]

    two_rounds(database)
    two_rounds(database)  # the same again is not said again
    (begun,) = said()
    assert begun.startswith("deleting what is older than the retention fails, and is tried again: ")
    assert begun.endswith("no deleting here")
    health = client.get("/health")
    assert (health.status_code, health.json["status"]) == (503, "fail")
    (check,) = health.json["checks"]
    assert check["name"] == "deleting what is older than the retention"
    assert "no deleting here" in check["message"]
    assert "no deleting here" in health.json["message"]
    for page in ("/", "/devices", "/help"):
        assert "deleting what is older than the retention fails: " in text_of(client.get(page))
    assert client.post("/api/devices/pi-1").status_code == 201  # the rest goes on

    file.executescript(f"BEGIN; DROP TRIGGER broken; {BROKEN.format('still not')}; COMMIT")
    two_rounds(database)
    _, changed = said()
    assert "now fails otherwise (after " in changed
    assert changed.endswith("still not")

    with file:
        file.execute("DROP TRIGGER broken")
    two_rounds(database)
    *_, ended = said()
    assert len(said()) == 3
    assert ended.startswith("deleting what is older than the retention works again after failing ")
    assert client.get("/health").json["status"] == "pass"
    assert "retention fails" not in text_of(client.get("/"))
    assert file.execute("SELECT count(*) FROM points").fetchone() == (0,)


def test_a_mistake_in_an_idle_job_is_logged_with_its_traceback_and_ends_nothing(tmp_path, monkeypatch, caplog):
    monkeypatch.setattr("center.embedded.database.IDLE_EVERY_S", 0.005)
    with stores(embedded_settings(tmp_path)) as (registry, telemetry):
        telemetry.database.on_idle("dividing", lambda _: 1 / 0)
        two_rounds(telemetry.database)
        assert telemetry.failing == {"dividing": "ZeroDivisionError: division by zero"}
        assert registry.register("pi-1", A).new
    (record,) = caplog.records
    assert record.exc_info[0] is ZeroDivisionError


def test_what_would_fail_is_tried_and_undone(tmp_path):
    with stores(hourly(tmp_path)) as (_, telemetry), contextlib.closing(broken(tmp_path, "no deleting here")) as file:
        (why,) = telemetry.database.rehearse().values()
        assert "no deleting here" in why
        with file:
            file.execute("DROP TRIGGER broken")
        assert telemetry.database.rehearse() == {}
        assert file.execute("SELECT count(*) FROM points").fetchone() == (1,)
