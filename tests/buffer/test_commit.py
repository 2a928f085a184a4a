"""A disk that is full, read-only, slow or gone: measuring and delivering go on, and it is used when it is back."""

import contextlib
import itertools
import shutil
import subprocess
import threading
import time
from pathlib import Path

import pytest

from agent.buffer import folder as folders
from agent.buffer.batch import DeadLetter
from agent.buffer.committer import Committer
from agent.buffer.database import DATABASE
from agent.buffer.disk_error import DiskError
from agent.util.loops import LoopThread
from tests.buffers import SECOND, UNIX_NS, HandClock, accounted, drain, line, measure, open_at, pending_after, store_of
from tests.disks import fill, small_disk
from tests.waiting import wait_for


@pytest.fixture
def folder(tmp_path):
    return tmp_path / "buffer"


@contextlib.contextmanager
def card(top):
    """An ext4 file system that turns read-only on an error, as most cards do; how to make it fail, and repair it."""
    image, path = top / "image", top / "disk"
    path.mkdir()
    with image.open("wb") as file:
        file.truncate(8 * 2**20)

    def run(*command, check=True):
        return subprocess.run(command, check=check, capture_output=True, text=True)

    def mount():
        done = run("mount", "-o", "loop,errors=remount-ro", str(image), str(path), check=False)
        if done.returncode:
            pytest.skip(f"root: mounting an image is not allowed here: {done.stderr.strip()}")

    def fail():
        device = run("findmnt", "-no", "SOURCE", str(path)).stdout.strip()
        Path(f"/sys/fs/ext4/{Path(device).name}/trigger_fs_error").write_text("test")

    def repair():
        run("umount", str(path))  # which also shows that no file is left open
        run("e2fsck", "-fy", str(image), check=False)
        mount()

    if shutil.which("mkfs.ext4") is None:
        pytest.skip("root: install Debian's package e2fsprogs")
    run("mkfs.ext4", "-q", str(image))
    mount()
    try:
        yield path, fail, repair
    finally:
        run("umount", "-l", str(path), check=False)


@pytest.mark.root
def test_a_full_disk_stops_neither_measuring_nor_delivery(tmp_path, clock):
    with small_disk(tmp_path / "disk") as disk:
        buffer = open_at(disk / "buffer", clock)
        for _ in range(20):
            measure(buffer, clock, 10)
            assert buffer.commit_all()
        fill(disk)
        refused = 0
        for _ in range(400):
            measure(buffer, clock, 10)
            refused += not buffer.commit_all()
            clock.pass_s(31)
        accounted(buffer)
        status = buffer.snapshot()
        if refused:
            assert "full" in status.problem
            assert status.pending_memory > 0
        assert status.pending == 4200
        lines = drain(buffer)
        assert len(lines) == len(set(lines)) == 4200
        (disk / "filler").unlink()
        clock.pass_s(31)
        measure(buffer, clock, 10)
        assert buffer.commit_all(), buffer.snapshot().problem
        assert buffer.snapshot().pending_disk == 10, "the disk is used again, and what was delivered is off it"
        accounted(buffer)
        buffer.close()
        assert (disk / "buffer" / folders.BALLAST).exists()
        again = open_at(disk / "buffer", clock)
        assert again.snapshot().pending == 10
        again.close()


@pytest.mark.root
def test_a_disk_that_is_full_from_the_start(tmp_path, clock):
    with small_disk(tmp_path / "disk", "200k") as disk:
        fill(disk)
        buffer = open_at(disk / "buffer", clock)
        measure(buffer, clock, 10)
        assert not buffer.commit_all()
        assert not buffer.snapshot().disk_ok
        assert len(drain(buffer)) == 10
        accounted(buffer)
        clock.pass_s(60)
        assert not buffer.commit_all()
        assert "full" in buffer.snapshot().problem
        (disk / "filler").unlink()
        clock.pass_s(60)
        measure(buffer, clock, 3)
        assert buffer.commit_all(), buffer.snapshot().problem
        assert not (disk / "buffer" / folders.DAMAGED).exists(), "a file that was never filled is no damage"
        buffer.close()


@pytest.mark.root
def test_a_disk_that_turns_read_only(tmp_path, clock):
    with card(tmp_path) as (disk, fail, repair):
        buffer = open_at(disk / "buffer", clock)
        measure(buffer, clock, 10)
        buffer.commit_all()
        fail()
        measure(buffer, clock, 10)
        assert not buffer.commit_all()
        assert buffer.snapshot().problem
        live = buffer.take_live(5000)
        assert live.count == 10
        buffer.delivered(live)
        for _ in range(3):
            clock.pass_s(31)
            assert not buffer.commit_all()
        accounted(buffer)
        buffer.close()
        repair()
        buffer = open_at(disk / "buffer", clock)
        assert len(drain(buffer)) == 10
        assert folders.damaged_sets(disk / "buffer") == []
        assert buffer.commit_all(), buffer.snapshot().problem
        accounted(buffer)
        buffer.close()


def test_promise_8_points_in_flight_that_went_with_their_database_are_delivered_once_more_and_counted_once(
    folder, clock
):
    buffer = open_at(folder, clock)
    measure(buffer, clock, 5)
    live = buffer.take_live(10)
    assert buffer.commit_all()
    for path in folder.glob("cache.db*"):
        path.unlink()
    measure(buffer, clock, 5)
    assert not buffer.commit_all()
    assert buffer.commit_all()
    buffer.delivered(live)
    accounted(buffer)
    assert len(drain(buffer)) == 10
    accounted(buffer)
    assert buffer.snapshot().counters.points.delivered == 10
    buffer.close()


def test_the_ballast_comes_back_also_where_it_kept_the_disk_from_refusing(folder, clock, monkeypatch):
    buffer = open_at(folder, clock)
    put = store_of(buffer).put

    def putting(*row):
        if (folder / folders.BALLAST).exists():
            raise DiskError("full", "no room")
        put(*row)

    monkeypatch.setattr(store_of(buffer), "put", putting)
    measure(buffer, clock, 3)
    assert buffer.commit_all()
    assert not (folder / folders.BALLAST).exists()
    monkeypatch.undo()
    assert buffer.commit_all()
    assert (folder / folders.BALLAST).exists()
    buffer.close()


@pytest.mark.parametrize("what", ["database", "files", "folder", "swapped"])
def test_a_database_deleted_under_the_agent_is_noticed_and_its_points_move_over(folder, clock, what):
    buffer = open_at(folder, clock)
    for _ in range(3):
        measure(buffer, clock, 10)
        assert buffer.commit_all()
    if what == "database":
        (folder / DATABASE).unlink()
    elif what == "files":
        for path in folder.glob("cache.db*"):
            path.unlink()
    elif what == "swapped":
        shutil.copy(folder / DATABASE, folder / "copy")
        (folder / "copy").rename(folder / DATABASE)
    else:
        shutil.rmtree(folder)
    measure(buffer, clock, 10)
    assert not buffer.commit_all()
    assert "deleted" in buffer.snapshot().problem
    assert buffer.commit_all(), buffer.snapshot().problem
    accounted(buffer)
    buffer.close()
    again = open_at(folder, clock)
    assert again.snapshot().pending == 40
    accounted(again)
    assert len(drain(again)) == 40
    again.close()


def test_no_folder_can_be_made_at_all(tmp_path, clock):
    (tmp_path / "file").write_text("x")
    buffer = open_at(tmp_path / "file" / "buffer", clock)
    measure(buffer, clock, 10)
    assert not buffer.commit_all()
    assert "Not a directory" in buffer.snapshot().problem
    assert len(drain(buffer)) == 10
    accounted(buffer)
    buffer.close()


def test_points_that_are_tried_in_vain_stay_the_oldest_and_go_first(tmp_path, clock):
    (tmp_path / "file").write_text("x")
    buffer = open_at(tmp_path / "file" / "buffer", clock, memory_points=6, when_full="drop_oldest")
    measure(buffer, clock, 3)
    for limit in (3, 3, 2):
        batch = buffer.take_live(limit)
        assert batch.lines()[0].endswith(b" %d" % (UNIX_NS + 1000 * SECOND))
        measure(buffer, clock, 1)
        buffer.keep(batch)
    measure(buffer, clock, 2)
    stamps = [int(text.rpartition(b" ")[2]) - UNIX_NS for text in drain(buffer)]
    assert stamps == [n * SECOND for n in range(1002, 1008)]
    accounted(buffer)
    buffer.close()


def break_disk(buffer, trouble="full"):
    """Every transaction of this store fails."""

    @contextlib.contextmanager
    def transaction():
        raise DiskError(trouble, "injected")
        yield

    store_of(buffer).transaction = transaction


@pytest.mark.parametrize(("policy", "newest", "oldest"), [("thin", 1, 1), ("drop_oldest", 1, 0), ("drop_newest", 0, 1)])
def test_promise_6_memory_stays_bounded_while_the_disk_is_gone(folder, clock, policy, newest, oldest):
    buffer = open_at(folder, clock, memory_points=100, when_full=policy)
    break_disk(buffer)
    for _ in range(50):
        measure(buffer, clock, 20)
        assert not buffer.commit_all()
        assert buffer.snapshot().pending_memory <= 100
    accounted(buffer)
    stamps = [int(text.split()[-1]) for text in drain(buffer)]
    assert buffer.snapshot().counters.points.dropped["memory"] + len(stamps) == 1000
    assert (stamps[-1] == UNIX_NS + 1999 * SECOND) == bool(newest)
    assert (stamps[0] == UNIX_NS + 1000 * SECOND) == bool(oldest)
    buffer.close()


def test_each_point_is_delivered_once_while_settling_fails(folder, clock):
    buffer = open_at(folder, clock)
    measure(buffer, clock, 30)
    buffer.commit_all()
    break_disk(buffer)
    assert len(drain(buffer)) == 30
    clock.pass_s(5)
    assert not buffer.commit()
    assert drain(buffer) == []
    del store_of(buffer).transaction
    clock.pass_s(31)
    assert buffer.commit()
    buffer.close()
    assert pending_after(folder) == 0


def test_promise_1_putting_waits_for_no_disk(folder):
    """A sync takes as long as it takes to put 100 points: it ends only after. Were put() held up, neither would end."""

    class RealClock(HandClock):
        def boot_ns(self):
            return time.monotonic_ns()

    buffer = open_at(folder, RealClock(), loss_window=0)
    store, real = store_of(buffer), store_of(buffer).transaction
    syncing, enough, held_up = threading.Event(), threading.Event(), []

    @contextlib.contextmanager
    def slow():
        with real():
            yield
            syncing.set()
            if not enough.wait(40):
                held_up.append("put() waited for the sync")

    store.transaction = slow
    thread = LoopThread("committer", Committer(buffer))
    buffer.put([line(buffer.clock)])
    assert syncing.wait(40)
    for _ in range(99):
        buffer.put([line(buffer.clock)])
        buffer.snapshot()
        buffer.take_live(1)
    enough.set()
    thread.stop()
    thread.join(40)
    del store.transaction
    buffer.close()
    assert held_up == []
    assert pending_after(folder) == 100


def test_promise_1_the_window_counts_from_the_measurement(folder, clock):
    """A reading that came late, as after averaging or a stall, has so much less time until it is on disk."""
    buffer = open_at(folder, clock, loss_window=10)
    measured = line(clock)
    clock.pass_s(7)
    buffer.put([measured])
    assert buffer.next_deadline() <= measured.boot_ns + 10 * SECOND
    clock.pass_s(2.6)
    assert buffer.commit_due(clock.boot_ns())
    assert buffer.commit()
    assert buffer.snapshot().pending_disk == 1
    buffer.close()


def test_promise_1_a_slow_card_is_learnt_and_written_to_earlier(folder, clock, monkeypatch):
    buffer = open_at(folder, clock, loss_window=10)
    measure(buffer, clock, 1, 0)
    before = buffer.next_deadline() - clock.boot_ns()
    monkeypatch.setattr("agent.buffer.transaction.time.monotonic", itertools.count(0, 1.2).__next__)
    assert buffer.commit_all()
    monkeypatch.undo()
    assert buffer.snapshot().commit_s == pytest.approx(1.2)
    measure(buffer, clock, 1, 0)
    after = buffer.next_deadline() - clock.boot_ns()
    assert before - after > 2 * SECOND, "three times what a commit took, before the window ends"
    for _ in range(20):
        buffer.commit_all()
    assert buffer.snapshot().commit_s < 1.2, "and forgotten when it is fast again"
    buffer.close()


def test_promise_5_after_a_restart_in_the_same_boot_no_stamp_is_given_twice(folder, clock):
    buffer = open_at(folder, clock)
    measure(buffer, clock, 3, 0.001)
    assert buffer.commit_all()
    given = [int(text.rsplit(b" ", 1)[1]) for text in drain(buffer)]
    buffer.close()
    clock.pass_s(-0.003)  # a correction of the clock, too small to be a wrong one
    again = open_at(folder, clock)
    measure(again, clock, 3, 0.001)
    assert again.commit_all()
    new = [int(text.rsplit(b" ", 1)[1]) for text in drain(again)]
    assert not set(given) & set(new)
    again.close()


def test_promise_6_dead_letters_are_bounded_in_memory_while_there_is_no_disk(folder, clock):
    buffer = open_at(folder, clock, memory_points=100)
    buffer._commits.failed(DiskError("io", "the card was pulled"))
    shutil.rmtree(folder)
    folder.write_text("in the way")
    for _ in range(30):
        measure(buffer, clock, 10)
        batch = buffer.take_live(100)
        buffer.replace(batch, [], [DeadLetter(text, "parse", "no", UNIX_NS) for text in batch.lines()])
    status = buffer.snapshot()
    assert status.dead_letters == 100
    assert status.counters.points.rejected == 300
    accounted(buffer)
    buffer.close()


def test_the_committer_keeps_the_window_and_goes_on_after_an_error(folder, monkeypatch):
    class RealClock(HandClock):
        def boot_ns(self):
            return time.monotonic_ns()

    buffer = open_at(folder, RealClock(), loss_window=0.5)
    failures = iter([RuntimeError("unforeseen")])
    real = buffer.commit

    def commit():
        for failure in failures:
            raise failure
        return real()

    monkeypatch.setattr(buffer, "commit", commit)
    thread = LoopThread("committer", Committer(buffer))
    buffer.put([line(buffer.clock)])
    wait_for(lambda: buffer.snapshot().pending_disk == 1)
    thread.stop()
    thread.join(40)
    buffer.close()


def test_ballast_is_there_for_a_full_disk_and_comes_back(folder, clock):
    buffer = open_at(folder, clock)
    measure(buffer, clock, 3)
    buffer.commit_all()
    ballast = folder / folders.BALLAST
    assert ballast.stat().st_size == folders.BALLAST_BYTES
    break_disk(buffer)
    measure(buffer, clock, 3)
    assert not buffer.commit_all()
    assert not ballast.exists()
    del store_of(buffer).transaction
    clock.pass_s(31)
    assert buffer.commit_all()
    assert ballast.exists()
    buffer.close()
    assert ballast.stat().st_mode & 0o077 == 0


def test_a_folder_that_was_deleted_and_made_anew_is_held_against_a_second_agent(folder, clock):
    buffer = open_at(folder, clock)
    measure(buffer, clock, 3)
    assert buffer.commit_all()
    shutil.rmtree(folder)
    measure(buffer, clock, 3)
    buffer.commit_all()
    assert buffer.commit_all()
    with pytest.raises(folders.AlreadyRunning):
        open_at(folder, clock)
    assert len(drain(buffer)) == 6
    accounted(buffer)
    buffer.close()


def test_a_folder_where_another_agent_began_after_it_was_deleted_is_left_to_that_one(folder, clock):
    buffer = open_at(folder, clock)
    measure(buffer, clock, 3)
    assert buffer.commit_all()
    shutil.rmtree(folder)
    other = open_at(folder, clock)
    measure(buffer, clock, 3, device="kept")
    for _ in range(3):
        assert not buffer.commit_all()
        clock.pass_s(31)
    assert "in use by" in buffer.snapshot().problem
    assert sum(b"kept" in line for line in drain(buffer)) == 3
    accounted(buffer)
    assert other.snapshot().pending == 0
    other.close()
    measure(buffer, clock, 3)
    clock.pass_s(31)
    assert buffer.commit_all(), buffer.snapshot().problem
    accounted(buffer)
    buffer.close()
