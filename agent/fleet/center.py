"""An IoT Center on loopback for the demo and the simulated fleet, with an outage on request.

It is a process of its own, reached over HTTP only, so that an outage is a real one: it is stopped and started. However
the process that started it ends, it ends with it: then the pipe that is its standard input has no writer any more.
"""

from __future__ import annotations

import contextlib
import json
import signal
import socket
import subprocess
import sys
import time
import urllib.error
import urllib.request
from collections.abc import Callable, Iterable, Iterator
from dataclasses import dataclass, field
from importlib.util import find_spec
from operator import itemgetter
from pathlib import Path
from typing import Any
from urllib.parse import urlsplit

from agent.util.errors import AgentError
from agent.util.proxy import is_loopback
from agent.util.secret import Secret

Event = tuple[float, Callable[[], None]]


DEFAULT_PORT = 5000
_START_S = 20
_STOP_S = 10


def free_port(first: int) -> int:
    """The first port from `first` on that nobody listens on, on loopback. Raises AgentError after 100."""
    for port in range(first, min(first + 100, 65536)):
        with socket.socket() as probe:
            probe.setsockopt(socket.SOL_SOCKET, socket.SO_REUSEADDR, 1)
            with contextlib.suppress(OSError):
                probe.bind(("127.0.0.1", port))
                return port
    raise AgentError(f"no free port from {first} to {first + 99} on 127.0.0.1: name another with --port")


def stored(url: str, device_id: str, secret: Secret | None = None) -> int:
    """Points of measurement environment that a center counts for a device, which proves itself by its secret where the
    center has a password. Raises AgentError.
    """
    asked = urllib.request.Request(f"{url}/api/devices/{device_id}/measurements/count")  # noqa: S310 - a center's
    if secret:
        asked.add_unredirected_header("X-Device-Secret", secret.reveal())
    try:
        return int(_get(asked, 30)["count"])
    except urllib.error.HTTPError as error:
        if error.code == 404 or (secret and error.code == 401):  # it does not know the device: it has nothing of it
            return 0
        raise AgentError(f"{url} does not tell what it holds of {device_id}: {error.code} {error.reason}") from error
    except (ValueError, TypeError, KeyError) as error:
        raise AgentError(f"{url} does not tell what it holds of {device_id}: its answer is no count") from error


def _get(asked: str | urllib.request.Request, timeout_s: float) -> Any:
    """The JSON answer to a GET; this very machine is asked directly, whatever proxy is named. Raises OSError."""
    url = asked if isinstance(asked, str) else asked.full_url
    direct = [urllib.request.ProxyHandler({})] if is_loopback(urlsplit(url).hostname or "") else []
    with urllib.request.build_opener(*direct).open(asked, timeout=timeout_s) as answer:
        return json.load(answer)


@dataclass
class CenterProcess:
    """An IoT Center with the embedded store on loopback, in a process of its own."""

    port: int
    folder: Path
    process: subprocess.Popen[bytes] | None = field(default=None, init=False)
    up: bool = field(default=False, init=False)
    """It answers, and is not being stopped."""

    @property
    def url(self) -> str:
        return f"http://127.0.0.1:{self.port}"

    @property
    def log(self) -> Path:
        return self.folder / "center.log"

    def start(self) -> None:
        """Start it and wait until it answers. Raises AgentError with its last words if it does not."""
        if find_spec("flask") is None or find_spec("waitress") is None:
            raise AgentError("this starts an IoT Center, which is not installed: pip install 'iot-edge-agent[center]'")
        if free_port(self.port) != self.port:  # else another center's answers would be taken for this one's
            raise AgentError(
                f"port {self.port} was taken by another program meanwhile: try again, or name one with --port"
            )
        self.folder.mkdir(parents=True, exist_ok=True)
        command = [sys.executable, "-m", "center", "serve", "--embedded", "--host", "127.0.0.1"]
        command += ["--port", str(self.port), "--data", str(self.folder), "--until-input-ends"]
        with self.log.open("ab") as log:
            # A session of its own: Ctrl-C reaches the demo, which stops it when the agent has delivered.
            self.process = subprocess.Popen(  # noqa: S603 - our own program, no shell
                command, stdout=log, stderr=log, stdin=subprocess.PIPE, start_new_session=True
            )
        deadline = time.monotonic() + _START_S
        while time.monotonic() < deadline and self.process.poll() is None:
            with contextlib.suppress(OSError):
                _get(f"{self.url}/health", 5)
                self.up = True
                return
            time.sleep(0.05)
        words = self.log.read_text(errors="replace").strip().splitlines()[-5:] or ["it said nothing"]
        self.stop()
        raise AgentError("\n".join((f"the IoT Center did not start on {self.url}. Its last words:", *words)))

    def stop(self) -> None:
        """Stop it and wait; a second call is fine."""
        self.up = False
        if self.process is None:
            return
        with contextlib.suppress(ProcessLookupError):
            self.process.send_signal(signal.SIGTERM)
        try:
            self.process.wait(_STOP_S)
        except subprocess.TimeoutExpired:
            self.process.kill()
            self.process.wait()
        if self.process.stdin:
            self.process.stdin.close()
        self.process = None

    def outage(self, duration: float, length: float, say: Callable[[str], None]) -> Iterator[Event]:
        """(second, what happens): it is stopped for `length` s in the middle of `duration` s."""

        def cut() -> None:
            say(f"outage: the center is stopped for {length:g} s")
            self.stop()

        def back() -> None:
            self.start()
            say("the center is back")

        if length:
            yield (duration - length) / 2, cut
            yield (duration + length) / 2, back


def pass_time(duration: float, events: Iterable[Event], tick: Callable[[float], bool | None]) -> None:
    """Until `duration` s are over or `tick`, which is told all the while how many are and sleeps, says True.

    Each event happens at its second.
    """
    begin = time.monotonic()
    waiting = sorted(events, key=itemgetter(0))
    while (elapsed := time.monotonic() - begin) < duration:
        if waiting and elapsed >= waiting[0][0]:
            waiting.pop(0)[1]()
        if tick(elapsed):
            return
