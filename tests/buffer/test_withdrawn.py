"""Points whose time turned out to be wrong while they were given out."""

import contextlib
import sqlite3
from shutil import copytree

import pytest

from agent.buffer import commit
from agent.buffer.batch import Part, UndatedBoot
from agent.buffer.database import DATABASE
from agent.buffer.disk_error import DiskError
from agent.buffer.offline import OfflineBuffer, look
from agent.buffer.rows import Kind, pack
from agent.buffer.withdrawn import Spans
from agent.clock.timeline import Stretch, Wrong
from agent.points.schema import Line
from tests.buffers import (
    BOOT,
    OTHER_BOOT,
    SECOND,
    UNIX_NS,
    HandClock,
    accounted,
    drain,
    measure,
    open_at,
    pending_after,
    store,
    store_of,
)

AHEAD_NS = 7200 * SECOND


def corrected(buffer, clock):
    """The clock was two hours ahead; it goes on, right, on another lane."""
    offset_ns = UNIX_NS + AHEAD_NS
    clock.offset_ns = UNIX_NS + 1000
    buffer.withdraw(BOOT, [Stretch(offset_ns, offset_ns + clock.now_ns + SECOND, offset_ns)])
    buffer.date_boot(BOOT, clock.offset_ns, estimated=False)


@pytest.mark.parametrize("committed", ["before", "in flight", "after", "never"])
def test_a_batch_that_was_refused_after_its_time_was_found_wrong_is_dated_anew(tmp_path, committed):
    clock = HandClock(offset_ns=UNIX_NS + AHEAD_NS)
    buffer = open_at(tmp_path, clock)
    measure(buffer, clock, 10)
    if committed == "before":
        buffer.commit_all()
    batch = buffer.take_live(100) or buffer.take_backlog(100)
    corrected(buffer, clock)
    if committed == "in flight":
        buffer.commit_all()
    measure(buffer, clock, 1)
    buffer.keep(batch)
    if committed == "after":
        buffer.commit_all()
    lines = drain(buffer)
    for _ in range(3):
        buffer.commit_all()
    lines += drain(buffer)
    stamps = [int(line.rpartition(b" ")[2]) for line in lines]
    assert len(stamps) == 11
    assert max(stamps) < UNIX_NS + clock.now_ns + SECOND
    accounted(buffer)


def test_a_batch_that_the_server_may_have_keeps_its_time(tmp_path):
    clock = HandClock(offset_ns=UNIX_NS + AHEAD_NS)
    buffer = open_at(tmp_path, clock)
    measure(buffer, clock, 10)
    batch = buffer.take_live(100)
    corrected(buffer, clock)
    buffer.keep(batch, sent=True)
    buffer.commit_all()
    assert drain(buffer) == batch.lines()
    accounted(buffer)


@pytest.mark.parametrize("known", ["from the batch", "with its parts"])
def test_parts_of_what_the_server_may_have_keep_their_time_too(tmp_path, known):
    clock = HandClock(offset_ns=UNIX_NS + AHEAD_NS)
    buffer = open_at(tmp_path, clock)
    measure(buffer, clock, 10)
    buffer.commit_all()
    if known == "from the batch":
        buffer.keep(buffer.take_backlog(100), sent=True)
    batch = buffer.take_backlog(100)
    lines = batch.lines()
    buffer.replace(batch, [Part(tuple(lines[2:]), "pending", sent=known == "with its parts")], (), 2)
    buffer.commit_all()
    corrected(buffer, clock)
    assert drain(buffer) == lines[2:]
    accounted(buffer)


@pytest.mark.parametrize("when", ["before the parts", "with the parts in memory", "with the parts on disk"])
def test_parts_of_a_batch_of_which_the_time_is_found_wrong_are_dated_anew(tmp_path, when):
    clock = HandClock(offset_ns=UNIX_NS + AHEAD_NS)
    buffer = open_at(tmp_path, clock)
    measure(buffer, clock, 10)
    buffer.commit_all()
    batch = buffer.take_backlog(100)
    if when == "before the parts":
        corrected(buffer, clock)
    buffer.replace(batch, [Part(tuple(batch.lines()[2:]), "pending")], (), 2)
    if when == "with the parts on disk":
        buffer.commit_all()
    if when != "before the parts":
        corrected(buffer, clock)
    first = buffer.take_live(100)
    lines = first.lines() if first else []
    if first:
        buffer.delivered(first)
    for _ in range(3):
        lines += drain(buffer)
        buffer.commit_all()
    lines += drain(buffer)
    stamps = [int(line.rpartition(b" ")[2]) for line in lines]
    assert len(stamps) == 8
    assert max(stamps) < UNIX_NS + clock.now_ns + SECOND
    accounted(buffer)


@pytest.mark.parametrize("back", ["kept", "replaced"])
def test_what_has_its_right_time_keeps_it_while_other_rows_of_its_boot_wait_for_theirs(tmp_path, monkeypatch, back):
    """Also where both times are within the stretch that was wrong, on the lane on which estimates are."""
    clock = HandClock(offset_ns=UNIX_NS)
    buffer = open_at(tmp_path, clock)
    stamps = []
    for _ in range(2):
        measure(buffer, clock, 10)
        buffer.commit_all()
    monkeypatch.setattr(commit, "DATING_S", -1.0)
    buffer.withdraw(BOOT, [Stretch(UNIX_NS, UNIX_NS + clock.now_ns + SECOND, UNIX_NS)])
    buffer.date_boot(BOOT, UNIX_NS - 2 * SECOND, estimated=True)
    buffer.commit_all()
    batch = buffer.take_backlog(100)
    if back == "kept":
        buffer.keep(batch)
    else:
        buffer.replace(batch, [Part(tuple(batch.lines()), "pending")], ())
    for _ in range(4):
        buffer.commit_all()
        lines = drain(buffer)
        assert all(line.count(b"clock=estimated") == 1 for line in lines)
        stamps += [int(line.rpartition(b" ")[2]) // SECOND for line in lines]
    last = (UNIX_NS + clock.now_ns) // SECOND
    assert sorted(stamps) == list(range(last - 22, last - 2))
    accounted(buffer)


def rights(lines, clock):
    assert len(lines) == 10
    return all(int(line.rpartition(b" ")[2]) < UNIX_NS + clock.now_ns + SECOND for line in lines)


def test_rows_that_are_being_dated_when_that_time_is_found_wrong_are_dated_anew(tmp_path, monkeypatch):
    clock = HandClock(offset_ns=None)
    buffer = open_at(tmp_path, clock)
    measure(buffer, clock, 10)
    buffer.commit_all()
    read, once = buffer._commits._content, [1]

    def content(run):
        found = read(run)
        if once:
            once.pop()
            corrected(buffer, clock)
        return found

    monkeypatch.setattr(buffer._commits, "_content", content)
    buffer.date_boot(BOOT, UNIX_NS + AHEAD_NS, estimated=False)
    for _ in range(3):
        buffer.commit_all()
    assert not once
    assert rights(drain(buffer), clock)
    accounted(buffer)


def test_points_whose_writing_fails_when_their_time_is_found_wrong_get_another_one(tmp_path, monkeypatch):
    clock = HandClock(offset_ns=UNIX_NS + AHEAD_NS)
    buffer = open_at(tmp_path, clock)
    measure(buffer, clock, 10)

    def putting(*_):
        corrected(buffer, clock)
        raise DiskError("full", "no room")

    monkeypatch.setattr(store_of(buffer), "put", putting)
    assert not buffer.commit_all()
    monkeypatch.undo()
    clock.pass_s(31)
    for _ in range(3):
        assert buffer.commit_all()
    assert rights(drain(buffer), clock)
    accounted(buffer)


def test_points_whose_writing_fails_when_their_time_becomes_known_have_it_at_once(tmp_path, monkeypatch):
    clock = HandClock(offset_ns=None)
    buffer = open_at(tmp_path, clock)
    measure(buffer, clock, 10)

    def putting(*_):
        clock.offset_ns = UNIX_NS
        buffer.date_boot(BOOT, UNIX_NS, estimated=False)
        raise DiskError("full", "no room")

    monkeypatch.setattr(store_of(buffer), "put", putting)
    assert not buffer.commit_all()
    monkeypatch.undo()
    batch = buffer.take_live(100)
    assert batch.count == 10
    assert rights(batch.lines(), clock)
    buffer.close()


def test_a_batch_whose_time_was_found_wrong_has_another_as_soon_as_it_is_kept(tmp_path):
    clock = HandClock(offset_ns=UNIX_NS + AHEAD_NS)
    buffer = open_at(tmp_path, clock)
    measure(buffer, clock, 10)
    batch = buffer.take_live(100)
    corrected(buffer, clock)
    buffer.keep(batch)
    again = buffer.take_live(100)
    assert again.count == 10
    assert rights(again.lines(), clock)
    buffer.close()


def test_points_that_are_being_written_when_their_time_is_found_wrong_are_not_given_out(tmp_path, monkeypatch):
    clock = HandClock(offset_ns=UNIX_NS + AHEAD_NS)
    buffer = open_at(tmp_path, clock)
    measure(buffer, clock, 10)
    put, once = store_of(buffer).put, [1]

    def putting(*row):
        if once:
            once.pop()
            corrected(buffer, clock)
        return put(*row)

    monkeypatch.setattr(store_of(buffer), "put", putting)
    with monkeypatch.context() as patched:
        patched.setattr(buffer._commits, "_date_rows", lambda: None)
        assert buffer.commit_all()
    assert not once
    assert buffer.snapshot().pending_disk == 10
    assert buffer.take_backlog(100) is None
    for _ in range(3):
        buffer.commit_all()
    assert rights(drain(buffer), clock)
    accounted(buffer)


def test_rows_that_are_being_read_when_their_time_is_found_wrong_are_not_given_out(tmp_path, monkeypatch):
    clock = HandClock(offset_ns=UNIX_NS + AHEAD_NS)
    buffer = open_at(tmp_path, clock)
    measure(buffer, clock, 10)
    buffer.commit_all()
    read, once = store_of(buffer).read, [1]

    def reading(key):
        if once:
            once.pop()
            corrected(buffer, clock)
        return read(key)

    monkeypatch.setattr(store_of(buffer), "read", reading)
    assert buffer.take_backlog(100) is None
    assert not once
    for _ in range(3):
        buffer.commit_all()
    assert rights(drain(buffer), clock)
    accounted(buffer)


def test_what_was_withdrawn_is_on_disk_at_once_also_while_no_time_is_known(tmp_path):
    clock = HandClock(offset_ns=UNIX_NS + AHEAD_NS)
    buffer = open_at(tmp_path / "a", clock)
    measure(buffer, clock, 10)
    buffer.commit_all()
    offset_ns = clock.offset_ns
    buffer.withdraw(BOOT, [Stretch(offset_ns, offset_ns + clock.now_ns + SECOND, offset_ns)])
    assert buffer.commit_due(clock.now_ns)
    buffer.commit()
    assert not buffer.commit_due(clock.now_ns)
    copytree(tmp_path / "a", tmp_path / "b")  # as after a power cut
    clock.offset_ns = UNIX_NS + 1000
    after = open_at(tmp_path / "b", clock)
    assert after.take_backlog(100) is None
    after.date_boot(BOOT, clock.offset_ns, estimated=False)
    for _ in range(3):
        after.commit_all()
    assert rights(drain(after), clock)
    accounted(after)


def test_what_is_found_wrong_before_the_disk_is_open_is_not_dated_by_what_the_disk_remembers(tmp_path):
    clock = HandClock(offset_ns=None)
    buffer = open_at(tmp_path, clock)
    measure(buffer, clock, 2)
    offset_ns = clock.offset_ns = UNIX_NS + AHEAD_NS
    buffer.date_boot(BOOT, offset_ns, estimated=False)
    measure(buffer, clock, 8)
    buffer.close()
    buffer = open_at(tmp_path, clock, wait=False)
    clock.offset_ns = None
    buffer.withdraw(BOOT, [Stretch(offset_ns, offset_ns + clock.now_ns + SECOND, offset_ns)])
    buffer.open()
    for _ in range(3):
        buffer.commit_all()
    assert not drain(buffer)
    buffer.date_boot(BOOT, UNIX_NS + 1000, estimated=False)
    for _ in range(3):
        buffer.commit_all()
    assert rights(drain(buffer), clock)
    accounted(buffer)


def test_a_second_withdrawal_before_the_disk_is_open_adds_to_the_first(tmp_path):
    offset_ns = UNIX_NS + AHEAD_NS
    clock = HandClock(offset_ns=offset_ns)
    buffer = open_at(tmp_path, clock)
    measure(buffer, clock, 10)
    buffer.commit_all()
    buffer.withdraw(BOOT, [Stretch(offset_ns, offset_ns + clock.now_ns + SECOND, offset_ns)])
    clock.offset_ns = None
    buffer.close()
    buffer = open_at(tmp_path, clock, wait=False)
    other_ns = offset_ns + 1000
    buffer.withdraw(BOOT, [Stretch(other_ns, other_ns + clock.now_ns + SECOND, other_ns)])
    buffer.open()
    buffer.date_boot(BOOT, UNIX_NS + 2000, estimated=False)
    for _ in range(3):
        buffer.commit_all()
    assert rights(drain(buffer), clock)
    accounted(buffer)


@pytest.mark.parametrize("when", ["at once", "after a restart", "before the agent noticed", "thinned"])
def test_points_that_were_imported_keep_the_time_that_they_came_with(tmp_path, when):
    clock = HandClock(offset_ns=UNIX_NS + AHEAD_NS)
    buffer = open_at(tmp_path, clock)
    measure(buffer, clock, 3)
    buffer.commit_all()
    theirs = Line(b"environment,clientId=other Temperature=1", 0, UNIX_NS + AHEAD_NS + clock.now_ns - SECOND)
    if when == "before the agent noticed":
        with OfflineBuffer(buffer.folder) as beside:
            beside.add([pack([theirs.encode()], Kind.PENDING)])
        measure(buffer, clock, 1)
        buffer.commit_all()
    else:
        store(buffer, [theirs])
    if when == "after a restart":
        buffer.close()
        buffer = open_at(tmp_path, clock)
    if when == "thinned":
        buffer._commits._thin()
    corrected(buffer, clock)
    for _ in range(3):
        buffer.commit_all()
    lines = drain(buffer)
    assert theirs.encode() in lines
    accounted(buffer)


def told(spans, first_s, last_s):
    return spans.within([Stretch(first_s * SECOND, last_s * SECOND, 0)])


def test_what_was_delivered_with_a_wrong_time_is_told_once_with_its_first_and_last():
    spans = Spans()
    for first_s, last_s in ((1000, 1010), (1011, 1020), (5000, 5010)):
        spans.add(first_s * SECOND, last_s * SECOND, 10)
    assert told(spans, 2000, 4000) == Wrong()
    assert told(spans, 1020, 1030) == Wrong(0, 20, 1000 * SECOND, 1020 * SECOND)
    assert told(spans, 0, 4999) == Wrong()
    assert told(spans, 0, 5000) == Wrong(0, 10, 5000 * SECOND, 5010 * SECOND)
    assert told(spans, 0, 10**6) == Wrong()


@pytest.mark.parametrize(("gap_s", "joined"), [(60, True), (61, False), (-81, False), (-80, True)])
def test_deliveries_within_a_minute_of_each_other_are_one_stretch(gap_s, joined):
    """Before as well as after: a backlog may go back in time."""
    spans = Spans()
    spans.add(1000 * SECOND, 1010 * SECOND, 5)
    spans.add((1010 + gap_s) * SECOND, (1020 + gap_s) * SECOND, 7)
    assert told(spans, 1000, 1010).delivered == (12 if joined else 5)


def test_of_stretches_far_apart_the_latest_thousand_are_remembered():
    spans = Spans()
    for number in range(1200):
        spans.add(number * 1000 * SECOND, number * 1000 * SECOND, 1)
    assert told(spans, 0, 10**9) == Wrong(0, 1000, 200_000 * SECOND, 1_199_000 * SECOND)


def test_a_withdrawal_tells_what_waits_and_what_was_delivered_from_when_to_when(tmp_path):
    clock = HandClock()
    buffer = open_at(tmp_path, clock)
    measure(buffer, clock, 3)
    buffer.delivered(buffer.take_live(2))
    buffer.delivered(buffer.take_live(2))
    measure(buffer, clock, 2)
    assert buffer.commit_all()
    buffer.delivered(buffer.take_backlog(100))
    measure(buffer, clock, 4)
    flown = buffer.take_live(1)
    assert buffer.commit_all()
    measure(buffer, clock, 5)
    buffer.delivered(flown)
    stretch = Stretch(UNIX_NS, UNIX_NS + clock.now_ns, UNIX_NS)
    found = buffer.withdraw(BOOT, [stretch])
    first = UNIX_NS + 1000 * SECOND
    assert found == Wrong(3 + 5, 6, first, first + 5 * SECOND)
    assert buffer.withdraw(BOOT, [stretch]) == Wrong(3, 0)
    assert buffer.snapshot().pending == 8
    accounted(buffer)
    buffer.close()


@pytest.mark.parametrize("when", ["in memory", "on disk", "sent"])
def test_what_the_server_may_have_is_not_told_as_waiting_for_another_time(tmp_path, when):
    clock = HandClock()
    buffer = open_at(tmp_path, clock)
    measure(buffer, clock, 3)
    if when != "in memory":
        assert buffer.commit_all()
    batch = buffer.take_live(100) or buffer.take_backlog(100)
    if when == "sent":
        buffer.keep(batch, sent=True)
    found = all_wrong(buffer, clock)
    assert found == Wrong()
    if when != "sent":
        buffer.keep(batch)
        assert buffer.take_backlog(100) is None
        assert buffer.take_live(100) is None
    else:
        assert buffer.take_backlog(100).lines() == batch.lines()
    buffer.close()


def all_wrong(buffer, clock):
    """Whatever was dated so far was dated wrongly."""
    return buffer.withdraw(BOOT, [Stretch(UNIX_NS, UNIX_NS + clock.now_ns, UNIX_NS)])


def damaged_meanwhile(folder, column):
    """Three points in a row that waits for another time, of which this column is overwritten; the time is known now."""
    clock = HandClock()
    buffer = open_at(folder, clock)
    measure(buffer, clock, 3)
    assert buffer.commit_all()
    all_wrong(buffer, clock)
    with contextlib.closing(sqlite3.connect(folder / DATABASE, isolation_level=None)) as beside:
        beside.execute(f"UPDATE Cache SET {column} = x'00' WHERE key = 1")
    buffer.date_boot(BOOT, UNIX_NS + 1000, estimated=False)
    return buffer, clock


def wrongly_dated(folder):
    """As another boot finds it: of three points of BOOT two had a wrong time, two later ones have a right one."""
    clock = HandClock()
    buffer = open_at(folder, clock)
    measure(buffer, clock, 3)
    assert buffer.commit_all()
    buffer.withdraw(BOOT, [Stretch(UNIX_NS + 1001 * SECOND, UNIX_NS + clock.now_ns, UNIX_NS)])
    clock.offset_ns += 1000 * SECOND
    measure(buffer, clock, 2)
    buffer.close()
    clock = HandClock(boot_id=OTHER_BOOT)
    return open_at(folder, clock), clock


def test_points_of_a_wrong_time_that_are_given_up_are_dropped_and_no_others(tmp_path):
    buffer, clock = wrongly_dated(tmp_path)
    (waiting,) = buffer.undated()
    buffer.wake.clear()
    buffer.discard_boot(BOOT, "no_time")
    assert buffer.wake.is_set()
    buffer.wake.clear()
    buffer.discard_boot(BOOT, "no_time")
    assert not buffer.wake.is_set()
    assert buffer.undated() == []
    assert buffer.commit_due(clock.boot_ns())
    assert buffer.commit()
    assert buffer.snapshot().counters.points.dropped == {"no_time": 2}
    assert waiting.boot_id == BOOT
    assert [int(text.split()[-1]) // SECOND - UNIX_NS // SECOND for text in drain(buffer)] == [1000, 2003, 2004]
    accounted(buffer)
    assert buffer.commit_all()
    assert buffer._queue.saved.withdrawn == {}
    assert not buffer.commit_due(clock.boot_ns())
    buffer.close()


def test_a_row_whose_points_all_had_a_wrong_time_goes_when_they_are_given_up(tmp_path):
    clock = HandClock()
    buffer = open_at(tmp_path, clock)
    measure(buffer, clock, 3)
    assert buffer.commit_all()
    all_wrong(buffer, clock)
    assert buffer.commit_all()
    buffer.close()
    buffer = open_at(tmp_path, HandClock(boot_id=OTHER_BOOT))
    buffer.discard_boot(BOOT, "no_time")
    for _ in range(2):
        assert buffer.commit_all()
    status = buffer.snapshot()
    assert (status.pending, status.rows, status.counters.points.dropped) == (0, 0, {"no_time": 3})
    accounted(buffer)
    buffer.close()
    assert pending_after(tmp_path) == 0


def test_a_damaged_row_of_a_wrong_time_keeps_the_committer_from_nothing_else(tmp_path):
    buffer, clock = damaged_meanwhile(tmp_path, "value")
    for _ in range(3):
        assert buffer.commit_all()
    clock.pass_s(2)
    assert buffer.commit_all()
    assert buffer.snapshot().counters.points.dropped == {"damaged": 3}
    assert not buffer.commit_due(clock.boot_ns())
    buffer.close()


def test_what_is_read_of_a_damaged_row_of_a_wrong_time_is_never_given_out_with_it(tmp_path):
    buffer, _ = damaged_meanwhile(tmp_path, "tag")
    stamps = []
    for _ in range(4):
        stamps += [int(line.rpartition(b" ")[2]) % 10**6 for line in drain(buffer)]
        assert buffer.commit_all()
    assert stamps == [1000] * 3
    accounted(buffer)
    buffer.close()


def test_a_boot_that_was_given_up_is_dated_if_its_time_is_told_before_that_is_written(tmp_path):
    buffer, _ = wrongly_dated(tmp_path)
    buffer.discard_boot(BOOT, "no_time")
    buffer.date_boot(BOOT, UNIX_NS, estimated=True)
    for _ in range(2):
        assert buffer.commit_all()
    assert len(drain(buffer)) == 5
    assert buffer.snapshot().counters.points.dropped == {}
    buffer.close()


def test_a_boot_that_waits_for_another_time_is_seen_beside_the_agent_as_by_it(tmp_path):
    clock = HandClock(offset_ns=None)
    buffer = open_at(tmp_path, clock)
    measure(buffer, clock, 2)
    assert buffer.commit_all()
    clock.offset_ns = UNIX_NS
    measure(buffer, clock, 3)
    assert buffer.commit_all()
    all_wrong(buffer, clock)
    assert buffer.commit_all()
    found = UndatedBoot(BOOT, 5, 1000 * SECOND, 1004 * SECOND, 1)
    assert buffer.undated() == [found]
    assert look(tmp_path).boots == (found,)
    buffer.date_boot(BOOT, UNIX_NS + 1000, estimated=False)
    assert buffer.undated() == []
    buffer.close()


def test_a_row_whose_stamps_stay_makes_no_boot_wait(tmp_path):
    clock = HandClock()
    buffer = open_at(tmp_path, clock)
    measure(buffer, clock, 3)
    assert buffer.commit_all()
    buffer.keep(buffer.take_backlog(10), sent=True)
    measure(buffer, clock, 2)
    assert buffer.commit_all()
    all_wrong(buffer, clock)
    assert buffer.commit_all()
    assert [(boot.boot_id, boot.count) for boot in look(tmp_path).boots] == [(BOOT, 2)]
    buffer.close()


def test_a_boot_that_waits_for_another_time_is_among_those_without_one(tmp_path):
    clock = HandClock()
    buffer = open_at(tmp_path, clock)
    measure(buffer, clock, 3)
    assert buffer.commit_all()
    assert buffer.undated() == []
    all_wrong(buffer, clock)
    (boot,) = buffer.undated()
    assert (boot.boot_id, boot.count, boot.last_ns) == (BOOT, 3, 1002 * SECOND)
    buffer.date_boot(BOOT, UNIX_NS + 1000, estimated=True)
    assert buffer.undated() == []
    assert buffer.commit_all()
    lines = drain(buffer)
    assert [b",clock=estimated " in text for text in lines] == [True] * 3
    assert [int(text.split()[-1]) for text in lines] == [UNIX_NS + 1000 + n * SECOND for n in (1000, 1001, 1002)]
    assert buffer.commit_all()
    assert buffer._queue.saved.withdrawn == {}
    buffer.close()
