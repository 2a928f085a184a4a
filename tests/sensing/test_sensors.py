"""Several sensors at work: what agent.toml names, and what the center may change."""

from pathlib import Path

import pytest

from agent.config.settings import CenterSettings, DeviceSettings, Location, SensorSettings, Settings
from agent.config.units import Seconds
from agent.registration.remote_config import RemoteConfiguration, applied, ruled
from agent.sensing.sensors import Sensors, drivers_of
from drivers.base import Reading

DEAD = Path(__file__).parents[1] / "data/bme280-dead-humidity.json"
HOME, CENTERS = Location(48.0, 16.0), Location(50.0, 14.0)


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
    assert after(RemoteConfiguration(60.0, None, CENTERS), **own, prefer=prefer) == (interval, lat)


@pytest.mark.parametrize("prefer", [False, True])
def test_where_the_center_says_nothing_it_stays_as_it_is(prefer):
    assert after(RemoteConfiguration(), interval=5.0, location=HOME, prefer=prefer) == (5.0, 48.0)
    assert after(RemoteConfiguration(), prefer=prefer) == (10.0, None)


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


def series_of(*tables):
    """The series of each sensor's points."""
    settings = Settings(sensor=tables, center=CenterSettings("http://c"))
    points = []
    for _, sampler in Sensors(settings, "pi-1", drivers_of(settings), points.extend).loops():
        sampler._emit(Reading({"Temperature": 20.0}, 1))
    return [point.series.decode() for point in points]


def test_two_sensors_of_different_kinds_are_told_apart():
    inside = SensorSettings(name="inside", options={"address": 0x76})
    outside = SensorSettings(name="outside", driver="ds18b20")
    assert series_of(inside, outside) == [
        "environment,TemperatureSensor=bme280,clientId=pi-1,device=pi-1,sensor=inside",
        "environment,TemperatureSensor=ds18b20,clientId=pi-1,device=pi-1,sensor=outside",
    ]


def test_a_second_sensor_changes_nothing_of_the_first_one_s_series():
    """Its name is the tag from the beginning; without a name there is none, as ever."""
    for first in (SensorSettings(name="bench"), SensorSettings()):
        (alone,) = series_of(first)
        assert alone == series_of(first, SensorSettings(name="roof", driver="veml7700"))[0]
        assert alone.endswith("sensor=bench" if first.name else "device=pi-1")


def test_the_watchdog_tells_sensors_apart_with_and_without_names():
    settings = Settings(
        sensor=(SensorSettings(), SensorSettings(driver="veml7700"), SensorSettings(driver="veml7700", name="roof")),
        center=CenterSettings("http://c"),
    )
    sensors = Sensors(settings, "pi-1", drivers_of(settings), lambda _: None)
    assert set(sensors.alive_boot_ns()) == {"sensor bme280", "sensor veml7700", "sensor roof"}


def in_use(table, remote, *, named=(), prefer=False):
    """What a sensor is told to measure by."""
    center = CenterSettings("http://c", remote="prefer" if prefer else "local")
    settings = Settings(sensor=(table,), center=center, named=frozenset(f"sensor[0].{name}" for name in named))
    return applied(settings, remote).sensor[0], ruled(settings, 0)


def test_an_offset_from_the_center_leaves_the_calibration_of_other_quantities():
    own = SensorSettings(driver="emulated", offset={"Humidity": 2.0}, scale={"Humidity": 1.05})
    table, _ = in_use(own, RemoteConfiguration(offset={"Temperature": 1.0}))
    assert (table.offset, table.scale) == ({"Humidity": 2.0, "Temperature": 1.0}, {"Humidity": 1.05})


LINE = {"Pressure": ((990.0, 991.0), (1010.0, 1012.0))}
FILE = SensorSettings(
    driver="emulated", name="bench", deadband={"Humidity": 1.0}, offset={"Humidity": 2.0}, calibrate=LINE
)
ASKED = RemoteConfiguration(
    report="mean_min_max",
    deadband={"Humidity": 3.0, "Temperature": 0.2, "CO2": 5.0},
    offset={"Temperature": 1.0, "bench.Temperature": -0.8, "roof.Humidity": 9.0, "Humidity": 4.0, "Pressure": 0.5},
)


def test_a_calibration_of_agent_toml_holds_and_the_center_adds_to_what_has_none():
    table, file = in_use(FILE, ASKED, named=["report"])
    assert (table.report, table.interval) == ("mean", 10.0)
    assert table.offset == {"Humidity": 2.0, "Temperature": -0.8}
    assert table.calibrate == LINE
    assert table.deadband == {"Humidity": 1.0, "Temperature": 0.2}  # CO2 it does not measure: nothing is held back
    assert file == {"report", "deadband.Humidity", "offset.Humidity", "offset.Pressure"}


def test_a_preferred_center_s_offset_stands_in_the_place_of_a_whole_calibration():
    table, file = in_use(FILE, ASKED, named=["report"], prefer=True)
    assert (table.report, file) == ("mean_min_max", frozenset())
    assert table.offset == {"Humidity": 4.0, "Temperature": -0.8, "Pressure": 0.5}
    assert table.calibrate == {}
    assert table.deadband == {"Humidity": 3.0, "Temperature": 0.2}


def test_a_sensor_without_a_name_goes_by_its_driver():
    table, _ = in_use(SensorSettings(driver="emulated"), RemoteConfiguration(offset={"emulated.Temperature": 3.0}))
    assert table.offset == {"Temperature": 3.0}


def test_the_first_reading_after_a_restart_has_its_offset_and_what_is_told_says_so():
    settings = Settings(sensor=(SensorSettings(driver="emulated"),), center=CenterSettings("http://c"))
    points = []
    remote = RemoteConfiguration(offset={"Temperature": 10.0}, location=CENTERS)
    sensors = Sensors(settings, "pi-1", drivers_of(settings), points.extend, remote)
    ((_, sampler),) = sensors.loops()
    sampler.step()
    sampler.finish()
    told = sensors.told()
    assert told["sensors"] == [
        {
            "name": "emulated",
            "kind": "emulated_bme280",
            "driver": "emulated",
            "interval": 10.0,
            "heartbeat": 600.0,
            "report": "mean",
            "deadband": {},
            "offset": {"Temperature": 10.0},
            "file": [],
            "quantities": ["Humidity", "Pressure", "Temperature"],
        }
    ]
    assert (told["location"], told["located"]) == ({"lat": 50.0, "lon": 14.0}, False)
    ((calibration, remote),) = ((s.calibration, s.remote) for s in sensors.snapshot())
    assert calibration == {"Temperature": "1 * measured + 10 °C"}
    assert remote == {"offset.Temperature": 10.0}
    uncalibrated = Sensors(settings, "pi-1", drivers_of(settings), points.extend)
    ((_, sampler),) = uncalibrated.loops()
    sampler.step()
    sampler.finish()
    with_offset, without = (float(p.head.decode().partition("Temperature=")[2].partition(",")[0]) for p in points)
    assert with_offset - without == pytest.approx(10.0, abs=0.011)
