"""Sampler, delivery, committer and another process at once: every point arrives, once, and is accounted for."""

import random
import threading
import time

import pytest

from agent.buffer.batch import DeadLetter, Part
from agent.buffer.committer import Committer
from agent.buffer.offline import OfflineBuffer
from agent.buffer.rows import Kind, pack
from agent.util.loops import LoopThread
from tests.amounts import amount
from tests.buffer.test_model import value
from tests.buffers import UNIX_NS, HandClock, accounted, drain, line, open_at


class RealClock(HandClock):
    def boot_ns(self):
        return time.monotonic_ns()


@pytest.mark.parametrize(("seed", "window"), [(1, 0), (2, 0.05), (3, 0.3)])
def test_all_at_once(tmp_path, seed, window):
    folder, enough = tmp_path / "buffer", amount(1500, 6000)
    clock = RealClock(offset_ns=None)
    buffer = open_at(folder, clock, loss_window=window)
    committed, stop = LoopThread("committer", Committer(buffer)), threading.Event()
    put, arrived, dead = [], [], []
    errors = []

    def guarded(work):
        def run():
            try:
                work()
            except BaseException as error:  # noqa: BLE001 - shown below
                errors.append(error)

        return threading.Thread(target=run)

    def measure(first):
        for number in range(first, first + 100_000):
            if stop.is_set():
                return
            buffer.put([line(clock, number, f"pi-{first}")])
            put.append(number)
            time.sleep(0.0005)

    def deliver():
        rng = random.Random(seed)
        while not stop.is_set():
            batch = (
                rng.choice([buffer.take_live, buffer.take_backlog])(rng.choice([1, 20, 500])) or buffer.take_parked()
            )
            if batch is None:
                time.sleep(0.001)
                continue
            time.sleep(rng.choice([0, 0, 0.01, 0.1]))
            fate, lines = rng.random(), batch.lines()
            if fate < 0.5:
                buffer.delivered(batch)
                arrived.extend(map(value, lines))
            elif fate < 0.8:
                buffer.keep(batch)
            else:
                cut = rng.randrange(len(lines) + 1)
                state = rng.choice(["pending", "suspect", "parked"])
                buffer.replace(
                    batch, [Part(tuple(lines[:cut]), state)], [DeadLetter(t, "parse", "", 1) for t in lines[cut:]]
                )
                dead.extend(map(value, lines[cut:]))

    def import_some():
        number = 10_000_000
        while not stop.wait(0.05):
            with OfflineBuffer(folder) as beside:
                texts = [b"m,d=%d Temperature=%d 17000000000000%05d" % (number, number + n, n) for n in range(20)]
                beside.add([pack(texts, Kind.PENDING)])
            put.extend(range(number, number + 20))
            number += 20

    def heal():
        while len(put) < enough // 4 and not stop.is_set():
            time.sleep(0.01)
        clock.offset_ns = UNIX_NS
        buffer.date_boot(clock.boot_id, UNIX_NS, estimated=False)

    def watch():
        while not stop.wait(0.003):
            accounted(buffer)

    threads = [guarded(watch), guarded(lambda: measure(0)), guarded(lambda: measure(1_000_000)), guarded(deliver)]
    threads += [guarded(import_some), guarded(heal)]
    for thread in threads:
        thread.start()
    until = time.monotonic() + 60
    while (len(put) < enough or len(arrived) < enough // 10 or not dead) and not errors and time.monotonic() < until:
        time.sleep(0.01)
    stop.set()
    for thread in threads:
        thread.join()
    committed.stop()
    committed.join()
    assert errors == []
    accounted(buffer)
    buffer.close()
    again = open_at(folder, clock)
    accounted(again)
    left = drain(again)
    while (batch := again.take_parked()) is not None:
        left += batch.lines()
        again.delivered(batch)
    accounted(again)
    again.close()
    everything = arrived + dead + list(map(value, left))
    assert len(everything) == len(set(everything))
    assert sorted(everything) == sorted(put)
