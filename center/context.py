"""What the blueprints of the center share: settings and the two stores, found at the application."""

from __future__ import annotations

import socket
from collections.abc import Callable
from dataclasses import dataclass, field
from typing import cast

from flask import current_app, has_request_context, request

from agent.util.loops import Running
from center.settings import Settings
from center.stores.registry import Registry
from center.stores.telemetry import Telemetry

EXTENSION = "iot-center"


@dataclass(frozen=True, slots=True)
class Center:
    """In the application's extensions; `current_center()` finds it during a request. close(): twice is fine."""

    settings: Settings
    registry: Registry
    telemetry: Telemetry
    close: Callable[[], None]
    loops: list[Running] = field(default_factory=list)

    @property
    def failing(self) -> dict[str, str]:
        """What is not done although requests are answered: a sentence each, by its name."""
        jobs = {name: f"{name} fails: {why}" for name, why in self.telemetry.failing.items()}
        return jobs | {loop.name: loop.problem for loop in self.loops if loop.problem}


def current_center() -> Center:
    return cast("Center", current_app.extensions[EXTENSION])


def client_gone() -> bool:
    """Whether nobody waits for the answer to this request any more, where the server (waitress) lets one see."""
    asked = request.environ.get("waitress.client_disconnected") if has_request_context() else None
    connection = getattr(getattr(asked, "__self__", None), "socket", None)
    if not isinstance(connection, socket.socket):
        return False
    try:
        return connection.recv(1, socket.MSG_PEEK | socket.MSG_DONTWAIT) == b""
    except BlockingIOError:
        return False
    except OSError:
        return True
