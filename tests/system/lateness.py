"""How late a loaded machine is with what is due: a reference, taken at the same time, in the process that is judged or
beside it.

A thread that every 50 ms has to write a few bytes and to sync them twice, as a commit does with the checkpoint that may
follow it, and notes when that was due and when it was done (boot clock, ns).
"""

import contextlib
import os
import threading
import time

from drivers.base import boot_ns

EVERY_NS = 50_000_000


def _run(path, ended):
    file = os.open(path, os.O_WRONLY | os.O_CREAT | os.O_APPEND, 0o600)
    os.write(file, b"\n")  # the process before may have been killed within a line
    due = boot_ns()
    while not ended.is_set():
        os.write(file, b"%d " % due)
        for _ in range(2):
            with contextlib.suppress(OSError):  # where the disk fails on purpose
                os.fsync(file)
        os.write(file, b"%d\n" % boot_ns())
        due = max(due + EVERY_NS, boot_ns() - EVERY_NS)
        time.sleep(max(0, due - boot_ns()) / 1e9)


def watch(path):
    """As long as this process lives."""
    threading.Thread(target=_run, args=(path, threading.Event()), daemon=True).start()


@contextlib.contextmanager
def beside(path):
    """How long (s) the reference took at most since it began, when called."""
    begun, ended = boot_ns(), threading.Event()
    thread = threading.Thread(target=_run, args=(path, ended))
    thread.start()
    try:
        yield lambda: lateness_s(path, begun, boot_ns())
    finally:
        ended.set()
        thread.join()


def lateness_s(path, since_ns, until_ns):
    """The longest that the reference took between these moments, also if it was not done by then."""
    longest = 0
    with contextlib.suppress(FileNotFoundError):
        for line in filter(str.strip, path.read_text().splitlines()):
            due, done = [*map(int, line.split()), until_ns][:2]
            if done >= since_ns and due <= until_ns:
                longest = max(longest, min(done, until_ns) - due)
    return longest / 1e9
