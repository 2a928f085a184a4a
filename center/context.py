"""What the blueprints of the center share: settings and the two stores, found at the application."""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import dataclass
from typing import cast

from flask import current_app

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
