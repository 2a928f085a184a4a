"""What a snapshot says, in words: the same on the page, at the terminal and to the doctor. Pure."""

from __future__ import annotations

from collections.abc import Mapping
from typing import Any

from agent.config.units import counted, megabytes, rough_duration
from agent.points.schema import quantity_of
from drivers.base import label

WAITING = {
    "undated": "waiting for the time to be known",
    "parked": "held back and tried again slowly",
    "dead_letters": "refused for good and kept",
}
"""Points by where the buffer has them, but for those that just wait."""


def rows(snapshot: Mapping[str, Any]) -> list[tuple[str, str]]:
    """(what, in words): agent, clock, registration, delivery, buffer, counters. health_rules.py has what is wrong."""
    delivery, ledger, registration = (snapshot.get(key) or {} for key in ("delivery", "ledger", "registration"))
    found = [("Agent", f"running for {rough_duration(float(snapshot.get('uptime_s') or 0))}")]
    if not snapshot.get("running", True):
        found = [("Agent", "not running: this is what is on disk")]
    if last := snapshot.get("last"):
        age = (
            f"{rough_duration(snapshot['at'] - last['time_ns'] / 1e9)} ago" if last["time_ns"] else "time not known yet"
        )
        found.append(("Last values", f"{values(last['values'])} ({age})"))
    if "clock" in snapshot:
        found.append(("Clock", snapshot["clock"]["words"]))
    if registration.get("url"):
        found.append(("Server", f"{registration['url']}, bucket {registration.get('bucket')}"))
    if registration.get("state") not in (None, "registered"):
        found.append(("Registration", registration["state"]))
    if delivery:
        found.append(("Delivery", _delivery(delivery, snapshot.get("boot_ns", 0))))
    if mqtt := snapshot.get("mqtt"):
        found.append(("MQTT", _mqtt(mqtt, snapshot.get("boot_ns", 0))))
    found.append(("Buffer", _buffer(snapshot.get("buffer") or {})))
    found.append(("Ledger", equation(ledger)))
    if ledger.get("uncounted_s"):
        found.append(("Not counted", f"{ledger['uncounted_s']:.0f} s before unclean stops"))
    return found


def _delivery(delivery: Mapping[str, Any], now: int) -> str:
    text = str(delivery["state"])
    last = delivery.get("last_success_boot_ns")
    text += ", no success yet" if last is None else f", last success {rough_duration((now - last) / 1e9)} ago"
    if delivery["state"] == "failing" and delivery.get("next_attempt_s"):
        text += f", next attempt in {rough_duration(delivery['next_attempt_s'])}"
    if delivery.get("backlog"):
        text += f", backlog {counted(delivery['backlog'], 'point')}"
        if delivery.get("eta_s"):
            text += f" at {delivery['backlog_rate']:,.0f}/s: gone in {rough_duration(delivery['eta_s'])}"
    return text


def _mqtt(mqtt: Mapping[str, Any], now: int) -> str:
    since = rough_duration((now - mqtt["since_boot_ns"]) / 1e9)
    return f"{mqtt['broker']}, {mqtt['state']} for {since}, {counted(mqtt['published'], 'message')} published"


def _buffer(buffer: Mapping[str, Any]) -> str:
    text = f"{counted(buffer.get('pending_memory', 0), 'point')} in memory, {buffer.get('pending_disk', 0):,} on disk"
    text += f" ({megabytes(buffer.get('file_bytes', 0))})"
    return "; ".join([text, *(f"{buffer[key]:,} {words}" for key, words in WAITING.items() if buffer.get(key))])


def oldest_age_s(snapshot: Mapping[str, Any]) -> float | None:
    """For how many seconds the oldest point waits that has a time; None where none waits."""
    oldest, at = (snapshot.get("buffer") or {}).get("oldest_ns"), snapshot.get("at")
    return None if oldest is None or at is None else max(0.0, at - oldest / 1e9)


def equation(ledger: Mapping[str, Any]) -> str:
    """Where the points are that were measured."""
    parts = " + ".join(f"{ledger.get(key, 0):,} {key}" for key in ("delivered", "pending", "rejected", "dropped"))
    missing = f"; {ledger['unaccounted']:,} unaccounted for" if ledger.get("unaccounted") else ""
    return f"{ledger.get('measured', 0):,} measured = {parts}{missing}"


def number(field: str, value: float) -> tuple[str, str]:
    """The value with the resolution of its quantity, and the unit; drivers may have fields of their own."""
    quantity = quantity_of(field)
    if quantity is None:
        return f"{value}", ""
    return f"{value:.{min(quantity.decimals, 4)}f}", quantity.unit


def values(measured: Mapping[str, float]) -> str:
    """`Temperature 21.50 °C, Sea-level pressure 1021.40 hPa`."""
    return ", ".join(" ".join((label(field), *number(field, value))).strip() for field, value in measured.items())
