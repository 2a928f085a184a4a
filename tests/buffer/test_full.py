"""A disk so full that SQLite could not map its index: never a signal, the points wait in memory and are delivered."""

import os
import resource
import shutil
import signal
import subprocess
import sys
from functools import partial
from pathlib import Path

import pytest

from agent.buffer import folder as folders
from agent.buffer.database import DATABASE
from agent.buffer.mapped import RESERVED_BYTES
from agent.buffer.offline import OfflineBuffer, look
from tests.amounts import amount
from tests.buffers import HandClock, accounted, drain, measure, open_at, pending_after
from tests.disks import fill, make_room, of_kind, small_card

STORED = 100
SWEEP = range(0, 48, amount(8, 4))  # KiB that are left
GREEDY = """
import contextlib, os, sys
while True:
    with contextlib.suppress(OSError), open(sys.argv[1], "ab", 0) as file:
        while True:
            file.write(bytes(1024))
    with contextlib.suppress(OSError):
        os.truncate(sys.argv[1], max(0, os.path.getsize(sys.argv[1]) - 1024 * (os.getpid() + os.urandom(1)[0] % 140)))
"""


def apart(*arguments):
    """Run a scenario of this module in a process of its own, which a signal may end; what it printed."""
    command = [sys.executable, "-m", "tests.buffer.test_full", *map(str, arguments)]
    done = subprocess.run(command, capture_output=True, text=True, timeout=100, check=False)
    assert done.returncode == 0, done.stdout + done.stderr
    return done.stdout


def forked(work):
    """The exit status of a process that does the work: below 0 for a signal."""
    pid = os.fork()
    if not pid:
        resource.setrlimit(resource.RLIMIT_CORE, (0, 0))
        work()
        os._exit(0)
    return os.waitstatus_to_exitcode(os.waitpid(pid, 0)[1])


def stored(folder, *, killed):
    clock = HandClock()
    buffer = open_at(folder, clock)
    for _ in range(10):
        measure(buffer, clock, STORED // 10)
        assert buffer.commit_all()
    if killed:
        os.kill(os.getpid(), signal.SIGKILL)
    buffer.close()


def used(folder, *, killed=False):
    """As an agent uses it, also when the disk refuses."""
    clock = HandClock(now_s=5000)
    buffer = open_at(folder, clock)
    for _ in range(5):
        measure(buffer, clock, 10)
        buffer.commit_all()
        clock.pass_s(31)
    assert len(drain(buffer)) >= 50
    accounted(buffer)
    if killed:
        os.kill(os.getpid(), signal.SIGKILL)
    buffer.close()


def sweep(disk, state):
    """With each amount of room that is left, one process looks and one uses the buffer. Prints how each ended."""
    folder = disk / "buffer"
    for leave in SWEEP:
        for path in disk.glob("[!l]*"):
            shutil.rmtree(path) if path.is_dir() else path.unlink()
        if state == "new":
            folder.mkdir()
        else:
            forked(lambda: stored(folder, killed=state != "stopped"))
            (folder / folders.BALLAST).unlink()
        if state == "foreign":  # with holes, as another program left it
            os.truncate(folder / f"{DATABASE}-shm", 3)
            os.truncate(folder / f"{DATABASE}-shm", 32768)
        fill(disk, leave * 1024)
        print(leave, forked(lambda: look(folder)), forked(lambda: used(folder)))


@pytest.mark.root
@pytest.mark.parametrize("state", ["new", "stopped", "killed", "foreign"])
def test_promise_3_no_signal_ends_the_agent_however_little_room_is_left(tmp_path, state):
    with small_card(tmp_path / "disk", 1024) as disk:
        ends = [line.split()[1:] for line in apart("sweep", disk, state).splitlines()]
    assert len(ends) == len(SWEEP)
    assert all(end == ["0", "0"] for end in ends), ends


def reopen(disk, times):
    """Prints how each of so many processes ended, a third of them killed."""
    for number in range(int(times)):
        print(forked(partial(used, disk / "buffer", killed=number % 3 == 0)))


@pytest.mark.root
def test_no_signal_ends_the_agent_while_another_process_takes_whatever_room_there_is(tmp_path):
    with small_card(tmp_path / "disk", 1024) as disk:
        greedy = subprocess.Popen([sys.executable, "-c", GREEDY, str(disk / "greedy")])
        try:
            ends = set(apart("reopen", disk, 20).split())
        finally:
            greedy.kill()
            greedy.wait()
    assert ends <= {"0", str(-signal.SIGKILL)}


@pytest.mark.root
def test_the_index_is_whole_as_long_as_anybody_maps_it_and_goes_with_the_last(tmp_path):
    clock = HandClock()
    with small_card(tmp_path / "disk", 1024) as disk:
        folder = disk / "buffer"
        index = folder / f"{DATABASE}-shm"
        buffer = open_at(folder, clock)

        def whole():
            found = index.stat()
            return found.st_size >= RESERVED_BYTES and found.st_blocks * 512 >= RESERVED_BYTES

        assert whole()
        inode = index.stat().st_ino
        measure(buffer, clock, 10)
        assert buffer.commit_all()
        buffer.release()
        with OfflineBuffer(folder):
            assert whole()
        beside = f"import sqlite3; sqlite3.connect({str(folder / DATABASE)!r}).execute('SELECT * FROM Settings')"
        subprocess.run([sys.executable, "-c", beside], check=True)
        measure(buffer, clock, 10)
        assert buffer.commit_all()
        assert whole()
        assert index.stat().st_ino == inode
        assert index.stat().st_mode & 0o077 == 0
        assert len(drain(buffer)) == 20
        buffer.close()
        assert not index.exists()
        subprocess.run(["umount", str(disk)], check=True)  # no file is left open
        subprocess.run(["mount", "-o", "loop", f"{disk}.image", str(disk)], check=True)


@pytest.mark.root
@pytest.mark.parametrize("kind", ["ext4-1k", "ext4-4k", "tmpfs"])
def test_the_ballast_is_given_up_for_opening(tmp_path, kind):
    with of_kind(kind, tmp_path / "disk") as disk:
        folder = disk / "buffer"
        stored(folder, killed=False)
        fill(disk)
        clock = HandClock(now_s=5000)
        buffer = open_at(folder, clock)
        assert buffer.snapshot().pending == STORED
        measure(buffer, clock, 5)
        assert buffer.commit_all(), buffer.snapshot().problem
        assert len(drain(buffer)) == STORED + 5
        accounted(buffer)
        buffer.close()
        make_room(disk)
        assert pending_after(folder) == 0


if __name__ == "__main__":
    {"sweep": sweep, "reopen": reopen}[sys.argv[1]](Path(sys.argv[2]), sys.argv[3])
