"""A chip that is open: set up, waited for, read and judged, with the errors of its library as those of the contract."""

from __future__ import annotations

import errno
import logging
from collections.abc import Callable, Mapping
from contextlib import nullcontext
from typing import Any, TypeVar

from drivers.adafruit_row import Row
from drivers.adafruit_wire import Answer, Wire
from drivers.base import QUANTITIES, NotFound, NotReady, Reading, SensorError, Transient, WrongChip, boot_ns
from drivers.i2c import WIRING, I2CChip, chip_error, errno_of

ATTEMPTS = 3
POWER = "check its power supply; it is set up again"
_POLL_S = 0.05
_T = TypeVar("_T")
log = logging.getLogger(__name__)


class Session:
    """One chip. open(), then read() as often as wanted. Both try three times, and raise SensorError.

    `make` gives the library's object on a wire; `name` is the chip's, with its place, for messages.
    """

    def __init__(
        self,
        row: Row,
        options: Any,
        name: str,
        place: I2CChip,
        make: Callable[[Wire], Any],
        *,
        clock: Callable[[], float],
        sleep: Callable[[float], None],
    ) -> None:
        self._row, self._options, self._name, self._place, self._make = row, options, name, place, make
        self._clock, self._sleep = clock, sleep
        self._wire = Wire(
            place.i2c, name, twice=row.twice, crc_after=row.crc_after, pauses=row.pauses, clock=clock, sleep=sleep
        )
        self._chip: Any = None  # the library's object; None: it is to be set up
        self._at_set_up: tuple[Answer, ...] = ()

    def open(self) -> None:
        """The chip is there, and is the right one."""
        self._retried(self._set_up)

    def read(self) -> Reading:
        """All quantities of one conversion. A failed transfer is tried again, a chip that was reset set up again."""
        return self._retried(self._read)

    def close(self) -> None:
        chip, self._chip = self._chip, None
        try:
            if chip is not None and self._row.stop:
                self._wire.begin()
                with self._place.exclusive():
                    getattr(chip, self._row.stop)()
        except Exception:  # a library may raise anything
            log.debug("%s was not stopped", self._name, exc_info=True)
        finally:
            self._place.close()

    def _retried(self, step: Callable[[], _T]) -> _T:
        for attempt in range(1, ATTEMPTS + 1):
            try:
                return step()
            except Exception as error:  # a library may raise anything
                problem = self._meaning(error)
                again = isinstance(problem, Transient | NotReady) or type(problem) is NotFound
                if attempt == ATTEMPTS or not again:
                    raise problem from error
                if isinstance(problem, NotReady):
                    self._chip = None
                log.debug("attempt %d: %s", attempt, problem)
                self._sleep(0.005 * attempt)
        raise AssertionError

    def _set_up(self) -> None:
        self._chip = None
        self._wire.begin()
        with self._place.exclusive():
            chip = self._make(self._wire)
            self._row.set_up(chip, self._options)
        self._sleep(self._row.first_s)
        self._chip, self._at_set_up = chip, tuple(self._wire.answers)

    def _read(self) -> Reading:
        """The chip is not held while it is waited for: that takes seconds."""
        with nullcontext() if self._row.ready else self._place.exclusive():
            if self._chip is None or self._row.anew:
                self._set_up()
            if self._row.ready:
                self._wait()
            with self._place.exclusive():
                return self._measure()

    def _wait(self) -> None:
        """Until the chip has a new conversion."""
        deadline = self._clock() + self._row.ready_s
        while True:
            self._wire.begin()
            with self._place.exclusive():
                ready = getattr(self._chip, self._row.ready)
                if ready() if callable(ready) else ready:  # a method itself would always be true
                    return
            if self._clock() > deadline:
                raise NotReady(f"the {self._name} has no new value after {self._row.ready_s:g} s", POWER)
            self._sleep(_POLL_S)

    def _measure(self) -> Reading:
        self._standing("before it was read")
        moment = boot_ns()
        self._wire.begin()
        values: dict[str, float | int] = {}
        for quantity, attribute in self._row.fields.items():
            self._wire.next_value()
            values[quantity] = self._number(quantity, getattr(self._chip, attribute))
        answers = tuple(self._wire.answers)
        refused = self._row.judge(self._at_set_up + answers, values)
        values = {name: value for name, value in values.items() if name not in refused}
        self._within(values)
        self._standing("while it was read")
        raw = b"".join({answer.asked: answer.data for answer in answers}.values())
        return Reading(values, moment, None if self._row.coarse else raw, refused=refused)

    def _standing(self, when: str) -> None:
        self._wire.begin()
        if not self._row.stands(self._chip):
            raise NotReady(f"the {self._name} reset itself {when}", POWER)

    def _number(self, quantity: str, value: Any) -> float | int:
        if isinstance(value, bool) or not isinstance(value, int | float):
            raise NotReady(f"the {self._name} has no {quantity} ({value!r})", POWER)
        return round(value) if QUANTITIES[quantity].kind == "integer" else float(value)

    def _within(self, values: Mapping[str, float | int]) -> None:
        for name, value in values.items():
            quantity = QUANTITIES[name]
            low, high = self._row.ranges.get(name, (quantity.low, quantity.high))
            if not low <= value <= high:
                said = f"{value:g} {quantity.unit} of {name}, outside its {low:g} to {high:g}"
                raise NotReady(f"the {self._name} gives {said}", POWER)

    def _meaning(self, error: Exception) -> SensorError:
        """What the library raised, in the words of the contract; some make another error of a failed transfer."""
        if isinstance(error, SensorError):
            return error
        failed = error if errno_of(error) is not None or self._wire.failed is None else self._wire.failed
        number = errno_of(failed)
        if number == errno.EBADMSG or "CRC" in str(error):
            return Transient(f"an answer of the {self._name} fails its checksum", WIRING)
        if number is not None or isinstance(failed, IndexError):  # a short read is an IndexError in Blinka
            return chip_error(self._place.place, failed, probing="No I2C device" in str(error))
        if isinstance(error, RuntimeError | ValueError) and " find " in str(error):
            return WrongChip(
                f"the chip at {self._place.place} is no {self._row.chip} ({error})",
                "it needs another driver; `iot-agent scan` shows what answers",
            )
        if isinstance(error, RuntimeError | ArithmeticError):
            return NotReady(f"the {self._name} does not answer as it should ({error})", POWER)
        return SensorError(
            f"the library {self._row.library} failed ({type(error).__name__}: {error})",
            "is its version one of those in pyproject.toml?",
        )
