"""What is wrong in a snapshot, in words: for /healthz and the page. Pure."""

from __future__ import annotations

from collections.abc import Mapping
from typing import Any


def failing(snapshot: Mapping[str, Any], limit_s: float) -> list[str]:
    """Sensors, quantities and delivery that have failed for longer than `limit_s`; empty when all is well."""
    found = []
    now = snapshot.get("boot_ns", 0)
    for sensor in snapshot.get("sensors", []):
        since = sensor.get("failing_since_boot_ns")
        last = sensor.get("boot_ns") or sensor.get("alive_boot_ns")  # a driver may hang before the first reading
        silent_s = max(limit_s, 3 * float(sensor.get("interval") or 0))
        if since is not None and now - since > limit_s * 1e9:
            found.append(f"sensor {sensor['name']} fails for {ago((now - since) / 1e9)}: {sensor.get('problem')}")
        elif since is None and last is not None and now - last > silent_s * 1e9:
            found.append(f"sensor {sensor['name']}: no reading for {ago((now - last) / 1e9)}")
        for quantity, refusal in (sensor.get("refused") or {}).items():
            refused_s = (now - refusal["since_boot_ns"]) / 1e9
            if refused_s > limit_s:
                found.append(f"sensor {sensor['name']}: {quantity} refused for {ago(refused_s)}: {refusal['why']}")
    delivery = snapshot.get("delivery") or {}
    since = delivery.get("since_boot_ns")
    if delivery.get("state") != "delivering" and since is not None and now - since > limit_s * 1e9:
        why = delivery.get("last_error") or (snapshot.get("registration") or {}).get("error") or "nobody says where to"
        found.append(f"delivery is {delivery.get('state')} for {ago((now - since) / 1e9)}: {why}")
    return found


def stuck(snapshot: Mapping[str, Any]) -> list[str]:
    """Quantities that do not move. They are delivered, as they may be true: no failure, and worth a look."""
    return [
        f"Sensor {sensor['name']}: {quantity} has the very same raw value again and again: it seems to be stuck"
        for sensor in snapshot.get("sensors", [])
        for quantity in sensor.get("stuck") or {}
    ]


def problems(snapshot: Mapping[str, Any]) -> list[str]:
    """Everything that a person should know now, however short it has been."""
    found = []
    for sensor in snapshot.get("sensors", []):
        if sensor.get("problem"):
            found.append(f"Sensor {sensor['name']}: {sensor['problem']}")
        for quantity, refusal in (sensor.get("refused") or {}).items():
            found.append(f"Sensor {sensor['name']}: {quantity} refused: {refusal['why']}")
    found += stuck(snapshot)
    registration = snapshot.get("registration") or {}
    if registration.get("error"):
        found.append(f"Registration: {registration['error']}")
    delivery = snapshot.get("delivery") or {}
    if delivery.get("state") == "failing" and delivery.get("last_error"):
        found.append(f"Delivery: {delivery['last_error']}")
    buffer = snapshot.get("buffer") or {}
    if buffer.get("problem"):
        found.append(f"Disk: {buffer['problem']}")
    if (snapshot.get("clock") or {}).get("warning"):
        found.append(f"Clock: {snapshot['clock']['warning']}")
    return [*found, *snapshot.get("warnings", [])]


def ago(seconds: float) -> str:
    """`90 s`, `12 min`, `5 h`, `3 d`."""
    for unit, size in (("d", 86_400), ("h", 3600), ("min", 60)):
        if seconds >= 2 * size:
            return f"{seconds / size:.0f} {unit}"
    return f"{max(0.0, seconds):.0f} s"
