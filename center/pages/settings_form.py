"""The form of a device's profile, and beside each setting what its agent says that it uses. Pure."""

from __future__ import annotations

import re
from collections.abc import Callable, Collection, Mapping
from dataclasses import dataclass
from functools import partial
from typing import Any

from agent.config.limits import MEASURED
from agent.config.units import format_duration, parse_duration
from center.pages import presentation
from center.profiles import Profile, Told, ToldSensor
from center.settings import DeviceDefaults
from drivers.base import QUANTITIES

REPORTS = {"mean": "mean", "mean_min_max": "mean, min, max"}
_NAMES = re.compile(r"name|group|notes|settings\.(?:interval|report|location\.(?:lat|lon)|(?:offset|deadband)\..+)")


@dataclass(frozen=True, slots=True)
class Entry:
    """One of the form, by the name that FieldsError has for it. `note`: what the device uses, as far as it says so."""

    name: str
    label: str
    value: str
    note: str = ""


def sent(form: Mapping[str, str]) -> dict[str, Any]:
    """The profile that a form holds, as the API takes it; what is no number stays a text, which will be refused."""
    profile: dict[str, Any] = {}
    for name, typed in form.items():
        if _NAMES.fullmatch(name) and (text := typed.strip().replace("\r\n", "\n")):
            table, (*path, key) = profile, name.split(".", 2)
            for step in path:
                table = table.setdefault(step, {})
            table[key] = _number(key, text) if path and key != "report" else text
    return profile


def _number(key: str, text: str) -> float | str:
    try:
        return parse_duration(text) if key == "interval" and text[-1].isalpha() else float(text)
    except ValueError:
        return text


def entries(profile: Profile, told: Told | None, defaults: DeviceDefaults, delivered: Collection[str]) -> list[Entry]:
    """All of a form; `delivered` are the fields that the store has of the device."""
    asked = profile.settings
    sensors = told.sensors if told else ()
    every = [(s.name, s.interval, "interval" in s.file) for s in sensors]
    reports = [(s.name, s.report or None, "report" in s.file) for s in sensors]
    interval_note = _note(asked.interval or defaults.measurement_interval, every, presentation.span)
    report_note = _note(asked.report or "mean", reports, REPORTS.get)
    found = [
        Entry("name", "Display name", profile.name),
        Entry("group", "Group", profile.group),
        Entry("notes", "Notes", profile.notes),
        Entry("settings.interval", "Reports every", _interval(asked.interval), interval_note),
        Entry("settings.report", "Reports", asked.report or "", report_note),
    ]
    for name, label in (("lat", "Latitude (°)"), ("lon", "Longitude (°)")):
        own, default = getattr(asked.location, name, None), getattr(defaults, f"default_{name}")
        used = [("", getattr(told.location, name, None), told.located)] if told else []
        note = _note(default if own is None else own, used, "{:g}°".format)
        found.append(Entry(f"settings.location.{name}", label, _text(own), note))
    for table, known in (("offset", MEASURED), ("deadband", QUANTITIES)):
        values = getattr(asked, table)
        for key in dict.fromkeys([*_keys(sensors, known, delivered), *values]):
            whose, _, quantity = key.rpartition(".")
            shape, name = presentation.look(quantity), f"{table}.{quantity}"
            own = {name.removesuffix(f".{quantity}") for name in values if name.endswith(f".{quantity}")} - {whose}
            having = [s for s in sensors if quantity in s.quantities and whose in ("", s.name) and s.name not in own]
            used = [(s.name, getattr(s, table).get(quantity), name in s.file) for s in having]
            note = _note(values.get(key, values.get(quantity)), used, partial(_with_unit, quantity))
            label = f"{whose} {shape.label} ({shape.unit})".strip()
            found.append(Entry(f"settings.{table}.{key}", label, _text(values.get(key)), note))
    return found


def _keys(sensors: Collection[ToldSensor], known: Collection[str], delivered: Collection[str]) -> list[str]:
    """The quantities of the device, those of several sensors by sensor."""
    keys = []
    for quantity in (name for name in known if name not in ("Lat", "Lon")):
        having = [sensor.name for sensor in sensors if quantity in sensor.quantities]
        keys += [f"{name}.{quantity}" for name in having] if len(having) > 1 else [quantity] * len(having)
    return keys or [name for name in known if name in delivered and name not in ("Lat", "Lon")]


def _note(asked: Any, used: Collection[tuple[str, Any, bool]], show: Callable[[Any], Any]) -> str:
    """What is in use, of each sensor if they differ, and why where it is not what is asked for."""
    groups: dict[tuple[Any, bool], list[str]] = {}
    for name, value, ruled in used:
        groups.setdefault((value, ruled), []).append(name)
    parts = []
    for (value, ruled), names in groups.items():
        whose = f"{', '.join(names)} " if len(groups) > 1 else ""
        what = f"{show(value) or value}" if value is not None else "a calibration" if ruled else "none"
        if value != asked or (ruled and value is None):
            what += ", as its agent.toml says" if ruled else ", until it asks again"
        if (value, asked, ruled) != (None, None, False):
            parts.append(f"{whose}{what}")
    return f"In use: {'; '.join(parts)}" if parts else ""


def _with_unit(quantity: str, value: float) -> str:
    return f"{presentation.number(value, quantity)} {presentation.unit(quantity)}"


def _text(value: float | None) -> str:
    return "" if value is None else f"{value:.12g}"


def _interval(seconds: float | None) -> str:
    return format_duration(seconds) if seconds and seconds % 1 == 0 else _text(seconds)
