"""What the health points of an agent say of its sensors."""

from __future__ import annotations

from collections.abc import Sequence

from agent.status.health_rules import CAUSES, WORDS, Trouble
from center.stores.telemetry import LastValue, Sensor, is_number


def troubles(health: Sequence[LastValue]) -> list[Trouble]:
    """What is wrong with a device's sensors: a point of a sensor beside the newest one of the agent says so
    (agent/status/self_telemetry.py). One that is older is over.
    """
    now = max((last.time_ns for last in health if last.sensor == Sensor()), default=0)
    current = [last for last in health if last.sensor != Sensor() and last.time_ns >= now]
    causes = dict(enumerate(CAUSES.values(), 1))
    why = {
        last.sensor: causes.get(int(last.value), "")
        for last in current
        if last.field == "cause" and is_number(last.value)
    }
    found = []
    for last in current:
        kind, _, quantity = last.field.partition("_")
        if kind in WORDS and is_number(last.value):
            known = why.get(last.sensor, "") if kind == "failing" else ""
            found.append(Trouble(last.sensor.name, kind, last.value, quantity, known))
    return found
