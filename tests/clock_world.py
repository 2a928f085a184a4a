"""A world whose time is known: a board with its clocks, an NTP daemon's effects, and servers, all without waiting."""

from dataclasses import dataclass, field

from agent.clock.boots import Boots
from agent.clock.clock import Clock
from agent.clock.kernel import MAX_ERROR_NS, KernelClock
from agent.clock.sources import SECOND
from agent.clock.timeline import segment_at

NOW_NS = 1_800_000_000 * SECOND  # 2027-01-15
HOUR = 3600 * SECOND
DAY = 24 * HOUR
YEAR = 365 * DAY


def error_ns(clock, boot_ns):
    """The bound of the error of the time that date() gives: far from the evidence, the crystal has drifted more."""
    return segment_at(clock._segments, boot_ns).error_of(boot_ns)


@dataclass
class World:
    """True time in Unix ns; the board's clocks follow it with the crystal's drift, and are stepped and slewed."""

    true_ns: int = NOW_NS
    boot_ns: int = 20 * SECOND
    wall_ns: int = NOW_NS - 40 * DAY
    drift_ppm: int = 0
    max_error_ns: int | None = MAX_ERROR_NS  # None: adjtimex is refused
    remaining_ns: int = 0
    boot_id: str = "boot-1"
    readings: list[tuple[int, int]] = field(default_factory=list)  # (boot clock, true time)

    def clock(self, folder=None, trust="auto", **clocks):
        """`clocks`: other ways to read them."""
        boots = Boots(folder, self.boot_id)
        boots.begin()
        read = {"boot_ns": lambda: self.boot_ns, "wall_ns": lambda: self.wall_ns, "kernel": self.kernel}
        return Clock(boots, trust=trust, **read | clocks)

    def kernel(self):
        return None if self.max_error_ns is None else KernelClock(self.max_error_ns, self.remaining_ns)

    def wait(self, ns):
        """Time goes by: a slew of at most 500 ppm goes into both clocks, as the kernel does it."""
        ticked = ns + ns * self.drift_ppm // 1_000_000
        slew = max(-ns * 500 // 1_000_000, min(ns * 500 // 1_000_000, self.remaining_ns))
        self.remaining_ns -= slew
        self.true_ns += ns
        self.boot_ns += ticked + slew
        self.wall_ns += ticked + slew
        if self.max_error_ns is not None:
            self.max_error_ns = min(MAX_ERROR_NS, self.max_error_ns + ns * 500 // 1_000_000)

    def measure(self):
        self.readings.append((self.boot_ns, self.true_ns))
        return self.boot_ns

    def synchronise(self, owed_ns=0):
        """NTP: stepped right, or with so much left to be slewed."""
        self.wall_ns = self.true_ns - owed_ns
        self.remaining_ns = owed_ns
        self.max_error_ns = 5_000_000

    def step(self, ns):
        """`date -s`: the kernel stops vouching at once."""
        self.wall_ns += ns
        self.remaining_ns = 0
        if self.max_error_ns is not None:
            self.max_error_ns = MAX_ERROR_NS

    def suspend(self, ns):
        """The boot clock counts it, and the wall clock comes from the RTC."""
        self.true_ns += ns
        self.boot_ns += ns
        self.wall_ns += ns

    def reboot(self, off_ns, boot_id):
        """Power is away for `off_ns`; the board comes up with the time it went down with."""
        self.true_ns += off_ns
        self.boot_ns, self.boot_id = 20 * SECOND, boot_id
        self.max_error_ns, self.remaining_ns = MAX_ERROR_NS, 0

    def answer(self, clock, *, off_ns=0, travel_ns=40_000_000, source="http://influxdb:8086", written=True):
        """A server answers with its Date, whole seconds; `off_ns` is how wrong its clock is."""
        sent = self.boot_ns
        self.wait(travel_ns // 2)
        date = (self.true_ns + off_ns) // SECOND * SECOND
        self.wait(travel_ns - travel_ns // 2)
        clock.observe(date, SECOND, sent, self.boot_ns, source, written=written)

    def contact(self, clock, *, off_ns=0, travel_ns=40_000_000, most=20):
        """What delivery does at first contact: empty writes while the clock asks for them. Returns what it took, ns."""
        begun, asked = self.true_ns, 0
        while (wait := clock.probe_in()) is not None and asked < most:
            self.wait(round(wait * SECOND))
            self.answer(clock, off_ns=off_ns, travel_ns=travel_ns)
            asked += 1
        return self.true_ns - begun
