"""The clock with the real buffer, whatever happens to the clocks, the servers and the power: what is delivered is right
within the stated error and never twice, and where everybody vouched for a wrong time, it is right once somebody knows.
"""

import re

from hypothesis import HealthCheck, example, given, settings
from hypothesis import strategies as st

from agent.buffer.buffer import open_buffer
from agent.clock.backdating import Dating
from agent.clock.kernel import MAX_ERROR_NS
from agent.clock.sources import SECOND, Anchor, aged
from agent.config.settings import BufferSettings
from agent.points.schema import Line
from tests.amounts import amount
from tests.buffers import cut_power
from tests.clock_world import DAY, HOUR, NOW_NS, YEAR, World, error_ns

MS = 1_000_000
BOOT = "00000000-0000-4000-8000-{:012d}"
LINE = re.compile(rb"environment,sensor=(\d)(,clock=estimated)? n=(\d+)i (\d+)")

TRUE = st.one_of(
    st.tuples(st.just("measure"), st.integers(1, 20)),
    st.tuples(st.just("deliver"), st.booleans()),
    st.tuples(st.just("commit"), st.just(0)),
    st.tuples(st.just("wait"), st.sampled_from([150 * MS, 5 * SECOND, 60 * SECOND, HOUR, 10 * HOUR])),
    st.tuples(st.just("step"), st.sampled_from([-2 * HOUR, 5 * YEAR, -SECOND])),
    st.tuples(st.just("synchronise"), st.sampled_from([0, 300 * MS, -300 * MS])),
    st.tuples(st.just("suspend"), st.sampled_from([SECOND, 3 * DAY])),
    st.tuples(st.just("portal"), st.sampled_from([-HOUR, HOUR, 10 * YEAR, -DAY])),
    st.tuples(st.just("wrong"), st.sampled_from([-HOUR, HOUR, 300_000_000 * SECOND, -300_000_000 * SECOND])),
    st.tuples(st.just("restart"), st.booleans()),
    st.tuples(st.just("reboot"), st.sampled_from([30 * SECOND, HOUR, 3 * DAY])),
)
FORGED = st.one_of(
    TRUE,
    st.tuples(st.just("vouch"), st.sampled_from([5 * YEAR, -HOUR, 2 * HOUR, 2 * DAY, -3 * SECOND])),
)


def parts(line):
    """Sensor, whether its time is estimated, number, stamp."""
    return LINE.fullmatch(line).groups()


class Device:
    """An agent in a world: two sensors, whose points carry a number that tells when they were really measured."""

    def __init__(self, world, folder):
        self.world, self.folder = world, folder
        self.boots = 1
        self.readings = []  # (boot id, boot clock, true time)
        self.delivered = {}  # (sensor, number) → (stamp, stated error, estimated)
        self.unsaved = set()  # of these, what the disk does not know of
        self.again = set()  # of these, what a power cut made forget that they are delivered
        self.last_wrong_ns = world.true_ns  # until then somebody who is believed said something wrong
        self.off_ns = 0  # how wrong the server's dates are
        self.open()

    def open(self):
        self.clock = self.world.clock(self.folder)
        self.buffer = open_buffer(self.folder / "buffer", BufferSettings(), self.clock)
        self.dating = Dating(self.clock, self.buffer)
        self.look()

    def look(self):
        self.dating.step()
        self.dating.apply()

    def measure(self, times):
        for _ in range(times):
            number = len(self.readings)
            self.readings.append((self.world.boot_id, self.world.boot_ns, self.world.true_ns))
            self.buffer.put([Line(b"environment,sensor=%d n=%di" % (s, number), self.world.boot_ns) for s in (1, 2)])
            self.world.wait(200 * MS)

    def answer(self, **how):
        self.world.answer(self.clock, off_ns=self.off_ns, **how)
        self.look()

    def deliver(self, lost):
        """As delivery does: ask for the time first, then the tail, then the backlog. The first answer may be lost."""
        for _ in range(200):
            wanted = self.clock.probe_in()
            if wanted is None:
                break
            self.world.wait(round(wanted * SECOND))
            self.answer()
        if self.clock.probe_in() is not None:
            return
        for take in (self.buffer.take_live, self.buffer.take_backlog):
            while (batch := take(5000)) is not None:
                self.receive(batch.lines())
                if lost:
                    self.buffer.keep(batch, sent=True)
                    for _ in range(2):  # from the transaction after on it is known on disk too
                        self.measure(1)
                        self.commit()
                    return
                self.buffer.delivered(batch)
                self.unsaved |= {(int(s), int(n)) for s, _, n, _ in map(parts, batch.lines())}
                self.answer()

    def commit(self):
        self.buffer.commit_all()
        self.unsaved.clear()

    def receive(self, lines):
        for line in lines:
            sensor, estimated, number, stamp = parts(line)
            key, stamp = (int(sensor), int(number)), int(stamp)
            error = self.error(*self.readings[key[1]][:2])
            if key in self.again and stamp != self.delivered[key][0]:
                self.again.remove(key)  # not known to be there, and by now another time is: docs/promises.md
                del self.delivered[key]
            before, *_ = self.delivered.setdefault(key, (stamp, error, bool(estimated)))
            assert stamp == before, "sent again with another time: two points on the server"

    def error(self, boot_id, boot_ns):
        if boot_id == self.clock.boot_id:
            return error_ns(self.clock, boot_ns)
        boot = next((b for b in self.clock.boots.order() if b.id == boot_id and b.good), None)
        if boot is None:  # forgotten meanwhile: it was known by servers at worst
            return SECOND
        anchors = (
            Anchor(boot.first_offset_ns, boot.evidence, boot.first_error_ns, boot.since_boot_ns),
            Anchor(boot.offset_ns, boot.evidence, boot.error_ns, boot.saved_boot_ns),
        )
        return max(aged(anchor, boot_ns).error_ns for anchor in anchors)

    def wrong(self, off_ns):
        """For 8 s the server's dates are wrong, then it is heard once more."""
        begun = self.world.true_ns
        self.off_ns = off_ns
        while self.world.true_ns < begun + 8 * SECOND:
            self.answer()
            self.world.wait(round((self.clock.probe_in() or 1) * SECOND))
        self.off_ns = 0
        self.answer()

    def restart(self, cut):
        self.shut(cut)
        self.world.wait(150 * MS)
        self.open()

    def reboot(self, off_ns):
        self.shut(cut=True)
        self.boots += 1
        self.world.reboot(off_ns, BOOT.format(self.boots))
        self.open()

    def shut(self, cut):
        if cut:  # what is not on disk is lost
            self.again |= self.unsaved
            cut_power(self.buffer)
            self.buffer._hold.release()
        else:
            self.buffer.close()
            self.clock.close()
        self.unsaved.clear()

    def happen(self, event, value):
        match event:
            case "measure" | "restart" | "deliver" | "reboot" | "wrong":
                getattr(self, event)(value)
            case "commit":
                self.commit()
            case "portal":
                self.world.answer(self.clock, off_ns=value, written=False, source="http://portal")
            case "synchronise":
                if self.world.max_error_ns is not None:
                    self.world.synchronise(value)
            case "vouch":
                if self.world.max_error_ns is not None:
                    self.world.step(value)
                    self.world.max_error_ns = 5 * MS
                    self.last_wrong_ns = None
            case _:
                getattr(self.world, event)(value)
        self.look()

    def settle(self):
        """Somebody who knows is there for as long as delivery needs."""
        for _ in range(2):
            self.commit()
            self.deliver(lost=False)

    def away_ns(self):
        """(how far off, stated) of what was delivered and is not marked as estimated."""
        for (_, number), (stamp, error, estimated) in self.delivered.items():
            if not estimated:
                yield number, abs(stamp - self.readings[number][2]), error


def check(device):
    assert device.buffer.snapshot().unaccounted == 0
    for sensor in (1, 2):
        stamps = [(stamp, estimated) for (of, _), (stamp, _, estimated) in device.delivered.items() if of == sensor]
        assert len(set(stamps)) == len(stamps), "one stamp for two points: the server keeps one"


WORLDS = {
    "drift": st.integers(-60, 60),
    "wall": st.sampled_from([0, 3 * SECOND, -40 * DAY]),
    "kernel": st.sampled_from([None, MAX_ERROR_NS]),
}
QUIET = [HealthCheck.too_slow, HealthCheck.filter_too_much]


@settings(max_examples=amount(15, 60), deadline=None, suppress_health_check=QUIET)
@given(events=st.lists(TRUE, max_size=25), **WORLDS)
def test_promise_5_what_is_delivered_is_right_within_the_stated_error_and_never_twice(
    tmp_path_factory, events, drift, wall, kernel
):
    world = World(drift_ppm=drift, wall_ns=NOW_NS + wall, max_error_ns=kernel, boot_id=BOOT.format(1))
    device = Device(world, tmp_path_factory.mktemp("device"))
    for event in events:
        device.happen(*event)
    device.settle()
    check(device)
    for _, away, error in device.away_ns():
        assert away <= error + 2 * MS, f"{away / SECOND} s off, said {error / SECOND}"
    assert device.buffer.snapshot().undated == 0
    device.buffer.close()


@settings(max_examples=amount(15, 60), deadline=None, suppress_health_check=QUIET)
@given(events=st.lists(FORGED, max_size=25), **WORLDS)
@example(  # what was guessed by a wrong time is guessed anew
    events=[("measure", 1), ("commit", 0), ("reboot", HOUR), ("vouch", 5 * YEAR), ("reboot", HOUR)],
    drift=0,
    wall=0,
    kernel=None,
)
def test_promise_5_where_the_kernel_vouched_for_a_wrong_time_all_is_right_from_when_it_is_known(
    tmp_path_factory, events, drift, wall, kernel
):
    world = World(drift_ppm=drift, wall_ns=NOW_NS + wall, max_error_ns=kernel, boot_id=BOOT.format(1))
    device = Device(world, tmp_path_factory.mktemp("device"))
    for event in events:
        device.happen(*event)
    if world.max_error_ns is not None:
        world.synchronise()
    for _ in range(3):  # a flush each
        device.happen("wait", 6 * SECOND)
        device.measure(1)
        device.settle()
    known = len(device.readings)
    device.measure(10)
    device.settle()
    check(device)
    assert device.buffer.snapshot().undated == 0
    after = [(away, error) for number, away, error in device.away_ns() if number >= known]
    assert len(after) == 20
    assert all(away <= min(error, SECOND + 60 * MS) + 2 * MS for away, error in after)
    device.buffer.close()
