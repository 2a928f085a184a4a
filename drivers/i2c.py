"""Chips on a Linux I2C bus through Blinka, and what its errors mean.

Blinka guesses the board when it is imported and then wants that board's GPIO libraries, which I2C needs none of: it is
told to be a generic Linux computer, and buses are opened by their number. `board` is never imported.
"""

from __future__ import annotations

import errno
import fcntl
import os
import struct
import threading
import time
from collections.abc import Callable, Iterator
from contextlib import AbstractContextManager, contextmanager
from pathlib import Path
from typing import Any, TypeVar
from weakref import WeakValueDictionary

from drivers.base import Busy, NoPermission, NotFound, SensorError, Transient

ENABLE = "enable I2C with `sudo raspi-config nonint do_i2c 0` (or dtparam=i2c_arm=on in config.txt)"
GROUP = "add the user to the group i2c: `sudo usermod -aG i2c $USER`, then log in again"
WIRING = "check power and the wires to SDA and SCL"
KERNEL = "a kernel driver holds it: remove its dtoverlay from config.txt (bmp280 or bme280 in `lsmod`)"

LOCKED_AT_MOST_S = 6.0  # a VEML7700 in the dark takes 3.6 s, and then there is a pause
_LONG_S = 0.05
_STEP_S = 0.005
_SET_LOCK = getattr(fcntl, "F_OFD_SETLK", None)

_T = TypeVar("_T")
_GONE = {errno.ENODEV, errno.EBADF, errno.ENOENT}
_claimed: WeakValueDictionary[tuple[int, int], I2CChip] = WeakValueDictionary()
_claims = threading.Lock()


def buses() -> list[int]:
    """Numbers of the I2C buses of this machine."""
    return sorted(
        int(n) for p in Path("/dev").glob("i2c-*") if (n := p.name.removeprefix("i2c-")).isascii() and n.isdigit()
    )


class InUse(Busy):
    """Another sensor of this process reads the chip."""


class NoBus(NotFound):
    """The bus itself is not there."""


def generic_board() -> None:
    """Keep Blinka from guessing the board: called before anything of it is imported."""
    os.environ["BLINKA_FORCEBOARD"] = "GENERIC_LINUX_PC"
    os.environ["BLINKA_FORCECHIP"] = "GENERIC_X86"


def bus_library() -> Any:
    generic_board()
    from adafruit_extended_bus import ExtendedI2C  # noqa: PLC0415 - 5 MB that only a real sensor needs

    return ExtendedI2C


def registers_library() -> Any:
    generic_board()
    from adafruit_bme280.protocol import I2C_Impl  # noqa: PLC0415 - after the environment is set

    return I2C_Impl


def errno_of(error: BaseException) -> int | None:
    """The errno behind an error of the libraries, which put it in the context of a ValueError."""
    cause: BaseException | None = error
    while cause is not None and not isinstance(cause, OSError):
        cause = cause.__context__
    return cause.errno if cause is not None else None


def _bus_error(bus: int, error: Exception) -> SensorError:
    """Why a bus could not be opened."""
    path, number = f"/dev/i2c-{bus}", errno_of(error)
    if isinstance(error, PermissionError):
        return NoPermission(f"no permission to open {path}", GROUP)
    if number == errno.EBUSY:
        return Busy(f"{path} is held by another program", "stop it, or use another bus")
    if number in (None, *_GONE):
        others = ", ".join(f"/dev/i2c-{n}" for n in buses())
        there = f"there {'is' if len(buses()) == 1 else 'are'} {others}" if others else ENABLE
        return NoBus(f"no I2C bus {path}", there)
    return Transient(f"{path} could not be opened ({error})", "try again; see `dmesg`")


def chip_error(place: str, error: Exception, *, probing: bool) -> SensorError:
    """Why a transfer failed: what the kernel said, in the words of the contract."""
    number = errno_of(error)
    code = errno.errorcode.get(number, str(number)) if number is not None else type(error).__name__
    if number == errno.EBUSY:
        return Busy(f"the chip at {place} is in use ({code})", KERNEL)
    if isinstance(error, PermissionError):
        return NoPermission(f"no permission to use {place} ({code})", GROUP)
    if number in _GONE:
        return NoBus(f"the bus of {place} is gone ({code})", ENABLE)
    if number == errno.ETIMEDOUT:
        return Transient(
            f"the bus of {place} hangs ({code})",
            "something holds SDA or SCL low: check the wires, power it off",
        )
    if probing:
        return NotFound(f"nothing answers at {place} ({code})", f"{WIRING}; `iot-agent scan` shows what answers")
    return Transient(
        f"a transfer with {place} failed ({code})",
        f"{WIRING}; a long cable may need dtparam=i2c_arm_baudrate=50000",
    )


class I2CChip:
    """One chip's place on one bus, which no other [[sensor]] of this process has. Raises SensorError, naming it.

    `i2c` is Blinka's bus, for a library of Adafruit's.
    """

    def __init__(self, bus: int, address: int) -> None:
        self.place = f"0x{address:02x} on /dev/i2c-{bus}"
        self._claim, self._address = (bus, address), address
        with _claims:
            if self._claim in _claimed:
                raise InUse(f"another [[sensor]] reads the chip at {self.place}", "give each its own bus and address")
            _claimed[self._claim] = self
        self.i2c: Any = None
        self._lock = ChipLock(bus, address)
        try:
            # None: Linux has no frequency to set, and the library warns of any other value.
            self.i2c = bus_library()(bus, None)
            with self._lock.held():
                self._connect(address)
        except (OSError, ValueError, RuntimeError) as error:
            self.close()
            raise _bus_error(bus, error) from error
        except BaseException:
            self.close()
            raise

    def _connect(self, address: int) -> None:
        """Whatever is asked of the chip before it counts as there."""

    def ask(self, written: bytes, length: int, pause: float) -> bytes:
        """What the chip answers to these bytes: after a pause in seconds; without one as a register, without a stop."""
        data = bytearray(length)
        try:
            if written and not pause:
                self.i2c.writeto_then_readfrom(self._address, bytearray(written), data)
            else:
                if written:
                    self.i2c.writeto(self._address, written)
                    time.sleep(pause)
                self.i2c.readfrom_into(self._address, data)
        except (OSError, ValueError, IndexError, TypeError) as error:
            raise chip_error(self.place, error, probing=False) from error
        return bytes(data)

    def exclusive(self) -> AbstractContextManager[None]:
        return self._lock.held()

    def close(self) -> None:
        self._lock.close()
        i2c, self.i2c = self.i2c, None
        if i2c is not None:
            # Blinka closes its file when that is collected; an error that somebody keeps would keep it open.
            bus = getattr(getattr(i2c, "_i2c", None), "_i2c_bus", None)
            if bus is not None:
                bus.close()
            i2c.deinit()
        with _claims:
            if _claimed.get(self._claim) is self:
                del _claimed[self._claim]


class I2CRegisters(I2CChip):
    """The registers of one chip on one bus. Raises SensorError, naming bus and address, and nothing else."""

    def _connect(self, address: int) -> None:
        try:
            self._device = registers_library()(self.i2c, address)
        except (OSError, ValueError, IndexError, TypeError) as error:
            raise chip_error(self.place, error, probing=True) from error

    def _transfer(self, call: Callable[..., _T], *arguments: int) -> _T:
        try:
            return call(*arguments)
        except (OSError, ValueError, IndexError, TypeError) as error:  # a short read is an IndexError in Blinka
            raise chip_error(self.place, error, probing=False) from error

    def read_register(self, register: int, length: int) -> bytearray:
        data: bytearray = self._transfer(self._device.read_register, register, length)
        return data

    def write_register_byte(self, register: int, value: int) -> None:
        self._transfer(self._device.write_register_byte, register, value)


class ChipLock:
    """Keeps two processes from talking to one chip at the same time; held() may be nested.

    A register is read by two transfers: the first says which, the second reads. Another process in between
    (`iot-agent read` beside the running agent) would move the chip's pointer, and a burst would start at the wrong
    register. So whoever talks to a chip holds a lock on the byte of the bus's device file that its address stands for.
    Only the file's own lock is used (an open file description lock: fcntl_locking(2)), nothing is written; a program
    that is not ours takes none.
    """

    def __init__(self, bus: int, address: int) -> None:
        self._place = f"0x{address:02x} on /dev/i2c-{bus}"
        self._address, self._depth, self._since = address, 0, 0.0
        try:
            self._file: int | None = os.open(f"/dev/i2c-{bus}", os.O_RDWR | os.O_CLOEXEC)
        except OSError:  # opening the bus itself will say why
            self._file = None

    @contextmanager
    def held(self) -> Iterator[None]:
        """Raises Busy when another process keeps the chip for too long.

        After a long time there is a pause: who reads one slow reading after another (`iot-agent read --json`) leaves no
        other moment for whoever waits.
        """
        if self._depth == 0:
            self._acquire()
            self._since = time.monotonic()
        self._depth += 1
        try:
            yield
        finally:
            self._depth -= 1
            if self._depth == 0:
                self._set(fcntl.F_UNLCK)
                if self._file is not None and time.monotonic() - self._since > _LONG_S:
                    time.sleep(2 * _STEP_S)

    def close(self) -> None:
        file, self._file = self._file, None
        if file is not None:
            os.close(file)

    def _acquire(self) -> None:
        deadline = time.monotonic() + LOCKED_AT_MOST_S
        while not self._set(fcntl.F_WRLCK):
            if time.monotonic() > deadline:
                raise Busy(f"another process keeps the chip at {self._place}", "is an `iot-agent read` stopped there?")
            time.sleep(_STEP_S)

    def _set(self, kind: int) -> bool:
        """False while another holds it. Where there are no such locks, there is none to wait for."""
        if self._file is None or _SET_LOCK is None:
            return True
        try:
            fcntl.fcntl(self._file, _SET_LOCK, struct.pack("hhqqi4x", kind, os.SEEK_SET, self._address, 1, 0))
        except OSError as error:
            return error.errno not in (errno.EAGAIN, errno.EACCES)
        return True
