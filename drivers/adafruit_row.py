"""What has to be known of a sensor to read it through a library of Adafruit's, and the library itself."""

from __future__ import annotations

import inspect
import re
from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass, field
from importlib import import_module
from importlib.util import find_spec
from typing import Any

from drivers.adafruit_wire import Answer
from drivers.base import SensorError
from drivers.i2c import generic_board

Values = Mapping[str, float | int]
LIBRARY = re.compile(r"(adafruit_\w+(?:\.\w+)*)\.(\w+)", re.ASCII)


@dataclass(frozen=True, slots=True)
class Asked:
    """How to recognise the chip without its library: `length` bytes answer what is written, and they fit.

    Nothing is written that another chip at the address could take ill. `pause`: seconds until a command is answered;
    without one a register is read, which leaves the bus no stop in between.
    """

    written: bytes
    length: int
    fits: Callable[[bytes], bool]
    pause: float = 0.0


@dataclass(frozen=True, slots=True)
class Row:
    """A sensor. Its functions get the library's object, which knows the chip, and may raise what the library raises.

    `chip`: its name for people. `library`: module and class. `fields`: the attribute that holds each quantity, in the
    unit of the data model. `ranges`: what the chip can measure, by its datasheet. `asked`: how `iot-agent scan`
    recognises it.

    `set_up`: after the object is made. `anew`: the object is made and set up for each reading. Where that resets the
    chip, what was not measured since shows as a reset value. `first_s`: seconds from the set-up to a conversion that
    counts. `ready`: an attribute that is true once there is a new conversion, within `ready_s` seconds. `stands`: false
    once the chip has lost its settings. `judge`: gets what the chip answered (at the set-up and for this reading), and
    the values; says why one of them does not count although the others do, or raises NotReady. `coarse`: in still air
    the chip gives the same again and again. `stop`: the method that ends what `set_up` began.
    `twice`, `crc_after`, `pauses`: see drivers/adafruit_wire.py.
    """

    name: str
    chip: str
    library: str
    fields: Mapping[str, str]
    addresses: tuple[int, ...] = ()
    ranges: Mapping[str, tuple[float, float]] = field(default_factory=dict)
    asked: Asked | None = None
    set_up: Callable[[Any, Any], object] = lambda _chip, _options: None
    anew: bool = False
    first_s: float = 0.0
    ready: str = ""
    ready_s: float = 0.0
    stands: Callable[[Any], bool] = lambda _chip: True
    judge: Callable[[Sequence[Answer], Values], Mapping[str, str]] = lambda _answers, _values: {}
    stop: str = ""
    coarse: bool = False
    twice: bool = False
    crc_after: int = 0
    pauses: Mapping[bytes, float] = field(default_factory=dict)
    install: str = ""  # what brings the library; without it the extra of this name does


def imported(row: Row) -> Callable[..., Any]:
    """The library's class. No module is imported whose name does not begin with adafruit_. Raises SensorError."""
    found = LIBRARY.fullmatch(row.library)
    if found is None:
        raise SensorError(f"{row.library!r} is no class of a library of Adafruit's", "write adafruit_….Class")
    generic_board()
    try:
        kind = getattr(import_module(found[1]), found[2])
    except ModuleNotFoundError as error:
        raise SensorError(f"the library {error.name} of the {row.chip} is not installed", _how(row)) from error
    except (ImportError, AttributeError) as error:
        raise SensorError(f"{row.library} cannot be imported ({error})", "are its name and version right?") from error
    if not isinstance(kind, type) or not kind.__module__.startswith("adafruit_"):
        raise SensorError(f"{row.library} is no class of a library of Adafruit's", "name the class that takes the bus")
    return kind


def _how(row: Row) -> str:
    """To install its library."""
    return row.install or f"`pip install 'iot-edge-agent[{row.name}]'`"


def not_installed(row: Row) -> str | None:
    """That the library is missing, and what installs it, without importing it; None where it is there."""
    name = row.library.partition(".")[0]
    return None if find_spec(name) else f"the library {name} of the {row.chip} is not installed: {_how(row)}"


def address_of(kind: Callable[..., Any]) -> tuple[str, int | None]:
    """How the library calls the address, and which one it takes where none is given."""
    try:
        parameters = inspect.signature(kind).parameters
    except (TypeError, ValueError) as error:
        raise SensorError(f"{kind} is no sensor ({error})", "name the class that takes the bus") from error
    name = "addr" if "addr" in parameters else "address"
    usual = parameters[name].default if name in parameters else None
    return name, usual if isinstance(usual, int) else None
