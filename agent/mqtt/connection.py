"""One connection to a broker, from its making to its end, by paho-mqtt: its thread, its keepalive, its protocol.

paho's own reconnecting is not used: it sends again what was on its way when the connection ended, however old that is.
MQTT 5 where the broker has it: it says why a message or a connection is refused, and what comes is kept small.
"""

from __future__ import annotations

import contextlib
import socket
import ssl
import time
from collections import deque
from collections.abc import Callable, Mapping
from typing import Any

from agent.config.limits import NO_PAHO
from agent.config.settings import MqttSettings
from agent.mqtt.words import ending, failure, refusal
from agent.registration.secret_files import CredentialsError, read_secret_file
from agent.registration.target import trust_store
from agent.util.errors import AgentError

KEEPALIVE_S, CONNECT_S = 30, 5.0
_MOST = 65_536
"""Bytes of a message that the broker may send."""


def client_id(device_id: str) -> str:
    return f"iot-agent-{device_id}"


class MqttError(AgentError):
    """No connection, and what to do."""


def _trust(ca_file: str | None) -> ssl.SSLContext:
    store = trust_store(ca_file)
    try:
        return ssl.create_default_context(cafile=store if isinstance(store, str) else None)
    except OSError as error:
        raise MqttError(f"{store} cannot be used ({error}): mqtt.ca_file must be a certificate in PEM") from error


class Connection:
    """One thread makes it, which may take as long as the network does, and owns it; MqttError where it cannot be made.

    `changed` is called in paho's thread when anything did. `heard`: a message of the topic `listen` came; `ended`: why
    there is no connection any more; `on_the_way`: topics by message, and since when (monotonic); `refused`: by topic,
    why the broker did not take what was last sent there.
    """

    def __init__(
        self,
        settings: MqttSettings,
        client_id: str,
        *,
        will: tuple[str, bytes] | None = None,
        listen: str = "",
        changed: Callable[[], None] = lambda: None,
        old_protocol: bool = False,
    ) -> None:
        try:
            from paho.mqtt import client as paho  # noqa: PLC0415 - only where it is used
            from paho.mqtt.enums import CallbackAPIVersion  # noqa: PLC0415
            from paho.mqtt.packettypes import PacketTypes  # noqa: PLC0415
            from paho.mqtt.properties import Properties  # noqa: PLC0415
        except ImportError as error:
            raise MqttError(NO_PAHO) from error
        self._settings, self._listen, self._changed = settings, listen, changed
        self.open = self.was_open = self.too_old = self.heard = False
        self.ended: str | None = None
        self.on_the_way: dict[int, tuple[str, float]] = {}
        self.refused: dict[str, str] = {}
        self.acknowledged = 0
        self._answers: deque[tuple[int, Any]] = deque()  # paho's thread may not wait for a lock of ours
        protocol = paho.MQTTv311 if old_protocol else paho.MQTTv5
        client = paho.Client(CallbackAPIVersion.VERSION2, client_id, protocol=protocol, reconnect_on_failure=False)
        limits = Properties(PacketTypes.CONNECT)  # type: ignore[no-untyped-call]
        limits.MaximumPacketSize = _MOST
        if will:
            client.will_set(*will, qos=1, retain=True)
        client.on_connect, client.on_disconnect = self._on_connect, self._on_disconnect
        client.on_publish, client.on_message = self._on_publish, self._on_message
        client.connect_timeout = CONNECT_S
        try:
            if settings.username:
                password = read_secret_file(settings.password_file, "mqtt.password")
                client.username_pw_set(settings.username, password.reveal() if password else None)
            if settings.tls:
                client.tls_set_context(_trust(settings.ca_file))
            client.connect(*settings.place, KEEPALIVE_S, properties=None if old_protocol else limits)
            client.loop_start()  # which needs loopback
        except CredentialsError as error:
            raise MqttError(str(error)) from error
        except (OSError, ValueError) as error:
            raise MqttError(failure(error, settings)) from error
        self._client: paho.Client | None = client

    def opened(self, seconds: float) -> bool:
        """Whether the broker takes it, within so long."""
        self._wait(lambda: self.open, seconds)
        return self.open

    def _wait(self, done: Callable[[], bool], seconds: float) -> None:
        until = time.monotonic() + seconds
        while not done() and self.ended is None and time.monotonic() < until:
            time.sleep(0.01)
            self.settle()

    def publish(self, topic: str, payload: bytes) -> None:
        """Retained, QoS 1. Never waits; a second one for a topic that is on the way is the owner's to hold back."""
        if self._client is not None:
            message = self._client.publish(topic, payload, qos=1, retain=True)
            self.on_the_way[message.mid] = topic, time.monotonic()

    def settle(self) -> None:
        """Take in what the broker has acknowledged or refused."""
        while self._answers:
            mid, reason = self._answers.popleft()
            topic, _ = self.on_the_way.pop(mid)
            self.refused.pop(topic, None)
            if reason.is_failure:
                who = self._settings.username or "a client without a login"
                self.refused[topic] = f"the broker does not let {who} write to {topic} ({reason}): see its access list"
            else:
                self.acknowledged += 1

    def publish_all(self, messages: Mapping[str, bytes], seconds: float) -> list[str]:
        """Those topics that the broker has not acknowledged within so long."""
        for topic, payload in messages.items():
            self.publish(topic, payload)
        self._wait(lambda: not self.on_the_way, seconds)
        waiting = {topic for topic, _ in self.on_the_way.values()}
        return [topic for topic in messages if topic in waiting or topic in self.refused]

    def close(self, *, silently: bool = False) -> None:
        """`silently`: without a farewell, so that the broker publishes the will."""
        client, self._client, self.open = self._client, None, False
        if client is None:
            return
        client.on_connect = client.on_disconnect = client.on_publish = client.on_message = None
        if silently and isinstance(found := client.socket(), socket.socket):
            with contextlib.suppress(OSError):  # it has ended already
                found.shutdown(socket.SHUT_RDWR)
        else:
            client.disconnect()

    def _on_connect(self, client: Any, _: Any, __: Any, reason: Any, *___: Any) -> None:
        if reason.is_failure:
            self.too_old, self.ended = "protocol version" in str(reason), refusal(str(reason), self._settings)
        else:
            self.open = self.was_open = True
            if self._listen:
                client.subscribe(self._listen)
        self._changed()

    def _on_disconnect(self, _: Any, __: Any, ___: Any, reason: Any, *____: Any) -> None:
        self.open = False
        self.ended = self.ended or ending(str(reason), self._settings, answered=self.was_open)
        self._changed()

    def _on_message(self, *_: Any) -> None:
        self.heard = True
        self._changed()

    def _on_publish(self, _: Any, __: Any, mid: int, reason: Any, *___: Any) -> None:
        self._answers.append((mid, reason))
        self._changed()
