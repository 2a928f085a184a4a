"""What becomes of points of earlier boots whose time was never known."""

import json
import os
import re
import uuid
from dataclasses import asdict, dataclass, field, fields, replace
from types import SimpleNamespace

import pytest

from agent.buffer.buffer import open_buffer
from agent.clock import manual_times
from agent.clock.backdating import Dating, merged, place, words
from agent.clock.boots import FILE, SAVE_EVERY_NS, Boot, Boots, current_boot_id
from agent.clock.clock import ClockState
from agent.clock.sources import SECOND
from agent.clock.timeline import LANES, Stretch, Wrong
from agent.config.settings import BufferSettings
from agent.points.schema import Line
from agent.util.checked import seal
from tests.clock_world import HOUR, NOW_NS, World

MS = 1_000_000


@dataclass(frozen=True)
class Waiting:
    boot_id: str
    last_ns: int
    count: int = 10


@dataclass
class FakeBuffer:
    """Points of boots, on the boot clock; what was dated, how, and what was discarded."""

    waiting: dict[str, list[int]] = field(default_factory=dict)
    dated: list[tuple[int, bool]] = field(default_factory=list)  # (Unix ns, estimated)
    discarded: dict[str, str] = field(default_factory=dict)

    def undated(self):
        return [Waiting(b, max(p), len(p)) for b, p in self.waiting.items()]

    def date_boot(self, boot_id, offset_ns, *, estimated):
        self.dated += [(p + offset_ns, estimated) for p in self.waiting.pop(boot_id, [])]

    disk_ok: bool = True

    def snapshot(self):
        return SimpleNamespace(disk_ok=self.disk_ok)

    def discard_boot(self, boot_id, reason):
        self.discarded[boot_id] = reason
        del self.waiting[boot_id]


def run_boot(world, folder, buffer, minutes, unanchored="estimate", *, cut=True):
    """A boot that measures once a minute and never learns the time, unless the world synchronises it first."""
    clock = world.clock(folder)
    dating = Dating(clock, buffer, unanchored)
    for _ in range(minutes):
        good = clock.poll().good
        dating.apply()
        boot = world.measure()
        if good:
            buffer.dated.append((clock.date(boot), False))
        else:
            buffer.waiting.setdefault(world.boot_id, []).append(boot)
        world.wait(60 * SECOND)
    if not cut:
        clock.close()
    return clock, dating


def three_boots_without_time(tmp_path, unanchored="estimate", *, cut=True):
    world, buffer = World(), FakeBuffer()
    world.synchronise()
    run_boot(world, tmp_path, buffer, 100, cut=cut)
    for number in (2, 3, 4):
        world.reboot(HOUR, f"boot-{number}")
        run_boot(world, tmp_path, buffer, 30, unanchored, cut=cut)
    world.reboot(HOUR, "boot-5")
    world.synchronise()
    clock, dating = run_boot(world, tmp_path, buffer, 0, unanchored)
    clock.poll()
    dating.apply()
    return world, buffer


@pytest.mark.parametrize("cut", [True, False], ids=["power cut", "clean end"])
def test_three_boots_without_time_are_estimated_between_the_good_ones_in_order(tmp_path, cut):
    world, buffer = three_boots_without_time(tmp_path, cut=cut)
    assert not buffer.waiting
    assert len(buffer.dated) == len(world.readings) == 190
    times = [t for t, _ in buffer.dated]
    assert times == sorted(times)
    assert [e for _, e in buffer.dated] == [False] * 100 + [True] * 90
    for (time, estimated), (_, true) in zip(buffer.dated, world.readings, strict=True):
        assert abs(time - true) < (HOUR if estimated else MS)


def test_estimates_are_never_before_the_last_point_that_was_dated(tmp_path):
    _, buffer = three_boots_without_time(tmp_path)
    assert min(t for t, e in buffer.dated if e) > max(t for t, e in buffer.dated if not e)


def test_a_power_cut_half_way_through_dating_changes_no_estimate(tmp_path):
    world, buffer = World(), FakeBuffer()
    world.synchronise()
    run_boot(world, tmp_path, buffer, 100)
    for number in (2, 3, 4):
        world.reboot(HOUR, f"boot-{number}")
        run_boot(world, tmp_path, buffer, 30)
    world.reboot(HOUR, "boot-5")
    world.synchronise()
    undone = {name: list(points) for name, points in buffer.waiting.items() if name != "boot-2"}
    clock, dating = run_boot(world, tmp_path, buffer, 0)
    clock.poll()
    dating.apply()
    first = [t for t, e in buffer.dated if e]
    again = FakeBuffer(waiting=undone)
    world.reboot(HOUR, "boot-6")
    world.synchronise()
    clock, dating = run_boot(world, tmp_path, again, 0)
    clock.poll()
    dating.apply()
    assert [t for t, _ in again.dated] == first[30:]


def test_held_points_wait_and_their_place_in_the_order_is_kept(tmp_path, caplog):
    _, buffer = three_boots_without_time(tmp_path, "hold")
    assert caplog.text.count("30 points of an earlier boot wait for a time: iot-agent buffer date") == 3
    assert list(buffer.waiting) == ["boot-2", "boot-3", "boot-4"]
    assert [b.id for b in Boots(tmp_path, "boot-6").order()][-4:] == ["boot-3", "boot-4", "boot-5", "boot-6"]


def test_held_points_are_dated_by_hand_whatever_the_clock(tmp_path):
    world, buffer = three_boots_without_time(tmp_path, "hold")
    world.reboot(HOUR, "boot-6")
    manual_times.leave(tmp_path, {"boot-3": NOW_NS})
    manual_times.leave(tmp_path, {"boot-4": NOW_NS + HOUR})
    before = len(buffer.dated)
    Dating(world.clock(tmp_path), buffer, "hold").apply()
    assert list(buffer.waiting) == ["boot-2"]
    assert buffer.dated[before] == (NOW_NS + 20 * SECOND, True)


@pytest.mark.parametrize(
    "content",
    [b"{", b"7", b'{"boot-3": "noon"}', seal({"version": 2}), seal({"version": 2, "starts": [1]})],
)
def test_times_by_hand_that_are_not_readable_are_ignored_and_said_once(tmp_path, content, caplog):
    (tmp_path / manual_times.FILE).write_bytes(content)
    for _ in range(3):
        assert manual_times.read(tmp_path) == {}
    assert len(caplog.records) <= 1


def test_boots_are_forgotten_only_when_the_disk_was_at_work_for_minutes(tmp_path):
    world, buffer = World(), FakeBuffer()
    for number in range(5):
        world.reboot(HOUR, f"boot-{number}")
        run_boot(world, tmp_path, buffer, 3)
    world.reboot(HOUR, "boot-5")
    world.synchronise()
    clock, dating = run_boot(world, tmp_path, buffer, 3)
    assert len(clock.boots.order()) == 6
    manual_times.leave(tmp_path, {"boot-3": NOW_NS})
    for _ in range(10):
        dating.apply()
    assert [b.id for b in clock.boots.order()] == ["boot-5"]
    assert manual_times.read(tmp_path) == {}


def test_discarded_points_are_counted_with_their_reason(tmp_path):
    _, buffer = three_boots_without_time(tmp_path, "discard")
    assert buffer.discarded == dict.fromkeys(("boot-2", "boot-3", "boot-4"), "no_time")


def test_a_boot_that_became_good_but_died_before_dating_is_dated_exactly(tmp_path):
    world, buffer = World(), FakeBuffer()
    clock = world.clock(tmp_path)
    buffer.waiting["boot-1"] = [world.measure()]
    world.synchronise()
    clock.poll()  # and the power goes
    world.reboot(HOUR, "boot-2")
    world.synchronise()
    clock = world.clock(tmp_path)
    clock.poll()
    Dating(clock, buffer, "hold").apply()
    assert buffer.dated == [(world.readings[0][1], False)]


def test_without_any_good_boot_before_the_estimate_ends_where_the_good_boot_starts(tmp_path):
    world, buffer = World(), FakeBuffer()
    run_boot(world, tmp_path, buffer, 30)
    world.reboot(HOUR, "boot-2")
    world.synchronise()
    clock, dating = run_boot(world, tmp_path, buffer, 0)
    clock.poll()
    dating.apply()
    assert buffer.dated[-1][0] == clock.state().offset_ns
    assert len(buffer.dated) == 30


def test_a_restart_within_the_boot_remembers_the_evidence(tmp_path):
    world = World(max_error_ns=None)
    clock = world.clock(tmp_path)
    world.contact(clock)
    since = clock.state().since_boot_ns
    world.wait(HOUR)
    world.step(-2 * HOUR)
    again = world.clock(tmp_path)
    assert again.state().good
    assert again.state().since_boot_ns == since
    again.poll()
    assert abs(again.date(world.boot_ns) - world.true_ns) <= SECOND


def test_what_trust_always_took_for_good_is_not_remembered_as_evidence(tmp_path):
    world = World(max_error_ns=None)
    assert world.clock(tmp_path, trust="always").poll().good
    assert not world.clock(tmp_path).poll().good


def test_the_state_folder_is_written_at_most_every_15_minutes_while_good(tmp_path, monkeypatch):
    saves = []
    monkeypatch.setattr("agent.clock.boots.write_atomic", lambda *_: saves.append(1))
    world = World()
    clock = world.clock(tmp_path)
    world.synchronise()
    for _ in range(24 * 60):
        clock.poll()
        world.wait(60 * SECOND)
    assert len(saves) <= 1 + 1 + 24 * 4


@pytest.mark.parametrize(
    "content",
    [
        b"",
        b"\0" * 4096,
        b"{",
        b"[]",
        b'{"version":1}',
        b'{"version":1,"boots":[7]}',
        b'{"version":1,"boots":[{"id":3}]}',
        (
            b'{"version":1,"boots":[{"id":"a","evidence":"moon","offset_ns":0,"error_ns":0,"since_boot_ns":0,'
            b'"saved_boot_ns":0,"until_boot_ns":0,"given_ns":0,"first_offset_ns":0,"first_error_ns":0,"placed_ns":0}]}'
        ),
        b"[" * 100_000,
    ],
)
def test_a_damaged_file_is_set_aside_and_the_clock_starts(tmp_path, content):
    (tmp_path / FILE).write_bytes(content)
    world = World()
    clock = world.clock(tmp_path)
    assert (tmp_path / f"{FILE}.damaged").read_bytes() == content
    world.synchronise()
    assert clock.poll().good
    assert json.loads((tmp_path / FILE).read_text())["boots"][-1]["evidence"] == "kernel"


@pytest.mark.timeout(10)
def test_promise_3_a_pipe_in_the_files_place_is_not_waited_for(tmp_path):
    os.mkfifo(tmp_path / FILE)
    world = World()
    clock = world.clock(tmp_path)
    world.synchronise()
    assert clock.poll().good
    assert json.loads((tmp_path / FILE).read_text())["boots"][-1]["evidence"] == "kernel"


def test_a_disk_that_refuses_costs_one_warning_and_is_tried_again(tmp_path, caplog):
    folder = tmp_path / "gone"
    world = World()
    clock = world.clock(folder)
    world.synchronise()
    for _ in range(3):
        clock.poll()
    assert caplog.text.count("cannot be written") == 1
    folder.mkdir()
    clock.poll()
    assert (folder / FILE).exists()


def test_boots_that_only_the_buffer_knows_are_put_where_it_says():
    """clock.json was lost."""
    order = [Boot("now", "kernel", NOW_NS, 0, 0, 0, 0, 0)]
    placed = place(order, [Waiting("a", 10 * HOUR), Waiting("b", HOUR)])
    assert [(p.boot_id, p.offset_ns) for p in placed] == [("a", NOW_NS - 11 * HOUR), ("b", NOW_NS - HOUR)]


def test_the_time_that_the_board_was_off_is_shared_out_evenly():
    order = [
        Boot("good", "kernel", NOW_NS, until_boot_ns=HOUR),
        Boot("a"),
        Boot("b"),
        Boot("now", "kernel", NOW_NS + 13 * HOUR),
    ]
    placed = place(order, [Waiting("a", HOUR), Waiting("b", 2 * HOUR)])
    assert [(p.boot_id, p.offset_ns - NOW_NS) for p in placed] == [("a", 4 * HOUR), ("b", 8 * HOUR)]


class Withdrawing(FakeBuffer):
    """Answers one withdrawal after the other."""

    def __init__(self, *answers):
        super().__init__()
        self.answers = list(answers)

    def withdraw(self, boot_id, stretches):
        return self.answers.pop(0)


def test_a_person_is_told_how_many_points_were_delivered_with_a_wrong_time_and_no_word_of_those_that_wait(caplog):
    clock, told = World().clock(), []
    clock.on_wrong = told.append
    wrongs = [
        Wrong(7),
        Wrong(1, 2, 5 * HOUR, 6 * HOUR),
        Wrong(0, 1, 3 * HOUR, 4 * HOUR),
        Wrong(0, 4, 8 * HOUR, 9 * HOUR),
    ]
    dating = Dating(clock, Withdrawing(*wrongs))
    assert dating.wrong == Wrong(0, 0, 0, 0)
    [withdraw] = told
    said = []
    for _ in wrongs:
        withdraw("boot-1", ())
        said.append(dating.warning)
    delivered = "delivered with a time that was wrong, dated"
    assert said == [
        None,
        f"2 points {delivered} 1970-01-01 05:00:00 UTC to 1970-01-01 06:00:00 UTC",
        f"3 points {delivered} 1970-01-01 03:00:00 UTC to 1970-01-01 06:00:00 UTC",
        f"7 points {delivered} 1970-01-01 03:00:00 UTC to 1970-01-01 09:00:00 UTC",
    ]
    assert caplog.messages[0] == "The time so far was wrong: 7 points that wait are dated anew"
    assert "1 points that wait are dated anew; 2 were delivered with a wrong time, from 1970" in caplog.messages[1]


def test_news_of_the_clock_are_not_waited_a_minute_for():
    world, buffer = World(), FakeBuffer()
    world.synchronise()
    clock = world.clock()
    dating = Dating(clock, buffer)
    for _ in range(5):
        dating.step()
        world.wait(SECOND)
    buffer.waiting["boot-1"] = [world.measure()]
    dating.step()
    assert buffer.waiting  # all was calm: looked at once a minute
    clock.configure("auto", 200 * SECOND)
    dating.step()
    assert buffer.dated == [(world.readings[0][1], False)]


def test_times_that_leave_no_room_keep_the_order_and_the_last_good_moment():
    good = Boot("good", "kernel", NOW_NS, 0, 0, HOUR, HOUR + SAVE_EVERY_NS)
    order = [good, Boot("a"), Boot("now", "kernel", NOW_NS + HOUR + 60 * SECOND, 0, 0, 0, 0, 0)]
    (placed,) = place(order, [Waiting("a", 2 * HOUR)])
    assert placed.offset_ns == NOW_NS + HOUR


@pytest.mark.parametrize("off", [-2 * 24 * HOUR, 2 * 24 * HOUR], ids=["2 days slow", "2 days fast"])
def test_once_a_synchronised_clock_turns_out_wrong_no_more_points_get_its_time(tmp_path, off):
    world = World(wall_ns=NOW_NS + off, max_error_ns=MS, boot_id="00000000-0000-4000-8000-000000000001")
    clock = world.clock(tmp_path)
    buffer = open_buffer(tmp_path / "buffer", BufferSettings(), clock)
    dating = Dating(clock, buffer)

    def measure():
        clock.poll()
        dating.apply()
        world.wait(SECOND)
        buffer.put([Line(b"environment,device=a n=%di" % len(world.readings), world.measure())])
        clock.poll()
        dating.apply()
        return len(world.readings) - 1

    measure()
    buffer.delivered(buffer.take_live(10))  # the first contact: too late for this point
    world.answer(clock)
    late = [measure()]
    assert buffer.take_live(10) is None
    buffer.commit_all()
    assert buffer.take_backlog(10) is None
    world.contact(clock)
    late += [measure(), measure()]
    buffer.commit_all()
    lines = [line for batch in iter(lambda: buffer.take_backlog(10), None) for line in batch.lines()]
    assert len(lines) == 3
    for number, line in zip(late, sorted(lines), strict=True):
        assert abs(int(line.split()[-1]) - world.readings[number][1]) <= SECOND
    buffer.close()


def test_three_boots_without_time_with_the_real_buffer(tmp_path):
    world, lines = World(), []
    for number in range(5):
        world.reboot(HOUR, f"00000000-0000-4000-8000-00000000000{number}")
        clock = world.clock(tmp_path)
        buffer = open_buffer(tmp_path / "buffer", BufferSettings(), clock)
        dating = Dating(clock, buffer)
        if number in {0, 4}:
            world.synchronise()
        for _ in range(10):
            clock.poll()
            dating.apply()
            buffer.put([Line(b"environment,device=a n=%di" % len(world.readings), world.measure())])
            world.wait(60 * SECOND)
        buffer.close()  # and the power goes before clock.close()
    buffer = open_buffer(tmp_path / "buffer", BufferSettings(), clock)
    buffer.commit_all()  # what was left to be dated at the stop
    while (batch := buffer.take_backlog(1000)) is not None:
        lines += batch.lines()
        buffer.delivered(batch)
    found = {
        int(re.search(rb"n=(\d+)i", line)[1]): (int(line.split()[-1]), b"clock=estimated" in line) for line in lines
    }
    assert [estimated for _, (_, estimated) in sorted(found.items())] == [False] * 10 + [True] * 30 + [False] * 10
    times = [time for _, (time, _) in sorted(found.items())]
    assert times == sorted(times)
    assert all(abs(time - world.readings[n][1]) < (HOUR if est else MS) for n, (time, est) in found.items())
    assert buffer.snapshot().unaccounted == 0
    buffer.close()


def test_status_says_by_what_evidence_since_when_and_how_well():
    world = World(max_error_ns=None, wall_ns=NOW_NS)
    clock = world.clock()
    assert words(clock.state(), world.boot_ns).startswith("not good yet")
    world.contact(clock)
    world.wait(60 * SECOND)
    assert words(clock.state(), world.boot_ns) == "good by the servers' dates for 60 s, within 1.006 s"


def test_promise_3_a_folder_in_the_place_of_the_boots_is_set_aside(tmp_path):
    (tmp_path / FILE).mkdir()
    Boots(tmp_path, "a").begin()
    assert [b.id for b in Boots(tmp_path, "b").order()] == ["a", "b"]
    assert (tmp_path / f"{FILE}.damaged").is_dir()


def test_only_the_present_boots_order_is_saved_once_a_boot(tmp_path):
    first = Boots(tmp_path, "a")
    first.begin()
    stamp = (tmp_path / FILE).stat().st_mtime_ns
    Boots(tmp_path, "a").begin()
    assert (tmp_path / FILE).stat().st_mtime_ns == stamp
    Boots(tmp_path, "b").begin()
    assert [b.id for b in Boots(tmp_path, "c").order()] == ["a", "b", "c"]
    assert Boots(tmp_path, "a").order()[-1] == Boot("a")
    known = Boot(
        "a", "kernel", 5, 7, since_boot_ns=50, saved_boot_ns=100 + SAVE_EVERY_NS, given_ns=105, first_offset_ns=4
    )
    first.remember(known)
    assert Boots(tmp_path, "a").order()[-1] == replace(known, until_boot_ns=100 + 2 * SAVE_EVERY_NS)


@pytest.mark.parametrize("heard", [False, True])
def test_an_earlier_boot_that_reaches_into_this_one_is_doubted_by_a_servers_word_only(tmp_path, heard):
    Boots(tmp_path, "a").close(Boot("a", "kernel", NOW_NS + HOUR, saved_boot_ns=HOUR))
    world, buffer = World(boot_id="b"), Withdrawing(Wrong(3))
    world.synchronise()
    clock = world.clock(tmp_path)
    if heard:
        world.answer(clock)
    Dating(clock, buffer).step()
    assert len(buffer.answers) == (not heard)
    assert [b.good for b in clock.boots.order()] == [not heard, True]


@pytest.mark.parametrize("into", [HOUR, 30 * HOUR])
def test_servers_make_a_boot_that_the_kernel_vouched_for_doubtful_only_over_a_day(tmp_path, into):
    Boots(tmp_path, "a").close(Boot("a", "kernel", NOW_NS + into, saved_boot_ns=60 * SECOND))
    world, buffer = World(boot_id="b", wall_ns=NOW_NS, max_error_ns=None), Withdrawing(Wrong(3))
    clock = world.clock(tmp_path)
    world.contact(clock, most=120)
    Dating(clock, buffer).step()
    assert clock.state().evidence == "servers"
    assert bool(buffer.answers) == (into == HOUR)


def test_what_is_known_of_a_boot_is_written_every_15_minutes_and_at_once_where_more_changes_than_time(tmp_path):
    boots = Boots(tmp_path, "a")

    def written(**changes):
        before = (tmp_path / FILE).read_bytes() if (tmp_path / FILE).exists() else b""
        boots.remember(replace(known, **changes))
        return (tmp_path / FILE).read_bytes() != before

    known = Boot("a", "kernel", NOW_NS, 7, since_boot_ns=50, saved_boot_ns=100, given_ns=105, first_offset_ns=NOW_NS)
    assert written()
    assert json.loads((tmp_path / FILE).read_text())["version"] == 2
    assert not written(saved_boot_ns=100 + 900 * SECOND - 1)
    assert not written(offset_ns=NOW_NS + SECOND // 10, error_ns=8)
    assert written(saved_boot_ns=100 + 900 * SECOND)
    for changes in (
        {"evidence": "servers"},
        {"since_boot_ns": 51},
        {"lane": 1},
        {"offset_ns": NOW_NS - SECOND // 10 - 1},
    ):
        assert written(**changes)
        assert written()
    assert Boots(tmp_path, "a").order()[-1] == replace(known, until_boot_ns=100 + 900 * SECOND)


def test_the_first_lane_is_given_on_which_nothing_is_as_late_and_the_last_one_where_all_are_taken(tmp_path):
    boots = Boots(tmp_path, "a")
    assert boots.free_lane(NOW_NS) == 0
    for lane in range(LANES - 1):
        boots.used(lane, NOW_NS + lane)
        boots.used(lane, NOW_NS - 1)  # what it has is not forgotten by that
    assert boots.free_lane(NOW_NS) == LANES - 1
    assert boots.free_lane(NOW_NS + 7) == 0
    assert boots.free_lane(NOW_NS + 1) == 0
    boots.used(LANES - 1, NOW_NS)
    assert boots.free_lane(NOW_NS) == LANES - 1


def test_lanes_of_boots_that_are_doubted_or_forgotten_stay_taken(tmp_path):
    here = Boot("a", "kernel", NOW_NS, saved_boot_ns=HOUR, given_ns=NOW_NS + HOUR, lane=0)
    first = Boots(tmp_path, "a")
    first.close(here)
    Boots(tmp_path, "b").close(replace(here, id="b", lane=1))
    boots = Boots(tmp_path, "c")
    until = NOW_NS + HOUR
    assert [boots.free_lane(until), boots.free_lane(until + 1)] == [2, 0]
    assert boots.doubt("a") == replace(here, until_boot_ns=HOUR)
    assert boots.free_lane(until) == 2
    assert [b.good for b in boots.order()] == [False, True, False]
    boots.doubt("b")
    boots.forget(["a", "b"])
    assert [b.id for b in boots.order()] == ["c"]
    boots.begin()
    assert [Boots(tmp_path, "d").free_lane(until), Boots(tmp_path, "d").free_lane(until + 1)] == [2, 0]


def test_the_lane_of_a_boot_that_is_forgotten_stays_taken_until_its_last_stamp(tmp_path):
    here = Boot("a", "kernel", NOW_NS, saved_boot_ns=HOUR, given_ns=NOW_NS + HOUR, lane=0)
    Boots(tmp_path, "a").close(here)
    Boots(tmp_path, "b").close(replace(here, id="b", lane=1, saved_boot_ns=HOUR // 2, given_ns=0))
    boots = Boots(tmp_path, "c")
    boots.forget(["a", "b"])
    assert [b.id for b in boots.order()] == ["b", "c"]
    until = NOW_NS + HOUR
    assert [boots.free_lane(at) for at in (until - HOUR, until, until + 1)] == [2, 1, 0]


def test_the_last_boot_whose_time_was_known_is_not_forgotten(tmp_path):
    here = Boot("a", "kernel", NOW_NS, saved_boot_ns=HOUR, given_ns=NOW_NS + HOUR)
    for name, known in (("a", here), ("b", replace(here, id="b")), ("c", None)):
        boots = Boots(tmp_path, name)
        boots.close(known) if known else boots.begin()
    boots = Boots(tmp_path, "d")
    assert boots.known_ns == NOW_NS + HOUR
    boots.forget(["a", "b", "c"])
    assert [b.id for b in boots.order()] == ["b", "d"]
    assert boots.known_ns == NOW_NS + HOUR


def test_the_boots_stay_in_their_order_whatever_their_ids(tmp_path):
    for name in ("m", "z", "a"):
        Boots(tmp_path, name).begin()
    assert [b.id for b in Boots(tmp_path, "k").order()] == ["m", "z", "a", "k"]


def test_a_boot_was_dated_by_one_offset_or_by_the_first_and_the_last():
    until = NOW_NS + HOUR + SECOND
    known = Boot("a", "kernel", NOW_NS, until_boot_ns=HOUR, given_ns=NOW_NS, first_offset_ns=NOW_NS)
    assert known.stretches == (Stretch(NOW_NS, until, NOW_NS),)
    moved = replace(known, offset_ns=NOW_NS + 5 * MS, lane=3)
    last = NOW_NS + 5 * MS + 3000
    assert moved.stretches == (
        Stretch(NOW_NS, until + 5 * MS, NOW_NS),
        Stretch(last, until + 5 * MS, last),
    )


def test_what_a_version_without_lanes_has_left_is_read(tmp_path):
    names = [field.name for field in fields(Boot) if field.name not in {"id", "evidence", "lane", "first_lane"}]
    old = {"id": "a", "evidence": "kernel"} | dict(zip(names, range(100, 200), strict=False))
    (tmp_path / FILE).write_text(json.dumps({"version": 1, "boots": [old]}))
    [found, _] = Boots(tmp_path, "b").order()
    assert asdict(found) == {**old, "lane": 0, "first_lane": 0}
    for name in names:
        (tmp_path / FILE).write_text(json.dumps({"version": 1, "boots": [old | {name: "1"}]}))
        assert len(Boots(tmp_path, "b").order()) == 1
        (tmp_path / FILE).write_text(json.dumps({"version": 1, "boots": [{k: v for k, v in old.items() if k != name}]}))
        assert len(Boots(tmp_path, "b").order()) == 1


@pytest.mark.parametrize("content", [b"rubbish\n", b"\xff\xfe", None])
def test_where_the_kernel_hides_the_boots_id_each_start_is_one(tmp_path, monkeypatch, content):
    path = tmp_path / "boot_id"
    if content is not None:
        path.write_bytes(content)
    monkeypatch.setattr("agent.clock.boots._BOOT_ID", path)
    assert len({str(uuid.UUID(current_boot_id())) for _ in range(3)}) == 3
    path.write_text("00000000-0000-4000-8000-000000000001\n")
    assert current_boot_id() == "00000000-0000-4000-8000-000000000001"


def test_what_waits_on_a_disk_that_opens_late_is_dated_at_once_and_not_after_a_minute(tmp_path):
    world, buffer = World(), FakeBuffer(disk_ok=False)
    world.synchronise()
    clock = world.clock(tmp_path)
    dating = Dating(clock, buffer)
    for _ in range(10):
        dating.step()
        world.wait(SECOND)
    buffer.disk_ok = True
    buffer.waiting["of an earlier boot"] = [5 * SECOND]
    dating.step()
    assert [estimated for _, estimated in buffer.dated] == [True]


def test_boots_that_only_the_buffer_knows_come_before_the_next_that_both_know():
    order = [Boot("a"), Boot("b"), Boot("c"), Boot("now")]

    def names(*waiting):
        return "".join(name for name, _ in merged(order, [Waiting(boot_id, 0) for boot_id in waiting]))

    assert names() == "abcnow"
    assert names("x", "y") == "abcxynow"
    assert names("x", "a", "y", "c", "z") == "xabycznow"
    assert names("x", "c", "a", "y") == "xabcynow"
    assert [boot for name, boot in merged(order, [Waiting("x", 0)]) if name == "x"] == [None]


def test_where_there_is_just_room_boots_follow_each_other_and_without_it_they_end_where_the_good_one_starts():
    """Of the good one it was known until 2 h that it may have been dated until 3 h."""
    good = Boot("good", "kernel", NOW_NS, saved_boot_ns=2 * HOUR, until_boot_ns=3 * HOUR)

    def starts(at_ns):
        order = [good, Boot("a"), Boot("b"), Boot("now", "kernel", NOW_NS + at_ns)]
        return [(p.offset_ns - NOW_NS) / HOUR for p in place(order, [Waiting("a", HOUR), Waiting("b", HOUR)])]

    assert starts(5 * HOUR) == [3, 4]
    assert starts(5 * HOUR - 2 * MS) == [(3 * HOUR - 2 * MS) / HOUR, (4 * HOUR - 2 * MS) / HOUR]
    assert starts(4 * HOUR) == [2, 3]
    assert starts(3 * HOUR) == [2, 3]
    assert starts(8 * HOUR) == [4, 6]


def test_a_boot_that_was_put_somewhere_stays_there_and_one_that_nothing_waits_for_takes_no_room():
    order = [Boot("a", placed_ns=NOW_NS - 9 * HOUR), Boot("b"), Boot("c"), Boot("now", "kernel", NOW_NS)]
    waiting = [Waiting("a", HOUR), Waiting("c", 2 * HOUR), Waiting("now", HOUR)]
    assert [(p.boot_id, p.offset_ns - NOW_NS, p.estimated) for p in place(order, waiting)] == [
        ("a", -9 * HOUR, True),
        ("c", -2 * HOUR, True),
    ]
    assert place(order, []) == []
    assert [p.boot_id for p in place(order, [Waiting("b", HOUR)])] == ["b"]


def test_a_good_boot_that_waits_is_dated_by_the_first_time_it_knew():
    order = [Boot("a", "servers", NOW_NS + HOUR, first_offset_ns=NOW_NS, first_lane=2), Boot("now", "kernel", NOW_NS)]
    [placed] = place(order, [Waiting("a", HOUR), Waiting("now", HOUR)])
    assert (placed.boot_id, placed.offset_ns, placed.estimated) == ("a", NOW_NS + 2000, False)


@pytest.mark.parametrize("evidence", ["kernel", "servers"])
def test_an_earlier_boot_may_reach_into_this_one_by_both_errors_and_two_seconds(tmp_path, evidence):
    for more_ns, doubted in ((0, False), (1, True)):
        world = World(boot_id="b")
        world.synchronise()
        into = 2 * SECOND + 5 * MS + 30 * MS  # what the kernel states, and the earlier boot's error
        start = world.true_ns - world.boot_ns
        Boots(tmp_path, "a").close(
            Boot("a", evidence, start + into + more_ns - HOUR, saved_boot_ns=HOUR, error_ns=30 * MS)
        )
        clock = world.clock(tmp_path)
        buffer = Withdrawing(Wrong(3))
        world.answer(clock, travel_ns=0)
        Dating(clock, buffer).step()
        assert (not buffer.answers) == doubted
        (tmp_path / FILE).unlink()


def test_a_calm_clock_is_looked_at_every_second_and_what_waits_every_minute():
    world, buffer = World(), FakeBuffer()
    world.synchronise()
    told = []
    dating = Dating(world.clock(), buffer, on_dated=lambda: told.append(world.boot_ns))
    assert [dating.step() for _ in range(3)] == [1.0, 1.0, 1.0]
    assert len(told) == 1
    buffer.waiting["boot-1"] = [world.measure()]
    world.wait(60 * SECOND - 1)
    dating.step()
    assert buffer.waiting
    world.wait(1)
    dating.step()
    assert not buffer.waiting
    assert len(told) == 2


def test_another_way_with_what_has_no_time_is_taken_at_once(tmp_path):
    Boots(tmp_path, "a").begin()
    world, buffer = World(boot_id="b"), FakeBuffer({"a": [HOUR]})
    world.synchronise()
    clock = world.clock(tmp_path)
    dating = Dating(clock, buffer, "hold")
    for _ in range(3):
        dating.step()
    clock.changed.clear()
    dating.configure("discard")
    assert clock.changed.is_set()
    dating.step()
    assert buffer.discarded == {"a": "no_time"}


def test_boots_are_forgotten_at_the_tenth_look_in_a_row_at_a_disk_that_works(tmp_path):
    for name in ("a", "b"):
        Boots(tmp_path, name).begin()
    world, buffer = World(boot_id="c"), FakeBuffer({"b": [HOUR]})
    world.synchronise()
    clock = world.clock(tmp_path)
    clock.poll()
    dating = Dating(clock, buffer, "hold")
    for disk_ok, looks in ((True, 9), (False, 1), (True, 9)):
        buffer.disk_ok = disk_ok
        for _ in range(looks):
            dating.apply()
    assert [b.id for b in clock.boots.order()] == ["a", "b", "c"]
    dating.apply()
    assert [b.id for b in clock.boots.order()] == ["b", "c"]


def test_what_is_dated_once_is_not_dated_at_every_look(tmp_path):
    world = World()
    world.synchronise()
    asked = []

    class Asked(FakeBuffer):
        def date_boot(self, boot_id, offset_ns, *, estimated):
            asked.append(boot_id)

    clock = world.clock(tmp_path)
    dating = Dating(clock, Asked())
    dating.apply()
    assert asked == []  # not looked yet
    clock.poll()
    for _ in range(3):
        dating.apply()
    assert asked == ["boot-1"]
    clock.configure("auto", 0)
    clock.poll()
    dating.apply()
    clock.configure("auto", SECOND)
    clock.poll()
    dating.apply()
    assert asked == ["boot-1"] * 2  # it was not known in between


@pytest.mark.parametrize("start", [2**63 - 1, 1 - 2**63])
def test_any_time_of_64_bits_can_be_given_by_hand(tmp_path, start):
    manual_times.leave(tmp_path, {"a": start, "b": start + (1 if start > 0 else -1)})
    assert manual_times.read(tmp_path) == {"a": start}
    manual_times.leave(tmp_path, {"c": 7})
    assert manual_times.read(tmp_path) == {"a": start, "c": 7}
    manual_times.remove(tmp_path)
    manual_times.remove(tmp_path)
    assert manual_times.read(tmp_path) == {}


def test_a_folder_in_the_place_of_times_by_hand_is_set_aside(tmp_path):
    (tmp_path / manual_times.FILE).mkdir()
    assert manual_times.read(tmp_path) == {}
    manual_times.leave(tmp_path, {"a": 1})
    assert manual_times.read(tmp_path) == {"a": 1}


def test_status_says_since_when_and_what_a_person_should_know():
    known = ClockState(True, "kernel", 40 * SECOND, NOW_NS, 1_234_567)
    assert words(known, 100 * SECOND) == "good by the kernel for 60 s, within 0.001 s"
    assert words(replace(known, warning="mind it"), 100 * SECOND).endswith("within 0.001 s; mind it")
    waiting = "not good yet: nobody vouches for the time; points wait without one"
    assert words(ClockState(False), HOUR) == waiting
    assert words(replace(known, good=False, warning="mind it"), HOUR) == f"{waiting}; mind it"
