"""Conversions of a BME280: what is written to the chip, when its data count, and the library's arithmetic on them.

The library starts a conversion for each quantity and looks at the status at once. So it never sees the chip: it gets a
copy of the calibration and of one burst of the data registers, which the chip shadows only within a burst.
What other drivers do without (the settings read before and after each burst, reset values refused, the calibration read
twice) is worth it: a chip that lost power for a moment goes on answering, with what looks like the air of a warm room.
Datasheet BST-BME280-DS002: 3.3 modes, 3.4.4 filter, 4 reading out, 5.4 registers, appendix B times.
"""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import dataclass
from typing import Any

from drivers import bme280_registers as r
from drivers.base import NotReady, Reading, Transient, boot_ns
from drivers.i2c import WIRING, generic_board

_POWER = "check its power supply"
_STEP_S = 0.001


@dataclass(frozen=True, slots=True)
class ChipSettings:
    """Register values (`ctrl_meas` without the mode), and the longest times in seconds."""

    ctrl_hum: int
    ctrl_meas: int
    config: int
    normal: bool
    conversion_s: float
    standby_s: float

    @property
    def cycle_s(self) -> float:
        """From one conversion to the next in normal mode; the standby time may be 25 % longer (table 1)."""
        return self.conversion_s + 1.25 * self.standby_s


class _Copy:
    """What the library takes for the chip: its calibration and the last burst. What it writes goes nowhere."""

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


class Conversions:
    """One chip. set_up(), then measure() as often as wanted; after a NotReady measure() sets it up again by itself."""

    def __init__(
        self,
        chip: r.Registers,
        name: str,
        settings: ChipSettings,
        *,
        bme280: bool,
        clock: Callable[[], float],
        sleep: Callable[[float], None],
    ) -> None:
        self._chip, self._name, self._settings = chip, name, settings
        self._bme280, self._clock, self._sleep = bme280, clock, sleep
        self._ready = False
        self._fresh_at = 0.0
        self._config = 0

    def set_up(self) -> None:
        """Reset, calibration, one conversion that is thrown away (the first is often off), then the settings.

        The filter comes after that conversion, or it would remember it.
        """
        with self._chip.exclusive():
            self._set_up()

    def _set_up(self) -> None:
        self._ready = False
        self._chip.write_register_byte(r.RESET, r.RESET_WORD)
        self._sleep(r.STARTUP_S)
        self._wait_for(r.NVM_COPY, 5 * r.STARTUP_S, "never ends copying its calibration after a reset")
        self._copy = _Copy(self._calibration())
        generic_board()
        from adafruit_bme280.advanced import Adafruit_BME280_Advanced  # noqa: PLC0415 - only once Blinka is told the board

        self._library: Any = Adafruit_BME280_Advanced(self._copy)
        self._config = 0
        self._convert()
        self._config = self._settings.config
        self._chip.write_register_byte(r.CONFIG, self._config)
        if self._settings.normal:
            self._start(r.NORMAL)
            self._fresh_at = self._clock() + self._settings.cycle_s
        self._ready = True

    def measure(self) -> Reading:
        """The values of one conversion that ended after this call began (in normal mode: after the last one read).

        Raises NotReady for a chip that reset itself, whose conversion never ends, or that holds reset values.
        """
        if not self._ready:
            self.set_up()
        if self._settings.normal and (wait := self._fresh_at - self._clock()) > 0:
            self._sleep(wait)
        try:
            with self._chip.exclusive():
                self._verify("before")
                moment, raw = self._latest() if self._settings.normal else self._convert()
                self._verify("while")
            return Reading(self._compensated(raw), moment, raw)
        except NotReady:
            self._ready = False
            raise

    def stop(self) -> None:
        """Put a chip in normal mode to sleep."""
        if self._settings.normal:
            with self._chip.exclusive():
                self._start(r.SLEEP)

    def _start(self, mode: int) -> None:
        """ctrl_hum counts only once ctrl_meas is written (5.4.3)."""
        if self._bme280:
            self._chip.write_register_byte(r.CTRL_HUM, self._settings.ctrl_hum)
        self._chip.write_register_byte(r.CTRL_MEAS, self._settings.ctrl_meas | mode)

    def _convert(self) -> tuple[int, bytes]:
        """One forced conversion: its moment and its registers."""
        self._start(r.FORCED)
        moment = boot_ns()
        self._sleep(self._settings.conversion_s)
        self._wait_for(r.MEASURING | r.NVM_COPY, 2 * self._settings.conversion_s + 0.01, "never ends its conversion")
        return moment, self._burst()

    def _latest(self) -> tuple[int, bytes]:
        """The last conversion of normal mode."""
        moment = boot_ns()
        raw = self._burst()
        self._fresh_at = self._clock() + self._settings.cycle_s
        return moment, raw

    def _burst(self) -> bytes:
        size = r.DATA_SIZE if self._settings.ctrl_hum else r.DATA_SIZE - 2
        return bytes(self._chip.read_register(r.DATA, size))

    def _wait_for(self, busy: int, at_most: float, problem: str) -> None:
        """Until none of the status bits `busy` is set."""
        for _ in range(round(at_most / _STEP_S) + 1):
            if not self._chip.read_register(r.STATUS, 1)[0] & busy:
                return
            self._sleep(_STEP_S)
        raise NotReady(f"the {self._name} {problem}", f"{_POWER}; it is set up again")

    def _verify(self, when: str) -> None:
        """The settings still stand: a chip that lost power for a moment has them at 0, and data that mean nothing."""
        hum, _, meas, config = self._chip.read_register(r.CTRL_HUM, 4)
        modes = (r.NORMAL,) if self._settings.normal else (r.SLEEP, r.FORCED)
        stands = (
            (not self._bme280 or hum & 0b111 == self._settings.ctrl_hum)
            and meas & ~r.MODE == self._settings.ctrl_meas
            and meas & r.MODE in modes
            and config & ~0b11 == self._config
        )
        if not stands:
            moment = "before it was read" if when == "before" else "while it was read"
            raise NotReady(f"the {self._name} reset itself {moment}", f"{_POWER}; it is set up again")

    def _calibration(self) -> bytes:
        """Read twice: one wrong bit would spoil every value from now on."""
        first, second = self._read_calibration(), self._read_calibration()
        if first != second:
            raise Transient(f"the calibration of the {self._name}, read twice, differs", WIRING)
        for part in (first[:24], first[r.CALIBRATION_SIZE :]):
            if part and part[0] in (0x00, 0xFF) and len(set(part)) == 1:
                raise NotReady(f"the {self._name} has an impossible calibration (all 0x{part[0]:02x})", _POWER)
        return first

    def _read_calibration(self) -> bytes:
        data = self._chip.read_register(r.CALIBRATION, r.CALIBRATION_SIZE)
        if self._bme280:
            data = data + self._chip.read_register(r.CALIBRATION_HUMIDITY, r.CALIBRATION_HUMIDITY_SIZE)
        return bytes(data)

    def _compensated(self, raw: bytes) -> dict[str, float]:
        pressure, temperature = int.from_bytes(raw[0:3]) >> 4, int.from_bytes(raw[3:6]) >> 4
        humidity = int.from_bytes(raw[6:8]) if len(raw) == r.DATA_SIZE else None
        if pressure == 0x80000 or temperature == 0x80000 or humidity == 0x8000:
            raise NotReady(f"the {self._name} holds reset values, never measured", f"{_POWER}; it is set up again")
        self._copy.put(r.DATA, raw)
        try:
            values = {"Temperature": float(self._library.temperature), "Pressure": float(self._library.pressure)}
            if humidity is not None:
                values["Humidity"] = float(self._library.humidity)
        except ArithmeticError as error:
            raise NotReady(f"the {self._name} has an impossible calibration ({error})", _POWER) from error
        return values
