"""Several sensors at work: what agent.toml names, and what the center may change."""

from dataclasses import dataclass
from pathlib import Path

import pytest

from agent.config.settings import CenterSettings, DeviceSettings, Location, SensorSettings, Settings
from agent.config.units import Seconds
from agent.sensing.sensors import Sensors, drivers_of
from drivers.base import Reading

DEAD = Path(__file__).parents[1] / "data/bme280-dead-humidity.json"
HOME, CENTERS = Location(48.0, 16.0), Location(50.0, 14.0)


@dataclass
class Remote:
    measurement_interval: float | None = None
    location: Location | None = None


def after(remote, *, interval=None, location=None, prefer=False):
    """Interval and Lat of a sensor after the center said this; `interval` and `location` are agent.toml's."""
    settings = Settings(
        device=DeviceSettings(location=location),
        sensor=(SensorSettings(driver="emulated", interval=Seconds(interval or 10.0)),),
        center=CenterSettings("http://c", remote="prefer" if prefer else "local"),
        named=frozenset({"sensor[0].interval"} if interval else ()),
    )
    points = []
    sensors = Sensors(settings, "pi-1", drivers_of(settings), points.extend)
    sensors.configure(remote)
    ((_, sampler),) = sensors.loops()
    sampler.step()
    sampler.finish()
    place = next((f for f in (48.0, 50.0) if b"Lat=%d" % f in points[0].head), None)
    return sensors.snapshot()[0].interval, place


@pytest.mark.parametrize(
    ("named", "prefer", "interval", "lat"),
    [
        (True, False, 5.0, 48.0),
        (True, True, 60.0, 50.0),
        (False, False, 60.0, 50.0),
        (False, True, 60.0, 50.0),
    ],
)
def test_what_agent_toml_names_wins_unless_the_center_is_preferred(named, prefer, interval, lat):
    own = {"interval": 5.0, "location": HOME} if named else {}
    assert after(Remote(60.0, CENTERS), **own, prefer=prefer) == (interval, lat)


@pytest.mark.parametrize("prefer", [False, True])
def test_where_the_center_says_nothing_it_stays_as_it_is(prefer):
    assert after(Remote(), interval=5.0, location=HOME, prefer=prefer) == (5.0, 48.0)
    assert after(Remote(), prefer=prefer) == (10.0, None)


def test_promise_4_a_point_of_a_chip_with_a_dead_element_has_the_other_quantities():
    settings = Settings(
        sensor=(SensorSettings(driver="emulated", options={"image": str(DEAD)}, derive=("DewPoint",)),),
        center=CenterSettings("http://c"),
    )
    points = []
    sensors = Sensors(settings, "pi-1", drivers_of(settings), points.extend)
    ((_, sampler),) = sensors.loops()
    sampler.step()
    sampler.finish()
    ((head, _),) = ((point.head.decode(), point.boot_ns) for point in points)
    assert "Temperature=22.7" in head
    assert "Pressure=970.63" in head
    assert "Humidity" not in head
    assert "DewPoint" not in head
    assert set(sensors.snapshot()[0].refused) == {"Humidity"}


def test_a_bme280_that_turns_out_to_be_a_bmp280_is_told_from_the_other_bmp280():
    """As `iot-agent scan` names the second of two BMP280, where the first is read with humidity = false."""
    settings = Settings(
        sensor=(
            SensorSettings(name="in", options={"humidity": False, "address": 0x76}),
            SensorSettings(name="out", driver="bmp280", options={"address": 0x77}),
        ),
        center=CenterSettings("http://c"),
    )
    points = []
    drivers = drivers_of(settings)
    sensors = Sensors(settings, "pi-1", drivers, points.extend)
    drivers[0].sensor = "bmp280"  # once it is open
    for _, sampler in sensors.loops():
        sampler._emit(Reading({"Temperature": 20.0}, 1))
    first, second = (point.series for point in points)
    assert first != second
    assert b"sensor=in" in first
    assert b"sensor=out" in second
