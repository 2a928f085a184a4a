"""Drivers for sensors of Adafruit's CircuitPython libraries: those of drivers/adafruit_table.py, and any by its class.

The library is imported when the sensor is opened. It sees the bus through drivers/adafruit_wire.py; what is done with
it is in drivers/adafruit_session.py.
"""

from __future__ import annotations

import time
from collections.abc import Callable, Collection, Mapping
from dataclasses import dataclass
from typing import Any, ClassVar, Literal

from drivers.adafruit_row import LIBRARY, Row, address_of, imported, not_installed
from drivers.adafruit_session import Session
from drivers.base import QUANTITIES, Driver, NotFound, NotReady, OptionError, Reading, SensorError, option
from drivers.i2c import I2CChip, InUse


def _address(value: Any) -> Any:
    """`auto`, or a number, also written as text."""
    return int(value, 0) if isinstance(value, str) and value != "auto" else value


@dataclass(frozen=True, slots=True)
class PlaceOptions:
    """Where the chip is: the number in /dev/i2c-1, and its address ("auto": the first at which one answers)."""

    bus: int = option(1, low=0, high=255)
    address: int | Literal["auto"] = option("auto", parse=_address, low=0x08, high=0x77)


class OfAdafruit(Driver):
    """What all of them have in common; `row` says the rest."""

    sensor: ClassVar[str]
    row: Row
    Options = PlaceOptions

    def __init__(
        self,
        options: Any = None,
        *,
        connect: Callable[[int, int], I2CChip] = I2CChip,
        clock: Callable[[], float] = time.monotonic,
        sleep: Callable[[float], None] = time.sleep,
    ) -> None:
        super().__init__(options)
        self._connect, self._clock, self._sleep = connect, clock, sleep
        self._address: int | None = None if self.options.address == "auto" else self.options.address
        self._session: Session | None = None

    @classmethod
    def check(cls, options: Any) -> None:
        super().check(options)
        addresses = cls.row.addresses
        if options.address != "auto" and addresses and options.address not in addresses:
            allowed = ", ".join(f"0x{address:02x}" for address in addresses)
            raise OptionError(f"option 'address' is {options.address:#x}: allowed are \"auto\", {allowed}", "address")

    @classmethod
    def quantities(cls, options: Any) -> Collection[str]:  # noqa: ARG003 - the row says it
        return cls.row.fields

    @classmethod
    def lacking(cls, options: Any) -> str | None:
        return not_installed(cls.row_of(options))

    @classmethod
    def row_of(cls, options: Any) -> Row:  # noqa: ARG003 - one row, but for the driver of any
        return cls.row

    def describe(self) -> str:
        place = "" if self._address is None else f" at 0x{self._address:02x}"
        return f"{self.row.chip}{place} on /dev/i2c-{self.options.bus}"

    def open(self) -> None:
        self.close()
        kind = imported(self.row)
        addresses = self.row.addresses if self._address is None else (self._address,)
        if not addresses:
            _, usual = address_of(kind)
            if usual is None:
                raise NotFound(f"the address of {self.row.library} is not known", "give it: address = 0x…")
            addresses = (usual,)
        problems: list[SensorError] = []
        for address in addresses:
            try:
                self._session = self._opened(kind, address)
            except InUse:  # which of two is which must not depend on who comes first
                raise
            except SensorError as error:
                problems.append(error)
                continue
            self._address = address
            return
        if len(problems) > 1 and all(type(problem) is NotFound for problem in problems):
            where = " or ".join(f"0x{address:02x}" for address in addresses)
            raise NotFound(f"{self.describe()}: nothing answers at {where}", "`iot-agent scan` shows what answers")
        raise next((problem for problem in problems if type(problem) is not NotFound), problems[0])

    def _opened(self, kind: Callable[..., Any], address: int) -> Session:
        place = self._connect(self.options.bus, address)
        keyword, _ = address_of(kind)
        session = Session(
            self.row,
            self.options,
            f"{self.row.chip} at {place.place}",
            place,
            lambda wire: kind(wire, **{keyword: address}),
            clock=self._clock,
            sleep=self._sleep,
        )
        try:
            session.open()
        except SensorError:
            session.close()
            raise
        return session

    def read(self) -> Reading:
        """All quantities of one conversion, at the library's precision."""
        if self._session is None:
            raise NotReady(f"{self.describe()} is not open", "open() it first")
        return self._session.read()

    def close(self) -> None:
        session, self._session = self._session, None
        if session is not None:
            session.close()


@dataclass(frozen=True, slots=True)
class AnyOptions(PlaceOptions):
    """`class`: module and class of the library, like adafruit_sht31d.SHT31D. `fields`: which attribute holds what.

    `start`, `stop`: methods that begin and end measuring. `ready`: an attribute that is true once there is a new value,
    within `ready_within` seconds. `twice`: registers are read until two answers agree, for chips without a checksum
    whose registers do not change by being read.
    """

    class_: str = option("")
    fields: Mapping[str, str] = option(factory=dict, keys=tuple(QUANTITIES))
    start: str = ""
    stop: str = ""
    ready: str = ""
    # Tried three times: more would be longer than the agent waits for a sensor before it takes it for stuck.
    ready_within: float = option(10.0, low=0, high=40, unit="seconds")
    twice: bool = False


def _row_of(options: AnyOptions) -> Row:
    module, _, name = options.class_.rpartition(".")
    package = "adafruit-circuitpython-" + module.partition(".")[0].removeprefix("adafruit_").replace("_", "-")
    return Row(
        name=name.lower(),
        chip=name,
        library=options.class_,
        fields=options.fields,
        set_up=lambda chip, _: getattr(chip, options.start)() if options.start else None,
        stop=options.stop,
        ready=options.ready,
        ready_s=options.ready_within,
        twice=options.twice,
        install=f"install its package beside the agent, probably {package}",
    )


class Adafruit(OfAdafruit):
    """Any sensor of theirs by its class; it is tagged by the name of that, in small letters."""

    sensor = "adafruit"
    row = Row("adafruit", "sensor", "", {})
    Options = AnyOptions

    def __init__(self, options: AnyOptions | None = None, **more: Any) -> None:
        super().__init__(options, **more)
        self.row = _row_of(self.options)
        self.sensor = self.row.name  # type: ignore[misc] # as a BMP280 is tagged as what it is

    @classmethod
    def quantities(cls, options: AnyOptions) -> Collection[str]:
        return options.fields

    @classmethod
    def row_of(cls, options: AnyOptions) -> Row:
        return _row_of(options)

    @classmethod
    def check(cls, options: AnyOptions) -> None:
        super().check(options)
        if not LIBRARY.fullmatch(options.class_):
            wanted = "allowed is a class of a library of Adafruit's, like adafruit_sht31d.SHT31D"
            raise OptionError(f"option 'class' is {options.class_!r}: {wanted}", "class")
        if not options.fields:
            wanted = 'allowed is a table of quantities and attributes, like { Temperature = "temperature" }'
            raise OptionError(f"option 'fields' is empty: {wanted}", "fields")
        for key, name in [*options.fields.items(), *((k, getattr(options, k)) for k in ("start", "stop", "ready"))]:
            if name and (not name.isidentifier() or name.startswith("_")):
                raise OptionError(f"option {key!r} is {name!r}: allowed is the name of an attribute", "fields")
