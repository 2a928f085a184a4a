"""A wall clock of its own for a process that a test starts: see preload/wallclock.c."""

import mmap
import struct

from tests.preloads import compiled

UNSYNCHRONISED_US = 16_000_000
EPERM = -1


class WallClock:
    """`environment` makes a process see this clock; step() and synchronise() change it while that runs."""

    def __init__(self, folder, shift_s=0.0, max_error_us=UNSYNCHRONISED_US):
        self._path = folder / "wallclock"
        self._path.write_bytes(bytes(mmap.PAGESIZE))
        with self._path.open("r+b") as file:
            self._map = mmap.mmap(file.fileno(), mmap.PAGESIZE)
        self.environment = {"LD_PRELOAD": str(compiled("wallclock")), "FAKE_WALLCLOCK": str(self._path)}
        self.set(shift_s, max_error_us)

    def set(self, shift_s, max_error_us=UNSYNCHRONISED_US, remaining_ns=0):
        """The wall clock's shift from the machine's, and what adjtimex says. EPERM: it is refused."""
        self._map[:24] = struct.pack("=qqq", round(shift_s * 1e9), max_error_us, remaining_ns)

    def synchronise(self):
        self.set(0, 2_000)
