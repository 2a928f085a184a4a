"""What the center may change while the agent runs: interval, report, deadband, offset, location, refresh; within which
ranges, and what it comes to beside what agent.toml says. Pure.
"""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass, field, replace
from typing import Any, get_args

from agent.config.limits import check_id, may_deliver, not_a_band, not_an_offset, wrong
from agent.config.settings import Location, Report, SensorSettings, Settings

RANGES: Mapping[str, tuple[float, float, str]] = {
    "measurement_interval": (0.2, 86_400, "s"),
    "configuration_refresh": (10, 604_800, "s"),
    "default_lat": (-90, 90, "°"),
    "default_lon": (-180, 180, "°"),
}
TABLES = {"deadband": not_a_band, "offset": not_an_offset}
MOST = 50  # entries of a table


@dataclass(frozen=True, slots=True)
class RemoteConfiguration:
    """What the center said, within range; None, or nothing in a table, for what it did not say. Seconds and degrees.

    A table has values by quantity ("Temperature"), or by sensor and quantity ("bench.Temperature").
    """

    measurement_interval: float | None = None
    configuration_refresh: float | None = None
    location: Location | None = None
    report: Report | None = None
    deadband: Mapping[str, float] = field(default_factory=dict)
    offset: Mapping[str, float] = field(default_factory=dict)

    def said(self) -> dict[str, Any]:
        """As stored, and as `accept` takes it."""
        found = {
            "measurement_interval": self.measurement_interval,
            "configuration_refresh": self.configuration_refresh,
            "default_lat": self.location.lat if self.location else None,
            "default_lon": self.location.lon if self.location else None,
            "report": self.report,
            "deadband": dict(self.deadband) or None,
            "offset": dict(self.offset) or None,
        }
        return {name: value for name, value in found.items() if value is not None}


def accept(answer: Mapping[str, Any], old: RemoteConfiguration) -> tuple[RemoteConfiguration, tuple[str, ...]]:
    """The configuration after `answer`, and one sentence for each value that was refused: there the old one stays.

    What an answer names and leaves empty (null) is said no more; what it does not name stays.
    """
    good, refused = sifted(answer)
    for name in TABLES:
        if name in good:
            kept = {key: value for key, value in getattr(old, name).items() if f"{name}.{key}" in refused}
            good[name] |= kept
    return replace(old, **good), tuple(f"{name} from the center is refused: {why}" for name, why in refused.items())


def sifted(answer: Mapping[str, Any]) -> tuple[dict[str, Any], dict[str, str]]:
    """What is right in an answer, by attribute, and why not, what is wrong, by name: `offset.Temperature`."""
    good: dict[str, Any] = {}
    refused: dict[str, str] = {}
    for name, (low, high, unit) in RANGES.items():
        value = answer.get(name)
        if value is not None and (not is_number(value) or not low <= value <= high):
            refused[name] = f"{repr(value)[:40]} should be a number from {low:g} to {high:g} {unit}"
        elif name in answer:
            good[name] = None if value is None else float(value)
    place = [good.pop(name) for name in ("default_lat", "default_lon") if name in good]
    if len(place) == 2 and (place[0] is None) == (place[1] is None):
        good["location"] = None if place[0] is None else Location(*place)
    elif place and not {"default_lat", "default_lon"} & refused.keys():
        refused["location"] = "default_lat and default_lon come together"
    if (report := answer.get("report")) is not None and report not in get_args(Report):
        refused["report"] = f"{repr(report)[:40]} should be one of {', '.join(get_args(Report))}"
    elif "report" in answer:
        good["report"] = report
    for name, check in TABLES.items():
        table = answer.get(name)
        if table is not None and not (isinstance(table, Mapping) and len(table) <= MOST):
            refused[name] = f"should be a table of at most {MOST} numbers, by quantity"
        elif name in answer:
            good[name] = {}
            for key, value in (table or {}).items():
                sensor, dot, quantity = key.rpartition(".")
                why = wrong(check_id, sensor) if dot else None
                why = why or (check(quantity, value) if is_number(value) else "should be a number")
                if why:
                    refused[f"{name}.{key}"[:150]] = why.removeprefix(quantity).lstrip(" =:")
                else:
                    good[name][key] = float(value)
    return good, refused


def applied(settings: Settings, remote: RemoteConfiguration) -> Settings:
    """What to measure by: what agent.toml names wins, unless `remote = "prefer"`."""
    own, said = settings.device.location, remote.location
    location = own if said is None or (own is not None and not _prefers(settings)) else said
    sensors = tuple(_sensor(settings, number, remote) for number in range(len(settings.sensor)))
    return replace(settings, device=replace(settings.device, location=location), sensor=sensors)


def ruled(settings: Settings, number: int) -> frozenset[str]:
    """What agent.toml rules of a sensor: interval, report, deadband.QUANTITY; offset.QUANTITY by any calibration."""
    if _prefers(settings):
        return frozenset()
    table = settings.sensor[number]
    named = (name for name in ("interval", "report") if f"sensor[{number}].{name}" in settings.named)
    bands = (f"deadband.{quantity}" for quantity in table.deadband)
    return frozenset((*named, *bands, *(f"offset.{q}" for q in {**table.offset, **table.scale, **table.calibrate})))


def by_name(table: SensorSettings) -> dict[str, Any]:
    """The settings of a sensor that the center may change, by the names of `ruled`."""
    found: dict[str, Any] = {"interval": table.interval, "report": table.report}
    return found | {f"{name}.{key}": value for name in TABLES for key, value in getattr(table, name).items()}


def _sensor(settings: Settings, number: int, remote: RemoteConfiguration) -> SensorSettings:
    table, file = settings.sensor[number], ruled(settings, number)
    said = {"interval": remote.measurement_interval, "report": remote.report}
    new: dict[str, Any] = {name: value for name, value in said.items() if value is not None and name not in file}
    measured = may_deliver(table) if remote.deadband or remote.offset else ()
    bands, offsets = (
        {key: value for key, value in asked.items() if key in measured and f"{name}.{key}" not in file}
        for name, asked in ((name, _of(getattr(remote, name), table.name or table.driver)) for name in TABLES)
    )  # a deadband of what a sensor does not measure would hold back what has none
    for name in ("scale", "calibrate"):  # an offset of the center's stands in the place of all of a calibration
        new[name] = {key: line for key, line in getattr(table, name).items() if key not in offsets}
    return replace(table, **new, deadband={**table.deadband, **bands}, offset={**table.offset, **offsets})


def _of(values: Mapping[str, float], sensor: str) -> dict[str, float]:
    """By quantity: for every sensor, or better for this one."""
    own = {name.removeprefix(f"{sensor}."): value for name, value in values.items() if name.startswith(f"{sensor}.")}
    return {name: value for name, value in {**values, **own}.items() if "." not in name}


def _prefers(settings: Settings) -> bool:
    return settings.center is not None and settings.center.remote == "prefer"


def is_number(value: object) -> bool:
    return isinstance(value, int | float) and not isinstance(value, bool) and abs(value) < 1e12
