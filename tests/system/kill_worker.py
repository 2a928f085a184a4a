"""Measures, buffers and delivers until it is killed. Arguments: folder, URL, first number, loss window in seconds.

Writes the number and the moment of each point to `measured`, before it is put.
"""

import sys
import time
from pathlib import Path

from agent.buffer.buffer import open_buffer
from agent.buffer.committer import Committer
from agent.clock.clock import ClockState
from agent.config.settings import BufferSettings, DeliverySettings
from agent.config.units import Seconds
from agent.delivery.delivery import Delivery
from agent.points.schema import Line
from agent.registration.target import Target
from agent.util.loops import LoopThread
from agent.util.secret import Secret
from drivers.base import boot_ns
from tests.system.lateness import watch


class SteadyClock:
    boot_id = Path("/proc/sys/kernel/random/boot_id").read_text().strip()
    offset_ns = 1_700_000_000_000_000_000

    def boot_ns(self):
        return boot_ns()

    def date(self, at):
        return at + self.offset_ns

    def state(self):
        return ClockState(good=True, evidence="always", since_boot_ns=0, offset_ns=self.offset_ns)

    def probe_in(self):
        return None

    def observe(self, *observation, **proof):
        pass


def main():
    folder, url, number, window = Path(sys.argv[1]), sys.argv[2], int(sys.argv[3]), float(sys.argv[4])
    clock = SteadyClock()
    buffer = open_buffer(folder / "buffer", BufferSettings(loss_window=Seconds(window)), clock, wait=False)
    loops = [LoopThread("committer", Committer(buffer))]
    target = Target(url, "my-org", "iot_center", Secret("token-1"))
    settings = DeliverySettings(flush_interval=Seconds(window / 2), timeout=Seconds(1))
    delivery = Delivery(buffer, lambda: target, clock, settings, lambda: None, loss_window=window)
    loops.append(LoopThread("delivery", delivery))
    watch(folder / "reference")
    with (folder / "measured").open("ab", 0) as log:
        while not (folder / "enough").exists():
            at = boot_ns()
            log.write(b"%d %d\n" % (number, at))
            buffer.put([Line(b"environment,device=pi-1 Number=%d" % number, at)])
            number += 1
            time.sleep(0.004)
    until = time.monotonic() + 30
    while (not (status := buffer.snapshot()).disk_ok or status.pending) and time.monotonic() < until:
        time.sleep(0.05)
    for loop in loops:
        loop.stop()
    for loop in loops:
        loop.join(40)
    buffer.close()
    status = buffer.snapshot()
    print(
        status.pending,
        status.unaccounted,
        status.counters.points.delivered,
        status.counters.points.measured,
        flush=True,
    )


if __name__ == "__main__":
    main()
