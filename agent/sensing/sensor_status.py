"""What a sampler tells of its sensor: for the status, the metrics, the page and the health points."""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass, field
from typing import Any


@dataclass(frozen=True, slots=True)
class Refusal:
    """Why a quantity is not delivered, and since when."""

    why: str
    since_boot_ns: int


@dataclass(frozen=True, slots=True)
class SensorStatus:
    """A sensor at one moment. Counters are since the start; moments are boot-clock nanoseconds, `interval` seconds.

    `missed` counts scheduled moments without a reading (passed by, or failed), `errors` the failed attempts,
    `implausible` the readings of which something was refused, `suppressed` the reports that the deadband held back.
    `failing_since`, `problem` and `cause`, the error's class, are set while it fails. By quantity: what is `refused`
    now, and since when one is `stuck`; `calibration` is what is applied, in words. `remote`: settings that the center
    changed, by name.
    """

    name: str | None
    kind: str
    description: str
    interval: float
    readings: int = 0
    reported: int = 0
    missed: int = 0
    implausible: int = 0
    errors: int = 0
    suppressed: int = 0
    failing_since_boot_ns: int | None = None
    problem: str | None = None
    cause: str = ""
    refused: Mapping[str, Refusal] = field(default_factory=dict)
    stuck: Mapping[str, int] = field(default_factory=dict)
    calibration: Mapping[str, str] = field(default_factory=dict)
    remote: Mapping[str, Any] = field(default_factory=dict)
    values: Mapping[str, float | int] = field(default_factory=dict)
    boot_ns: int | None = None
    alive_boot_ns: int = 0
