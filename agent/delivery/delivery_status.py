"""Delivery at a moment, for `status`, /metrics and the watchdog."""

from __future__ import annotations

from dataclasses import dataclass
from typing import Literal


@dataclass(frozen=True, slots=True)
class DeliveryStatus:
    """Delivery at a moment. Moments are boot-clock nanoseconds unless said otherwise; None: never, or not now.

    `state`: delivering (or ready to), waiting (nobody has said yet where to), failing. `backlog_rate` is points per
    second as measured, `eta_s` the seconds until the backlog is gone at that rate. `bytes_sent` counts bodies.
    `call_since_boot_ns`: a request has been on its way since then. `alive_boot_ns`: the loop last went round.
    """

    state: Literal["delivering", "waiting", "failing"]
    since_boot_ns: int
    alive_boot_ns: int
    call_since_boot_ns: int | None = None
    last_success_boot_ns: int | None = None
    last_success_ns: int | None = None
    last_error: str | None = None
    failures: int = 0
    next_attempt_s: float = 0.0
    backlog: int = 0
    backlog_rate: float = 0.0
    eta_s: float | None = None
    parked: int = 0
    requests: int = 0
    bytes_sent: int = 0
    delivered: int = 0
