"""Wires the parts into a running agent: threads, signals, reload, systemd.

Order of start: sensors first (registration or a slow card may take their time; readings wait in memory), then the
buffer, then what delivers. Order of stop: sensors, then everything is committed, whatever the network does.
"""

from __future__ import annotations

import errno
import logging
import time
from dataclasses import dataclass, field
from typing import TYPE_CHECKING, Any

from agent.buffer.buffer import Buffer, open_buffer
from agent.buffer.committer import Committer
from agent.clock.backdating import Dating
from agent.clock.clock import Clock, open_clock
from agent.delivery.delivery import Delivery
from agent.delivery.writer import Writer
from agent.registration.device_id import device_id, state_folder_warning
from agent.registration.registrar import Registrar
from agent.registration.static_token import StaticToken
from agent.sensing.sensors import Sensors, drivers_of
from agent.status.history import History
from agent.status.http import StatusPage
from agent.status.self_telemetry import Health
from agent.status.snapshot import build, ledger_of
from agent.status.socket import ControlServer
from agent.util import systemd
from agent.util.errors import AgentError
from agent.util.loops import LoopThread, Running, Spawn
from drivers.base import boot_ns

if TYPE_CHECKING:
    from collections.abc import Callable
    from pathlib import Path

    from agent.config.settings import Settings
    from agent.registration.target import Target
    from drivers.base import Driver

_log = logging.getLogger(__name__)

_STOP_S = 0.5
_FAREWELL_S = 0.5
_USUAL_TIMEOUT_S = 30.0
"""A request with a longer one may take so much longer before its thread counts as stuck."""


@dataclass(slots=True)
class Parts:
    """What a reload replaces: all that depends on the settings but the buffer and the clock."""

    settings: Settings
    sensors: Sensors | None = None
    registrar: Registrar | StaticToken | None = None
    delivery: Delivery | None = None
    measuring: list[Running] = field(default_factory=list)
    others: list[Running] = field(default_factory=list)


class Service:
    """One agent on one state folder: start(), then stop(). stop() may be called twice.

    `spawn` runs the loops: each in a thread of its own; `iot-agent simulate` shares a few threads among many agents.
    Raises AgentError where it cannot start at all: another agent on the folder, or no right to write there. A full disk
    is no reason: without a folder, points wait in memory until there is one.
    """

    def __init__(
        self,
        settings: Settings,
        state_dir: Path,
        *,
        spawn: Spawn = LoopThread,
        connect: Callable[[Target, float], Writer] = Writer,
        control: bool = True,
    ) -> None:
        self.settings, self.state_dir = settings, state_dir
        self._spawn, self._connect, self._with_control = spawn, connect, control
        self.started_boot_ns = boot_ns()
        self.device_id = ""
        self._buffer: Buffer | None = None
        self._clock: Clock | None = None
        self._control: ControlServer | None = None
        self._history = History()
        self._page: StatusPage | None = None
        self._base: list[Running] = []  # committer and clock: they live as long as the buffer
        self._committer: Committer | None = None
        self._dating: Dating | None = None
        self._parts = Parts(settings)
        self._folder_warning: str | None = None
        self._last: dict[str, Any] | None = None

    def start(self) -> None:
        drivers = drivers_of(self.settings)
        try:
            prepare(self.state_dir)
        except DiskFull as error:
            _log.error("%s: points wait in memory, and it is tried again", error)
        self._folder_warning = state_folder_warning(self.state_dir)
        self.device_id = device_id(self.settings.device.id, self.state_dir)
        self._clock = open_clock(self.state_dir, self.settings.clock)
        # Holds the folder against a second agent; the disk itself is opened by the committer, off the sensors' way.
        self._buffer = buffer = open_buffer(self.state_dir / "buffer", self.settings.buffer, self._clock, wait=False)
        sensors = self._measure(self._parts, drivers)
        self._committer = Committer(buffer)
        self._dating = Dating(self._clock, buffer, self.settings.clock.unanchored, self._hurry)
        self._base = [
            self._spawn("committer", self._committer),
            self._spawn("clock", self._dating),
        ]
        self._deliver(self._parts)
        if self._folder_warning and not self.settings.center:  # the registrar says it too
            _log.warning("%s", self._folder_warning)
        if self._with_control:
            self._control = ControlServer(self.state_dir, self.snapshot)
        self._show()
        _log.info("device %s: measuring with %s", self.device_id, sensors.describe())

    def stop(self) -> None:
        """Stop measuring and commit everything; within 2 s, even if the network hangs (its thread is left behind)."""
        if self._buffer is None:
            return
        systemd.notify("STOPPING=1")
        self.stop_measuring()
        if self._answers():  # the last points then need no disk
            self.drain(_FAREWELL_S)
        _end([*self._parts.others, *self._base])
        try:
            self._last = self.snapshot()
        except Exception:  # noqa: BLE001 - the points come first
            _log.exception("the last status could not be taken")
        self._buffer.close()
        self._last = {**(self._last or {}), "ledger": ledger_of(self._buffer.snapshot())}
        if self._clock:
            self._clock.close()
        if self._control:
            self._control.close()
        if self._page:
            self._page.close()
        self._buffer = None

    def _answers(self) -> bool:
        """Whether the server took what it was sent last, and owes no answer."""
        if self._parts.delivery is None:
            return False
        status = self._parts.delivery.snapshot()
        return status.last_success_ns is not None and not status.failures and status.call_since_boot_ns is None

    def stop_measuring(self) -> None:
        _end(self._parts.measuring)

    def drain(self, seconds: float) -> bool:
        """Wait until nothing is pending, at most so long."""
        deadline = time.monotonic() + seconds
        while self.ledger()["pending"] and time.monotonic() < deadline:
            self._hurry()
            time.sleep(0.05)
        return not self.ledger()["pending"]

    def reload(self, settings: Settings) -> None:
        """Go on with other settings: sensors and delivery are replaced, the buffer and its points stay.

        Settings of [buffer] and [clock] and another device id take effect too, without losing a point. Raises
        AgentError where a driver cannot be made, and the old settings stay.
        """
        drivers, old = drivers_of(settings), self._parts
        self.stop_measuring()
        self.settings, self._parts = settings, Parts(settings)
        self.device_id = device_id(settings.device.id, self.state_dir)
        sensors = self._measure(self._parts, drivers)  # first of all: what follows may wait for network and disk
        _end(old.others)
        if self._buffer and self._clock and self._dating:
            self._buffer.configure(settings.buffer)
            self._clock.configure(settings.clock.trust)
            self._dating.configure(settings.clock.unanchored)
        self._deliver(self._parts)
        if settings.status != old.settings.status:
            self._show()
        _log.info("new configuration: measuring with %s", sensors.describe())

    def snapshot(self) -> dict[str, Any]:
        """What `status`, the metrics and the page show. After stop() what was last true."""
        if self._buffer is None or self._clock is None:
            return self._last or {"sensors": [], "delivery": {"state": "stopped"}}
        parts = self._parts
        return build(
            device_id=self.device_id,
            started_boot_ns=self.started_boot_ns,
            clock=self._clock,
            sensors=parts.sensors.snapshot() if parts.sensors else [],
            buffer=self._buffer.snapshot(),
            delivery=parts.delivery.snapshot() if parts.delivery else None,
            registration=parts.registrar.snapshot() if parts.registrar else None,
            warnings=self._warnings(),
        )

    def _warnings(self) -> tuple[str, ...]:
        """What a person should mend although all goes on."""
        registrar = self._parts.registrar
        said = (*self.settings.warnings, *(registrar.snapshot().warnings if registrar else ()))
        return tuple(dict.fromkeys((*said, self._folder_warning) if self._folder_warning else said))

    def ledger(self) -> dict[str, Any]:
        """The equation of promise 8, now; after stop() as it was saved."""
        if self._buffer is None:
            ledger: dict[str, Any] = (self._last or {}).get("ledger", {})
            return ledger
        return ledger_of(self._buffer.snapshot())

    def registered(self) -> bool:
        """Whether there is a place to deliver to."""
        return self._parts.registrar is not None and self._parts.registrar.target() is not None

    def alive_boot_ns(self) -> dict[str, int]:
        """When each loop that matters was last seen at work (boot clock), for the watchdog."""
        parts = self._parts
        alive = parts.sensors.alive_boot_ns() if parts.sensors else {}
        if self._committer and self._buffer:
            alive["committer"] = max(self._committer.alive_boot_ns, self._buffer.alive_boot_ns())
        if parts.delivery:
            patience_s = max(0.0, parts.settings.delivery.timeout - _USUAL_TIMEOUT_S)  # to connect, and for the answer
            alive["delivery"] = parts.delivery.alive_boot_ns + int(2e9 * patience_s)
        return alive

    def _measure(self, parts: Parts, drivers: list[Driver]) -> Sensors:
        assert self._buffer is not None
        parts.sensors = sensors = Sensors(parts.settings, self.device_id, drivers, self._buffer.put)
        parts.measuring += [self._spawn(name, sampler) for name, sampler in sensors.loops()]
        return sensors

    def _deliver(self, parts: Parts) -> None:
        settings, clock, buffer = parts.settings, self._clock, self._buffer
        assert clock is not None
        assert buffer is not None
        assert parts.sensors is not None
        if settings.center:
            parts.registrar = Registrar(
                settings.center,
                self.device_id,
                self.state_dir,
                observe=clock.observe,
                on_remote=parts.sensors.configure,
            )
        elif settings.influxdb:
            parts.registrar = StaticToken(settings.influxdb, self.device_id)
        assert parts.registrar is not None
        parts.delivery = Delivery(
            buffer,
            parts.registrar.target,
            clock,
            settings.delivery,
            parts.registrar.renew,
            on_authorised=parts.registrar.accepted,
            device_id=self.device_id,
            loss_window=settings.buffer.loss_window,
            connect=self._connect,
        )
        parts.others += [self._spawn("registration", parts.registrar), self._spawn("delivery", parts.delivery)]
        if settings.health.enabled:
            health = Health(settings.health, self.snapshot, buffer.put, self.device_id, self.state_dir)
            parts.others.append(self._spawn("health", health))

    def _show(self) -> None:
        """The status page, as it is set now."""
        if self._page:
            self._page.close()
        self._page = StatusPage(self.settings.status, self.snapshot, self._history)
        self._page.start()

    def _hurry(self) -> None:
        if self._parts.delivery:
            self._parts.delivery.hurry()


def _end(loops: list[Running]) -> None:
    """Stop these loops, and wait for them as long as they may take together: a call may hang."""
    for loop in loops:
        loop.stop()
    deadline = time.monotonic() + _STOP_S
    for loop in loops:
        loop.join(max(0.0, deadline - time.monotonic()))


class DiskFull(AgentError):  # noqa: N818 - says what is the case
    """There is no room for the state folder."""


def prepare(state_dir: Path) -> None:
    """The state folder, for its owner only. Raises AgentError saying what to do."""
    try:
        state_dir.mkdir(parents=True, exist_ok=True, mode=0o700)
    except OSError as error:
        kind = DiskFull if error.errno in (errno.ENOSPC, errno.EDQUOT) else AgentError
        raise kind(
            f"the state folder {state_dir} cannot be made ({error.strerror}): name another with --state-dir"
        ) from error
