"""Both interfaces on InfluxDB 2."""

from __future__ import annotations

from typing import TYPE_CHECKING

from center.influx.client import Influx
from center.influx.registry import InfluxRegistry
from center.influx.telemetry import InfluxTelemetry

if TYPE_CHECKING:
    from center.settings import Settings


def open_influx(settings: Settings) -> tuple[InfluxRegistry, InfluxTelemetry]:
    """Opens nothing yet: the first call connects."""
    influx = Influx(settings.influxdb)
    bucket, auth = settings.influxdb.bucket, settings.influxdb.bucket_auth
    return InfluxRegistry(influx, bucket, auth), InfluxTelemetry(influx, bucket, auth)
