"""The table of sensors read through Adafruit's libraries: a row each, and what their chips say that does not count.

Seen in the libraries (versions of constraints.txt): a property starts a conversion of its own (bmp280, sht4x, ahtx0),
gives the last value again when there is no new one (scd4x), or what just stands in the registers (mcp9808, veml7700);
humidity is clamped to 0 … 100 % (sht4x, bme680). Each row says what its chip needs so that no such value leaves.
"""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from dataclasses import dataclass, replace
from typing import Any

from drivers.adafruit import OfAdafruit, PlaceOptions
from drivers.adafruit_row import Asked, Row, Values
from drivers.adafruit_wire import Answer, crc8
from drivers.base import QUANTITIES, NotReady

_AIR = {"Temperature": (-40.0, 85.0), "Humidity": (0.0, 100.0), "Pressure": (300.0, 1100.0)}
_MARK = 1  # °C or counts: a limit that is never used, and that a chip forgets when it loses power


def last(answers: Sequence[Answer], asked: bytes) -> bytes:
    """The last answer to what was asked, or nothing."""
    return next((answer.data for answer in reversed(answers) if answer.asked == asked), b"")


def _never_measured(chip: str) -> NotReady:
    return NotReady(f"the {chip} holds values that it never measured", "check its power supply; it is set up again")


def _impossible(chip: str) -> NotReady:
    return NotReady(f"the {chip} has an impossible calibration", "check its power supply; if it stays so, it is broken")


def _dead(raw: bytes) -> bool:
    """A register at one of its ends: no element measures there."""
    return raw in (b"\x00\x00", b"\xff\xff")


_DEAD = "its register is at the end of its range: the element is dead"


# BMP280 (BST-BMP280-DS001): 1 ranges, 3.8.1 times, 4.3.6 and 4.3.7 values after a reset.


def _bmp280_set_up(chip: Any, _options: Any) -> None:
    """The first conversion after a reset is thrown away: it is often off."""
    _ = chip.temperature


def _bmp280_judge(answers: Sequence[Answer], _values: Values) -> Mapping[str, str]:
    calibration = last(answers, b"\x88")  # 3.11.2
    if _dead(calibration[0:2]) or _dead(calibration[2:4]) or _dead(calibration[6:8]):  # T1, T2, P1
        raise _impossible("BMP280")
    if b"\x80\x00\x00" in (last(answers, b"\xf7"), last(answers, b"\xfa")):
        raise _never_measured("BMP280")
    return {}


class Bmp280(OfAdafruit):
    sensor = "bmp280"
    row = Row(
        "bmp280",
        "BMP280",
        "adafruit_bmp280.Adafruit_BMP280_I2C",
        {"Temperature": "temperature", "Pressure": "pressure"},
        addresses=(0x76, 0x77),
        ranges=_AIR,
        asked=Asked(b"\xd0", 1, lambda data: data[0] == 0x58),
        set_up=_bmp280_set_up,
        anew=True,
        judge=_bmp280_judge,
        twice=True,
        pauses={b"\xf4\x55": 0.044},  # forced, temperature twice and pressure 16 times: 43.2 ms at most
    )


# BME680 (BST-BME680-DS001): 1 ranges, 5.3.5 status and data.


@dataclass(frozen=True, slots=True)
class Bme680Options(PlaceOptions):
    """`gas = false` leaves the heater off: there is no GasResistance then, and nothing warms the temperature."""

    gas: bool = True


def _bme680_set_up(chip: Any, options: Bme680Options) -> None:
    """No filter: each reading begins with a reset. The library makes False of a failed transfer to the heater.

    adafruit_bme680 takes the halves of register 0xE2 the other way round than Bosch (3.3.2), up to 1 %RH off.
    """
    high_2, halves, high_1 = chip._read(0xE1, 3)  # noqa: SLF001 - there is no other way to them
    chip._humidity_calibration[:2] = [high_1 << 4 | halves & 0x0F, high_2 << 4 | halves >> 4]  # noqa: SLF001
    chip.filter_size = 0
    if not chip.set_gas_heater(*((320, 150) if options.gas else (None, None))):
        raise OSError("the heater was not set")


def _bme680_judge(answers: Sequence[Answer], values: Values) -> Mapping[str, str]:
    """GasResistance counts once the chip marks it as valid and the hot plate as at its temperature."""
    low = last(answers, b"\x89")  # 3.11: T2 and P1; T1 is in the longer of the two answers from 0xE1
    high = max((answer.data for answer in answers if answer.asked == b"\xe1"), key=len)
    if _dead(low[1:3]) or _dead(low[5:7]) or _dead(high[8:10]):
        raise _impossible("BME680")
    data = last(answers, b"\x1d")
    pressure, temperature, humidity = data[2:5], data[5:8], data[8:10]
    if pressure == b"\x80\x00\x00" or temperature == b"\x80\x00\x00" or humidity == b"\x80\x00":
        raise _never_measured("BME680")
    refused = {}
    if _dead(humidity) or not values["Humidity"]:  # the library makes 0 of all that lies below
        refused["Humidity"] = _DEAD
    variant = last(answers, b"\xf0") == b"\x01"  # a BME688
    if "GasResistance" in values and data[16 if variant else 14] & 0x30 != 0x30:  # gas_valid_r, heat_stab_r
        refused["GasResistance"] = "the chip does not mark it as valid: its hot plate has not its temperature"
    return refused


class Bme680(OfAdafruit):
    sensor = "bme680"
    row = Row(
        "bme680",
        "BME680",
        "adafruit_bme680.Adafruit_BME680_I2C",
        {
            "Temperature": "temperature",
            "Humidity": "relative_humidity",
            "Pressure": "pressure",
            "GasResistance": "gas",
        },
        addresses=(0x76, 0x77),
        ranges=_AIR,
        asked=Asked(b"\xd0", 1, lambda data: data[0] == 0x61),
        set_up=_bme680_set_up,
        anew=True,
        judge=_bme680_judge,
        twice=True,
    )
    Options = Bme680Options

    def __init__(self, options: Bme680Options | None = None, **more: Any) -> None:
        super().__init__(options, **more)
        if not self.options.gas:
            self.row = replace(self.row, fields={k: v for k, v in self.row.fields.items() if k != "GasResistance"})


# SHT40, SHT41, SHT45 (SHT4x datasheet): 2 ranges, 4.5 commands, 4.6 conversion, 4.9 reset.


def _sht4x_judge(answers: Sequence[Answer], _values: Values) -> Mapping[str, str]:
    """The humidity before the library cuts it."""
    data = last(answers, b"\xfd")
    if _dead(data[0:2]):
        raise NotReady(f"the SHT4x gives no temperature: {_DEAD}", "get another one")
    humidity = -6 + 125 * int.from_bytes(data[3:5]) / 65535
    limits = QUANTITIES["Humidity"]
    if _dead(data[3:5]):
        return {"Humidity": _DEAD}
    if not limits.low <= limits.clamped(humidity) <= limits.high:
        return {"Humidity": f"it would be {humidity:.1f} %RH"}
    return {}


class Sht4x(OfAdafruit):
    sensor = "sht4x"
    row = Row(
        "sht4x",
        "SHT4x",
        "adafruit_sht4x.SHT4x",
        {"Temperature": "temperature", "Humidity": "relative_humidity"},
        addresses=(0x44, 0x45, 0x46),
        ranges={"Temperature": (-40.0, 125.0)},
        asked=Asked(b"\x89", 6, lambda data: crc8(data[:2]) == data[2] and crc8(data[3:5]) == data[5], pause=0.01),
        judge=_sht4x_judge,
    )


# SCD40, SCD41, SCD43 (SCD4x datasheet): 1 ranges, 3.5 periodic measurement, 3.9.2 data ready.


def _scd4x_judge(answers: Sequence[Answer], values: Values) -> Mapping[str, str]:
    """The library gives its last value again if there is no new one; 0 ppm is what the chip gives for none (3.11.2)."""
    data = last(answers, b"\xec\x05")
    if not data or not values["CO2"]:
        raise _never_measured("SCD4x")
    return {"Humidity": _DEAD} if _dead(data[6:8]) else {}


class Scd4x(OfAdafruit):
    sensor = "scd4x"
    row = Row(
        "scd4x",
        "SCD4x",
        "adafruit_scd4x.SCD4X",
        {"CO2": "CO2", "Temperature": "temperature", "Humidity": "relative_humidity"},
        addresses=(0x62,),
        ranges={"Temperature": (-10.0, 60.0)},
        asked=Asked(b"\xe4\xb8", 3, lambda data: crc8(data[:2]) == data[2], pause=0.001),
        set_up=lambda chip, _: chip.start_periodic_measurement(),
        judge=_scd4x_judge,
        ready="data_ready",
        ready_s=6.0,  # there is one every 5 s
        stop="stop_periodic_measurement",
    )


# AHT20 (Aosong's datasheet): 1 ranges, 5.3 status, 5.4 reading, 80 ms for a conversion and a CRC-8 behind it.


def _aht20_judge(answers: Sequence[Answer], _values: Values) -> Mapping[str, str]:
    data = last(answers, b"\xac\x33\x00")
    if data[0] & 0x80 or not data[0] & 0x08:
        raise NotReady("the AHT20 is busy or not calibrated", "check its power supply; it is set up again")
    return {"Humidity": _DEAD} if _dead(data[1:3]) else {}  # 20 bits, of which the upper 16 say it


class Aht20(OfAdafruit):
    sensor = "aht20"
    row = Row(
        "aht20",
        "AHT20",
        "adafruit_ahtx0.AHTx0",
        {"Temperature": "temperature", "Humidity": "relative_humidity"},
        addresses=(0x38,),
        ranges={"Temperature": (-40.0, 85.0)},
        asked=Asked(b"", 7, lambda data: crc8(data[:6]) == data[6]),
        anew=True,
        judge=_aht20_judge,
        crc_after=6,
        pauses={b"\xac\x33\x00": 0.08},
    )


# MCP9808 (DS25095): electrical characteristics, 5.1.3 limits (0 after power-on), 5.1.5 identification.


def _mcp9808_set_up(chip: Any, _options: Any) -> None:
    """A limit as a mark: after power-on the chip shows 0 °C until its first conversion, and the limit is 0."""
    chip.upper_temperature = _MARK


class Mcp9808(OfAdafruit):
    sensor = "mcp9808"
    row = Row(
        "mcp9808",
        "MCP9808",
        "adafruit_mcp9808.MCP9808",
        {"Temperature": "temperature"},
        addresses=tuple(range(0x18, 0x20)),
        ranges={"Temperature": (-40.0, 125.0)},
        asked=Asked(b"\x06", 2, lambda data: data == b"\x00\x54"),
        set_up=_mcp9808_set_up,
        first_s=0.3,  # a conversion takes 250 ms
        stands=lambda chip: bool(chip.upper_temperature == _MARK),
        coarse=True,  # 0.06 °C
        twice=True,
    )


# VEML7700 (Vishay 84286): registers; 84323: gain, integration time and the correction above 1000 lx.


def _veml7700_set_up(chip: Any, _options: Any) -> None:
    """What `autolux` takes for given, gain 1/8 and 100 ms: else a night's gain would cap the day at 8,800 lx.

    A limit of the interrupt, which is off, is the mark: after power-on it is 0, and so is the light.
    """
    chip.light_integration_time = chip.ALS_100MS
    chip.light_low_threshold = _MARK


def _veml7700_judge(answers: Sequence[Answer], _values: Values) -> Mapping[str, str]:
    if last(answers, b"\x04") == b"\xff\xff":
        raise NotReady("the VEML7700 sees more light than it can measure", "nothing: it measures again")
    return {}


class Veml7700(OfAdafruit):
    sensor = "veml7700"
    row = Row(
        "veml7700",
        "VEML7700",
        "adafruit_veml7700.VEML7700",
        {"Illuminance": "autolux"},
        addresses=(0x10,),
        asked=Asked(b"\x07", 2, lambda data: data[0] == 0x81),
        set_up=_veml7700_set_up,
        anew=True,
        stands=lambda chip: bool(chip.light_low_threshold == _MARK and not chip.light_shutdown),
        judge=_veml7700_judge,
        coarse=True,  # a night is 0 counts
        twice=True,
    )


ROWS: Mapping[str, Row] = {
    driver.row.name: driver.row for driver in (Bmp280, Bme680, Sht4x, Scd4x, Aht20, Mcp9808, Veml7700)
}
