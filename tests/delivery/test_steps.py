"""Delivery step by step, with a writer that answers as it is told: what is asked, when, and what is said of it."""

from __future__ import annotations

import itertools
import logging
import math
from collections import deque
from dataclasses import dataclass, replace
from email.utils import formatdate

import pytest

from agent.buffer.batch import Part
from agent.buffer.buffer import open_buffer
from agent.buffer.rows import lines_of
from agent.clock.backdating import Dating
from agent.clock.boots import Boots
from agent.clock.clock import Clock as AgentClock
from agent.clock.kernel import KernelClock
from agent.clock.timeline import Stretch
from agent.config.settings import BufferSettings, DeliverySettings
from agent.config.units import Seconds
from agent.delivery.delivery import FINE_NS, POLL_S, Delivery
from agent.delivery.numbered_lines import EMPTY_WRITE
from agent.registration.target import Target
from agent.util.http import Answer
from agent.util.secret import Secret
from tests.buffers import BOOT, HandClock, accounted, line, measure
from tests.clock_world import NOW_NS
from tests.delivery.test_pacing import Widest

S = 10**9
TAKEN = Answer(204, {"date": "Tue, 14 Nov 2023 22:13:20 GMT"})
TARGET = Target("http://db:8086", "org", "bucket", Secret("token"))


def refused(status, message="no"):
    return Answer(status, {"content-type": "application/json"}, b'{"code":"invalid","message":"%s"}' % message.encode())


class Clock(HandClock):
    """As delivery knows it: it is told dates, and may want one."""

    wanted = None
    told = ()

    def probe_in(self):
        return self.wanted

    def observe(self, date_ns, resolution_ns, sent, received, where, *, written):
        self.told = (*self.told, (date_ns, resolution_ns, sent, received, where, written))
        return True


class TrueClock(AgentClock):
    """The agent's own, on clocks that are moved by hand; the wall clock is right."""

    def __init__(self, kernel):
        self.now_ns = 1000 * S
        read = {"boot_ns": lambda: self.now_ns, "wall_ns": lambda: NOW_NS + self.now_ns, "kernel": lambda: kernel}
        super().__init__(Boots(None, BOOT), **read)

    def pass_s(self, seconds):
        self.now_ns += math.ceil(seconds * S)

    def dates(self, answer):
        return replace(answer, headers={"date": formatdate((NOW_NS + self.now_ns) // S, usegmt=True)})


@dataclass
class Scripted:
    """A writer: `answers` are given one after the other, then what `otherwise` says; one that is an error is raised."""

    target: Target
    timeout: float
    world: World
    closed: int = 0

    def write(self, body):
        self.world.bodies.append(body)
        self.world.during.append(self.world.delivery.snapshot().call_since_boot_ns)
        self.world.clock.pass_s(self.world.takes_s)
        answer = self.world.answers.popleft() if self.world.answers else self.world.otherwise(body)
        if isinstance(answer, Exception):
            raise answer
        return answer

    def close(self):
        self.closed += 1


class World:
    def __init__(self, folder, clock=None, **settings):
        self.clock = clock or Clock()
        self.buffer = open_buffer(folder, BufferSettings(loss_window=100), self.clock)
        self.target = TARGET
        self.answers, self.bodies, self.during, self.writers = deque(), [], [], []
        self.otherwise = lambda _: TAKEN
        self.takes_s = 0.0
        self.refused, self.taken = [], []
        self.delivery = Delivery(
            self.buffer,
            lambda: self.target,
            self.clock,
            DeliverySettings(**{"flush_interval": Seconds(5), "timeout": Seconds(7), **settings}),
            lambda: self.refused.append(self.clock.boot_ns()),
            on_authorised=lambda: self.taken.append(self.clock.boot_ns()),
            device_id="pi-1",
            loss_window=100,
            rng=Widest(),
            now=self.clock.boot_ns,
            connect=self.connect,
        )

    def connect(self, target, timeout):
        self.writers.append(Scripted(target, timeout, self))
        return self.writers[-1]

    def step(self, *answers):
        self.answers.extend(answers)
        wait = self.delivery.step()
        assert not self.answers, "all were asked for"
        return wait

    def go_on(self, most=100):
        """Steps, and the time between them, until nothing waits."""
        while self.buffer.snapshot().pending:
            self.clock.pass_s(self.delivery.step())
            most -= 1
            assert most, f"{self.buffer.snapshot().pending} points wait"

    @property
    def sizes(self):
        """How many points were in each request."""
        return [len(lines_of(body)) for body in self.bodies]

    def put(self, count=1):
        self.buffer.put([line(self.clock, float(n)) for n in range(count)])

    def store(self, count):
        measure(self.buffer, self.clock, count)
        assert self.buffer.commit_all()

    @property
    def seen(self):
        return self.delivery.snapshot()


@pytest.fixture
def world(tmp_path):
    made = World(tmp_path / "buffer")
    yield made
    made.delivery.close()
    made.buffer.close()


def test_promise_2_a_row_that_is_too_much_for_the_line_is_sent_in_smaller_requests(world):
    world.store(4000)
    assert world.buffer.snapshot().rows == 1
    late = Answer(None, error="no answer within 7 s", timed_out=True)
    world.otherwise = lambda body: late if len(lines_of(body)) > 600 else TAKEN
    world.go_on()
    arrived = [line for body in world.bodies if len(lines := lines_of(body)) <= 600 for line in lines]
    assert len(arrived) == len(set(arrived)) == 4000, "each went once"
    assert world.sizes[:4] == [4000, 2000, 1000, 500]
    assert world.seen.delivered == world.buffer.snapshot().counters.points.delivered == 4000
    accounted(world.buffer)


@pytest.mark.parametrize("state", ["pending", "suspect", "parked"])
def test_no_request_has_more_than_batch_size_points_however_they_lie_on_disk(tmp_path, state):
    world = World(tmp_path / "buffer", batch_size=300)
    world.store(1000)
    if state != "pending":
        batch = world.buffer.take_backlog(1)
        world.buffer.replace(batch, [Part(tuple(batch.lines()), state)], ())
        assert world.buffer.commit_all()
    assert world.buffer.snapshot().rows == 1
    world.go_on()
    assert world.sizes == [300, 300, 300, 100]
    stamps = [int(line.rpartition(b" ")[2]) for body in world.bodies for line in lines_of(body)]
    assert stamps == sorted(set(stamps))
    accounted(world.buffer)
    world.buffer.close()


def test_nothing_is_written_for_a_row_that_goes_in_portions_while_it_goes(tmp_path):
    world = World(tmp_path / "buffer", batch_size=300)
    world.store(1000)
    written = []
    for _ in range(3):
        world.step()
        assert world.buffer.commit_all()
        written.append(world.buffer.snapshot().rows)
        world.put(1)  # the newest go first
        world.delivery.hurry()
        world.step()
    assert written == [1, 1, 1]
    assert world.sizes == [300, 1, 300, 1, 300, 1]
    assert world.buffer.snapshot().pending == 1000
    world.delivery.finish()
    assert world.buffer.snapshot().pending == 100, "what has gone is not sent again after a stop"
    accounted(world.buffer)
    world.buffer.close()


def test_promise_5_a_time_that_turns_out_to_be_wrong_is_taken_from_what_is_left_of_a_row(tmp_path):
    world = World(tmp_path / "buffer", batch_size=300)
    world.store(1000)
    world.step()
    offset_ns = world.clock.offset_ns
    wrong = [Stretch(offset_ns, offset_ns + world.clock.now_ns + S, offset_ns)]
    assert world.buffer.withdraw(BOOT, wrong).delivered == 300
    world.buffer.date_boot(BOOT, offset_ns - 7200 * S, estimated=False)
    world.go_on()
    stamps = [int(line.rpartition(b" ")[2]) for body in world.bodies[1:] for line in lines_of(body)]
    assert len(stamps) == 700
    assert max(stamps) < offset_ns - 7000 * S + world.clock.now_ns
    accounted(world.buffer)
    world.buffer.close()


@pytest.mark.parametrize("gone", [0, 300])
def test_promise_5_only_what_was_in_a_request_without_an_answer_keeps_a_wrong_time(tmp_path, gone):
    world = World(tmp_path / "buffer", batch_size=300)
    world.store(1000)
    if gone:
        world.step()
    world.step(Answer(None, error="cut", sent=True))
    offset_ns, asked = world.clock.offset_ns, world.bodies.pop()
    world.buffer.withdraw(BOOT, [Stretch(offset_ns, offset_ns + world.clock.now_ns + S, offset_ns)])
    world.buffer.date_boot(BOOT, offset_ns - 7200 * S, estimated=False)
    world.go_on()
    bodies = [set(lines_of(body)) for body in world.bodies[gone // 300 :]]
    kept = set.union(*bodies) & set(lines_of(asked))
    stamps = [int(line.rpartition(b" ")[2]) for body in bodies for line in body - kept]
    assert (len(kept), len(stamps)) == (300, 700 - gone)
    assert max(stamps) < offset_ns - 7000 * S + world.clock.now_ns
    accounted(world.buffer)
    world.buffer.close()


@pytest.mark.parametrize("sent", [False, True])
def test_a_portion_that_does_not_go_through_goes_again_in_its_turn(tmp_path, sent):
    world = World(tmp_path / "buffer", batch_size=300)
    world.store(1000)
    world.store(10)
    world.step()
    world.step(Answer(None, error="cut", sent=sent))
    assert world.buffer.commit_all()
    assert world.buffer.snapshot().rows == 2, "nothing was written for it"
    world.go_on()
    assert world.sizes == [300, 300, 300, 300, 100, 10]
    assert world.bodies[1] == world.bodies[2], "the oldest first, as before"
    accounted(world.buffer)
    world.buffer.close()


def test_what_is_refused_of_a_portion_is_told_from_the_rest_of_its_row(tmp_path):
    world = World(tmp_path / "buffer", batch_size=300)
    world.store(1000)

    def strict(body):
        bad = [line.decode() for line in lines_of(body) if b"Temperature=450.0 " in line]
        return refused(400, f"unable to parse '{bad[0]}': no") if bad else TAKEN

    world.otherwise = strict
    world.go_on()
    assert world.sizes == [300, 300, 299, 300, 100]
    status = world.buffer.snapshot()
    assert (status.dead_letters, status.counters.points.delivered) == (1, 999)
    accounted(world.buffer)
    world.buffer.close()


def test_before_anything_was_sent_it_waits_for_a_place_and_says_since_when(world):
    world.target = None
    assert world.step() == POLL_S
    world.clock.pass_s(3)
    seen = world.seen
    assert (seen.state, seen.since_boot_ns, seen.alive_boot_ns) == ("waiting", 1000 * S, 1000 * S)
    assert (seen.requests, seen.bytes_sent, seen.delivered, seen.failures, seen.backlog) == (0, 0, 0, 0, 0)
    assert (seen.call_since_boot_ns, seen.last_success_boot_ns) == (None, None)
    assert (seen.last_error, seen.eta_s, seen.held, seen.next_attempt_s) == (None, None, None, 0)
    world.target = TARGET
    world.step()
    assert (world.seen.state, world.seen.since_boot_ns) == ("delivering", 1003 * S)
    assert world.writers[0].timeout == 7


def test_what_was_sent_is_counted_and_a_call_that_is_under_way_is_seen(world):
    world.put(3)
    world.takes_s = 2.0
    assert world.step() == 0
    seen = world.seen
    assert (seen.requests, seen.bytes_sent, seen.delivered) == (1, len(world.bodies[0]), 3)
    assert world.during == [1000 * S]
    assert (seen.call_since_boot_ns, seen.last_success_boot_ns, seen.alive_boot_ns) == (None, 1002 * S, 1002 * S)
    world.put(1)
    world.clock.pass_s(5)
    world.step()
    assert (world.seen.requests, world.seen.delivered, world.seen.bytes_sent) == (2, 4, sum(map(len, world.bodies)))


def test_a_call_that_ends_in_an_error_is_over_and_its_points_wait(world, caplog):
    world.put(2)
    assert world.step(RuntimeError("a mistake")) == POLL_S
    seen = world.seen
    assert (seen.call_since_boot_ns, seen.state, seen.failures) == (None, "failing", 1)
    assert (seen.last_error, seen.next_attempt_s) == ("RuntimeError in delivery", 8)
    assert "RuntimeError: a mistake" in caplog.text
    world.clock.pass_s(7.5)
    assert world.step() == 0.5
    world.clock.pass_s(0.5)
    world.step()
    assert (world.seen.delivered, world.seen.state, world.seen.last_error) == (2, "delivering", None)
    assert (world.seen.failures, world.seen.next_attempt_s) == (0, 0)


def test_the_backlog_has_a_rate_and_a_time_that_it_takes(tmp_path):
    world = World(tmp_path / "buffer", batch_size=10)
    for _ in range(6):
        world.store(10)
    assert (world.seen.backlog, world.seen.eta_s, world.seen.backlog_rate) == (60, None, 0)
    for _ in range(3):
        world.step()
        world.clock.pass_s(1)
    assert world.seen.backlog == 30
    assert world.seen.backlog_rate == 10
    assert world.seen.eta_s == 3
    while world.seen.backlog:
        world.step()
    assert world.seen.eta_s is None
    world.delivery.finish()
    assert world.writers[0].closed == 1
    world.buffer.close()


def test_points_that_are_parked_or_have_no_time_are_no_backlog_and_why_they_are_held_is_said(world):
    world.store(1)
    assert (world.seen.backlog, world.seen.held) == (1, None)
    world.step(refused(422, "the moon is full"))
    assert world.buffer.commit_all()
    world.store(2)
    assert (world.seen.parked, world.seen.backlog) == (1, 2)
    assert world.seen.held == "422 the moon is full"
    world.clock.offset_ns = None
    world.store(3)
    assert (world.buffer.snapshot().pending_disk, world.seen.backlog) == (6, 2)
    while world.seen.parked:
        world.clock.pass_s(60)
        world.step()
    assert world.seen.held is None


def test_nothing_is_asked_before_its_time_and_waits_are_never_longer_than_a_second(world):
    world.put(1)
    world.step()
    assert len(world.bodies) == 1
    world.put(1)
    waited = 0.0
    while len(world.bodies) == 1:
        wait = world.step()
        assert wait <= POLL_S
        waited += wait
        world.clock.pass_s(wait)
    assert 0 < waited <= 5
    world.delivery.hurry()
    assert world.delivery.wakeup.is_set()
    world.put(1)
    world.step()
    assert len(world.bodies) == 3, "who hurries does not wait for the next flush"


def suspects(world):
    """How many points of the refused batch are under suspicion in its first half."""
    batch = world.buffer.take_backlog(10)
    world.buffer.keep(batch)
    return batch.count if batch.suspect else 0


@pytest.mark.parametrize("status", [400, 500])
def test_before_points_are_blamed_an_empty_write_asks_whether_it_is_the_request(world, status):
    world.put(4)
    if status == 500:
        for _ in range(2):
            world.step(refused(status))
            world.clock.pass_s(300)
    world.step(refused(status), refused(401))
    assert [bool(body) for body in world.bodies[-2:]] == [True, False]
    assert world.refused, "the empty write's own answer counts: it was the token"
    assert world.buffer.snapshot().pending_memory == 4
    world.clock.pass_s(60)
    world.step(refused(status), TAKEN)
    assert [bool(body) for body in world.bodies[-2:]] == [True, False]
    assert suspects(world) == 2


@pytest.mark.parametrize(("passed_ns", "asks"), [(0, False), (FINE_NS, False), (FINE_NS + 1, True)])
def test_a_400_within_a_minute_of_a_204_is_about_the_points(world, passed_ns, asks):
    assert FINE_NS == 60 * S
    world.put(1)
    world.step()
    world.put(4)
    world.delivery.hurry()
    world.clock.now_ns += passed_ns
    world.step(refused(400), *([TAKEN] if asks else []))
    assert suspects(world) == 2


def test_another_place_is_asked_first_whether_it_takes_anything(world):
    world.put(1)
    world.step()
    world.target = replace(TARGET, bucket="other")
    world.put(4)
    world.delivery.hurry()
    world.step(refused(400), TAKEN)
    assert [writer.closed for writer in world.writers] == [1, 0]


def test_the_first_points_to_each_place_are_said_and_an_empty_write_is_none(world, caplog):
    caplog.set_level(logging.INFO)
    world.clock.wanted = 0.0
    world.step()
    assert caplog.messages == []
    world.clock.wanted = None
    for place in (TARGET, TARGET, replace(TARGET, bucket="other"), replace(TARGET, url="http://db2"), TARGET):
        world.target = place
        world.put(1)
        world.delivery.hurry()
        world.step()
    assert [text for text in caplog.messages if text.startswith("first")] == [
        "first points delivered to http://db:8086, bucket bucket",
        "first points delivered to http://db:8086, bucket other",
        "first points delivered to http://db2, bucket bucket",
        "first points delivered to http://db:8086, bucket bucket",
    ]


def test_a_failure_names_the_place_that_it_is_about(world, caplog):
    world.put(1)
    world.step(Answer(None, error="refused", sent=False))
    assert "delivery to http://db:8086 fails: refused; all points are kept" in caplog.text


@pytest.mark.parametrize("sent", [True, False])
def test_points_whose_answer_was_lost_keep_their_time_as_the_server_may_have_them(world, monkeypatch, sent):
    kept = []
    keep = world.buffer.keep
    monkeypatch.setattr(world.buffer, "keep", lambda batch, *, sent=False: (kept.append(sent), keep(batch, sent=sent)))
    world.put(1)
    world.step(Answer(None, error="cut", sent=sent))
    assert kept == [sent]


def test_what_a_mistake_leaves_open_may_have_been_sent(world, monkeypatch):
    kept = []
    keep = world.buffer.keep
    monkeypatch.setattr(world.buffer, "keep", lambda batch, *, sent=False: (kept.append(sent), keep(batch, sent=sent)))
    world.put(1)
    world.step(RuntimeError("a mistake"))
    assert kept == [True]


def test_an_answer_to_an_empty_write_that_is_not_understood_is_a_mistake_and_to_points_parks_them(world, monkeypatch):
    def confused(*_, **__):
        raise KeyError("code")

    monkeypatch.setattr("agent.delivery.delivery.decide", confused)
    world.clock.wanted = 0.0
    assert world.step() == POLL_S
    assert (world.seen.last_error, world.seen.next_attempt_s) == ("KeyError in delivery", 8)
    world.clock.wanted = None
    world.clock.pass_s(8)
    world.put(1)
    assert world.step() == 0
    assert world.buffer.take_parked().count == 1


# The clock


def test_a_servers_date_is_told_with_when_it_was_asked_and_answered_and_what_proves_it(world):
    world.put(1)
    world.takes_s = 0.5
    world.step()
    date = 1_700_000_000 * S
    assert world.clock.told == ((date, S, 1000 * S, 1000 * S + S // 2, "http://db:8086", True),)
    world.put(1)
    world.delivery.hurry()
    world.step(replace(refused(503), headers={**TAKEN.headers, "content-type": "application/json"}))
    assert world.clock.told[1][0] == date
    assert world.clock.told[1][-1] is False


def test_of_a_portals_answer_no_date_is_believed(world):
    world.put(1)
    world.step(Answer(200, {**TAKEN.headers, "content-type": "text/html"}, b"<html>log in</html>"))
    assert world.clock.told == ()


@pytest.mark.parametrize("date", ["Tue, 14 Nov 2023 22:13:20 GMT", "Fri, 15 Jan 2027 08:16:40 GMT"])
def test_a_server_whose_date_is_of_no_use_is_asked_ever_more_slowly(tmp_path, date):
    """It is in the past, or stands still, and the kernel does not vouch; or it does, and the date is in the past."""
    for kernel in (None, KernelClock(1_000_000, 0)):
        world = World(tmp_path / str(kernel), TrueClock(kernel))
        world.otherwise = lambda _: Answer(204, {"date": date})
        world.clock.poll()
        while world.clock.boot_ns() < 1600 * S:
            world.clock.pass_s(world.delivery.step())
        assert len(world.bodies) <= 40
        world.buffer.close()


def test_promise_5_influxdb_3_tells_the_time_over_plain_http_by_what_it_says_to_an_empty_write(tmp_path):
    """Nothing else can be sent while nothing is dated."""
    world = World(tmp_path / "buffer", TrueClock(None))
    dating = Dating(world.clock, world.buffer)
    world.otherwise = lambda body: world.clock.dates(Answer(204) if body else Answer(400, body=EMPTY_WRITE))
    world.put(1)
    for _ in range(10):
        world.clock.pass_s(world.delivery.step())
        dating.step()
    assert (world.seen.delivered, world.seen.backlog) == (1, 0)
    assert len(world.bodies) <= 5
    world.buffer.close()


@pytest.mark.parametrize(("body", "written"), [(EMPTY_WRITE, True), (b"incoming write was full", False)])
def test_what_is_no_answer_to_an_empty_write_proves_nothing(world, body, written):
    world.clock.wanted = 0.0
    world.step(replace(TAKEN, status=400, body=body))
    assert [told[-1] for told in world.clock.told] == ([True] if written else [])
    world.clock.wanted = None
    world.clock.pass_s(60)
    world.put(1)
    world.delivery.hurry()
    world.step(replace(TAKEN, status=400, body=EMPTY_WRITE), TAKEN)
    assert world.clock.told[-2][-1] is False, "said of points it is none"


def test_a_date_is_asked_for_when_the_clock_wants_one_and_not_sooner(world):
    world.clock.wanted = 0.25
    assert world.step() == 0.25
    assert world.bodies == []
    world.clock.wanted = 0.0
    assert world.step() == 0.0
    assert world.bodies == [b""]


def test_a_server_without_dates_is_asked_four_times_and_then_ever_more_slowly(world):
    """Once it has been mended it is soon asked; for ever, once a minute."""
    world.clock.wanted = 0.0
    asked, end = [], world.clock.boot_ns() + 36_000 * S
    dateless = replace(TAKEN, headers={})
    while world.clock.boot_ns() < end:
        world.answers.append(dateless)
        before = len(world.bodies)
        wait = world.delivery.step()
        if len(world.bodies) > before:
            asked.append((world.clock.boot_ns() - 1000 * S) / S)
        else:
            world.answers.clear()
        world.clock.pass_s(wait)
    gaps = [round(later - sooner, 3) for sooner, later in itertools.pairwise(asked)]
    assert asked[:4] == [0, 0.5, 1, 1.5]
    assert gaps == sorted(gaps)
    assert all(gap <= max(0.63, 0.4 * at) for at, gap in zip(asked, gaps, strict=False))
    assert set(gaps[40:]) == {60.0}
    world.target = replace(TARGET, bucket="other")
    world.clock.pass_s(1)
    assert world.step() == 0.0, "another server may have dates"
    world.clock.pass_s(0.5)
    assert world.step() == 0.0, "and one that told its date is asked again"
