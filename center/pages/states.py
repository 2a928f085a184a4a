"""How a device is: live, silent or waiting, what its agent says went wrong, and the course of its day."""

from __future__ import annotations

import math
from collections.abc import Mapping, Sequence
from dataclasses import dataclass

from markupsafe import Markup

from center.context import current_center
from center.health import troubles
from center.pages import presentation
from center.profiles import Profile, Told, ToldSensor
from center.stores.telemetry import (
    DAY_NS,
    HOUR_NS,
    SECOND_NS,
    Curve,
    LastValue,
    Sensor,
    Value,
    is_number,
    labels,
    several,
)
from center.tables import ordered

INTERVALS = 3  # that a device may miss
STALE_AT_LEAST_S = 15.0  # a point is on its way for some seconds
REPLACED_NS = WAITING_NS = 30 * DAY_NS


@dataclass(frozen=True, slots=True)
class State:
    """Whether a device is heard of: `name` chooses the colour, `label` is what people read."""

    name: str
    label: str


@dataclass(frozen=True, slots=True)
class Notice:
    """Something that a person should look at: `kind` is warning for a silent device, alert where a rule says so, danger
    where the agent does. `since_ns` where a time says more than words.
    """

    device_id: str
    text: str
    kind: str
    since_ns: int | None = None


@dataclass(frozen=True, slots=True)
class Shown:
    """The last value of a field of one sensor on a page. `whose` is the sensor's label, "" where no field has several
    sensors; `stale`: older than three reporting intervals. `key`: what tells the sensor from any other, in each answer
    alike, also where it is the only one.
    """

    field: str
    sensor: Sensor
    whose: str
    value: Value
    time_ns: int
    stale: bool

    @property
    def key(self) -> str:
        return self.sensor.in_full


@dataclass(frozen=True, slots=True)
class Patience:
    """For how long a device may be quiet before it is called silent, and how old its values may be; in seconds."""

    silent_after_s: float
    stale_after_s: float


def judge(last_ns: int | None, now: int, silent_after_s: float, *, registered: bool = True) -> State:
    """Live within `silent_after_s` of the last point, then silent; waiting before the first, and after 30 days."""
    if last_ns is None or now - last_ns > WAITING_NS:
        return State("waiting", "Waiting for data")
    if now - last_ns > silent_after_s * SECOND_NS:
        return State("silent", "Silent")
    return State("live", "Live") if registered else State("unregistered", "Not registered")


def patience(profile: Profile | None, told: Told | None, health: Sequence[LastValue]) -> Patience:
    return Patience(patience_s(profile, told), stale_after_s(health, fades_s(profile, told)))


def patience_s(profile: Profile | None = None, told: Told | None = None) -> float:
    """For how long a device may be quiet before it is called silent: as the settings say, or longer where it reports
    that seldom. Of several sensors the one that reports most often tells that the device is there, without those that
    its agent says give nothing.
    """
    told = told or Told()
    giving = [sensor for sensor in told.sensors if sensor.name not in told.quiet]
    gap = min(_gaps_s(profile, giving)) if giving else max(_gaps_s(profile, told.sensors))
    return max(current_center().settings.devices.silent_after, INTERVALS * gap)


def fades_s(profile: Profile | None = None, told: Told | None = None) -> float:
    """How old a value of it may be where its agent does not tell: by the sensor that reports least often."""
    gap = max(_gaps_s(profile, told.sensors if told else ()))
    return max(current_center().settings.devices.silent_after, INTERVALS * gap)


def _gaps_s(profile: Profile | None, sensors: Sequence[ToldSensor]) -> list[float]:
    """How far the reports of each sensor may lie apart, by the interval that it is asked for, and by those, and the
    heartbeats of deadbands, that it told.
    """
    default = current_center().settings.devices.measurement_interval
    asked = (profile.settings.interval if profile else None) or default or 0.0
    return [
        max(s.interval or 0.0, s.heartbeat or 0.0 if s.deadband else 0.0, 0.0 if "interval" in s.file else asked)
        for s in sensors
    ] or [asked]


def newest(values: Sequence[LastValue] | None) -> int | None:
    """The time of the newest of these values."""
    return max((v.time_ns for v in values or ()), default=None)


def shown(lasts: Sequence[LastValue], now: int, stale_after_s: float = math.inf) -> list[Shown]:
    """The values of a device in the order of pages, without those of a sensor that another one has long replaced."""
    newest_of = {last.field: newest([other for other in lasts if other.field == last.field]) or 0 for last in lasts}
    kept = [last for last in lasts if last.time_ns > newest_of[last.field] - REPLACED_NS]
    named = labels(kept) if several(kept) else {}
    places = ordered(newest_of)
    return [
        Shown(
            last.field,
            last.sensor,
            named.get((last.field, last.sensor), ""),
            last.value,
            last.time_ns,
            now - last.time_ns > stale_after_s * SECOND_NS,
        )
        for last in sorted(kept, key=lambda last: (places.index(last.field), last.sensor))
    ]


def stale_after_s(health: Sequence[LastValue], otherwise_s: float) -> float:
    """How old a value of a device may be: three of the intervals that its agent reports at, as long as it tells them:
    not while a deadband holds reports back.
    """
    own = [v for v in health if v.sensor == Sensor()]
    interval = next((v.value for v in own if v.field == "interval" and v.time_ns == newest(own)), None)
    if is_number(interval) and interval > 0:
        return min(max(INTERVALS * interval, STALE_AT_LEAST_S), WAITING_NS / SECOND_NS)
    return otherwise_s


def sensor_notices(health: Mapping[str, Sequence[LastValue]]) -> list[Notice]:
    """What the agents' own health points say is wrong with sensors, for each device."""
    return [Notice(i, trouble.words, "danger") for i, lasts in health.items() for trouble in troubles(lasts)]


def counter_notices(told: Mapping[str, Mapping[str, Value]]) -> list[Notice]:
    """What the agents' counters and clocks say is wrong: their health points' fields, for each device."""
    words = {
        "rejected": "{} refused by the server and kept as dead letters: iot-agent rejected lists them",
        "dropped": "{} dropped for want of room",
        "unaccounted": "{} unaccounted for",
    }
    notices = []
    for device_id, values in told.items():
        for field, text in words.items():
            value = values.get(field)
            if is_number(value) and value > 0:
                notices.append(Notice(device_id, text.format(presentation.points(int(value))), "danger"))
        if values.get("clock_good") == 0:
            notices.append(Notice(device_id, "The clock is not synchronised: points wait for their time", "danger"))
    return notices


def copies(told: Mapping[str, Told], now: int) -> list[Notice]:
    """The devices as which two agents run."""
    text = (
        "Two agents run as this device, from one card or state folder and a copy of it; what they measure is mixed. "
        "On one of them stop the agent, remove its state folder, and give it another id"
    )
    return [Notice(device_id, text, "danger") for device_id, said in told.items() if said.of_two(now)]


def temperature_sparks(device_ids: list[str], now: int) -> dict[str, Markup]:
    """A day of temperature for each device, drawn."""
    start = now - DAY_NS
    curves = current_center().telemetry.sparklines(
        device_ids, "Temperature", start_ns=start, stop_ns=now, every_ns=HOUR_NS // 2
    )
    return {i: Markup("").join(spark(curve, start, now) for curve in found) for i, found in curves.items()}


def spark(curve: Curve, start: int, stop: int) -> Markup:
    """A curve as a sparkline; what is not a number is left out."""
    points = [(at / 1e9, float(v)) for at, v in zip(curve.times_ns, curve.values, strict=True) if is_number(v)]
    return presentation.sparkline(points, curve.field, start / 1e9, stop / 1e9)
