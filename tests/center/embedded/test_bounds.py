"""What the embedded store remembers, reads and upgrades, within bounds."""

import contextlib
import json
import queue
import socket
import sqlite3
import threading
import time

import pytest

from center.app import FILE, serve
from center.context import EXTENSION
from center.embedded import points as stored
from center.embedded.rollup import RollUp
from center.errors import RefusedError, StoreError
from center.stores.telemetry import Point, SeriesQuery
from center.times import MAX_TIME, now_ns
from tests.center_helpers import DAY, HOUR, embedded_settings, environment, points_of, stores

NOW = now_ns() // HOUR * HOUR
OLD = """
CREATE TABLE bucket (n INTEGER PRIMARY KEY, id TEXT UNIQUE, name TEXT UNIQUE, retention_s INTEGER);
CREATE TABLE series (
    n INTEGER PRIMARY KEY, bucket INTEGER, measurement TEXT, tags TEXT, UNIQUE (bucket, measurement, tags));
CREATE TABLE device_series (
    bucket INTEGER, device TEXT, measurement TEXT, series INTEGER,
    PRIMARY KEY (bucket, device, measurement, series)) WITHOUT ROWID;
CREATE TABLE field (
    bucket INTEGER, measurement TEXT, name TEXT, n INTEGER, type TEXT,
    PRIMARY KEY (bucket, measurement, name)) WITHOUT ROWID;
CREATE TABLE shard_type (
    bucket INTEGER, measurement TEXT, shard INTEGER, field TEXT, type TEXT,
    PRIMARY KEY (bucket, measurement, shard, field)) WITHOUT ROWID;
CREATE TABLE points (series INTEGER, t INTEGER, f1, f2, f3, PRIMARY KEY (series, t)) WITHOUT ROWID;
"""


@pytest.fixture
def telemetry(tmp_path):
    with stores(embedded_settings(tmp_path)) as (_, telemetry):
        yield telemetry


def test_a_file_of_0_1_0_is_read_and_written_on(tmp_path):
    with contextlib.closing(sqlite3.connect(tmp_path / FILE)) as old, old:
        old.executescript(OLD)
        old.execute("INSERT INTO bucket VALUES (1, 'b', 'iot_center', 0)")
        for n, device in enumerate(("pi-1", "pi-2"), 1):
            tags = json.dumps({"clientId": device, "device": device}, separators=(",", ":"))
            old.execute("INSERT INTO series VALUES (?, 1, 'environment', ?)", (n, tags))
            old.execute("INSERT INTO device_series VALUES (1, ?, 'environment', ?)", (device, n))
            old.execute("INSERT INTO points VALUES (?, ?, 20.5, ?, NULL)", (n, NOW - HOUR, n))
        for n, (name, kind) in enumerate({"Temperature": "float", "CO2": "integer", "mood": "string"}.items(), 1):
            old.execute("INSERT INTO field VALUES (1, 'environment', ?, ?, ?)", (name, n, kind))
    for _ in range(2):
        with stores(embedded_settings(tmp_path)) as (_, telemetry):
            assert points_of(telemetry, "pi-2")[NOW - HOUR] == {"Temperature": 20.5, "CO2": 2}
            telemetry.write([environment("pi-2", NOW, CO2=3, Humidity=40.5, Temperature=21.5)])
            assert points_of(telemetry, "pi-2")[NOW] == {"Temperature": 21.5, "CO2": 3, "Humidity": 40.5}
            assert points_of(telemetry, "pi-1") == {NOW - HOUR: {"Temperature": 20.5, "CO2": 1}}


def test_a_device_that_0_1_0_left_more_fields_than_it_may_have_goes_on_in_the_next_week(telemetry, monkeypatch):
    telemetry.write([environment("pi-1", NOW - 10 * DAY, Temperature=20.5, mood=1.0, wind=2.0)])
    monkeypatch.setattr(stored, "MAX_FIELDS", 2)
    telemetry.write([environment("pi-1", NOW, Temperature=21.5, mood=1.5, wind=3.0)])
    assert points_of(telemetry, "pi-1")[NOW] == {"Temperature": 21.5, "mood": 1.5, "wind": 3.0}
    with pytest.raises(RefusedError, match="field limit"):
        telemetry.write([environment("pi-1", NOW, rain=1.0)])


def test_series_of_a_device_with_other_fields_in_other_orders_are_one_curve(telemetry):
    """Their columns differ, and so does what is asked of the table."""
    t = NOW - 10 * DAY
    fields = [{"a": 1.0, "b": 2.0}, {"b": 4.0}, {"c": 9.0, "b": 6.0, "a": 3.0}]
    telemetry.write([environment("pi-1", t + n * HOUR, tags={"shelf": str(n)}, **f) for n, f in enumerate(fields)])
    telemetry.write([environment("pi-1", t, tags={"shelf": "1"}, b=10.0)])

    def curves(**query):
        told = telemetry.series(SeriesQuery("pi-1", NOW - 11 * DAY, NOW, **query))
        return {curve.field: list(curve.values) for curve in told}

    expected = {"mean": 5.5, "min": 2.0, "max": 10.0, "sum": 22.0, "count": 4, "first": 2.0, "last": 6.0}
    for _ in range(2):
        assert curves() == {"a": [1.0, 3.0], "b": [10.0, 4.0, 6.0], "c": [9.0]}
        for fn, value in expected.items():
            assert curves(fields=("b",), every_ns=365 * DAY, fn=fn) == {"b": [value]}
        assert [(s.field, s.count, s.minimum, s.last) for s in telemetry.summary("pi-1", start_ns=t, stop_ns=NOW)] == [
            ("a", 2, 1.0, 3.0), ("b", 4, 2.0, 6.0), ("c", 1, 9.0, 9.0)
        ]  # fmt: skip
        telemetry.database.run(RollUp(telemetry.writer))


def test_what_is_remembered_has_a_bound_in_bytes_and_forgetting_changes_nothing(telemetry, monkeypatch):
    monkeypatch.setattr(stored, "MAX_CACHED", 20_000)
    monkeypatch.setattr(stored, "MAX_DIRTY", 50)
    monkeypatch.setattr(stored, "MAX_PLANS", 3)
    bucket = telemetry.find_bucket("iot_center")
    expected = {}
    for turn in range(60):
        tags = [("clientId", "pi-1"), ("rack", "a" * (50 * turn)), ("shelf", str(turn % 7))]
        order = tags[turn % 3 :] + tags[: turn % 3]  # as sent: the cache's keys differ, the series do not
        text = "environment," + ",".join(f"{key}={value}" for key, value in order if value)
        fields = {f"f{n}": float(turn) for n in range(turn % 5, turn % 11 + 5)}
        point = Point("environment", {k: v for k, v in order if v}, fields, NOW - turn * HOUR, text)
        assert telemetry.store(bucket, [[point] * 2]) is None
        expected[NOW - turn * HOUR] = fields
        assert telemetry.writer._cached < 20_000 + 15_000
        assert len(telemetry.writer.dirty) <= 51
    assert points_of(telemetry, "pi-1") == dict(sorted(expected.items()))


def test_the_order_of_tags_makes_no_second_numbering_of_a_series_fields(telemetry):
    bucket = telemetry.find_bucket("iot_center")
    tags = {"clientId": "pi-1", "shelf": "2"}
    texts = "environment,clientId=pi-1,shelf=2", "environment,shelf=2,clientId=pi-1"
    for n, text in enumerate(texts * 2):
        telemetry.store(bucket, [[Point("environment", tags, {f"f{n}": 1.0, "g": float(n)}, NOW + n, text)]])
    assert points_of(telemetry, "pi-1") == {NOW + n: {f"f{n}": 1.0, "g": float(n)} for n in range(4)}


def test_stamps_at_the_edges_of_time_are_summed_up_like_any_other(telemetry, monkeypatch):
    edges = [MAX_TIME, -MAX_TIME, MAX_TIME - 1, 1 - MAX_TIME, -1, 0]
    telemetry.write([environment("pi-1", t, Temperature=1.5) for t in (*edges, NOW - 3 * HOUR, NOW - 4 * HOUR)])
    monkeypatch.setattr("center.embedded.rollup.now_ns", lambda: MAX_TIME + 3 * HOUR)
    assert telemetry.database.run(RollUp(telemetry.writer)) is None
    assert telemetry.database.rows("SELECT * FROM dirty") == []
    assert telemetry.database.row("SELECT sum(count) FROM hours")[0] == len(edges) + 2


def test_ranges_as_long_as_time_are_answered_in_whole_windows(telemetry):
    times = [-MAX_TIME + 1, -5 * DAY, 5 * HOUR, NOW, MAX_TIME - 1]
    telemetry.write([environment("pi-1", t, Temperature=2.0) for t in times])
    asked = 0
    for start, stop in ((-MAX_TIME, MAX_TIME), (1 - MAX_TIME, 0), (0, MAX_TIME)):
        within = [t for t in times if start <= t < stop]
        for every in (None, 7 * DAY, 365 * DAY, MAX_TIME):
            ends = sorted({min((t // every + 1) * every, stop) for t in within}) if every else within
            for fn in ("mean", "sum", "count", "first", "last", "median", "max"):
                (curve,) = telemetry.series(SeriesQuery("pi-1", start, stop, (), every, fn))
                assert list(curve.times_ns) == ends
                told = {"sum": 2 * len(within), "count": len(within)} if every else {}
                assert sum(curve.values) == told.get(fn, 2 * len(ends))
                asked += 1
    assert asked == 84


def test_an_hour_that_cannot_be_summed_up_keeps_no_other_from_it_and_is_said(telemetry, monkeypatch, caplog):
    monkeypatch.setattr("center.embedded.rollup.HOURS_AT_ONCE", 5)
    for device in ("bad", "good"):
        telemetry.write([environment(device, NOW - n * HOUR, Temperature=1.5) for n in range(3, 15)])
    job = RollUp(telemetry.writer)
    from center.embedded import rollup

    real, tries = rollup._sum_up, []

    def failing(connection, shape, number, hour):
        tries.append((number, hour))
        real(connection, shape, number, hour)
        if number == 1:
            raise OverflowError("Python int too large to convert to SQLite INTEGER")

    monkeypatch.setattr(rollup, "_sum_up", failing)
    said = [telemetry.database.run(job) for _ in range(6)]
    assert isinstance(said[0], StoreError)
    assert "series 1, hour" in str(said[0])
    assert telemetry.database.rows("SELECT series, count(*) FROM dirty GROUP BY series") == [(1, 12)]
    assert telemetry.database.rows("SELECT series, count(*) FROM hours GROUP BY series") == [(2, 12)]
    monkeypatch.undo()
    assert [telemetry.database.run(job) for _ in range(2)][-1] is None
    assert telemetry.database.row("SELECT count(*) FROM dirty") == (0,)


def test_what_takes_too_long_to_read_ends_and_says_what_to_do(tmp_path, monkeypatch):
    monkeypatch.setattr("center.embedded.database.STEPS", 10)
    with stores(embedded_settings(tmp_path)) as (_, telemetry):
        telemetry.write([environment("pi-1", NOW - n, Temperature=float(n)) for n in range(100)])
        span = NOW - HOUR, NOW + 1
        monkeypatch.setattr("center.embedded.database.READ_S", -1.0)
        for ask in (
            lambda: telemetry.series(SeriesQuery("pi-1", *span)),
            lambda: telemetry.count("pi-1"),
            lambda: telemetry.last_values(["pi-1"]),
            lambda: telemetry.last_seen(since_ns=0),
            lambda: telemetry.summary("pi-1", start_ns=span[0], stop_ns=span[1]),
        ):
            with pytest.raises(StoreError, match="ask for a shorter range"):
                ask()
        monkeypatch.setattr("center.embedded.database.READ_S", 100.0)
        assert telemetry.count("pi-1") == 100


def test_a_question_ends_when_whoever_asked_has_gone(tmp_path, monkeypatch):
    """As a real server shows it: the connection's other end is closed while the answer is worked out."""
    monkeypatch.setattr("center.embedded.database.STEPS", 10)
    statuses, asked = queue.Queue(), threading.Event()
    with serve(embedded_settings(tmp_path)) as running:
        center = running.app.extensions[EXTENSION]
        center.telemetry.write([environment("pi-1", NOW - n, Temperature=float(n)) for n in range(100)])

        def slow(seconds):
            """Of no use but to last: until the client has gone, or a second after."""
            asked.set()
            try:
                with center.telemetry.database.moment() as connection:
                    for _ in range(1000):
                        connection.execute("SELECT count(*) FROM points a, points b").fetchall()
                        time.sleep(seconds)
            except StoreError as error:
                statuses.put(str(error))
                raise
            statuses.put("to its end")
            return ""

        running.app.add_url_rule("/slow", view_func=lambda: slow(0.01))
        with socket.create_connection(("127.0.0.1", running.port)) as client:
            client.sendall(b"GET /slow HTTP/1.1\r\nHost: localhost\r\n\r\n")
            assert asked.wait(30)
        assert "takes more than" in statuses.get(timeout=30)


def test_a_question_has_a_bound_over_all_its_curves(telemetry, monkeypatch):
    monkeypatch.setattr("center.embedded.telemetry.MAX_VALUES", 100)
    telemetry.write([environment("pi-1", NOW - n * HOUR, a=1.0, b=2.0) for n in range(60)])
    query = (NOW - 60 * HOUR, NOW + 1)
    for every in (None, HOUR):
        with pytest.raises(RefusedError, match="more than 100 values"):
            telemetry.series(SeriesQuery("pi-1", *query, (), every))
        assert [len(c.values) for c in telemetry.series(SeriesQuery("pi-1", *query, ("a",), every))] == [60]
