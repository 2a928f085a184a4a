"""What the blueprints of the center share: settings and the two stores, found at the application."""

from __future__ import annotations

import socket
from collections.abc import Callable
from dataclasses import dataclass
from typing import cast

from flask import current_app, has_request_context, request

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
