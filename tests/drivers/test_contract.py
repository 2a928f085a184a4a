"""Every built-in driver, and the documented example installed as a plugin, keep the contract; and so does the table."""

import json
import re
import subprocess
import sys
import tomllib
from dataclasses import dataclass, fields
from pathlib import Path

import pytest

from drivers import adafruit_table
from drivers.base import (
    QUANTITIES,
    Driver,
    OptionError,
    Reading,
    SensorError,
    available,
    boot_ns,
    load,
    option,
    options_for,
)
from drivers.bme280 import Bme280
from drivers.chip import Chip
from tests.bme280_bench import ROOM
from tests.driver_conformance import check
from tests.fake_blinka import FakeBus, FakeTime, connect
from tests.shelf_bench import Shelf
from tests.shelf_chips import Sht31

ROOT = Path(__file__).parents[2]
DOCUMENT = ROOT / "docs/drivers.md"
IMAGES = Path(__file__).parents[1] / "data/bme280-bosch.json"


@pytest.fixture
def on_a_bus(monkeypatch):
    time = FakeTime()
    connect(monkeypatch, FakeBus({0x76: Chip(ROOM, clock=time.clock)}, time))
    return lambda **options: Bme280(options_for(Bme280, options), clock=time.clock, sleep=time.sleep)


@pytest.mark.parametrize("options", [{}, {"mode": "normal", "iir_filter": 4}, {"humidity": False}])
def test_bme280_keeps_the_contract(on_a_bus, options):
    check(Bme280, lambda: on_a_bus(**options))


@pytest.mark.parametrize(
    ("name", "options"),
    [
        ("virtual", {}),
        ("virtual", {"seed": 7, "time": "2026-01-01T00:00:00Z"}),
        ("emulated", {}),
        ("emulated", {"image": str(IMAGES)}),
    ],
)
def test_built_in_drivers_keep_the_contract(name, options):
    kind = load(name)
    check(kind, lambda: kind(options_for(kind, options)))


@pytest.mark.parametrize("broken", ["closed", "stale", "unknown field", "integer", "no default"])
def test_the_suite_notices_what_breaks_the_contract(broken):
    @dataclass(frozen=True)
    class Options:
        pass

    class Broken(Driver):
        sensor = "broken"

        def open(self):
            self.is_open = True

        def close(self):
            self.is_open = False

        def read(self):
            if not getattr(self, "is_open", False) and broken != "closed":
                raise SensorError("not open")
            values = {"unknown field": {"Warmth": 1.0}, "integer": {"Temperature": 1}}.get(broken, {"Temperature": 1.0})
            return Reading(values, 1 if broken == "stale" else boot_ns())

    Broken.Options = Options
    if broken == "no default":
        Broken.Options = dataclass(frozen=True)(type("Options", (), {"__annotations__": {"pin": "int"}}))
    with pytest.raises((AssertionError, KeyError, TypeError)):
        check(Broken, Broken)


def test_a_quantity_has_a_range_a_unit_and_a_type():
    for field, quantity in QUANTITIES.items():
        assert field == quantity.field
        assert quantity.low < quantity.high
        assert quantity.unit
        assert (quantity.decimals == 0) == (quantity.kind == "integer")


def test_an_unknown_driver_names_the_installed_ones_and_the_nearest():
    with pytest.raises(OptionError, match=r"no driver 'bme28'; installed are .*bme280.*; did you mean 'bme280'\?"):
        load("bme28")
    assert {"bme280", "emulated", "virtual"} <= set(available())


# Options of any driver


@dataclass(frozen=True, slots=True)
class Sample:
    pin: int = option(4, low=0, high=27)
    gain: float = 1.0
    label: str = ""
    on: bool = True
    limit: float | None = None
    scale: int = option(1, low=1)


class Sampled(Driver):
    sensor = "sample"
    Options = Sample
    open = close = lambda _: None

    def read(self):
        return Reading({"Temperature": 1.0}, boot_ns())


@pytest.mark.parametrize(
    ("written", "meant"),
    [
        ({"pin": 5}, Sample(pin=5)),
        ({"pin": "0x1B"}, Sample(pin=27)),
        ({"gain": 2}, Sample(gain=2.0)),
        ({"gain": "2.5"}, Sample(gain=2.5)),
        ({"label": "5"}, Sample(label="5")),
        ({"on": "off"}, Sample(on=False)),
        ({"on": False}, Sample(on=False)),
        ({"limit": 3}, Sample(limit=3.0)),
        ({"limit": "3"}, Sample(limit=3.0)),
    ],
)
def test_options_are_taken_as_they_are_meant(written, meant):
    assert options_for(Sampled, written) == meant
    assert all(type(getattr(options_for(Sampled, written), k)) is type(getattr(meant, k)) for k in written)


@pytest.mark.parametrize(
    ("written", "said"),
    [
        ({"pin": 28}, "option 'pin' is 28: allowed is a whole number from 0 to 27"),
        ({"pin": 1.5}, "option 'pin' is 1.5: allowed is a whole number from 0 to 27"),
        ({"pin": "4.0"}, "option 'pin' is '4.0': allowed is a whole number"),
        ({"scale": 0}, "option 'scale' is 0: allowed is a whole number of at least 1"),
        ({"gain": "nan"}, "option 'gain' is nan: allowed is a number"),
        ({"gain": True}, "option 'gain' is True: allowed is a number"),
        ({"label": 5}, "option 'label' is 5: allowed is a text"),
        ({"label": {"a": 1}}, "option 'label' is"),
        ({"on": 1}, "option 'on' is 1: allowed is true or false"),
        ({"label.x": "1", "label": "2"}, "label"),
        ({"pins": 1}, "no option 'pins': options are pin, gain, label, on, limit, scale; did you mean 'pin'?"),
    ],
)
def test_a_wrong_option_is_named_with_what_is_allowed(written, said):
    with pytest.raises(OptionError) as caught:
        options_for(Sampled, written)
    assert said in str(caught.value)
    assert caught.value.key == next(iter(written)).partition(".")[0]


@pytest.mark.parametrize("name", ["bme280", "virtual", "emulated", "ds18b20", "bme680", "adafruit"])
def test_agent_toml_example_shows_every_option_with_its_default(name):
    text = (ROOT / "agent" / "agent.toml.example").read_text().partition("\n[[sensor]]\n")[2].partition("\n[")[0]
    shown = dict(re.findall(r"(?m)^# +([a-z_]+) = (.*)$", text))
    kind = load(name)
    needed = {"class": "adafruit_sht31d.SHT31D", "fields": {"Humidity": "x"}} if name == "adafruit" else {}
    for item in fields(kind.Options):
        key = item.name.removesuffix("_")
        value = tomllib.loads(f"x = {shown[key]}")["x"]
        structured = getattr(options_for(kind, {**needed, key: value}), item.name)
        if key not in {"offset", "altitude", "oversampling", *needed}:  # none, unless given
            assert structured == getattr(kind.Options(), item.name), key


# The example of docs/drivers.md


def example():
    """The Python module and the pyproject.toml of the section "Your own driver"."""
    section = DOCUMENT.read_text().partition("## Your own driver\n")[2].partition("\n## ")[0]
    blocks = dict(re.findall(r"```(python|toml)\n(.*?)```", section, re.DOTALL))
    return blocks["python"], blocks["toml"]


@pytest.fixture
def plugin(tmp_path):
    """The example as an installed distribution: a folder to put on PYTHONPATH, and the folder of its sensor."""
    module, project = example()
    declared = tomllib.loads(project)["project"]
    site = tmp_path / "site"
    info = site / f"{declared['name'].replace('-', '_')}-{declared['version']}.dist-info"
    info.mkdir(parents=True)
    (site / "dht22.py").write_text(module)
    (info / "METADATA").write_text(f"Metadata-Version: 2.1\nName: {declared['name']}\nVersion: {declared['version']}\n")
    lines = [f"{name} = {place}" for name, place in declared["entry-points"]["iot_agent.drivers"].items()]
    (info / "entry_points.txt").write_text("\n".join(["[iot_agent.drivers]", *lines, ""]))
    sensor = tmp_path / "devices/iio:device0"
    sensor.mkdir(parents=True)
    for name, text in (("name", "dht11@4"), ("in_temp_input", "23100"), ("in_humidityrelative_input", "41500")):
        (sensor / name).write_text(f"{text}\n")
    return site, sensor


def run(site, *arguments):
    import os

    path = os.pathsep.join([str(site), str(ROOT)])
    command = [sys.executable, "-W", "error", "-m", *arguments]
    env = {**os.environ, "PYTHONPATH": path}
    return subprocess.run(command, env=env, capture_output=True, text=True, timeout=60, check=False)


def test_the_documented_driver_is_under_40_lines():
    assert len(example()[0].splitlines()) < 40


def test_the_documented_driver_keeps_the_contract_as_an_installed_plugin(plugin):
    site, sensor = plugin
    result = run(site, "tests.driver_conformance", "dht22", f"folder={sensor.parent}")
    assert (result.returncode, result.stderr) == (0, "")
    assert "keeps the contract" in result.stdout


def test_the_documented_driver_is_read_by_its_name(plugin):
    site, sensor = plugin
    command = ["agent.cli", "read", "--driver", "dht22", "--count", "1", "--json"]
    result = run(site, *command, "--option", f"folder={sensor.parent}")
    found = json.loads(result.stdout)
    assert found.pop("time")
    assert found == {"Temperature": 23.1, "Humidity": 41.5}
    assert "no option 'fold'" in run(site, *command, "--option", "fold=x").stderr


@pytest.mark.parametrize(
    ("text", "said"),
    [(None, "dtoverlay=dht11"), ("", "check its wires"), ("x\n", "check its wires")],
)
def test_promise_4_the_documented_driver_reports_nothing_that_was_not_measured(plugin, text, said):
    site, sensor = plugin
    (sensor / "name").unlink() if text is None else (sensor / "in_temp_input").write_text(text)
    command = ["agent.cli", "read", "--driver", "dht22", "--count", "1", "--json"]
    result = run(site, *command, "--option", f"folder={sensor.parent}")
    assert result.returncode == 1
    assert result.stdout == ""
    assert said in result.stderr
    assert "Traceback" not in result.stderr


# The fresh row of docs/drivers.md


def test_the_documented_row_is_under_15_lines_and_its_sensor_keeps_the_contract(monkeypatch):
    section = DOCUMENT.read_text().partition("### A row of the table\n")[2].partition("\n## ")[0]
    (text,) = re.findall(r"```python\n(.*?)```", section, re.DOTALL)
    assert len(text.splitlines()) < 15
    names = vars(adafruit_table).copy()
    exec(text, names)
    bench = Shelf(monkeypatch, "sht31", kind=names["Sht31"], chip=Sht31, address=0x45)

    def make():
        return names["Sht31"](clock=bench.time.clock, sleep=bench.time.sleep)

    check(names["Sht31"], make)
    with make() as driver:
        before = bench.chip.conversions
        assert driver.read().values == pytest.approx(Sht31.values, abs=0.01)
    assert bench.chip.conversions == before + 1
