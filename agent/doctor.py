"""The checks of the whole chain, from the configuration to the bucket, in order. Nothing is changed by them.

While the agent runs, it is asked for what only one process should touch: the sensor and the buffer.
"""

from __future__ import annotations

from typing import TYPE_CHECKING

from agent import checks_config, checks_device, checks_network, checks_server
from agent.findings import Finding, Patient, failed

if TYPE_CHECKING:
    from collections.abc import Callable, Iterator
    from pathlib import Path

CHECKS: tuple[tuple[str, Callable[[Patient], Iterator[Finding]]], ...] = (
    ("configuration", checks_config.configuration),
    ("state folder", checks_config.state_folder),
    ("secrets", checks_config.secrets),
    ("disk", checks_device.disk),
    ("board", checks_device.board),
    ("sensor", checks_device.sensors),
    ("clock", checks_network.clock),
    ("names", checks_network.names),
    ("connection", checks_network.connections),
    ("TLS", checks_network.tls),
    ("registration", checks_server.registration),
    ("token and bucket", checks_server.token),
    ("buffer", checks_device.buffer),
    ("service", checks_device.service),
)


def examine(config: Path, state_dir: Path) -> Iterator[Finding]:
    """Findings as they are made. A check that breaks is a finding too."""
    yield from examine_patient(Patient(config, state_dir))


def examine_patient(patient: Patient) -> Iterator[Finding]:
    for name, check in CHECKS:
        try:
            yield from check(patient)
        except Exception as error:  # noqa: BLE001 - one check must not take the others with it
            yield failed(name, f"this check broke: {type(error).__name__}: {error}", "report it with this text")
