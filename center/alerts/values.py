"""What rules look at, as numbers: of each device, by sensor. What is not known has none."""

from __future__ import annotations

from collections.abc import Callable, Collection, Mapping, Sequence
from dataclasses import dataclass, field
from itertools import pairwise
from statistics import linear_regression
from typing import TypeGuard

from center.alerts.rules import MEASURED, OVER, Rule
from center.health import troubles
from center.stores.telemetry import DAY_NS, HEALTH, HOUR_NS, LastValue, Sensor, Telemetry, Value, is_number

FRESH_NS = HOUR_NS  # an older value says nothing about now
SEEN_NS = 30 * DAY_NS
STEPS = 12  # of a window, that its course is known by
MIN_NS = 60_000_000_000
MOST = 1e12  # as of a threshold: what is further off is nobody's measurement

Lasts = Mapping[str, Sequence[LastValue]]
Values = Mapping[str, tuple[float | None, int]]
"""Value and its time (Unix ns) by sensor; "" for what is of the device."""


@dataclass(frozen=True, slots=True)
class Newest:
    """What the store has of the devices that rules ask about."""

    measured: Lasts
    told: Lasts
    seen: Mapping[str, int]


def newest(
    telemetry: Telemetry, wanted: Mapping[Rule, Collection[str]], now: int, between: Callable[[], object]
) -> Newest:
    """As few questions as answer all rules; each may take its time, and `between` them something is called."""

    def ids(*whats: str) -> list[str]:
        return sorted({device for rule, devices in wanted.items() if rule.what in whats for device in devices})

    measured, told, since = ids(*MEASURED), ids("failing", "backlog", "rejected", "clock"), now - FRESH_NS
    found = telemetry.last_values(measured, since_ns=since) if measured else {}
    between()
    health = telemetry.last_values(told, measurement=HEALTH, since_ns=since) if told else {}
    between()
    return Newest(found, health, telemetry.last_seen(since_ns=now - SEEN_NS) if ids("silent") else {})


@dataclass(slots=True)
class Memory:
    """What one look has to know of those before. `still`: of a device the time of its newest point, since when (s, by a
    clock that never steps) that is so, and whether it was seen to change. Forgotten when the store was away: then
    devices have as long as at the start to deliver.
    """

    still: dict[str, tuple[int, float, bool]] = field(default_factory=dict)
    courses: dict[tuple[str, str, str], list[tuple[int, float]]] = field(default_factory=dict)

    def silence(self, device: str, newest_ns: int | None, now: int, steady_s: float, limit_min: float) -> float | None:
        """Minutes. A device speaks as long as its newest point changes, however it is dated; and is silent once this
        center has seen none for as long as the limit. Of one without a point nothing is known.
        """
        known = self.still.get(device)
        if newest_ns is not None and (known is None or newest_ns > known[0]):
            known = self.still[device] = (newest_ns, steady_s, known is not None)
        if known is None:
            return None
        dated, still = (now - known[0]) / MIN_NS, (steady_s - known[1]) / 60
        if still > limit_min:
            return max(dated, still)
        return min(dated, still) if known[2] or dated <= limit_min else None

    def course(self, key: tuple[str, str, str], rule: Rule, value: float, at_ns: int) -> float | None:
        """What came of the values of a window: how much a counter rose, or how fast (in an hour) a quantity changes, by
        the line through all of them. None until the window is known.
        """
        window, samples = round(rule.window_min * MIN_NS), self.courses.setdefault(key, [])
        if samples and at_ns <= samples[-1][0]:
            pass
        elif len(samples) > 1 and at_ns - samples[-2][0] < window / STEPS:
            samples[-1] = (at_ns, value)
        else:
            samples.append((at_ns, value))
        while samples[0][0] < at_ns - 1.5 * window or (len(samples) > 2 and samples[1][0] <= at_ns - window):
            del samples[0]
        times, values = [at / HOUR_NS for at, _ in samples], [value for _, value in samples]
        whole = samples[-1][0] - samples[0][0] >= window
        if rule.what == "rejected":
            rise = sum(max(b - a, 0) for a, b in pairwise(values))
            return rise if whole or rise > rule.threshold else None
        return abs(linear_regression(times, values).slope) if whole and len(samples) > 2 else None

    def keep(self, known: Collection[str]) -> None:
        """Forget the courses of other rules."""
        self.courses = {key: samples for key, samples in self.courses.items() if key[0] in known}

    def values(  # noqa: PLR0917 - all that a value may come from
        self, rule_id: str, rule: Rule, device: str, there: Newest, firing: Collection[str], now: int, steady_s: float
    ) -> Values:
        """`firing`: the sensors of the device that the rule has something about."""
        if rule.what == "silent":
            return {"": (self.silence(device, there.seen.get(device), now, steady_s, rule.threshold), now)}
        if rule.what in MEASURED:
            found = {
                last.sensor.in_full: (float(last.value), last.time_ns)
                for last in there.measured.get(device, ())
                if last.field == rule.field and _counts(last.value) and rule.sensor in {"", last.sensor.label}
            }
        else:
            found = _told(rule, there.told.get(device, ()), firing)
        if rule.what in OVER:
            return {
                sensor: (self.course((rule_id + rule.about, device, sensor), rule, value, at), at)
                for sensor, (value, at) in found.items()
            }
        return found


def _told(rule: Rule, health: Sequence[LastValue], firing: Collection[str]) -> dict[str, tuple[float, int]]:
    said = {last.field: last for last in health if last.sensor == Sensor()}
    at = max((last.time_ns for last in said.values()), default=0)
    if not at:
        return {}
    if rule.what == "failing":
        fails = [t for t in troubles(health) if t.kind in {"failing", "silent"} and rule.sensor in {"", t.sensor}]
        return dict.fromkeys(firing, (0.0, at)) | {t.sensor: (t.seconds / 60, at) for t in fails}
    field_ = {"backlog": "pending", "rejected": "rejected", "clock": "clock_good"}[rule.what]
    if field_ not in said or not _counts(said[field_].value):
        return {}
    value = float(said[field_].value)
    return {"": (float(not value) if rule.what == "clock" else value, said[field_].time_ns)}


def _counts(value: Value) -> TypeGuard[float]:
    return is_number(value) and abs(value) < MOST
