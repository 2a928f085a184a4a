"""What adafruit_extended_bus opens, in this process: a bus of register-level chips on which any transfer can fail.

The library above it (adafruit_bus_device, adafruit_bme280) is the real one. `faults` maps the number of a transfer
(from 0) to what happens there: an errno, "short" for a short read, or a function that is called before it. `flips` maps
it to the number of a bit that arrives flipped, of what is read or written; "address" is the lowest bit of the address.
"""

from __future__ import annotations

import errno


class FakeTime:
    """Seconds that pass by sleeping, and a little with each transfer."""

    def __init__(self):
        self.now = 100.0
        self.slept = 0.0

    def clock(self):
        return self.now

    def sleep(self, seconds):
        self.now += seconds
        self.slept += seconds


class FakeBus:
    """The bus is passed where the library would be told a number."""

    def __init__(self, chips, time):
        self.chips, self.time = chips, time
        self.faults, self.flips, self.transfers, self.log = {}, {}, 0, []
        self.torn = None  # the chip loses power after so many bytes of the next read
        self.opened = self.closed = 0

    def open(self, _number, _frequency):
        self.opened += 1
        return self

    # busio.I2C, as far as adafruit_bus_device uses it

    def try_lock(self):
        return True

    def unlock(self):
        pass

    def deinit(self):
        self.closed += 1

    def writeto(self, address, buffer, *, start=0, end=None):
        message = bytes(buffer[start:end])
        chip, flip = self._transfer(address)
        self.log.append(("write", message))
        chip.write(flipped(message, flip))

    def readfrom_into(self, address, buffer, *, start=0, end=None):
        chip, flip = self._transfer(address)
        end = len(buffer) if end is None else end
        self.log.append(("read", end - start))
        data = chip.read(end - start)
        if self.torn is not None:
            kept, self.torn = self.torn, None
            chip.power_on()
            data = data[:kept] + chip.read_register(chip.pointer - len(data), len(data))[kept:]
        buffer[start:end] = flipped(data, flip)

    def writeto_then_readfrom(self, address, out, into, *, out_start=0, out_end=None, in_start=0, in_end=None):
        chip, flip = self._transfer(address)
        end = len(into) if in_end is None else in_end
        chip.write(bytes(out[out_start:out_end]))
        into[in_start:end] = flipped(chip.read(end - in_start), flip)

    def _transfer(self, address):
        number, self.transfers = self.transfers, self.transfers + 1
        self.time.now += 0.0001
        fault = self.faults.get(number)
        if callable(fault):
            fault()
        elif fault == "short":
            raise IndexError("bytearray index out of range")
        elif fault is not None:
            raise OSError(fault, "injected")
        flip = self.flips.get(number)
        if flip == "address":
            address, flip = address ^ 1, None
        if address not in self.chips:
            raise OSError(errno.EREMOTEIO, "nothing there")
        return self.chips[address], flip


def flipped(data, bit):
    """The bytes with this bit (counted from the first byte's lowest, around) the other way."""
    if bit is None or not data:
        return bytes(data)
    number = bit % (8 * len(data))
    return bytes(byte ^ (1 << number % 8) * (place == number // 8) for place, byte in enumerate(data))


def connect(monkeypatch, bus):
    """Let drivers.i2c open this bus, and forget whose chips are read: a driver left open lives on until collected."""
    import drivers.i2c

    drivers.i2c.generic_board()
    from adafruit_bme280.protocol import I2C_Impl

    drivers.i2c._claimed.clear()
    monkeypatch.setattr(drivers.i2c, "bus_library", lambda: bus.open)
    monkeypatch.setattr(drivers.i2c, "registers_library", lambda: I2C_Impl)
