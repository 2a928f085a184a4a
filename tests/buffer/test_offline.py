"""The buffer as commands see and change it, without its agent or beside it."""

import contextlib
import dataclasses
import shutil
import sqlite3

import pytest

from agent.buffer import dead_letters
from agent.buffer import folder as folders
from agent.buffer.batch import DeadLetter
from agent.buffer.database import DATABASE
from agent.buffer.offline import BufferUnavailable, OfflineBuffer, look
from agent.buffer.recovery import LEDGER
from agent.buffer.rows import Kind, pack
from agent.buffer.wal import LOST_LOG
from tests.buffers import BOOT, UNIX_NS, HandClock, accounted, checkpoint, drain, line, measure, open_at


@pytest.fixture
def folder(tmp_path):
    return tmp_path / "buffer"


@pytest.fixture(scope="module")
def made(tmp_path_factory):
    """Buffers in several states, each made once: every sync of a disk takes its time."""
    top, clock = tmp_path_factory.mktemp("made"), HandClock()
    buffer = open_at(top / "live", clock)
    measure(buffer, clock, 5)
    assert buffer.commit_all()
    shutil.copytree(top / "live", top / "killed")
    buffer.close()
    buffer = open_at(top / "stopped", clock)
    measure(buffer, clock, 3)
    buffer.put([line(clock, 1.0, measurement="agent")])
    buffer.close()
    buffer = open_at(top / "refused", clock)
    for count in (3, 2):
        measure(buffer, clock, count - 1)
        buffer.put([line(clock, 1.0, measurement="agent")])
        batch = buffer.take_live(10)
        letters = [DeadLetter(text, "parse", f"no {n}", UNIX_NS + n) for n, text in enumerate(batch.lines())]
        buffer.replace(batch, [], letters)
        assert buffer.commit_all()
    measure(buffer, clock, 1)
    buffer.close()
    return top


@pytest.fixture
def stopped(made, folder):
    """Three points and one of the agent's own, the last, after a clean stop."""
    return shutil.copytree(made / "stopped", folder)


@pytest.fixture
def killed(made, folder):
    """Five points that are in the log alone: the database has none of them yet."""
    return shutil.copytree(made / "killed", folder)


@pytest.fixture
def refused(made, folder):
    """Two rows of letters, of three and of two, the last of each the agent's own, and a point that waits."""
    return shutil.copytree(made / "refused", folder)


def damage(folder, statement, *values):
    with contextlib.closing(sqlite3.connect(folder / DATABASE, isolation_level=None)) as connection:
        connection.execute(statement, values)


def contents(folder):
    return {path.name: (path.stat().st_mtime_ns, path.read_bytes()) for path in folder.iterdir()}


# What is seen


@pytest.mark.parametrize("place", ["", "nothing", "file/below"])
def test_where_there_is_no_buffer_nothing_is_seen(tmp_path, place):
    (tmp_path / "file").write_text("x")
    assert look(tmp_path / place) is None


@pytest.mark.parametrize("untouched", [False, True])
def test_after_a_clean_stop_what_is_seen_is_what_the_agent_knew(stopped, untouched):
    seen = look(stopped, untouched=untouched)
    assert (seen.clean, seen.unwritten, seen.problem, seen.boots) == (True, 0, None, ())
    assert (seen.status.pending_disk, seen.status.rows, seen.status.disk_ok) == (4, 1, True)
    assert seen.status.file_bytes == (stopped / DATABASE).stat().st_size
    assert 0 < seen.status.disk_bytes <= seen.status.file_bytes
    counted = seen.status.counters
    assert (counted.points.measured, counted.health.measured, seen.status.unaccounted) == (3, 1, 0)
    assert seen.last.measurement == "environment"
    assert seen.last.fields == {"Temperature": "2.0"}
    assert UNIX_NS < seen.last.stamp < UNIX_NS + 2000 * 10**9


def test_a_look_that_leaves_all_untouched_tells_how_much_of_the_log_it_did_not_read(killed):
    before = contents(killed)
    seen = look(killed, untouched=True)
    assert seen.unwritten == (killed / f"{DATABASE}-wal").stat().st_size > 0
    assert (seen.status.pending, seen.problem) == (0, None)
    assert contents(killed) == before


def test_a_look_that_reads_the_log_sees_all_and_that_the_numbers_may_be_old(killed):
    seen = look(killed)
    assert (seen.status.pending, seen.unwritten, seen.clean, seen.problem) == (5, 0, False, None)


def test_what_stands_in_the_log_alone_is_no_damage(killed):
    (killed / DATABASE).write_bytes(b"")
    seen = look(killed, untouched=True)
    assert seen.unwritten == (killed / f"{DATABASE}-wal").stat().st_size
    assert seen.problem is None
    (killed / f"{DATABASE}-wal").unlink()
    seen = look(killed, untouched=True)
    assert (seen.unwritten, seen.problem) == (0, "no such table: Cache")
    assert look(killed).problem == "no such table: Cache"


def test_a_damaged_page_is_seen_where_there_is_no_log(stopped):
    path = stopped / DATABASE
    content = bytearray(path.read_bytes())
    content[-512:] = bytes([255]) * 512
    path.write_bytes(content)
    seen = look(stopped, untouched=True)
    assert seen.problem
    assert seen.status.file_bytes == len(content)


@pytest.mark.parametrize("untouched", [False, True])
def test_a_row_whose_header_is_damaged_is_a_problem_for_who_checks(stopped, untouched):
    damage(stopped, "UPDATE Cache SET tag = x'00' WHERE key = 1")
    seen = look(stopped, untouched=untouched)
    assert seen.problem == ("1 rows are not readable" if untouched else None)
    assert seen.unwritten == 0
    assert seen.last is None


def test_a_ledger_that_is_lost_is_a_problem(stopped):
    damage(stopped, "DELETE FROM Cache WHERE key = ?", LEDGER)
    assert look(stopped).problem == "the ledger is not there"


def test_points_that_are_counted_and_not_there_are_seen(stopped):
    damage(stopped, "DELETE FROM Cache WHERE key = 1")
    assert look(stopped).status.unaccounted == 3


def test_of_what_has_no_time_the_last_point_has_none_and_its_boot_is_named(folder):
    clock = HandClock(offset_ns=None)
    buffer = open_at(folder, clock)
    measure(buffer, clock, 2)
    buffer.close()
    seen = look(folder)
    assert (seen.last.stamp, seen.last.fields) == (0, {"Temperature": "1.0"})
    assert [(boot.boot_id, boot.count, boot.key) for boot in seen.boots] == [(BOOT, 2, 1)]


def test_of_the_agents_own_points_none_is_the_last_that_was_measured(folder, clock):
    buffer = open_at(folder, clock)
    buffer.put([line(clock, 1.0, measurement="agent")])
    buffer.close()
    assert look(folder).last is None


def test_a_last_point_that_was_delivered_is_none(folder, clock):
    buffer = open_at(folder, clock)
    measure(buffer, clock, 1)
    assert buffer.commit_all()
    drain(buffer)
    buffer.close()
    assert look(folder).last is None


# What is changed


def test_a_buffer_that_is_not_there_is_named_and_can_be_made(folder):
    with pytest.raises(BufferUnavailable, match=f"there is no buffer in {folder}: has the agent run"):
        OfflineBuffer(folder)
    with OfflineBuffer(folder, create=True) as made:
        assert list(made.waiting()) == []
        assert made.counters().points.measured == 0
    with OfflineBuffer(folder):
        pass


@pytest.mark.parametrize("mark", [LOST_LOG, f"{folders.DAMAGED}/1/{folders.UNREAD}"])
def test_a_buffer_that_is_being_saved_from_damage_can_be_read_and_not_written(stopped, mark):
    (stopped / mark).parent.mkdir(parents=True, exist_ok=True)
    (stopped / mark).touch()
    with pytest.raises(BufferUnavailable, match="is being saved from damage: try again later"):
        OfflineBuffer(stopped)
    with OfflineBuffer(stopped, write=False) as beside:
        assert [header.count for header in beside.headers()] == [4]


@pytest.mark.parametrize("write", [False, True])
def test_a_damaged_buffer_is_refused_with_what_repairs_it(stopped, write):
    (stopped / DATABASE).write_bytes(b"no database" * 1000)
    with pytest.raises(BufferUnavailable, match="starting the agent repairs a damaged one"):
        OfflineBuffer(stopped, write=write)


def test_who_only_reads_spares_the_card(stopped):
    before = contents(stopped)
    with OfflineBuffer(stopped, write=False) as beside:
        assert beside.counters().points.measured == 3
        assert [(header.count, len(lines)) for header, lines in beside.waiting()] == [(4, 4)]
    after = contents(stopped)
    assert after[DATABASE] == before[DATABASE]
    assert not after.get(f"{DATABASE}-wal", (0, b""))[1]


def test_what_is_imported_is_counted_keeps_its_time_and_is_delivered_oldest_first(stopped, clock):
    imported = [[b"environment,clientId=x Temperature=%d %d" % (n, UNIX_NS)] for n in (1, 2)]
    own = [b"agent,clientId=x uptime_s=1i %d" % UNIX_NS]
    with OfflineBuffer(stopped) as beside:
        beside.add([pack(lines, Kind.PENDING) for lines in (*imported, own)])
        counted = beside.counters()
        assert (counted.points.measured, counted.health.measured) == (5, 2)
        beside.add([])
        assert beside.counters() == counted
    assert look(stopped).status.unaccounted == 0
    with OfflineBuffer(stopped) as beside:
        saved = beside._ledger()
        assert (saved.last_key, saved.fixed) == (4, ((2, 4),))
        assert [lines for _, lines in beside.waiting()][1:] == [*imported, own]
    buffer = open_at(stopped, clock)
    assert drain(buffer)[4:] == [*imported[0], *imported[1], *own]
    accounted(buffer)
    buffer.close()


def test_what_cannot_be_read_is_left_to_the_agent(stopped, clock):
    with OfflineBuffer(stopped) as beside:
        beside.add([pack([b"environment,clientId=x Temperature=1 %d" % UNIX_NS], Kind.PENDING)])
    damage(stopped, "UPDATE Cache SET value = x'00' WHERE key = 1")
    with OfflineBuffer(stopped) as beside:
        assert [header.key for header, _ in beside.waiting()] == [2]
        assert [header.key for header in beside.headers()] == [1, 2]
    damage(stopped, "UPDATE Cache SET tag = x'00' WHERE key = 1")
    with OfflineBuffer(stopped) as beside:
        assert [header.key for header in beside.headers()] == [2]


def test_a_row_that_is_delivered_while_rows_are_read_is_left_out(stopped):
    with OfflineBuffer(stopped) as beside:
        beside.add([pack([b"environment,clientId=x Temperature=%d %d" % (n, UNIX_NS)], Kind.PENDING) for n in (1, 2)])
        waiting = beside.waiting()
        assert next(waiting)[0].key == 1
        with OfflineBuffer(stopped) as agent, agent._store.transaction():
            agent._store.delete(2)
        assert [header.key for header, _ in waiting] == [3]


def test_counters_that_cannot_be_read_are_refused(stopped):
    with OfflineBuffer(stopped, write=False) as beside:
        damage(stopped, "UPDATE Cache SET value = x'00' WHERE key = ?", LEDGER)
        with pytest.raises(BufferUnavailable, match="the counters cannot be read"):
            beside.counters()


def test_a_disk_that_refuses_is_named_and_nothing_is_changed(stopped):
    with OfflineBuffer(stopped) as beside:
        before = list(beside.waiting()), beside.counters()
        damage(stopped, "CREATE TRIGGER full BEFORE INSERT ON Cache BEGIN SELECT RAISE(FAIL, 'no room'); END")
        with pytest.raises(BufferUnavailable, match="the disk refuses: no room"):
            beside.add([pack([b"environment,clientId=x Temperature=1 %d" % UNIX_NS], Kind.PENDING)])
        damage(stopped, "DROP TRIGGER full")
        assert (list(beside.waiting()), beside.counters()) == before


def test_a_buffer_that_is_damaged_while_it_is_read_is_refused(stopped):
    with OfflineBuffer(stopped, write=False) as beside:
        damage(stopped, "DROP TABLE Cache")
        for read in (beside.waiting, beside.headers, beside.letters):
            with pytest.raises(BufferUnavailable, match="the buffer cannot be read"):
                list(read())
        with pytest.raises(BufferUnavailable, match="the counters cannot be read"):
            beside.counters()


# Dead letters


def numbers(beside):
    return [letter.number for letter in beside.letters()]


def test_letters_are_numbered_and_stand_in_nobodys_way(refused):
    with OfflineBuffer(refused) as beside:
        assert numbers(beside) == ["1.1", "1.2", "1.3", "2.1", "2.2"]
        assert [letter.letter.message for letter in beside.letters()] == ["no 0", "no 1", "no 2", "no 0", "no 1"]
        assert [header.kind for header, _ in beside.waiting()] == [Kind.PENDING]
        assert [header.kind for header in beside.headers()] == [Kind.PENDING]


def test_of_the_letters_that_are_purged_nothing_is_left_and_they_stay_counted(refused):
    with OfflineBuffer(refused) as beside:
        before = beside.counters()
        assert (before.points.rejected, before.health.rejected) == (3, 2)
        assert beside.remove(lambda letter: letter.number in {"1.2", "2.1", "2.2"}, replay=False) == 3
        assert numbers(beside) == ["1.1", "1.2"]
        assert [letter.letter.message for letter in beside.letters()] == ["no 0", "no 2"]
        assert beside.counters() == before
        assert beside.remove(lambda letter: False, replay=False) == 0
        assert [found.key - dead_letters.BASE for found in beside._store.scan(after=dead_letters.BASE)] == [1]


def test_letters_that_are_replayed_wait_again_and_are_not_rejected(refused, clock):
    with OfflineBuffer(refused) as beside:
        waited = len(list(beside.waiting()))
        assert beside.remove(lambda letter: letter.number != "1.1", replay=True) == 4
        counted = beside.counters()
        assert (counted.points.rejected, counted.health.rejected) == (1, 0)
        assert [header.count for header, _ in list(beside.waiting())[waited:]] == [2, 2]
        saved = beside._ledger()
        assert saved.last_key == list(beside.headers())[-1].key
    assert look(refused).status.unaccounted == 0
    buffer = open_at(refused, clock)
    assert len(drain(buffer)) == 5
    accounted(buffer)
    buffer.close()


def refuse(buffer, clock):
    measure(buffer, clock, 1)
    batch = buffer.take_live(1)
    buffer.replace(batch, [], [DeadLetter(text, "parse", "no", UNIX_NS) for text in batch.lines()])
    assert buffer.commit_all()


@pytest.mark.parametrize("readable", [True, False])
def test_after_a_lost_ledger_no_letter_is_written_over_and_all_can_be_replayed(folder, clock, readable):
    buffer = open_at(folder, clock)
    refuse(buffer, clock)
    buffer.close()
    damage(folder, "UPDATE Cache SET value = x'00' WHERE key = ?", LEDGER)
    if not readable:
        damage(folder, "UPDATE Cache SET tag = x'00' WHERE key > ? AND raw = 1", dead_letters.BASE)
    buffer = open_at(folder, clock)
    refuse(buffer, clock)
    buffer.close()
    with OfflineBuffer(folder) as beside:
        assert numbers(beside) == (["1.1", "2.1"] if readable else ["2.1"])
        assert beside.remove(lambda _: True, replay=True) == 1 + readable
        assert beside.counters().points.rejected == 0
    buffer = open_at(folder, clock)
    assert len(drain(buffer)) == 1 + readable
    accounted(buffer)
    buffer.close()


def test_letters_that_somebody_else_replays_meanwhile_are_replayed_once(refused, clock):
    with OfflineBuffer(refused) as first, OfflineBuffer(refused) as second:
        others = iter([lambda: second.remove(lambda letter: letter.number in {"1.1", "2.1", "2.2"}, replay=True)])

        def chosen(_):
            next(others, int)()
            return True

        assert first.remove(chosen, replay=True) == 0
        assert numbers(first) == ["1.1", "1.2"]
        assert first.remove(chosen, replay=True) == 2
        assert numbers(first) == []
        assert first.counters().points.rejected == first.counters().health.rejected == 0
    buffer = open_at(refused, clock)
    assert len(drain(buffer)) == 6
    accounted(buffer)
    buffer.close()


def test_where_the_ledger_is_lost_nothing_is_written_over_what_is_there(stopped):
    damage(stopped, "DELETE FROM Cache WHERE key = ?", LEDGER)
    with pytest.raises(BufferUnavailable, match="the ledger is not there"):
        OfflineBuffer(stopped)


def test_a_ledger_that_is_lost_while_letters_are_replayed_is_named(refused):
    with OfflineBuffer(refused) as beside:
        damage(refused, "UPDATE Cache SET value = x'00' WHERE key = ?", LEDGER)
        with pytest.raises(BufferUnavailable, match="the counters cannot be read: the ledger is"):
            beside.remove(lambda _: True, replay=True)
        assert len(numbers(beside)) == 5


def test_letters_that_cannot_be_read_hide_no_others(refused):
    damage(refused, "UPDATE Cache SET value = x'00' WHERE key = ?", dead_letters.BASE + 1)
    with OfflineBuffer(refused) as beside:
        assert numbers(beside) == ["2.1", "2.2"]


def test_a_look_after_a_checkpoint_needs_no_log(killed):
    checkpoint(killed)
    seen = look(killed, untouched=True)
    assert (seen.unwritten, seen.status.pending, seen.problem) == (0, 5, None)


def test_what_is_seen_is_a_status_like_the_running_agents(folder, clock):
    """Field by field, but for what only a process knows."""
    buffer = open_at(folder, clock)
    measure(buffer, clock, 4)
    assert buffer.commit_all()
    known = dataclasses.asdict(buffer.snapshot())
    seen = dataclasses.asdict(look(folder).status)
    for name in ("commit_s", "disk_bytes", "file_bytes"):
        del known[name], seen[name]
    assert seen == known
    buffer.close()
