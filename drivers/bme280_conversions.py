"""Conversions of a BME280: what is written to the chip, and when its data count.

I2C has no checksum: any bit, read or written, can arrive flipped, and the registers of a chip that was reset look like
the air of a warm room. So data count when two bursts agree, that a conversion has begun and ended is read and not
assumed, the settings must stand after each reading, and the calibration is read once more after the chip is set up.
Datasheet BST-BME280-DS002: 3.3 modes, 3.4.4 filter, 4 reading out, 5.4 registers, appendix B times.
"""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import dataclass

from drivers import bme280_registers as r
from drivers.base import NotReady, Reading, Transient, WrongChip, boot_ns
from drivers.bme280_compensation import Compensation
from drivers.i2c import WIRING

_POWER = "check its power supply"
_STEP_S = 0.001
_LOOKS = 2  # at settings that do not stand: one of them may have come with a flipped bit
_STARTS = 25  # on a busy machine a conversion may be over before somebody looks whether it has begun


@dataclass(frozen=True, slots=True)
class ChipSettings:
    """Register values (`ctrl_meas` without the mode), and the longest times in seconds.

    `ctrl_hum` 0: no humidity, and neither its register nor its calibration is touched. `config` is never 0, so that a
    chip that was reset is known by it.
    """

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


class Conversions:
    """One chip. set_up(), then measure() as often as wanted; after a NotReady measure() sets it up again by itself."""

    def __init__(
        self,
        chip: r.Registers,
        name: str,
        settings: ChipSettings,
        *,
        clock: Callable[[], float],
        sleep: Callable[[float], None],
    ) -> None:
        self._chip, self._name, self._settings = chip, name, settings
        self._clock, self._sleep = clock, sleep
        self._compensation: Compensation | None = None  # while it is set up
        self._fresh_at: float  # in normal mode, from set_up() on

    def set_up(self) -> Compensation:
        """Reset, calibration, one conversion that is thrown away (the first is often off), then the settings.

        The filter comes after that conversion, or it would remember it. Raises WrongChip for one without humidity.
        """
        with self._chip.exclusive():
            self._compensation = None
            self._compensation = self._set_up()
            return self._compensation

    def _set_up(self) -> Compensation:
        settings = self._settings
        self._chip.write_register_byte(r.RESET, r.RESET_WORD)
        self._sleep(r.STARTUP_S)
        self._wait_for_calibration()
        calibration = self._calibration()
        self._check_humidity(calibration)
        if settings.ctrl_hum:  # counts once ctrl_meas is written (5.4.3)
            self._chip.write_register_byte(r.CTRL_HUM, settings.ctrl_hum)
        self._convert(config=0)
        self._chip.write_register_byte(r.CONFIG, settings.config)
        if settings.normal:
            self._chip.write_register_byte(r.CTRL_MEAS, settings.ctrl_meas | r.NORMAL)
            self._fresh_at = self._clock() + settings.cycle_s
        # From here on settings that stand prove that it is the same chip: this one has to be the one that was read.
        if self._calibration(again=True) != calibration:
            raise Transient(f"the calibration of the {self._name}, read twice, differs", WIRING)
        return Compensation(self._name, calibration)

    def measure(self) -> Reading:
        """The quantities of one conversion that ended after this call began (in normal mode: after the last one read).

        Raises NotReady for a chip that reset itself, whose conversion never begins or ends, or that gives no
        temperature; Transient where no two bursts agree.
        """
        compensation = self._compensation or self.set_up()
        if self._settings.normal and (wait := self._fresh_at - self._clock()) > 0:
            self._sleep(wait)
        try:
            with self._chip.exclusive():
                moment = boot_ns() if self._settings.normal else self._convert(self._settings.config)
                raw = r.agreed(self._chip, r.DATA, self._data_size(), self._name)
                self._fresh_at = self._clock() + self._settings.cycle_s
                self._see(self._running if self._settings.normal else self._ended, self._settings.config)
            return compensation.judged(raw, moment)
        except NotReady:
            self._compensation = None
            raise

    def stop(self) -> None:
        """Put a chip in normal mode to sleep."""
        if self._settings.normal:
            with self._chip.exclusive():
                self._chip.write_register_byte(r.CTRL_MEAS, self._settings.ctrl_meas | r.SLEEP)

    def _convert(self, config: int) -> int:
        """One forced conversion, begun and ended; the moment of its begin."""
        longest = self._settings.conversion_s
        moment: int

        def start() -> None:
            nonlocal moment
            self._chip.write_register_byte(r.CTRL_MEAS, self._settings.ctrl_meas | r.FORCED)
            moment = boot_ns()

        self._see(self._begun, config, "did not begin a conversion", _STARTS, start)
        self._sleep(longest)
        self._see(self._ended, config, "never ends its conversion", round(2 * longest / _STEP_S) + 10)
        return moment

    @staticmethod
    def _begun(mode: int, status: int) -> bool:
        return mode == r.FORCED or (mode == r.SLEEP and bool(status & r.MEASURING))

    @staticmethod
    def _ended(mode: int, status: int) -> bool:
        return mode == r.SLEEP and not status & (r.MEASURING | r.NVM_COPY)

    @staticmethod
    def _running(mode: int, _status: int) -> bool:
        return mode == r.NORMAL

    def _see(
        self,
        wanted: Callable[[int, int], bool],
        config: int,
        problem: str = "left the mode it was set to",
        looks: int = _LOOKS,
        before: Callable[[], None] = lambda: None,
    ) -> None:
        """Look so many times, `before` each calling this, until the settings stand, and mode and status are as wanted.

        A chip that lost power for a moment has all of them at 0, and data that mean nothing.
        """
        fell = 0
        for _ in range(looks):
            before()
            hum, status, meas, conf = self._chip.read_register(r.CTRL_HUM, 4)
            stands = (
                (not self._settings.ctrl_hum or hum & 0b111 == self._settings.ctrl_hum)
                and meas & ~r.MODE == self._settings.ctrl_meas
                and conf & ~0b11 == config
            )
            if stands and wanted(meas & r.MODE, status):
                return
            fell = 0 if stands else fell + 1
            if fell == _LOOKS:
                problem = "lost its settings"
                break
            self._sleep(_STEP_S)
        raise NotReady(f"the {self._name} {problem}", f"{_POWER}; it is set up again")

    def _wait_for_calibration(self) -> None:
        """Until the chip has copied it from its non-volatile memory (5.4.4)."""
        for _ in range(round(5 * r.STARTUP_S / _STEP_S) + 1):
            if not self._chip.read_register(r.STATUS, 1)[0] & r.NVM_COPY:
                return
            self._sleep(_STEP_S)
        raise NotReady(
            f"the {self._name} never ends copying its calibration after a reset", f"{_POWER}; it is set up again"
        )

    def _data_size(self) -> int:
        return r.DATA_SIZE if self._settings.ctrl_hum else r.DATA_SIZE - 2

    def _calibration(self, *, again: bool = False) -> bytes:
        """`again`: read from registers further down, whose numbers have other bits: what bends one the same way each
        time, as a slow line does, gives another answer then.
        """
        parts = [(r.CALIBRATION, r.CALIBRATION_SIZE, 0x77 if again else r.CALIBRATION)]
        if self._settings.ctrl_hum:
            start = 0xDE if again else r.CALIBRATION_HUMIDITY
            parts.append((r.CALIBRATION_HUMIDITY, r.CALIBRATION_HUMIDITY_SIZE, start))
        return b"".join(
            bytes(self._chip.read_register(start, first - start + size)[first - start :])
            for first, size, start in parts
        )

    def _check_humidity(self, calibration: bytes) -> None:
        """There are BMP280 that state the chip id of a BME280; what they lack is the humidity's calibration."""
        part = calibration[r.CALIBRATION_SIZE :]
        missing = set(part) in ({0x00}, {0xFF}) and set(calibration) != set(part)
        if missing and self._calibration(again=True) == calibration:
            raise WrongChip(
                f"the {self._name} has no humidity calibration (all 0x{part[0]:02x}): it looks like a BMP280 that says "
                "it is a BME280",
                "set humidity = false to read its temperature and pressure, or get a BME280",
            )
