"""The BME280 (and BMP280) on I2C: one conversion and one burst a reading, compensated by Adafruit's library.

What is written to the chip is in drivers/bme280_conversions.py; here are the options, finding and recognising the chip,
and trying again. Datasheet: BST-BME280-DS002.
"""

from __future__ import annotations

import logging
import time
from collections.abc import Callable, Collection, Mapping
from contextlib import suppress
from dataclasses import dataclass
from typing import Any, ClassVar, Literal, TypeVar

from drivers import bme280_registers as r
from drivers.base import (
    Driver,
    NotFound,
    NotReady,
    Reading,
    SensorError,
    Transient,
    WrongChip,
    option,
)
from drivers.bme280_conversions import ChipSettings, Conversions
from drivers.i2c import WIRING, I2CRegisters, InUse, NoBus

MEASURED = ("Temperature", "Humidity", "Pressure")
ATTEMPTS = 3
_T = TypeVar("_T")
log = logging.getLogger(__name__)


def _address(value: Any) -> Any:
    """`auto`, 0x76 or 0x77, also written as text."""
    known = {"auto": "auto", "0x76": 0x76, "0x77": 0x77, "118": 0x76, "119": 0x77}
    address = known.get(str(value).lower())
    if address is None:
        raise ValueError('allowed are "auto", 0x76 and 0x77')
    return address


@dataclass(frozen=True, slots=True)
class Bme280Options:
    """Defaults are Bosch's weather monitoring settings (datasheet 3.5.1): forced mode, everything sampled once.

    `humidity = false` reads a BMP280; `standby` is the pause between conversions in normal mode.
    """

    bus: int = option(1, low=0, high=255)
    address: int | Literal["auto"] = option("auto", parse=_address)
    oversampling: Mapping[str, int] = option(factory=dict, keys=MEASURED, choices=tuple(r.OVERSAMPLING), unit="times")
    iir_filter: int = option(0, choices=tuple(r.FILTER))
    mode: Literal["forced", "normal"] = option("forced", choices=("forced", "normal"))
    standby: str = option("1s", choices=tuple(r.STANDBY))
    humidity: bool = True


def _settings(options: Bme280Options) -> ChipSettings:
    """The options as what is written to the chip."""
    times = {name: options.oversampling.get(name, 1) for name in MEASURED}
    humidity = times["Humidity"] if options.humidity else 0
    normal = options.mode == "normal"
    standby = r.STANDBY[options.standby if normal else "1s"]  # in forced mode it only has to be none of the zeros
    return ChipSettings(
        ctrl_hum=r.OVERSAMPLING.get(humidity, 0),
        ctrl_meas=r.OVERSAMPLING[times["Temperature"]] << 5 | r.OVERSAMPLING[times["Pressure"]] << 2,
        config=standby << 5 | r.FILTER[options.iir_filter] << 2,
        normal=normal,
        conversion_s=r.conversion_s(times["Temperature"], times["Pressure"], humidity),
        standby_s=r.STANDBY_S[standby],
    )


class Bme280(Driver):
    sensor: ClassVar[str] = "bme280"
    Options = Bme280Options

    def __init__(
        self,
        options: Bme280Options | None = None,
        *,
        connect: Callable[[int, int], r.Registers] = I2CRegisters,
        clock: Callable[[], float] = time.monotonic,
        sleep: Callable[[float], None] = time.sleep,
    ) -> None:
        super().__init__(options)
        self.options: Bme280Options
        self._connect, self._clock, self._sleep = connect, clock, sleep
        self._chip: r.Registers | None = None
        self._name = "BME280"
        self._address: int | None = None if self.options.address == "auto" else self.options.address
        self._conversions: Conversions | None = None

    @classmethod
    def quantities(cls, options: Any) -> Collection[str]:
        return [name for name in MEASURED if options.humidity or name != "Humidity"]

    def describe(self) -> str:
        if self._address is None:
            return f"{self._name} on {self._bus_name()} at 0x76 or 0x77"
        return f"{self._name} at 0x{self._address:02x} on {self._bus_name()}"

    def _bus_name(self) -> str:
        return f"/dev/i2c-{self.options.bus}"

    def open(self) -> None:
        self.close()
        self._chip = self._found()
        self._conversions = Conversions(
            self._chip,
            self.describe(),
            _settings(self.options),
            clock=self._clock,
            sleep=self._sleep,
        )
        try:
            self._retried(self._conversions.set_up)
        except SensorError:
            self.close()
            raise

    def read(self) -> Reading:
        """Temperature, Pressure and Humidity of one conversion; one that cannot be is refused, the others stand.

        A failed transfer is tried again, a chip that was reset is set up again, three times in all.
        """
        if self._conversions is None:
            raise NotReady(f"{self.describe()} is not open", "open() it first")
        return self._retried(self._conversions.measure)

    def close(self) -> None:
        chip, self._chip = self._chip, None
        conversions, self._conversions = self._conversions, None
        if chip is None:
            return
        try:
            if conversions is not None:
                conversions.stop()
        except SensorError:
            log.debug("%s was not put to sleep", self.describe(), exc_info=True)
        finally:
            chip.close()

    def _retried(self, step: Callable[[], _T]) -> _T:
        for attempt in range(1, ATTEMPTS):
            try:
                return step()
            except (Transient, NotReady) as error:
                log.debug("attempt %d: %s", attempt, error)
                self._sleep(0.005 * attempt)
        return step()

    # Finding the chip

    def _found(self) -> r.Registers:
        """The chip at the configured address; with `auto` at the first that is one, and from then on only there."""
        if self._address is not None:
            return self._recognised(self._address)
        errors: list[SensorError] = []
        for address in r.ADDRESSES:
            try:
                chip = self._recognised(address)
            except InUse:  # which of the two is which must not depend on who comes first
                raise
            except SensorError as error:
                errors.append(error)
                continue
            self._address = address
            self._warn_of_others(address)
            return chip
        if all(isinstance(error, NotFound) for error in errors):
            if isinstance(errors[0], NoBus):
                raise errors[0]
            raise NotFound(
                f"BME280 not found on {self._bus_name()} at 0x76 or 0x77",
                f"is it wired to SDA and SCL? Try `iot-agent scan` or `i2cdetect -y {self.options.bus}`",
            )
        raise next(error for error in errors if not isinstance(error, NotFound))

    def _warn_of_others(self, taken: int) -> None:
        for address in r.ADDRESSES:
            if address > taken:
                with suppress(SensorError):
                    self._connect(self.options.bus, address).close()
                    log.warning(
                        "%s is read; something answers at 0x%02x too: give each its own [[sensor]] with its address",
                        self.describe(),
                        address,
                    )

    def _recognised(self, address: int) -> r.Registers:
        chip = self._connect(self.options.bus, address)
        try:
            place = f"0x{address:02x} on {self._bus_name()}"
            with chip.exclusive():
                number = r.agreed(chip, r.CHIP_ID, 1, f"chip at {place}")[0]
            self._judge(number, place)
        except SensorError:
            chip.close()
            raise
        self._name = r.CHIPS[number]
        if type(self).sensor == "bme280":
            self.sensor = self._name.lower()  # type: ignore[misc] # a BMP280 is tagged as what it is
        return chip

    def _judge(self, number: int, place: str) -> None:
        """Is this chip id one that is read here? Raises SensorError with what it is instead."""
        name = r.CHIPS.get(number)
        if name == "BME280" or (name == "BMP280" and not self.options.humidity):
            return
        if name == "BMP280":
            raise WrongChip(
                f"the chip at {place} is a BMP280 (chip id 0x{number:02x}), often sold as a BME280: it has no humidity",
                "set humidity = false to read its temperature and pressure, or get a BME280",
            )
        if number in (0x00, 0xFF):
            raise Transient(f"the chip at {place} answers nothing but 0x{number:02x}", WIRING)
        raise WrongChip(
            f"the chip at {place} is {f'a {name}' if name else 'no BME280'} (chip id 0x{number:02x})",
            "it needs another driver; `iot-agent scan` shows what answers",
        )
