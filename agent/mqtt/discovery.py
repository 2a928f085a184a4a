"""What is said over MQTT, and how Home Assistant learns of it: settings, device and sensors in, messages out. Pure.

Home Assistant's rules: https://www.home-assistant.io/integrations/mqtt/#mqtt-discovery, device discovery (2024.11).
"""

from __future__ import annotations

import json
import re
import zlib
from collections.abc import Callable, Iterable, Mapping
from dataclasses import asdict, dataclass
from datetime import UTC, datetime
from typing import Any

from agent import __version__
from agent.points.schema import STATISTICS, quantity_of
from agent.sensing.sensor_status import SensorStatus
from agent.status.health_rules import standing, troubles
from agent.util.errors import short
from drivers.base import label

BIRTH = "homeassistant/status"
"""Where Home Assistant says that it has started, and wants to hear all again."""
ONLINE, OFFLINE = b"online", b"offline"
_UNITS = {"%RH": "%"}  # as Home Assistant spells them
_STATISTIC = f"({'|'.join(STATISTICS)})$"
_NAME = "iot-edge-agent"
# fmt: off
_DIAGNOSTICS: Mapping[str, Mapping[str, str]] = {  # of the message `agent`; null becomes None: unknown
    "pending": {"platform": "sensor", "name": "Backlog", "unit_of_measurement": "points", "state_class": "measurement",
                "value_template": "{{ value_json.pending }}"},
    "last_delivery": {"platform": "sensor", "name": "Last delivery", "device_class": "timestamp",
                      "value_template": "{{ value_json.last_delivery }}"},
    "clock_good": {"platform": "binary_sensor", "name": "Clock is right",
                   "value_template": "{{ 'ON' if value_json.clock_good else 'OFF' }}"},
}
# fmt: on


@dataclass(frozen=True, slots=True)
class Topics:
    """Of one device below the prefix `topic`."""

    topic: str
    device: str

    def of(self, name: str) -> str:
        """`status`, `agent`, or a sensor's."""
        return f"{self.topic}/{self.device}/{plain(name, '.')}"

    @property
    def config(self) -> str:
        return f"homeassistant/device/{plain(self.device)}/config"


def plain(text: str, also: str = "") -> str:
    """In letters, digits, _ and -, which is all that Home Assistant takes. What is changed gets a checksum: ids that
    differ stay different.
    """
    found = re.sub(rf"[^A-Za-z0-9_{also}-]", "_", text)
    return found if found == text else f"{found}-{zlib.crc32(text.encode()):08x}"


def written(message: Mapping[str, Any]) -> bytes:
    return json.dumps(message, ensure_ascii=False, separators=(",", ":")).encode()


def state(
    status: SensorStatus, values: Mapping[str, float | int], time_ns: int | None, now_boot_ns: int
) -> dict[str, Any]:
    """Of a sensor: of the `values` that it reported last those that hold, by quantity, and when they were measured, if
    that is known; or the `problem` for which there are none. What its readings no longer have is not what it was.
    """
    sensor = {**asdict(status), "name": ""}
    for trouble in troubles({"boot_ns": now_boot_ns, "sensors": [sensor]}):
        if not trouble.quantity:
            return {"problem": short(trouble.why or "no reading any more")}
    present = standing(sensor, now_boot_ns)
    found = {name: value for name, value in values.items() if re.sub(_STATISTIC, "", name) in present}
    if not found:
        return {"problem": short(next((refusal.why for refusal in status.refused.values()), "no reading yet"))}
    return found if time_ns is None else {**found, "time": rfc3339(time_ns)}


def agent(snapshot: Mapping[str, Any], date: Callable[[int], int | None]) -> dict[str, Any]:
    """Of the agent itself, from its own snapshot."""
    last = (snapshot.get("delivery") or {}).get("last_success_boot_ns")
    delivered_ns = None if last is None else date(last)
    return {
        "pending": (snapshot.get("ledger") or {}).get("pending", 0),
        "clock_good": bool((snapshot.get("clock") or {}).get("good")),
        "last_delivery": None if delivered_ns is None else rfc3339(delivered_ns),
    }


def rfc3339(time_ns: int) -> str:
    """Unix nanoseconds in UTC, to the millisecond."""
    return datetime.fromtimestamp(time_ns // 1_000_000 / 1000, UTC).isoformat(timespec="milliseconds")[:-6] + "Z"


def config(topics: Topics, sensors: Iterable[Mapping[str, Any]], known: Iterable[str] = ()) -> dict[str, Any]:
    """The device with all its entities. `sensors` as Sensors.told() has them; `known` are keys of entities that Home
    Assistant may have from before: those that there are no longer are named without more, which removes them.
    """
    sensors = list(sensors)
    status = {"topic": topics.of("status")}
    found: dict[str, Any] = {}
    for sensor in sensors:
        statistics = STATISTICS if sensor["report"] == "mean_min_max" else ()
        for field in (name + end for name in sensor["quantities"] for end in ("", *statistics)):
            name = label(field) if len(sensors) == 1 else f"{sensor['name']} {label(field)}"
            found[f"{plain(sensor['name'])}_{field}"] = {"name": name, **_quantity(topics, sensor["name"], field)}
    common = {"state_topic": topics.of("agent"), "entity_category": "diagnostic"}
    for key, own in _DIAGNOSTICS.items():
        found[f"agent_{key}"] = {**common, **own, "unique_id": f"{topics.device}//{key}"}
    device = {"identifiers": [f"{_NAME}/{topics.device}"], "name": topics.device, "model": _NAME}
    return {
        "device": {**device, "sw_version": __version__},
        "origin": {"name": _NAME, "sw_version": __version__},
        "availability": [status],
        "components": {**{key: {"platform": "sensor"} for key in known}, **found},
    }


def _quantity(topics: Topics, sensor: str, field: str) -> dict[str, Any]:
    """Available while its sensor's message has it."""
    quantity, topic = quantity_of(field), topics.of(sensor)
    there = f"{{{{ 'online' if (value_json | default({{}})).{field} is defined else 'offline' }}}}"
    entity: dict[str, Any] = {
        "platform": "sensor",
        "unique_id": f"{topics.device}/{sensor}/{field}",
        "state_topic": topic,
        "value_template": f"{{{{ (value_json | default({{}})).{field} | default('None') }}}}",
        "availability": [{"topic": topics.of("status")}, {"topic": topic, "value_template": there}],
        "availability_mode": "all",
        "enabled_by_default": not field.endswith(STATISTICS),
    }
    if quantity is not None:
        entity["unit_of_measurement"] = _UNITS.get(quantity.unit, quantity.unit)
        entity["suggested_display_precision"] = quantity.decimals
        entity |= {"state_class": "measurement"} if quantity.unit != "°" else {}  # a mean of places is nowhere
        entity |= {"device_class": quantity.device_class} if quantity.device_class else {}
    return entity
