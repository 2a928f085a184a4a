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
from agent.mqtt.connection import CONNECT_S, Connection, MqttError, client_id
from agent.mqtt.discovery import BIRTH, OFFLINE, ONLINE, Topics, config, rfc3339, state, written
from agent.mqtt.kept import Kept
from agent.mqtt.words import SILENT, TAKEN, UNACKNOWLEDGED
from agent.sensing.sensor_status import SensorStatus
from agent.util.backoff import BASE_S, full_jitter
from agent.util.loops import Loop
from drivers.base import boot_ns

log = logging.getLogger(__name__)

LOOK_S, TELL_S = 1.0, 20.0
"""How often sensors are looked at for troubles, and discovery and the agent's own state are said again if changed."""
REPEAT_S = 10.0
"""All is repeated for Home Assistant this often at most."""
STEADY_S, CAP_S = 60.0, 60.0
"""A connection that lasts so long is a good one; the longest wait before another."""
ACKNOWLEDGE_S, AT_ONCE, FAREWELL_S = 15.0, 10, 0.3
_RANDOM = Random()  # noqa: S311 - spreads attempts, hides nothing


class Publisher(Loop):
    """Of one configuration. take() and snapshot() may be called from any thread.

    `told` and `sensors` are those of Sensors, `snapshot` the service's, `date` the clock's; `folder` keeps what a later
    configuration, or unregister, has to remove. Set `leaves` before the end if nothing is to stay at the broker.
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
        self.settings, self.leaves = settings.mqtt, False
        self.wakeup = threading.Event()
        self._topics = Topics(settings.mqtt.topic, device_id)
        self._told, self._sensors, self._snapshot, self._date = told, sensors, snapshot, date
        self._names = [sensor.name or sensor.driver for sensor in settings.sensor]
        self._kept, self._broker = Kept.of(folder), ":".join(map(str, settings.mqtt.place))
        self._newest: dict[str, tuple[Mapping[str, float | int], int]] = {}
        self._fresh: set[str] = set()
        self._lock = threading.Lock()  # of the two above
        self._messages: dict[str, bytes] = {}
        self._sent: dict[str, bytes] = {}
        self._connection: Connection | None = None
        self._old_protocol = False
        self._attempts = self._brief = self._published = 0
        self._began = self._next = self._looked = self._said = self._repeated = -math.inf
        self._state, self._since, self._error = "connecting", boot_ns(), ""

    def take(self, sensor: str, values: Mapping[str, float | int], boot_ns: int) -> None:
        """What a sensor has reported, as it is delivered."""
        with self._lock:
            self._newest[sensor] = values, boot_ns
            self._fresh.add(sensor)
        self.wakeup.set()

    def snapshot(self) -> dict[str, Any]:
        """For the status; `since` of the boot clock."""
        connection = self._connection
        return {
            "broker": self._broker,
            "state": self._state,
            "since_boot_ns": self._since,
            "error": self._error,
            "published": self._published + (connection.acknowledged if connection else 0),
        }

    def step(self) -> float:
        now, connection = time.monotonic(), self._connection
        if connection is None:
            if now >= self._next:
                self._connect()
            return max(0.0, self._next - now) if self._connection is None else LOOK_S
        connection.settle()
        oldest = min((since for _, since in connection.on_the_way.values()), default=now)
        if connection.ended is not None:
            self._lost(connection, now, connection.ended)
        elif connection.open and now - oldest > ACKNOWLEDGE_S:
            self._lost(connection, now, UNACKNOWLEDGED.format(*self.settings.place))
        elif connection.open:
            self._work(connection, now)
        elif now - self._began > 2 * CONNECT_S:
            self._lost(connection, now, SILENT.format(*self.settings.place))
        return LOOK_S if self._connection else 0.0

    def finish(self) -> None:
        """Say that it ends, or leave nothing, as far as there is a connection; a broker that has lost us says it."""
        connection = self._connection
        if connection is not None and connection.open:
            leaving = dict.fromkeys(self._kept.topics, b"") if self.leaves else {}
            left = connection.publish_all(leaving or {self._topics.of("status"): OFFLINE}, FAREWELL_S)
            if leaving:
                self._kept.change(left, ())
        if connection is not None:
            connection.close()
        if self.leaves and self._kept.topics:
            log.warning("MQTT: what was published for %s stays at %s", self._topics.device, self._broker)

    def _connect(self) -> None:
        try:
            self._connection = Connection(
                self.settings,
                client_id(self._topics.device),
                will=(self._topics.of("status"), OFFLINE),
                listen=BIRTH if self.settings.discovery else "",
                changed=self.wakeup.set,
                old_protocol=self._old_protocol,
            )
        except MqttError as error:
            self._failed(str(error))
        self._began, self._looked, self._said = time.monotonic(), -math.inf, -math.inf
        self._sent = {}

    def _lost(self, connection: Connection, now: float, why: str) -> None:
        connection.close(silently=True)
        self._published += connection.acknowledged
        self._connection = None
        if connection.was_open and now - self._began < STEADY_S:
            self._brief += 1
            why = TAKEN.format(*self.settings.place) if self._brief > 2 else why
        if connection.too_old and not self._old_protocol:
            self._old_protocol = True
        else:
            self._failed(why)

    def _failed(self, why: str) -> None:
        self._attempts += 1
        self._next = time.monotonic() + max(BASE_S, full_jitter(self._attempts, BASE_S, CAP_S, _RANDOM))
        self._report("failing", why)

    def _report(self, state: str, error: str) -> None:
        if error and error != self._error:
            log.warning("MQTT: %s", error)
        elif not error and (state, error) != (self._state, self._error):
            log.info("MQTT: connected to %s", self._broker)
        if state != self._state:
            self._since = boot_ns()
        self._state, self._error = state, error

    def _work(self, connection: Connection, now: float) -> None:
        """Say what has changed, oldest topics first."""
        if now - self._began > STEADY_S:
            self._attempts = self._brief = 0
        taken = TAKEN.format(*self.settings.place) if self._brief > 2 else ""
        self._report("connected", min(connection.refused.values(), default=taken))
        if connection.heard and now - self._repeated > REPEAT_S:
            connection.heard, self._repeated, self._sent = False, now, {}
        with self._lock:
            fresh, self._fresh = self._fresh, set()
            newest = dict(self._newest)
        if now - self._looked >= LOOK_S:
            self._looked, fresh = now, set(self._names)
        for name, status in zip(self._names, self._sensors(), strict=True):
            if name in fresh:
                values, moment = newest.get(name, ({}, None))
                time_ns = None if moment is None else self._date(moment)
                self._messages[self._topics.of(name)] = written(state(status, values, time_ns, boot_ns()))
        if now - self._said >= TELL_S:
            self._said, self._messages = now, self._all(connection)
            self._sent.pop(self._topics.of("status"), None)  # a will that came late does not stand
        waiting = {topic for topic, _ in connection.on_the_way.values()}
        for topic, message in self._messages.items():
            if message != self._sent.get(topic) and topic not in waiting and len(connection.on_the_way) < AT_ONCE:
                connection.publish(topic, message)
                self._sent[topic] = message

    def _all(self, connection: Connection) -> dict[str, bytes]:
        """The messages of every topic; empty ones for those of an earlier configuration, until they are gone."""
        topics, snapshot = self._topics, self._snapshot()
        last = (snapshot.get("delivery") or {}).get("last_success_boot_ns")
        delivered_ns = None if last is None else self._date(last)
        agent = {
            "pending": (snapshot.get("ledger") or {}).get("pending", 0),
            "clock_good": bool((snapshot.get("clock") or {}).get("good")),
            "last_delivery": None if delivered_ns is None else rfc3339(delivered_ns),
        }
        device = config(topics, self._told()["sensors"], self._kept.entities)
        states = {topic: self._messages[topic] for topic in map(topics.of, self._names)}
        found = {topics.config: written(device)} if self.settings.discovery else {}
        found |= {**states, topics.of("agent"): written(agent), topics.of("status"): ONLINE}
        undone = {topic for topic, _ in connection.on_the_way.values()} | connection.refused.keys()
        gone = {topic for topic, message in self._sent.items() if message == b"" and topic not in undone}
        kept = [topic for topic in self._kept.topics if topic not in gone]
        self._kept.change([*kept, *found], [*self._kept.entities, *device["components"]])
        return {**dict.fromkeys(self._kept.topics, b""), **found}
