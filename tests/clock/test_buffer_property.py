"""The clock with the real buffer: what is delivered is in order, right within the stated error, and never twice."""

import itertools
import re

from hypothesis import HealthCheck, given, settings
from hypothesis import strategies as st

from agent.buffer.buffer import open_buffer
from agent.clock.backdating import Dating
from agent.clock.kernel import MAX_ERROR_NS
from agent.clock.sources import SECOND
from agent.config.settings import BufferSettings
from agent.points.schema import Line
from tests.clock_world import DAY, HOUR, NOW_NS, World, error_ns

MS = 1_000_000
BOOT = "00000000-0000-4000-8000-000000000001"

EVENTS = st.one_of(
    st.tuples(st.just("measure"), st.integers(1, 20)),
    st.tuples(st.just("deliver"), st.just(0)),
    st.tuples(st.just("commit"), st.just(0)),
    st.tuples(st.just("wait"), st.sampled_from([150 * MS, 60 * SECOND, HOUR, 10 * HOUR])),
    st.tuples(st.just("step"), st.sampled_from([-2 * HOUR, 5 * 365 * DAY, -SECOND])),
    st.tuples(st.just("synchronise"), st.sampled_from([0, 300 * MS, -300 * MS])),
    st.tuples(st.just("suspend"), st.sampled_from([SECOND, 3 * DAY])),
    st.tuples(st.just("contact"), st.sampled_from([2 * MS, 900 * MS])),
    st.tuples(st.just("restart"), st.booleans()),
)


class Device:
    """An agent in a world: two sensors, whose points carry a number that tells when they were really measured."""

    def __init__(self, world, folder):
        self.world, self.folder = world, folder
        self.delivered = {}
        self.open()

    def open(self):
        self.clock = self.world.clock(self.folder)
        self.buffer = open_buffer(self.folder / "buffer", BufferSettings(), self.clock)
        self.dating = Dating(self.clock, self.buffer)

    def measure(self, times):
        for _ in range(times):
            number = len(self.world.readings)
            boot = self.world.measure()
            self.buffer.put([Line(b"environment,sensor=%d n=%di" % (s, number), boot) for s in (1, 2)])
            self.world.wait(200 * MS)

    def deliver(self):
        for take in (self.buffer.take_live, self.buffer.take_backlog):
            while (batch := take(5000)) is not None:
                for line in batch.lines():
                    sensor, number, stamp = map(int, re.fullmatch(rb".*sensor=(\d) n=(\d+)i (\d+)", line).groups())
                    error = error_ns(self.clock, self.world.readings[number][0])
                    before, _ = self.delivered.setdefault((sensor, number), (stamp, error))
                    assert stamp == before, "sent again with another time: two points on the server"
                self.buffer.delivered(batch)

    def restart(self, cut):
        if cut:  # what is not on disk is lost
            self.buffer._disk.close()
            self.buffer._hold.release()
        else:
            self.dating.apply()
            self.buffer.close()
            self.clock.close()
        self.world.wait(150 * MS)
        self.open()


@settings(max_examples=40, deadline=None, suppress_health_check=[HealthCheck.too_slow])
@given(
    events=st.lists(EVENTS, max_size=25),
    drift=st.integers(-60, 60),
    wall=st.sampled_from([0, 3 * SECOND, -40 * DAY]),
    kernel=st.sampled_from([None, MAX_ERROR_NS]),
)
def test_promise_5_what_is_delivered_is_in_order_right_and_never_twice(tmp_path_factory, events, drift, wall, kernel):
    world = World(drift_ppm=drift, wall_ns=NOW_NS + wall, max_error_ns=kernel, boot_id=BOOT)
    device = Device(world, tmp_path_factory.mktemp("device"))
    for event, value in events:
        match event:
            case "measure" | "restart":
                getattr(device, event)(value)
            case "deliver":
                device.deliver()
            case "commit":
                device.buffer.commit_all()
            case "contact":
                world.contact(device.clock, travel_ns=value)
            case "synchronise":
                if world.max_error_ns is not None:
                    world.synchronise(value)
            case _:
                getattr(world, event)(value)
        device.clock.poll()
        device.dating.apply()
    device.buffer.commit_all()
    device.deliver()
    assert device.buffer.snapshot().unaccounted == 0
    for sensor in (1, 2):
        stamps = [stamp for (of, _), (stamp, _) in sorted(device.delivered.items()) if of == sensor]
        assert all(a < b for a, b in itertools.pairwise(stamps))
    for (_, number), (stamp, error) in device.delivered.items():
        true = world.readings[number][1]
        assert abs(stamp - true) <= error + 2 * MS, f"{(stamp - true) / SECOND} s off, said {error / SECOND}"
    if device.clock.state().good:
        assert device.buffer.snapshot().undated == 0
    device.buffer.close()
