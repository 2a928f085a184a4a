"""A BME280 driver on a register-level chip on a fake bus, with time that passes only by waiting."""

import json
from pathlib import Path

from drivers.base import options_for
from drivers.bme280 import Bme280
from drivers.chip import Chip, Image
from tests.fake_blinka import FakeBus, FakeTime, connect

IMAGES = [Image.of(case) for case in json.loads((Path(__file__).parent / "data/bme280-bosch.json").read_text())]
ROOM = IMAGES[0]


class WatchedChip(Chip):
    """Remembers which register was written with what."""

    def __init__(self, *args, **settings):
        self.written = []
        super().__init__(*args, **settings)

    def _write(self, register, value):
        self.written.append((register, value))
        super()._write(register, value)


class Bench:
    """A chip, its bus, and a driver on it."""

    def __init__(self, patch, *, chips=None, image=ROOM, source=None, **options):
        self.time = FakeTime()
        self.chip = WatchedChip(image, clock=self.time.clock, source=source)
        self.bus = FakeBus({0x77: self.chip} if chips is None else chips, self.time)
        connect(patch, self.bus)
        patch.setattr("adafruit_bme280.basic.sleep", lambda _: None)  # after a reset of the copy it works on
        kind_options = options_for(Bme280, options)
        self.driver = Bme280(kind_options, clock=self.time.clock, sleep=self.time.sleep)

    def opened(self):
        self.driver.open()
        self.bus.log.clear()
        self.chip.written.clear()
        self.bus.transfers = 0
        return self

    def another_chip(self, chip_id=0x60):
        return Chip(ROOM, chip_id=chip_id, clock=self.time.clock)
