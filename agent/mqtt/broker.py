"""One connection to a broker, from its making to its end, by paho-mqtt; and in words why there is none.

paho's own reconnecting is not used: it sends again what was on its way when the connection ended, however old that is.
MQTT 5 alone: it says why a message or a connection is refused, and sends the will at a farewell too.
"""

from __future__ import annotations

import contextlib
import time
from collections.abc import Callable, Mapping
from typing import TYPE_CHECKING, Any

from agent.config.limits import NO_PAHO
from agent.config.settings import MqttSettings
from agent.registration.secret_files import CredentialsError, read_secret_file
from agent.registration.target import tls_context
from agent.util.errors import AgentError
from agent.util.http import why

if TYPE_CHECKING:
    from paho.mqtt.client import MQTTMessageInfo

KEEPALIVE_S, CONNECT_S, ACKNOWLEDGE_S = 30, 5.0, 15.0
MOST = 65_536
"""Bytes of a message that the broker may send."""

_LOGIN = "set mqtt.username and mqtt.password_file as the broker knows them"
_HINTS = {
    "Not authorized": _LOGIN,
    "Bad user name or password": _LOGIN,
    "Unsupported protocol version": "it does not know MQTT 5; mosquitto does since 1.6",
}


class MqttError(AgentError):
    """No connection, and what to do."""


class Broker:
    """One thread makes it, which may take as long as the network does, and owns it; MqttError where it cannot be made.

    `changed` is called in paho's thread when the connection or a message of ours did. `heard`: a message of the topic
    `listen` came; `refused`: by topic why the broker does not take it.
    """

    def __init__(
        self,
        settings: MqttSettings,
        name: str,
        *,
        will: tuple[str, bytes] | None = None,
        listen: str = "",
        changed: Callable[[], None] = lambda: None,
    ) -> None:
        try:
            from paho.mqtt import client as paho  # noqa: PLC0415 - only where it is used
            from paho.mqtt.enums import CallbackAPIVersion  # noqa: PLC0415
            from paho.mqtt.packettypes import PacketTypes  # noqa: PLC0415
            from paho.mqtt.properties import Properties  # noqa: PLC0415
            from paho.mqtt.reasoncodes import ReasonCode  # noqa: PLC0415
        except ImportError as error:
            raise MqttError(NO_PAHO) from error
        self._settings, self._listen, self._changed = settings, listen, changed
        self.where = "{}:{}".format(*settings.place) + (" with TLS" if settings.tls else "")
        self.open = self.heard = False
        self.acknowledged, self.began, self._ended = 0, time.monotonic(), ""
        self.refused: dict[str, str] = {}
        self._sent: dict[str, tuple[MQTTMessageInfo, float]] = {}
        self._farewell = ReasonCode(PacketTypes.DISCONNECT, "Disconnect with will message")
        limits = Properties(PacketTypes.CONNECT)  # type: ignore[no-untyped-call]
        limits.MaximumPacketSize = MOST
        self._client = client = paho.Client(
            CallbackAPIVersion.VERSION2, f"iot-agent-{name}", protocol=paho.MQTTv5, reconnect_on_failure=False
        )
        if will:
            client.will_set(*will, qos=1, retain=True)
        client.on_connect, client.on_disconnect = self._on_connect, self._on_disconnect
        client.on_publish, client.on_message = self._on_publish, self._on_message
        client.connect_timeout = CONNECT_S
        try:
            context = tls_context(settings.ca_file) if settings.tls else None
        except OSError as error:
            raise MqttError(f"mqtt.ca_file cannot be used ({error}): it must be a certificate in PEM") from error
        if context is not None:
            client.tls_set_context(context)
        try:
            if settings.username:
                password = read_secret_file(settings.password_file, "mqtt.password")
                client.username_pw_set(settings.username, password.reveal() if password else None)
            client.connect(*settings.place, KEEPALIVE_S, properties=limits)
            client.loop_start()  # which needs loopback
        except CredentialsError as error:
            raise MqttError(str(error)) from error
        except (OSError, ValueError) as error:
            raise MqttError(f"{self.where}: {why(error, CONNECT_S)}") from error

    def trouble(self) -> str:
        """Why it is to be given up; empty while it is not."""
        now = time.monotonic()
        if not self._ended and not self.open and now - self.began > 2 * CONNECT_S:
            return f"{self.where} takes the connection and says nothing: is it a broker, and does it hang?"
        if not self._ended and any(now - since > ACKNOWLEDGE_S for since in self.waiting().values()):
            return f"{self.where} does not acknowledge what it is sent: does it hang?"
        return self._ended

    def publish(self, topic: str, payload: bytes) -> None:
        """Retained, QoS 1. Never waits; a second one for a topic that is on the way is the owner's to hold back."""
        self._sent[topic] = self._client.publish(topic, payload, qos=1, retain=True), time.monotonic()

    def waiting(self) -> dict[str, float]:
        """Topics of which a message is on the way, and since when (monotonic)."""
        return {topic: since for topic, (message, since) in self._sent.items() if not _is_published(message)}

    def until(self, done: Callable[[], bool], seconds: float) -> None:
        """Wait so long at most. MqttError where it does not come to that."""
        deadline = time.monotonic() + seconds
        while not done():
            if (trouble := self.trouble()) or time.monotonic() > deadline:
                raise MqttError(trouble or f"{self.where} does not answer in time: does it hang?")
            time.sleep(0.01)

    def close(self) -> None:
        """The broker publishes the will, as it does where this does not reach it. Nothing holds the sockets then."""
        client = self._client
        client.on_connect = client.on_disconnect = client.on_publish = client.on_message = None
        client.disconnect(self._farewell)

    def _on_connect(self, client: Any, _: Any, __: Any, reason: Any, *___: Any) -> None:
        self.open = not reason.is_failure
        if self.open and self._listen:
            client.subscribe(self._listen)
        elif not self.open:
            hint = _HINTS.get(str(reason), "its log says more")
            self._ended = f"{self.where} refuses the connection ({reason}): {hint}"
        self._changed()

    def _on_disconnect(self, _: Any, __: Any, ___: Any, reason: Any, *____: Any) -> None:
        text = f"{self.where} ended the connection without an answer: is it a broker's port, and as mqtt.tls says?"
        if self.open:
            text = f"the connection to {self.where} ended ({reason}): it is made again"
        self.open, self._ended = False, self._ended or text
        self._changed()

    def _on_message(self, *_: Any) -> None:
        self.heard = True  # and wakes nobody: they may come by the thousand

    def _on_publish(self, _: Any, __: Any, mid: int, reason: Any, *___: Any) -> None:
        topic = next((topic for topic, (message, _) in list(self._sent.items()) if message.mid == mid), "a topic")
        if reason.is_failure:
            who = self._settings.username or "a client without a login"
            self.refused[topic] = f"the broker does not let {who} write to {topic} ({reason}): see its access list"
        else:
            self.refused.pop(topic, None)
            self.acknowledged += 1
        self._changed()


def _is_published(message: MQTTMessageInfo) -> bool:
    with contextlib.suppress(RuntimeError):  # the connection had ended
        return message.is_published()
    return False


def attempt(settings: MqttSettings, name: str, messages: Mapping[str, bytes]) -> None:
    """A short connection for these messages. MqttError where the broker does not take it, or one of them."""
    broker = Broker(settings, name)
    with contextlib.closing(broker):
        broker.until(lambda: broker.open, CONNECT_S)
        for topic, payload in messages.items():
            broker.publish(topic, payload)
        broker.until(lambda: not broker.waiting() or bool(broker.refused), 2 * CONNECT_S)
        if broker.refused:
            raise MqttError(next(iter(broker.refused.values())))
