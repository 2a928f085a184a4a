"""A driver of the table, its real library, and an emulated chip on a fake bus; time passes only by waiting."""

import sys
from types import SimpleNamespace

from drivers.adafruit_row import imported
from drivers.base import load, options_for
from tests.fake_blinka import FakeBus, FakeTime, connect
from tests.shelf_chips import CHIPS


def own_time(patch, time):
    """The libraries' time.sleep() and time.monotonic() are the bench's."""
    for name, module in list(sys.modules.items()):
        if name.startswith("adafruit_") and not name.startswith("adafruit_blinka"):
            if hasattr(module, "time"):
                patch.setattr(module, "time", SimpleNamespace(sleep=time.sleep, monotonic=time.clock))
            if hasattr(module, "sleep"):
                patch.setattr(module, "sleep", time.sleep)


class Shelf:
    """The driver of this name on a bus with its chip; `kind`, `chip` and `address` for one that is in no table."""

    def __init__(self, patch, name, *, kind=None, chip=None, address=None, **options):
        self.time = FakeTime()
        place, make = (address, chip) if chip else CHIPS[name]
        self.chip = make(self.time.clock)
        self.bus = FakeBus({place: self.chip}, self.time)
        connect(patch, self.bus)
        kind = kind or load(name)
        self.driver = kind(options_for(kind, options), clock=self.time.clock, sleep=self.time.sleep)
        imported(self.driver.row)
        own_time(patch, self.time)
