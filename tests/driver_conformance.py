"""What every driver keeps to. `python -m tests.driver_conformance NAME [key=value …]` runs an installed one through it.

check(kind, make) takes the class and a function that makes a driver whose sensor is there.
"""

from __future__ import annotations

import math
import sys
from dataclasses import MISSING, fields, is_dataclass

from agent.points.schema import check_tag, line_for
from drivers.base import QUANTITIES, Driver, OptionError, Reading, SensorError, boot_ns, load, options_for


def check(kind, make):
    for rule in (
        options_are_a_frozen_record_with_defaults,
        a_wrong_option_is_named,
        nothing_is_touched_before_open,
        reading_a_closed_sensor_is_an_error,
        readings_are_fresh_values_of_the_data_model,
        it_closes_twice_and_opens_again,
    ):
        rule(kind, make)


def raised(kind, call):
    """What the error says that the call ends in, or None."""
    try:
        call()
    except kind as error:
        return str(error)
    return None


def options_are_a_frozen_record_with_defaults(kind, make):
    assert issubclass(kind, Driver)
    assert is_dataclass(kind.Options)
    assert kind.Options.__dataclass_params__.frozen
    for item in fields(kind.Options):
        assert item.default is not MISSING or item.default_factory is not MISSING, f"option {item.name} has no default"
    kind.check(kind.Options())
    assert options_for(kind, {}) == kind.Options()


def a_wrong_option_is_named(kind, make):
    for key in ["no_such_option", *(item.name for item in fields(kind.Options))]:
        said = raised(OptionError, lambda key=key: options_for(kind, {key: object()}))
        assert said is not None, f"option {key} takes anything"
        assert key in said, f"{said} does not name {key}"


def nothing_is_touched_before_open(kind, make):
    driver = make()
    assert driver.describe()
    assert check_tag(driver.sensor)
    driver.close()


def reading_a_closed_sensor_is_an_error(kind, make):
    driver = make()
    for _ in range(2):
        assert raised(SensorError, driver.read), "a sensor that is not open gives readings"
        with driver:
            pass


def readings_are_fresh_values_of_the_data_model(kind, make):
    with make() as driver:
        before = boot_ns()
        for _ in range(3):
            reading = driver.read()
            assert isinstance(reading, Reading)
            assert reading.boot_ns > before, "not newer than the reading before"
            assert reading.boot_ns <= boot_ns(), "from the future"
            before = reading.boot_ns
            assert reading.raw is None or isinstance(reading.raw, bytes)
            assert {*reading.registers} <= {*reading.values, *reading.refused}
            assert not {*reading.refused} & {*reading.values}, "refused, and given"
            assert {*reading.values} <= {*kind.quantities(driver.options)}, "more than it says it may measure"
            values_fit(reading.values)
            assert line_for("device", driver.sensor, reading.values, boot_ns=reading.boot_ns).head


def values_fit(values):
    assert values
    for field, value in values.items():
        quantity = QUANTITIES[field]
        assert type(value) is (int if quantity.kind == "integer" else float), f"{field} is a {type(value).__name__}"
        assert math.isfinite(value)
        assert quantity.low <= value <= quantity.high


def it_closes_twice_and_opens_again(kind, make):
    driver = make()
    for _ in range(2):
        driver.open()
        assert driver.read().values
        driver.close()
        driver.close()


if __name__ == "__main__":
    name, *texts = sys.argv[1:]
    driver = load(name)
    given = dict(text.split("=", 1) for text in texts)
    try:
        with driver(options_for(driver, given)):
            pass
    except (OptionError, SensorError) as error:
        sys.exit(f"{name} cannot be tried: {error}")
    check(driver, lambda: driver(options_for(driver, given)))
    print(f"{name} keeps the contract")
