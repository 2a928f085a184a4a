"""The whole `iot-agent run` on a state folder that was damaged at random: it starts, delivers what it measures, ends.

A sample here, its seed printed; 200 with SOAK=1. SEED=… repeats one.
"""

import json
import os
import random
import shutil
import time

import pytest

from tests.amounts import SEED, amount
from tests.fake_center import FakeCenter
from tests.servers import InfluxServer
from tests.system.numbered import NumberedAgent
from tests.system.test_sigkill import numbers
from tests.waiting import wait_for

ROUNDS = amount(2, 10)
PARTS = 20 if os.environ.get("SOAK") else 3
STOP_S = 30.0  # TimeoutStopSec of the service
TO = """
[center]
url = "{url}"
"""


def truncate(path, rng):
    os.truncate(path, rng.randrange(path.stat().st_size + 1))


def zero(path, rng):
    overwrite(path, rng, bytes)


def scramble(path, rng):
    overwrite(path, rng, rng.randbytes)


def flip(path, rng):
    overwrite(path, rng, rng.randbytes, 1)


def overwrite(path, rng, content, longest=5000):
    size = path.stat().st_size
    at = rng.randrange(size + 1)
    with path.open("r+b") as file:
        file.seek(at)
        file.write(content(rng.randint(1, longest)))


def refill(path, rng):
    path.write_bytes(rng.randbytes(rng.choice([0, 1, 100, 100_000])))


def remove(path, _):
    path.unlink()


def folder(path, _):
    path.unlink()
    path.mkdir()
    (path / "x").write_text("x")


def pipe(path, _):
    path.unlink()
    os.mkfifo(path)


def dangling(path, _):
    path.unlink()
    path.symlink_to("/nowhere/at/all")


def elsewhere(path, _):
    path.unlink()
    path.symlink_to("/proc/self/mounts")


DAMAGES = [truncate, zero, scramble, flip, refill, remove, folder, pipe, dangling, elsewhere]


def exchange(path, rng, there):
    """What a card brings back: a file, or blocks of it, of an earlier moment, or of another run."""
    if rng.random() < 0.5:
        shutil.copy(there, path)
        return
    stale = there.read_bytes()
    with path.open("r+b") as file:
        for _ in range(rng.randrange(1, 6)):
            start = rng.randrange(len(stale) // 512 + 1) * 512
            file.seek(start)
            file.write(stale[start : start + 512])


def damage(state, rng, others):
    """Damage one to three things in the folder; `others` are such folders too. What was done."""
    done = []
    for _ in range(rng.choice([1, 1, 2, 3])):
        files = [path for path in state.rglob("*") if path.is_file() and not path.is_symlink()]
        folders = [path for path in state.rglob("*") if path.is_dir()]
        if folders and rng.random() < 0.05:
            path, what = rng.choice(folders), "gone"
            shutil.rmtree(path)
            if rng.random() < 0.5:
                what = "a file"
                path.write_text("x")
            done.append((str(path.relative_to(state)), what))
        elif files:
            weights = [30 if "cache.db" in path.name else 10 for path in files]
            path = rng.choices(files, weights)[0]
            name, other = str(path.relative_to(state)), rng.choice(others) if others else None
            if other is not None and rng.random() < 0.2 and (other / name).is_file():
                exchange(path, rng, other / name)
                done.append((name, f"as in {other.name}"))
            else:
                what = rng.choice(DAMAGES)
                what(path, rng)
                done.append((name, what.__name__))
    return done


class Center(FakeCenter):
    """Issues tokens that its database takes, each instead of the one before."""

    def __init__(self, httpserver, database):
        super().__init__(httpserver)
        self.database = database
        self.place["influx_url"] = database.url

    def issue(self, device_id):
        issued = super().issue(device_id)
        self.database.token = issued["token"]
        return issued


def killed(folder, center, readings, earlier=None):
    """The state folder of an agent that is killed with so many readings, most of them undelivered."""
    folder.mkdir()
    database = center.database
    database.script.append(database.store)
    database.always = database.answer(503)
    made = NumberedAgent(folder, TO.format(url=center.url), interval="50ms", window_s=0.2)
    try:
        made.start()
        if earlier is not None:
            wait_for(lambda: len(made.measured()) > readings // 2)
            shutil.copytree(made.state, earlier, ignore=shutil.ignore_patterns("*.sock"))
        wait_for(lambda: len(made.measured()) > readings)
    finally:
        made.end()
    (made.state / "control.sock").unlink()
    return made


@pytest.mark.timeout(600)
@pytest.mark.parametrize("part", [0, *(pytest.param(part, marks=pytest.mark.slow) for part in range(1, PARTS))])
def test_promise_3_whatever_is_damaged_in_its_folder_it_starts_delivers_and_ends(tmp_path, httpserver, part):
    with InfluxServer() as database:
        center = Center(httpserver, database)
        other = killed(tmp_path / "other", center, 20).state
        center.secrets.clear()
        before, earlier = tmp_path / "before", tmp_path / "earlier"
        agent = killed(tmp_path / "one", center, 60, earlier)
        agent.state.rename(before)
        database.always = None
        stops = []
        for number in range(part * ROUNDS, (part + 1) * ROUNDS):
            rng = random.Random(f"{SEED} {number}")
            shutil.rmtree(agent.state, ignore_errors=True)
            shutil.copytree(before, agent.state)
            done = damage(agent.state, rng, (earlier, other))
            agent.log.write_text("")
            center.secrets.clear()  # its secret may be lost: then the administrator's word is asked for
            last = max(agent.measured())
            agent.start()
            try:
                wait_for(lambda: max(numbers(database), default=0) > last + 3)  # noqa: B023 - ends within the round
                status = agent.command("status", "--json")
                assert json.loads(status.stdout)["ledger"]["unaccounted"] == 0
                began = time.monotonic()
                assert agent.stop() == 0
                stops.append(time.monotonic() - began)
                assert stops[-1] < STOP_S
                status = agent.command("status", "--json")
                assert json.loads(status.stdout)["ledger"]["unaccounted"] == 0
            except BaseException:
                print(f"SEED={SEED}, round {number}:", done, agent.log.read_text(), agent.command("status").stdout)
                raise
            finally:
                agent.end()
        print(f"\nseed {SEED}: {len(stops)} folders; the slowest stop took {max(stops):.2f} s")
