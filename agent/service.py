"""Wires the parts into a running agent: threads, signals, reload, systemd.

Order of start: sensors first (registration or a slow card may take their time; readings wait in memory), then the
buffer, then what delivers. Order of stop: sensors, then everything is committed, whatever the network does.
"""

from __future__ import annotations

import logging
import time
from collections.abc import Callable
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any

from agent import __version__
from agent.buffer.buffer import Buffer, open_buffer
from agent.buffer.committer import Committer
from agent.clock.backdating import Dating
from agent.clock.clock import Clock, open_clock
from agent.config.limits import missing_files
from agent.config.settings import Settings
from agent.delivery.delivery import Delivery
from agent.delivery.writer import Writer  # with influxdb_client, before any thread: points/schema.py says why
from agent.mqtt.publisher import Publisher
from agent.registration.credentials import stored_remote
from agent.registration.device_id import device_id, state_folder_warning
from agent.registration.registrar import Registrar
from agent.registration.static_token import StaticToken
from agent.registration.target import Target
from agent.sensing.sensors import Sensors, drivers_of
from agent.status.board import address_in_words
from agent.status.health_rules import quiet
from agent.status.history import History
from agent.status.http import StatusPage
from agent.status.self_telemetry import Health
from agent.status.snapshot import build, ledger_of
from agent.status.socket import ControlServer
from agent.util import systemd
from agent.util.loops import After, LoopThread, Running, Spawn, end
from agent.util.state_folder import DiskFull, prepare
from drivers.base import Driver, boot_ns

log = logging.getLogger(__name__)

_STOP_S, _FAREWELL_S = 0.5, 0.5
_LAST_READING_S = 1.5
"""From a stop to the end of a reading whose window is still reported: slow sensors convert for most of a second."""
_USUAL_TIMEOUT_S = 30.0
"""A request with a longer one may take so much longer before its thread counts as stuck."""


@dataclass(slots=True)
class Core:
    """What lives from start to stop."""

    clock: Clock
    buffer: Buffer
    committer: Committer
    dating: Dating
    loops: list[Running] = field(default_factory=list)


@dataclass(slots=True)
class Parts:
    """What a reload replaces: all that depends on the settings but the buffer and the clock."""

    sensors: Sensors | None = None
    registrar: Registrar | StaticToken | None = None
    delivery: Delivery | None = None
    mqtt: Publisher | None = None
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
        self._core: Core | None = None
        self._control: ControlServer | None = None
        self._history = History()
        self._page: StatusPage | None = None
        self._parts = Parts()
        self._folder_warning: str | None = None
        self._last: dict[str, Any] | None = None

    def start(self) -> None:
        drivers = drivers_of(self.settings)
        try:
            prepare(self.state_dir)
        except DiskFull as error:
            log.error("%s: points wait in memory, and it is tried again", error)  # noqa: TRY400 - the disk, not the program
        self._folder_warning = state_folder_warning(self.state_dir)
        self.device_id = device_id(self.settings.device.id, self.state_dir)
        clock = open_clock(self.state_dir, self.settings.clock)
        # Holds the folder against a second agent; the disk itself is opened by the committer, off the sensors' way.
        buffer = open_buffer(self.state_dir / "buffer", self.settings.buffer, clock, wait=False)
        dating = Dating(clock, buffer, self.settings.clock.unanchored, self._hurry)
        self._core = core = Core(clock, buffer, Committer(buffer), dating)
        sensors = self._measure(core, drivers)
        core.loops = [self._spawn("committer", core.committer), self._spawn("clock", core.dating)]
        self._deliver(core, sensors)
        if self._folder_warning and not self.settings.center:  # the registrar says it too
            log.warning("%s", self._folder_warning)
        if self._with_control:
            self._control = ControlServer(self.state_dir, self.snapshot)
        self._show()
        log.info("device %s: measuring with %s", self.device_id, sensors.describe())

    def stop(self) -> None:
        """Stop measuring and commit everything; within 2 s, even if the network hangs (its thread is left behind)."""
        core = self._core
        if core is None:
            return
        systemd.notify("STOPPING=1")
        last_reading = time.monotonic() + _LAST_READING_S
        self.stop_measuring()
        if self._answers():  # the last points then need no disk
            self.drain(_FAREWELL_S)
        end([*self._parts.others, *core.loops], _STOP_S)
        end(self._parts.measuring, last_reading - time.monotonic())
        try:
            self._last = self.snapshot()
        except Exception:
            log.exception("the last status could not be taken")
        core.buffer.close()
        self._last = {**(self._last or {}), "ledger": ledger_of(core.buffer.snapshot())}
        core.clock.close()
        if self._control:
            self._control.close()
        if self._page:
            self._page.close()
        self._core = None

    def _answers(self) -> bool:
        """Whether there is a server, it owes no answer, and nothing speaks against it: it may not have been asked yet,
        as after a reload.
        """
        if self._parts.delivery is None or not self.registered():
            return False
        status = self._parts.delivery.snapshot()
        return not status.failures and status.call_since_boot_ns is None

    def stop_measuring(self) -> None:
        end(self._parts.measuring, _STOP_S)

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
        drivers, old, core = drivers_of(settings), self._parts, self._core
        assert core is not None
        self.stop_measuring()
        # A reading may take its time: who goes on with its sensor waits for it, and stop() too.
        before, self.settings = self.settings, settings
        self._parts = Parts(measuring=[loop for loop in old.measuring if loop.is_alive()])
        self.device_id = device_id(settings.device.id, self.state_dir)
        sensors = self._measure(core, drivers)  # first of all: what follows may wait for network and disk
        end(old.others, _STOP_S)
        core.buffer.configure(settings.buffer)
        core.clock.configure(settings.clock.trust, round(settings.clock.max_error * 1e9))
        core.dating.configure(settings.clock.unanchored)
        self._deliver(core, sensors)
        if settings.status != before.status:
            self._show()
        log.info("new configuration: measuring with %s", sensors.describe())

    def snapshot(self) -> dict[str, Any]:
        """What `status`, the metrics and the page show. After stop() what was last true."""
        core, parts = self._core, self._parts
        if core is None:
            return self._last or {"sensors": [], "delivery": {"state": "stopped"}}
        return build(
            device_id=self.device_id,
            started_boot_ns=self.started_boot_ns,
            clock=core.clock,
            sensors=parts.sensors.snapshot() if parts.sensors else [],
            buffer=core.buffer.snapshot(),
            delivery=parts.delivery.snapshot() if parts.delivery else None,
            registration=parts.registrar.snapshot() if parts.registrar else None,
            warnings=self._warnings(core),
            wrong=core.dating.wrong,
            mqtt=parts.mqtt.snapshot() if parts.mqtt else None,
        )

    def _warnings(self, core: Core) -> list[str]:
        """What a person should mend although all goes on; files that were missing at the start may be there by now."""
        running = (*self._parts.measuring, *self._parts.others, *core.loops)
        found = [*self.settings.warnings, *missing_files(self.settings), self._folder_warning]
        found.append(core.dating.warning)
        return [text for text in (*found, *(loop.problem for loop in running)) if text]

    def ledger(self) -> dict[str, Any]:
        """The equation of promise 8, now; after stop() as it was saved."""
        if self._core is None:
            ledger: dict[str, Any] = (self._last or {}).get("ledger", {})
            return ledger
        return ledger_of(self._core.buffer.snapshot())

    def registered(self) -> bool:
        """Whether there is a place to deliver to."""
        return self._parts.registrar is not None and self._parts.registrar.target() is not None

    def alive_boot_ns(self) -> dict[str, int]:
        """When each loop that matters was last seen at work (boot clock), for the watchdog."""
        core, parts = self._core, self._parts
        alive = parts.sensors.alive_boot_ns() if parts.sensors else {}
        if core:
            alive["committer"] = max(core.committer.alive_boot_ns, core.buffer.alive_boot_ns())
        if parts.delivery:
            patience_s = max(0.0, self.settings.delivery.timeout - _USUAL_TIMEOUT_S)  # to connect, and for the answer
            alive["delivery"] = parts.delivery.alive_boot_ns + int(2e9 * patience_s)
        return alive

    def _measure(self, core: Core, drivers: list[Driver]) -> Sensors:
        parts = self._parts
        remote = stored_remote(self.settings.center, self.device_id, self.state_dir)  # no reading without its offset
        parts.sensors = sensors = Sensors(self.settings, self.device_id, drivers, core.buffer.put, remote)
        if self.settings.mqtt:
            parts.mqtt = Publisher(
                self.settings,
                self.device_id,
                self.state_dir,
                told=sensors.told,
                sensors=sensors.snapshot,
                snapshot=self.snapshot,
                date=core.clock.date,
            )
            sensors.also = parts.mqtt.take
        left = {loop.name: loop for loop in reversed(parts.measuring)}  # the one that really reads
        for name, sampler in sensors.loops():
            parts.measuring.append(self._spawn(name, After(sampler, left[name]) if name in left else sampler))
        return sensors

    def _deliver(self, core: Core, sensors: Sensors) -> None:
        parts, settings, clock, buffer = self._parts, self.settings, core.clock, core.buffer
        if settings.center:
            parts.registrar = Registrar(
                settings.center,
                self.device_id,
                self.state_dir,
                observe=clock.observe,
                on_remote=sensors.configure,
                tell=lambda: self._told(sensors),
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
        if parts.mqtt:
            parts.others.append(self._spawn("mqtt", parts.mqtt))

    def _told(self, sensors: Sensors) -> dict[str, Any]:
        """What a center is told of this agent; of its sensors those as `quiet` by which nobody shall judge silence."""
        told, seen = sensors.told(), self.snapshot()
        own = zip(told["sensors"], seen["sensors"], strict=False)  # none any more after a stop
        names = [sensor["name"] for sensor, section in own if quiet(section, seen["boot_ns"])]
        return {"version": __version__, "address": address_in_words(), "quiet": names, **told}

    def _show(self) -> None:
        """The status page, as it is set now."""
        if self._page:
            self._page.close()
        self._page = StatusPage(self.settings.status, self.snapshot, self._history)
        self._page.start()

    def _hurry(self) -> None:
        if self._parts.delivery:
            self._parts.delivery.hurry()
