"""The embedded store: both interfaces in one SQLite file, for laptops, demos and tests."""

from __future__ import annotations

from typing import TYPE_CHECKING

from center.embedded import points, registry
from center.embedded.database import Database
from center.embedded.registry import EmbeddedRegistry
from center.embedded.telemetry import EmbeddedTelemetry

if TYPE_CHECKING:
    from center.settings import Settings

FILE = "iot-center.sqlite3"


def open_embedded(settings: Settings) -> tuple[EmbeddedRegistry, EmbeddedTelemetry]:
    """Opens or creates the store in the settings' data folder. Raises StoreError, OSError."""
    store = settings.store
    database = Database(settings.data_dir / FILE, points.SCHEMA + registry.SCHEMA)
    telemetry = EmbeddedTelemetry(database, store.bucket, round(store.retention or 0))
    return EmbeddedRegistry(database, store.bucket), telemetry
