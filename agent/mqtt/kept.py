"""What is retained at a broker and would stay there: kept in the state folder until it is removed."""

from __future__ import annotations

import contextlib
from collections.abc import Iterable, Iterator
from dataclasses import dataclass, field
from pathlib import Path

from agent.config.settings import MqttSettings, Settings
from agent.mqtt.connection import CONNECT_S, Connection, MqttError, client_id
from agent.mqtt.discovery import Topics
from agent.mqtt.words import SILENT, UNACKNOWLEDGED
from agent.util.atomic import read_regular, write_atomic
from agent.util.checked import seal, unseal

FILE = "mqtt.json"


@dataclass(slots=True)
class Kept:
    """Topics and keys of Home Assistant's entities, oldest first. Which broker it was is not asked: the same one is
    called by a name or an address, and at another there is nothing to remove.
    """

    path: Path
    topics: list[str] = field(default_factory=list)
    entities: list[str] = field(default_factory=list)

    @classmethod
    def of(cls, folder: Path) -> Kept:
        """As the file has it; what cannot be read is as good as none."""
        kept = cls(folder / FILE)
        with contextlib.suppress(OSError, ValueError, KeyError, TypeError):
            found = unseal(read_regular(kept.path))
            kept.topics, kept.entities = list(found["topics"]), list(found["entities"])
        return kept

    def change(self, topics: Iterable[str], entities: Iterable[str]) -> None:
        """To these, each once. A disk that refuses it keeps nothing from the broker."""
        found = list(dict.fromkeys(topics)), list(dict.fromkeys(entities))
        if found != (self.topics, self.entities):
            self.topics, self.entities = found
            with contextlib.suppress(OSError):
                write_atomic(self.path, seal({"topics": found[0], "entities": found[1]}))


def withdraw(settings: Settings, device_id: str, folder: Path) -> None:
    """Remove all of a device from its broker, also what an earlier configuration left. Raises MqttError; then it stays
    kept.
    """
    assert settings.mqtt is not None
    topics = Topics(settings.mqtt.topic, device_id)
    names = [sensor.name or sensor.driver for sensor in settings.sensor]
    kept = Kept.of(folder)
    with attempt(settings.mqtt, device_id) as connection:
        empty = dict.fromkeys([topics.config, *kept.topics, *map(topics.of, (*names, "agent", "status"))], b"")
        if left := connection.publish_all(empty, 2 * CONNECT_S):
            raise MqttError(connection.refused.get(left[0], UNACKNOWLEDGED.format(*settings.mqtt.place)))
        kept.change((), ())


@contextlib.contextmanager
def attempt(settings: MqttSettings, device_id: str) -> Iterator[Connection]:
    """A short connection beside a running agent's. Raises MqttError where the broker takes none."""
    for old_protocol in (False, True):
        connection = Connection(settings, f"{client_id(device_id)}-once", old_protocol=old_protocol)
        with contextlib.closing(connection):
            if connection.opened(CONNECT_S):
                yield connection
                return
            if not connection.too_old:
                break
    raise MqttError(connection.ended or SILENT.format(*settings.place))
