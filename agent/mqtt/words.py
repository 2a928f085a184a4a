"""Why there is no connection to a broker, and what to do, in words. Pure."""

from __future__ import annotations

import socket
import ssl

from agent.config.settings import MqttSettings

SILENT = "{}:{} takes the connection and says nothing: is it a broker, and does it hang?"
TAKEN = "{}:{} ends each connection soon after it is made: does another agent have this device id?"
UNACKNOWLEDGED = "{}:{} does not acknowledge what it is sent: does it hang?"
_NAME = "{0} cannot be resolved: is it spelled right, is the network up? An address works too"
_CERTIFICATE = (
    "the certificate of {0}:{1} is refused ({2.verify_message}): mqtt.host must be the name that it was made for, "
    "mqtt.ca_file the certificate of an authority of your own, and this board's clock right"
)
_FAILURES: tuple[tuple[type[Exception], str], ...] = (
    (socket.gaierror, _NAME),
    (UnicodeError, _NAME),
    (ConnectionRefusedError, "{0}:{1} refuses connections: does the broker run, and not for its own machine alone?"),
    (ssl.SSLCertVerificationError, _CERTIFICATE),
    (ssl.SSLError, "{0}:{1} does not speak TLS: 8883 is the usual port with TLS, 1883 without"),
    (TimeoutError, "{0}:{1} does not answer: is the broker on, is a firewall between?"),
    (Exception, "{0}:{1} is not reached ({2}): is there a network, is TLS as the broker has it?"),
)


def failure(error: Exception, settings: MqttSettings) -> str:
    """Of an attempt to connect."""
    return next(text for kind, text in _FAILURES if isinstance(error, kind)).format(*settings.place, error)


def refusal(reason: str, settings: MqttSettings) -> str:
    """Of the broker's answer to a connection."""
    if reason not in ("Not authorized", "Bad user name or password"):
        return f"the broker refuses the connection ({reason}): its log says more"
    if settings.username is None:
        return "the broker wants a login: set mqtt.username and mqtt.password_file"
    return f"the broker refuses the login of {settings.username}: are mqtt.username and the password in its file right?"


def ending(reason: str, settings: MqttSettings, *, answered: bool) -> str:
    """Of a connection that ended, and of one that the broker never answered."""
    where = ":".join(map(str, settings.place))
    if answered:
        return f"the connection to {where} ended ({reason}): it is made again"
    way = "with" if settings.tls else "without"
    return f"{where} ended the connection without an answer: is it a broker's port {way} TLS?"
