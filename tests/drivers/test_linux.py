"""The unmodified Linux stack (Blinka, PureIO, the kernel's interface) on a fake /dev/i2c-1."""

import errno
import json
import re
import subprocess
import sys
import time
from pathlib import Path

import pytest

from drivers.base import load
from drivers.chip import Chip, Image
from tests.amounts import first
from tests.fake_i2c_bus import FakeI2C, environment
from tests.shelf_chips import CHIPS, ONE_WIRE, Sht31, shelf

CASES = json.loads((Path(__file__).parents[1] / "data/bme280-bosch.json").read_text())
CASE = CASES[0]
READ = ["read", "--driver", "bme280", "--json"]
NEVER_IMPORTED = ("gpiod", "sysv_ipc", "pyftdi", "usb", "serial", "board", "RPi", "lgpio")
pytestmark = pytest.mark.umockdev

PI_CPUINFO = """processor\t: 0
model name\t: ARMv7 Processor rev 3 (v7l)
Hardware\t: BCM2711
Revision\t: c03111
Serial\t\t: 10000000deadbeef
Model\t\t: Raspberry Pi 4 Model B Rev 1.1
"""


@pytest.fixture
def bus():
    with FakeI2C({0x77: Chip(Image.of(CASE))}) as bus:
        yield bus


def agent(bus, *arguments, **more):
    command = [sys.executable, "-W", "error", "-m", "agent.cli", *arguments]
    return subprocess.run(
        command, env=environment(bus, **more), capture_output=True, text=True, timeout=60, check=False
    )


def assert_reads_the_case(result):
    assert (result.returncode, result.stderr) == (0, "")
    for line in result.stdout.splitlines():
        values = json.loads(line)
        assert values["Temperature"] == pytest.approx(CASE["temperature_degC"], abs=0.001)
        assert values["Pressure"] == pytest.approx(CASE["pressure_hPa"], abs=0.001)
        assert values["Humidity"] == pytest.approx(CASE["humidity_pctRH"], abs=0.001)


def test_a_bme280_is_found_and_read(bus):
    assert_reads_the_case(agent(bus, *READ, "--count", "3"))


def test_normal_mode_reads_as_well(bus):
    options = ["--option", "mode=normal", "--option", "standby=20ms", "--option", "oversampling=2"]
    assert_reads_the_case(agent(bus, *READ, "--count", "3", *options))


@pytest.mark.parametrize(
    ("number", "passing"),
    [
        (errno.EREMOTEIO, 2),  # setting up
        (errno.EIO, 9),
        (errno.ENXIO, 12),
        (errno.ETIMEDOUT, 20),  # reading
        (errno.EAGAIN, 21),
        (errno.EREMOTEIO, 27),
    ],
)
def test_a_failed_transfer_is_tried_again_within_the_reading(bus, number, passing):
    bus.fail = [0] * passing + [number]
    assert_reads_the_case(agent(bus, *READ, "--count", "2"))
    assert not bus.fail


@pytest.mark.parametrize(
    ("change", "option", "said"),
    [
        (lambda bus: bus.node.unlink(), "bus=1", "no I2C bus /dev/i2c-1: enable I2C"),
        (lambda _: None, "bus=7", "no I2C bus /dev/i2c-7: there is /dev/i2c-1"),
        (lambda bus: bus.chips.clear(), "bus=1", "BME280 not found on /dev/i2c-1 at 0x76 or 0x77: is it wired to SDA"),
        (
            lambda bus: bus.chips.clear(),
            "address=0x76",
            "nothing answers at 0x76 on /dev/i2c-1 (EREMOTEIO): check power",
        ),
        (lambda bus: setattr(bus, "slave_errno", errno.EBUSY), "bus=1", "in use (EBUSY): a kernel driver holds it"),
        (lambda bus: setattr(bus, "fail", [110] * 99), "bus=1", "hangs (ETIMEDOUT): something holds SDA or SCL low"),
        (
            lambda bus: setattr(bus, "fail", [0] * 9 + [5] * 99),
            "bus=1",
            "transfer with 0x77 on /dev/i2c-1 failed (EIO)",
        ),
        (lambda bus: setattr(bus.chips[0x77], "chip_id", 0x58), "bus=1", "is a BMP280 (chip id 0x58), often sold as"),
        (lambda bus: setattr(bus.chips[0x77], "chip_id", 0x61), "bus=1", "is a BME680 (chip id 0x61)"),
        (lambda bus: setattr(bus.chips[0x77], "chip_id", 0x00), "bus=1", "answers nothing but 0x00"),
    ],
)
def test_each_failure_says_where_and_what_to_do(bus, change, option, said):
    change(bus)
    result = agent(bus, *READ, "--option", option)
    assert result.returncode == 1
    assert said in result.stderr
    assert result.stderr.count("\n") == 1
    assert result.stdout == ""


AS_NOBODY = """
import os
from drivers.base import SensorError, load
from drivers.i2c import bus_library, registers_library
bus_library(), registers_library()
driver = load("bme280")()
os.setgroups([]); os.setgid(65534); os.setuid(65534)
try:
    driver.open()
except SensorError as error:
    print(type(error).__name__, error)
"""


@pytest.mark.root
def test_no_permission_names_the_group(bus):
    bus.node.chmod(0o600)
    command = [sys.executable, "-c", AS_NOBODY]
    result = subprocess.run(command, env=environment(bus), capture_output=True, text=True, timeout=60, check=False)
    assert result.stdout.startswith("NoPermission no permission to open /dev/i2c-1: add the user to the group i2c")


def test_a_bmp280_without_humidity_is_read_as_what_it_is(bus):
    bus.chips[0x77].chip_id = 0x58
    result = agent(bus, *READ, "--count", "1", "--option", "humidity=false")
    values = json.loads(result.stdout)
    assert set(values) == {"time", "Temperature", "Pressure"}
    assert values["Pressure"] == pytest.approx(CASE["pressure_hPa"], abs=0.001)


def test_scan_names_what_answers(bus, tmp_path):
    other = Chip(Image.of(CASE), chip_id=0x61)
    bus.chips |= {0x40: Chip(Image.of(CASE)), 0x76: other}
    result = agent(bus, "scan", "--config", str(tmp_path / "none.toml"))
    assert result.stdout.partition("\n\n")[0].splitlines() == [
        "/dev/i2c-1",
        "  0x40  something",
        "  0x76  BME680 (chip id 0x61)",
        "  0x77  BME280 (chip id 0x60)",
    ]
    assert json.loads(agent(bus, "scan", "--json").stdout)["answers"][2]["chip_id"] == 0x60


@pytest.mark.slow
def test_scan_names_every_sensor_of_the_shelf_and_its_tables_are_a_configuration(bus, tmp_path):
    bus.chips.clear()
    bus.chips |= {**shelf(), 0x45: Sht31()}
    bus.add_one_wire("28-0316a279c8ff", ONE_WIRE)
    result = agent(bus, "scan", "--config", str(tmp_path / "none.toml"))
    said, _, tables = result.stdout.partition("\n\nNot in agent.toml yet:\n\n")
    assert said.splitlines() == [
        "/dev/i2c-1",
        "  0x10  VEML7700",
        "  0x18  MCP9808",
        "  0x38  AHT20",
        "  0x44  SHT4x",
        "  0x45  something that does not answer as a SHT4x does",
        "  0x62  SCD4x",
        "  0x76  BME680 (chip id 0x61)",
        "  0x77  BMP280 (chip id 0x58)",
        "one-wire",
        "  28-0316a279c8ff  DS18B20",
    ]
    config = tmp_path / "agent.toml"
    config.write_text(tables + '\n[influxdb]\nurl = "http://x"\norg = "o"\nbucket = "b"\ntoken_file = "t"\n')
    assert agent(bus, "scan", "--config", str(config)).stdout == said + "\n"
    command = ("read", "--config", str(config), "--count", "1", "--json")
    readings = [json.loads(line) for line in agent(bus, *command).stdout.splitlines()]
    fields = {reading.pop("sensor"): set(reading) for reading in readings}
    measured = {name: set(load(name).row.fields) for name in CHIPS} | {"ds18b20": {"Temperature"}}
    assert fields == {name: {"time", *quantities} for name, quantities in measured.items()}


@pytest.mark.parametrize("name", first(len(CHIPS) - 1, *sorted(CHIPS, key="scd4x".__eq__)))  # which takes 11 s
def test_each_sensor_of_the_shelf_is_read_by_its_own_library_alone(bus, name):
    bus.chips.clear()
    address, make = CHIPS[name]
    bus.chips[address] = make()
    command = [sys.executable, "-W", "error", "-c", PROBE, "read", "--driver", name, "--json", "--count", "2"]
    result = subprocess.run(command, env=environment(bus), capture_output=True, text=True, timeout=60, check=False)
    code, modules = json.loads(result.stderr.splitlines()[-1])
    assert code == 0, result.stderr
    values = json.loads(result.stdout.splitlines()[-1])
    assert values.pop("time")
    assert values == pytest.approx(bus.chips[address].values, rel=5e-4)
    libraries = {load(other).row.library.partition(".")[0] for other in CHIPS} | {"adafruit_bme280"}
    imported = {module.partition(".")[0] for module in modules}
    assert imported & libraries == {load(name).row.library.partition(".")[0]}
    assert imported.isdisjoint(NEVER_IMPORTED)


def test_after_pulling_the_plug_and_back_reading_goes_on(bus):
    command = [sys.executable, "-m", "agent.cli", *READ]
    process = subprocess.Popen(command, env=environment(bus), stdout=subprocess.PIPE, stderr=subprocess.PIPE, text=True)
    try:
        assert json.loads(process.stdout.readline())
        chip = bus.chips.pop(0x77)
        while "trying" not in (said := process.stderr.readline()) and "failed" not in said:
            assert said
        chip.power_on()
        bus.chips[0x77] = chip
        for _ in range(20_000):
            line = process.stdout.readline()
            if chip.conversions > 100:
                break
        assert json.loads(line)["Temperature"] == pytest.approx(CASE["temperature_degC"], abs=0.001)
    finally:
        process.terminate()
        process.communicate(timeout=40)


@pytest.mark.parametrize("options", [[], ["--option", "oversampling=2"]])
def test_promise_4_two_processes_on_one_chip_do_not_spoil_each_others_readings(bus, options):
    commands = [[sys.executable, "-m", "agent.cli", *READ, "--count", "40", *more] for more in ([], options)]
    processes = [
        subprocess.Popen(command, env=environment(bus), stdout=subprocess.PIPE, stderr=subprocess.PIPE, text=True)
        for command in commands
    ]
    for process in processes:
        output, errors = process.communicate(timeout=60)
        assert_reads_the_case(subprocess.CompletedProcess([], process.returncode, output, errors))
        assert output.count("\n") == 40


HOLD = """
import sys
from drivers.i2c import ChipLock
with ChipLock(1, 0x77).held():
    print("held", flush=True)
    sys.stdin.read()
"""


@pytest.mark.slow
def test_a_process_that_stopped_in_the_middle_of_a_reading_is_named_as_the_cause(bus):
    holder = subprocess.Popen(
        [sys.executable, "-c", HOLD], env=environment(bus), stdin=subprocess.PIPE, stdout=subprocess.PIPE, text=True
    )
    try:
        assert holder.stdout.readline() == "held\n"
        result = agent(bus, *READ, "--option", "address=0x77")
        assert "another process keeps the chip at 0x77 on /dev/i2c-1" in result.stderr
    finally:
        holder.communicate("", timeout=20)
    assert_reads_the_case(agent(bus, *READ, "--count", "1"))


KEEP_FAILING = """
import gc, os
from drivers.base import SensorError, load
gc.disable()
driver, kept, counts = load("bme280")(), [], []
for _ in range(30):
    try:
        driver.open()
    except SensorError as error:
        kept.append(error)
    counts.append(len(os.listdir("/proc/self/fd")))
print(len(kept), counts[0] == counts[-1])
"""


@pytest.mark.parametrize("there", [False, True])
def test_a_sensor_that_keeps_failing_leaves_no_open_files(bus, there):
    if there:
        bus.chips[0x77].chip_id = 0x61
    else:
        bus.chips.clear()
    command = [sys.executable, "-c", KEEP_FAILING]
    result = subprocess.run(command, env=environment(bus), capture_output=True, text=True, timeout=60, check=False)
    assert result.stdout == "30 True\n", result.stderr


SAMPLE = """
import logging
import sys
from agent.sensing.sampler import Sampler
from agent.config.settings import SensorSettings
from agent.util.loops import LoopThread
from drivers.base import load
logging.basicConfig(level="INFO")
sampler = Sampler(SensorSettings(interval=0.1), load("bme280")(), lambda r: print(r.values["Temperature"], flush=True))
thread = LoopThread("sensor", sampler)
sys.stdin.readline()
thread.stop()
thread.join()
status = sampler.snapshot()
print(status.readings, status.missed, status.problem)
"""


def test_unplugged_and_plugged_in_again_only_the_readings_between_are_missed(bus):
    process = subprocess.Popen(
        [sys.executable, "-c", SAMPLE],
        env=environment(bus),
        stdin=subprocess.PIPE,
        stdout=subprocess.PIPE,
        stderr=subprocess.PIPE,
        text=True,
    )
    try:
        first = [float(process.stdout.readline()) for _ in range(3)]
        chip = bus.chips.pop(0x77)
        time.sleep(1)
        chip.power_on()
        bus.chips[0x77] = chip
        later = [float(process.stdout.readline()) for _ in range(10)]
        output, errors = process.communicate("\n", timeout=20)
    finally:
        process.kill()
    assert first + later == pytest.approx([CASE["temperature_degC"]] * 13, abs=0.001)
    readings, missed, problem = output.splitlines()[-1].split()
    assert int(readings) >= 13
    assert problem == "None"
    away_s, between = re.search(r"sensor bme280: reads again after ([\d.]+) s, (\d+) readings missed", errors).groups()
    assert 8 <= int(between) <= float(away_s) / 0.1 + 2
    assert int(missed) >= int(between)  # on a loaded machine others pass by as well


PROBE = """
import json, sys
from agent.cli import main
try:
    main(sys.argv[1:])
except SystemExit as end:
    print(json.dumps([end.code, sorted(sys.modules)]), file=sys.stderr)
"""


def modules_after_reading(bus, *before):
    command = [*before, sys.executable, "-W", "error", "-c", PROBE, *READ, "--count", "1"]
    result = subprocess.run(command, env=environment(bus), capture_output=True, text=True, timeout=60, check=False)
    code, modules = json.loads(result.stderr.splitlines()[-1])
    assert code == 0, result.stderr
    assert json.loads(result.stdout)["Temperature"] == pytest.approx(CASE["temperature_degC"], abs=0.001)
    return {name.partition(".")[0] for name in modules}


def test_reading_imports_no_gpio_library(bus):
    imported = modules_after_reading(bus)
    assert "adafruit_bme280" in imported
    assert imported.isdisjoint(NEVER_IMPORTED)


@pytest.mark.root
def test_on_a_raspberry_pi_it_reads_the_same_without_gpio_libraries(bus, tmp_path):
    cpuinfo = tmp_path / "cpuinfo"
    cpuinfo.write_text(PI_CPUINFO)
    script = 'mount --bind "$0" /proc/cpuinfo || exit 99; exec "$@"'
    try_mount = [
        "unshare",
        "--mount",
        "sh",
        "-c",
        script,
        str(cpuinfo),
        "grep",
        "-q",
        "Raspberry Pi 4",
        "/proc/cpuinfo",
    ]
    if subprocess.run(try_mount, capture_output=True, check=False).returncode != 0:
        pytest.skip("no mount namespaces here: run in a privileged container")
    imported = modules_after_reading(bus, "unshare", "--mount", "sh", "-c", script, str(cpuinfo))
    assert imported.isdisjoint(NEVER_IMPORTED)
