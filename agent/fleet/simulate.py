"""A fleet in one process: many agents, each whole, whose loops share a few threads.

Each device has its own id, secret, registration, token, buffer with ledger, and moments of flushing; only the threads
and the host's clock are shared. What the server holds is counted by the server's API, device by device.
"""

from __future__ import annotations

import resource
import secrets
import time
from collections import Counter
from collections.abc import Callable, Iterable, Mapping
from concurrent.futures import ThreadPoolExecutor
from contextlib import ExitStack
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any

from agent.config.parse import parse_settings
from agent.config.settings import Settings
from agent.delivery.writer import Writer
from agent.fleet.center import CenterProcess, free_port, pass_time, stored
from agent.fleet.shared_loops import SharedLoops
from agent.registration.credentials import CredentialStore
from agent.service import Service
from agent.status.snapshot import LEDGER
from agent.util.errors import AgentError
from agent.util.http import Answer
from agent.util.secret import Secret

WORKERS = 16
REGISTERED_WITHIN_S = 120
DRAIN_S = 60
PORTS = range(20_000, 32_000)
"""Of its own center: nobody's default, so that another simulation does not take it while it is stopped."""
SHOWN_S = 10
"""A store may show what it took some seconds later (VictoriaMetrics: one or two)."""
DONE = 204


@dataclass(frozen=True, slots=True)
class Plan:
    """What to simulate: `devices` of them, each measuring every `interval` s for `duration` s, against `center` (None:
    one of our own). `outage` s in the middle the center is stopped; `restart_all`: all devices at once, in the middle.
    """

    devices: int
    interval: float
    duration: float
    center: str | None = None
    outage: float = 0.0
    restart_all: bool = False
    enrollment_key_file: str | None = None


@dataclass(slots=True)
class Tally:
    """What the devices' write requests met: moments (s, monotonic), seconds each took, answers by status."""

    moments: list[float] = field(default_factory=list)
    seconds: list[float] = field(default_factory=list)
    answers: Counter[str] = field(default_factory=Counter)
    center: CenterProcess | None = None
    """While it is stopped on purpose an unanswered request is no error."""

    def writer(self) -> type[Writer]:
        tally = self

        class TimedWriter(Writer):
            """Writer, and a note of each request that carries points."""

            def write(self, body: bytes) -> Answer:
                begin = time.monotonic()
                answer = super().write(body)
                if body:
                    tally.moments.append(begin)
                    tally.seconds.append(time.monotonic() - begin)
                    down = answer.status is None and tally.center is not None and not tally.center.up
                    tally.answers["down" if down else str(answer.status)] += 1
                return answer

        return TimedWriter

    @property
    def errors(self) -> int:
        return sum(number for status, number in self.answers.items() if status not in {str(DONE), "down"})


def peak_to_mean(moments: list[float], begin: float, end: float) -> float:
    """The busiest second over the mean of all whole seconds from `begin` to `end`; 0 without a whole second."""
    seconds = int(end - begin)
    inside = [moment for moment in moments if begin <= moment < begin + seconds]
    return busiest(inside, begin) * seconds / len(inside) if inside else 0.0


def busiest(moments: Iterable[float], begin: float) -> int:
    """The most of them in one second, counted from `begin`."""
    return max(Counter(int(moment - begin) for moment in moments).values(), default=0)


def percentile(values: list[float], share: float) -> float:
    """The value below which `share` (0 to 1) of them lie; 0 of none."""
    ordered = sorted(values)
    return ordered[min(len(ordered) - 1, int(share * len(ordered)))] if ordered else 0.0


class Fleet:
    """The devices of a plan, their state in `folder`. start() and stop() may follow each other: a power cut of all."""

    def __init__(self, plan: Plan, url: str, folder: Path, center: CenterProcess | None = None) -> None:
        self.plan, self.folder = plan, folder
        self.tally = Tally(center=center)
        self.services: list[Service] = []
        self._settings = [self._settings_of(f"sim-{number:05d}", url) for number in range(plan.devices)]

    def _settings_of(self, device_id: str, url: str) -> Settings:
        center: dict[str, Any] = {"url": url, "api": "iot-center"}
        if self.plan.enrollment_key_file:
            center["enrollment_key_file"] = self.plan.enrollment_key_file
        tables = {
            "device": {"id": device_id},
            "sensor": [{"driver": "virtual", "interval": f"{round(self.plan.interval * 1000)}ms", "seed": 1}],
            "center": center,
            "clock": {"trust": "always"},  # one clock for all, and no probes that a fleet would not send either
            "status": {"listen": ""},
            "health": {"enabled": False},
        }
        return parse_settings(tables, "simulate", {})

    def start(self) -> None:
        """All devices at once, each as after a power cut."""
        loops = SharedLoops(WORKERS)
        connect = self.tally.writer()
        self.services = [
            Service(s, self.folder / str(s.device.id), spawn=loops.spawn, connect=connect, control=False)
            for s in self._settings
        ]
        _each(self.services, lambda service: service.start())

    def stop_measuring(self) -> None:
        _each(self.services, lambda service: service.stop_measuring())

    def stop(self) -> None:
        _each(self.services, lambda service: service.stop())

    def registered(self) -> int:
        return sum(service.registered() for service in self.services)

    def ledgers(self) -> list[dict[str, Any]]:
        return [service.ledger() for service in self.services]

    def pending(self) -> int:
        return sum(ledger["pending"] for ledger in self.ledgers())

    def drain(self, seconds: float) -> None:
        """Wait until no device has anything pending, at most so long. They flush at their own moments."""
        deadline = time.monotonic() + seconds
        while self.pending() and time.monotonic() < deadline:
            time.sleep(0.25)


def _each(services: list[Service], act: Callable[[Service], object]) -> None:
    with ThreadPoolExecutor(WORKERS) as pool:
        for _ in pool.map(act, services):
            pass


def simulate(plan: Plan, folder: Path, progress: Callable[[str, float], None]) -> dict[str, Any]:
    """Run the plan. `progress` is told what is going on and how far it is (0 to 1). Raises AgentError."""
    _allow_files(plan.devices * 10 + 200)
    with ExitStack() as stack:
        center, url = None, plan.center
        if url is None:
            center = CenterProcess(free_port(secrets.choice(PORTS)), folder / "center")
            stack.callback(center.stop)
            center.start()
            url = center.url
        fleet = Fleet(plan, url, folder / "devices", center)
        begin = time.monotonic()
        fleet.start()
        try:
            while (registered := fleet.registered()) < plan.devices and time.monotonic() - begin < REGISTERED_WITHIN_S:
                progress(f"{registered} of {plan.devices} registered", registered / plan.devices)
                time.sleep(0.1)
            registration_s = time.monotonic() - begin
            steady = time.monotonic()
            settled = steady + min(plan.interval + 1, plan.duration / 3)  # after the burst of all first points
            before = sum(ledger["delivered"] for ledger in fleet.ledgers())
            _measure(plan, fleet, center, progress)
            end = time.monotonic()
            delivered = sum(ledger["delivered"] for ledger in fleet.ledgers())
            fleet.stop_measuring()
            progress("stopped measuring, delivering the rest", 1)
            fleet.drain(DRAIN_S)
        finally:
            fleet.stop()
        ledgers = fleet.ledgers()
        progress("counting what the server holds", 1)
        delivered_of = {s.device_id: ledger["delivered"] for s, ledger in zip(fleet.services, ledgers, strict=True)}
        counts = held(url, delivered_of, {i: CredentialStore(fleet.folder / i).device_secret() for i in delivered_of})
        seconds = fleet.tally.seconds
        return {
            "devices": plan.devices,
            "registered": registered,
            **{key: sum(ledger[key] for ledger in ledgers) for key in LEDGER},
            "stored": sum(counts),
            "unequal": sum(ledger["delivered"] != count for ledger, count in zip(ledgers, counts, strict=True)),
            "errors": fleet.tally.errors,
            "answers": dict(fleet.tally.answers),
            "requests": len(seconds),
            "registrations_per_s": round(registered / registration_s, 1),
            "points_per_s": round((delivered - before) / (end - steady), 1),
            "latency_ms": {f"p{round(100 * s)}": round(1000 * percentile(seconds, s), 1) for s in (0.5, 0.95, 0.99)},
            "peak_to_mean": round(peak_to_mean(fleet.tally.moments, settled, end), 2),
            "start_peak_per_s": busiest((m for m in fleet.tally.moments if m < settled), begin),
            "memory_mb": resource.getrusage(resource.RUSAGE_SELF).ru_maxrss // 1024,
        }


def held(url: str, delivered: Mapping[str, int], own: Mapping[str, Secret], seconds: float = SHOWN_S) -> list[int]:
    """What the server counts for each device, asked with its own secret, in their order; where it is less than was
    delivered, asked again for so long. Raises AgentError.
    """
    counts = {device_id: stored(url, device_id, own[device_id]) for device_id in delivered}
    deadline = time.monotonic() + seconds
    while less := [device_id for device_id, count in counts.items() if count < delivered[device_id]]:
        if time.monotonic() > deadline:
            break
        time.sleep(0.25)
        counts |= {device_id: stored(url, device_id, own[device_id]) for device_id in less}
    return list(counts.values())


def passed(result: dict[str, Any]) -> bool:
    """All registered, and for each device delivered equals what the server counts."""
    return result["registered"] == result["devices"] and not result["unequal"] and not result["pending"]


def _measure(plan: Plan, fleet: Fleet, center: CenterProcess | None, progress: Callable[[str, float], None]) -> None:
    """Until the duration is over, with what the plan wants in the middle."""

    def restart() -> None:
        fleet.stop()
        fleet.start()

    def tick(elapsed: float) -> None:
        progress("measuring", elapsed / plan.duration)
        time.sleep(0.1)

    events = [(plan.duration / 2, restart)] if plan.restart_all else []
    if center is not None:
        events += center.outage(plan.duration, plan.outage, lambda _: None)
    pass_time(plan.duration, events, tick)


def _allow_files(number: int) -> None:
    """Raise the limit of open files. Raises AgentError where the system does not let us."""
    soft, hard = resource.getrlimit(resource.RLIMIT_NOFILE)
    if resource.RLIM_INFINITY not in {soft, hard} and hard < number:
        raise AgentError(
            f"{number} open files are needed and {hard} allowed: raise it (ulimit -n) or take fewer devices"
        )
    if soft != resource.RLIM_INFINITY and soft < number:
        resource.setrlimit(resource.RLIMIT_NOFILE, (number, hard))
