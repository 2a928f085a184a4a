"""What the board says of itself: temperature, memory, free disk, under-voltage, throttling and address. Sends nothing.

A value that a board does not have is None: nothing is made up for it.
"""

from __future__ import annotations

import os
import re
import socket
from contextlib import suppress
from dataclasses import dataclass
from ipaddress import IPv4Address
from pathlib import Path

ROOT = Path("/")
# Raspberry Pi's kernel; bits as in `vcgencmd get_throttled`. Readable for everyone, unlike /dev/vcio.
THROTTLED = "sys/devices/platform/soc/soc:firmware/get_throttled"
THROTTLED_BITS = {
    0: "under-voltage now",
    1: "frequency capped now",
    2: "throttled now",
    3: "at the temperature limit now",
    16: "under-voltage since boot",
    17: "frequency capped since boot",
    18: "throttled since boot",
    19: "temperature limit reached since boot",
}


@dataclass(frozen=True, slots=True)
class Board:
    """At one moment. Temperatures °C, sizes bytes, `throttled` the flags of THROTTLED_BITS, `load` runnable threads,
    `address` the 32 bits of an IPv4 address.
    """

    cpu_temperature: float | None = None
    memory_available: int | None = None
    memory_process: int | None = None
    disk_free: int | None = None
    uptime: float | None = None
    load: float | None = None
    throttled: int | None = None
    address: int | None = None


def read_board(folder: Path | None = None, root: Path = ROOT) -> Board:
    """The board now; the disk is the one that `folder` lies on."""
    memory = re.search(r"^MemAvailable:\s+(\d+) kB$", text_of(root / "proc/meminfo"), re.MULTILINE)
    disk = None
    with suppress(OSError):
        disk = os.statvfs(folder) if folder is not None else None
    return Board(
        cpu_temperature=_temperature(root),
        memory_available=int(memory[1]) * 1024 if memory else None,
        memory_process=_resident(root),
        disk_free=disk.f_bavail * disk.f_frsize if disk else None,
        uptime=_number(text_of(root / "proc/uptime").partition(" ")[0]),
        load=_number(text_of(root / "proc/loadavg").partition(" ")[0]),
        throttled=_throttled(root),
        address=own_address(),
    )


def throttling(flags: int) -> list[str]:
    """The flags in words."""
    return [text for bit, text in THROTTLED_BITS.items() if flags >> bit & 1]


def text_of(path: Path) -> str:
    """A small file of the kernel's, stripped; empty where there is none."""
    try:
        return path.read_text("ascii", "replace").strip()
    except OSError:
        return ""


def _number(text: str) -> float | None:
    try:
        return float(text)
    except ValueError:
        return None


def _temperature(root: Path) -> float | None:
    """Of the zone of the processor, else of the first; millidegrees (kernel's sysfs-api for thermal)."""
    zones = sorted(root.glob("sys/class/thermal/thermal_zone*"))
    zones.sort(key=lambda zone: "cpu" not in text_of(zone / "type"))
    for zone in zones:
        value = _number(text_of(zone / "temp"))
        if value is not None:
            return value / 1000
    return None


def _resident(root: Path) -> int | None:
    fields = text_of(root / "proc/self/statm").split()
    return int(fields[1]) * os.sysconf("SC_PAGE_SIZE") if len(fields) > 1 and fields[1].isdecimal() else None


def _throttled(root: Path) -> int | None:
    try:
        return int(text_of(root / THROTTLED), 16)
    except ValueError:
        return None


def own_address() -> int | None:
    """IPv4, of the interface that leads out. Connecting a datagram socket only looks the route up: nothing is sent to
    that address, which nobody has (RFC 5737).
    """
    with suppress(OSError), socket.socket(socket.AF_INET, socket.SOCK_DGRAM) as out:
        out.connect(("192.0.2.1", 9))
        return int.from_bytes(socket.inet_aton(out.getsockname()[0]))
    return None


def address_in_words() -> str | None:
    number = own_address()
    return None if number is None else str(IPv4Address(number))
