"""The newest values, published while a broker takes them: a util.loops.Loop.

What is measured is put into a table by sensor and wakes this loop; measuring waits for nothing else. Of each topic one
message is on the way at most; what changed meanwhile follows once it is acknowledged, as it is then: nothing queues.
"""

from __future__ import annotations

import logging
import math
import threading
import time
from collections.abc import Callable, Mapping, Sequence
from pathlib import Path
from random import Random
from typing import Any

from agent.config.settings import Settings
from agent.mqtt import discovery
from agent.mqtt.broker import Broker, MqttError
from agent.mqtt.discovery import BIRTH, OFFLINE, ONLINE, Topics, written
from agent.mqtt.kept import Kept
from agent.sensing.sensor_status import SensorStatus
from agent.util.backoff import BASE_S, full_jitter
from agent.util.loops import Loop
from drivers.base import boot_ns

log = logging.getLogger(__name__)

LOOK_S, TELL_S = 1.0, 20.0
"""How often sensors are looked at for troubles, and discovery and the agent's own state are said again if changed."""
REPEAT_S = 10.0
"""All is repeated for Home Assistant this often at most."""
STEADY_S, CAP_S, BRIEF = 60.0, 60.0, 2
"""A connection that lasts so long is a good one; the longest wait before another; so many that do not are no chance."""
AT_ONCE = 10
_RANDOM = Random()  # noqa: S311 - spreads attempts, hides nothing


class Publisher(Loop):
    """Of one configuration. take() and snapshot() may be called from any thread.

    `told` and `sensors` are those of Sensors, `snapshot` the service's, `date` the clock's; `folder` keeps what a later
    configuration, or unregister, has to remove.
    """

    def __init__(
        self,
        settings: Settings,
        device_id: str,
        folder: Path,
        *,
        told: Callable[[], Mapping[str, Any]],
        sensors: Callable[[], Sequence[SensorStatus]],
        snapshot: Callable[[], Mapping[str, Any]],
        date: Callable[[int], int | None],
    ) -> None:
        assert settings.mqtt is not None
        self._settings, self._topics = settings.mqtt, Topics(settings.mqtt.topic, device_id)
        self._told, self._sensors, self._snapshot, self._date = told, sensors, snapshot, date
        self._names = [sensor.name or sensor.driver for sensor in settings.sensor]
        self._kept = Kept.of(folder)
        self._newest: dict[str, tuple[Mapping[str, float | int], int]] = {}
        self._messages: dict[str, bytes] = {}
        self._sent: dict[str, bytes] = {}
        self._broker: Broker | None = None
        self._brief = self._attempts = self._published = 0
        self._next = self._said = self._repeated = -math.inf
        self._state, self._since, self._error = "connecting", boot_ns(), ""
        self.wakeup = threading.Event()

    def take(self, sensor: str, values: Mapping[str, float | int], boot_ns: int) -> None:
        """What a sensor has reported, as it is delivered."""
        self._newest[sensor] = values, boot_ns
        self.wakeup.set()

    def snapshot(self) -> dict[str, Any]:
        """For the status; `since` of the boot clock."""
        broker = self._broker
        return {
            "broker": ":".join(map(str, self._settings.place)),
            "state": self._state,
            "since_boot_ns": self._since,
            "error": self._error,
            "published": self._published + (broker.acknowledged if broker else 0),
        }

    def step(self) -> float:
        now, broker = time.monotonic(), self._broker
        if broker is None and now >= self._next:
            self._connect()
        elif broker is not None and (why := broker.trouble()):
            broker.close()
            self._broker, self._published = None, self._published + broker.acknowledged
            self._failed(why, ended=broker.acknowledged > 0 and not broker.open)
        elif broker is not None and broker.open:
            self._work(broker, now)
        return LOOK_S if self._broker else max(0.0, self._next - time.monotonic())

    def finish(self) -> None:
        if self._broker:
            self._broker.close()

    def _connect(self) -> None:
        will, birth = (self._topics.of("status"), OFFLINE), BIRTH if self._settings.discovery else ""
        try:
            self._broker = Broker(self._settings, self._topics.device, will=will, listen=birth, changed=self.wakeup.set)
        except MqttError as error:
            self._failed(str(error))
        self._said, self._sent = -math.inf, {}

    def _failed(self, why: str, *, ended: bool = False) -> None:
        self._attempts, self._brief = self._attempts + 1, self._brief + 1 if ended else 0
        self._next = time.monotonic() + max(BASE_S, full_jitter(self._attempts, BASE_S, CAP_S, _RANDOM))
        self._report("failing", why)

    def _report(self, state: str, error: str) -> None:
        if self._brief > BRIEF:
            error = "the broker ends each connection soon after it is made: does another agent have this device id?"
        if error and error != self._error:
            log.warning("MQTT: %s", error)
        elif not error and (state, error) != (self._state, self._error):
            log.info("MQTT: connected to %s:%d", *self._settings.place)
        if state != self._state:
            self._since = boot_ns()
        self._state, self._error = state, error

    def _work(self, broker: Broker, now: float) -> None:
        """Say what has changed, and who is here last."""
        if now - broker.began > STEADY_S:
            self._attempts = self._brief = 0
        if broker.acknowledged or broker.refused:
            self._report("connected", next(iter(broker.refused.copy().values()), ""))
        if broker.heard and now - self._repeated > REPEAT_S:
            broker.heard, self._repeated, self._sent = False, now, {}
        newest = self._newest.copy()
        for name, status in zip(self._names, self._sensors(), strict=True):
            values, moment = newest.get(name, ({}, None))
            time_ns = None if moment is None else self._date(moment)
            self._messages[self._topics.of(name)] = written(discovery.state(status, values, time_ns, boot_ns()))
        waiting = broker.waiting()
        if now - self._said >= TELL_S:
            for topic in (self._topics.of("status"), *broker.refused):  # a will that came late does not stand
                self._sent.pop(topic, None)
            self._said, self._messages = now, self._all(waiting)
        for topic, message in self._messages.items():
            if message != self._sent.get(topic) and topic not in waiting and len(waiting) < AT_ONCE:
                broker.publish(topic, message)
                self._sent[topic], waiting[topic] = message, now

    def _all(self, waiting: Mapping[str, float]) -> dict[str, bytes]:
        """The messages of every topic; empty ones for those of an earlier configuration, until they are gone."""
        topics = self._topics
        config = discovery.config(topics, self._told()["sensors"], self._kept.entities)
        found = {topics.config: written(config)} if self._settings.discovery else {}
        found |= {topic: self._messages[topic] for topic in map(topics.of, self._names)}
        found[topics.of("agent")] = written(discovery.agent(self._snapshot(), self._date))
        found[topics.of("status")] = ONLINE
        gone = {topic for topic, message in self._sent.items() if message == b"" and topic not in waiting}
        kept = [topic for topic in self._kept.topics if topic not in gone]
        self._kept.change([*kept, *found], [*self._kept.entities, *config["components"]])
        return {**dict.fromkeys(self._kept.topics, b""), **found}
