"""One snapshot of the whole agent, for `iot-agent status`, /metrics, /healthz and the local page. Nothing secret."""

from __future__ import annotations

import contextlib
import os
import time
from dataclasses import asdict
from typing import TYPE_CHECKING, Any

from agent import __version__
from agent.buffer.batch import BufferStatus
from agent.clock.backdating import words
from agent.clock.timeline import Wrong
from agent.config.limits import check_id
from agent.status.socket import NotOurs
from agent.util.atomic import read_regular
from drivers.base import boot_ns

if TYPE_CHECKING:
    from collections.abc import Mapping, Sequence
    from pathlib import Path

    from agent.clock.clock import Clock
    from agent.delivery.delivery import DeliveryStatus
    from agent.registration.policy import RegistrationStatus
    from agent.sensing.sensor_status import SensorStatus


LEDGER = ("measured", "delivered", "pending", "rejected", "dropped", "unaccounted")


def ledger_of(buffer: BufferStatus) -> dict[str, Any]:
    """Measured = delivered + pending + rejected + dropped; `unaccounted` is the difference."""
    points = buffer.counters.points
    dropped = sum(points.dropped.values())
    gone = points.delivered + points.rejected + dropped
    return {
        "measured": points.measured,
        "delivered": points.delivered,
        "pending": points.measured - gone - buffer.unaccounted,
        "rejected": points.rejected,
        "dropped": dropped,
        "unaccounted": buffer.unaccounted,
        "dropped_by_reason": dict(points.dropped),
        "uncounted_s": buffer.counters.uncounted_s,
    }


def build(
    *,
    device_id: str,
    started_boot_ns: int,
    clock: Clock,
    sensors: Sequence[SensorStatus],
    buffer: BufferStatus,
    delivery: DeliveryStatus | None,
    registration: RegistrationStatus | None,
    warnings: Sequence[str],
    wrong: Wrong | None = None,
    mqtt: Mapping[str, Any] | None = None,
) -> dict[str, Any]:
    """The snapshot as plain numbers, text, lists and tables: it can be written as JSON.

    `warnings` is what a person should mend although all goes on; those of the registration are added. `wrong`: what was
    delivered with a time that turned out to be wrong.
    Times: seconds (`at`: Unix), or nanoseconds where the name says so. What shows it counts ages from its `boot_ns`.
    """
    now, time_state = boot_ns(), clock.state()
    error_ns = time_state.error_ns
    return {
        "running": True,
        "version": __version__,
        "pid": os.getpid(),
        "device_id": device_id,
        "uptime_s": (now - started_boot_ns) / 1e9,
        "at": time.time(),
        "boot_ns": now,
        "clock": {
            **asdict(time_state),
            "clock_error_s": None if error_ns is None else error_ns / 1e9,
            "words": words(time_state, now),
            "wrong": asdict(wrong or Wrong()),
        },
        "sensors": [
            {
                **asdict(sensor),
                "name": sensor.name or sensor.kind,
                "failing_s": (now - since) / 1e9 if (since := sensor.failing_since_boot_ns) is not None else None,
            }
            for sensor in sensors
        ],
        "buffer": asdict(buffer),
        "ledger": ledger_of(buffer),
        "delivery": asdict(delivery) if delivery else {"state": "stopped"},
        "registration": asdict(registration) if registration else None,
        "mqtt": mqtt,
        "warnings": list(dict.fromkeys((*warnings, *(registration.warnings if registration else ())))),
    }


def from_disk(state_dir: Path) -> dict[str, Any]:
    """The snapshot of an agent that does not run: whose it is, where it writes as far as it is registered, what its
    buffer holds, by the ledger as it was last saved, and what it measured last, if that still waits. Nothing is
    changed. Raises NotOurs where we may not look.
    """
    from agent.buffer.offline import look  # noqa: PLC0415 - the running agent's status needs no database
    from agent.points.line_protocol import value_of  # noqa: PLC0415
    from agent.registration.credentials import CREDENTIALS_FILE, Credentials  # noqa: PLC0415
    from agent.registration.device_id import ID_FILE  # noqa: PLC0415
    from agent.registration.secret_files import CredentialsError, read_private  # noqa: PLC0415

    try:
        if not os.access(state_dir, os.R_OK | os.X_OK) and state_dir.exists():
            raise NotOurs(state_dir)
        found = look(state_dir / "buffer")
    except PermissionError:
        raise NotOurs(state_dir) from None
    if found is None:
        buffer = BufferStatus(problem="there is no buffer yet: no agent ran here")
    elif found.problem:
        buffer = BufferStatus(problem=f"not readable ({found.problem}): the agent saves what it can when it starts")
    else:
        buffer = found.status
    state = {"running": False, "buffer": asdict(buffer), "ledger": ledger_of(buffer), "sensors": [], "warnings": []}
    if found and found.last:
        numbers = {field: value_of(text) for field, text in found.last.fields.items()}
        measured = {field: value for field, value in numbers.items() if type(value) in (int, float)}
        state["last"] = {"values": measured, "time_ns": found.last.stamp or None}
        state["at"] = time.time()
    with contextlib.suppress(OSError, ValueError):
        state["device_id"] = check_id(read_regular(state_dir / ID_FILE, 1000).decode("ascii").strip())
    with contextlib.suppress(CredentialsError, ValueError):
        if data := read_private(state_dir / CREDENTIALS_FILE):
            known = Credentials.decode(data)
            state["device_id"] = known.device_id
            state["registration"] = {"url": known.url, "bucket": known.bucket}
    return state
