"""The chips of drivers/adafruit_table.py as I2C sees them: write() and read(), with times by a clock.

They behave as their datasheets say, in what a driver can meet: a command takes its time, what is asked too soon is not
acknowledged, power_on() forgets all but what is in non-volatile memory, and what was never measured reads as its reset
value. Those of Sensirion and Aosong speak in commands and CRC-8; the others have registers.
"""

from __future__ import annotations

import errno
import json
import os
import time
from abc import ABC, abstractmethod
from pathlib import Path

from drivers.chip import Chip, Image


def _nack():
    return OSError(errno.EREMOTEIO, os.strerror(errno.EREMOTEIO))


def crc8(data):
    """Sensirion's example: 0xBEEF gives 0x92."""
    crc = 0xFF
    for byte in data:
        crc ^= byte
        for _ in range(8):
            crc = ((crc << 1) ^ 0x31) & 0xFF if crc & 0x80 else crc << 1
    return crc


def words(*values):
    """16-bit words, each with its CRC."""
    return b"".join(v.to_bytes(2) + bytes([crc8(v.to_bytes(2))]) for v in values)


class Emulated(ABC):
    """`conversions` counts; `clock` gives seconds; `raw` is what the next conversion gives, `later` something else."""

    def __init__(self, clock=time.monotonic):
        self.clock, self.conversions = clock, 0
        self.power_on()

    @abstractmethod
    def power_on(self):
        """What its registers hold after that."""


class Sht4x(Emulated):
    """Commands of one byte (4.5); `raw` is temperature and humidity. 0xFD takes 8.3 ms at most."""

    raw = (0x6666, 0x72B0)  # 25.00 °C, 50.0 %RH
    later = (0x6A00, 0x7100)
    values = {"Temperature": 25.0, "Humidity": 50.0}
    TIMES = {0xFD: 0.0083, 0xF6: 0.0045, 0xE0: 0.0016}

    def power_on(self):
        self.reply, self.ready_at = None, 0.0

    def write(self, message):
        if not message:
            return
        if len(message) != 1 or self.clock() < self.ready_at:
            raise _nack()
        command = message[0]
        if command in self.TIMES:
            self.conversions += 1
            self.reply, self.ready_at = words(*self.raw), self.clock() + self.TIMES[command]
        elif command == 0x89:
            self.reply = words(0x0F4A, 0x1B2C)
        elif command == 0x94:
            self.reply, self.ready_at = None, self.clock() + 0.001
        else:
            raise _nack()

    def read(self, length):
        if self.reply is None or self.clock() < self.ready_at:
            raise _nack()
        reply, self.reply = self.reply, None
        return reply[:length].ljust(length, b"\xff")


class Scd4x(Emulated):
    """Commands of two bytes (3.4); a new measurement every 5 s, gone once read (3.5.2)."""

    raw = (812, 0x6666, 0x8000)  # ppm, 25.00 °C, 50.0 %RH
    later = (905, 0x6A00, 0x7E00)
    values = {"CO2": 812, "Temperature": 25.0, "Humidity": 50.0}

    def power_on(self):
        self.since, self.taken, self.reply, self.busy_until = None, 0, None, 0.0

    def _fresh(self):
        return self.since is not None and int((self.clock() - self.since) / 5) > self.taken

    def write(self, message):
        if not message:
            return
        if self.clock() < self.busy_until:
            raise _nack()
        self.reply = None
        if message == b"\x3f\x86":
            self.since, self.busy_until = None, self.clock() + 0.5
        elif message == b"\xe4\xb8":
            self.reply = words(0x8006 if self._fresh() else 0x8000)
        elif message == b"\xec\x05":
            if self._fresh():
                self.conversions += 1
                self.taken = int((self.clock() - self.since) / 5)
                self.reply = words(*self.raw)
        elif self.since is not None:
            raise _nack()  # while it measures periodically
        elif message == b"\x21\xb1":
            self.since, self.taken = self.clock(), 0
        elif message == b"\x36\x82":
            self.reply = words(0xF896, 0x9F07, 0x3BBE)
        else:
            raise _nack()

    def read(self, length):
        if self.reply is None:
            raise _nack()
        reply, self.reply = self.reply, None
        return reply[:length].ljust(length, b"\xff")


class Aht20(Emulated):
    """Status, 20 bits of humidity, 20 of temperature, CRC-8 (5.4); a conversion takes 75 ms."""

    raw = (0x80000, 0x60000)  # 50.0 %RH, 25.00 °C
    later = (0x7E000, 0x62000)
    values = {"Temperature": 25.0, "Humidity": 50.0}

    forgets = True  # the datasheet does not say whether a soft reset clears the data

    def power_on(self):
        self.calibrated, self.data, self.ends = False, bytes(5), None

    def _advance(self):
        if self.ends is not None and self.clock() >= self.ends:
            humidity, temperature = self.raw
            self.data = (humidity << 20 | temperature).to_bytes(5)
            self.ends = None

    def write(self, message):
        self._advance()
        if message == b"\xba":
            kept = bytes(5) if self.forgets else self.data
            self.power_on()
            self.data = kept
        elif message[:1] in (b"\xe1", b"\xbe"):
            self.calibrated = True
        elif message == b"\xac\x33\x00":
            self.conversions += 1
            self.ends = self.clock() + 0.075

    def read(self, length):
        self._advance()
        status = (0x80 if self.ends is not None else 0) | 0x10 | (0x08 if self.calibrated else 0)
        frame = bytes([status]) + self.data
        return (frame + bytes([crc8(frame)]))[:length].ljust(length, b"\xff")


class Registers(Emulated):
    """A register pointer, and registers of `width` bytes each behind it."""

    width = 2

    def power_on(self):
        self.pointer = 0

    def write(self, message):
        if message:
            self.pointer = message[0]
            if len(message) > 1:
                self.put(message[0], message[1:])

    def read(self, length):
        return self.get(self.pointer, length)


class Mcp9808(Registers):
    """Big-endian words; the ambient temperature is 0 until the first conversion, 250 ms after power-on (5.1.4)."""

    raw = 0x0194  # 25.25 °C
    later = 0x01A8
    values = {"Temperature": 25.25}

    def power_on(self):
        super().power_on()
        self.words = {1: 0, 2: 0, 3: 0, 4: 0, 6: 0x0054, 7: 0x0400}
        self.first = self.clock() + 0.25

    def put(self, register, data):
        if register in (1, 2, 3, 4):
            self.words[register] = int.from_bytes(data[:2])

    def get(self, register, length):
        if register == 5:
            value = self.raw if self.clock() >= self.first else 0
            if value & 0x0FFF >= self.words[4]:
                value |= 0x8000  # at or above the critical limit
            return value.to_bytes(2)[:length]
        return self.words.get(register, 0).to_bytes(2)[:length]


class Veml7700(Registers):
    """Little-endian words; after power-on it is shut down, and the light is 0 (command code 0: default 1)."""

    raw = 250.0  # lx
    later = 300.0
    values = {"Illuminance": 6.0135e-13 * 250**4 - 9.3924e-9 * 250**3 + 8.1488e-5 * 250**2 + 1.0023 * 250}  # 84323
    GAIN = {0: 1, 1: 2, 2: 0.125, 3: 0.25}
    MS = {0xC: 25, 0x8: 50, 0x0: 100, 0x1: 200, 0x2: 400, 0x3: 800}

    def power_on(self):
        super().power_on()
        self.words = {0: 1, 1: 0, 2: 0, 3: 0, 6: 0, 7: 0xC481}
        self.light, self.ends = 0, None

    def _counts(self):
        config = self.words[0]
        resolution = 0.0042 * (800 / self.MS[config >> 6 & 0xF]) * (2 / self.GAIN[config >> 11 & 3])
        return min(0xFFFF, round(self.raw / resolution))

    def _advance(self):
        if self.ends is not None and self.clock() >= self.ends:
            self.light = self._counts()
            self.conversions += 1

    def put(self, register, data):
        self._advance()
        if register in (0, 1, 2, 3):
            self.words[register] = int.from_bytes(data[:2], "little")
        if register == 0:
            off = self.words[0] & 1
            self.ends = None if off else self.clock() + 0.0025 + self.MS.get(self.words[0] >> 6 & 0xF, 100) / 1000

    def get(self, register, length):
        self._advance()
        value = self.light if register == 4 else self.words.get(register, 0)
        return value.to_bytes(2, "little")[:length]


def _bme680_calibration():
    """A real chip's, from its owner's report (pimoroni/bme680-python, issue 11), in its registers (5.3.6)."""
    memory = bytearray(256)
    for register, value, size in (
        (0x8A, 26469, 2), (0x8C, 3, 1), (0x8E, 36673, 2), (0x90, -10515, 2), (0x92, 88, 1), (0x94, 7310, 2),
        (0x96, -129, 2), (0x98, 46, 1), (0x99, 30, 1), (0x9C, -3177, 2), (0x9E, -2379, 2), (0xA0, 30, 1),
        (0xE4, 0, 1), (0xE5, 45, 1), (0xE6, 20, 1), (0xE7, 120, 1), (0xE8, -100, 1), (0xE9, 26041, 2),
        (0xEB, -24754, 2), (0xED, -30, 1), (0xEE, 18, 1), (0x00, 48, 1),
    ):  # fmt: skip
        memory[register : register + size] = (value & (1 << 8 * size) - 1).to_bytes(size, "little")
    h1, h2 = 676, 1029
    memory[0xE1], memory[0xE2], memory[0xE3] = h2 >> 4, (h2 & 0xF) << 4 | h1 & 0xF, h1 >> 4
    memory[0x02] = 1 << 4
    return bytes(memory)


class Bme680(Registers):
    """Registers of one byte; a forced conversion takes its time, and the heater's, then new_data_0 is set (5.3.5)."""

    # Pressure, temperature, humidity, gas and its range, and what Bosch's integer arithmetic makes of them there.
    raw = (353485, 501240, 19019, 0, 0)
    later = (353000, 502000, 19200, 100, 1)
    values = {"Temperature": 26.69, "Pressure": 987.12, "Humidity": 42.402, "GasResistance": 12_946_860}
    heater_reaches_its_temperature = True

    def power_on(self):
        super().power_on()
        self.memory = bytearray(_bme680_calibration())
        self.memory[0xD0] = 0x61
        self.memory[0x1F:0x27] = b"\x80\x00\x00\x80\x00\x00\x80\x00"
        self.ends = None

    def write(self, message):
        self._advance()
        if message:
            self.pointer = message[0]
        for register, value in zip(message[0::2], message[1::2], strict=False):
            self.put(register, value)

    def put(self, register, value):
        if register == 0xE0 and value == 0xB6:
            self.power_on()
        elif 0x50 <= register <= 0x75:
            self.memory[register] = value
            if register == 0x74 and value & 3 == 1:
                self.conversions += 1
                self.ends = self.clock() + 0.04 + (0.15 if self.memory[0x71] & 0x30 else 0)

    def _advance(self):
        if self.ends is None or self.clock() < self.ends:
            return
        self.ends = None
        pressure, temperature, humidity, gas, gas_range = self.raw
        self.memory[0x74] &= 0xFC
        self.memory[0x1D] = 0x80
        self.memory[0x1F:0x22] = (pressure << 4).to_bytes(3)
        self.memory[0x22:0x25] = (temperature << 4).to_bytes(3)
        self.memory[0x25:0x27] = humidity.to_bytes(2)
        if self.memory[0x71] & 0x30:
            flags = 0x20 | (0x10 if self.heater_reaches_its_temperature else 0)
            self.memory[0x2A], self.memory[0x2B] = gas >> 2, (gas & 3) << 6 | flags | gas_range

    def get(self, register, length):
        self._advance()
        if self.ends is not None:
            self.memory[0x1D] = 0x20
        return bytes(self.memory[register : register + length])


class Sht31(Emulated):
    """Commands of two bytes (SHT3x-DIS, 4); 0x2400 takes 15 ms at most. For the fresh row of docs/drivers.md."""

    raw = (0x6666, 0x8000)
    values = {"Temperature": 25.0, "Humidity": 50.0}

    def power_on(self):
        self.reply, self.ready_at = None, 0.0

    def write(self, message):
        if message == b"\x24\x00":
            self.conversions += 1
            self.reply, self.ready_at = words(*self.raw), self.clock() + 0.015
        elif message in (b"\x30\x93", b"\x30\xa2"):
            self.reply = None
        elif message:
            raise _nack()

    def read(self, length):
        if self.reply is None or self.clock() < self.ready_at:
            raise _nack()
        reply, self.reply = self.reply, None
        return reply[:length].ljust(length, b"\xff")


CASE = json.loads((Path(__file__).parent / "data/bme280-bosch.json").read_text())[0]


def bmp280(clock=time.monotonic):
    """The register-level chip of drivers/chip.py, as the BMP280 that it also is."""
    chip = Chip(Image.of(CASE), chip_id=0x58, clock=clock)
    chip.raw, chip.later = bytes.fromhex(CASE["data_0xF7"]), bytes.fromhex("5a2a9079f6d07a3e")
    chip.source = lambda: chip.raw
    chip.values = {"Temperature": CASE["temperature_degC"], "Pressure": CASE["pressure_hPa"]}
    return chip


CHIPS = {
    "bmp280": (0x77, bmp280),
    "bme680": (0x76, Bme680),
    "sht4x": (0x44, Sht4x),
    "scd4x": (0x62, Scd4x),
    "aht20": (0x38, Aht20),
    "mcp9808": (0x18, Mcp9808),
    "veml7700": (0x10, Veml7700),
}


def shelf(clock=time.monotonic):
    """One of each, by its address."""
    return {address: make(clock) for address, make in CHIPS.values()}


ONE_WIRE = "72 01 4b 46 7f ff 0e 10 57 : crc=57 YES\n72 01 4b 46 7f ff 0e 10 57 t=23125\n"
