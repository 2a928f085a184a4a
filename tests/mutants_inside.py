"""What `tests.mutants` has within a process of pytest: what each test reaches, and one attempt after the other."""

from __future__ import annotations

import contextlib
import gc
import importlib
import json
import os
import signal
import sys
import time
from pathlib import Path

import pytest

PLUGIN = "REACHED"
FAILED = Path("failed.txt")
LIMITS = Path("limits.json")
TOOK = pytest.StashKey()

# In the process that measures


def pytest_configure(config):
    if os.environ.get(PLUGIN):
        config.stash[TOOK] = {}


@pytest.hookimpl(wrapper=True)
def pytest_runtest_protocol(item):
    import coverage

    if TOOK in item.config.stash and (running := coverage.Coverage.current()) is not None:
        running.switch_context(item.nodeid)
        began = time.monotonic()
        try:
            return (yield)
        finally:
            item.config.stash[TOOK][item.nodeid] = time.monotonic() - began
            running.switch_context("")
    return (yield)


def pytest_runtest_logreport(report):
    if os.environ.get(PLUGIN) and report.skipped:
        with Path(os.environ[PLUGIN] + ".skipped").open("a") as file:
            file.write(report.nodeid + "\n")


def pytest_sessionfinish(session):
    if TOOK in session.config.stash:
        Path(os.environ[PLUGIN]).write_text(json.dumps(session.config.stash[TOOK]))


# In the process that tries: what all tests import is imported once, and each attempt is a fork of that

IMPORTED = ("hypothesis.stateful", "pytest_httpserver", "requests", "influxdb_client", "diskcache", "cattrs", "flask")
IMPORTED_IS_FINE = ("-W", "ignore::pytest.PytestAssertRewriteWarning")


class Noting:
    """Names the test that failed, or took longer than it may. An example that fails is not made smaller, which would
    take long: nobody reads it.
    """

    def pytest_collection(self):
        from hypothesis import Phase, settings

        known = settings.get_profile(settings.get_current_profile_name())
        settings.register_profile("mutants", known, phases=(Phase.explicit, Phase.generate), database=None)
        settings.load_profile("mutants")

    def pytest_collection_modifyitems(self, items):
        limits = json.loads(LIMITS.read_text())
        for item in items:
            item.add_marker(pytest.mark.timeout(limits.get(item.nodeid, 0)))

    def pytest_runtest_logreport(self, report):
        if report.failed:
            FAILED.write_text(report.nodeid)


def ready() -> int:
    """Reads attempts, [seconds, argument, …] a line, and answers with the exit code of each; None: it took too long."""
    for name in IMPORTED:
        importlib.import_module(name)
    gc.freeze()
    out = os.dup(1)
    for number in (1, 2):
        os.dup2(os.open(os.devnull, os.O_WRONLY), number)
    for line in sys.stdin:
        seconds, *arguments = json.loads(line)
        child = os.fork()
        if not child:
            os.setsid()
            os.dup2(os.open(os.devnull, os.O_RDONLY), 0)
            os._exit(int(pytest.main([*IMPORTED_IS_FINE, *arguments], plugins=[Noting()])))
        os.write(out, f"{json.dumps(ended(child, seconds))}\n".encode())
    return 0


def ended(child: int, seconds: float) -> int | None:
    """The exit code; None if it had to be killed. Nothing of it is left."""
    until, found = time.monotonic() + seconds, (0, 0)
    while not found[0] and time.monotonic() < until:
        found = os.waitpid(child, os.WNOHANG)
        time.sleep(0 if found[0] else 0.02)
    with contextlib.suppress(ProcessLookupError):
        os.killpg(child, signal.SIGKILL)
    if not found[0]:
        os.waitpid(child, 0)
        return None
    return os.waitstatus_to_exitcode(found[1])


if __name__ == "__main__":
    raise SystemExit(ready())
