"""The DS18B20 over what the kernel's w1_therm shows."""

import pytest

from drivers.base import NotFound, NotReady, OptionError, SensorError, Transient, WrongChip, options_for
from drivers.ds18b20 import Ds18b20, crc8
from tests.driver_conformance import check
from tests.shelf_chips import ONE_WIRE

SENSOR = "28-0316a279c8ff"


@pytest.fixture
def bus(tmp_path):
    folder = tmp_path / "devices"
    add(folder, SENSOR)
    return folder


def add(folder, sensor, text=ONE_WIRE):
    (folder / sensor).mkdir(parents=True)
    (folder / sensor / "w1_slave").write_text(text)


def driver(bus, **options):
    return Ds18b20(options_for(Ds18b20, {"folder": str(bus), **options}))


def shown(scratchpad, millidegrees, word="YES"):
    """As the kernel writes it, with the scratchpad's own CRC."""
    whole = bytes.fromhex(scratchpad)
    text = (whole + bytes([crc8(whole)])).hex(" ")
    return f"{text} : crc={crc8(whole):02x} {word}\n{text} t={millidegrees}\n"


def test_it_keeps_the_contract(bus):
    check(Ds18b20, lambda: driver(bus))


@pytest.mark.parametrize(
    ("text", "celsius"),
    [
        (ONE_WIRE, 23.125),
        (shown("50 05 4b 46 7f ff 10 10", 85000), 85.0),  # truly so hot: byte 6 is what a conversion leaves
        (shown("c0 fe 4b 46 1f ff 10 10", -20000), -20.0),
        (shown("00 00 4b 46 7f ff 10 10", 0), 0.0),
    ],
)
def test_it_reads_what_the_kernel_shows(bus, text, celsius):
    (bus / SENSOR / "w1_slave").write_text(text)
    with driver(bus) as sensor:
        reading = sensor.read()
    assert reading.values == {"Temperature": celsius}


@pytest.mark.parametrize(
    ("text", "kind", "said"),
    [
        (shown("72 01 4b 46 7f ff 0e 10", 23125, "NO"), Transient, "check its wires and the 4.7 kΩ resistor"),
        ("", Transient, "transfer"),
        (ONE_WIRE[:60], Transient, "transfer"),
        (ONE_WIRE.replace("72 01", "73 01"), Transient, "transfer"),  # the kernel's word is not taken for it
        (shown("00 00 00 00 00 00 00 00", 0), Transient, "answers what no DS18B20 does"),  # a shorted wire
        (shown("50 01 55 05 7f 7e 81 66", 21000), WrongChip, "is a counterfeit"),  # families D of cpetrich's list
        (shown("50 05 4b 46 7f ff 0c 10", 85000), NotReady, "its value before it has measured"),
    ],
)
def test_promise_4_what_was_not_measured_is_an_error(bus, text, kind, said):
    with driver(bus) as sensor:
        (bus / SENSOR / "w1_slave").write_text(text)
        with pytest.raises(kind, match=said):
            sensor.read()


def test_promise_4_no_flipped_bit_becomes_a_value(bus):
    file = bus / SENSOR / "w1_slave"
    right = bytes.fromhex("72014b467fff0e1057")
    with driver(bus) as sensor:
        for bit in range(72):
            wrong = bytearray(right)
            wrong[bit // 8] ^= 1 << bit % 8
            text = wrong.hex(" ")
            file.write_text(f"{text} : crc={wrong[8]:02x} YES\n{text} t=23125\n")
            with pytest.raises(SensorError):
                sensor.read()


def test_a_failed_transfer_is_tried_again(bus, monkeypatch):
    texts = ["", "", ONE_WIRE]
    with driver(bus) as sensor:
        monkeypatch.setattr("pathlib.Path.read_text", lambda *_, **__: texts.pop(0))
        assert sensor.read().values == {"Temperature": 23.125}


def test_what_is_not_there_is_named_with_what_helps(bus, tmp_path):
    with pytest.raises(NotFound, match="enable one-wire with `sudo raspi-config nonint do_onewire 0`"):
        driver(tmp_path / "none").open()
    with pytest.raises(NotFound, match=f"no DS18B20 28-1 on the one-wire bus: there are {SENSOR}"):
        driver(bus, id="28-1").open()
    with driver(bus) as sensor:
        (bus / SENSOR / "w1_slave").unlink()
        with pytest.raises(NotFound, match=f"DS18B20 {SENSOR} is gone"):
            sensor.read()


def test_of_several_each_is_read_by_its_id(bus):
    add(bus, "28-0316a279c900", shown("72 02 4b 46 7f ff 0e 10", 39125))
    with pytest.raises(NotFound, match=r"2 sensors are 28-\*: 28-0316a279c8ff, 28-0316a279c900: give each its id"):
        driver(bus).open()
    with driver(bus, id="28-0316a279c900") as sensor:
        assert sensor.read().values == {"Temperature": 39.125}
        assert sensor.describe() == "DS18B20 28-0316a279c900"


def test_an_id_is_a_text():
    with pytest.raises(OptionError, match="option 'id'"):
        options_for(Ds18b20, {"id": 28})
