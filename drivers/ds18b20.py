"""A DS18B20 on the one-wire bus, as the kernel's w1_therm shows it in sysfs.

Reading the file starts a conversion and takes 750 ms. Datasheet DS18B20: memory (figure 9), configuration (figure 10),
CRC (figure 11); kernel: Documentation/w1/slaves/w1_therm.rst.
"""

from __future__ import annotations

import errno
import fnmatch
import re
from collections.abc import Collection
from dataclasses import dataclass
from pathlib import Path
from typing import Any, ClassVar

from drivers.base import (
    Driver,
    NoPermission,
    NotFound,
    NotReady,
    Reading,
    SensorError,
    Transient,
    WrongChip,
    boot_ns,
    option,
)

DEVICES = Path("/sys/bus/w1/devices")
ENABLE = "enable one-wire with `sudo raspi-config nonint do_onewire 0` (or dtoverlay=w1-gpio in config.txt), and reboot"
WIRES = "check its wires and the 4.7 kΩ resistor between data and 3.3 V"
ATTEMPTS = 3
FAMILY = "28-"
_TEXT = re.compile(r"((?:[0-9a-f]{2} ){9}): crc=[0-9a-f]{2} YES\n(?:[0-9a-f]{2} ){9}t=(-?\d+)\s*")


@dataclass(frozen=True, slots=True)
class Ds18b20Options:
    """`id` is the sensor's, like 28-0316a279c8ff; with one on the bus it needs not be given. `folder`: sysfs's."""

    id: str = option("28-*")
    folder: str = option(str(DEVICES))


def sensors(folder: Path = DEVICES) -> list[str]:
    """The ids of all on the bus."""
    return sorted(path.name for path in folder.glob(f"{FAMILY}*"))


class Ds18b20(Driver):
    sensor: ClassVar[str] = "ds18b20"
    Options = Ds18b20Options

    def __init__(self, options: Ds18b20Options | None = None) -> None:
        super().__init__(options)
        self.options: Ds18b20Options
        self._file: Path | None = None

    @classmethod
    def quantities(cls, options: Any) -> Collection[str]:  # noqa: ARG003 - the contract's
        return ("Temperature",)

    def describe(self) -> str:
        return f"DS18B20 {self._file.parent.name if self._file else self.options.id}"

    def open(self) -> None:
        self.close()
        folder = Path(self.options.folder)
        if not folder.is_dir():
            raise NotFound("there is no one-wire bus", ENABLE)
        there = sensors(folder)
        found = [name for name in there if fnmatch.fnmatchcase(name, self.options.id)]
        if not found:
            others = f"there are {', '.join(there)}; " if there else ""
            raise NotFound(f"no DS18B20 {self.options.id} on the one-wire bus", f"{others}{WIRES}")
        if len(found) > 1:  # which is which must not depend on an order
            raise NotFound(f"{len(found)} sensors are {self.options.id}: {', '.join(found)}", "give each its id")
        self._file = folder / found[0] / "w1_slave"

    def read(self) -> Reading:
        """One conversion. A failed transfer is tried again, three times in all."""
        for _ in range(ATTEMPTS - 1):
            try:
                return self._read()
            except Transient:
                continue
        return self._read()

    def _read(self) -> Reading:
        if self._file is None:
            raise NotReady(f"{self.describe()} is not open", "open() it first")
        moment = boot_ns()
        try:
            text = self._file.read_text(encoding="ascii", errors="replace")
        except OSError as error:
            raise self._meaning(error) from error
        found = _TEXT.fullmatch(text)
        scratchpad = bytes.fromhex(found[1]) if found else b""
        if found is None or crc8(scratchpad[:8]) != scratchpad[8]:
            raise Transient(f"a transfer with the {self.describe()} failed", WIRES)
        if scratchpad[4] & 0x9F == 0x1F and scratchpad[7] != 0x10:  # its first value, 25 °C, is like any other
            said = f"the {self.describe()} is a counterfeit that does not keep to the datasheet ({found[1].strip()})"
            raise WrongChip(said, "get a genuine one")
        if scratchpad[4] & 0x9F != 0x1F:  # a shorted wire reads 0 throughout, and its CRC is 0
            raise Transient(f"the {self.describe()} answers what no DS18B20 does ({found[1].strip()})", WIRES)
        if scratchpad[:2] == b"\x50\x05" and scratchpad[6] == 0x0C:  # 0x10 when it was measured, as w1_therm knows too
            raise NotReady(f"the {self.describe()} shows 85 °C, its value before it has measured", "check its power")
        return Reading({"Temperature": int(found[2]) / 1000}, moment)  # no registers: water stands still at 0.06 °C

    def close(self) -> None:
        self._file = None

    def _meaning(self, error: OSError) -> SensorError:
        if isinstance(error, FileNotFoundError) or error.errno == errno.ENODEV:
            return NotFound(f"the {self.describe()} is gone from the one-wire bus", WIRES)
        if isinstance(error, PermissionError):
            return NoPermission(f"no permission to read {self._file}", "it is readable for all: what changed that?")
        return Transient(f"a transfer with the {self.describe()} failed ({error.strerror})", WIRES)


def crc8(data: bytes) -> int:
    """CRC-8 of the one-wire bus: x⁸ + x⁵ + x⁴ + 1, least significant bit first (datasheet, figure 11)."""
    crc = 0
    for byte in data:
        crc ^= byte
        for _ in range(8):
            crc = crc >> 1 ^ 0x8C if crc & 1 else crc >> 1
    return crc
