"""What the center may change while the agent runs: interval, location, refresh. Pure: ranges in, decisions out."""

from __future__ import annotations

from dataclasses import dataclass
from typing import TYPE_CHECKING, Any

from agent.config.settings import Location

if TYPE_CHECKING:
    from collections.abc import Mapping

RANGES: Mapping[str, tuple[float, float, str]] = {
    "measurement_interval": (0.2, 86_400, "s"),
    "configuration_refresh": (10, 604_800, "s"),
    "default_lat": (-90, 90, "°"),
    "default_lon": (-180, 180, "°"),
}


@dataclass(frozen=True, slots=True)
class RemoteConfiguration:
    """What the center said, within range; None for what it did not say. Seconds and degrees."""

    measurement_interval: float | None = None
    configuration_refresh: float | None = None
    location: Location | None = None

    def numbers(self) -> dict[str, float]:
        """As stored, and as `accept` takes it."""
        found = {
            "measurement_interval": self.measurement_interval,
            "configuration_refresh": self.configuration_refresh,
            "default_lat": self.location.lat if self.location else None,
            "default_lon": self.location.lon if self.location else None,
        }
        return {name: value for name, value in found.items() if value is not None}


def accept(answer: Mapping[str, Any], old: RemoteConfiguration) -> tuple[RemoteConfiguration, tuple[str, ...]]:
    """The configuration after `answer`, and one sentence for each value that was refused: there the old one stays."""
    good: dict[str, float] = {}
    refused: list[str] = []
    for name, (low, high, unit) in RANGES.items():
        value = answer.get(name)
        if value is None:
            continue
        if type(value) not in (int, float) or not low <= value <= high:
            shown = repr(value)[:40]
            refused.append(f"{name} = {shown} from the center is refused: a number from {low:g} to {high:g} {unit}")
        else:
            good[name] = float(value)
    location = old.location
    if "default_lat" in good and "default_lon" in good:
        location = Location(good["default_lat"], good["default_lon"])
    elif "default_lat" in good or "default_lon" in good:
        refused.append("a location from the center is refused: default_lat and default_lon come together")
    configuration = RemoteConfiguration(
        measurement_interval=good.get("measurement_interval", old.measurement_interval),
        configuration_refresh=good.get("configuration_refresh", old.configuration_refresh),
        location=location,
    )
    return configuration, tuple(refused)
