"""`iot-agent run` as a process, and other programs that are measured like it."""

from __future__ import annotations

import json
import os
import subprocess
import sys
import time
from contextlib import contextmanager
from dataclasses import dataclass
from typing import TYPE_CHECKING, Any

if TYPE_CHECKING:
    from collections.abc import Iterator
    from pathlib import Path

    from agent.registration.target import Target

AGENT = (sys.executable, "-m", "agent.cli")
NOWHERE = "http://127.0.0.1:9"
CONFIG = """
[device]
id = "{device}"
[[sensor]]
driver = "virtual"
interval = "{interval}"
[influxdb]
url = "{url}"
org = "{org}"
bucket = "{bucket}"
token = "{token}"
[buffer]
loss_window = "{window}"
max_size = "2GB"
[status]
listen = "{listen}"
[clock]
trust = "always"
"""
"""trust: the figures are about the agent and not about how this machine's clock is kept."""


@dataclass(frozen=True, slots=True)
class Agent:
    """A running agent. `started_ns` is the Unix time when its process was made."""

    process: subprocess.Popen[bytes]
    folder: Path
    started_ns: int

    @property
    def pid(self) -> int:
        return self.process.pid

    @property
    def where(self) -> list[str]:
        return ["--config", str(self.folder / "agent.toml"), "--state-dir", str(self.folder / "state")]

    def status(self) -> dict[str, Any]:
        """What it says of itself, without starting another program; empty while it is not there yet."""
        from agent.status.socket import ask

        try:
            return dict(ask(self.folder / "state") or {})
        except OSError:
            return {}

    def wait_for(self, what: str, least: int, seconds: float = 30.0) -> None:
        """Until a number of its ledger is reached; RuntimeError if it is not."""
        until = time.monotonic() + seconds
        while self.status().get("ledger", {}).get(what, 0) < least:
            if time.monotonic() > until or self.process.poll() is not None:
                raise RuntimeError(f"no {least} {what} within {seconds} s: {(self.folder / 'log').read_text()[-2000:]}")
            time.sleep(0.05)


def configure(folder: Path, target: Target | None, *, window: str, interval: str, device: str, listen: str) -> None:
    folder.mkdir(parents=True, exist_ok=True)
    text = CONFIG.format(
        device=device,
        interval=interval,
        window=window,
        listen=listen,
        url=target.url if target else NOWHERE,
        org=target.org if target else "org",
        bucket=target.bucket if target else "bench",
        token=target.token.reveal() if target else "token",
    )
    path = folder / "agent.toml"
    path.touch(0o600)
    path.write_text(text)


@contextmanager
def agent(
    folder: Path,
    target: Target | None,
    *,
    window: str = "10s",
    interval: str = "1s",
    device: str = "bench-1",
    listen: str = "",
    environment: dict[str, str] | None = None,
    more: str = "",
) -> Iterator[Agent]:
    """An agent on a virtual sensor; without a target its server is down. `more` stands at the end of its file."""
    configure(folder, target, window=window, interval=interval, device=device, listen=listen)
    with (folder / "agent.toml").open("a") as file:
        file.write(more)
    where = ["--config", str(folder / "agent.toml"), "--state-dir", str(folder / "state")]
    with (folder / "log").open("ab") as log:
        started = time.time_ns()
        process = subprocess.Popen(
            [*AGENT, "run", *where], stdout=log, stderr=log, env={**os.environ, **(environment or {})}
        )
    try:
        yield Agent(process, folder, started)
    finally:
        stop(process)


def stop(process: subprocess.Popen[bytes]) -> None:
    process.terminate()
    try:
        process.wait(20)
    except subprocess.TimeoutExpired:
        process.kill()
        process.wait()


@contextmanager
def program(*command: str, environment: dict[str, str] | None = None) -> Iterator[subprocess.Popen[bytes]]:
    """Any other program, until the block ends."""
    process = subprocess.Popen(command, stdout=subprocess.DEVNULL, env={**os.environ, **(environment or {})})
    try:
        yield process
    finally:
        stop(process)


def command_s(*command: str) -> float:
    """Seconds from the start of a command to its end. CalledProcessError if it fails."""
    began = time.perf_counter()
    subprocess.run(command, check=True, stdout=subprocess.DEVNULL)
    return time.perf_counter() - began


def output_of(*command: str) -> dict[str, Any]:
    """The JSON object that a command prints last."""
    done = subprocess.run(command, check=False, capture_output=True, text=True)
    lines = done.stdout.strip().splitlines()
    if not lines:
        raise RuntimeError(done.stderr[-2000:])
    found: dict[str, Any] = json.loads(lines[-1])
    return found
