"""One sensor on schedule: reads its driver, judges, averages, and emits what is to be reported.

Moments lie on a grid of the boot clock, so the schedule neither drifts nor makes up for a stall with a burst: a moment
that passed is counted as missed. A sensor that fails is closed and opened again until it answers; nothing is emitted
meanwhile. Sampler.sample() decides, and takes the time as an argument.
"""

from __future__ import annotations

import logging
import threading
from collections.abc import Callable, Mapping
from dataclasses import replace
from typing import Any

from agent.config.settings import SensorSettings
from agent.registration.remote_config import by_name
from agent.sensing.aggregation import Deadband, summary
from agent.sensing.calibration import Calibration
from agent.sensing.plausibility import CONFIRMED, Stuck
from agent.sensing.schedule import Schedule
from agent.sensing.sensor_status import Refusal, SensorStatus
from agent.sensing.treatment import Treatment
from agent.util.loops import Loop
from drivers.base import Driver, Reading, boot_ns, checked, what_failed

log = logging.getLogger(__name__)

# An attempt to open takes milliseconds, so the back-off stays short: a sensor that is plugged in again is read at its
# next moment wherever these are a second or more apart.
BACKOFF_FIRST_NS = 50_000_000
AGAIN_NS = 300_000_000
"""So long after a reading in doubt the next is made, which may decide."""
BACKOFF_LIMIT_NS = 900_000_000
LONGEST_WAIT_S = 1.0  # between two signs of life, and until a new interval is noticed
_PROBLEMS_LOGGED = 10  # different ones, in one outage


class Sampler(Loop):
    """Reads one driver, in one thread (a util.loops.Loop). `emit` gets what is to be reported; it must not block.

    snapshot() and configure() may be called from any thread.
    """

    def __init__(
        self,
        settings: SensorSettings,
        driver: Driver,
        emit: Callable[[Reading], None],
        *,
        now: Callable[[], int] = boot_ns,
    ) -> None:
        self.driver = driver
        self.wakeup = threading.Event()
        self._settings, self._emit, self._now = settings, emit, now
        self._own = self._wanted = settings
        self._schedule: Schedule | None = None
        self._next = 1
        self._window: list[Reading] = []
        self._again_ns: int | None = None  # when to read once more between two moments of the schedule
        self._looks = 0  # how often that was since the last of them
        self._window_report = 0
        self._treatment = Treatment(settings)
        self._stuck = Stuck(settings.stuck_after)
        self._deadband = Deadband(settings.deadband, float(settings.heartbeat))
        self._open = False
        self._retry_ns: int | None = None
        self._backoff_ns = 0
        self._logged: set[str] = set()
        self._outage_missed = 0
        self._untaken = False  # what was last to be emitted
        self._status = SensorStatus(
            settings.name,
            driver.sensor,
            driver.describe(),
            float(settings.interval),
            calibration=self._treatment.calibration.described(),
            alive_boot_ns=now(),
        )

    def step(self) -> float:
        """Read if it is time. Seconds until the next look, which comes soon enough after a suspend."""
        due = self.sample(self._now())
        return min(max(0.0, (due - self._now()) / 1e9), LONGEST_WAIT_S)

    def finish(self) -> None:
        """What was read and not yet reported is reported, and the driver closed."""
        self._report()
        self._close()

    def snapshot(self) -> SensorStatus:
        return self._status

    def configure(self, settings: SensorSettings) -> None:
        """Go on with another interval, report, deadband or calibration, from the next reading on; an interval counts
        from the last moment. What was sampled so far counts for the next report, or ends with another calibration.
        """
        self._wanted = settings

    def _take_up(self, settings: SensorSettings) -> None:
        calibration = Calibration.of(settings)
        if calibration != self._treatment.calibration:
            self._report()  # a mean is of one calibration only, and what moved by it has moved
            self._treatment.calibration = calibration
            self._deadband = Deadband(heartbeat=self._deadband.heartbeat)
        self._deadband.bands = settings.deadband
        own, self._settings = by_name(self._own), settings
        remote = {name: value for name, value in by_name(settings).items() if own.get(name) != value}
        self._update(calibration=calibration.described(), remote=remote)

    def sample(self, now: int) -> int:
        """Do what is due at boot-clock nanosecond `now`; the moment of the next reading."""
        if (wanted := self._wanted) is not self._settings:
            self._take_up(wanted)
        self._update(alive_boot_ns=now)
        schedule = self._scheduled(now)
        if now < schedule.moment(self._next):
            return self._looked_again(now, schedule)
        index = schedule.index(now)
        self._missed(index - self._next)
        if schedule.report(index) != self._window_report:
            self._report()
            self._window_report = schedule.report(index)
        self._looks = 0
        reading = self._read(now)
        if reading is None:
            self._missed(1)
        else:
            self._take(reading)
        if schedule.completes(index):
            self._report()
        self._next = index + 1
        self._update(alive_boot_ns=self._now())
        return self._moment(schedule)

    def _moment(self, schedule: Schedule) -> int:
        """When to read next: a reading in doubt is decided by those that follow at once, not an interval later."""
        moment = schedule.moment(self._next)
        return moment if self._again_ns is None else min(self._again_ns, moment)

    def _looked_again(self, now: int, schedule: Schedule) -> int:
        if self._again_ns is not None and now >= self._again_ns:
            self._again_ns, self._looks = None, self._looks + 1
            reading = self._read(now)
            if reading is not None:
                self._take(reading)
            if schedule.completes(self._next - 1):
                self._report()
        return self._moment(schedule)

    def _scheduled(self, now: int) -> Schedule:
        """The schedule, made at the first step and again when another interval is wanted."""
        wanted = float(self._settings.interval)
        if self._schedule is None:
            first = now
        elif wanted != self._status.interval:
            last = self._schedule.moment(self._next - 1)
            period = Schedule.starting(0, wanted, self._settings.sample_every).period
            first = max(now, last + period)
        else:
            return self._schedule
        self._schedule = Schedule.starting(first, wanted, self._settings.sample_every)
        self._next, self._window_report = 1, 0
        self._update(interval=wanted)
        return self._schedule

    def _read(self, now: int) -> Reading | None:
        """A reading, or None where there is none; opens the driver first where it is not open."""
        if not self._open and self._retry_ns is not None and now < self._retry_ns:
            return None
        try:
            if not self._open:
                self.driver.open()
                self._open = True
                self._update(kind=self.driver.sensor, description=self.driver.describe())
            reading = checked(self.driver.read())
        except Exception as error:
            log.debug("sensor %s", self._label(), exc_info=True)
            self._failed(now, what_failed(self.driver, error), type(error).__name__)
            return None
        self._recovered(now)
        return reading

    def _failed(self, now: int, problem: str, cause: str) -> None:
        self._close()
        self._backoff_ns = min(max(BACKOFF_FIRST_NS, 2 * self._backoff_ns), BACKOFF_LIMIT_NS)
        self._retry_ns = now + self._backoff_ns
        since = self._status.failing_since_boot_ns
        if since is None:
            self._outage_missed = 0
        if problem not in self._logged and len(self._logged) < _PROBLEMS_LOGGED:
            self._logged.add(problem)
            log.warning("sensor %s: %s", self._label(), problem)
        self._update(
            errors=self._status.errors + 1,
            problem=problem,
            cause=cause,
            failing_since_boot_ns=now if since is None else since,
        )

    def _recovered(self, now: int) -> None:
        since = self._status.failing_since_boot_ns
        if since is not None:
            log.info(
                "sensor %s: reads again after %.1f s, %d readings missed",
                self._label(),
                (now - since) / 1e9,
                self._outage_missed,
            )
            self._update(failing_since_boot_ns=None, problem=None, cause="")
        self._retry_ns, self._backoff_ns = None, 0
        self._logged.clear()

    def _close(self) -> None:
        self._open = False
        try:
            self.driver.close()
        except Exception:  # whatever state it is in, the next open() decides
            log.debug("sensor %s: closing failed", self._label(), exc_info=True)

    def _take(self, reading: Reading) -> None:
        """Judge a reading and let what is believed of it count for the next report."""
        treated = self._treatment.of(reading)
        self._again_ns = None
        if self._treatment.undecided and self._looks < CONFIRMED:
            self._again_ns = reading.boot_ns + AGAIN_NS
            self._update(implausible=self._status.implausible + 1)
        elif treated.refused or self._status.refused:
            self._refuse(treated.refused, reading.boot_ns)
        if not treated.values:
            return
        self._stuck.see(reading)
        self._window.append(treated)
        self._update(
            readings=self._status.readings + 1,
            values=treated.values,
            boot_ns=treated.boot_ns,
            stuck=self._stuck.since_boot_ns(),
        )

    def _refuse(self, refused: Mapping[str, str], now: int) -> None:
        """Say what is refused from now on, and what no longer."""
        before = self._status.refused
        for name, why in refused.items():
            if name not in before:
                log.warning("sensor %s: %s refused: %s", self._label(), name, why)
        for name in before:
            if name not in refused:
                log.info("sensor %s: %s is measured again", self._label(), name)
        self._update(
            implausible=self._status.implausible + bool(refused),
            refused={
                name: Refusal(why, before[name].since_boot_ns if name in before else now)
                for name, why in refused.items()
            },
        )

    def _report(self) -> None:
        """Emit what the window holds, unless the deadband holds it back."""
        window, self._window = self._window, []
        if not window:
            return
        reading = summary(window, self._settings.report)
        if not self._deadband.passes(reading, self._schedule.period if self._schedule else 0):
            self._update(suppressed=self._status.suppressed + 1)
            return
        try:
            self._emit(reading)
        except Exception:  # the sensor is still there
            if not self._untaken:
                log.exception("sensor %s: a reading was not taken", self._label())
            self._untaken = True
            return
        self._untaken = False
        self._update(reported=self._status.reported + 1)

    def _missed(self, count: int) -> None:
        if count:
            self._outage_missed += count
            self._update(missed=self._status.missed + count)

    def _label(self) -> str:
        return self._settings.name or self._settings.driver

    def _update(self, **changes: Any) -> None:
        """Only the sampler's thread writes; readers get a whole record."""
        self._status = replace(self._status, **changes)
