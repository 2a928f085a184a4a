"""The bus as a library of Adafruit's sees it: every transfer of a reading is looked at before the library gets it.

Most of these libraries start a conversion for each property, and few check what the bus made of an answer. Between
library and bus there are four rules, each only where the sensor's row asks for it, but the first:

- What was asked for one value is not asked again for the next: as long as the library takes the same steps, it gets
  the same answers, so that one conversion gives all values of a reading, with the library's own arithmetic.
- `twice`: for chips without a checksum, a register is read until two answers agree (five times at most).
- `crc_after`: an answer of so many bytes is followed by a CRC-8 that the library does not ask for.
- `pauses`: how long a conversion takes that the library would look at too soon.

Some of them ask a chip for ever whether it is ready (ahtx0, bmp280): after AT_MOST_S there are no more transfers.
"""

from __future__ import annotations

import errno
import os
import time
from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass
from typing import Any

from drivers.base import NotReady

AGREEING = 5
AT_MOST_S = 30.0  # three tries of it stay below what the agent takes for a stuck loop; the longest reading takes 4 s


@dataclass(frozen=True, slots=True)
class Answer:
    """What the chip answered (`data`) to what was last written to it (`asked`)."""

    asked: bytes
    data: bytes


@dataclass(frozen=True, slots=True)
class _Step:
    """One call of the library: what it wrote, how much it read, and what it got."""

    written: bytes | None
    length: int
    data: bytes = b""

    def same(self, written: bytes | None, length: int) -> bool:
        return (self.written, self.length) == (written, length)


def crc8(data: bytes) -> int:
    """CRC-8 of Sensirion's and Aosong's chips: polynomial 0x31, start 0xFF (SHT4x datasheet 4.4, AHT20 5.4)."""
    crc = 0xFF
    for byte in data:
        crc ^= byte
        for _ in range(8):
            crc = (crc << 1 ^ 0x31 if crc & 0x80 else crc << 1) & 0xFF
    return crc


class Wire:
    """In place of busio.I2C. begin() a reading, next_value() before each of its values.

    `failed` is the last error of a transfer since begin(): libraries swallow some.
    """

    def __init__(
        self,
        i2c: Any,
        name: str = "chip",
        *,
        twice: bool = False,
        crc_after: int = 0,
        pauses: Mapping[bytes, float] | None = None,
        clock: Callable[[], float] = time.monotonic,
        sleep: Callable[[float], None] = time.sleep,
    ) -> None:
        self._i2c, self._name, self._twice, self._crc_after = i2c, name, twice, crc_after
        self._pauses, self._clock, self._sleep = pauses or {}, clock, sleep
        self.begin()

    def begin(self) -> None:
        self.failed: Exception | None = None
        self.answers: list[Answer] = []
        self._ends = self._clock() + AT_MOST_S
        self._told: list[list[_Step]] = []  # the steps for each value so far
        self.next_value()

    def next_value(self) -> None:
        self._steps: list[_Step] = []
        self._alike = list(self._told)  # the values for which the library took the same steps so far
        self._told.append(self._steps)
        self._asked = b""
        self._unsent = False  # the last write was taken as made before

    # busio.I2C, as far as the libraries use it

    def try_lock(self) -> bool:
        return bool(self._i2c.try_lock())

    def unlock(self) -> None:
        self._i2c.unlock()

    def writeto(self, address: int, buffer: Sequence[int], *, start: int = 0, end: int | None = None) -> None:
        self._asked = bytes(buffer[start:end])
        self._unsent = True
        if self._told_before(self._asked, 0) is None:
            self._write(address)
            self._steps.append(_Step(self._asked, 0))

    def readfrom_into(self, address: int, buffer: bytearray, *, start: int = 0, end: int | None = None) -> None:
        end = len(buffer) if end is None else end
        buffer[start:end] = self._read(address, None, end - start)

    def writeto_then_readfrom(
        self,
        address: int,
        out_buffer: Sequence[int],
        in_buffer: bytearray,
        *,
        out_start: int = 0,
        out_end: int | None = None,
        in_start: int = 0,
        in_end: int | None = None,
    ) -> None:
        self._asked, self._unsent = bytes(out_buffer[out_start:out_end]), False
        in_end = len(in_buffer) if in_end is None else in_end
        in_buffer[in_start:in_end] = self._read(address, self._asked, in_end - in_start)

    # Told before, or really transferred

    def _told_before(self, written: bytes | None, length: int) -> bytes | None:
        """What the chip answered to this step when an earlier value was read, or None: the step is a new one."""
        place = len(self._steps)
        self._alike = [s for s in self._alike if len(s) > place and s[place].same(written, length)]
        if not self._alike:
            return None
        step = self._alike[0][place]
        self._steps.append(step)
        return step.data

    def _read(self, address: int, written: bytes | None, length: int) -> bytes:
        data = self._told_before(written, length)
        if data is None:
            if self._unsent:  # from here the library goes another way: the chip must have heard what was written
                self._write(address)
            data = self._checked(address, written, length)
            self._steps.append(_Step(written, length, data))
            self.answers.append(Answer(self._asked, data))
        return data

    def _checked(self, address: int, written: bytes | None, length: int) -> bytes:
        """A new answer, as `twice` and `crc_after` want it. Raises OSError."""
        size = length + (length == self._crc_after)
        data = self._transferred(address, written, size)
        if self._twice and (written is not None or len(self._asked) == 1):
            for _ in range(AGREEING - 1):
                before = data
                if written is None:
                    self._write(address)
                data = self._transferred(address, written, size)
                if data == before:
                    break
            else:
                self.failed = OSError(errno.EIO, "a register, read again and again, never agrees")
                raise self.failed
        if size > length and crc8(data[:length]) != data[length]:
            self.failed = OSError(errno.EBADMSG, os.strerror(errno.EBADMSG))
            raise self.failed
        return data[:length]

    def _write(self, address: int) -> None:
        self._unsent = False
        self._tried(self._i2c.writeto, address, self._asked)
        if pause := self._pauses.get(self._asked):
            self._sleep(pause)

    def _transferred(self, address: int, written: bytes | None, size: int) -> bytes:
        data = bytearray(size)
        if written is None:
            self._tried(self._i2c.readfrom_into, address, data)
        else:
            self._tried(self._i2c.writeto_then_readfrom, address, bytearray(written), data)
        return bytes(data)

    def _tried(self, call: Callable[..., object], *arguments: object) -> None:
        if self._clock() > self._ends:
            said = f"the {self._name} does not end what it was asked for within {AT_MOST_S:g} s"
            raise NotReady(said, "check its power supply; it is set up again")
        try:
            call(*arguments)
        except Exception as error:
            self.failed = error
            raise
