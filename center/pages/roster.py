"""All devices at once: their names, and who is wanted by state, group, sensor and version."""

from __future__ import annotations

import re
from collections.abc import Callable, Mapping, Sequence
from dataclasses import asdict, dataclass
from functools import lru_cache
from typing import Any

from flask import g

from center.context import current_center
from center.pages import live
from center.pages.states import State, fades_s, judge, patience_s
from center.profiles import Profile, Told, profiles, told

SUGGESTED = 20
LONGEST = 64  # characters of what is looked for


@dataclass(frozen=True, slots=True)
class Entry:
    """A registered device as the list of all has it. `name`: "" where nobody gave it one; `seen`: Unix ns;
    `silent_after_s`: how long it may be quiet; `fades_s`: how old its values may be, where its agent does not tell.
    """

    id: str
    name: str
    group: str
    state: State
    seen: int | None
    version: str
    kinds: tuple[str, ...]
    silent_after_s: float
    fades_s: float

    @property
    def called(self) -> str:
        return self.name or self.id


@lru_cache(20_000)
def natural(text: str) -> tuple[str | int, ...]:
    """To sort by: Board 9 comes before Board 10."""
    parts = re.split(r"([0-9]+)", text.casefold())  # every second one is a number
    return tuple(int(part) if place % 2 else part for place, part in enumerate(parts))


SORTS: Mapping[str, tuple[str, Callable[[Entry], Any]]] = {
    "name": ("By name", lambda e: natural(e.called)),
    "seen": ("Newest point first", lambda e: -(e.seen or 0)),
    "silence": ("Longest silent first", lambda e: e.seen or 0),
    "state": ("By state", lambda e: e.state.label),
    "group": ("By group", lambda e: natural(e.group)),
    "version": ("Oldest version first", lambda e: natural(e.version)),
}


@dataclass(frozen=True, slots=True)
class Wanted:
    """Which devices, and in which order. "" is any."""

    search: str = ""
    state: str = ""
    group: str = ""
    sensor: str = ""
    version: str = ""
    sort: str = ""

    @classmethod
    def of(cls, asked: Mapping[str, str]) -> Wanted:
        return cls(**{name: asked.get(name, "").strip()[:LONGEST] for name in cls.__slots__})

    @property
    def said(self) -> dict[str, str]:
        """For an address."""
        return {name: value for name, value in asdict(self).items() if value}

    @property
    def any(self) -> bool:
        return not self.said.keys() - {"sort"}

    def choose(self, entries: Sequence[Entry]) -> list[Entry]:
        found = [
            entry
            for entry in entries
            if (not self.state or entry.state.name == self.state)
            and (not self.group or entry.group == self.group)
            and (not self.sensor or self.sensor in entry.kinds)
            and (not self.version or entry.version == self.version)
            and (not self.search or has(self.search, entry.id, entry.name))
        ]
        _, key = SORTS.get(self.sort, SORTS["name"])
        return sorted(found, key=lambda entry: (key(entry), natural(entry.called), entry.id))


def has(search: str, device_id: str, name: str) -> bool:
    """Whether the id or the name has that part, upper and lower case alike."""
    wanted = search.casefold()
    return wanted in device_id.casefold() or wanted in name.casefold()


def roster(now: int) -> list[Entry]:
    """Every registered device."""
    center = current_center()
    known, heard, seen = people(), told(center.registry), live.seen()
    nobody, nothing = Profile(), Told()
    entries = []
    for device in center.registry.devices().devices:
        profile, said, last = known.get(device.id, nobody), heard.get(device.id, nothing), seen.get(device.id)
        kinds = tuple(sorted({sensor.kind for sensor in said.sensors if sensor.kind}))
        patience = patience_s(profile, said), fades_s(profile, said)
        state = judge(last, now, patience[0])
        entries.append(Entry(device.id, profile.name, profile.group, state, last, said.version, kinds, *patience))
    return entries


def people() -> Mapping[str, Profile]:
    """What people say of devices, by id; read once in a request."""
    if "people" not in g:
        g.people = profiles(current_center().registry)
    found: Mapping[str, Profile] = g.people
    return found


def called(device_id: str) -> str:
    """The name of a device, or its id."""
    return people().get(device_id, Profile()).name or device_id


def suggestions(search: str = "") -> list[tuple[str, str]]:
    """Some devices to choose from, with their names, by a part of either; one that is called just so comes first."""
    known, nobody = people(), Profile()
    found = [(d.id, known.get(d.id, nobody).name) for d in current_center().registry.devices().devices]
    return sorted((one for one in found if has(search, *one)), key=lambda one: search not in one)[:SUGGESTED]
