"""Promise 4 against bit errors: I2C has no checksum, so whatever arrives flipped must not become a value.

`python -m tests.drivers.test_bit_errors 10000` makes the trial with so many flips and prints what became of them.
"""

import random
import sys
from collections import Counter

import pytest

from drivers import bme280_registers as r
from drivers.base import SensorError, Transient, WrongChip, boot_ns
from drivers.chip import Chip
from tests.bme280_bench import IMAGES, ROOM, Bench
from tests.drivers.test_faults import outcome

NOISE = {
    "Temperature": 0.02,
    "Humidity": 0.28,
    "Pressure": 0.14,
}  # four times the standard deviation, datasheet table 1
INTERVAL_S = 10.0


class Air:
    """Data registers of a room that drifts, with the chip's noise; remembers each conversion."""

    def __init__(self, seed):
        self.random = random.Random(seed)
        self.made = []

    def __call__(self):
        pressure, temperature = int.from_bytes(ROOM.data[0:3]), int.from_bytes(ROOM.data[3:6])
        steps = [round(self.random.gauss(0, 1)) + len(self.made) % 500 for _ in range(3)]
        humidity = int.from_bytes(ROOM.data[6:8]) + steps[2]
        data = (pressure + 256 * steps[0]).to_bytes(3) + (temperature + 256 * steps[1]).to_bytes(3)
        self.made.append(data + humidity.to_bytes(2))
        return self.made[-1]


def truth(bench, raw):
    return bench.driver._conversions._compensation.judged(raw, 0).values


def trial(mode, flips, seed=17):
    """One flipped bit in the data registers of each of so many readings, 10 s apart: what became of them.

    `wrong`: delivered more than the chip's noise beside the truth; `untrue`: from data that no conversion gave;
    `refused`: an error; `again`: read more than twice; `plain`: read as if nothing were.
    """
    counts = Counter(wrong=0, untrue=0, refused=0, again=0, plain=0)
    with pytest.MonkeyPatch.context() as patch:
        air = Air(seed)
        bench = Bench(patch, mode=mode, source=air).opened()
        first = {"forced": 6, "normal": 1}[mode]  # the transfer that reads the first burst
        for _ in range(flips):
            bench.time.now += INTERVAL_S
            bench.bus.transfers, bench.bus.log = 0, []
            bench.bus.flips = {first + 2 * air.random.randrange(2): air.random.randrange(64)}
            before = len(air.made)
            try:
                reading = bench.driver.read()
            except SensorError:
                counts["refused"] += 1
                continue
            bursts = bench.bus.log.count(("read", 8))
            counts["again" if bursts > 2 else "plain"] += 1
            true = truth(bench, air.made[-1])
            fresh = air.made[before:] if mode == "forced" else air.made[before - 1 :]
            far = [name for name, value in reading.values.items() if abs(value - true[name]) > NOISE[name]]
            counts["wrong"] += bool(far) or len(reading.values) != 3
            counts["untrue"] += reading.raw not in fresh
    return counts


@pytest.mark.parametrize("mode", ["forced", "normal"])
def test_promise_4_one_flipped_bit_in_the_data_never_is_a_value(mode):
    counts = trial(mode, 300)
    assert counts["wrong"] == counts["untrue"] == 0
    assert counts["again"] == 300  # and none is lost: it is read again
    assert counts["plain"] == counts["refused"] == 0


@pytest.mark.slow
@pytest.mark.parametrize("mode", ["forced", "normal"])
def test_promise_4_ten_thousand_flipped_bits(mode):
    counts = trial(mode, 10_000)
    assert counts["wrong"] == counts["untrue"] == 0


@pytest.mark.parametrize("mode", ["forced", "normal"])
@pytest.mark.parametrize("filtered", [0, 16])
def test_promise_4_one_flipped_bit_at_any_transfer_never_is_a_value(mode, filtered):
    """Registers' numbers, settings, states, calibration, the address on the bus: read or written."""
    dice = random.Random(f"{mode} {filtered}")
    for number in range(60):
        for flip in ["address", *dice.sample(range(8 * 26), 4)]:
            with pytest.MonkeyPatch.context() as patch:
                assert_no_wrong_value(patch, number, flip, mode=mode, iir_filter=filtered, standby="62.5ms")


def assert_no_wrong_value(patch, number, flip, **options):
    """Another BME280 is on the bus, warmer and with another calibration: what it says is wrong as well."""
    air = Air(number)
    bench = Bench(patch, source=air, address=0x77, **options)
    other = Chip(IMAGES[5], clock=bench.time.clock)
    other.write_register_byte(r.CTRL_MEAS, 0x27)
    bench.bus.chips[0x76] = other
    bench.bus.flips = {number: flip}
    _, error = outcome(bench.driver.open)
    if error is not None:
        assert error.remedy
        bench.driver.open()
    for _ in range(3):
        bench.time.now += INTERVAL_S
        before, earliest = len(air.made), boot_ns()
        reading, error = outcome(bench.driver.read)
        if reading is None:
            assert error.remedy
            continue
        fresh = air.made[before:] if options["mode"] == "forced" else air.made[max(0, before - 1) :]
        assert reading.raw in fresh, (number, flip)
        assert reading.boot_ns >= earliest
        assert reading.values == pytest.approx(as_calibrated(reading.raw)), (number, flip)
    bench.driver.close()


def as_calibrated(raw):
    from drivers.bme280_compensation import Compensation

    return Compensation("chip", ROOM.calibration + ROOM.calibration_humidity).judged(raw, 0).values


def test_promise_4_a_conversion_that_was_never_asked_for_gives_no_stale_values(monkeypatch):
    air = Air(1)
    bench = Bench(monkeypatch, source=air).opened()
    first = bench.driver.read()
    bench.bus.transfers, bench.bus.flips = 0, {0: 8}  # FORCED arrives as SLEEP
    second = bench.driver.read()
    assert second.raw == air.made[-1] != first.raw


@pytest.mark.parametrize("bit", [8 + 3, 16])
def test_promise_4_a_state_that_arrives_flipped_ends_no_conversion(monkeypatch, bit):
    """A chip slower than the datasheet, whose status or mode says "done" once: the old values are still there."""
    air = Air(2)
    bench = Bench(monkeypatch, source=air).opened()
    first = bench.driver.read()
    monkeypatch.setattr("drivers.bme280_registers.conversion_s", lambda *_, **__: 0.03)
    bench.bus.transfers, bench.bus.flips = 0, {4: bit}
    second = bench.driver.read()
    assert second.raw == air.made[-1] != first.raw
    assert (r.RESET, r.RESET_WORD) not in bench.chip.written  # it was waited for


def test_promise_4_a_chip_that_somebody_put_to_sleep_gives_no_stale_values(monkeypatch):
    air = Air(3)
    bench = Bench(monkeypatch, mode="normal", source=air).opened()
    bench.driver.read()
    bench.chip.write_register_byte(r.CTRL_MEAS, 0x24)
    bench.time.now += INTERVAL_S
    before = len(air.made)
    assert bench.driver.read().raw in air.made[before:]


@pytest.mark.parametrize("humidity", [True, False])
def test_promise_4_a_chip_swapped_between_two_readings_is_read_with_its_own_calibration(monkeypatch, humidity):
    """In forced mode, unfiltered: but for one that never counts there, every setting is written again or 0."""
    bench = Bench(monkeypatch, humidity=humidity).opened()
    bench.driver.read()
    bench.chip.power_on(IMAGES[5])
    expected = {name: value for name, value in computed(IMAGES[5]).items() if humidity or name != "Humidity"}
    assert bench.driver.read().values == pytest.approx(expected)


@pytest.mark.parametrize(("chip_id", "bit"), [(0x60, 0), (0x60, 3), (0x61, 0)])
def test_a_chip_id_that_arrives_flipped_takes_no_chip_for_another(monkeypatch, chip_id, bit):
    bench = Bench(monkeypatch)
    bench.chip.chip_id = chip_id
    bench.bus.chips = {0x76: bench.chip, 0x77: bench.another_chip()}
    bench.bus.flips = {2: bit}  # the first look at the first address
    bench.driver.open()
    assert ("0x76" in bench.driver.describe()) == (chip_id == 0x60)


@pytest.mark.parametrize("calls", range(1, 13))
def test_promise_4_a_calibration_byte_that_arrives_flipped_is_read_again(monkeypatch, calls):
    """The bits of one part of the calibration, at one of the two times that it is read."""
    bench = Bench(monkeypatch)
    reads = []
    readfrom = bench.bus.readfrom_into

    def flipping(address, buffer, *, start=0, end=None):
        size = (len(buffer) if end is None else end) - start
        reads.append(size)
        if size in (r.CALIBRATION_SIZE, r.CALIBRATION_HUMIDITY_SIZE) and len(reads) % 13 == calls:
            bench.bus.flips[bench.bus.transfers] = 3 * calls
        readfrom(address, buffer, start=start, end=end)

    bench.bus.readfrom_into = flipping
    bench.driver.open()
    assert bench.driver.read().values == pytest.approx(as_calibrated(ROOM.data))


@pytest.mark.parametrize("humidity", [True, False])
@pytest.mark.parametrize("bit", range(8))
def test_promise_4_a_register_s_number_that_arrives_bent_each_time_gives_no_calibration(monkeypatch, bit, humidity):
    """Both readings of the calibration would agree on what stands beside it."""
    bench = Bench(monkeypatch, humidity=humidity)
    write = bench.chip.write

    def bent(message):
        if message in (b"\x88", b"\x77", b"\xe1", b"\xde"):
            message = bytes([message[0] ^ 1 << bit])
        write(message)

    bench.chip.write = bent
    with pytest.raises(SensorError):
        bench.driver.open()


def swapped(others):
    """Another chip at every transfer of the set-up and the first reading: how many were tried, and how many wrong."""
    tried = wrong = 0
    for mode in ("forced", "normal"):
        for number in range(44):
            for other in others:
                with pytest.MonkeyPatch.context() as patch:
                    bench = Bench(patch, mode=mode)
                    bench.bus.faults = {number: lambda bench=bench, other=other: bench.chip.power_on(other)}
                    bench.driver.open()
                    values = bench.driver.read().values
                    tried += 1
                    wrong += values != pytest.approx(computed(bench.chip.image))
                    bench.driver.close()
    return tried, wrong


def test_promise_4_a_chip_swapped_while_it_is_set_up_is_not_read_with_the_old_calibration():
    assert swapped(IMAGES[5:7]) == (176, 0)


def computed(image):
    from drivers.bme280_compensation import Compensation

    return Compensation("chip", image.calibration + image.calibration_humidity).judged(image.data, 0).values


def test_where_no_two_bursts_agree_it_is_an_error_in_bounded_time(monkeypatch):
    bench = Bench(monkeypatch).opened()
    bench.bus.flips = {number: number for number in range(2000) if number % 2 == 0}
    with pytest.raises(SensorError) as caught:
        bench.driver.read()
    assert "on /dev/i2c-1" in str(caught.value)
    bench.driver.close()
    bench = Bench(monkeypatch).opened()
    bench.bus.flips = {6 + 2 * n: n for n in range(r.AT_MOST)}
    monkeypatch.setattr("drivers.bme280.ATTEMPTS", 1)
    with pytest.raises(Transient, match="another answer each time"):
        bench.driver.read()
    assert bench.bus.log.count(("read", 8)) == r.AT_MOST


@pytest.mark.parametrize("line", [0x00, 0xFF])
@pytest.mark.parametrize("since", range(11))
def test_promise_4_lines_stuck_low_or_high_give_an_error_whenever_that_begins(monkeypatch, line, since):
    bench = Bench(monkeypatch)
    if since:
        bench.opened()
    read = bench.chip.read
    bench.chip.read = lambda length: bytes([line]) * length if bench.bus.transfers > since else read(length)
    with pytest.raises((SensorError, WrongChip)) as caught:
        bench.driver.read() if since else bench.driver.open()
    assert caught.value.remedy


if __name__ == "__main__":
    tried, wrong = swapped(IMAGES[5:14])
    print(f"a chip swapped while it is set up or first read: {tried} times, {wrong} wrong")
    flips = int(sys.argv[1])
    for mode in ("forced", "normal"):
        found = trial(mode, flips)
        print(f"{mode}: {flips} readings with a flipped bit, {dict(found)}")
