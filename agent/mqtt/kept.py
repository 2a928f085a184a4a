"""What is retained at a broker and would stay there: kept in the state folder until it is removed."""

from __future__ import annotations

import contextlib
import logging
from collections.abc import Collection, Iterable, Iterator
from dataclasses import dataclass, field
from pathlib import Path

from agent.config.settings import MqttSettings, Settings
from agent.mqtt.connection import CONNECT_S, Connection, MqttError, client_id
from agent.mqtt.discovery import Topics
from agent.mqtt.words import SILENT, UNACKNOWLEDGED
from agent.util.atomic import read_regular, write_atomic
from agent.util.checked import seal, unseal

log = logging.getLogger(__name__)
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

    def add(self, topics: Iterable[str], entities: Iterable[str]) -> None:
        self._change([*self.topics, *topics], [*self.entities, *entities])

    def remove(self, topics: Collection[str]) -> None:
        """They are gone from the broker."""
        self._change([topic for topic in self.topics if topic not in topics], self.entities)

    def _change(self, topics: list[str], entities: list[str]) -> None:
        topics, entities = list(dict.fromkeys(topics)), list(dict.fromkeys(entities)) if topics else []
        if (topics, entities) == (self.topics, self.entities):
            return
        self.topics, self.entities = topics, entities
        try:
            if topics:
                write_atomic(self.path, seal({"topics": topics, "entities": entities}))
            else:
                self.path.unlink(missing_ok=True)
        except OSError as error:
            log.debug("%s is not written: %s", self.path, error)


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
        kept.remove(empty.keys())


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
