"""What is wrong in a snapshot, in words: for /healthz, the page and `iot-agent status`. Pure."""

from __future__ import annotations

from collections.abc import Iterator, Mapping
from dataclasses import dataclass
from typing import Any

from agent.config.units import rough_duration
from drivers.base import QUANTITIES, WHOLE

WORDS = {
    "failing": "Sensor {sensor} fails for {time}",
    "silent": "Sensor {sensor}: no reading for {time}",
    "refused": "Sensor {sensor}: {quantity} refused for {time}",
    "stuck": "Sensor {sensor}: {quantity} has the very same raw value again and again: it seems to be stuck",
}

QUIET_S = 60.0  # so long at least; a transfer fails now and then
CAUSES = {
    "NotFound": "nothing answers there: is it plugged in?",
    "NoPermission": "its device file may not be opened",
    "WrongChip": "something else answers there",
    "Busy": "another driver holds it",
    "Transient": "transfers fail: is a wire loose?",
    "NotReady": "it has no fresh values",
}
"""Why a sensor fails, by the errors of the drivers' contract, for whom the agent's own words have not reached. A health
point has the number, from 1: new ones go to the end.
"""


@dataclass(frozen=True, slots=True)
class Trouble:
    """What is wrong with a sensor, a key of WORDS, for `seconds`; with one quantity of it, or with all (""). The center
    has it from the agent's health points and says it in these words.
    """

    sensor: str
    kind: str
    seconds: float
    quantity: str = ""
    why: str = ""
    cause: str = ""

    @property
    def words(self) -> str:
        said = WORDS[self.kind].format(sensor=self.sensor, quantity=self.quantity, time=rough_duration(self.seconds))
        return f"{said}: {self.why}" if self.why else said


def failing(snapshot: Mapping[str, Any], limit_s: float) -> list[str]:
    """Sensors, quantities and delivery that have failed for longer than `limit_s`; empty when all is well."""
    lasting = (*_sensors(snapshot), *_delivery(snapshot, "failing", "waiting"))
    return [text for seconds, text in lasting if seconds > limit_s]


def stuck(snapshot: Mapping[str, Any]) -> list[str]:
    """Quantities that do not move. They are delivered, as they may be true: no failure, and worth a look."""
    return [trouble.words for trouble in troubles(snapshot) if trouble.kind == "stuck"]


def problems(snapshot: Mapping[str, Any]) -> list[str]:
    """Everything that a person should know now, however short it has been."""
    found = [text for _, text in (*_sensors(snapshot), *_delivery(snapshot, "failing"))] + stuck(snapshot)
    registration = snapshot.get("registration") or {}
    if registration.get("error"):
        found.append(f"Registration: {registration['error']}")
    found += [f"Registration: {text}" for text in registration.get("refused") or ()]
    buffer = snapshot.get("buffer") or {}
    if held := (snapshot.get("delivery") or {}).get("held"):
        found.append(f"Delivery: {buffer.get('parked', 0):,} points are held back and tried again slowly: {held}")
    if buffer.get("problem"):
        found.append(f"Buffer: {buffer['problem']}")
    if error := (snapshot.get("mqtt") or {}).get("error"):
        found.append(f"MQTT: {error}")
    if (snapshot.get("clock") or {}).get("warning"):
        found.append(f"Clock: {snapshot['clock']['warning']}")
    return [*found, *snapshot.get("warnings", [])]


def _sensors(snapshot: Mapping[str, Any]) -> Iterator[tuple[float, str]]:
    """For how many seconds a sensor or a quantity has failed, and how."""
    return ((trouble.seconds, trouble.words) for trouble in troubles(snapshot) if trouble.kind != "stuck")


def troubles(snapshot: Mapping[str, Any]) -> Iterator[Trouble]:
    """What is wrong with sensors and their quantities."""
    now = snapshot.get("boot_ns", 0)
    for sensor in snapshot.get("sensors", []):
        name, since = sensor["name"], sensor.get("failing_since_boot_ns")
        last = sensor.get("boot_ns") or sensor.get("alive_boot_ns")  # a driver may hang before the first reading
        seconds = (now - (since or last or now)) / 1e9
        if since is not None:
            yield Trouble(name, "failing", seconds, why=str(sensor.get("problem")), cause=sensor.get("cause") or "")
        elif seconds > 3 * float(sensor.get("interval") or 0):
            yield Trouble(name, "silent", seconds)
        for quantity, refusal in (sensor.get("refused") or {}).items():
            yield Trouble(name, "refused", (now - refusal["since_boot_ns"]) / 1e9, quantity, refusal["why"])
        for quantity, stuck_since in (sensor.get("stuck") or {}).items():
            yield Trouble(name, "stuck", (now - stuck_since) / 1e9, quantity)


def standing(sensor: Mapping[str, Any], now: int) -> dict[str, float | int]:
    """Of the values that a sensor's section of a snapshot has those that hold at boot-clock nanosecond `now`: none once
    it fails, is silent or everything is refused, nor what is only derived from what is refused.
    """
    wrong = list(troubles({"boot_ns": now, "sensors": [sensor]}))
    refused = {trouble.quantity for trouble in wrong if trouble.kind != "stuck"}
    found = {name: value for name, value in sensor["values"].items() if name not in refused}
    measured = any(name in QUANTITIES and not QUANTITIES[name].derived for name in found)
    return found if measured and not refused & {"", WHOLE} else {}


def quiet(sensor: Mapping[str, Any], now: int) -> bool:
    """Whether a sensor's section of a snapshot says at boot-clock nanosecond `now` that something has been wrong with
    it for a while, and that it gives nothing.
    """
    lasting = max(QUIET_S, 3 * float(sensor.get("interval") or 0))
    wrong = any(trouble.seconds > lasting for trouble in troubles({"boot_ns": now, "sensors": [sensor]}))
    return wrong and not standing(sensor, now)


def _delivery(snapshot: Mapping[str, Any], *states: str) -> Iterator[tuple[float, str]]:
    """For how many seconds delivery has been in one of these states, and why."""
    delivery = snapshot.get("delivery") or {}
    if delivery.get("state") in states and delivery.get("since_boot_ns") is not None:
        seconds = (snapshot.get("boot_ns", 0) - delivery["since_boot_ns"]) / 1e9
        why = delivery.get("last_error") or (snapshot.get("registration") or {}).get("error") or "nobody says where to"
        yield seconds, f"Delivery is {delivery['state']} for {rough_duration(seconds)}: {why}"
