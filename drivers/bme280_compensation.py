"""From a BME280's registers to values, by Adafruit's library, each quantity judged by itself.

The library starts a conversion for each quantity, so it never sees the chip: it gets a copy of the calibration and of
one burst. It also cuts humidity to 0 to 100 % before anybody sees that it was 249, so that a dead element reads as wet
air. What its formula gives uncut is asked of the library itself: humidity is proportional to a coefficient (H2) as long
as another (H1) is divided by the same factor. With both scaled by powers of two it computes the same number, exactly,
at a sixteenth and with either sign, where nothing is cut.
Datasheet BST-BME280-DS002: 4.2.3 formulas, 5.4.7 reset values.
"""

from __future__ import annotations

from dataclasses import replace
from typing import Any

from drivers import bme280_registers as r
from drivers.base import QUANTITIES, NotReady, Reading
from drivers.i2c import generic_board

_POWER = "check its power supply; if it stays so, it is broken"
_SCALE = 16  # up to 1600 %RH stays uncut; a raw value of 16 bits gives some 250
# What the chip can measure (section 1); other sensors of the data model reach further.
_LIMITS = {**QUANTITIES, "Temperature": replace(QUANTITIES["Temperature"], low=-40.0, high=85.0)}
# The factors that all of a quantity hangs on (4.2.2): without them the formula gives the same for any raw value.
_FACTORS = {"Temperature": (slice(0, 2), slice(2, 4)), "Pressure": (slice(6, 8),), "Humidity": (slice(26, 28),)}


class _Copy:
    """What the library takes for the chip. What it writes goes nowhere."""

    def __init__(self, calibration: bytes) -> None:
        self.memory = bytearray(256)
        self.memory[r.CHIP_ID] = 0x60
        self.put(r.CALIBRATION, calibration[: r.CALIBRATION_SIZE])
        self.put(r.CALIBRATION_HUMIDITY, calibration[r.CALIBRATION_SIZE :])

    def put(self, register: int, data: bytes) -> None:
        self.memory[register : register + len(data)] = data

    def read_register(self, register: int, length: int) -> bytearray:
        return self.memory[register : register + length]

    def write_register_byte(self, register: int, value: int) -> None:
        pass


class Compensation:
    """Of one chip. `calibration`: 0x88 to 0xA1, and 0xE1 to 0xE7 where humidity is measured.

    Raises NotReady where the calibration gives no temperature: nothing can be computed without one.
    """

    def __init__(self, name: str, calibration: bytes) -> None:
        self._name = name
        self._impossible = {
            quantity
            for quantity, factors in _FACTORS.items()
            if any(calibration[factor] in (b"\x00\x00", b"\xff\xff") for factor in factors)
        }
        if "Temperature" in self._impossible:
            raise NotReady(f"the {name} has an impossible calibration ({calibration[:6].hex()})", _POWER)
        generic_board()
        from adafruit_bme280.advanced import Adafruit_BME280_Advanced  # noqa: PLC0415 - only once Blinka is told the board

        self._copy = _Copy(calibration)
        self._library: Any = Adafruit_BME280_Advanced(self._copy)
        h1, h2, *others = self._library._humidity_calib  # noqa: SLF001 - see above: there is no other way to it
        self._uncut = [(scale, [scale * h1, h2 / scale, *others]) for scale in (_SCALE, -_SCALE)]

    def judged(self, raw: bytes, boot_ns: int) -> Reading:
        """The quantities of one burst of this moment from 0xF7, of 6 bytes or, with humidity, 8.

        A quantity that was not measured, cannot be, or has an impossible calibration is refused, and the others stand.
        Raises NotReady where that is the temperature: the others are computed with it.
        """
        registers = {
            "Temperature": int.from_bytes(raw[3:6]) >> 4,
            "Pressure": int.from_bytes(raw[0:3]) >> 4,
        }
        if len(raw) == r.DATA_SIZE:
            registers["Humidity"] = int.from_bytes(raw[6:8])
        self._copy.put(r.DATA, raw)
        values: dict[str, float] = {}
        refused: dict[str, str] = {}
        for quantity, register in registers.items():
            problem = self._unmeasured(quantity, register)
            if problem is None:
                problem = self._computed(quantity, values)
            if problem is not None and quantity == "Temperature":
                raise NotReady(f"the {self._name} gives no temperature: {problem}", _POWER)
            if problem is not None:
                refused[quantity] = problem
        return Reading(values, boot_ns, raw, registers, refused)

    def _unmeasured(self, quantity: str, register: int) -> str | None:
        bits = 16 if quantity == "Humidity" else 20
        if quantity in self._impossible:
            return "the chip has an impossible calibration for it"
        if register == 1 << (bits - 1):
            return f"its register holds the reset value 0x{register:x}, never measured"
        if register >> (bits - 16) in (0x0000, 0xFFFF):  # 16 bits are measured where nothing is sampled more than once
            return f"its register is at the end of its range (0x{register:x}): the element is dead"
        return None

    def _computed(self, quantity: str, values: dict[str, float]) -> str | None:
        """Put the value among the others, or say why not."""
        limits = _LIMITS[quantity]
        value = self._humidity() if quantity == "Humidity" else float(getattr(self._library, quantity.lower()))
        within = limits.clamped(value)
        if not limits.low <= within <= limits.high:
            return f"it would be {value:.4g} {limits.unit}, outside {limits.low:g} to {limits.high:g}"
        values[quantity] = within
        return None

    def _humidity(self) -> float:
        """%RH before the library cuts it."""
        total = 0.0
        for scale, coefficients in self._uncut:
            self._library._humidity_calib = coefficients  # noqa: SLF001
            total += scale * float(self._library.humidity)
        return total
