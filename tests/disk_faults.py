"""A disk that is slow or fails, for a process that a test starts: see preload/diskfaults.c."""

import errno
import mmap
import os
import random
import struct
import subprocess
import sys
from pathlib import Path

from tests.preloads import compiled
from tests.waiting import wait_for

_SIZE = 20  # what is set; a count follows


def run(folder, *arguments):
    """Run a scenario of this module in a process whose disk can fail; what it printed."""
    control = folder / "faults"
    control.write_bytes(bytes(mmap.PAGESIZE))
    environment = os.environ | {"LD_PRELOAD": str(compiled("diskfaults")), "DISK_FAULTS": str(control)}
    command = [sys.executable, "-m", "tests.disk_faults", str(folder), *map(str, arguments)]
    done = subprocess.run(command, env=environment, capture_output=True, text=True, timeout=100, check=False)
    assert done.returncode == 0, done.stdout + done.stderr
    return done.stdout


class Faults:
    """What the disk of a process does from now on: of this one, or of another whose file is named."""

    def __init__(self, path=None):
        with Path(path or os.environ["DISK_FAULTS"]).open("r+b") as file:
            self._map = mmap.mmap(file.fileno(), mmap.PAGESIZE)

    def set(self, delay_ms=0, write=(0, 0), sync=(0, 0)):
        self._map[:_SIZE] = struct.pack("=5i", delay_ms, *write, *sync)

    def syncs(self):
        """How many have begun."""
        return struct.unpack_from("=i", self._map, _SIZE)[0]


def failing(folder, seed):
    """Writes and syncs fail at random moments; in the end every point is there, once."""
    from tests.buffers import HandClock, accounted, drain, measure, open_at

    rng, faults, clock = random.Random(seed), Faults(), HandClock()
    buffer = open_at(folder / "buffer", clock)
    put = refused = 0
    arrived = []
    for _ in range(60):
        count = rng.randrange(1, 30)
        measure(buffer, clock, count)
        put += count
        fault = rng.choice([errno.EIO, errno.EIO, errno.ENOSPC]), rng.choice([0, 0, 1, 2, 3, 5, 8])
        faults.set(**rng.choice([{"write": fault}, {"sync": fault}, {}]))
        refused += not buffer.commit_all()
        if rng.random() < 0.3:
            batch = buffer.take_live(20) or buffer.take_backlog(20)
            if batch is not None:
                arrived += batch.lines()
                buffer.delivered(batch)
        faults.set()
        accounted(buffer)
        clock.pass_s(31)
    while not buffer.commit_all():
        clock.pass_s(31)
    accounted(buffer)
    buffer.close()
    buffer = open_at(folder / "buffer", clock)
    accounted(buffer)
    arrived += drain(buffer)
    assert len(arrived) == len(set(arrived)) == put, (len(arrived), len(set(arrived)), put)
    assert buffer.snapshot().counters.points.delivered == put
    buffer.close()
    print(refused)


def hanging(folder, _):
    """A sync hangs while 400 points are put. Prints how many of them are on disk by then, and in the end."""
    from agent.buffer.committer import Committer
    from agent.util.loops import LoopThread
    from drivers.base import boot_ns
    from tests.buffers import HandClock, line, open_at

    class RealClock(HandClock):
        def boot_ns(self):
            return boot_ns()

    clock, faults = RealClock(), Faults()
    buffer = open_at(folder / "buffer", clock, loss_window=0.5)
    faults.set(delay_ms=600_000)
    before = faults.syncs()
    thread = LoopThread("committer", Committer(buffer))
    buffer.put([line(clock)])
    wait_for(lambda: faults.syncs() != before)
    for _ in range(400):
        buffer.put([line(clock)])
    print(buffer.snapshot().pending_disk)
    faults.set()
    thread.stop()
    thread.join()
    buffer.close()
    print(buffer.snapshot().pending_disk)


if __name__ == "__main__":
    {"failing": failing, "hanging": hanging}[sys.argv[2]](Path(sys.argv[1]), int(sys.argv[3]))
