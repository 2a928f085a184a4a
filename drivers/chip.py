"""A BME280 at the level of its registers: for tests, and behind `driver = "emulated"`.

It behaves as the datasheet (BST-BME280-DS002) says: sleep, forced and normal mode (3.3), conversions that take their
time (appendix B), data shadowed within a burst (4), ctrl_hum counting from the next write of ctrl_meas (5.4.3), config
ignored in normal mode (5.4.6), reset and the copy of the calibration from the non-volatile memory (5.4.2, 5.4.4).
What it measures comes from a function, so nothing here computes weather; the filter is not modelled.
"""

from __future__ import annotations

import time
from collections.abc import Callable, Mapping
from contextlib import AbstractContextManager, nullcontext
from dataclasses import dataclass

from drivers import bme280_registers as r


@dataclass(frozen=True, slots=True)
class Image:
    """Registers of a chip: calibration from 0x88 (26 bytes) and 0xE1 (7 bytes), data from 0xF7 (8 bytes)."""

    calibration: bytes
    calibration_humidity: bytes
    data: bytes

    @classmethod
    def of(cls, case: Mapping[str, object]) -> Image:
        """From hexadecimal texts under calibration_0x88, calibration_0xE1, data_0xF7. Raises ValueError."""
        parts = []
        for key, size in (("calibration_0x88", 26), ("calibration_0xE1", 7), ("data_0xF7", 8)):
            text = case.get(key)
            part = bytes.fromhex(text) if isinstance(text, str) else b""
            if len(part) != size:
                raise ValueError(f"{key} must be {size} bytes in hexadecimal")
            parts.append(part)
        return cls(*parts)


class Chip:
    """One chip on no bus: write() and read() as I2C does them, or by register as a driver does.

    `clock` gives seconds; `source` the data registers of the next conversion (by default those of the image).
    """

    def __init__(
        self,
        image: Image,
        *,
        chip_id: int = 0x60,
        clock: Callable[[], float] = time.monotonic,
        source: Callable[[], bytes] | None = None,
    ) -> None:
        self._clock = clock
        self.chip_id = chip_id
        self.conversions = 0
        self.source = source
        self.pointer = 0
        self.power_on(image)

    def power_on(self, image: Image | None = None) -> None:
        """As if just switched on; with an image, as another chip."""
        if image is not None:
            self.image = image
        self._ctrl_hum = self._ctrl_meas = self._config = 0
        self._humidity = 0  # ctrl_hum as it counts: as it was when ctrl_meas was last written
        self._data = r.NEVER_MEASURED
        self._begins = 0.0
        self._ends: float | None = None  # of the conversion under way, or in normal mode of the next
        self._again = False  # a conversion asked for while one was under way
        self._copied_at = self._clock() + r.STARTUP_S

    # As I2C sees it

    def write(self, message: bytes) -> None:
        """The register pointer, then values; further registers and values in pairs (6.2.1)."""
        self._advance()
        if message:
            self.pointer = message[0]
        for register, value in zip(message[0::2], message[1::2], strict=False):
            self._write(register, value)

    def read(self, length: int) -> bytes:
        """A burst: all of it from one moment (4), registers counting upwards."""
        self._advance()
        memory = self._memory()
        data = bytes(memory[(self.pointer + i) & 0xFF] for i in range(length))
        self.pointer = (self.pointer + length) & 0xFF
        return data

    # As a driver sees it

    def read_register(self, register: int, length: int) -> bytearray:
        self.write(bytes([register]))
        return bytearray(self.read(length))

    def write_register_byte(self, register: int, value: int) -> None:
        self.write(bytes([register, value]))

    def exclusive(self) -> AbstractContextManager[None]:
        return nullcontext()

    def close(self) -> None:
        """There is no bus to release."""

    # Inside

    def _memory(self) -> bytearray:
        memory = bytearray(256)
        copied = self._clock() >= self._copied_at
        if copied:
            memory[r.CALIBRATION : r.CALIBRATION + r.CALIBRATION_SIZE] = self.image.calibration
        if copied and self.chip_id == 0x60:
            end = r.CALIBRATION_HUMIDITY + r.CALIBRATION_HUMIDITY_SIZE
            memory[r.CALIBRATION_HUMIDITY : end] = self.image.calibration_humidity
        memory[r.CHIP_ID] = self.chip_id
        memory[r.CTRL_HUM] = self._ctrl_hum
        memory[r.STATUS] = (r.MEASURING if self._measuring() else 0) | (0 if copied else r.NVM_COPY)
        memory[r.CTRL_MEAS] = self._ctrl_meas
        memory[r.CONFIG] = self._config
        memory[r.DATA : r.DATA + r.DATA_SIZE] = self._data
        return memory

    def _write(self, register: int, value: int) -> None:
        if register == r.RESET and value == r.RESET_WORD:
            self.power_on()
        elif register == r.CTRL_HUM and self.chip_id == 0x60:
            self._ctrl_hum = value & 0b111
        elif register == r.CONFIG and self._ctrl_meas & r.MODE != r.NORMAL:
            self._config = value
        elif register == r.CTRL_MEAS:
            self._ctrl_meas = value
            self._humidity = self._ctrl_hum
            if value & r.MODE == r.SLEEP:
                self._again = False
                if not self._measuring():
                    self._ends = None
            elif not self._measuring():
                self._begin(self._clock())
            else:
                self._again = True

    def _measuring(self) -> bool:
        return self._ends is not None and self._clock() >= self._begins

    def _begin(self, moment: float) -> None:
        self._again = False
        self._begins = moment
        self._ends = moment + r.conversion_s(*self._times())

    def _times(self) -> tuple[int, int, int]:
        """How often temperature, pressure and humidity are sampled."""
        codes = (self._ctrl_meas >> 5, self._ctrl_meas >> 2 & 0b111, self._humidity)
        temperature, pressure, humidity = (1 << code - 1 if 0 < code < 5 else 16 * bool(code) for code in codes)
        return temperature, pressure, humidity

    def _advance(self) -> None:
        """Let end what has ended by now."""
        now = self._clock()
        while self._ends is not None and now >= self._ends:
            ended = self._ends
            self._ends = None
            self._finish()
            mode = self._ctrl_meas & r.MODE
            if self._again:
                self._begin(ended)
            elif mode == r.NORMAL:
                self._skip(now, ended + r.STANDBY_S[self._config >> 5])
            else:
                self._ctrl_meas &= ~r.MODE

    def _skip(self, now: float, begins: float) -> None:
        """The next conversion of normal mode; of many that nobody looked at only the last is made."""
        period = r.conversion_s(*self._times()) + r.STANDBY_S[self._config >> 5]
        if (missed := int((now - begins) / period) - 1) > 0:
            begins += missed * period
        self._begin(begins)

    def _finish(self) -> None:
        self.conversions += 1
        data = bytearray(self.source() if self.source else self.image.data)
        for times, part in zip(self._times(), (slice(3, 6), slice(0, 3), slice(6, 8)), strict=True):
            if not times:
                data[part] = r.NEVER_MEASURED[part]
        self._data = bytes(data)
