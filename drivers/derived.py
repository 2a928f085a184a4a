"""Quantities computed from measured ones."""

from __future__ import annotations

import math

_LAPSE = 0.0065  # K/m, the standard atmosphere's


def dew_point(temperature: float, humidity: float) -> float | None:
    """Dew point in °C of air at `temperature` °C with `humidity` %RH, or None where it has none worth stating.

    Magnus formula over water with Sonntag's constants (1990); good to 0.1 °C from -45 to 60 °C.
    """
    if humidity <= 0:
        return None
    gamma = math.log(humidity / 100) + 17.62 * temperature / (243.12 + temperature)
    point = 243.12 * gamma / (17.62 - gamma)
    return point if point >= -80 else None


def sea_level_pressure(pressure: float, temperature: float, altitude: float) -> float:
    """Pressure in hPa that a barometer `altitude` metres lower, at sea level, would show (ISO 2533 lapse rate)."""
    drop = _LAPSE * altitude
    return float(pressure * (1 - drop / (temperature + drop + 273.15)) ** -5.257)
