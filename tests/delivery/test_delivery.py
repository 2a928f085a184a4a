"""Delivery with the real buffer against a real server: what arrives, what it costs, and what is said about it."""

import itertools
import logging
import math
import threading
import time
from pathlib import Path
from random import Random

import pytest

from agent.buffer.buffer import open_buffer
from agent.buffer.offline import OfflineBuffer
from agent.clock.boots import Boots, current_boot_id
from agent.clock.clock import Clock
from agent.config.settings import BufferSettings, DeliverySettings
from agent.config.units import Seconds
from agent.delivery.delivery import Delivery
from agent.delivery.settling import MAX_HALVINGS
from agent.points.schema import Line
from agent.registration.target import Target
from agent.util.loops import LoopThread
from agent.util.secret import Secret
from tests.amounts import amount, first
from tests.buffers import store
from tests.servers import InfluxServer

S = 1_000_000_000
WEEK = 604_800 * S
START = 1_795_478_400 * S  # the first moment of a week, as shards count them
LIVE = START + 500_000 * S  # of the same week, later than any backlog here
GOOD = b"environment,clientId=pi-1 Temperature=7.25"
UNPARSABLE = b"environment,clientId=pi-1 Temperature= "
WRONG_TYPE = b"environment,clientId=pi-1 Temperature=7i"


class FakeTime:
    """Boot-clock nanoseconds that pass only when told, and the waits of a delivery."""

    def __init__(self):
        self.ns = 1000 * S

    def __call__(self):
        return self.ns


class NoClock:
    """A clock that is good and asks for nothing."""

    boot_id = current_boot_id()

    def __init__(self, now):
        self.boot_ns = now
        self.seen = []
        self.wanted = None

    def date(self, boot_ns):
        return LIVE + boot_ns

    def state(self):
        return Clock(Boots(None, self.boot_id), trust="always").poll()

    def probe_in(self):
        return self.wanted

    def observe(self, *observation, **proof):
        self.seen.append(observation)
        return True


class Rig:
    """A buffer, a delivery and a server, driven step by step on a time of its own."""

    def __init__(self, folder, server, **settings):
        self.folder, self.server = folder, server
        self.now = FakeTime()
        self.clock = NoClock(self.now)
        self.settings = DeliverySettings(**{"timeout": Seconds(5), **settings})
        self.target = Target(server.url, server.org, server.bucket, Secret(server.token))
        self.refused, self.taken_again = [], []
        self.buffer = self.delivery = None
        self.restart()

    def restart(self):
        if self.buffer is not None:
            self.delivery.close()
            self.buffer.close()
        self.buffer = open_buffer(self.folder, BufferSettings(), self.clock)
        self.delivery = Delivery(
            self.buffer,
            lambda: self.target,
            self.clock,
            self.settings,
            lambda: self.refused.append(self.now()),
            on_authorised=lambda: self.taken_again.append(self.now()),
            device_id="pi-1",
            rng=Random(7),
            now=self.now,
        )

    def put(self, count=1, head=GOOD):
        """Points of now, a millisecond apart."""
        self.buffer.put([Line(head, self.now() + n * 1_000_000) for n in range(count)])

    def store(self, count, bad=(), head=GOOD):
        """A backlog on disk; `bad` is index → head."""
        bad = dict(bad)
        store(self.buffer, [Line(bad.get(n, head), 0, START + n * S) for n in range(count)])

    def step(self):
        wait = self.delivery.step()
        if self.buffer.commit_due(self.now()):
            self.buffer.commit()
        return wait

    def run(self, seconds=math.inf, until=None, max_steps=100_000):
        """Let time pass as delivery asks, for so many seconds or until something is true."""
        end = self.now() + seconds * S
        for _ in range(max_steps):
            if until is not None and until():
                return True
            wait = self.step()
            if self.now() + wait * S > end:
                self.now.ns = round(end)
                return False
            self.now.ns += max(0, round(min(wait, 5.0) * S))
        raise AssertionError(f"not after {max_steps} steps: {self.status}, {self.delivery.snapshot()}")

    def empty(self):
        return self.status.pending == 0

    @property
    def status(self):
        return self.buffer.snapshot()

    @property
    def writes(self):
        return [request for request in self.server.requests if request.size]

    def close(self):
        self.delivery.close()
        self.buffer.close()


@pytest.fixture
def server():
    with InfluxServer() as running:
        yield running


@pytest.fixture
def rig(tmp_path, server):
    rigs = []

    def make(**settings):
        rigs.append(Rig(tmp_path / "buffer", server, **settings))
        return rigs[-1]

    yield make
    for made in rigs:
        made.close()
        assert made.status.unaccounted == 0


# The good path


def test_promise_1_while_the_server_answers_nothing_is_written_for_a_point(rig, server):
    agent = rig()
    for _ in range(30):
        agent.put()
        agent.run(seconds=1)
    agent.run(seconds=6)
    assert len(server.points) == 30
    assert agent.status.rows == 0
    assert 6 <= len(agent.writes) <= 9
    assert agent.status.counters.points.delivered == 30


def test_a_point_is_sent_within_the_flush_interval(rig, server):
    agent = rig(flush_interval=Seconds(2))
    agent.run(seconds=10)
    agent.put()
    agent.run(seconds=2)
    assert len(server.points) == 1


def test_a_burst_of_more_than_a_request_takes_goes_out_at_once(rig, server):
    agent = rig(batch_size=100)
    agent.put(1050)
    agent.run(seconds=0.01)
    assert len(server.points) == 1050
    assert [request.lines for request in agent.writes] == [100] * 10 + [50]


def test_promise_8_points_stored_twice_or_without_an_answer_count_once(rig, server):
    agent = rig()
    server.script.extend([server.twice, server.store_then_cut, None])
    agent.store(300)
    agent.put(50)
    agent.run(until=agent.empty)
    assert len(server.points) == 350
    assert server.writes > 400
    assert agent.status.counters.points.delivered == 350
    assert agent.status.unaccounted == 0


def test_the_backlog_goes_to_where_the_agent_is_told_to_deliver_now(rig, server):
    agent = rig()
    server.always = server.answer(404, {"message": "no bucket"})
    agent.store(100)
    agent.run(seconds=60)
    with InfluxServer(bucket="other") as other:
        agent.target = Target(other.url, other.org, "other", Secret(other.token))
        assert agent.run(seconds=0.5, until=agent.empty)
        assert len(other.points) == 100


def test_nothing_is_sent_while_nobody_knows_where_to(rig, server):
    agent = rig()
    target, agent.target = agent.target, None
    agent.put()
    agent.run(seconds=30)
    assert agent.delivery.snapshot().state == "waiting"
    assert not server.requests
    agent.target = target
    assert agent.run(seconds=1, until=agent.empty)
    assert agent.delivery.snapshot().state == "delivering"


# One bad point among many


def isolate(agent, server):
    """Deliver everything; how many requests that took."""
    before = len(server.requests)
    agent.run(until=agent.empty)
    return len(server.requests) - before


@pytest.mark.parametrize(("bad", "reason"), [(UNPARSABLE, "parse"), (WRONG_TYPE, "type_conflict")])
@pytest.mark.parametrize("place", [0, 1234, 4999])
def test_promise_2_one_bad_point_among_5000_costs_at_most_5_requests(rig, server, bad, reason, place):
    agent = rig()
    server.types[START // WEEK, b"environment", b"Temperature"] = "float"
    agent.store(5000, {place: bad})
    assert isolate(agent, server) <= 5
    assert len(server.points) == 4999
    assert agent.status.dead_letters == agent.status.counters.points.rejected == 1
    assert agent.delivery.snapshot().state == "delivering"


@pytest.mark.parametrize("old_wording", [False, True])
def test_promise_8_at_the_edge_of_retention_delivered_is_what_is_stored(rig, server, old_wording):
    server.retention_s, server.old_wording = 5400, old_wording  # in shards of an hour
    agent = rig()
    now = time.time_ns()
    store(agent.buffer, [Line(GOOD, 0, now - n * 60 * S) for n in range(400)])
    assert isolate(agent, server) == 1
    counters = agent.status.counters.points
    assert len(server.points) == counters.delivered == agent.delivery.snapshot().delivered
    assert counters.rejected == 400 - counters.delivered >= 400 - 151
    assert server.writes == len(server.points)  # and none of it twice
    assert agent.delivery.snapshot().last_success_boot_ns


@pytest.mark.parametrize(
    ("kind", "bad", "requests"),
    [("like_core", 1, 1), ("like_core", 99, 1), ("like_core", 250, 2), ("like_cloud", 99, 2), ("like_cloud", 250, 4)],
)
def test_promise_2_influxdb_3_and_cloud_cost_one_further_request_per_100_bad_points(rig, server, kind, bad, requests):
    agent = rig()
    server.always = getattr(server, kind)
    agent.store(5000, dict.fromkeys(Random(3).sample(range(5000), bad), UNPARSABLE))
    assert isolate(agent, server) == requests
    counters = agent.status.counters.points
    assert (counters.delivered, counters.rejected) == (len(server.points), bad) == (5000 - bad, bad)
    assert agent.status.parked == 0
    assert agent.delivery.snapshot().state == "delivering"
    agent.buffer.commit_all()
    with OfflineBuffer(agent.folder) as buffer:
        letters = [item.letter for item in buffer.letters()]
    assert {(letter.reason, letter.message) for letter in letters} == {("parse", "invalid number")}


def test_promise_2_a_limit_of_influxdb_3_parks_what_it_refuses_and_tries_it_slowly(rig, server):
    agent = rig()
    error = "partial write of line protocol occurred"
    named = {
        "error_message": "over the limit of 500 columns",
        "line_number": 2,
        "original_line": "environment,clientId",
    }
    server.always = lambda handler, body: server.reply(handler, 422, {"error": error, "data": [named]})
    agent.store(3)
    agent.run(seconds=30)
    assert (agent.status.parked, agent.status.pending, agent.status.counters.points.delivered) == (1, 1, 2)
    assert len(server.requests) <= 3
    server.always = None
    assert agent.run(until=agent.empty)


@pytest.mark.parametrize("empty_write", [b"incoming write was empty", b"incoming write was empty\n"])
def test_influxdb_3_that_has_nothing_to_write_is_no_outage(rig, server, empty_write):
    agent = rig()
    server.always = server.answer(400, empty_write, Content_Type="text/plain")
    agent.clock.wanted = 0
    agent.step()
    assert agent.delivery.snapshot().state == "delivering"
    assert len(agent.clock.seen) == 1  # it says the time as well


def test_promise_2_mixed_trouble_is_told_apart_kind_by_kind(rig, server):
    server.retention_s = 3600
    agent = rig()
    now = time.time_ns() // WEEK * WEEK + WEEK // 2
    server.retention_s = (time.time_ns() - now) / 1e9 + 3600
    heads = {3: UNPARSABLE, 5: WRONG_TYPE, 7: GOOD + b",Humidity=5i", 8: GOOD + b",Humidity=5i"}
    server.types |= {(now // WEEK, b"environment", name): "float" for name in (b"Temperature", b"Humidity")}
    lines = [Line(heads.get(n, GOOD), 0, now + n * S - (7200 * S if n in (20, 30) else 0)) for n in range(1000)]
    store(agent.buffer, lines)
    assert isolate(agent, server) <= 12
    assert len(server.points) == 1000 - 6
    assert agent.status.counters.points.rejected == 6


def test_promise_2_a_live_point_that_is_refused_does_not_stop_the_others(rig, server):
    agent = rig()
    agent.put(10)
    agent.put(1, UNPARSABLE)
    agent.put(10, GOOD.replace(b"pi-1", b"pi-2"))
    assert agent.run(seconds=6, until=agent.empty)
    assert len(server.points) == 20
    assert agent.status.dead_letters == 1


def test_a_batch_refused_whole_is_set_aside_in_one_step(rig, server):
    agent = rig()
    server.types[START // WEEK, b"environment", b"Temperature"] = "float"
    agent.store(3000, head=WRONG_TYPE)
    assert isolate(agent, server) == 1
    assert agent.status.counters.points.rejected == 3000


def mute(server, status=400, text="no", marker=b"bad"):
    """The server refuses what holds the marker, without saying which line it is."""

    def judge(handler, body):
        import gzip

        if marker in (gzip.decompress(body) if body else b""):
            handler.received.lines = -2
            return server.reply(handler, status, {"message": text})
        return server.store(handler, body)

    return judge


@pytest.mark.parametrize("place", [0, 2499, 2500, 4999])
def test_promise_2_one_bad_point_among_5000_costs_at_most_30_requests_without_help(rig, server, place):
    agent = rig()
    server.always = mute(server)
    agent.store(5000, {place: GOOD.replace(b"pi-1", b"bad")})
    agent.run(until=lambda: agent.status.parked == 1 and agent.status.pending == 1)
    assert len(server.requests) <= 30
    assert len(server.points) == 4999
    assert agent.status.dead_letters == 0  # a text nobody knows is no reason to drop


@pytest.mark.parametrize("bad", [10, 50])
def test_promise_2_k_bad_points_cost_k_log_n(rig, server, bad):
    agent = rig()
    server.always = mute(server)
    agent.store(5000, {n: GOOD.replace(b"pi-1", b"bad") for n in Random(5).sample(range(5000), bad)})
    while agent.delivery.step() == 0:
        if bad == 10:  # else nothing is on disk before the end, as with a slow card
            agent.buffer.commit()
    agent.buffer.commit()
    assert agent.status.parked == bad
    assert len(server.requests) <= 2 + 2 * bad * (math.ceil(math.log2(5000 / bad)) + 2)
    assert len(server.points) == 5000 - bad


def test_a_search_goes_on_where_it_was_after_a_restart(rig, server):
    agent = rig()
    server.always = mute(server)
    agent.store(5000, {1234: GOOD.replace(b"pi-1", b"bad")})
    restarts = 0
    while agent.status.parked == 0:
        agent.step()
        agent.restart()
        restarts += 1
    agent.run(until=lambda: agent.status.pending == 1)
    assert restarts > 10
    assert len([request for request in server.requests if request.size]) <= 29
    assert len(server.requests) <= 29 + restarts  # each start asks once whether the request as such is fine
    assert agent.status.parked == 1
    assert len(server.points) == 4999


def test_a_500_for_the_same_bytes_is_the_bytes_fault_after_the_third(rig, server):
    agent = rig()
    server.always = mute(server, 500, "internal error")
    agent.store(64, {13: GOOD.replace(b"pi-1", b"bad")})
    for _ in range(3000):
        agent.put()
        agent.run(seconds=1)
        if agent.status.parked:
            break
    assert agent.status.parked == 1
    agent.run(seconds=6)
    assert agent.status.pending == 1
    assert agent.status.counters.points.delivered == agent.status.counters.points.measured - 1


def measured_while(agent, seconds, until, head=GOOD):
    """Let time pass, with or without a point measured each second. How long it took until something was true."""
    began = agent.now()
    while not until() and agent.now() < began + seconds * S:
        if head:
            agent.put(1, head)
        agent.run(seconds=1)
    assert until()
    return (agent.now() - began) / S


AT_RANDOM = [Random(seed).sample(range(5000), bad) for bad in (1, 10) for seed in range(3)]


PLACES = [[4999], range(10), *AT_RANDOM, [0], range(4990, 5000)]


@pytest.mark.parametrize(("head", "places"), first(3, *itertools.product([GOOD, None], PLACES)))
def test_promise_2_points_answered_500_delay_the_others_by_minutes(rig, server, head, places):
    agent = rig()
    server.always = mute(server, 500, "internal error")
    agent.store(5000, {n: GOOD.replace(b"pi-1", b"bad") for n in places})
    others = 5000 - len(places)
    most_s = 60  # 2 to 19 s were measured; minutes are allowed, and it was an hour once
    measured_while(agent, most_s, lambda: sum(stamp < LIVE for stamp in server.order) == others, head)
    measured_while(agent, 60, lambda: agent.status.parked == len(places), head)
    assert len(agent.writes) <= 2 * most_s + 3 * 13 * len(places)
    agent.run(seconds=6)
    assert agent.status.pending == len(places)


def test_promise_2_a_sensor_that_is_always_answered_500_holds_up_neither_the_others_nor_the_backlog(
    rig, server, caplog
):
    caplog.set_level(logging.INFO)
    agent = rig()
    server.always = mute(server, 500, "internal error")
    agent.store(1000)
    seconds = amount(100, 300)
    for _ in range(seconds):
        agent.put(1)
        agent.put(1, GOOD.replace(b"pi-1", b"bad"))
        agent.run(seconds=1)
    agent.run(seconds=30)
    assert len(server.points) == 1000 + seconds
    assert agent.status.pending == agent.status.parked == seconds
    assert len([record for record in caplog.records if record.name == "agent.delivery"]) <= 4


def test_promise_2_a_sick_server_is_asked_ever_more_rarely_by_live_points_too(rig, server):
    agent = rig()
    server.always = server.answer(500, {"message": "disk full"})
    measured_while(agent, 3600, lambda: agent.now() >= 4500 * S)
    assert len(server.requests) <= 100
    assert agent.status.parked == 0
    assert agent.delivery.snapshot().state == "failing"
    server.always = None
    assert agent.run(seconds=300, until=agent.empty)


@pytest.mark.parametrize("head", [None, GOOD])
def test_promise_2_a_server_that_answers_500_to_any_point_has_none_of_them_parked(rig, server, head):
    agent = rig()
    server.always = mute(server, 500, "disk full", marker=b"environment")  # but an empty write is fine
    agent.store(5000)
    measured_while(agent, 3600, lambda: agent.now() >= 4500 * S, head)
    assert len(agent.writes) <= 3 * MAX_HALVINGS + 100
    assert agent.status.rows <= MAX_HALVINGS + 40  # the newest are merged 36 at a time
    assert agent.status.parked == 0
    assert agent.delivery.snapshot().state == "failing"
    server.always = None
    assert agent.run(seconds=300, until=agent.empty)


@pytest.mark.parametrize("parked", [1, 64])
def test_promise_2_parked_points_that_are_answered_500_hold_up_no_backlog(rig, server, parked):
    agent = rig()
    server.always = server.answer(422, {"message": f"partial write: the moon is full dropped={parked}"})
    agent.store(parked, head=GOOD.replace(b"pi-1", b"bad"))
    agent.run(until=lambda: agent.status.parked == parked)
    server.always = mute(server, 500, "internal error")
    for n in range(2):
        tried = len(server.requests)
        assert agent.run(seconds=1801, until=lambda before=tried: len(server.requests) > before)
        assert server.requests[tried].status == 500
        store(agent.buffer, [Line(GOOD, 0, START + (n + 1) * 1000 * S + m * S) for m in range(100)])
        assert agent.run(seconds=0.01, until=lambda: agent.status.pending == parked)


def test_promise_2_a_point_that_was_deferred_does_not_wait_for_the_end_of_the_backlog(rig, server):
    agent = rig(backlog_rate=1000.0)
    server.always = mute(server, 500, "internal error")
    agent.store(64, {0: GOOD.replace(b"pi-1", b"bad")})
    for n in range(1, 21):
        store(agent.buffer, [Line(GOOD, 0, START + n * 1000 * S + m * S) for m in range(1000)])
    agent.run(until=lambda: agent.status.parked == 1)
    assert agent.status.pending > 15_000


def written():
    """Bytes that this process has handed to the file system."""
    return int(Path("/proc/self/io").read_text("ascii").split("wchar: ")[1].split()[0])


@pytest.mark.parametrize("head", [None, GOOD])
def test_promise_6_a_server_that_finds_everything_too_large_costs_little_and_is_served_at_once_when_well(
    rig, server, head
):
    agent = rig()
    server.always = server.answer(413, b"<html>too large</html>", content_type="text/html")
    agent.store(5000)
    before = written()
    measured_while(agent, 300, lambda: agent.now() >= 1299 * S, head)
    assert len(server.requests) <= MAX_HALVINGS + 30
    assert agent.status.rows <= MAX_HALVINGS + 40
    assert written() - before < 4_000_000
    assert agent.status.parked == 0
    assert agent.delivery.snapshot().state == "failing"
    server.always = None
    assert agent.run(seconds=30, until=agent.empty)
    assert len(server.requests) <= 2 * MAX_HALVINGS + 60


@pytest.mark.parametrize("place", [0, 31, 63])
def test_promise_2_a_point_that_is_too_large_alone_is_parked_alone(rig, server, place):
    agent = rig()
    server.always = mute(server, 413, "too large")
    agent.store(64, {place: GOOD.replace(b"pi-1", b"bad")})
    measured_while(agent, 30, lambda: agent.status.parked == agent.status.pending == 1)
    assert len(server.requests) <= 40


def test_too_large_a_request_is_halved_until_it_goes_through(rig, server):
    agent = rig()

    def small_only(handler, body):
        import gzip

        if body and gzip.decompress(body).count(b"\n") > 1500:
            return server.reply(handler, 413, b"<html>", content_type="text/html")
        return server.store(handler, body)

    server.always = small_only
    agent.store(5000, head=GOOD.replace(b"pi-1", b"pi-2"))
    for n in range(20):  # rows that are not merged
        store(agent.buffer, [Line(GOOD, 0, START + n * 1300 * S + m * S) for m in range(1300)])
    agent.run(until=agent.empty)
    assert len(server.points) == 31_000
    assert len([request for request in server.requests if request.status == 413]) <= 7  # then it knows
    assert agent.status.dead_letters == agent.status.parked == 0


# Servers that refuse everything


def test_promise_2_a_refused_request_is_not_taken_for_refused_points(rig, server):
    agent = rig()
    server.always = server.answer(400, {"code": "invalid", "message": "Please provide either orgID or org"})
    agent.store(5000)
    agent.run(seconds=3600)
    assert agent.status.rows == 1
    assert agent.status.pending == 5000
    assert "orgID" in agent.delivery.snapshot().last_error
    server.always = None
    agent.run(until=agent.empty)
    assert len(server.points) == 5000


def test_promise_2_a_server_that_takes_no_point_does_not_have_the_buffer_cut_to_pieces(rig, server):
    agent = rig()
    server.always = mute(server, marker=b"environment")
    for n in range(5):
        store(agent.buffer, [Line(GOOD, 0, START + n * 5000 * S + m * S) for m in range(5000)])
    agent.run(seconds=3600)
    assert agent.status.pending == agent.status.parked == 25_000
    assert agent.status.rows <= MAX_HALVINGS + 5
    assert agent.delivery.snapshot().state == "failing"
    assert "nothing is accepted" in agent.delivery.snapshot().last_error
    server.always = None
    agent.run(until=agent.empty)
    assert len(server.points) == 25_000


@pytest.mark.parametrize("never", [b"bad-3 ", b"bad-30 "])
def test_parked_points_are_tried_again_and_in_nobodys_way(rig, server, never):
    agent = rig()
    server.always = mute(server)
    agent.store(40, {n: GOOD.replace(b"pi-1", b"bad-%d" % n) for n in (3, 30)})
    agent.run(until=lambda: agent.status.parked == 2)
    agent.put(5)
    agent.run(seconds=3600)
    assert agent.status.pending == 2
    assert agent.delivery.snapshot().state == "delivering"
    tried = [request for request in agent.writes if request.lines == -2]
    assert len(tried) < 40  # less than once in two minutes
    server.always = mute(server, marker=never)  # the other is fine now, and not behind this one for ever
    agent.run(seconds=3600)
    assert agent.status.pending == 1
    server.always = None
    agent.run(seconds=3600)
    assert agent.status.pending == 0


def test_parked_points_all_follow_the_first_that_goes_through(rig, server):
    agent = rig()
    server.always = mute(server)
    agent.store(60, {n: GOOD.replace(b"pi-1", b"bad-%d" % n) for n in range(0, 60, 2)})
    agent.run(until=lambda: agent.status.parked == agent.status.pending == 30)
    agent.run(seconds=1800)
    server.always = None
    assert agent.run(seconds=901, until=agent.empty)


def test_promise_2_what_another_stored_in_a_wrong_type_holds_points_back_until_somebody_mends_it(rig, server):
    agent = rig()
    week = START // WEEK, b"environment", b"Temperature"
    server.types[week] = "string"
    agent.store(30)
    agent.run(until=lambda: agent.status.parked == agent.status.pending == 30)
    agent.put(5)
    agent.run(seconds=1800)
    assert agent.status.dead_letters == agent.status.counters.points.rejected == 0
    assert "already exists as type string" in agent.delivery.snapshot().held
    del server.types[week]
    assert agent.run(seconds=901, until=agent.empty)
    assert len(server.points) == 35
    assert agent.delivery.snapshot().held is None


def test_parked_points_are_tried_at_once_where_the_agent_delivers_now(rig, server):
    agent = rig()
    server.always = mute(server)
    agent.store(40, {n: GOOD.replace(b"pi-1", b"bad-%d" % n) for n in (3, 30)})
    agent.run(until=lambda: agent.status.parked == 2)
    agent.run(seconds=100)
    with InfluxServer() as other:
        agent.target = Target(other.url, other.org, other.bucket, Secret(other.token))
        assert agent.run(seconds=0.1, until=agent.empty)
        assert len(other.points) == 2


def test_trouble_of_the_backlog_does_not_hold_up_the_newest_points(rig, server):
    agent = rig()
    server.always = mute(server, 500, "internal error")
    agent.store(5000, {13: GOOD.replace(b"pi-1", b"bad")})
    for _ in range(120):
        agent.put()
        agent.run(seconds=1)
        assert agent.status.pending_memory <= 6
    assert len([stamp for stamp in server.order if stamp >= LIVE]) >= 114


@pytest.mark.parametrize("status", [401, 403])
def test_promise_2_a_refused_token_keeps_all_and_is_renewed_without_a_tight_loop(rig, server, status):
    agent = rig()
    server.always = server.answer(status, {"message": "unauthorized access"})
    agent.store(100)
    agent.run(seconds=3600)
    assert 5 < len(server.requests) < 100
    assert len(agent.refused) == len(server.requests)
    assert not agent.taken_again
    server.always, server.token = None, "token-2"
    agent.target = Target(server.url, server.org, server.bucket, Secret("token-2"))
    assert agent.run(seconds=0.5, until=agent.empty)
    assert len(agent.taken_again) == 1


def test_a_missing_bucket_is_said_loudly_and_found_once_it_is_there(rig, server, caplog):
    agent = rig()
    server.bucket = "later"
    agent.store(100)
    agent.run(seconds=3600)
    assert 5 < len(server.requests) < 100
    assert [record.levelno for record in caplog.records] == [logging.ERROR]
    assert "404" in caplog.text
    server.bucket = "iot_center"
    assert agent.run(seconds=301, until=agent.empty)


@pytest.mark.parametrize(("header", "seconds"), [("120", 120), ("86400", 900), ("Tue, 24 Nov 2026 06:11:27 GMT", 80)])
@pytest.mark.parametrize("status", [429, 503])
def test_retry_after_is_obeyed_within_bounds(rig, server, status, header, seconds):
    server.date = False
    agent = rig()
    server.script.append(server.answer(status, b"slow down", retry_after=header, date="Tue, 24 Nov 2026 06:10:07 GMT"))
    agent.put()
    agent.run(until=lambda: server.requests)
    began = agent.now()
    agent.run(until=agent.empty)
    assert seconds <= (agent.now() - began) / S <= seconds * 1.1 + 6


@pytest.mark.parametrize("what", ["html", "redirect", "down", "cut", "unavailable"])
def test_promise_2_whatever_answers_instead_of_the_server_everything_waits(rig, server, what):
    agent = rig()
    if what == "html":
        server.always = server.answer(200, b"<html>log in</html>", content_type="text/html")
    elif what == "redirect":
        server.always = server.answer(302, location="http://hotel.example/login")
    elif what == "unavailable":
        server.always = server.answer(502, b"<html>bad gateway</html>", content_type="text/html")
    elif what == "cut":
        server.always = server.cut_in_answer
    else:
        target, agent.target = agent.target, Target("http://127.0.0.1:9", "o", "b", Secret("t"))
    agent.store(10)
    agent.run(seconds=7200)
    assert agent.status.pending == 10
    snapshot = agent.delivery.snapshot()
    assert snapshot.state == "failing"
    assert 20 < snapshot.failures < 150
    assert snapshot.next_attempt_s <= 300
    server.always = None
    if what == "down":
        agent.target = target
    assert agent.run(seconds=301, until=agent.empty)
    snapshot = agent.delivery.snapshot()
    assert (snapshot.state, snapshot.last_error, snapshot.failures) == ("delivering", None, 0)


def test_a_server_that_always_answers_500_does_not_have_the_backlog_cut_to_pieces(rig, server):
    agent = rig()
    server.always = server.answer(500, {"message": "disk full"})
    agent.store(5000)
    agent.run(seconds=43_200)
    assert agent.status.rows <= MAX_HALVINGS + 2
    server.always = None
    agent.run(until=agent.empty)
    assert len(server.points) == 5000


@pytest.mark.parametrize("seed", [1, 5, *(pytest.param(n, marks=pytest.mark.slow) for n in range(10, 40))])
def test_promise_8_whatever_the_server_does_every_point_is_there_once_or_a_dead_letter(rig, server, seed):
    rng = Random(seed)
    agent = rig(batch_size=rng.choice([7, 50, 5000]), timeout=Seconds(0.05))
    server.types[LIVE // WEEK, b"environment", b"Temperature"] = "float"
    server.date = rng.random() < 0.5

    def slowly(handler, body):
        server.write(handler, body)  # stored, and then no answer in time
        server.trickle(0.03)(handler, body)

    moods = [
        None,
        None,
        mute(server, marker=b"Temperature"),
        mute(server, 422, marker=b"0000000"),
        server.store_then_cut,
    ]
    moods += [
        server.answer(status, b"x" * rng.randrange(9), retry_after="3") for status in (401, 404, 413, 429, 500, 503)
    ]
    moods += [server.twice, server.cut, server.cut_in_answer, slowly, server.answer(200, b"<html>")]
    good = bad = 0
    for _ in range(40):
        server.always = rng.choice(moods)
        heads = rng.choices([GOOD, UNPARSABLE, WRONG_TYPE], [20, 1, 1], k=rng.choice([1, 1, 3, 40]))
        for n, head in enumerate(heads):
            agent.buffer.put([Line(head, agent.now() + n * 1_000_000)])
        good, bad = good + heads.count(GOOD), bad + len(heads) - heads.count(GOOD)
        agent.run(seconds=rng.choice([1, 6, 6, 60]))
        if rng.random() < 0.1:
            agent.restart()
    server.always = None
    agent.run(until=agent.empty)
    status = agent.status
    assert (len(server.points), status.counters.points.delivered) == (good, good)
    assert (status.dead_letters, status.counters.points.rejected) == (bad, bad)
    assert status.unaccounted == 0


# After an outage


def test_live_points_arrive_with_the_first_cycle_and_the_backlog_follows_oldest_first(rig, server):
    agent = rig(batch_size=1000)
    server.always = server.answer(503)
    for n in range(20):
        store(agent.buffer, [Line(GOOD, 0, START + n * 1000 * S + m * S) for m in range(1000)])
    for _ in range(60):
        agent.put()
        agent.run(seconds=1)
    server.always = None
    while not server.points:
        agent.put()
        agent.run(seconds=1, until=lambda: server.points)
    assert min(server.order) > LIVE  # the newest, before any of the backlog
    agent.run(until=agent.empty)
    backlog = [stamp for stamp in server.order if stamp < LIVE]
    assert backlog == sorted(backlog)
    assert len(backlog) == 20_000
    assert agent.status.counters.points.measured == len(server.points)


def test_during_a_long_backlog_the_newest_points_keep_their_rhythm(rig, server):
    agent = rig(backlog_rate=1000.0, flush_interval=Seconds(2))
    for n in range(20):
        store(agent.buffer, [Line(GOOD, 0, START + n * 1000 * S + m * S) for m in range(1000)])
    agent.run(seconds=4)
    for _ in range(10):
        agent.put()
        agent.run(seconds=1)
    snapshot = agent.delivery.snapshot()
    assert len(server.points) == pytest.approx(15_000, abs=2500)
    assert snapshot.backlog_rate == pytest.approx(1000, rel=0.3)
    assert snapshot.eta_s == pytest.approx(snapshot.backlog / 1000, rel=0.4)
    assert agent.status.pending_memory <= 3
    agent.run(until=agent.empty)
    assert agent.delivery.snapshot().eta_s is None


def test_a_request_without_an_answer_is_smaller_the_next_time(rig, server):
    agent = rig(timeout=Seconds(0.1))
    server.script.extend([server.hang, server.hang])
    for n in range(8):
        store(agent.buffer, [Line(GOOD, 0, START + n * 500 * S + m * S) for m in range(500)])
    agent.run(until=lambda: len(server.requests) >= 3)
    sizes = [request.size for request in server.requests[:3]]
    assert sizes[0] > 1.5 * sizes[1] > 2 * sizes[2]
    agent.run(until=agent.empty)


# The clock


def test_dates_are_asked_for_at_first_contact_and_given_to_the_clock(rig, server):
    agent = rig()
    agent.clock.wanted = 0.0
    agent.run(seconds=2)
    assert 3 <= len(agent.clock.seen) <= 5
    assert all(request.size == 0 for request in server.requests)
    date_ns, resolution_ns, sent, received, source = agent.clock.seen[0]
    assert abs(date_ns - time.time_ns()) < 5 * S
    assert (resolution_ns, received >= sent, source) == (S, True, server.url)


def test_a_server_without_dates_is_not_asked_for_ever(rig, server):
    server.date = False
    agent = rig()
    agent.clock.wanted = 0.0
    agent.run(seconds=600)
    assert len(server.requests) < 40
    agent.put()
    agent.run(seconds=6)
    assert len(server.points) == 1


def test_promise_5_a_clock_that_nobody_vouches_for_is_known_by_the_servers_dates_within_two_seconds(tmp_path, server):
    """Of waiting: how long the requests take beside that is the machine's affair."""
    clock = Clock(Boots(None, current_boot_id()), kernel=lambda: None)
    target = Target(server.url, server.org, server.bucket, Secret(server.token))
    buffer = open_buffer(tmp_path / "buffer", BufferSettings(), clock)
    delivery = Delivery(buffer, lambda: target, clock, DeliverySettings(), lambda: None)
    waited = 0.0
    while not clock.state().good:
        wait = delivery.step()
        waited += wait
        assert waited < 2.0
        time.sleep(wait)
    delivery.close()
    buffer.close()
    assert not server.points


# Servers that hold on


@pytest.mark.parametrize("how", ["hang", "trickle"])
def test_a_server_that_holds_a_call_holds_nobody_else(tmp_path, server, how):
    server.always = server.hang if how == "hang" else server.trickle(0.2, padding=300)
    clock = NoClock(time.monotonic_ns)
    target = Target(server.url, server.org, server.bucket, Secret(server.token))
    buffer = open_buffer(tmp_path / "buffer", BufferSettings(), clock)
    delivery = Delivery(buffer, lambda: target, clock, DeliverySettings(timeout=Seconds(60)), lambda: None)
    buffer.put([Line(GOOD, clock.boot_ns())])
    thread = LoopThread("delivery", delivery)
    until = time.monotonic() + 30
    while not server.requests and time.monotonic() < until:
        time.sleep(0.005)
    for _ in range(50):
        buffer.put([Line(GOOD, clock.boot_ns())])
        delivery.snapshot()
    thread.stop()
    assert buffer.commit_all()
    assert buffer.snapshot().pending_disk == 51
    assert delivery.snapshot().call_since_boot_ns is not None  # the call of the first point still hangs
    server.released.set()
    thread.join(30)
    assert not thread.is_alive()
    buffer.close()


def test_stop_is_seen_at_once_while_waiting(tmp_path, server, monkeypatch):
    monkeypatch.setattr("agent.delivery.delivery.POLL_S", 3600.0)
    clock = NoClock(time.monotonic_ns)
    buffer = open_buffer(tmp_path / "buffer", BufferSettings(), clock)
    asked = threading.Event()
    delivery = Delivery(buffer, asked.set, clock, DeliverySettings(), lambda: None)
    assert delivery.step() == 3600
    asked.clear()
    thread = LoopThread("delivery", delivery)
    assert asked.wait(40)
    thread.stop()
    thread.join(30)
    assert not thread.is_alive()
    buffer.close()


# What is said


def test_a_failure_is_logged_when_it_begins_changes_and_ends(rig, server, caplog):
    caplog.set_level(logging.INFO)
    agent = rig()
    server.always = server.answer(503, b"busy")
    agent.store(10)
    agent.run(seconds=600)
    server.always = server.answer(502, b"gone")
    agent.run(seconds=600)
    server.always = None
    agent.run(until=agent.empty)
    said = [record.getMessage() for record in caplog.records if record.name == "agent.delivery"]
    assert len(said) == 3
    assert "fails: 503 busy" in said[0]
    assert "now fails otherwise: 502 gone" in said[1]
    assert "works again after" in said[2]


def test_the_first_points_that_go_through_are_said_once_for_each_place(rig, server, caplog):
    caplog.set_level(logging.INFO)
    agent = rig()
    for _ in range(3):
        agent.put()
        agent.run(seconds=10)
    said = [record.getMessage() for record in caplog.records]
    assert said == [f"first points delivered to {server.url}, bucket {agent.target.bucket}"]


def test_refused_points_are_told_of_once_not_each_time(rig, server, caplog):
    agent = rig()
    for _ in range(20):
        agent.put(1, UNPARSABLE)
        agent.run(seconds=10)
    said = [record.getMessage() for record in caplog.records]
    assert len(said) == 1
    assert "1 point refused" in said[0]
    assert agent.status.dead_letters == 20


def test_promise_7_the_token_is_in_no_log_status_or_repr(rig, server, caplog):
    caplog.set_level(logging.DEBUG)
    agent = rig()
    server.script.extend(
        [server.answer(401, {"message": "token-1?"}), server.answer(400, b"token-1"), server.cut, server.answer(500)]
    )
    agent.store(2)
    agent.run(until=agent.empty)
    shown = repr(agent.delivery.snapshot()) + repr(vars(agent.delivery)) + caplog.text
    assert "token-1" not in shown
    assert "***" in shown


def test_a_mistake_inside_delivery_does_not_end_it(rig, server, caplog):
    agent = rig()
    agent.store(5)
    broken = iter([ValueError("a bug")])

    def on(batch, delivered=agent.buffer.delivered):
        for error in broken:
            raise error
        delivered(batch)

    agent.buffer.delivered = on
    assert agent.delivery.step() > 0
    assert "ValueError" in agent.delivery.snapshot().last_error
    agent.run(until=agent.empty)
    assert agent.status.counters.points.delivered == 5


def test_an_answer_that_is_not_understood_holds_up_nothing_else(rig, server, monkeypatch):
    from agent.delivery import delivery

    agent = rig()
    decide = delivery.decide

    def confused(answer, batch, **options):
        if batch is not None and any(b"odd" in line for line in batch.lines()):
            raise KeyError("a bug")
        return decide(answer, batch, **options)

    monkeypatch.setattr(delivery, "decide", confused)
    agent.store(1500, head=GOOD.replace(b"pi-1", b"odd"))
    agent.store(1500)
    agent.run(until=lambda: agent.status.parked >= 1500)
    assert agent.status.pending == agent.status.parked
    monkeypatch.undo()
    agent.run(until=agent.empty)
    assert len(server.points) == 3000
