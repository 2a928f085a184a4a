"""The BME280 driver over a chip that is not there: the whole driver runs, on register images from a file."""

from __future__ import annotations

import json
from dataclasses import dataclass
from itertools import cycle
from pathlib import Path
from typing import Any, ClassVar

from drivers.base import NotFound, OptionError, Reading, option
from drivers.bme280 import Bme280, Bme280Options
from drivers.bme280_registers import ADDRESSES
from drivers.chip import Chip, Image

# A real chip's calibration in a room.
_ROOM = Image.of(
    {
        "calibration_0x88": "296f25693703ce8bf3d5040c5c110000f9ff8c3cf8c67017004b",
        "calibration_0xE1": "6701001758001e",
        "data_0xF7": "59da9079e6d07a3e",
    }
)


@dataclass(frozen=True, slots=True)
class EmulatedOptions(Bme280Options):
    """`image`: a JSON list of objects with calibration_0x88, calibration_0xE1, data_0xF7 in hexadecimal.

    They are taken one after another, and again from the first, each as a chip just powered on with that calibration.
    Without one, one chip always measures the same.
    """

    image: str = option("")


class _Time:
    """Seconds that pass only by sleeping."""

    def __init__(self) -> None:
        self.now = 0.0

    def clock(self) -> float:
        return self.now

    def sleep(self, seconds: float) -> None:
        self.now += seconds


class Emulated(Bme280):
    sensor: ClassVar[str] = "emulated_bme280"
    Options = EmulatedOptions

    def __init__(self, options: EmulatedOptions | None = None) -> None:
        time = _Time()
        super().__init__(options, connect=self._answer, clock=time.clock, sleep=time.sleep)
        self.options: EmulatedOptions
        images = _images(self.options.image)
        self._emulated = Chip(images[0], clock=time.clock)
        self._images = cycle(images)

    @classmethod
    def check(cls, options: Any) -> None:
        super().check(options)
        _images(options.image)

    def _answer(self, _bus: int, address: int) -> Chip:
        if address != (ADDRESSES[0] if self.options.address == "auto" else self.options.address):
            raise NotFound(f"nothing answers at 0x{address:02x} on {self._bus_name()}")
        return self._emulated

    def read(self) -> Reading:
        image = next(self._images)
        if self.options.image:
            self._emulated.power_on(image)
        return super().read()

    def _bus_name(self) -> str:
        return "an emulated bus"


def _images(path: str) -> list[Image]:
    """The images of a file. Raises OptionError."""
    if not path:
        return [_ROOM]
    images: list[Image] = []
    try:
        images = [Image.of(case) for case in json.loads(Path(path).read_text(encoding="utf-8"))]
        why: object = "the list is empty"
    except OSError as error:
        why = error.strerror
    except (ValueError, AttributeError, TypeError) as error:
        why = error
    if not images:
        wanted = "allowed is a JSON file with a list of calibration_0x88, calibration_0xE1 and data_0xF7"
        raise OptionError(f"option 'image' is {path!r}: {why}; {wanted}", "image")
    return images
