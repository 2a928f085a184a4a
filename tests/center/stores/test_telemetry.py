"""One suite for the telemetry of all stores."""

import random
import statistics
import time

import pytest

from agent.util.secret import Secret
from center.embedded.rollup import RollUp
from center.errors import NotSupportedError, RefusedError
from center.stores.telemetry import LastValue, Point, Sensor, SeriesQuery, labels, sensor_of
from tests.center_helpers import DAY, HOUR, SECOND, environment, points_of

A, B = Secret("a" * 32), Secret("b" * 32)
MS = SECOND // 1000  # no store tells earlier and later apart more coarsely
NOW = time.time_ns() // HOUR * HOUR - 2 * HOUR


def last_of(telemetry, device, field):
    (last,) = [last for last in telemetry.last_values([device])[device] if last.field == field]
    return last


def test_last_values_name_the_newest_of_each_field_and_the_kind_of_sensor(telemetry, device):
    kinds = {"TemperatureSensor": "bme280", "HumiditySensor": "bme280", "GPSSensor": "neo"}
    telemetry.write(
        [
            environment(device, NOW, tags=kinds, Temperature=20.5, Humidity=40.0, Lat=50.0),
            environment(device, NOW + SECOND, tags=kinds, Temperature=21.25),
            environment(f"{device}0", NOW + 9 * SECOND, Temperature=99.0),
        ]
    )
    values = telemetry.last_values([device, "nobody"])
    assert list(values) == [device]
    found = {last.field: last for last in values[device]}
    assert [last.field for last in values[device]] == ["Humidity", "Lat", "Temperature"]
    assert (found["Temperature"].value, found["Temperature"].time_ns) == (21.25, NOW + SECOND)
    assert (found["Humidity"].value, found["Humidity"].time_ns) == (40.0, NOW)
    assert (found["Temperature"].sensor, found["Lat"].sensor) == (Sensor("", "bme280"), Sensor("", "neo"))
    assert [v.field for v in telemetry.last_values([device], since_ns=NOW + SECOND)[device]] == ["Temperature"]
    assert telemetry.last_values([]) == {}


def test_a_field_that_has_been_silent_for_long_still_has_its_last_value(telemetry, device):
    old = environment(device, NOW - 3 * HOUR, Temperature=1.0, CO2=400)
    telemetry.write([old, *(environment(device, NOW + n * SECOND, Temperature=20.0) for n in range(100))])
    assert last_of(telemetry, device, "CO2").value == 400
    if hasattr(telemetry, "database"):  # what the writing thread does every half minute
        telemetry.database.run(RollUp(telemetry.writer))
    assert last_of(telemetry, device, "CO2").value == 400


def test_points_of_other_writers_are_seen(telemetry, device):
    telemetry.write(
        [
            environment(device, NOW, tags={"device": ""}, Temperature=20.0),
            environment(device, NOW + SECOND, tags={"clientId": ""}, Temperature=22.0),
            environment(device, NOW + 2 * SECOND, tags={"clientId": ""}, CO2=500),
        ]
    )
    assert last_of(telemetry, device, "Temperature").value == 22.0
    curves = {curve.field: curve for curve in telemetry.series(SeriesQuery(device, NOW, NOW + HOUR))}
    assert list(curves["Temperature"].values) == [20.0, 22.0]
    assert list(curves["CO2"].values) == [500]
    assert type(curves["CO2"].values[0]) is int
    assert telemetry.count(device) == 3


def test_a_field_that_was_an_integer_and_became_a_float_is_seen_whole(telemetry, device):
    """A device of the tutorial that became one of ours. InfluxDB answers with the first type only, if simply asked."""
    tutorial, ours = {"clientId": "", "TemperatureSensor": "bme280"}, {"TemperatureSensor": "bme280"}
    week = 7 * DAY
    telemetry.write(
        [environment(device, NOW - 3 * week + n * HOUR, tags=tutorial, Temperature=20 + n) for n in range(24)]
    )
    telemetry.write([environment(device, NOW - n * HOUR, tags=ours, Temperature=10.5) for n in range(24)])
    whole = (NOW - 4 * week, NOW + HOUR)
    (curve,) = telemetry.series(SeriesQuery(device, *whole, (), HOUR, "max"))
    assert list(curve.values) == [*range(20, 44), *[10.5] * 24]
    (curve,) = telemetry.series(SeriesQuery(device, *whole))
    assert len(curve.values) == 48
    (count,) = telemetry.series(SeriesQuery(device, *whole, (), 12 * HOUR, "count"))
    assert sum(count.values) == 48
    (summary,) = telemetry.summary(device, start_ns=whole[0], stop_ns=whole[1])
    assert (summary.minimum, summary.maximum, summary.last, summary.count) == (10.5, 43, 10.5, 48)
    assert summary.sensor == Sensor("", "bme280")
    assert telemetry.count(device) == 48


def test_a_device_that_fell_silent_as_an_integer_has_its_last_values_when_others_are_floats(telemetry, device):
    """InfluxDB's last() answers with the series of the newest type only."""
    name, other, week = f"Odd{device[-9:]}", f"{device}-other", 7 * DAY
    telemetry.write(
        [environment(device, NOW - 4 * week + n * MS, tags={"clientId": ""}, **{name: 20 + n}) for n in range(3)]
    )
    telemetry.write([environment(device, NOW - 4 * week, tags={"clientId": ""}, Humidity=40.0)])
    telemetry.write([environment(other, NOW, **{name: 1.5})])
    for asked in ([device], [device, other]):
        values = {last.field: last for last in telemetry.last_values(asked, since_ns=NOW - 60 * DAY)[device]}
        assert {field: last.value for field, last in values.items()} == {name: 22, "Humidity": 40.0}
        assert values[name].time_ns == NOW - 4 * week + 2 * MS
    assert last_of(telemetry, other, name).value == 1.5


def test_windows_are_aligned_and_stamped_with_their_end(telemetry, device):
    telemetry.write([environment(device, NOW + n * 60 * SECOND, Temperature=float(n)) for n in range(90)])
    start, stop = NOW + 30 * 60 * SECOND, NOW + 100 * 60 * SECOND
    query = SeriesQuery(device, start, stop, ("Temperature",), HOUR)
    (curve,) = telemetry.series(query)
    assert list(curve.times_ns) == [NOW + HOUR, stop]
    assert list(curve.values) == [pytest.approx(44.5), pytest.approx(74.5)]


@pytest.mark.parametrize(
    ("fn", "expected"),
    [
        ("mean", [2.0, 10.0]),
        ("min", [0.0, 10.0]),
        ("max", [4.0, 10.0]),
        ("median", [2.0, 10.0]),
        ("sum", [6.0, 10.0]),
        ("count", [3, 1]),
        ("first", [4.0, 10.0]),
        ("last", [2.0, 10.0]),
    ],
)
def test_every_function_over_windows(telemetry, device, fn, expected):
    telemetry.write(
        [
            environment(device, NOW + n * SECOND, Temperature=value)
            for n, value in ((0, 4.0), (1, 0.0), (2, 2.0), (70, 10.0))
        ]
    )
    (curve,) = telemetry.series(SeriesQuery(device, NOW, NOW + 120 * SECOND, (), 60 * SECOND, fn))
    assert list(curve.values) == expected


@pytest.mark.parametrize("fn", ["mean", "min", "max", "sum", "count", "first", "last", "median"])
def test_long_ranges_give_what_the_points_give(telemetry, device, fn):
    """Over hourly sums in the embedded store; the range cuts an hour at both ends."""
    start = NOW - 10 * DAY + 17 * 60 * SECOND
    points = [(start + n * 601 * SECOND, float(n * 37 % 101)) for n in range(1000)]
    telemetry.write([environment(device, t, Temperature=value) for t, value in points])
    lower, stop = start + 31 * 60 * SECOND, start + 6 * DAY + 5 * 60 * SECOND
    (curve,) = telemetry.series(SeriesQuery(device, lower, stop, (), 12 * HOUR, fn))
    windows = {}
    for t, value in points:
        if lower <= t < stop:
            windows.setdefault(min((t // (12 * HOUR) + 1) * 12 * HOUR, stop), []).append(value)
    pure = {
        "mean": statistics.fmean, "min": min, "max": max, "sum": sum, "count": len, "median": statistics.median,
        "first": lambda v: v[0], "last": lambda v: v[-1],
    }  # fmt: skip
    assert list(curve.times_ns) == list(windows)
    assert list(curve.values) == [pytest.approx(pure[fn](values)) for values in windows.values()]


def test_what_arrives_late_changes_long_ranges_once(telemetry, device):
    query = SeriesQuery(device, NOW - 5 * DAY, NOW, (), 12 * HOUR, "count")
    points = [environment(device, NOW - 4 * DAY + n * HOUR, Temperature=1.0) for n in range(48)]
    telemetry.write(points[::2])
    assert sum(telemetry.series(query)[0].values) == 24
    telemetry.write(points)
    telemetry.write(points)
    assert sum(telemetry.series(query)[0].values) == 48
    assert telemetry.count(device) == 48


def test_several_sensors_have_a_curve_each(telemetry, device):
    telemetry.write(
        [
            environment(device, NOW, tags={"sensor": "bench"}, Temperature=20.0),
            environment(device, NOW, tags={"sensor": "roof"}, Temperature=5.0),
            environment(device, NOW, Temperature=10.0),
        ]
    )
    curves = telemetry.series(SeriesQuery(device, NOW, NOW + HOUR, (), HOUR))
    assert [(curve.field, curve.sensor, list(curve.values)) for curve in curves] == [
        ("Temperature", Sensor(), [10.0]),
        ("Temperature", Sensor("bench"), [20.0]),
        ("Temperature", Sensor("roof"), [5.0]),
    ]
    summary = telemetry.summary(device, start_ns=NOW, stop_ns=NOW + HOUR)
    assert [(s.field, s.sensor, s.last) for s in summary] == [
        ("Temperature", Sensor(), 10.0), ("Temperature", Sensor("bench"), 20.0), ("Temperature", Sensor("roof"), 5.0)
    ]  # fmt: skip


def test_two_sensors_of_different_kinds_on_one_board_are_never_brought_together(telemetry, device):
    """Named or not, at the same moments and not, over points, windows and hourly sums, and in what goes beside them."""
    inside = {"TemperatureSensor": "bme280", "HumiditySensor": "bme280"}
    outside = {"TemperatureSensor": "sht4x", "HumiditySensor": "sht4x", "room": "garden"}
    for n in range(48):
        telemetry.write([environment(device, NOW - n * HOUR, tags=inside, Temperature=6.84, Humidity=50.0, Lat=1.0)])
        telemetry.write([environment(device, NOW - n * HOUR, tags=outside, Temperature=14.14, Temperature_min=14.0)])
    telemetry.write([environment(device, NOW, tags={**inside, "sensor": "attic"}, Temperature=30.0)])
    attic, bme, sht = Sensor("attic", "bme280"), Sensor("", "bme280"), Sensor("", "sht4x")
    expected = [
        ("Humidity", bme, 50.0),
        ("Lat", bme, 1.0),
        ("Temperature", bme, 6.84),
        ("Temperature", sht, 14.14),
        ("Temperature", attic, 30.0),
        ("Temperature_min", sht, 14.0),
    ]
    assert [(v.field, v.sensor, v.value) for v in telemetry.last_values([device])[device]] == expected
    found = telemetry.summary(device, start_ns=NOW - 3 * DAY, stop_ns=NOW + HOUR)
    assert [(s.field, s.sensor, s.minimum) for s in found] == expected
    assert [s.count for s in found] == [48, 48, 48, 48, 1, 48]
    for every, fn in ((None, "mean"), (HOUR, "mean"), (6 * HOUR, "median"), (6 * HOUR, "last"), (6 * HOUR, "max")):
        curves = telemetry.series(SeriesQuery(device, NOW - 3 * DAY, NOW + HOUR, (), every, fn))
        assert [(c.field, c.sensor, *{round(v, 9) for v in c.values}) for c in curves] == expected, fn
    span = {"start_ns": NOW - DAY, "stop_ns": NOW + HOUR, "every_ns": HOUR}
    lines = telemetry.sparklines([device], "Temperature", **span)[device]
    assert [(c.sensor, c.values[-1]) for c in lines] == [(s, pytest.approx(v)) for _, s, v in expected[2:5]]


@pytest.mark.parametrize(
    ("field", "tags", "sensor"),
    [
        ("Temperature", {"TemperatureSensor": "a", "HumiditySensor": "b"}, Sensor("", "a")),
        ("Temperature_max", {"TemperatureSensor": "a", "HumiditySensor": "b"}, Sensor("", "a")),
        ("DewPoint", {"TemperatureSensor": "a", "HumiditySensor": "b"}, Sensor("", "b")),
        ("Lon", {"GPSSensor": "neo", "sensor": "mast"}, Sensor("mast", "neo")),
        ("Colour", {"ColourSensor": "tcs", "TemperatureSensor": "a"}, Sensor("", "tcs")),
        ("Colour", {"TemperatureSensor": "b", "HumiditySensor": "a", "PressureSensor": "a"}, Sensor("", "a, b")),
        ("Temperature", {"device": "pi-1"}, Sensor()),
    ],
)
def test_the_sensor_of_a_field_by_the_tags_of_its_series(field, tags, sensor):
    assert sensor_of(tags, field) == sensor


def test_sensors_are_told_apart_by_their_labels():
    plain, other, named, renewed = Sensor(), Sensor("", "sht4x"), Sensor("attic", "bme280"), Sensor("attic", "sht4x")

    def told(*sensors):
        found = labels([*(LastValue("Temperature", s, 1.0, 1) for s in sensors), LastValue("CO2", renewed, 1, 1)])
        assert found["CO2", renewed] == "attic"
        return [found["Temperature", sensor] for sensor in sensors]

    assert told(plain, other, named, named) == ["", "sht4x", "attic", "attic"]
    assert told(plain, other, named, renewed) == ["", "sht4x", "attic (bme280)", "attic (sht4x)"]
    assert len(set(told(plain, other, named, renewed, Sensor("sht4x")))) == 5


def test_one_sensor_whose_other_tags_changed_has_one_curve(telemetry, device):
    telemetry.write(
        [
            environment(device, NOW, tags={"TemperatureSensor": "bme280", "room": "a"}, Temperature=1.0),
            environment(device, NOW + SECOND, tags={"TemperatureSensor": "bme280"}, Temperature=2.0),
        ]
    )
    (curve,) = telemetry.series(SeriesQuery(device, NOW, NOW + HOUR))
    assert list(curve.values) == [1.0, 2.0]
    (curve,) = telemetry.series(SeriesQuery(device, NOW, NOW + HOUR, (), HOUR, "sum"))
    assert list(curve.values) == [3.0]
    more = [
        environment(device, NOW + n * SECOND, tags={"TemperatureSensor": "bme280"}, Temperature=9.0) for n in (2, 3)
    ]
    telemetry.write(more)
    for fn, expected in (("mean", 5.25), ("median", 5.5), ("min", 1.0), ("first", 1.0), ("last", 9.0), ("count", 4)):
        (curve,) = telemetry.series(SeriesQuery(device, NOW, NOW + HOUR, (), HOUR, fn))
        assert list(curve.values) == [expected], fn


@pytest.mark.parametrize("length", [HOUR, 60 * DAY])
def test_the_summary_of_each_field(telemetry, device, length):
    telemetry.write(
        [
            environment(
                device, NOW + n * SECOND, tags={"TemperatureSensor": "bme280"}, Temperature=20.0 + n, CO2=400 - n
            )
            for n in range(3)
        ]
    )
    co2, temperature = telemetry.summary(device, start_ns=NOW + HOUR - length, stop_ns=NOW + HOUR)
    assert (temperature.field, temperature.sensor) == ("Temperature", Sensor("", "bme280"))
    assert (temperature.minimum, temperature.maximum, temperature.last, temperature.count) == (20.0, 22.0, 22.0, 3)
    assert temperature.last_ns == NOW + 2 * SECOND
    assert (co2.minimum, co2.maximum, co2.last, co2.count) == (398, 400, 398, 3)
    assert telemetry.summary("nobody", start_ns=NOW, stop_ns=NOW + HOUR) == []


def only_numbers(telemetry):
    """VictoriaMetrics."""
    return hasattr(telemetry, "victoria")


def test_texts_and_truths_are_kept_and_left_out_of_the_means(telemetry, device):
    if only_numbers(telemetry):
        with pytest.raises(NotSupportedError, match="keeps numbers only"):
            telemetry.write([environment(device, NOW, Temperature=20.0, Note="hello")])
        telemetry.write([environment(device, NOW, Temperature=20.0, Door=True)])
        assert points_of(telemetry, device) == {NOW: {"Temperature": 20.0, "Door": 1.0}}
        return
    telemetry.write([environment(device, NOW, Temperature=20.0, Note='say "a\\b" $x\nend', Door=True)])
    raw = {curve.field: curve.values[0] for curve in telemetry.series(SeriesQuery(device, NOW, NOW + HOUR))}
    assert raw == {"Temperature": 20.0, "Note": 'say "a\\b" $x\nend', "Door": True}
    means = telemetry.series(SeriesQuery(device, NOW, NOW + HOUR, (), HOUR))
    assert [(curve.field, list(curve.values)) for curve in means] == [("Temperature", [20.0])]
    bands = telemetry.series(SeriesQuery(device, NOW, NOW + HOUR, (), HOUR, band=True))
    assert [(curve.field, *curve.low, *curve.counts) for curve in bands] == [("Temperature", 20.0, 1)]
    summary = {s.field: s for s in telemetry.summary(device, start_ns=NOW, stop_ns=NOW + HOUR)}
    assert (summary["Note"].minimum, summary["Note"].count) == (None, 1)
    assert summary["Door"].last is True


def test_points_of_one_series_and_time_are_one_point(telemetry, device):
    telemetry.write([environment(device, NOW, Temperature=20.0), environment(device, NOW, Humidity=40.0)])
    telemetry.write([environment(device, NOW, Temperature=21.0)])
    telemetry.write([environment(device, NOW + MS, Humidity=41.0)])
    assert telemetry.count(device) == 2
    found = points_of(telemetry, device)
    if only_numbers(telemetry):  # which of two values at one time it keeps is not said
        assert found[NOW]["Temperature"] in {20.0, 21.0}
        found[NOW]["Temperature"] = 21.0
    assert found == {NOW: {"Temperature": 21.0, "Humidity": 40.0}, NOW + MS: {"Humidity": 41.0}}
    assert telemetry.count("nobody") == 0


def test_a_refused_point_says_why(telemetry, device):
    telemetry.write([environment(device, NOW, Temperature=20.0)])
    if only_numbers(telemetry):
        with pytest.raises(RefusedError, match="more than two days ahead"):
            telemetry.write([environment(device, time.time_ns() + 3 * DAY, Temperature=20.0)])
    else:
        with pytest.raises(RefusedError, match=r"field type conflict.*Temperature.*integer.*float"):
            telemetry.write([environment(device, NOW + 1, Temperature=20)])
    with pytest.raises(RefusedError):
        telemetry.write([environment(device, NOW, tags={"sensor": "a\nb"}, Temperature=20.0)])


def test_sparklines_are_made_for_a_whole_page(telemetry, device):
    telemetry.write(
        [environment(f"{device}-{d}", NOW + n * 60 * SECOND, Temperature=float(d)) for d in range(3) for n in range(10)]
    )
    ids = [f"{device}-{d}" for d in range(4)]
    lines = telemetry.sparklines(ids, "Temperature", start_ns=NOW, stop_ns=NOW + HOUR, every_ns=300 * SECOND)
    assert set(lines) == set(ids[:3])
    assert [list(line.values) for line in lines[ids[2]]] == [[2.0, 2.0]]
    assert telemetry.sparklines([], "Temperature", start_ns=NOW, stop_ns=NOW + HOUR, every_ns=HOUR) == {}


def test_a_device_of_nothing_but_texts_has_no_curve_of_means(telemetry, device):
    if only_numbers(telemetry):
        return
    telemetry.write([environment(device, NOW, Door=True, Note="hello")])
    for fields in ((), ("Note",), ("Door", "Note")):
        for band in (True, False):
            assert telemetry.series(SeriesQuery(device, NOW, NOW + HOUR, fields, HOUR, "mean", band)) == []


def test_last_seen_tells_who_is_silent(telemetry, device):
    telemetry.write(
        [
            environment(f"{device}-old", NOW - DAY, Temperature=1.0),
            environment(f"{device}-new", NOW, Temperature=1.0, Humidity=2.0),
            Point("agent", {"clientId": f"{device}-health", "device": f"{device}-health"}, {"rejected": 1}, NOW),
        ]
    )
    seen = telemetry.last_seen(since_ns=NOW - HOUR)
    assert seen[f"{device}-new"] == NOW
    assert f"{device}-old" not in seen
    assert f"{device}-health" not in seen
    fields = {} if only_numbers(telemetry) else {"Note": "hello"}
    texts = environment(f"{device}-text", NOW + SECOND, CO2=400, **fields)
    telemetry.write([texts, environment(f"{device}-new", NOW + SECOND, CO2=1, Temperature=1.0)])
    seen = telemetry.last_seen(since_ns=NOW - HOUR)
    assert (seen[f"{device}-text"], seen[f"{device}-new"]) == (NOW + SECOND, NOW + SECOND)
    health = telemetry.last_values([f"{device}-health"], measurement="agent")
    assert [(v.field, v.value) for v in health[f"{device}-health"]] == [("rejected", 1)]


def test_the_newest_health_of_all_devices_is_told_at_once_by_the_fields_that_are_asked_for(telemetry, device):
    def health(name, t, **fields):
        return Point("agent", {"clientId": name, "device": name}, fields, t)

    loose = Point("agent", {"clientId": f"{device}-1", "sensor": "bench"}, {"failing": 7}, NOW)
    telemetry.write(
        [
            health(f"{device}-1", NOW - HOUR, pending=5, clock_error_s=0.5, rejected=1),
            health(f"{device}-1", NOW, clock_error_s=0.25, pending=0),
            loose,
            health(f"{device}-2", NOW - 2 * HOUR, pending=9),
            health(f"{device}-3", NOW - HOUR // 2, load=1.5, pending=3),
            health(f"{device}-4", NOW, load=1.5),
        ]
    )
    found = telemetry.health(("pending", "rejected", "clock_error_s"), since_ns=NOW - HOUR)
    found = {name.removeprefix(device): said for name, said in found.items() if name.startswith(device)}
    assert found == {"-1": {"pending": 0, "rejected": 1, "clock_error_s": 0.25}, "-3": {"pending": 3}}


@pytest.mark.parametrize("name", ['q"uote', "back\\slash", "${x}", "$${x}", "new\nline", "ünï", "a,b=c d", "' or true"])
def test_any_text_is_looked_for_as_it_is(telemetry, device, name):
    telemetry.write([environment(device, NOW, Temperature=20.0)])
    assert telemetry.series(SeriesQuery(name, NOW, NOW + HOUR)) == []
    assert telemetry.series(SeriesQuery(device, NOW, NOW + HOUR, (name,), HOUR)) == []
    if only_numbers(telemetry) and '"' in name:
        with pytest.raises(RefusedError, match="quotation mark"):
            telemetry.write([Point("environment", {"clientId": device}, {name: 1.5}, NOW)])
    elif "\n" not in name:
        odd = f"{device}{name}"
        telemetry.write([Point("environment", {"clientId": odd}, {name: 1.5}, NOW)])
        (curve,) = telemetry.series(SeriesQuery(odd, NOW, NOW + HOUR, (name,)))
        assert (curve.field, list(curve.values)) == (name, [1.5])
        assert last_of(telemetry, odd, name).value == 1.5


def test_a_query_that_asks_for_too_much_or_nonsense_is_refused():
    for start, stop, every, fn in ((2, 1, None, "mean"), (0, DAY, 1, "mean"), (0, DAY, 0, "mean"), (0, 1, 1, "rm -rf")):
        with pytest.raises(RefusedError):
            SeriesQuery("pi-1", start, stop, (), every, fn)
    for every, fn in ((None, "mean"), (HOUR, "max")):
        with pytest.raises(RefusedError, match="band"):
            SeriesQuery("pi-1", 0, DAY, (), every, fn, band=True)


def test_the_buckets_are_listed_with_their_role(telemetry):
    assert "telemetry" in [bucket.role for bucket in telemetry.buckets() if bucket.name == telemetry.bucket]


def test_of_10000_devices_fifty_are_listed_and_their_values_found(opened):
    """How long that takes is shown by bench/listing.py."""
    registry, telemetry = opened
    ids = [f"many-{n:05}" for n in range(10_000)]
    if hasattr(registry, "database"):
        rows = [(device_id, device_id, "", NOW, NOW) for device_id in ids]
        registry.database.run(lambda c: c.executemany("INSERT INTO device VALUES (?, ?, ?, ?, ?)", rows) and None)
    else:
        fields = 'key="0a",secretHash="h",createdAt="2026-11-24T06:31:00Z"'
        lines = [f"deviceauth,deviceId={name} {fields} {NOW - n * SECOND}" for n, name in enumerate(ids)]
        registry.influx.write(registry.bucket_auth, lines)
    page = registry.devices(offset=9950, limit=50, search="many-")
    assert page.total == 10_000
    assert [device.id for device in page.devices] == ids[-50:]
    telemetry.write([environment(name, NOW, Temperature=20.0) for name in ids[-50:]])
    span = {"start_ns": NOW - DAY, "stop_ns": NOW + HOUR, "every_ns": HOUR // 4}
    assert len(telemetry.last_values(ids[-50:])) == 50
    assert len(telemetry.sparklines(ids[-50:], "Temperature", **span)) == 50
    assert len(telemetry.last_values(ids[-400:])) == 50
    assert len(telemetry.last_values(ids)) == 50


PURE = {
    "count": len, "mean": statistics.fmean, "min": min, "max": max,
    "first": lambda values: values[0], "last": lambda values: values[-1],
}  # fmt: skip
DAYS = 18


def scattered(device):
    """What one sensor of a device left: four series by its tags, gaps of hours and days, an integer that became a float
    with a week, many points in one series and few in the others. Also as time → field → its values in order.
    """
    chance = random.Random(18)
    monday = NOW - (NOW - 4 * DAY) % (7 * DAY)  # types hold per shard, which is a week
    series = [{"room": "b"}, {"room": "c"}, {"clientId": ""}, {"room": "a"}]
    points = []
    for minute in sorted(chance.sample(range(DAYS * 1440), 1500)):
        if minute // 1440 in {3, 4, 11} or minute // 60 % 24 in {2, 3}:
            continue
        t = NOW - DAYS * DAY + minute * 60 * SECOND + chance.randrange(SECOND)
        tags = chance.choices(series, (100, 10, 5, 1))[0]
        moved = float if t >= monday else int
        fields = {"Warmth": chance.uniform(-5, 40), "Parts": chance.randrange(400, 900)}
        fields["Odd"] = moved(chance.randrange(99))
        if chance.random() < 0.3:
            del fields["Parts"]
        points.append(environment(device, t, tags=tags, **fields))
    return points


@pytest.mark.parametrize("every", [HOUR // 4, 3 * HOUR, DAY, 7 * DAY])
def test_both_stores_agree_over_several_series_types_and_gaps(telemetry, device, every):
    points = scattered(device)
    telemetry.write(points)
    telemetry.write([environment(f"{device}-other", NOW - n * DAY, Open=True) for n in range(DAYS)])
    monday = NOW - (NOW - 4 * DAY) % (7 * DAY)
    for start, stop in (
        (NOW - DAYS * DAY, NOW),
        (NOW - 13 * DAY + 1234 * SECOND, NOW - 2 * DAY - 77 * SECOND),
        (monday - 2 * DAY, monday),
    ):
        expected = {}
        for point in points:
            if start <= point.time_ns < stop:
                end = min((point.time_ns // every + 1) * every, stop)
                for field, value in point.fields.items():
                    expected.setdefault(field, {}).setdefault(end, []).append(value)
        for fn, pure in PURE.items():
            curves = {c.field: c for c in telemetry.series(SeriesQuery(device, start, stop, (), every, fn))}
            assert set(curves) == {"Warmth", "Parts", "Odd"}
            for field, windows in expected.items():
                assert list(curves[field].times_ns) == sorted(windows), (fn, field)
                wanted = [pure(windows[end]) for end in sorted(windows)]
                assert list(curves[field].values) == [pytest.approx(value) for value in wanted], (fn, field)
        for curve in telemetry.series(SeriesQuery(device, start, stop, (), every, band=True)):
            windows = expected[curve.field]
            assert list(curve.times_ns) == sorted(windows)
            parts = {"mean": curve.values, "min": curve.low, "max": curve.high, "count": curve.counts}
            for fn, found in parts.items():
                assert list(found) == [pytest.approx(PURE[fn](windows[end])) for end in sorted(windows)], fn
        found = telemetry.summary(device, start_ns=start, stop_ns=stop)
        assert [summary.field for summary in found] == ["Odd", "Parts", "Warmth"]
        for summary in found:
            values = [v for end in sorted(expected[summary.field]) for v in expected[summary.field][end]]
            found = (summary.count, summary.minimum, summary.maximum, summary.last)
            assert found == pytest.approx((len(values), min(values), max(values), values[-1]))


@pytest.mark.parametrize("every", [60 * SECOND, DAY])
def test_of_values_of_several_series_at_one_time_the_smallest_is_first_and_the_largest_last(telemetry, device, every):
    for kind, value in (("a", 2.0), ("b", 1.0), ("c", 3.0)):
        telemetry.write([environment(device, NOW, tags={"room": kind}, Temperature=value)])
    start = NOW - 3 * DAY if every == DAY else NOW
    for fn, expected in (("first", 1.0), ("last", 3.0), ("count", 3), ("mean", 2.0)):
        (curve,) = telemetry.series(SeriesQuery(device, start, NOW + HOUR, (), every, fn))
        assert list(curve.values) == [expected], fn
    (curve,) = telemetry.series(SeriesQuery(device, start, NOW + HOUR))
    assert (list(curve.times_ns), list(curve.values)) == ([NOW], [3.0])
    assert [last.value for last in telemetry.last_values([device])[device]] == [3.0]
    assert [told.last for told in telemetry.summary(device, start_ns=start, stop_ns=NOW + HOUR)] == [3.0]


def test_a_range_between_two_milliseconds_is_empty(telemetry, device):
    """Not where a month begins: VictoriaMetrics 1.79.5 may not find a point of its very first millisecond."""
    at = NOW + SECOND
    telemetry.write([environment(device, at + n * SECOND // 1000, Temperature=20.0 + n) for n in (-1, 0)])
    start, stop = at - 1, at
    assert list(telemetry.summary(device, start_ns=start, stop_ns=stop)) == []
    assert list(telemetry.series(SeriesQuery(device, start, stop))) == []
    assert [told.last for told in telemetry.summary(device, start_ns=start, stop_ns=stop + 1)] == [20.0]


def test_a_sparkline_of_several_series_is_the_mean_of_their_points(telemetry, device):
    values = {"a": [40.0, 20.0, 20.0], "b": [40.0]}
    for kind, found in values.items():
        tags = {"room": kind}
        telemetry.write([environment(device, NOW + n * SECOND, tags=tags, Temperature=v) for n, v in enumerate(found)])
    lines = telemetry.sparklines([device], "Temperature", start_ns=NOW, stop_ns=NOW + HOUR, every_ns=HOUR)
    assert [list(line.values) for line in lines[device]] == [[30.0]]


def test_windows_up_to_now_have_all_that_was_measured_in_them(telemetry, device):
    """VictoriaMetrics holds back what is younger than half a minute, unless it is asked with care."""
    now = time.time_ns() // SECOND * SECOND
    telemetry.write([environment(device, now - n * SECOND, Temperature=float(n)) for n in range(20)])
    for every in (SECOND, 5 * SECOND, 60 * SECOND):
        for fn, expected in (("count", [20]), ("last", [0.0])):
            (curve,) = telemetry.series(SeriesQuery(device, now - 30 * SECOND, now + SECOND, (), every, fn))
            assert [sum(curve.values)] == expected if fn == "count" else [curve.values[-1]] == expected
    assert telemetry.last_values([device])[device][0].value == 0.0
    assert telemetry.summary(device, start_ns=now - HOUR, stop_ns=now + SECOND)[0].count == 20


def test_a_device_that_another_logger_writes_for_now_was_seen_when_that_wrote(telemetry, device):
    now = time.time_ns() // SECOND * SECOND
    moments = {f"{device}-before": now - 5 * HOUR, f"{device}-now": now - 60 * SECOND}
    for logger, moment in moments.items():
        telemetry.write([environment(device, moment, tags={"clientId": logger}, Temperature=20.0)])
    seen = telemetry.last_seen(since_ns=now - 90 * DAY)
    assert moments | {device: now - 60 * SECOND} == {name: seen[name] for name in (*moments, device)}


def test_points_that_are_too_many_for_one_answer_are_refused_and_not_some_of_them_left_out(
    telemetry, device, monkeypatch
):
    monkeypatch.setattr(f"{type(telemetry).__module__}.MAX_VALUES", 100)
    telemetry.write([environment(device, NOW - n * SECOND, a=1.0, b=2.0) for n in range(60)])
    span = (NOW - HOUR, NOW + 1)
    with pytest.raises(RefusedError, match="more than 100 values"):
        telemetry.series(SeriesQuery(device, *span))
    assert [len(curve.values) for curve in telemetry.series(SeriesQuery(device, *span, ("a",)))] == [60]
