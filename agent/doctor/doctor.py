"""The checks of the whole chain, from the configuration to the bucket, in order. Nothing is changed by them.

While the agent runs, it is asked for what only one process should touch: the sensor and the buffer.
"""

from __future__ import annotations

from collections.abc import Callable, Iterator

from agent.doctor import config, device, network, server
from agent.doctor.finding import Finding, Patient, failed

CHECKS: tuple[tuple[str, Callable[[Patient], Iterator[Finding]]], ...] = (
    ("configuration", config.configuration),
    ("state folder", config.state_folder),
    ("secrets", config.secrets),
    ("disk", device.disk),
    ("board", device.board),
    ("sensor", device.sensors),
    ("proxy", network.proxies),
    ("clock", network.clock),
    ("names", network.names),
    ("connection", network.connections),
    ("TLS", network.tls),
    ("registration", server.registration),
    ("token and bucket", server.token),
    ("MQTT", server.mqtt),
    ("buffer", device.buffer),
    ("service", device.service),
)


def examine(patient: Patient) -> Iterator[Finding]:
    """Findings as they are made. A check that breaks is a finding too."""
    for name, check in CHECKS:
        try:
            yield from check(patient)
        except Exception as error:  # noqa: BLE001 - one check must not take the others with it
            yield failed(name, f"this check broke: {type(error).__name__}: {error}", "report it with this text")
