"""What is retained at a broker and would stay there: kept in the state folder until it is removed."""

from __future__ import annotations

import contextlib
from collections.abc import Iterable
from dataclasses import dataclass, field
from pathlib import Path

from agent.config.settings import Settings
from agent.mqtt.broker import attempt
from agent.mqtt.discovery import Topics
from agent.util.atomic import read_regular, write_atomic
from agent.util.checked import seal, unseal


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
        kept = cls(folder / "mqtt.json")
        with contextlib.suppress(OSError, ValueError, KeyError, TypeError):
            found = unseal(read_regular(kept.path))
            kept.topics, kept.entities = list(found["topics"]), list(found["entities"])
        return kept

    def change(self, topics: Iterable[str], entities: Iterable[str]) -> None:
        """To these, each once. A disk that refuses it keeps nothing from the broker."""
        found = list(dict.fromkeys(topics)), list(dict.fromkeys(entities))
        if found != (self.topics, self.entities):
            with contextlib.suppress(OSError):  # then it is tried again
                write_atomic(self.path, seal({"topics": found[0], "entities": found[1]}))
                self.topics, self.entities = found


def withdraw(settings: Settings, device_id: str, folder: Path) -> None:
    """Remove all of a device from its broker, also what an earlier configuration left. Raises MqttError; then it stays
    kept.
    """
    assert settings.mqtt is not None
    topics, kept = Topics(settings.mqtt.topic, device_id), Kept.of(folder)
    names = [*(sensor.name or sensor.driver for sensor in settings.sensor), "agent", "status"]
    attempt(settings.mqtt, device_id, dict.fromkeys([topics.config, *kept.topics, *map(topics.of, names)], b""))
    kept.change((), ())
