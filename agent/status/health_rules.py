"""What is wrong in a snapshot, in words: for /healthz, the page and `iot-agent status`. Pure."""

from __future__ import annotations

from collections.abc import Iterator, Mapping
from typing import Any

from agent.config.units import rough_duration


def failing(snapshot: Mapping[str, Any], limit_s: float) -> list[str]:
    """Sensors, quantities and delivery that have failed for longer than `limit_s`; empty when all is well."""
    lasting = (*_sensors(snapshot), *_delivery(snapshot, "failing", "waiting"))
    return [text for seconds, text in lasting if seconds > limit_s]


def stuck(snapshot: Mapping[str, Any]) -> list[str]:
    """Quantities that do not move. They are delivered, as they may be true: no failure, and worth a look."""
    return [
        f"Sensor {sensor['name']}: {quantity} has the very same raw value again and again: it seems to be stuck"
        for sensor in snapshot.get("sensors", [])
        for quantity in sensor.get("stuck") or {}
    ]


def problems(snapshot: Mapping[str, Any]) -> list[str]:
    """Everything that a person should know now, however short it has been."""
    found = [text for _, text in (*_sensors(snapshot), *_delivery(snapshot, "failing"))] + stuck(snapshot)
    registration = snapshot.get("registration") or {}
    if registration.get("error"):
        found.append(f"Registration: {registration['error']}")
    found += [f"Registration: {text}" for text in registration.get("refused") or ()]
    buffer = snapshot.get("buffer") or {}
    if buffer.get("problem"):
        found.append(f"Buffer: {buffer['problem']}")
    if (snapshot.get("clock") or {}).get("warning"):
        found.append(f"Clock: {snapshot['clock']['warning']}")
    return [*found, *snapshot.get("warnings", [])]


def _sensors(snapshot: Mapping[str, Any]) -> Iterator[tuple[float, str]]:
    """For how many seconds a sensor or a quantity has failed, and how."""
    now = snapshot.get("boot_ns", 0)
    for sensor in snapshot.get("sensors", []):
        name, since = f"Sensor {sensor['name']}", sensor.get("failing_since_boot_ns")
        last = sensor.get("boot_ns") or sensor.get("alive_boot_ns")  # a driver may hang before the first reading
        seconds = (now - (since or last or now)) / 1e9
        if since is not None:
            yield seconds, f"{name} fails for {rough_duration(seconds)}: {sensor.get('problem')}"
        elif seconds > 3 * float(sensor.get("interval") or 0):
            yield seconds, f"{name}: no reading for {rough_duration(seconds)}"
        for quantity, refusal in (sensor.get("refused") or {}).items():
            seconds = (now - refusal["since_boot_ns"]) / 1e9
            yield seconds, f"{name}: {quantity} refused for {rough_duration(seconds)}: {refusal['why']}"


def _delivery(snapshot: Mapping[str, Any], *states: str) -> Iterator[tuple[float, str]]:
    """For how many seconds delivery has been in one of these states, and why."""
    delivery = snapshot.get("delivery") or {}
    if delivery.get("state") in states and delivery.get("since_boot_ns") is not None:
        seconds = (snapshot.get("boot_ns", 0) - delivery["since_boot_ns"]) / 1e9
        why = delivery.get("last_error") or (snapshot.get("registration") or {}).get("error") or "nobody says where to"
        yield seconds, f"Delivery is {delivery['state']} for {rough_duration(seconds)}: {why}"
