"""The whole `iot-agent run` on a state folder that was damaged at random: it starts and delivers what it measures."""

import json
import os
import random
import shutil

import pytest

from tests.servers import InfluxServer
from tests.system.numbered import NumberedAgent
from tests.system.test_sigkill import TO, numbers, wait_until


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


def damage(state, rng):
    """Damage one to three things in the folder. What was done."""
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
            path, what = rng.choices(files, weights)[0], rng.choice(DAMAGES)
            what(path, rng)
            done.append((str(path.relative_to(state)), what.__name__))
    return done


@pytest.fixture
def damaged(tmp_path):
    """An agent with a backlog and rejected points, killed."""
    made = NumberedAgent(tmp_path, "", interval="50ms", window_s=0.2)
    with InfluxServer() as server:
        server.script.append(server.store)
        server.always = server.answer(503)
        made.config.write_text(made.config.read_text() + TO.format(url=server.url))
        made.start()
        wait_until(lambda: len(made.measured()) > 60)
    made.process.kill()
    made.process.wait()
    (made.state / "control.sock").unlink()
    made.state.rename(tmp_path / "before")
    yield made
    made.end()


@pytest.mark.parametrize("times", [6, pytest.param(100, marks=[pytest.mark.slow, pytest.mark.timeout(1200)])])
def test_promise_3_whatever_is_damaged_in_its_folder_it_starts_and_delivers(damaged, tmp_path, times):
    for seed in range(times):
        rng = random.Random(seed)
        shutil.rmtree(damaged.state, ignore_errors=True)
        shutil.copytree(tmp_path / "before", damaged.state)
        done = damage(damaged.state, rng)
        damaged.log.write_text("")
        with InfluxServer() as server:
            damaged.config.write_text(
                damaged.config.read_text().rpartition("[influxdb]")[0] + TO.format(url=server.url)
            )
            last = max(damaged.measured())
            damaged.start()
            try:
                wait_until(lambda: max(numbers(server), default=0) > last + 3)  # noqa: B023 - ends within the round
                status = damaged.command("status", "--json")
                assert json.loads(status.stdout)["ledger"]["unaccounted"] == 0
                assert damaged.stop() == 0
            except BaseException:
                print(seed, done, damaged.log.read_text())
                raise
            finally:
                damaged.end()
