"""Quantities that are computed from others where [[sensor]] asks for them, by published formulas. All are pure.

None stands for a value that the formula does not give: outside the range it was made for.
"""

from __future__ import annotations

import math
from collections.abc import Callable, Mapping

_LAPSE = 0.0065  # K/m, the standard atmosphere's


def dew_point(temperature: float, humidity: float) -> float | None:
    """Dew point in °C of air at `temperature` °C with `humidity` %RH.

    Magnus formula over water with Sonntag's constants (1990); good to 0.1 °C from -45 to 60 °C. None below -80 °C.
    """
    if humidity <= 0:
        return None
    gamma = math.log(humidity / 100) + 17.62 * temperature / (243.12 + temperature)
    point = 243.12 * gamma / (17.62 - gamma)
    return point if point >= -80 else None


def absolute_humidity(temperature: float, humidity: float) -> float:
    """Water in the air in g/m³: the vapour pressure by Magnus' formula, and the gas law with 461.5 J/(kg K).

    Saturation vapour pressure: 6.112 hPa exp(17.62 t / (243.12 + t)), WMO-No. 8 (2018), annex 4.B.
    """
    pressure_hpa = 6.112 * math.exp(17.62 * temperature / (243.12 + temperature)) * humidity / 100
    return pressure_hpa * 100 / (461.5 * (temperature + 273.15)) * 1000


def vapour_pressure_deficit(temperature: float, humidity: float) -> float:
    """What the air could still take up, in kPa, as growers use it: es - ea with equations 11 and 10 of FAO Irrigation
    and Drainage Paper 56 (Allen et al., 1998), at the temperature of the air, not of the leaf.
    """
    return 0.6108 * math.exp(17.27 * temperature / (temperature + 237.3)) * (1 - humidity / 100)


def heat_index(temperature: float, humidity: float) -> float | None:
    """What the temperature feels like in the shade, in °C: the US National Weather Service's heat index.

    Rothfusz's regression (Technical Attachment SR 90-23) with its two adjustments, and Steadman's simple formula where
    that gives less than 80 °F, as wpc.ncep.noaa.gov/html/heatindex_equation.shtml has it. None where the service's
    chart has nothing: below 80 °F (26.7 °C), and above an index that it would round to 137 °F.
    """
    t, h = temperature * 1.8 + 32, humidity
    if t < 80:
        return None
    index = (t + 61 + (t - 68) * 1.2 + h * 0.094) / 2
    if index >= 80:
        index = -42.379 + 2.04901523 * t + 10.14333127 * h - 0.22475541 * t * h - 6.83783e-3 * t * t
        index += -5.481717e-2 * h * h + 1.22874e-3 * t * t * h + 8.5282e-4 * t * h * h - 1.99e-6 * t * t * h * h
        if h < 13 and 80 <= t <= 112:
            index -= (13 - h) / 4 * math.sqrt((17 - abs(t - 95)) / 17)
        elif h > 85 and 80 <= t <= 87:
            index += (h - 85) / 10 * (87 - t) / 5
    return (index - 32) / 1.8 if index < 137.5 else None


def sea_level_pressure(pressure: float, temperature: float, altitude: float) -> float:
    """Pressure in hPa that a barometer `altitude` metres lower, at sea level, would show (ISO 2533 lapse rate)."""
    drop = _LAPSE * altitude
    return float(pressure * (1 - drop / (temperature + drop + 273.15)) ** -5.257)


FORMULAS: Mapping[str, Callable[[float, float], float | None]] = {
    "DewPoint": dew_point,
    "AbsoluteHumidity": absolute_humidity,
    "HeatIndex": heat_index,
    "VPD": vapour_pressure_deficit,
}
"""By the name in `derive`: of Temperature (°C) and Humidity (%RH)."""
