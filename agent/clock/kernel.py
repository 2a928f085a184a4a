"""What the kernel says about its clock: adjtimex(2), read only, through ctypes.

A system-call filter may answer EPERM, or kill who asks: so a child process asks first, once. Where the kernel says
nothing (containers, macOS, filters) the answer is None: unknown, which is neither good nor bad.
"""

from __future__ import annotations

import ctypes
import logging
import subprocess
import sys
from dataclasses import dataclass
from functools import cache
from typing import ClassVar

log = logging.getLogger(__name__)

MAX_ERROR_NS = 16_000_000_000  # NTP_PHASE_LIMIT: what systemd's NTPSynchronized compares maxerror with
STA_NANO = 0x2000
_ASK_TIMEOUT_S = 20.0  # a Pi Zero needs about one second to start Python
_ASK = """
import ctypes, sys
answer = ctypes.CDLL(None, use_errno=True).adjtimex(ctypes.create_string_buffer(1024))
sys.exit(0 if answer >= 0 else 3)
"""


class Timex(ctypes.Structure):
    """struct timex of <sys/timex.h>; c_long makes it right for 32 and 64 bit."""

    _fields_: ClassVar = [
        ("modes", ctypes.c_uint),
        ("offset", ctypes.c_long),
        ("freq", ctypes.c_long),
        ("maxerror", ctypes.c_long),
        ("esterror", ctypes.c_long),
        ("status", ctypes.c_int),
        ("constant", ctypes.c_long),
        ("precision", ctypes.c_long),
        ("tolerance", ctypes.c_long),
        ("time_s", ctypes.c_long),
        ("time_frac", ctypes.c_long),
        ("tick", ctypes.c_long),
        ("spare", ctypes.c_char * 512),
    ]


@dataclass(frozen=True, slots=True)
class KernelClock:
    """`max_error_ns` bounds the wall clock's error; `remaining_ns` is what the kernel has still to slew it by."""

    max_error_ns: int
    remaining_ns: int = 0

    @property
    def vouches(self) -> bool:
        """As systemd judges it. STA_UNSYNC is ignored: chrony without rtcsync never clears it."""
        return 0 <= self.max_error_ns < MAX_ERROR_NS


def decode(timex: Timex) -> KernelClock:
    """Maxerror is in µs; offset in ns under STA_NANO, else in µs (adjtimex(2))."""
    unit = 1 if timex.status & STA_NANO else 1000
    return KernelClock(timex.maxerror * 1000, timex.offset * unit)


@cache
def answers() -> bool:
    """Whether asking is safe and allowed, found out by a child process that asks once."""
    if not sys.platform.startswith("linux"):
        return False
    try:
        code = subprocess.run(  # noqa: S603 - this interpreter, a fixed program
            [sys.executable, "-I", "-S", "-c", _ASK],
            stdin=subprocess.DEVNULL,
            stdout=subprocess.DEVNULL,
            stderr=subprocess.DEVNULL,
            timeout=_ASK_TIMEOUT_S,
            check=False,
        ).returncode
    except (OSError, subprocess.SubprocessError) as error:
        log.info("Whether the clock is synchronised cannot be asked (%s): servers must vouch for it", error)
        return False
    if code:
        log.info("adjtimex is %s here: servers must vouch for the clock", "refused" if code > 0 else "deadly")
    return code == 0


def kernel_clock() -> KernelClock | None:
    """The kernel's word on its clock, or None where it gives none."""
    if not answers():
        return None
    timex = Timex()
    return decode(timex) if ctypes.CDLL(None).adjtimex(ctypes.byref(timex)) >= 0 else None
