"""What answers on the I2C buses of this machine."""

from __future__ import annotations

from dataclasses import dataclass

from drivers import bme280_registers as r
from drivers.base import Busy, NotFound, SensorError
from drivers.i2c import ENABLE, I2CRegisters, NoBus, buses

FIRST, LAST = 0x08, 0x77  # the others are reserved (I2C specification, 3.1.12)


@dataclass(frozen=True, slots=True)
class FoundChip:
    """A chip that answers. `name` where its chip id is known; `note` says what keeps it from being read."""

    address: int
    name: str | None = None
    chip_id: int | None = None
    note: str | None = None

    def text(self) -> str:
        known = f"{self.name} (chip id 0x{self.chip_id:02x})" if self.name else "something"
        if self.chip_id is not None and self.name is None:
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
    return Bus(number, tuple(answers))


def _asked(number: int, address: int) -> FoundChip:
    chip = I2CRegisters(number, address)
    try:
        if address not in r.ADDRESSES:  # elsewhere the register of the chip id would mean something else
            return FoundChip(address)
        with chip.exclusive():
            chip_id = chip.read_register(r.CHIP_ID, 1)[0]
        return FoundChip(address, r.CHIPS.get(chip_id), chip_id)
    except SensorError as error:
        return FoundChip(address, note=str(error))
    finally:
        chip.close()
