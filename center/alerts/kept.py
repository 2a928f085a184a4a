"""Rules, receivers, alerts and their events as documents of the registry."""

from __future__ import annotations

import json
import logging
import zlib
from collections import defaultdict
from collections.abc import Iterable, Mapping
from dataclasses import dataclass
from typing import Any, NamedTuple

from agent.util.secret import Secret
from center.alerts.rules import MOST_NAME, Event, Rule, State, checked
from center.documents import FieldsError, written
from center.errors import RefusedError
from center.stores.registry import Registry

log = logging.getLogger(__name__)
RULE, RECEIVER, ALERT, EVENT, SEEN = "rule", "receiver", "alert", "event", "seen"
EVENTS = 200  # that are kept
PARTS = 256  # documents that the alerts of a rule are spread over
WAITING, SENT, GIVEN_UP = "", "sent", "given up"


class Key(NamedTuple):
    """What an alert is of. `about`: Rule.about."""

    device: str
    sensor: str
    about: str

    @property
    def whose(self) -> str:
        """What people call the sensor, whose name may be of any length; "" where it has none."""
        return self.sensor.partition("(")[0].strip()[:MOST_NAME]

    @property
    def part(self) -> int:
        return zlib.crc32(self.device.encode()) % PARTS


States = Mapping[Key, State]


@dataclass(frozen=True, slots=True)
class Receiver:
    """Who is told. `shown`: of the address what is no secret."""

    name: str
    url: Secret
    shown: str


@dataclass(frozen=True, slots=True)
class Message:
    """A beginning or an end, of all devices of one look, and how far each receiver was told of it: WAITING, SENT, or
    why not (yet). `number` counts them.
    """

    number: int
    at_ns: int
    rule: str
    event: Event
    title: str
    text: str
    receivers: Mapping[str, str]

    @property
    def waiting(self) -> list[str]:
        return [i for i, how in self.receivers.items() if how != SENT and not how.startswith(GIVEN_UP)]


def rules(registry: Registry) -> dict[str, Rule]:
    """By id, in the order of names; without those of a later version."""
    found = {}
    for rule_id, text in registry.documents(RULE).items():
        try:
            found[rule_id] = checked(json.loads(text))
        except ValueError:
            continue
    return dict(sorted(found.items(), key=lambda item: (item[1].name, item[0])))


def keep_rule(registry: Registry, rule_id: str, given: Any) -> Rule:
    """A rule, or what may be the JSON of one. FieldsError for what is none, or names a receiver that is none."""
    rule, known = checked(json.loads(written(given))), receivers(registry)
    if unknown := [one for one in rule.receivers if one not in known]:
        raise FieldsError({"receivers": f"there is no receiver {', '.join(unknown)}"})
    registry.keep_document(RULE, rule_id, written(rule))
    return rule


def forget_rule(registry: Registry, rule_id: str) -> None:
    """And that its alerts were seen; these are ended by who holds the lease."""
    for kind in (RULE, SEEN):
        registry.keep_document(kind, rule_id, None)


def receivers(registry: Registry) -> dict[str, Receiver]:
    found = {i: json.loads(text) for i, text in registry.documents(RECEIVER).items()}
    known = {i: Receiver(one["name"], Secret(one["url"]), one["shown"]) for i, one in found.items()}
    return dict(sorted(known.items(), key=lambda item: item[1].name))


def keep_receiver(registry: Registry, receiver_id: str, receiver: Receiver) -> None:
    text = written({"name": receiver.name, "url": receiver.url.reveal(), "shown": receiver.shown})
    registry.keep_document(RECEIVER, receiver_id, text)


def alerts(registry: Registry) -> dict[str, dict[Key, State]]:
    """What has begun, or is about to, by rule."""
    found: dict[str, dict[Key, State]] = defaultdict(dict)
    for name, text in registry.documents(ALERT).items():
        for *key, since, value, fired in json.loads(text):
            found[name.rpartition(".")[0]][Key(*key)] = State(since, value, fired)
    return found


def keep_alerts(registry: Registry, rule_id: str, states: States, parts: Iterable[int]) -> None:
    """Write those parts of a rule's alerts. One that has no place (very many sensors of very long names) is known to
    who asks this, and begun anew after a restart.
    """
    rows: dict[int, list[list[Any]]] = {part: [] for part in parts}
    for key, state in states.items():
        if key.part in rows:
            rows[key.part].append([*key, state.since_ns, state.value, state.fired_ns])
    for part, held in rows.items():
        try:
            registry.keep_document(ALERT, f"{rule_id}.{part}", written(held) if held else None)
        except RefusedError as error:
            log.warning("not all alerts of %s outlast this process: %s", rule_id, error)


def events(registry: Registry) -> list[Message]:
    """The newest first."""
    found = [Message(**json.loads(text)) for text in registry.documents(EVENT).values()]
    return sorted(found, key=lambda told: -told.number)


def keep_event(registry: Registry, told: Message) -> None:
    """In the place of the one that is EVENTS older."""
    registry.keep_document(EVENT, str(told.number % EVENTS), written(told))


def unseen(registry: Registry) -> dict[str, States]:
    """The alerts by rule that nobody has marked as seen since they began."""
    known = alerts(registry)
    seen = registry.documents(SEEN) if known else {}
    found = {i: {k: s for k, s in of.items() if s.fired_ns > int(seen.get(i, 0))} for i, of in known.items()}
    return {rule_id: states for rule_id, states in found.items() if states}
