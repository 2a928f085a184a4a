"""What a person says of a device (its profile) and what its agent last told of itself: records, and their way to the
registry's documents.
"""

from __future__ import annotations

import json
import re
import zlib
from collections.abc import Collection, Iterator, Mapping
from dataclasses import asdict, dataclass, field, replace
from functools import lru_cache
from typing import Any

from agent.config.settings import Location, Report
from agent.registration.remote_config import is_number, sifted
from center.documents import FieldsError, structured, written
from center.stores.registry import MAX_DOCUMENT, Registry
from center.times import now_ns
from drivers.base import QUANTITIES

PROFILE, TOLD = "device", "told"  # kinds of documents; their names are device ids
LONGEST = {"name": 64, "group": 64, "notes": 2000}
TOLD_NS = 15 * 1_000_000_000  # agents tell again after 20 s at the earliest
_WORD = 64  # characters of a name that a device tells
_MOST = 64  # entries of a list that a device tells
_KEPT = 20_000  # parsed documents of each kind
_REFRESH_S = 3600.0  # of an agent that does not say how often it asks
_API_NAMES = {  # of what the agent knows by the names of the first centers
    "measurement_interval": "settings.interval",
    "default_lat": "settings.location.lat",
    "default_lon": "settings.location.lon",
}


@dataclass(frozen=True, slots=True)
class DeviceSettings:
    """What a device is asked to measure by. None, or nothing in a table: its agent.toml says it, or [devices] does.

    `interval` in seconds. `deadband` and `offset` in a quantity's unit, by quantity ("Temperature"), or by sensor and
    quantity ("bench.Temperature").
    """

    interval: float | None = None
    report: Report | None = None
    deadband: Mapping[str, float] = field(default_factory=dict)
    offset: Mapping[str, float] = field(default_factory=dict)
    location: Location | None = None

    def answer(self) -> dict[str, Any]:
        """As an agent is told, without what is not set."""
        found = asdict(self)
        place = found.pop("location") or {}
        found["measurement_interval"] = found.pop("interval")
        found |= {f"default_{name}": value for name, value in place.items()}
        return {name: value for name, value in found.items() if value not in (None, {})}


@dataclass(frozen=True, slots=True)
class Profile:
    """`name` is shown in the place of the id."""

    name: str = ""
    group: str = ""
    notes: str = ""
    settings: DeviceSettings = field(default_factory=DeviceSettings)


@dataclass(frozen=True, slots=True)
class ToldSensor:
    """A sensor as its device uses it now: every `interval` seconds, and while a deadband holds reports back every
    `heartbeat`. `file`: which of interval, report, deadband.QUANTITY and offset.QUANTITY its agent.toml rules;
    `quantities`: what it may deliver.
    """

    name: str = ""
    kind: str = ""
    driver: str = ""
    interval: float | None = None
    report: str = ""
    deadband: Mapping[str, float] = field(default_factory=dict)
    offset: Mapping[str, float] = field(default_factory=dict)
    file: tuple[str, ...] = ()
    quantities: tuple[str, ...] = ()
    heartbeat: float | None = None


@dataclass(frozen=True, slots=True)
class Told:
    """What an agent told of itself, and when (Unix ns) that last changed. `remote`: which side wins, "local" or
    "prefer"; `location` is the one it uses, by its agent.toml if `located`; it asks every `refresh` seconds.

    `quiet` are the names of those of its `sensors` that give nothing, since something is wrong with them.
    `run` is another at each start; one that comes again after another (`before`) is of two agents that both run with
    the secret of this device, last at `two_ns`: its card was copied.
    """

    version: str = ""
    address: str = ""
    remote: str = ""
    location: Location | None = None
    located: bool = False
    refresh: float | None = None
    sensors: tuple[ToldSensor, ...] = ()
    quiet: tuple[str, ...] = ()
    told_ns: int = 0
    run: str = ""
    before: str = ""
    two_ns: int = 0

    def of_two(self, now: int) -> bool:
        """Whether two agents take turns, or did until lately."""
        return now - self.two_ns < 3e9 * (self.refresh or _REFRESH_S)


def profiles(registry: Registry) -> Mapping[str, Profile]:
    """Of the devices that have one, by id."""
    return {name: _profile(text) for name, text in registry.documents(PROFILE).items()}


def told(registry: Registry) -> Mapping[str, Told]:
    """By device id, of the agents that have told something."""
    return {name: _told(text) for name, text in registry.documents(TOLD).items()}


def profile_of(registry: Registry, device_id: str) -> Profile:
    text = registry.document(PROFILE, device_id)
    return _profile(text) if text else Profile()


def told_of(registry: Registry, device_id: str) -> Told | None:
    text = registry.document(TOLD, device_id)
    return _told(text) if text else None


def stamp(profile: Profile) -> str:
    """Whether it is still the same one that a page showed."""
    return f"{zlib.crc32(written(profile).encode()):08x}"


def keep_profile(registry: Registry, device_id: str, profile: Profile) -> None:
    """In the place of the one before. FieldsError, with all that is wrong."""
    profile = checked(asdict(profile))
    registry.keep_document(PROFILE, device_id, None if profile == Profile() else written(profile))


def forget(registry: Registry, device_id: str) -> None:
    """What was kept of a device that is removed."""
    for kind in (PROFILE, TOLD):
        if registry.document(kind, device_id) is not None:
            registry.keep_document(kind, device_id, None)


def checked(given: Any) -> Profile:
    """The profile that this JSON is. FieldsError, with all that is wrong."""
    profile = structured(given, Profile, "a JSON object with name, group, notes and settings is needed")
    profile = replace(profile, **{name: getattr(profile, name).strip() for name in LONGEST})
    if wrong := dict(_wrong(profile)):
        raise FieldsError(wrong)
    return profile


def _wrong(profile: Profile) -> Iterator[tuple[str, str]]:
    """The joiners, which are not printable, hold many an emoji and words of some scripts together."""
    for name, most in LONGEST.items():
        text = getattr(profile, name)
        if len(text) > most:
            yield name, f"{len(text)} characters, more than {most}"
        elif not re.sub("[\u200c\u200d\n\r\t]" if name == "notes" else "[\u200c\u200d]", "", text).isprintable():
            yield name, "holds characters that cannot be shown"
    for name, why in sifted(profile.settings.answer())[1].items():
        yield _API_NAMES.get(name, f"settings.{name}"), why


def heard(given: Any) -> Told:
    """What a device tells of itself: untrusted, so what is wrong or too much in it is left out."""
    given = given if isinstance(given, dict) else {}
    sensors = [_sensor(found) for found in _list(given.get("sensors")) if isinstance(found, dict)]
    place = found if isinstance(found := given.get("location"), dict) else {}
    asked = {"configuration_refresh": given.get("refresh")}
    right, _ = sifted(asked | {f"default_{name}": place.get(name) for name in ("lat", "lon")})
    return Told(
        version=_word(given.get("version")),
        address=_word(given.get("address")),
        remote=_word(given.get("remote")),
        location=right.get("location"),
        located=given.get("located") is True,
        refresh=right.get("configuration_refresh"),
        sensors=tuple(sensors),
        quiet=_words(given.get("quiet")),
        run=_word(given.get("run")),
    )


def keep_told(registry: Registry, device_id: str, given: Any) -> None:
    """Written only where it differs from what was told before, and not more often than every TOLD_NS; sensors too many
    for a document are left out.
    """
    now, old = now_ns(), told_of(registry, device_id) or Told()
    new = replace(heard(given), told_ns=now, before=old.before, two_ns=old.two_ns)
    if new.run != old.run:
        new = replace(new, before=old.run, two_ns=now if new.run == old.before != "" else old.two_ns)
    while len(found := written(new)) > MAX_DOCUMENT:
        new = replace(new, sensors=new.sensors[:-1])
    if replace(new, told_ns=old.told_ns) != old and not 0 <= now - old.told_ns < TOLD_NS:
        registry.keep_document(TOLD, device_id, found)


def _sensor(given: Mapping[str, Any]) -> ToldSensor:
    times = _numbers(given, ("interval", "heartbeat"))
    return ToldSensor(
        name=_word(given.get("name")),
        kind=_word(given.get("kind")),
        driver=_word(given.get("driver")),
        interval=times.get("interval"),
        report=_word(given.get("report")),
        deadband=_numbers(given.get("deadband"), QUANTITIES),
        offset=_numbers(given.get("offset"), QUANTITIES),
        file=_words(given.get("file")),
        quantities=tuple(name for name in _words(given.get("quantities")) if name in QUANTITIES),
        heartbeat=times.get("heartbeat"),
    )


def _list(value: object) -> list[Any]:
    return value[:_MOST] if isinstance(value, list) else []


def _word(value: object) -> str:
    return value[:_WORD] if isinstance(value, str) and value[:_WORD].isprintable() else ""


def _words(value: object) -> tuple[str, ...]:
    return tuple(word for word in map(_word, _list(value)) if word)


def _numbers(value: object, known: Collection[str]) -> dict[str, float]:
    """The numbers of a table under names that are known, if they are of a size that can be."""
    table = value if isinstance(value, dict) else {}
    return {name: float(table[name]) for name in known if is_number(table.get(name))}


@lru_cache(_KEPT)
def _profile(text: str) -> Profile:
    try:
        return structured(json.loads(text), Profile, "")
    except ValueError:  # of a later version
        return Profile()


@lru_cache(_KEPT)
def _told(text: str) -> Told:
    given = json.loads(text)
    return replace(
        heard(given), told_ns=given["told_ns"], before=given.get("before", ""), two_ns=given.get("two_ns", 0)
    )
