"""A watch over a store, with a clock that the test moves: what is begun, told and kept, and by whom."""

import json
from itertools import pairwise
from types import SimpleNamespace

import pytest

from agent.util.loops import Steps
from agent.util.secret import Secret
from center.alerts import kept, watch
from center.alerts.kept import Receiver
from center.alerts.watch import EVERY_S, NAMED, Watch
from center.context import Center
from center.errors import StoreError
from center.profiles import Profile, keep_profile
from center.settings import Settings
from center.stores.telemetry import ENVIRONMENT, HEALTH, Point
from center.times import now_ns
from tests.center.stores.conftest import opened_store

MINUTE = 60_000_000_000
STORES = ["embedded", pytest.param("influxdb", marks=pytest.mark.influxdb)]


class World:
    """A store, a clock and people. `reach`: whether messages arrive; `got`: those that did, by address."""

    def __init__(self, registry, telemetry, monkeypatch):
        self.registry, self.telemetry = registry, telemetry
        self.now, self.steady, self.reach, self.got = now_ns() - 300 * MINUTE, 1e6, True, []
        self.center = Center(Settings(embedded=True), registry, telemetry, lambda: None)
        monkeypatch.setattr(watch, "now_ns", lambda: self.now)
        monkeypatch.setattr(watch, "time", SimpleNamespace(monotonic=lambda: self.steady))
        monkeypatch.setattr(watch.threading, "Thread", Inline)
        monkeypatch.setattr(watch.sending, "send", self.send)
        self.watch = None
        self.restart()

    def restart(self):
        """Another process, which holds the lease at its first look."""
        if self.watch:
            self.watch.finish()
        self.watch = Watch(self.center)
        self.registry.hold_lease(self.watch._me)  # one that is free takes two calls to get

    def send(self, url, title, text, *, good):
        if not self.reach:
            return "nobody there"
        self.got.append((url.reveal(), title, text, good))
        return ""

    def point(self, device, value=None, measurement=ENVIRONMENT, ago_s=0, sensor="", **fields):
        tags = {"clientId": device, "device": device} | ({"sensor": sensor} if sensor else {})
        values = fields if value is None else {"Temperature": float(value)}
        self.telemetry.write([Point(measurement, tags, values, self.now - ago_s * 10**9)])

    def rule(self, rule_id="r1", **changed):
        base = {"name": "Frost", "what": "below", "field": "Temperature", "threshold": 2, "receivers": ["mail"]}
        return kept.keep_rule(self.registry, rule_id, base | changed)

    def look(self, minutes=1.0):
        """The next look, and what it had sent: titles."""
        self.pass_by(minutes)
        before = len(self.got)
        self.watch.step()
        self.watch.step()  # what came of it is written down
        return [title for _, title, _, _ in self.got[before:]]

    def pass_by(self, minutes):
        self.now += round(minutes * MINUTE)
        self.steady += minutes * 60

    def history(self):
        return [(told.event, told.receivers.get("mail")) for told in reversed(kept.events(self.registry))]


class Inline:
    def __init__(self, target, args, daemon):
        self.start = lambda: target(*args)


@pytest.fixture(params=STORES)
def world(request, tmp_path, monkeypatch):
    with opened_store(request.param, tmp_path) as (registry, telemetry):
        for device in ("attic", "barn"):
            registry.register(device, administrator=True)
        kept.keep_receiver(registry, "mail", Receiver("Mail", Secret("json://localhost/x"), "json://localhost"))
        yield World(registry, telemetry, monkeypatch)


def test_it_begins_and_ends_once_and_a_restart_between_changes_nothing(world):
    world.rule(hysteresis=1, duration_min=2)
    for value, titles in ((5, []), (1, []), (1.5, []), (1.2, ["Frost"]), (0.5, [])):
        world.point("attic", value)
        assert world.look() == titles
    world.restart()
    for value, titles in ((0.5, []), (2.5, []), (3, ["Over: Frost"]), (5, [])):
        world.point("attic", value)
        assert world.look() == titles
    assert [text.splitlines() for _, _, text, _ in world.got] == [
        ["Temperature below 2 °C for 2 min", "attic: 1.2 °C"],
        ["Temperature below 2 °C for 2 min", "attic: 3 °C, after 7 min"],
    ]
    assert world.history() == [("begins", "sent"), ("ends", "sent")]
    assert kept.alerts(world.registry) == {}


def test_what_is_not_known_neither_begins_nor_ends(world):
    world.rule()
    world.point("attic", 1, ago_s=2 * 3600)
    assert world.look() == []  # too old to say something about now
    world.point("attic", 1)
    assert world.look() == ["Frost"]
    assert world.look(100) == []  # nothing new for long
    world.point("attic", 7)
    assert world.look() == ["Over: Frost"]


def test_a_removed_device_a_rule_that_is_off_and_another_quantity_end_without_a_word(world):
    world.point("attic", 1)
    for end in (
        lambda: world.rule(enabled=False),
        lambda: kept.forget_rule(world.registry, "r1"),
        lambda: world.rule(field="Humidity"),
        lambda: world.registry.remove("attic"),
    ):
        world.rule()
        assert world.look() == ["Frost"]
        end()
        assert world.look() == []
        assert kept.alerts(world.registry) == {}


def test_many_devices_of_one_look_are_one_message_with_their_names(world):
    ids = [f"d-{n:02}" for n in range(NAMED + 5)]
    for device in ids:
        world.registry.register(device, administrator=True)
        world.point(device, 0)
    keep_profile(world.registry, "d-00", Profile("Door", "shed"))
    world.rule()
    assert world.look() == ["Frost"]
    lines = world.got[0][2].splitlines()
    assert lines[1:3] == ["Door (d-00): 0 °C", "d-01: 0 °C"]
    assert (len(lines), lines[-1]) == (NAMED + 2, "and 5 more")
    assert len(world.history()) == 1
    world.rule("r2", name="Of the shed", scope="group", of="shed")
    world.rule("r3", name="Of one", scope="device", of="d-03")
    assert world.look() == ["2 alerts"]
    assert {key.device for key in kept.alerts(world.registry)["r2"]} == {"d-00"}
    assert {key.device for key in kept.alerts(world.registry)["r3"]} == {"d-03"}


def test_silence_begins_only_after_devices_had_the_time_to_deliver(world):
    world.rule(what="silent", threshold=30, field="")
    world.point("attic", 1, ago_s=7200)
    world.point("barn", 1, ago_s=7200)
    assert world.look() == []  # silent for long, and the center has just started
    assert world.look(20) == []
    world.point("barn", 1)
    assert world.look(11) == ["Frost"]
    assert "attic" in world.got[0][2]
    assert "barn" not in world.got[0][2]
    fails = world.registry.documents
    world.registry.documents = lambda kind: (_ for _ in ()).throw(StoreError("away"))
    assert world.look(60) == []
    world.registry.documents = fails
    for minutes in (1, 20):
        assert (
            world.look(minutes) == []
        )  # barn is silent for longer than half an hour, most of which the store was away
    assert world.look(11) == ["Frost"]
    world.point("attic", 1, ago_s=600)  # by its date ten minutes ago
    assert world.look() == ["Over: Frost"]


def test_a_step_of_the_centers_clock_makes_nobody_silent(world):
    world.rule(what="silent", threshold=30, field="")
    for _ in range(3):
        world.point("attic", 1)
        assert world.look() == []
    true = world.now
    world.now += 600 * MINUTE
    for _ in range(3):
        world.telemetry.write([Point(ENVIRONMENT, {"device": "attic"}, {"Temperature": 1.0}, true)])
        assert world.look(20) == []
        true += 20 * MINUTE


def test_both_messages_of_an_alert_that_was_over_before_they_could_be_sent(world):
    world.rule()
    world.reach = False
    for value in (1, 7):
        world.point("attic", value)
        assert world.look() == []
    assert world.history() == [("begins", "nobody there"), ("ends", "nobody there")]
    world.reach = True
    assert world.look(20) == ["2 alerts"]
    text = world.got[0][2]
    assert text.index("Frost\n") < text.index("Over: Frost")
    assert "This was 21 min ago." in text
    assert world.history() == [("begins", "sent"), ("ends", "sent")]


def test_a_message_is_tried_ever_more_slowly_and_given_up_after_a_day(world, monkeypatch):
    world.rule()
    tries = []
    monkeypatch.setattr(watch.sending, "send", lambda *_, **__: tries.append(world.steady) or "nobody there")
    world.point("attic", 1)
    for _ in range(13):
        world.look(EVERY_S / 60)
    gaps = [round(b - a) for a, b in pairwise(tries)]
    assert gaps == [30, 60]
    for minutes, how in ((23 * 60, "nobody there"), (65, "given up: nobody there")):
        world.look(minutes)
        assert world.history() == [("begins", how)]
    count = len(tries)
    world.look(60)
    assert len(tries) == count


def test_what_was_not_sent_is_sent_by_whoever_comes_next(world):
    """As after a kill between what was written down and what came of it."""
    world.rule()
    world.reach = False
    world.point("attic", 1)
    world.look()
    world.restart()
    world.reach = True
    assert world.look() == ["Frost"]
    assert world.look() == []


def test_only_the_replica_that_holds_the_lease_looks(world):
    world.rule()
    world.point("attic", 1)
    other = Watch(world.center)
    assert world.look() == ["Frost"]
    world.point("attic", 7)
    other.step()
    assert len(world.got) == 1
    assert world.look() == ["Over: Frost"]


def test_the_lease_is_held_through_a_long_look_and_a_long_pause(world, monkeypatch):
    world.rule()
    world.rule("s", what="silent", field="", threshold=30)
    world.rule("b", what="backlog", field="", threshold=1)
    asked, hold = [], world.registry.hold_lease
    monkeypatch.setattr(world.registry, "hold_lease", lambda me: asked.append(world.steady) or hold(me))
    for name in ("last_values", "last_seen"):
        asks = getattr(world.telemetry, name)
        monkeypatch.setattr(world.telemetry, name, lambda *a, asks=asks, **k: (world.pass_by(0.4), asks(*a, **k))[1])
    end = world.steady + 1500
    while world.steady < end:
        world.point("attic", 1)
        world.pass_by(world.watch.step() / 60)
    assert max(b - a for a, b in pairwise(asked)) <= 48  # two questions of 24 s: nothing is asked in between
    assert len(world.history()) >= 1


def test_a_look_that_takes_long_is_followed_by_a_pause_ten_times_as_long(world, monkeypatch):
    world.rule()
    asked = []

    def slow(*_, **__):
        asked.append(world.steady)
        world.steady += 8.0
        return {}

    monkeypatch.setattr(world.telemetry, "last_values", slow)
    for _ in range(100):
        world.watch.step()
        world.pass_by(1 / 30)
    assert len(asked) == 3
    assert min(later - earlier for earlier, later in pairwise(asked)) >= 80.0


def test_without_rules_nobody_is_asked_for_anything(world):
    world.telemetry.last_values = world.telemetry.last_seen = lambda *_, **__: pytest.fail("asked")
    world.registry.devices = lambda: pytest.fail("asked")
    world.rule(enabled=False)
    assert world.look() == []


def health(world, device="attic", **fields):
    base = {"pending": 0, "rejected": 0, "clock_good": 1}
    world.point(device, measurement=HEALTH, **base | fields)


def test_backlog_clock_and_a_failing_sensor_by_what_the_agent_tells(world):
    world.rule("b", name="Backlog", what="backlog", field="", threshold=1000)
    world.rule("c", name="Clock", what="clock", field="", threshold=0)
    world.rule("f", name="Sensor", what="failing", field="", threshold=5)
    health(world)
    assert world.look() == []
    health(world, pending=1001)
    assert world.look() == ["Backlog"]
    health(world, clock_good=0)
    world.point("attic", measurement=HEALTH, sensor="bench", failing=600, cause=1)
    assert world.look() == ["3 alerts"]
    assert "attic, bench: 10 min" in world.got[-1][2]
    health(world)
    assert world.look() == ["2 alerts"]
    assert kept.alerts(world.registry) == {}


def test_refused_points_and_fast_changes_are_told_over_a_window(world):
    world.rule("p", name="Refused", what="rejected", field="", threshold=5, window_min=10)
    world.rule("t", name="Fast", what="changes", threshold=6, window_min=20, hysteresis=1)
    seen = []
    for minute in range(0, 60, 2):
        health(world, rejected=100 if minute < 20 else 108)
        noise = 0.3 * (-1) ** (minute // 2)
        world.point("barn", 20 + noise + (max(minute - 30, 0) * 0.2))  # from then on 12 °C an hour
        seen += [(minute, title) for title in world.look(2)]
    refused = [minute for minute, title in seen if "Refused" in title]
    assert refused[0] == 20
    assert 29 <= refused[1] <= 32
    assert [title for _, title in seen] == ["Refused", "Over: Refused", "Fast"]
    assert 35 < seen[-1][0] < 55


def test_a_rule_that_is_seen_is_not_new_until_it_begins_anew(world):
    world.rule()
    world.point("attic", 1)
    world.look()
    assert list(kept.unseen(world.registry)) == ["r1"]
    fired = max(state.fired_ns for state in kept.alerts(world.registry)["r1"].values())
    world.registry.keep_document(kept.SEEN, "r1", str(fired))
    assert kept.unseen(world.registry) == {}
    world.point("barn", 1)
    world.look()
    assert [key.device for key in kept.unseen(world.registry)["r1"]] == ["barn"]


def test_the_history_is_bounded(world, monkeypatch):
    monkeypatch.setattr(kept, "EVENTS", 6)
    world.rule()
    for n in range(10):
        world.point("attic", 1 if n % 2 == 0 else 7)
        assert len(world.look()) == 1
    assert [told.number for told in kept.events(world.registry)] == [10, 9, 8, 7, 6, 5]


def test_addresses_are_not_seen_where_receivers_are(world):
    assert "localhost/x" not in repr(kept.receivers(world.registry))
    assert json.loads(world.registry.documents("receiver")["mail"])["url"] == "json://localhost/x"


def test_a_sensor_with_a_name_of_any_length_stops_no_other_alert(world):
    world.rule()
    for sensor in ("", "s" * 20_000):
        world.point("attic", 1, sensor=sensor)
    world.point("barn", 1)
    assert world.look() == ["Frost"]
    assert len(world.got[0][2]) < 300
    assert {key.device for key in kept.alerts(world.registry)["r1"]} == {"barn"}  # the others had no place
    world.point("barn", 7)
    assert world.look() == ["Over: Frost"]


def test_what_was_sent_while_the_store_was_away_is_not_sent_again(world, monkeypatch):
    world.rule()
    world.point("attic", 1)
    world.pass_by(1)
    world.watch.step()
    assert len(world.got) == 1
    keep = world.registry.keep_document
    away = lambda *_: (_ for _ in ()).throw(StoreError("away"))  # noqa: E731
    monkeypatch.setattr(world.registry, "keep_document", away)
    assert world.look() == []
    monkeypatch.setattr(world.registry, "keep_document", keep)
    assert world.look() == world.look() == []
    assert world.history() == [("begins", "sent")]


def test_who_could_not_be_told_for_want_of_a_thread_is_told_at_the_next_look(world, monkeypatch):
    def cannot():
        raise RuntimeError("can't start new thread")

    world.rule()
    world.point("attic", 1)
    world.pass_by(1)
    with monkeypatch.context() as full:
        full.setattr(Inline, "__init__", lambda self, target, args, daemon: setattr(self, "start", cannot))
        with pytest.raises(RuntimeError):
            world.watch.step()
    assert world.look() == ["Frost"]


def test_a_store_that_fails_for_a_minute_is_told_until_a_look_is_taken_again(world, monkeypatch, caplog):
    world.rule()
    hold, known = world.registry.hold_lease, StoreError("this takes more than 10 s")
    known.known = True  # to the store's own log
    monkeypatch.setattr(world.registry, "hold_lease", lambda _: (_ for _ in ()).throw(known))
    steps = Steps("judging alerts", world.watch)
    for minutes, problem in ((1, None), (0.5, None), (0.5, "judging alerts fails: this takes more than 10 s")):
        world.pass_by(minutes)
        steps.step()
        assert steps.problem == problem
    assert [record.getMessage() for record in caplog.records] == ["alerts are not judged: this takes more than 10 s"]
    steps.step()  # no look is due
    assert steps.problem
    monkeypatch.setattr(world.registry, "hold_lease", hold)
    world.pass_by(1)
    steps.step()
    assert steps.problem is None


def test_a_stop_waits_for_what_is_being_sent(world, monkeypatch):
    later = []
    monkeypatch.setattr(
        Inline,
        "__init__",
        lambda self, target, args, daemon: setattr(self, "start", lambda: later.append((target, args))),
    )

    def wait(_seconds):
        for target, args in later:
            target(*args)
        later.clear()

    monkeypatch.setattr(world.watch.wakeup, "wait", wait)
    world.rule()
    world.point("attic", 1)
    assert world.look() == []
    world.restart()
    assert len(world.got) == 1
    assert world.look() == []
    assert world.history() == [("begins", "sent")]


def test_what_waits_is_sent_also_after_its_rule_is_gone_and_a_restart(world):
    world.rule()
    world.reach = False
    world.point("attic", 1)
    assert world.look() == []
    kept.forget_rule(world.registry, "r1")
    world.look()
    world.restart()
    world.reach = True
    assert world.look() == ["Frost"]


def test_what_came_of_an_old_message_takes_the_place_of_no_new_one(world, monkeypatch):
    monkeypatch.setattr(kept, "EVENTS", 2)
    world.rule()
    world.reach = False
    for n in range(3):
        world.point("attic", 1 if n % 2 == 0 else 7)
        world.look(EVERY_S / 60)
    assert [told.number for told in kept.events(world.registry)] == [3, 2]
    monkeypatch.setattr(world.watch, "_fails", {})
    monkeypatch.setattr(watch.sending, "send", lambda *_, **__: "another reason")
    world.watch._send(world.steady)
    world.watch._done[0] = (world.watch._done[0][0], [1], "another reason")
    world.watch.step()
    assert [told.number for told in kept.events(world.registry)] == [3, 2]
