"""The buffer as its users see it: nothing is lost, nothing is written without need, every point is accounted for."""

import pytest

from agent.buffer.batch import DeadLetter, Part
from agent.buffer.disk_error import DiskError
from agent.buffer.folder import AlreadyRunning
from agent.buffer.offline import OfflineBuffer
from tests.buffers import (
    SECOND,
    UNIX_NS,
    HandClock,
    accounted,
    drain,
    line,
    measure,
    open_at,
    pending_after,
    store_of,
)


@pytest.fixture
def folder(tmp_path):
    return tmp_path / "buffer"


def written(folder):
    return sum(path.stat().st_size for path in folder.iterdir() if path.name.startswith("cache.db"))


def test_points_come_out_as_they_went_in_stamped_in_milliseconds(folder, clock):
    buffer = open_at(folder, clock)
    buffer.put([line(clock, 1.5)])
    batch = buffer.take_live(10)
    stamp = UNIX_NS + clock.now_ns
    assert batch.lines() == [b"environment,clientId=pi-1,device=pi-1 Temperature=1.5 %d" % stamp]
    assert (batch.count, batch.live, batch.health) == (1, True, 0)
    buffer.close()


def test_promise_1_a_point_is_on_disk_within_the_loss_window(folder, clock):
    buffer = open_at(folder, clock, loss_window=10)
    measure(buffer, clock, 5)
    assert not buffer.commit_due(clock.boot_ns())
    clock.pass_s(5)
    assert buffer.commit_due(clock.boot_ns())
    assert buffer.next_deadline() < int(1010 * SECOND)
    assert buffer.commit()
    assert buffer.snapshot().pending_disk == 5
    buffer.close()


def test_promise_1_also_while_a_request_hangs(folder, clock):
    buffer = open_at(folder, clock, loss_window=10)
    measure(buffer, clock, 5)
    batch = buffer.take_live(5000)
    clock.pass_s(6)
    assert buffer.commit_due(clock.boot_ns())
    buffer.commit()
    assert buffer.snapshot().pending_disk == 5
    assert buffer.take_backlog(5000) is None, "it is in flight still"
    buffer.delivered(batch)  # a late 204 settles the row
    assert buffer.snapshot().pending == 0
    buffer.close()
    assert pending_after(folder) == 0


def test_promise_1_nothing_is_written_while_the_server_answers(folder, clock):
    buffer = open_at(folder, clock)
    before = written(folder)
    for _ in range(100):
        measure(buffer, clock, 5)
        buffer.delivered(buffer.take_live(5000))
        if buffer.commit_due(clock.boot_ns()):
            buffer.commit()
    assert written(folder) == before
    accounted(buffer)
    buffer.close()


def test_with_no_loss_window_a_point_is_due_at_once(folder, clock):
    buffer = open_at(folder, clock, loss_window=0)
    buffer.wake.clear()
    buffer.put([line(clock)])
    assert buffer.wake.is_set()
    assert buffer.commit_due(clock.boot_ns())
    buffer.close()


def test_what_is_kept_comes_back_live_and_later_from_disk(folder, clock):
    buffer = open_at(folder, clock)
    measure(buffer, clock, 3)
    batch = buffer.take_live(2)
    assert batch.count == 2
    buffer.keep(batch)
    assert len(drain(buffer)) == 3
    accounted(buffer)
    buffer.close()


def test_the_newest_points_go_first_then_the_backlog_from_its_oldest(folder, clock):
    buffer = open_at(folder, clock)
    for _ in range(3):
        measure(buffer, clock, 10)
        buffer.commit_all()
    measure(buffer, clock, 1)
    stamps = [int(text.split()[-1]) for text in drain(buffer, 10)]
    assert stamps[0] == max(stamps)
    assert stamps[1:] == sorted(stamps[1:])
    buffer.close()


def test_a_second_answer_to_a_batch_counts_nothing(folder, clock):
    buffer = open_at(folder, clock)
    measure(buffer, clock, 3)
    batch = buffer.take_live(10)
    buffer.delivered(batch)
    buffer.delivered(batch)
    buffer.keep(batch)
    assert buffer.snapshot().counters.points.delivered == 3
    accounted(buffer)
    buffer.close()


def test_promise_8_the_counters_survive_a_restart(folder, clock):
    buffer = open_at(folder, clock)
    measure(buffer, clock, 10)
    buffer.delivered(buffer.take_live(4))
    buffer.close()
    again = open_at(folder, clock)
    counters = again.snapshot().counters
    assert (counters.points.measured, counters.points.delivered, again.snapshot().pending) == (10, 4, 6)
    assert counters.uncounted_s == 0
    accounted(again)
    again.close()


def test_promise_8_the_agents_own_points_are_counted_apart(folder, clock):
    buffer = open_at(folder, clock)
    buffer.put([line(clock), line(clock, measurement="agent")])
    buffer.commit_all()
    batch = buffer.take_backlog(10)
    assert (batch.count, batch.health) == (2, 1)
    buffer.delivered(batch)
    counters = buffer.snapshot().counters
    assert (counters.points.delivered, counters.health.delivered) == (1, 1)
    accounted(buffer)
    buffer.close()


def test_promise_2_a_bad_point_becomes_a_dead_letter_and_the_rest_goes_on(folder, clock):
    buffer = open_at(folder, clock)
    measure(buffer, clock, 10)
    buffer.commit_all()
    batch = buffer.take_backlog(5000)
    lines = batch.lines()
    buffer.replace(
        batch,
        [Part(tuple(lines[:4]), "pending"), Part(tuple(lines[4:6]), "suspect"), Part((lines[6],), "parked")],
        [DeadLetter(lines[7], "parse", "unable to parse", UNIX_NS)],
        delivered=2,
    )
    accounted(buffer)
    buffer.close()
    again = open_at(folder, clock)
    status = again.snapshot()
    assert (status.pending, status.suspect, status.parked, status.dead_letters) == (7, 2, 1, 1)
    first, second = again.take_backlog(5000), again.take_backlog(5000)
    assert (first.lines(), first.suspect) == (lines[:4], False)
    assert (second.lines(), second.suspect) == (lines[4:6], True)
    assert again.take_backlog(5000) is None
    parked = again.take_parked()
    assert (parked.lines(), parked.parked) == ([lines[6]], True)
    accounted(again)
    again.close()


def test_a_replacement_that_loses_points_is_refused(folder, clock):
    buffer = open_at(folder, clock)
    measure(buffer, clock, 2)
    batch = buffer.take_live(10)
    with pytest.raises(ValueError, match="cannot be replaced by 1"):
        buffer.replace(batch, [Part((batch.lines()[0],), "pending")], [])
    buffer.delivered(batch)
    accounted(buffer)
    buffer.close()


def test_promise_5_points_without_a_time_get_it_when_the_clock_is_good(folder):
    clock = HandClock(offset_ns=None)
    buffer = open_at(folder, clock)
    measure(buffer, clock, 3)
    buffer.commit_all()
    measure(buffer, clock, 2)
    assert buffer.take_live(10) is None
    assert buffer.take_backlog(10) is None
    assert buffer.snapshot().undated == 5
    clock.offset_ns = UNIX_NS
    buffer.date_boot(clock.boot_id, UNIX_NS, estimated=False)
    measure(buffer, clock, 1)
    buffer.commit_all()
    stamps = sorted(int(text.split()[-1]) for text in drain(buffer))
    assert stamps == [UNIX_NS + (1000 + n) * SECOND for n in range(6)]
    accounted(buffer)
    buffer.close()


def test_promise_5_the_stamps_of_a_series_rise_strictly_on_one_lane(folder):
    clock = HandClock(offset_ns=None)
    buffer = open_at(folder, clock)
    measure(buffer, clock, 5, step_s=0.0001)
    clock.offset_ns = UNIX_NS
    buffer.date_boot(clock.boot_id, UNIX_NS, estimated=False)
    measure(buffer, clock, 5, step_s=0.0001)
    clock.offset_ns -= 3 * SECOND
    measure(buffer, clock, 5)
    stamps = [int(text.split()[-1]) for text in drain(buffer)]
    assert len(set(stamps)) == 15
    assert stamps == sorted(stamps)
    buffer.close()


def test_points_of_an_earlier_boot_are_dated_by_an_estimate_that_says_so(folder):
    early = HandClock(offset_ns=None)
    buffer = open_at(folder, early)
    measure(buffer, early, 3)
    buffer.close()
    clock = HandClock(boot_id="99999999-2222-4333-8444-555555555555")
    buffer = open_at(folder, clock)
    (boot,) = buffer.undated()
    assert (boot.boot_id, boot.count) == (early.boot_id, 3)
    assert (boot.first_ns, boot.last_ns) == (1000 * SECOND, 1002 * SECOND)
    buffer.date_boot(boot.boot_id, UNIX_NS, estimated=True)
    buffer.commit_all()
    lines = drain(buffer)
    assert all(b"device=pi-1,clock=estimated Temperature=" in text for text in lines)
    assert buffer.undated() == []
    buffer.close()


def test_points_of_an_earlier_boot_can_be_given_up_and_are_counted(folder):
    early = HandClock(offset_ns=None)
    buffer = open_at(folder, early)
    measure(buffer, early, 3)
    buffer.close()
    buffer = open_at(folder, HandClock(boot_id="99999999-2222-4333-8444-555555555555"))
    buffer.discard_boot(early.boot_id, "undated")
    assert buffer.snapshot().counters.points.dropped == {"undated": 3}
    accounted(buffer)
    buffer.close()


def test_a_second_agent_is_told_who_holds_the_folder(folder, clock):
    buffer = open_at(folder, clock)
    with pytest.raises(AlreadyRunning, match=r"in use by process \d+ \(.+\)") as caught:
        open_at(folder, clock)
    assert caught.value.exit_code == 3
    buffer.close()
    open_at(folder, clock).close()


def test_closing_twice_is_fine(folder, clock):
    buffer = open_at(folder, clock)
    buffer.close()
    buffer.close()


def test_promise_1_a_stop_commits_everything_and_is_a_clean_one(folder, clock):
    buffer = open_at(folder, clock)
    measure(buffer, clock, 3)
    batch = buffer.take_live(2)
    measure(buffer, clock, 3)
    buffer.close()
    assert batch.count == 2
    clock.pass_s(5)
    again = open_at(folder, clock)
    assert again.snapshot().pending == 6
    assert again.snapshot().counters.uncounted_s == 0
    again.close()


def test_promise_1_a_stop_while_the_disk_refuses_says_what_is_lost(tmp_path, clock, caplog):
    (tmp_path / "file").write_text("x")
    buffer = open_at(tmp_path / "file" / "buffer", clock)
    measure(buffer, clock, 3)
    buffer.close()
    assert "3 points in memory are lost" in caplog.text


@pytest.mark.parametrize("found_by", ["the committer", "delivery"])
def test_promise_1_a_stop_tries_a_disk_once_more_however_lately_it_refused(folder, clock, found_by):
    buffer = open_at(folder, clock)
    measure(buffer, clock, 3)
    tell = buffer._commits.failed if found_by == "the committer" else buffer._report
    tell(DiskError("io", "unplugged"))
    buffer.close()
    assert pending_after(folder) == 3


def test_promise_1_a_stop_tries_a_disk_that_was_never_open(tmp_path, clock):
    folder = tmp_path / "file" / "buffer"
    folder.parent.write_text("x")
    buffer = open_at(folder, clock)
    measure(buffer, clock, 3)
    assert not buffer.commit_all()
    folder.parent.unlink()
    buffer.close()
    assert pending_after(folder) == 3


def test_promise_1_a_stop_that_finds_its_database_damaged_begins_a_new_one(folder, clock, monkeypatch):
    buffer = open_at(folder, clock)
    measure(buffer, clock, 20)
    assert buffer.commit_all()
    measure(buffer, clock, 3)
    put, failures = store_of(buffer).put, [DiskError("damaged", "malformed")]

    def putting(*row):
        if failures:
            raise failures.pop()
        put(*row)

    monkeypatch.setattr(store_of(buffer), "put", putting)
    buffer.close()
    assert pending_after(folder) == 23


def test_what_was_refused_is_listed_purged_and_sent_again_beside_the_agent(folder, clock):
    buffer = open_at(folder, clock)
    measure(buffer, clock, 6)
    batch = buffer.take_live(10)
    lines = batch.lines()
    buffer.replace(batch, [], [DeadLetter(text, "parse", f"no {n}", UNIX_NS + n) for n, text in enumerate(lines)])
    assert buffer.commit_all()
    with OfflineBuffer(folder) as beside:
        letters = list(beside.letters())
        assert [(letter.number, letter.letter.line) for letter in letters] == [
            (f"1.{n}", text) for n, text in enumerate(lines, 1)
        ]
        assert beside.remove(lambda item: item.number in {"1.1", "1.6"}, replay=False) == 2
        assert beside.remove(lambda item: item.letter.line == lines[2], replay=True) == 1
        assert [item.letter.line for item in beside.letters()] == [lines[1], lines[3], lines[4]]
    assert buffer.notice()
    measure(buffer, clock, 1)
    assert buffer.commit_all()
    sent = drain(buffer)
    assert lines[2] in sent
    assert len(sent) == 2
    assert buffer.snapshot().counters.points.rejected == 5
    accounted(buffer)
    buffer.close()
