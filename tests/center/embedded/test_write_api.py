"""POST /api/v2/write of the embedded store against the recorded answers of InfluxDB 2.9.1."""

import contextlib
import dataclasses
import gzip
import json
import re
import threading
import time
from pathlib import Path

import pytest

from agent.util.secret import Secret
from center.app import create_app
from center.context import EXTENSION
from center.embedded.write_api import org_id
from center.line_protocol import lines_of, parse
from center.settings import DeviceDefaults
from center.stores.registry import digest
from center.stores.telemetry import SeriesQuery
from tests.center_helpers import HASH, HOUR, embedded_settings, points_of, written

CASES = [
    case
    for case in json.loads((Path(__file__).parents[2] / "data" / "influxdb-2.9.1.json").read_text())
    if case["name"].startswith("write: ") or case["name"] in {"ping", "health"}
]
RECORDED_AT = 1_795_500_567_859_224_663  # ns: the stamp of the recorded points
# What the embedded store answers otherwise, and why.
EXPLAINED = {
    "health": "names itself: the program is not InfluxDB, and the agent's doctor should see that",
    "write: all points older than retention": "names its own bucket id and its own clock in the message",
}
# Recorded without the bytes that were sent: made anew below.
REMADE = {
    "write: 26 MB body": "test_26_mb_are_taken_at_once",
    "write: 26 MB of text as gzip": "test_26_mb_are_taken_at_once",
    "write: truncated gzip": "test_a_damaged_gzip_member_fails_the_whole_request",
}


@pytest.fixture(scope="module")
def app(tmp_path_factory):
    settings = embedded_settings(tmp_path_factory.mktemp("center"))
    settings = dataclasses.replace(settings, store=dataclasses.replace(settings.store, org="my-org"))
    app = create_app(settings)
    center = app.extensions[EXTENSION]
    database = center.registry.database
    database.change("INSERT INTO bucket (id, name, retention_s) VALUES ('00000000000short', 'short', 3600)")
    for n, (token, bucket) in enumerate(TOKENS.items()):
        database.change("INSERT INTO authorization VALUES (?, ?, '', ?)", digest(Secret(token)), f"key-{n}", bucket)
    send(app, app.test_client(), case_of("write: one point"))  # as it was recorded first: its types hold for the others
    yield app
    center.close()


@pytest.fixture
def client(app):
    return app.test_client()


def case_of(name):
    return next(case for case in CASES if case["name"] == name)


def token_of(name):
    return case_of(name)["request"]["headers"]["Authorization"].partition(" ")[2]


DEVICE = token_of("write: one point")
TOKENS = {
    DEVICE: "iot_center",
    token_of("write: token for another bucket"): "short",
    "operator-token-0001": "iot_center",
}


def send(app, client, case):
    """A recorded request, with the ids of this store in place of the recorded ones."""
    request = case["request"]
    bucket = app.extensions[EXTENSION].telemetry.find_bucket("iot_center")
    path = request["path"].replace("c497f49c19dc5eda", org_id("my-org")).replace("03728f6f9df82229", bucket.id)
    body = (request["body"] or "").encode("latin-1" if "invalid UTF-8" in case["name"] else "utf-8")
    headers = dict(request["headers"])
    if case["name"] == "write: gzip":
        body = gzip.compress(body)
    return client.open(path, method=request["method"], headers=headers, data=body)


@contextlib.contextmanager
def without_tokens(database):
    rows = database.run(lambda c: c.execute("DELETE FROM authorization RETURNING *").fetchall())
    try:
        yield
    finally:
        database.run(lambda c: c.executemany("INSERT INTO authorization VALUES (?, ?, ?, ?)", rows) and None)


@pytest.mark.parametrize("case", [c for c in CASES if c["name"] not in REMADE], ids=lambda case: case["name"])
def test_the_recorded_answer(app, client, case):
    deleted = case["name"] == "write: token that was deleted"
    with without_tokens(app.extensions[EXTENSION].registry.database) if deleted else contextlib.nullcontext():
        answer = send(app, client, case)
    recorded = case["response"]
    assert answer.status_code == recorded["status"]
    assert answer.headers.get("X-Platform-Error-Code") == recorded["headers"].get("x-platform-error-code")
    if case["name"] == "health":
        assert answer.json["status"] == "pass"
    elif case["name"] in EXPLAINED:
        words = re.compile(r"for database: \w+|\d{4}-\d\d-\d\dT[0-9:.]+Z")
        assert words.sub("…", answer.json["message"]) == words.sub("…", json.loads(recorded["body"])["message"])
    elif recorded["body"]:
        assert answer.json == json.loads(recorded["body"])
    else:
        assert answer.data == b""


@pytest.fixture
def fresh(tmp_path):
    app = create_app(embedded_settings(tmp_path))
    center = app.extensions[EXTENSION]
    token = center.registry.register("pi-1", Secret("s" * 32)).token.reveal()
    yield app.test_client(), {"Authorization": f"Token {token}"}, center
    center.close()


FRESH = "/api/v2/write?org=iot-center&bucket=iot_center"
LINE = "environment,clientId=pi-1 Temperature=%s %d"


def test_where_a_password_is_set_a_token_writes_under_its_own_id_only_unless_it_is_a_trusted_loggers(tmp_path):
    """On open loopback, where every caller is an administrator, the recorded cases above stay InfluxDB's."""
    settings = embedded_settings(tmp_path)
    app = create_app(dataclasses.replace(settings, devices=DeviceDefaults(loggers=("logger",))))
    with contextlib.closing(app.extensions[EXTENSION]) as center:
        client = app.test_client()
        tokens = {name: center.registry.register(name, Secret("s" * 32)).token.reveal() for name in ("pi-1", "logger")}

        def status(name, line):
            return written(client, tokens[name], line)

        others = "environment,clientId=pi-1 Temperature=1 1\nenvironment,device=pi-2 Temperature=1 1"
        assert status("pi-1", others) == 204
        center.registry.set_password_hash(HASH)
        assert status("pi-1", others) == 403
        assert status("pi-1", "environment,clientId=pi-1,device=pi-2 Temperature=1 2") == 403
        assert status("pi-1", "environment,clientId=pi-1,device=pi-1 Temperature=1 2\nroom,shelf=2 light=1 2") == 204
        assert status("logger", others) == 204
        assert center.telemetry.count("pi-1") == 2


def test_every_recorded_case_is_run_or_made_anew():
    names = {case["name"] for case in CASES}
    assert set(REMADE) | set(EXPLAINED) <= names
    assert all(test in globals() for test in REMADE.values())


def test_gzip_members_one_after_another_are_all_stored(fresh):
    client, headers, center = fresh
    body = b"".join(gzip.compress((LINE % (n, n) + "\n").encode()) for n in range(1, 6))
    assert client.post(FRESH, headers=headers | {"Content-Encoding": "gzip"}, data=body).status_code == 204
    assert center.telemetry.count("pi-1") == 5


@pytest.mark.parametrize("damage", ["cut", "flip", "rest"])
def test_a_damaged_gzip_member_fails_the_whole_request(fresh, damage):
    client, headers, center = fresh
    good = gzip.compress((LINE % (1, 1) + "\n").encode())
    bad = {"cut": good[:-12], "flip": good[:-6] + bytes([good[-6] ^ 1]) + good[-5:], "rest": b"no gzip"}[damage]
    answer = client.post(FRESH, headers=headers | {"Content-Encoding": "gzip"}, data=good + bad)
    assert answer.status_code == 500
    assert answer.json["code"] == "internal error"
    assert center.telemetry.count("pi-1") == 0


@pytest.mark.slow
def test_26_mb_are_taken_at_once(fresh):
    client, headers, center = fresh
    lines = b"\n".join(b"environment,clientId=pi-1 Temperature=20.5 %d" % (RECORDED_AT + n) for n in range(420_000))
    assert len(lines) > 26_000_000
    body = gzip.compress(lines, 1)
    assert client.post(FRESH, headers=headers | {"Content-Encoding": "gzip"}, data=body).status_code == 204
    assert center.telemetry.count("pi-1") == 420_000


def test_too_large_a_body_is_a_413_packed_or_not(tmp_path):
    app = create_app(embedded_settings(tmp_path, max_body=1000))
    center = app.extensions[EXTENSION]
    token = center.registry.register("pi-1", Secret("s" * 32)).token.reveal()
    headers = {"Authorization": f"Token {token}"}
    client = app.test_client()
    answer = client.post(FRESH, headers=headers, data=b"x" * 1001)
    assert (answer.status_code, answer.json["code"]) == (413, "request too large")
    bomb = gzip.compress(b"\n" * 10_000_000)
    assert (
        len(bomb) > 1000
        or client.post(FRESH, headers=headers | {"Content-Encoding": "gzip"}, data=bomb).status_code == 413
    )
    small = gzip.compress(b"\n" * 1001)
    assert len(small) < 1000
    assert client.post(FRESH, headers=headers | {"Content-Encoding": "gzip"}, data=small).status_code == 413
    center.close()


def test_one_large_body_is_read_at_a_time_and_small_ones_pass_it(fresh, monkeypatch):
    """A point in memory takes many times its line: sixteen such bodies at once would take all there is."""
    client, headers, center = fresh
    monkeypatch.setattr("center.write_request.SMALL", 50)
    monkeypatch.setattr("center.write_request.LARGE", 100)
    monkeypatch.setattr("center.write_request.WAIT_S", 0.01)
    started, go_on = threading.Event(), threading.Event()
    store = type(center.telemetry).store

    def slow(self, bucket, batches, writer):
        if len(batches[0]) > 1:
            started.set()
            go_on.wait(40)
        return store(self, bucket, batches, writer)

    monkeypatch.setattr(type(center.telemetry), "store", slow)
    large = b"\n".join(b"environment,clientId=pi-1 Temperature=20.5 %d" % (RECORDED_AT + n) for n in range(10))
    answers = []
    first = threading.Thread(target=lambda: answers.append(client.post(FRESH, headers=headers, data=large)))
    first.start()
    assert started.wait(40)
    other = client.application.test_client()
    refused = other.post(FRESH, headers=headers, data=large)
    assert (refused.status_code, refused.headers["Retry-After"]) == (503, "10")
    assert other.post(FRESH, headers=headers, data=large[:50].splitlines()[0]).status_code == 204
    go_on.set()
    first.join()
    assert answers[0].status_code == 204
    assert other.post(FRESH, headers=headers, data=large).status_code == 204


def test_every_bad_line_is_named_and_nothing_is_stored(fresh):
    client, headers, center = fresh
    body = "\n".join([LINE % (1, 1), "bad", LINE % ("x", 2), "  m,a= f=1", 'm f="a\nb']).encode()
    answer = client.post(FRESH, headers=headers, data=body)
    assert answer.status_code == 400
    assert answer.json["message"].split("\nunable") == [
        "unable to parse 'bad': missing fields",
        " to parse 'environment,clientId=pi-1 Temperature=x 2': invalid boolean",
        " to parse 'm,a= f=1': missing tag value",
        " to parse 'm f=\"a\nb': unbalanced quotes",
    ]
    assert center.telemetry.count("pi-1") == 0


def test_a_type_conflict_drops_the_whole_point_and_stores_the_others(fresh):
    client, headers, center = fresh
    lines = ["e,device=pi-1 a=1,b=2i 1", "e,device=pi-1 a=1i,b=3i 2", "e,device=pi-1 b=4i 3"]
    body = "\n".join(line.replace("e,", "environment,") for line in lines)
    answer = client.post(FRESH, headers=headers, data=body)
    assert answer.status_code == 422
    assert answer.json["message"].endswith("is type integer, already exists as type float dropped=1")
    assert list(points_of(center.telemetry, "pi-1")) == [1, 3]


WEEK = 7 * 24 * HOUR


def test_types_hold_for_a_week(fresh):
    client, headers, _ = fresh
    line = LINE.replace("Temperature", "mood")
    assert client.post(FRESH, headers=headers, data=line % ("1.5", RECORDED_AT)).status_code == 204
    assert client.post(FRESH, headers=headers, data=line % ("1i", RECORDED_AT + WEEK)).status_code == 204
    assert client.post(FRESH, headers=headers, data=line % ("1i", RECORDED_AT)).status_code == 422
    assert client.post(FRESH, headers=headers, data=line % ("1.5", RECORDED_AT + WEEK)).status_code == 422


@pytest.mark.parametrize("ahead", [0, WEEK, 70 * 52 * WEEK])
def test_a_quantity_of_the_data_model_has_its_type_in_any_week_and_takes_an_integer_where_no_float_was(fresh, ahead):
    client, headers, center = fresh
    t = RECORDED_AT + ahead

    def status(line, at):
        return client.post(FRESH, headers=headers, data=f"environment,clientId=pi-1 {line} {at}").status_code

    for line in ('Temperature="x"', "Temperature_min=true", "CO2=400.5", 'CO2="x"'):
        assert status(line, t) == 422
    assert [status("Temperature=21i", t), status("Temperature=20.5", t + 1), status("CO2=400i", t)] == [204] * 3
    assert status("Temperature=21i", t + 2) == 422
    assert points_of(center.telemetry, "pi-1") == {t: {"Temperature": 21, "CO2": 400}, t + 1: {"Temperature": 20.5}}


def test_what_one_device_stored_is_nothing_to_another(fresh):
    """Types, names and numbers of fields and series: each device has its own."""
    client, headers, center = fresh
    strange = ",".join(f'f{n}="x"' for n in range(990))
    assert client.post(FRESH, headers=headers, data=f"environment,clientId=pi-1 {strange} 1").status_code == 204
    lines = [f"environment,clientId=pi-1,sensor=s{n} f=1 1" for n in range(300)]
    answer = client.post(FRESH, headers=headers, data="\n".join(lines))
    assert answer.status_code == 422
    assert "field limit: device 'pi-1' may have 1000 fields in all its series, and has 1000" in answer.json["message"]
    assert client.post(FRESH, headers=headers, data="environment,clientId=pi-2 f1=1,f2=2i,new=t 1").status_code == 204
    assert points_of(center.telemetry, "pi-2") == {1: {"f1": 1.0, "f2": 2, "new": True}}


def test_a_device_has_so_many_series_and_the_next_is_refused_in_words(fresh):
    client, headers, center = fresh
    lines = [f"environment,clientId=pi-1,sensor=s{n} f=1 1" for n in range(260)]
    answer = client.post(FRESH, headers=headers, data="\n".join(lines))
    assert answer.status_code == 422
    assert answer.json["message"].endswith("series limit: device 'pi-1' has 250 series already dropped=10")
    assert client.post(FRESH, headers=headers, data="\n".join(lines[:250])).status_code == 204
    untagged = "\n".join(f"room,n={n} f=1 1" for n in range(2))
    assert client.post(FRESH, headers=headers, data=untagged).status_code == 422  # they count as its own
    assert center.telemetry.count("pi-1") == 250


def test_a_field_named_time_is_refused_as_influxdb_does(fresh):
    client, headers, _ = fresh
    answer = client.post(FRESH, headers=headers, data="m time=1 1")
    assert answer.status_code == 422
    assert "partial write: invalid field name" in answer.json["message"]


def test_tags_in_another_order_are_the_same_series(fresh):
    client, headers, center = fresh
    assert (
        client.post(
            FRESH,
            headers=headers,
            data="environment,device=pi-1,sensor=x a=1 1\nenvironment,sensor=x,device=pi-1 b=2 1",
        ).status_code
        == 204
    )
    assert center.telemetry.count("pi-1") == 1


def test_a_device_may_not_write_after_it_was_removed(fresh):
    client, headers, center = fresh
    assert client.post(FRESH, headers=headers, data=b"").status_code == 204
    center.registry.remove("pi-1")
    assert client.post(FRESH, headers=headers, data=b"").status_code == 401


def test_a_thousand_fields_are_enough(fresh):
    client, headers, center = fresh
    for first in range(0, 1000, 250):
        fields = ",".join(f"f{n}={n}" for n in range(first, first + 250))
        assert client.post(FRESH, headers=headers, data=f"environment,device=pi-1 {fields} 1").status_code == 204
    answer = client.post(FRESH, headers=headers, data="environment,device=pi-1 one_more=1 1")
    assert answer.status_code == 422
    assert "field limit" in answer.json["message"]
    assert points_of(center.telemetry, "pi-1")[1]["f999"] == 999.0
    curves = center.telemetry.series(SeriesQuery("pi-1", -HOUR, 24 * HOUR, (), HOUR))  # rolled up
    assert [curve.values[0] for curve in curves if curve.field in {"f0", "f500", "f999"}] == [0.0, 500.0, 999.0]


def test_names_from_devices_never_become_sql(fresh):
    client, headers, center = fresh
    name = 'f1"\\,)\\;DROP\\ TABLE\\ points\\;--'
    assert client.post(FRESH, headers=headers, data=f"environment,device=pi-1 {name}=1 1").status_code == 204
    assert client.post(FRESH, headers=headers, data="environment,device=pi-1 series=1,t=2,f1=3 2").status_code == 204
    assert points_of(center.telemetry, "pi-1")[2] == {"series": 1.0, "t": 2.0, "f1": 3.0}
    assert len(center.telemetry.series(SeriesQuery("pi-1", 0, 10))) == 4


def test_an_answer_of_204_means_synced(fresh, monkeypatch):
    """Stored by a transaction of a connection with synchronous=FULL; what cannot be committed is a 503."""
    client, headers, center = fresh

    def pragma(text):
        """On the connection that writes."""
        return center.telemetry.database.run(lambda connection: connection.execute(f"PRAGMA {text}").fetchone())

    assert (pragma("synchronous"), pragma("journal_mode")) == ((2,), ("wal",))
    pragma("max_page_count = 1")  # what is there stays; nothing more fits
    body = "\n".join(LINE % (n, n) for n in range(20_000))
    answer = client.post(FRESH, headers=headers, data=body)
    assert answer.status_code == 503
    assert "full" in answer.json["message"]
    assert answer.headers["Retry-After"] == "10"
    assert center.telemetry.count("pi-1") == 0
    pragma("max_page_count = 1000000")
    assert client.post(FRESH, headers=headers, data=body).status_code == 204
    assert center.telemetry.count("pi-1") == 20_000


@pytest.mark.parametrize(
    ("text", "lines"),
    [
        ("a f=1\nb f=2", ["a f=1", "b f=2"]),
        ('a f="x\ny" 1\nb f=2', ['a f="x\ny" 1', "b f=2"]),
        ('a,t="x f=1\nb f=2', ['a,t="x f=1', "b f=2"]),
        ('a f="\\"\n" 1\nb f=2', ['a f="\\"\n" 1', "b f=2"]),
        ('a f="x\nb f=2', ['a f="x\nb f=2']),
    ],
)
def test_lines_end_where_influxdb_ends_them(text, lines):
    assert list(lines_of(text.encode())) == [line.encode() for line in lines]


def test_what_a_line_costs_does_not_grow_with_their_number():
    line = "environment,clientId=pi-1,device=pi-1,TemperatureSensor=bme280 Temperature=21.5,Humidity=40.25 %d"
    cost = {500: [], 5000: []}
    for lines in (500, 5000) * 3:
        body = "\n".join(line % n for n in range(lines)).encode()
        start = time.thread_time()
        [points] = parse(body)
        cost[lines].append(time.thread_time() - start)
        assert len(points) == lines
    assert min(cost[5000]) < 30 * min(cost[500])  # ten times, and not a hundred
