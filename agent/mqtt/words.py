"""Why there is no connection to a broker, and what to do, in words. Pure."""

from __future__ import annotations

import socket
import ssl

from agent.config.settings import MqttSettings

SILENT = "{}:{} takes the connection and says nothing: is it a broker, and does it hang?"
TAKEN = "{}:{} ends each connection soon after it is made: does another agent have this device id?"
UNACKNOWLEDGED = "{}:{} does not acknowledge what it is sent: does it hang?"


def failure(error: Exception, settings: MqttSettings) -> str:
    """Of an attempt to connect."""
    host, port = settings.place
    where = f"{host}:{port}"
    if isinstance(error, socket.gaierror | UnicodeError):
        return f"{host} cannot be resolved: is it spelled right, is the network up? An address works too"
    if isinstance(error, ConnectionRefusedError):
        return f"{where} refuses connections: does the broker run, on this port, and not for its own machine alone?"
    if isinstance(error, ssl.SSLCertVerificationError):
        what = "set mqtt.ca_file to the certificate of its authority in PEM"
        if error.verify_code in (62, 64):  # X509_V_ERR_HOSTNAME_MISMATCH, _IP_ADDRESS_MISMATCH
            what = "mqtt.host must be the name that it was made for"
        elif error.verify_code in (9, 10):
            what = "is this board's clock right? Else renew it on the broker"
        return f"the certificate of {where} is refused ({error.verify_message}): {what}"
    if settings.tls and isinstance(error, ssl.SSLError | ConnectionResetError):
        return f"{where} does not speak TLS: 8883 is the usual port with TLS, 1883 without"
    if isinstance(error, TimeoutError):
        return f"{where} does not answer: is the broker on, is a firewall between?"
    return f"{where} is not reached ({getattr(error, 'strerror', None) or error}): is there a network?"


def refusal(reason: str, settings: MqttSettings) -> str:
    """Of the broker's answer to a connection."""
    if reason not in ("Not authorized", "Bad user name or password"):
        return f"the broker refuses the connection ({reason}): its log says more"
    if settings.username is None:
        return "the broker wants a login: set mqtt.username and mqtt.password_file"
    return f"the broker refuses the login of {settings.username}: are mqtt.username and the password in its file right?"


def ending(reason: str, settings: MqttSettings, *, answered: bool) -> str:
    """Of a connection that ended, and of one that the broker never answered."""
    host, port = settings.place
    if answered:
        why = "" if reason == "Unspecified error" else f" ({reason})"
        return f"the connection to {host}:{port} ended{why}: it is made again"
    way = "with TLS" if settings.tls else "without TLS"
    return f"{host}:{port} ended the connection without an answer: is it a broker's port {way}?"
