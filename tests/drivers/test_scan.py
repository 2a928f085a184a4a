"""What answers on a bus, and what it is taken for."""

import errno
from types import SimpleNamespace

import pytest

import drivers.i2c
import drivers.scan
from drivers.i2c import NoBus
from drivers.scan import FIRST, LAST, FoundChip, Sensor, known, one_wire, scan_bus, scan_buses, to_install
from tests.bme280_bench import ROOM
from tests.fake_blinka import FakeBus, FakeTime, connect
from tests.shelf_chips import CHIPS, Chip, Sht31, shelf


class Nothing:
    """Acknowledges and answers zeros, as a bus does whose SDA is held low."""

    def write(self, message):
        pass

    def read(self, length):
        return bytes(length)


@pytest.fixture
def bus(monkeypatch):
    time = FakeTime()
    bus = FakeBus({}, time)
    connect(monkeypatch, bus)
    monkeypatch.setattr(drivers.i2c, "time", SimpleNamespace(sleep=time.sleep, monotonic=time.clock))
    return bus


def test_five_chips_are_named_with_the_driver_that_reads_each(bus):
    bus.chips = {a: c for a, c in shelf(bus.time.clock).items() if a in (0x10, 0x38, 0x44, 0x62)}
    bus.chips[0x76] = Chip(ROOM, clock=bus.time.clock)
    found = scan_bus(1)
    assert [(chip.address, chip.driver) for chip in found.answers] == [
        (0x10, "veml7700"),
        (0x38, "aht20"),
        (0x44, "sht4x"),
        (0x62, "scd4x"),
        (0x76, "bme280"),
    ]
    assert known([found])[0].table("light") == (
        '[[sensor]]\nname = "light"\ndriver = "veml7700"\nbus = 1\naddress = 0x10\n'
    )
    assert bus.opened == bus.closed


@pytest.mark.parametrize("name", CHIPS)
def test_each_of_the_table_is_known_by_what_it_answers(bus, name):
    address, make = CHIPS[name]
    bus.chips = {address: make(bus.time.clock)}
    (chip,) = scan_bus(1).answers
    assert chip.driver == name


@pytest.mark.parametrize("name", CHIPS)
def test_another_chip_at_its_address_is_not_taken_for_it(bus, name):
    address = CHIPS[name][0]
    for other in (Nothing(), Sht31(bus.time.clock)):
        bus.chips = {address: other}
        (chip,) = scan_bus(1).answers
        assert chip.driver is None
        assert "does not answer as" in chip.text() or "an unknown chip" in chip.text() or "failed" in chip.text()


def test_an_scd4x_at_work_is_known_and_goes_on(bus):
    chip = CHIPS["scd4x"][1](bus.time.clock)
    chip.write(b"\x21\xb1")
    bus.chips = {0x62: chip}
    assert scan_bus(1).answers == (FoundChip(0x62, "SCD4x", driver="scd4x"),)
    assert chip.since is not None


def test_a_bus_on_which_every_address_answers_is_faulty_and_not_full_of_chips(bus):
    bus.chips = {address: Nothing() for address in range(FIRST, LAST + 1)}
    found = scan_bus(1)
    assert found.answers == ()
    assert found.text().splitlines()[1].startswith("  faulty: every address answers, so SDA is held low")
    assert len(found.text().splitlines()) == 2


def test_an_empty_bus_one_that_hangs_and_none(bus, monkeypatch):
    assert scan_bus(1).text() == "/dev/i2c-1\n  nothing answers: check power and the wires to SDA and SCL"
    bus.transfers, bus.faults = 0, dict.fromkeys(range(4), errno.ETIMEDOUT)
    assert "hangs (ETIMEDOUT)" in scan_bus(1).text()
    monkeypatch.setattr(drivers.scan, "buses", list)
    with pytest.raises(NoBus, match="no I2C bus on this machine"):
        scan_buses()


def test_what_is_on_one_wire(tmp_path):
    for name in ("28-0316a279c8ff", "28-0316a279c900", "w1_bus_master1"):
        (tmp_path / name).mkdir()
    assert [sensor.id for sensor in one_wire(tmp_path)] == ["28-0316a279c8ff", "28-0316a279c900"]
    assert one_wire(tmp_path / "none") == []
    assert (
        one_wire(tmp_path)[0].table("pond") == '[[sensor]]\nname = "pond"\ndriver = "ds18b20"\nid = "28-0316a279c8ff"\n'
    )


def test_the_extras_of_what_is_not_installed(monkeypatch):
    monkeypatch.setattr(drivers.scan, "find_spec", lambda name: None if name == "adafruit_scd4x" else name)
    sensors = [
        Sensor("scd4x", 1, 0x62),
        Sensor("sht4x", 1, 0x44),
        Sensor("bme280", 1, 0x76),
        Sensor("ds18b20", id="28-1"),
    ]
    assert to_install(sensors) == ["scd4x"]
