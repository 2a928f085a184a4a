"""The embedded store's file: restarts, retention, threads and processes."""

import contextlib
import dataclasses
import logging
import os
import sqlite3
import threading
import time
from pathlib import Path
from types import SimpleNamespace

import pytest
from click.testing import CliRunner

from agent.util.secret import Secret
from center.app import FILE, create_app
from center.cli import main
from center.context import EXTENSION
from center.embedded.database import Database
from center.errors import StoreError
from center.stores.telemetry import SeriesQuery
from tests.center_helpers import DAY, HOUR, embedded_settings, environment, jobs_wait, stores, text_of

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
        telemetry.database.run(lambda c: rollup.expire(c, telemetry.find_bucket("iot_center"), NOW - 4 * HOUR))
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
    assert twice.wait(40)


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


@pytest.fixture
def database(tmp_path):
    with contextlib.closing(Database(tmp_path / "db", "CREATE TABLE t (n INTEGER CHECK (n < 100))")) as opened:
        yield opened


def inserted(number):
    return lambda connection: connection.execute("INSERT INTO t VALUES (?)", (number,)).rowcount


@contextlib.contextmanager
def at_once(database, *jobs):
    """Jobs that wait while the writing thread is busy, and then come together: their ends, and what was committed."""
    busy, go, ends, commits = threading.Event(), threading.Event(), {}, []

    def hold(connection):
        connection.set_trace_callback(lambda text: commits.append(text) if text == "COMMIT" else None)
        busy.set()
        assert go.wait(30)

    def attempt(n, job):
        try:
            ends[n] = database.run(job)
        except Exception as error:  # noqa: BLE001 - whatever it is, it is looked at
            ends[n] = error

    threads = [threading.Thread(target=attempt, args=(None, hold))]
    threads[0].start()
    assert busy.wait(30)
    for n, job in enumerate(jobs):
        threads.append(threading.Thread(target=attempt, args=(n, job)))
        threads[-1].start()
        jobs_wait(database, n + 1)  # in this order
    go.set()
    for thread in threads:
        thread.join()
    del ends[None]
    yield ends, len(commits) - 1


def numbers(database):
    return sorted(n for (n,) in database.rows("SELECT n FROM t"))


def test_jobs_that_wait_share_a_sync_of_so_many_at_most_and_each_runs_once(database, monkeypatch):
    monkeypatch.setattr("center.embedded.database.MAX_JOBS", 4)
    with at_once(database, *map(inserted, range(10))) as (ends, commits):
        assert ends == dict.fromkeys(range(10), 1)
        assert commits == 3
    assert numbers(database) == list(range(10))


def test_of_jobs_in_one_transaction_only_the_one_that_fails_is_undone(database):
    forgotten = []
    database.on_reset(lambda: forgotten.append(1))

    def fails(connection):
        inserted(7)(connection)
        return 1 / 0

    with at_once(database, inserted(1), fails, inserted(100), inserted(2)) as (ends, commits):
        assert commits == 1
        assert (ends[0], ends[3]) == (1, 1)
        assert isinstance(ends[1], ZeroDivisionError)
        assert isinstance(ends[2], StoreError)
        assert "CHECK constraint" in str(ends[2])
    assert numbers(database) == [1, 2]
    assert len(forgotten) == 3  # and once at the first transaction, before which anything may have been written


def test_where_sqlite_undoes_a_transaction_all_its_jobs_have_failed_and_the_next_goes_on(database):
    """As it does on a full disk."""
    database.run(lambda c: c.execute("CREATE TRIGGER full BEFORE INSERT ON t WHEN NEW.n = 13 "
                                     "BEGIN SELECT RAISE(ROLLBACK, 'disk is full'); END"))  # fmt: skip
    with at_once(database, inserted(1), inserted(13), inserted(2)) as (ends, _):
        for n in range(3):
            assert isinstance(ends[n], StoreError)
            assert str(ends[n]) == f"{database.path}: disk is full"
    assert numbers(database) == []
    assert database.run(inserted(5)) == 1
    assert numbers(database) == [5]


def test_what_is_remembered_of_tables_is_forgotten_once_another_process_has_written(database):
    forgotten = []
    database.on_reset(lambda: forgotten.append(1))
    for _ in range(2):
        database.run(inserted(1))
    assert len(forgotten) == 1
    with contextlib.closing(sqlite3.connect(database.path)) as other, other:
        other.execute("INSERT INTO t VALUES (2)")
    for _ in range(2):
        database.run(inserted(3))
    assert len(forgotten) == 2


def test_a_query_that_is_wrong_is_told_from_one_that_takes_too_long_and_the_next_goes_on(database):
    for _ in range(2):
        with pytest.raises(sqlite3.OperationalError, match="no such table"), database.moment() as connection:
            connection.execute("SELECT * FROM no_such")
    database.run(inserted(1))
    with database.moment() as connection:
        assert connection.execute("SELECT n FROM t").fetchall() == [(1,)]
        database.run(inserted(2))
        assert connection.execute("SELECT n FROM t").fetchall() == [(1,)]
    assert numbers(database) == [1, 2]
    with pytest.raises(sqlite3.OperationalError, match="readonly"):
        database.rows("INSERT INTO t VALUES (3) RETURNING n")


def test_only_a_question_of_a_moment_ends_when_whoever_asked_has_gone_or_its_time_is_up(tmp_path, monkeypatch):
    monkeypatch.setattr("center.embedded.database.STEPS", 1)
    gone, now = [False], [100.0]
    clock = SimpleNamespace(thread_time=lambda: now[0], monotonic=time.monotonic)
    monkeypatch.setattr("center.embedded.database.time", clock)
    with contextlib.closing(Database(tmp_path / "db", "CREATE TABLE t (n)", lambda: gone[0])) as database:

        def asked(after_s=0.0):
            with database.moment() as connection:
                now[0] += after_s
                return connection.execute("SELECT count(*) FROM t").fetchone()

        assert [asked(), asked(10.0)] == [(0,), (0,)]
        with pytest.raises(StoreError, match="more than 10 s: ask for a shorter range") as late:
            asked(10.1)
        assert late.value.known
        assert asked() == (0,)
        gone[0] = True
        assert database.rows("SELECT count(*) FROM t") == [(0,)]
        with pytest.raises(StoreError):
            asked()
        gone[0] = False
        assert asked() == (0,)


def test_a_store_that_is_closed_says_so_and_closes_once(tmp_path):
    database = Database(tmp_path / "new" / "folder" / "db", "")
    database.close()
    database.close()
    with pytest.raises(StoreError, match="the store is closed"):
        database.run(lambda _: None)
    (tmp_path / "db").write_bytes(b"no database" * 1000)
    with pytest.raises(StoreError, match="not a database"):
        Database(tmp_path / "db", "CREATE TABLE t (n)")


@pytest.mark.parametrize("table", ["device", "points"])
def test_a_damaged_file_is_named_by_what_reads_it_and_the_rest_goes_on(tmp_path, table):
    """Of each table the first page is overwritten: one is read by itself, the other at a moment."""
    settings = embedded_settings(tmp_path)
    with stores(settings) as (registry, telemetry):
        registry.register("pi-1", A)
        telemetry.write([environment("pi-1", NOW, Temperature=20.0)])
    with contextlib.closing(sqlite3.connect(tmp_path / FILE)) as file:
        (page,) = file.execute("SELECT rootpage FROM sqlite_master WHERE name = ?", (table,)).fetchone()
        (size,) = file.execute("PRAGMA page_size").fetchone()
    with (tmp_path / FILE).open("r+b") as file:
        file.seek((page - 1) * size)
        file.write(bytes(size))
    app = create_app(settings)
    with contextlib.closing(app.extensions[EXTENSION]):
        client = app.test_client()
        for path in ("/devices", "/api/devices" if table == "device" else "/api/devices/pi-1/measurements"):
            answer = client.get(path)
            assert answer.status_code == 503
            assert f"{tmp_path / FILE}: database disk image is malformed" in text_of(answer)
        assert client.get("/api/buckets").status_code == 200
    if table == "device":
        answer = CliRunner().invoke(main, ["check", "--embedded", "--data", str(tmp_path)])
        assert (answer.exit_code, answer.stdout) == (69, "")
        assert answer.stderr == f"iot-center: {tmp_path / FILE}: database disk image is malformed\n"


def test_a_damaged_text_is_one_of_the_file_too(tmp_path):
    settings = embedded_settings(tmp_path)
    with stores(settings) as (registry, telemetry):
        registry.register("pi-1", A)
        telemetry.write([environment("pi-1", time.time_ns(), Temperature=20.0)])
    with contextlib.closing(sqlite3.connect(tmp_path / FILE)) as file:
        file.execute("UPDATE series SET tags = CAST(x'7bff7d' AS TEXT)")
        file.commit()
    app = create_app(settings)
    with contextlib.closing(app.extensions[EXTENSION]):
        answer = app.test_client().get("/devices/pi-1")
    assert answer.status_code == 503
    assert str(tmp_path / FILE) in text_of(answer)


def test_sqlite_s_backup_of_a_store_in_use_has_all_that_was_acknowledged(tmp_path):
    """As docs/center.md says; a copy of the file alone has not."""
    place, copied = tmp_path / "data", tmp_path / "elsewhere"
    copied.mkdir()
    with stores(embedded_settings(place)) as (registry, telemetry):
        registry.register("pi-1", A)
        telemetry.write([environment("pi-1", NOW, Temperature=20.0)])
        with (
            contextlib.closing(sqlite3.connect(place / FILE)) as served,
            contextlib.closing(sqlite3.connect(copied / FILE)) as backup,
        ):
            served.backup(backup)
    with stores(embedded_settings(copied)) as (registry, telemetry):
        assert registry.owns("pi-1", A)
        assert telemetry.last_values(["pi-1"])["pi-1"][0].value == 20.0


def test_a_file_that_belongs_to_another_user_is_named_with_both(tmp_path, monkeypatch):
    (tmp_path / FILE).mkdir()  # what cannot be opened, also by root
    monkeypatch.setattr(os, "access", lambda *_: False)
    with pytest.raises(StoreError, match=rf"{FILE} belongs to user {os.geteuid()}, this runs as {os.geteuid()}"):
        Database(tmp_path / FILE, "")


def test_a_process_that_ends_without_closing_it_is_not_held_by_its_thread(database):
    assert database.run(lambda _: threading.current_thread().daemon)


def test_how_often_an_idle_job_failed_is_said_when_it_fails_otherwise_and_works_again(tmp_path, monkeypatch, caplog):
    monkeypatch.setattr("center.embedded.database.IDLE_EVERY_S", 0.005)
    caplog.set_level(logging.INFO, "center.embedded.database")
    ends, done = iter([StoreError("a"), StoreError("a"), StoreError("b"), None, None]), threading.Event()

    def job(_):
        end = next(ends, done)
        if end is done:
            done.set()
            return None
        return end

    with contextlib.closing(Database(tmp_path / "db", "")) as database:
        database.on_idle("resting", job)
        assert done.wait(30)
        assert database.failing == {}
    assert caplog.messages == [
        "resting fails, and is tried again: a",
        "resting now fails otherwise (after 2 times): b",
        "resting works again after failing 3 times",
    ]
    assert [record.exc_info for record in caplog.records] == [None] * 3


def test_a_rehearsal_undoes_what_it_tries_and_names_what_returns_an_error_or_raises_one(database):
    database.on_idle("fine", lambda connection: inserted(1)(connection) and None)
    database.on_idle("told", lambda _: StoreError("told so"))
    database.on_idle("raised", lambda connection: inserted(100)(connection) and None)
    database.on_idle("mistaken", lambda _: 1 / 0)
    found = dict(database.rehearse())
    assert list(found) == ["told", "raised", "mistaken"]
    assert found["told"] == "told so"
    assert found["raised"].startswith(f"{database.path}: CHECK constraint")
    assert found["mistaken"] == "ZeroDivisionError: division by zero"
    assert numbers(database) == []
