"""The BME280's registers (datasheet BST-BME280-DS002, section 5.3) and the time a conversion takes (appendix B)."""

from __future__ import annotations

from contextlib import AbstractContextManager
from typing import Protocol

from drivers.base import Transient
from drivers.i2c import WIRING

ADDRESSES = (0x76, 0x77)  # on the bus (6.2)
CALIBRATION = 0x88  # to 0xA1: T1..T3, P1..P9, reserved, H1
CALIBRATION_SIZE = 26
CALIBRATION_HUMIDITY = 0xE1  # to 0xE7: H2..H6
CALIBRATION_HUMIDITY_SIZE = 7
CHIP_ID = 0xD0
RESET = 0xE0
CTRL_HUM = 0xF2
STATUS = 0xF3
CTRL_MEAS = 0xF4
CONFIG = 0xF5
DATA = 0xF7  # to 0xFE: pressure, temperature (20 bit each, in 3 bytes), humidity (16 bit)
DATA_SIZE = 8

RESET_WORD = 0xB6
MEASURING = 0x08  # status: a conversion is running
NVM_COPY = 0x01  # status: calibration is being copied from the non-volatile memory
SLEEP, FORCED, NORMAL = 0b00, 0b01, 0b11
MODE = 0b11  # ctrl_meas: the bits of the mode

NEVER_MEASURED = b"\x80\x00\x00\x80\x00\x00\x80\x00"  # what DATA holds after power-on and reset
STARTUP_S = 0.002  # from power-on or reset to the first communication

CHIPS = {0x60: "BME280", 0x58: "BMP280", 0x56: "BMP280", 0x57: "BMP280", 0x61: "BME680"}
OVERSAMPLING = {1: 0b001, 2: 0b010, 4: 0b011, 8: 0b100, 16: 0b101}
FILTER = {0: 0b000, 2: 0b001, 4: 0b010, 8: 0b011, 16: 0b100}
STANDBY = {"0.5ms": 0, "62.5ms": 1, "125ms": 2, "250ms": 3, "500ms": 4, "1s": 5, "10ms": 6, "20ms": 7}
STANDBY_S = (0.0005, 0.0625, 0.125, 0.25, 0.5, 1.0, 0.01, 0.02)  # by the code in config


AT_MOST = 5  # answers, of which two must agree; one flipped bit and one new conversion take four


class Registers(Protocol):
    """A chip as a driver sees it; what adafruit_bme280 calls its bus implementation. Both calls raise SensorError."""

    def read_register(self, register: int, length: int) -> bytearray:
        """`length` bytes in one burst, from `register` upwards."""

    def write_register_byte(self, register: int, value: int) -> None:
        """One byte."""

    def exclusive(self) -> AbstractContextManager[None]:
        """Nobody else talks to the chip meanwhile; may be nested. Raises Busy."""

    def close(self) -> None:
        """Release the bus."""


def agreed(chip: Registers, register: int, length: int, name: str) -> bytes:
    """The bytes of a burst, read until two answers are the same: nothing on the bus says that a bit was flipped.

    Raises Transient where no two of AT_MOST are.
    """
    seen: set[bytes] = set()
    while len(seen) < AT_MOST:
        data = bytes(chip.read_register(register, length))
        if data in seen:
            return data
        seen.add(data)
    raise Transient(f"the {name} gives another answer each time it is asked (0x{register:02x})", WIRING)


def conversion_s(temperature: int, pressure: int, humidity: int) -> float:
    """Seconds that one conversion takes at most, by the times each quantity is sampled (0: not)."""
    total = 1.25 + 2.3 * (temperature + pressure + humidity) + 0.575 * (bool(pressure) + bool(humidity))
    return total / 1000
