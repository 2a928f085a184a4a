"""What the servers have said about the time in this run, who of them may say it, and when to ask for more."""

from __future__ import annotations

from dataclasses import dataclass, field

from agent.clock.sources import BUILT_NS, LATEST_NS, LONG_NS, OBSERVED_AGE_NS, SECOND, Observation, joined

PROBE_EVERY_S = 0.55  # three answers in 1.1 s: far enough apart to agree, within the 2 s of promise 5
PROBE_SLOWLY_S = 5.0
_QUICKLY_NS = 15 * SECOND
_ENOUGH_NS = 5 * SECOND


@dataclass(slots=True)
class Servers:
    """A part of the clock, guarded by its lock. Moments are boot-clock nanoseconds."""

    observations: tuple[Observation, ...] = ()
    _proven: set[str] = field(default_factory=set)  # gave what nobody else gives
    _apart: tuple[int, int] | None = None  # when one contradicted another, and by how much
    _impossible: int | None = None  # when one last gave a date that cannot be

    @property
    def newest(self) -> Observation | None:
        return self.observations[-1] if self.observations else None

    def recent(self, now: int) -> list[Observation]:
        return [o for o in self.observations if now - o.received_boot_ns < OBSERVED_AGE_NS]

    def hear(self, seen: Observation, tolerance_ns: int, *, known: bool) -> bool | None:
        """Take an answer: whether its date counts from now on. None: it is let go by, as nothing counts yet of who
        sends it, or as nothing is new: the time is `known`, and who agrees is heard now and then.
        """
        if seen.written:
            self._proven.add(seen.source)
        elif seen.source not in self._proven and not seen.source.startswith("https:"):
            return None
        now, last = seen.received_boot_ns, self.newest
        if not BUILT_NS <= seen.date_ns < LATEST_NS or now < seen.sent_boot_ns:
            self._impossible = now
            return False
        apart_ns = last.apart_ns(seen) if last is not None else 0
        if known and last is not None and not apart_ns and 0 <= now - last.received_boot_ns < _ENOUGH_NS:
            return None
        if apart_ns > tolerance_ns:
            self._apart = now, apart_ns
        self.observations = joined(self.recent(now), seen, tolerance_ns)
        return self.newest is seen

    def warning(self, now: int, *, known: bool) -> str | None:
        """What a person should know of them."""
        if self._impossible is not None and now - self._impossible < OBSERVED_AGE_NS:
            return "a server's date is in the past, or centuries ahead: it is ignored"
        if not known and self._apart is not None and now - self._apart[0] < LONG_NS:
            return f"the servers' dates are {self._apart[1] / SECOND:.0f} s apart: points wait until they agree"
        return None

    def ask_in(self, now: int) -> float:
        """Seconds until another answer can help to settle the time."""
        if not self.observations:
            return 0.0
        last = self.observations[-1].received_boot_ns
        every = PROBE_EVERY_S if last - self.observations[0].received_boot_ns < _QUICKLY_NS else PROBE_SLOWLY_S
        return max(0.0, every - (now - last) / SECOND)
