"""The table of quantities: what a field of the data model holds, and how agent and center show it."""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass
from typing import Literal


@dataclass(frozen=True, slots=True)
class Quantity:
    """A field of the data model.

    `low` and `high` are the limits, in `unit`, that a sensor for it can measure; `decimals` is the resolution that a
    delivered value is rounded to; `sensor_tag` names the tag that holds the sensor's kind; `max_rate` is the fastest
    change, in `unit` per second, that air can show, or None where any change is believable, and `max_step` the largest
    one, however long it took, that is believed at once. A sensor's formula may overshoot a limit by `overshoot`, which
    means the limit. A `derived` quantity is computed from others.

    How it is shown: `label` on a page (without one, the field's name); `gauge`, the range that people live in, None
    where a gauge says nothing; `metric`, its name for Prometheus, and `device_class`, its kind for Home Assistant, none
    if empty.
    """

    field: str
    unit: str
    low: float
    high: float
    kind: Literal["float", "integer"]
    decimals: int
    sensor_tag: str | None = None
    max_rate: float | None = None
    max_step: float | None = None
    overshoot: float = 0.0
    label: str = ""
    gauge: tuple[float, float] | None = None
    metric: str = ""
    device_class: str = ""
    derived: bool = False

    def clamped(self, value: float) -> float:
        """The limit that `value` overshoots a little; any other value as it is, also one far outside."""
        limit = min(self.high, max(self.low, value))
        return limit if abs(value - limit) <= self.overshoot else value

    @property
    def shown(self) -> str:
        """Its name for people."""
        return self.label or self.field


# In the order of pages and tables. A range is that of the sensor that reaches furthest; a driver has its own, if it is
# narrower. Temperature: DS18B20 (datasheet, features). Humidity, Pressure: BME280 (section 1). CO2: SCD4x (1.1).
# GasResistance: what the formula of the BME680 (3.4.1) can give. Illuminance: VEML7700, 65535 counts at its lowest
# sensitivity, 2.15 lx each. Voltage, Current: INA260 (features). Distance: VL53L1X (features). Location: WGS 84.
# A change by max_step: out of the cold into a room, a breath on the sensor, 250 m up or down. The overshoot is three
# times the accuracy.
# fmt: off
_TABLE = (
    Quantity("Temperature", "°C", -55.0, 125.0, "float", 2, "TemperatureSensor", 5.0, max_step=20.0,
             gauge=(-10.0, 40.0), metric="temperature_celsius", device_class="temperature"),
    Quantity("Humidity", "%RH", 0.0, 100.0, "float", 2, "HumiditySensor", 50.0, max_step=60.0, overshoot=10.0,
             gauge=(0.0, 100.0), metric="humidity_percent", device_class="humidity"),
    Quantity("Pressure", "hPa", 300.0, 1100.0, "float", 2, "PressureSensor", 5.0, max_step=30.0,
             gauge=(960.0, 1050.0), metric="pressure_hectopascals", device_class="atmospheric_pressure"),
    Quantity("CO2", "ppm", 0, 40_000, "integer", 0, "CO2Sensor",
             label="CO₂", gauge=(400.0, 2000.0), metric="co2_ppm", device_class="carbon_dioxide"),
    Quantity("TVOC", "ppb", 0, 60_000, "integer", 0, "TVOCSensor",
             gauge=(0.0, 1000.0), metric="tvoc_ppb", device_class="volatile_organic_compounds_parts"),
    Quantity("GasResistance", "Ω", 0, 102_400_000, "integer", 0, "GasResistanceSensor",
             label="Gas resistance", metric="gas_resistance_ohms"),
    Quantity("Illuminance", "lx", 0.0, 140_000.0, "float", 2, "IlluminanceSensor",
             gauge=(0.0, 1000.0), metric="illuminance_lux", device_class="illuminance"),
    Quantity("Voltage", "V", 0.0, 36.0, "float", 3, "VoltageSensor", metric="voltage_volts", device_class="voltage"),
    Quantity("Current", "mA", -15_000.0, 15_000.0, "float", 2, "CurrentSensor",
             metric="current_milliamperes", device_class="current"),
    Quantity("Distance", "cm", 0.0, 400.0, "float", 1, "DistanceSensor",
             metric="distance_centimeters", device_class="distance"),
    Quantity("PressureSeaLevel", "hPa", 800.0, 1100.0, "float", 2, "PressureSensor",
             label="Sea-level pressure", gauge=(960.0, 1050.0),
             metric="sea_level_pressure_hectopascals", device_class="atmospheric_pressure", derived=True),
    Quantity("DewPoint", "°C", -80.0, 85.0, "float", 2, "HumiditySensor",
             label="Dew point", gauge=(-20.0, 30.0),
             metric="dew_point_celsius", device_class="temperature", derived=True),
    Quantity("AbsoluteHumidity", "g/m³", 0.0, 400.0, "float", 2, "HumiditySensor", label="Absolute humidity",
             gauge=(0.0, 30.0), metric="absolute_humidity_grams_per_cubic_metre", derived=True),
    Quantity("HeatIndex", "°C", 0.0, 60.0, "float", 1, "HumiditySensor",
             label="Heat index", gauge=(0.0, 50.0),
             metric="heat_index_celsius", device_class="temperature", derived=True),
    Quantity("VPD", "kPa", 0.0, 60.0, "float", 3, "HumiditySensor", label="Vapour pressure deficit",
             gauge=(0.0, 3.0), metric="vapour_pressure_deficit_kilopascals", device_class="pressure", derived=True),
    Quantity("Lat", "°", -90.0, 90.0, "float", 6, "GPSSensor", label="Latitude"),
    Quantity("Lon", "°", -180.0, 180.0, "float", 6, "GPSSensor", label="Longitude"),
)
# fmt: on

QUANTITIES: Mapping[str, Quantity] = {quantity.field: quantity for quantity in _TABLE}


def label(field: str) -> str:
    """How a field is called for people, also a statistic of one; a field of somebody else's driver has its own name."""
    for ending, word in (("_min", " minimum"), ("_max", " maximum")):
        if field.endswith(ending):
            return label(field.removesuffix(ending)) + word
    return QUANTITIES[field].shown if field in QUANTITIES else field
