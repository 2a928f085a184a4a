"""The committer's rounds on a clock that is moved by hand, and what happens between two of its steps."""

import contextlib
import dataclasses
import errno

import diskcache
import pytest

from agent.buffer import dead_letters, pins
from agent.buffer.batch import BufferStatus, DeadLetter
from agent.buffer.committer import NOTICE_S, Committer
from agent.buffer.offline import OfflineBuffer
from agent.buffer.rows import DamagedRow, Kind, compress, pack
from agent.buffer.tail import Stamps
from agent.config.settings import BufferSettings
from tests.buffers import SECOND, UNIX_NS, accounted, drain, line, measure, open_at, store_of

MS = 1_000_000
OLD_LINE = b"environment,clientId=x Temperature=1 %d" % UNIX_NS


def test_a_buffer_that_is_not_open_yet_has_nothing_and_says_so(tmp_path, clock):
    buffer = open_at(tmp_path / "buffer", clock, wait=False)
    known = dataclasses.asdict(buffer.snapshot())
    assert (known.pop("problem"), known.pop("disk_ok")) == ("not opened yet", False)
    counters = known.pop("counters")
    assert not any(known.values())
    assert not any((*counters["points"].values(), *counters["health"].values(), counters["uncounted_s"]))
    assert not any((*list(dataclasses.asdict(BufferStatus()).values())[:-1], BufferStatus().pending))
    buffer.close()


def test_a_round_opens_writes_what_is_due_and_says_when_the_next_is(tmp_path, clock):
    buffer = open_at(tmp_path / "buffer", clock, wait=False, loss_window=2.9)
    committer = Committer(buffer)
    assert committer.step() == NOTICE_S, "nothing waits, and the counters are saved in a quarter of an hour"
    assert buffer.snapshot().disk_ok
    measure(buffer, clock, 1)
    wait_s = committer.step()
    assert 0.4 <= wait_s < 1.9, "before the window is over, by what a commit took"
    assert wait_s == (buffer.next_deadline() - clock.boot_ns()) / 1e9
    assert buffer.snapshot().pending_memory == 1
    clock.pass_s(wait_s)
    assert committer.step() == NOTICE_S
    assert committer.alive_boot_ns == clock.boot_ns()
    assert (buffer.snapshot().pending_memory, buffer.snapshot().pending_disk) == (0, 1)
    committer.finish()
    buffer.close()


def test_rounds_look_every_two_seconds_for_what_another_process_did(buffer, clock):
    committer = Committer(buffer)
    committer.step()
    with OfflineBuffer(buffer.folder) as beside:
        beside.add([pack([OLD_LINE], Kind.PENDING)])
    clock.pass_s(NOTICE_S - 0.001)
    assert committer.step() == NOTICE_S
    assert buffer.snapshot().pending == 0
    clock.pass_s(0.001)
    committer.step()
    assert buffer.snapshot().pending == 1


def test_what_was_changed_by_another_process_is_read_once(buffer, clock):
    measure(buffer, clock, 1)
    assert buffer.commit_all()
    assert not buffer.notice()
    with OfflineBuffer(buffer.folder) as beside:
        beside.add([pack([OLD_LINE], Kind.PENDING)])
    assert buffer.notice()
    assert not buffer.notice()
    assert len(drain(buffer)) == 2


def test_rounds_follow_each_other_at_once_while_damaged_files_are_read(tmp_path, clock):
    buffer = open_at(tmp_path / "buffer", clock)
    measure(buffer, clock, 3)
    buffer.close()
    path = tmp_path / "buffer" / "cache.db"
    path.write_bytes(bytes(100) + path.read_bytes()[100:])
    buffer = open_at(tmp_path / "buffer", clock, wait=False)
    committer, waits = Committer(buffer), []
    while len(waits) < 50:
        waits.append(committer.step())
        if waits[-1] == NOTICE_S and buffer.snapshot().pending == 3:
            break
    assert waits.count(0.005) == len(waits) - 2
    assert len(drain(buffer)) == 3
    buffer.close()


def test_the_committer_is_woken_by_the_first_point_and_the_first_row_that_is_done_and_not_by_each(
    buffer, clock, monkeypatch
):
    def woken():
        found = buffer.wake.is_set()
        buffer.wake.clear()
        return found

    woken()
    measure(buffer, clock, 1)
    assert woken()
    measure(buffer, clock, 1)
    assert not woken()
    for _ in range(6):
        measure(buffer, clock, 1)
        assert buffer.commit_all()
    monkeypatch.setattr(pins.Gone, "MANY", 4)
    woken()
    news = []
    for _ in range(5):
        buffer.delivered(buffer.take_backlog(1))
        news.append(woken())
    assert news == [True, False, False, True, True]
    assert buffer.commit_due(clock.boot_ns())


def test_what_is_delivered_while_it_is_written_is_not_delivered_again(buffer, clock, monkeypatch):
    measure(buffer, clock, 5)
    batch = buffer.take_live(5)
    disk = store_of(buffer)
    put = disk.put

    def answered(*row):
        buffer.delivered(batch)
        return put(*row)

    monkeypatch.setattr(disk, "put", answered)
    assert buffer.commit_all()
    monkeypatch.undo()
    assert buffer.snapshot().pending == 0
    assert drain(buffer) == []
    assert buffer.commit_all()
    buffer.close()
    again = open_at(buffer.folder, clock)
    assert again.snapshot().pending == 0
    accounted(again)
    again.close()


def test_a_batch_that_is_written_while_it_is_in_flight_is_given_out_once(buffer, clock):
    measure(buffer, clock, 5)
    batch = buffer.take_live(5)
    assert buffer.commit_all()
    assert buffer.take_backlog(5) is None
    assert (buffer.snapshot().pending_disk, buffer.snapshot().pending_memory) == (5, 0)
    buffer.keep(batch)
    assert buffer.take_backlog(5).lines() == batch.lines()


def test_what_is_written_at_once_goes_in_rows_of_5000_and_what_is_in_flight_in_one(buffer, clock):
    buffer.put([line(clock, float(n)) for n in range(5001)])
    batch = buffer.take_live(5001)
    assert buffer.commit_all()
    assert buffer.snapshot().rows == 1
    buffer.delivered(batch)
    buffer.put([line(clock, float(n)) for n in range(10_001)])
    assert buffer.commit_all()
    with OfflineBuffer(buffer.folder, write=False) as beside:
        assert [header.count for header in beside.headers()] == [5000, 5000, 1]


def test_a_new_window_counts_for_what_is_measured_from_then_on(buffer, clock):
    buffer.configure(BufferSettings(loss_window=60))
    assert buffer.wake.is_set()
    measure(buffer, clock, 1, step_s=0)
    assert 55 <= (buffer.next_deadline() - clock.boot_ns()) / SECOND <= 60


def test_letters_are_kept_in_rows_and_their_messages_within_bounds(buffer, clock):
    measure(buffer, clock, 1)
    batch = buffer.take_live(5)
    buffer.replace(batch, [], [DeadLetter(batch.lines()[0], "parse", "x" * 600, UNIX_NS)])
    assert buffer.snapshot().dead_letters == 1
    assert buffer.commit_due(clock.boot_ns()), "they are written at once"
    assert buffer.commit()
    assert buffer.snapshot().dead_letters == 1
    with OfflineBuffer(buffer.folder, write=False) as beside:
        assert [letter.letter for letter in beside.letters()] == [
            DeadLetter(batch.lines()[0], "parse", "x" * 500, UNIX_NS)
        ]


@pytest.mark.parametrize(
    "text",
    [
        b"{}",
        b"5",
        b"[]",
        b"no document",
        b"[" * 100_000,
        b'{"line":"m a=1 5","reason":"parse","message":"no","time_ns":"soon"}',
        b'{"line":"m a=1 5","reason":"parse","message":"no","time_ns":null}',
        b'{"line":"m a=1 5","reason":"parse","message":"no"}',
    ],
)
def test_letters_that_are_none_are_damage(text):
    with pytest.raises(DamagedRow):
        dead_letters.letters_of(compress(text + b"\n"))


def test_letters_go_in_rows_of_5000_as_they_were(clock):
    letters = [DeadLetter(b"%s a=%d 5" % ((b"m", b"agent")[n % 2], n), "parse", "no", UNIX_NS - n) for n in range(5001)]
    letters[7] = DeadLetter(b"m \xff a=1 5", "retention", "über", 1)
    rows = dead_letters.pack(letters)
    found = [(row.header.kind, row.header.count, row.header.health, row.header.last_ns) for row in rows]
    assert found == [(Kind.DEAD, 5000, 2499, UNIX_NS), (Kind.DEAD, 1, 0, UNIX_NS - 5000)]
    assert [row.header.first_ns for row in rows] == [1, UNIX_NS - 5000]
    back = [letter for row in rows for letter in dead_letters.unpack(row.header.encode(row.value, 5, 1), row.value, 5)]
    assert back == letters
    assert dead_letters.pack([]) == []


def test_a_row_that_is_read_as_another_is_damage_of_the_database(buffer, clock, monkeypatch):
    for _ in range(2):
        measure(buffer, clock, 1)
        assert buffer.commit_all()
    disk = store_of(buffer)
    read = disk.read
    monkeypatch.setattr(disk, "read", lambda key: read(3 - key))
    assert buffer.take_backlog(5) is None
    assert buffer.commit_due(clock.boot_ns())
    buffer.commit_all()
    assert buffer.snapshot().damaged_sets == 1 or "row 2 was found as row 1" in buffer.snapshot().problem


@pytest.mark.parametrize("kept", [None, 0, 1, 2])
def test_of_commits_that_fail_none_leaves_a_point_twice_though_one_is_on_the_disk(buffer, clock, monkeypatch, kept):
    failed = []
    real = diskcache.Cache.transact

    @contextlib.contextmanager
    def failing(cache, retry):
        with contextlib.suppress(OSError), real(cache, retry):
            yield
            if len(failed) != kept:
                raise OSError
        failed.append(retry)
        raise OSError(errno.EIO, "a sync that failed")

    monkeypatch.setattr(diskcache.Cache, "transact", failing)
    delivered = []
    for _ in range(3):
        measure(buffer, clock, 2)
        batch = buffer.take_live(1)
        delivered += batch.lines()
        buffer.delivered(batch)
        assert not buffer.commit_all()
        clock.pass_s(40)
    assert len(failed) == 3
    monkeypatch.undo()
    assert buffer.commit_all(), buffer.snapshot().problem
    assert buffer.snapshot().pending == 3
    delivered += drain(buffer)
    assert len(delivered) == len(set(delivered)) == 6
    accounted(buffer)
    buffer.close()
    again = open_at(buffer.folder, clock)
    assert (again.snapshot().pending, again.snapshot().counters.points.delivered) == (0, 6)
    again.close()


# Stamps


def test_stamps_of_a_series_rise_on_their_lane_and_no_other():
    stamps = Stamps()
    assert [stamps.dated(b"a", at) for at in (7 * MS, 7 * MS, 6 * MS, 20 * MS)] == [7 * MS, 8 * MS, 9 * MS, 20 * MS]
    assert stamps.dated(b"b", 7 * MS) == 7 * MS
    assert stamps.dated(b"a", 20 * MS + 1) == 20 * MS + 1, "of another lane they are never the same"
    assert stamps.latest_ns == 20 * MS + 1
    assert stamps.dated(b"b", 8 * MS) == 8 * MS
    assert stamps.latest_ns == 20 * MS + 1


def test_nothing_is_put_after_a_stamp_of_a_clock_that_was_a_minute_ahead():
    for ahead_ns, given in ((60 * SECOND - MS, 61 * SECOND), (60 * SECOND, SECOND)):
        stamps = Stamps()
        stamps.dated(b"a", SECOND + ahead_ns)
        assert stamps.dated(b"a", SECOND) == given


def test_after_a_restart_no_series_is_given_what_was_given_before():
    stamps = Stamps()
    stamps.floor_ns = 5 * MS
    assert [stamps.dated(series, 5 * MS) for series in (b"a", b"b", b"a")] == [6 * MS, 6 * MS, 7 * MS]


def test_stamps_without_a_time_rise_in_whole_milliseconds_and_what_is_dated_after_them_is_later():
    stamps = Stamps()
    assert [stamps.undated(b"a", at) for at in (0, 1, 499_999, 2 * MS + 500_000, 2 * MS)] == [
        0,
        MS,
        2 * MS,
        3 * MS,
        4 * MS,
    ]
    assert stamps.undated(b"b", 9 * MS) == 9 * MS
    stamps.heal(100 * MS)
    assert stamps.latest_ns == 109 * MS
    assert [stamps.dated(series, 103 * MS) for series in (b"a", b"b", b"c")] == [105 * MS, 110 * MS, 103 * MS]
    assert stamps.undated(b"a", 0) == 0, "they begin anew"


def test_what_was_dated_later_than_what_gets_its_time_now_stays_the_last():
    stamps = Stamps()
    stamps.dated(b"a", 200 * MS)
    stamps.undated(b"a", 5 * MS)
    stamps.heal(100 * MS)
    assert stamps.dated(b"a", 110 * MS) == 201 * MS
    other = Stamps()
    other.dated(b"a", 200 * MS + 1)
    other.undated(b"a", 5 * MS)
    other.heal(100 * MS)
    assert other.dated(b"a", 105 * MS) == 106 * MS
