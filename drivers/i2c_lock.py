"""Keeps two processes from talking to one chip at the same time.

A register is read by two transfers: the first says which, the second reads. Another process in between (`iot-agent
read` beside the running agent) would move the chip's pointer, and a burst would start at the wrong register. So whoever
talks to a chip holds a lock on the byte of the bus's device file that its address stands for. Only the file's own lock
is used (an open file description lock: fcntl_locking(2)), nothing is written; a program that is not ours takes none.
"""

from __future__ import annotations

import errno
import fcntl
import os
import struct
import time
from collections.abc import Iterator
from contextlib import contextmanager

from drivers.base import Busy

AT_MOST_S = 2.0  # a reading takes a tenth of it, in the slowest mode
_STEP_S = 0.005
_SET = getattr(fcntl, "F_OFD_SETLK", None)


class ChipLock:
    """The lock of one chip; held() may be nested."""

    def __init__(self, bus: int, address: int) -> None:
        self._place = f"0x{address:02x} on /dev/i2c-{bus}"
        self._address, self._depth = address, 0
        try:
            self._file: int | None = os.open(f"/dev/i2c-{bus}", os.O_RDWR | os.O_CLOEXEC)
        except OSError:  # opening the bus itself will say why
            self._file = None

    @contextmanager
    def held(self) -> Iterator[None]:
        """Raises Busy when another process keeps the chip for too long."""
        if self._depth == 0:
            self._acquire()
        self._depth += 1
        try:
            yield
        finally:
            self._depth -= 1
            if self._depth == 0:
                self._set(fcntl.F_UNLCK)

    def close(self) -> None:
        file, self._file = self._file, None
        if file is not None:
            os.close(file)

    def _acquire(self) -> None:
        deadline = time.monotonic() + AT_MOST_S
        while not self._set(fcntl.F_WRLCK):
            if time.monotonic() > deadline:
                raise Busy(f"another process keeps the chip at {self._place}", "is an `iot-agent read` stopped there?")
            time.sleep(_STEP_S)

    def _set(self, kind: int) -> bool:
        """False while another holds it. Where there are no such locks, there is none to wait for."""
        if self._file is None or _SET is None:
            return True
        try:
            fcntl.fcntl(self._file, _SET, struct.pack("hhqqi4x", kind, os.SEEK_SET, self._address, 1, 0))
        except OSError as error:
            return error.errno not in (errno.EAGAIN, errno.EACCES)
        return True
