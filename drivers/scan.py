"""Which sensors answer on the I2C buses and the one-wire bus of this machine, and how agent.toml names them."""

from __future__ import annotations

from collections.abc import Callable, Iterable
from dataclasses import dataclass
from importlib.util import find_spec
from pathlib import Path

from drivers import bme280_registers as r
from drivers import ds18b20
from drivers.adafruit_table import ROWS
from drivers.base import Busy, NotFound, SensorError
from drivers.i2c import ENABLE, WIRING, I2CRegisters, NoBus, buses

FIRST, LAST = 0x08, 0x77  # the others are reserved (I2C specification, 3.1.12)


@dataclass(frozen=True, slots=True)
class FoundChip:
    """A chip that answers. `driver` reads it, where it is known which chip it is; `note` says what keeps it from being
    read, or what else is known.
    """

    address: int
    name: str | None = None
    chip_id: int | None = None
    note: str | None = None
    driver: str | None = None

    def text(self) -> str:
        known = self.name or "something"
        if self.name and self.chip_id is not None:
            known = f"{self.name} (chip id 0x{self.chip_id:02x})"
        elif self.chip_id is not None:
            known = f"an unknown chip (0x{self.chip_id:02x} where a BME280 has its chip id)"
        return f"  0x{self.address:02x}  {self.note or known}"


@dataclass(frozen=True, slots=True)
class Bus:
    number: int
    answers: tuple[FoundChip, ...] = ()
    problem: str | None = None

    def text(self) -> str:
        lines = [f"/dev/i2c-{self.number}"]
        if self.problem:
            lines.append(f"  {self.problem}")
        elif not self.answers:
            lines.append("  nothing answers: check power and the wires to SDA and SCL")
        return "\n".join([*lines, *(answer.text() for answer in self.answers)])


@dataclass(frozen=True, slots=True)
class Sensor:
    """A sensor that was found, as agent.toml names it: its driver, and where it is."""

    driver: str
    bus: int | None = None
    address: int | None = None
    id: str | None = None

    def table(self, name: str) -> str:
        """The [[sensor]] table to paste."""
        place = f'id = "{self.id}"' if self.id else f"bus = {self.bus}\naddress = 0x{self.address:02x}"
        return f'[[sensor]]\nname = "{name}"\ndriver = "{self.driver}"\n{place}\n'


def scan_buses() -> list[Bus]:
    """Every bus with what answers on it. Raises NoBus where there is none."""
    numbers = buses()
    if not numbers:
        raise NoBus("no I2C bus on this machine", ENABLE)
    return [scan_bus(number) for number in numbers]


def scan_bus(number: int) -> Bus:
    answers: list[FoundChip] = []
    for address in range(FIRST, LAST + 1):
        try:
            answer = _asked(number, address)
        except NoBus as error:
            return Bus(number, problem=str(error))
        except NotFound:
            continue
        except Busy as error:
            answer = FoundChip(address, note=str(error))
        except SensorError as error:
            return Bus(number, tuple(answers), str(error))
        answers.append(answer)
    if len(answers) == LAST - FIRST + 1:
        return Bus(number, problem=f"faulty: every address answers, so SDA is held low: {WIRING}; unplug one by one")
    return Bus(number, tuple(answers))


def one_wire(folder: Path = ds18b20.DEVICES) -> list[Sensor]:
    """Every DS18B20 that the kernel knows."""
    return [Sensor("ds18b20", id=name) for name in ds18b20.sensors(folder)]


def known(found: Iterable[Bus]) -> list[Sensor]:
    """Those of which it is known what reads them."""
    return [Sensor(chip.driver, bus.number, chip.address) for bus in found for chip in bus.answers if chip.driver]


def to_install(sensors: Iterable[Sensor]) -> list[str]:
    """The extras of those whose library is not installed."""
    rows = {sensor.driver: ROWS[sensor.driver] for sensor in sensors if sensor.driver in ROWS}
    return sorted(name for name, row in rows.items() if find_spec(row.library.partition(".")[0]) is None)


def _asked(number: int, address: int) -> FoundChip:
    chip = I2CRegisters(number, address)
    try:
        with chip.exclusive():
            return _bosch(chip, address) if address in r.ADDRESSES else _of_the_table(chip, address)
    except SensorError as error:
        return FoundChip(address, note=str(error))
    finally:
        chip.close()


def _bosch(chip: I2CRegisters, address: int) -> FoundChip:
    """Elsewhere the register of the chip id would mean something else."""
    chip_id = chip.read_register(r.CHIP_ID, 1)[0]
    name = r.CHIPS.get(chip_id)
    return FoundChip(address, name, chip_id, driver=name.lower() if name else None)


def _of_the_table(chip: I2CRegisters, address: int) -> FoundChip:
    rows = [row for row in ROWS.values() if address in row.addresses]
    for row in rows:
        if row.asked is not None and _fits(chip, row.asked.written, row.asked.length, row.asked.pause, row.asked.fits):
            return FoundChip(address, row.chip, driver=row.name)
    may_be = " or ".join(row.chip for row in rows)
    return FoundChip(address, note=f"something that does not answer as a {may_be} does" if rows else None)


def _fits(chip: I2CRegisters, written: bytes, length: int, pause: float, fits: Callable[[bytes], bool]) -> bool:
    try:
        return fits(chip.ask(written, length, pause))
    except SensorError:
        return False
