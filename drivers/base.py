"""The contract between sensors and the agent: quantities, readings, drivers and their errors."""

from __future__ import annotations

import time
from abc import ABC, abstractmethod
from collections.abc import Collection, Mapping
from dataclasses import dataclass, field, replace
from functools import cache
from importlib.metadata import EntryPoint, entry_points
from numbers import Real
from typing import Any, ClassVar, Self

from drivers.options import OptionError, nearest, option, structure, validate
from drivers.quantities import QUANTITIES, Quantity, label

__all__ = [
    "QUANTITIES",
    "WHOLE",
    "Busy",
    "Driver",
    "NoPermission",
    "NotFound",
    "NotReady",
    "OptionError",
    "Quantity",
    "Reading",
    "SensorError",
    "Transient",
    "WrongChip",
    "available",
    "boot_ns",
    "checked",
    "label",
    "load",
    "make",
    "option",
    "options_for",
    "what_failed",
]

WHOLE = "reading"
"""Stands for a quantity where a whole reading is refused."""
_BOOT_CLOCK: int = getattr(time, "CLOCK_BOOTTIME", time.CLOCK_MONOTONIC)


def boot_ns() -> int:
    """Nanoseconds since boot, suspend included (CLOCK_BOOTTIME; the monotonic clock where there is none)."""
    return time.clock_gettime_ns(_BOOT_CLOCK)


@dataclass(frozen=True, slots=True)
class Reading:
    """Values of one moment: by field name in the units of QUANTITIES, at the driver's full precision.

    `boot_ns` is the moment in CLOCK_BOOTTIME nanoseconds; `raw` are the registers the values come from, if any, and
    `registers` those of each quantity, where they can be told apart: one that never changes is stuck. `refused` says
    why a quantity is not among the values although the sensor measures it.
    """

    values: Mapping[str, float | int]
    boot_ns: int
    raw: bytes | None = None
    registers: Mapping[str, int] = field(default_factory=dict)
    refused: Mapping[str, str] = field(default_factory=dict)


class SensorError(Exception):
    """A reading failed. `remedy` says what a person can do about it."""

    def __init__(self, message: str, remedy: str = "") -> None:
        super().__init__(f"{message}: {remedy}" if remedy else message)
        self.remedy = remedy


class NotFound(SensorError):  # noqa: N818 - the names of the contract; each says what happened
    """No such bus, or nothing answers at the address."""


class NoPermission(SensorError):  # noqa: N818
    """The device file is there and may not be opened."""


class WrongChip(SensorError):  # noqa: N818
    """Something else answers at the address."""


class Busy(SensorError):  # noqa: N818
    """Another driver holds the chip."""


class Transient(SensorError):  # noqa: N818
    """A transfer failed; the next reading may work."""


class NotReady(SensorError):  # noqa: N818
    """The chip has no fresh conversion: just reset, or it never finished."""


class Driver(ABC):
    """A sensor. Nothing is touched before open(); close() may be called twice.

    A driver states its options as a frozen dataclass with a default for each, and its kind as it stands in the
    sensor tags of the data model.
    """

    sensor: ClassVar[str]
    Options: ClassVar[type[Any]]

    def __init__(self, options: Any = None) -> None:
        self.options = self.Options() if options is None else options
        self.check(self.options)

    @classmethod
    def check(cls, options: Any) -> None:
        """Validate options without hardware: types, limits, choices. Raises OptionError naming what is allowed.

        A driver whose options depend on each other extends it.
        """
        validate(options)

    @classmethod
    def quantities(cls, options: Any) -> Collection[str]:  # noqa: ARG003 - for those whose options decide
        """What it may measure with these options, by the fields of QUANTITIES. All of them where a driver says nothing:
        beside it no other sensor of a device may go without a name.
        """
        return QUANTITIES

    @classmethod
    def lacking(cls, options: Any) -> str | None:  # noqa: ARG003 - for those whose options decide
        """What has to be installed before it can be opened, and how; None where nothing is known to lack."""
        return None

    def describe(self) -> str:
        """What and where it is, for messages: `BME280 at 0x77 on /dev/i2c-1`."""
        return self.sensor

    @abstractmethod
    def open(self) -> None:
        """Get ready to read. Raises SensorError."""

    @abstractmethod
    def read(self) -> Reading:
        """One reading of one moment. Raises SensorError; never returns a value that was not measured."""

    @abstractmethod
    def close(self) -> None:
        """Release what open() took."""

    def __enter__(self) -> Self:
        self.open()
        return self

    def __exit__(self, *_: object) -> None:
        self.close()


def checked(reading: object) -> Reading:
    """What a driver gave, with a plain table of its values. Raises TypeError for what is no reading of numbers."""
    if not isinstance(reading, Reading):
        raise TypeError(f"it gave a {type(reading).__name__}, not a Reading")
    values: dict[str, Any] = dict(reading.values)
    for name, value in values.items():
        if isinstance(value, bool) or not isinstance(value, Real):
            raise TypeError(f"{name} is {value!r}, not a number")
    return replace(reading, values=values)


def what_failed(driver: Driver, error: Exception) -> str:
    """The error in one line; one that is not of the contract names the driver and its class."""
    text = f"{driver.describe()}: the driver failed with {type(error).__name__}: {error}"
    return " ".join((str(error) if isinstance(error, SensorError) else text).split())


@cache
def _installed() -> Mapping[str, EntryPoint]:
    """The entry points of the group `iot_agent.drivers`. Looked for once: it reads a file of each installed package."""
    return {entry.name: entry for entry in entry_points(group="iot_agent.drivers")}


def available() -> list[str]:
    """Names of the installed drivers."""
    return sorted(_installed())


def load(name: str) -> type[Driver]:
    """The driver of this name, found through the entry-point group `iot_agent.drivers`. Raises OptionError.

    BME280, as it stands on the chip, is bme280.
    """
    name = name if name in _installed() else name.lower()
    if name not in _installed():
        raise OptionError(f"no driver {name!r}; installed are {', '.join(available())}{nearest(name, available())}")
    try:
        driver: type[Driver] = _installed()[name].load()
    except Exception as error:
        why = f"{type(error).__name__}: {error}"
        raise OptionError(f"driver {name!r} cannot be loaded ({why}): mend or reinstall its package") from error
    return driver


def options_for(driver: type[Driver], mapping: Mapping[str, Any]) -> Any:
    """The driver's Options from values of TOML, or from texts of the command line (tables by dotted keys).

    Raises OptionError naming key, value, what is allowed and the nearest known key.
    """
    options = structure(driver.Options, mapping)
    driver.check(options)
    return options


def make(name: str, mapping: Mapping[str, Any]) -> Driver:
    """The driver of this name with these options. No hardware is touched. Raises OptionError."""
    kind = load(name)
    return kind(options_for(kind, mapping))
