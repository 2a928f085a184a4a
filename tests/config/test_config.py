"""agent.toml: right ones load_settings, wrong ones say what would be right, and the example documents every key."""

import re
import tomllib
from dataclasses import fields, is_dataclass
from pathlib import Path

import pytest
from hypothesis import example, given
from hypothesis import strategies as st

from agent.config import settings as s
from agent.config.limits import missing_files
from agent.config.parse import load_settings, parse_settings
from agent.config.units import format_duration, parse_duration
from agent.util.errors import ConfigError
from agent.util.secret import Secret

EXAMPLE = Path(__file__).parents[2] / "agent" / "agent.toml.example"
CENTER = {"center": {"url": "http://localhost:5000"}}
VIRTUAL = {"sensor": [{"driver": "virtual"}]}


def problem(data, environ=None):
    with pytest.raises(ConfigError) as caught:
        parse_settings(data, "agent.toml", environ or {})
    assert caught.value.exit_code == 78
    return str(caught.value)


def test_the_least_configuration_is_an_address_and_it_means_the_real_sensor():
    settings = parse_settings(CENTER, "agent.toml", {})
    assert settings.sensor[0].driver == "bme280"
    assert settings.buffer.loss_window == 10
    assert settings.center.api == "auto"


def test_durations_and_sizes_are_written_with_their_units():
    data = {**CENTER, "sensor": [{"driver": "virtual", "interval": "200ms"}], "buffer": {"max_size": "64MB"}}
    settings = parse_settings(data, "agent.toml", {})
    assert settings.sensor[0].interval == pytest.approx(0.2)
    assert settings.buffer.max_size == 64_000_000


@given(st.floats(0.05, 604_800) | st.integers(1, 604_800))
@example(1_234_567)
@example(1.0005)
@example(0.07)
@example(74_074_020)  # minutes
def test_a_duration_that_is_written_is_one_that_is_read(seconds):
    text = format_duration(seconds)
    assert parse_duration(text) == pytest.approx(seconds, rel=1e-9)


def test_a_duration_is_written_as_people_write_it():
    assert [format_duration(seconds) for seconds in (0.2, 0.07, 1.5, 1, 90, 604_800, 604_801, 0)] == [
        *("200ms", "70ms", "1500ms", "1s", "90s", "7d", "604801s", "0s"),
    ]


def test_the_environment_wins_as_the_existing_python_client_reads_it():
    settings = parse_settings(CENTER, "agent.toml", {"IOT_CENTER_URL": "http://other:1", "IOT_DEVICE_ID": "pi-7"})
    assert settings.center.url == "http://other:1"
    assert settings.device.id == "pi-7"


@pytest.mark.parametrize(
    ("data", "words"),
    [
        ({"sensr": 1}, ["sensr", "no such section", "sensor"]),
        ({"device": 5}, ["device = 5", "must be a table"]),
        ({"device": {"id": "a b"}}, ["device.id = 'a b'", "A-Z"]),
        ({"device": {"id": ".."}}, ["device.id", "not . or .."]),
        ({"device": {"locaton": {}}}, ["device.locaton", "did you mean location"]),
        ({"device": {"location": {"lat": 91, "lon": 0}}}, ["device.location.lat = 91", "-90 to 90"]),
        ({"device": {"location": {"lat": 1}}}, ["device.location.lon: missing"]),
        ({"device": {"location": {"lat": float("nan"), "lon": 0}}}, ["device.location.lat"]),
        ({"sensor": {"driver": "virtual"}}, ["sensor", "[[sensor]]"]),
        ({"sensor": []}, ["at least one [[sensor]]"]),
        ({"sensor": [{"interval": 5}]}, ["[[sensor]] 1: interval = 5", '"10s"']),
        ({"sensor": [{"driver": "virtual", "interval": "1ms"}]}, ["[[sensor]] 1: interval", '"50ms"']),
        ({"sensor": [{"driver": "bme208"}]}, ["[[sensor]] 1: ", "bme208", "bme280"]),
        ({"sensor": [{"driver": "virtual", "colour": "red"}]}, ["[[sensor]] 1: ", "colour"]),
        ({"sensor": [{"driver": "virtual", "intervall": "1s"}]}, ["intervall", "did you mean interval?"]),
        ({"sensor": [{"driver": "virtual"}] * 2}, ["[[sensor]] 1: ", "[[sensor]] 2: ", "needs a name"]),
        (
            {"sensor": [{"driver": "ds18b20"}, {"driver": "virtual", "name": "roof"}]},
            ["[[sensor]] 1: another (roof, the 2. [[sensor]]) measures Temperature as well, so each needs a name"],
        ),
        (
            {"sensor": [{"driver": "adafruit", "class": "adafruit_a.A", "fields": {q: "x"}} for q in ("CO2", "TVOC")]},
            ["[[sensor]] 1: another (adafruit, the 2. [[sensor]]) is read by the same driver as well"],
        ),
        (
            {"sensor": [{"driver": "virtual"}, {"driver": "veml7700", "name": "virtual"}]},
            ["[[sensor]] 2 (virtual): name = 'virtual': another sensor has this name"],
        ),
        ({"sensor": [{"driver": "virtual", "name": "veml7700"}, {"driver": "veml7700"}]}, ["another sensor has this"]),
        ({"sensor": [{"driver": "ds18b20", "derive": ["DewPoint"]}]}, ["derive: DewPoint needs Humidity, which ds"]),
        ({"sensor": [{"driver": "sht4x", "altitude": 250}]}, ["altitude: PressureSeaLevel needs Pressure, which"]),
        ({"sensor": [{"driver": "virtual", "name": "a"}] * 2}, ["[[sensor]] 2 (a): name", "another sensor"]),
        ({"sensor": [{"driver": "virtual", "deadband": {"Temp": 1}}]}, ["deadband.Temp", "Temperature"]),
        ({"sensor": [{"driver": "virtual", "deadband": {"Humidity": 0}}]}, ["deadband.Humidity", "above 0"]),
        ({"sensor": [{"driver": "virtual", "sample_every": "20s"}]}, ["sample_every", "at most the interval"]),
        ({"sensor": [{"driver": "virtual", "offset": {"Warmth": 1}}]}, ["offset.Warmth: no quantity that is measured"]),
        ({"sensor": [{"driver": "virtual", "offset": {"DewPoint": 1}}]}, ["offset.DewPoint: no quantity that"]),
        (
            {"sensor": [{"driver": "virtual", "offset": {"Humidity": 101}}]},
            ["Humidity = 101: must be from -100 to 100"],
        ),
        ({"sensor": [{"driver": "virtual", "offset": {"Humidity": float("nan")}}]}, ["offset.Humidity = nan"]),
        ({"sensor": [{"driver": "virtual", "offset": 1}]}, ["[[sensor]] 1: offset"]),
        ({"sensor": [{"driver": "virtual", "scale": {"Humidity": 0}}]}, ["scale.Humidity = 0", "from 0.1 to 10"]),
        ({"sensor": [{"driver": "virtual", "scale": {"Humidity": float("nan")}}]}, ["scale.Humidity = nan"]),
        ({"sensor": [{"driver": "virtual", "calibrate": {"Humidity": [1, 2]}}]}, ["calibrate", "[[measured, true], ["]),
        (
            {"sensor": [{"driver": "virtual", "calibrate": {"CO2": [[1, 2], [3, "4"]]}}]},
            ["calibrate", "[[measured, true"],
        ),
        ({"sensor": [{"driver": "virtual", "calibrate": [[1, 2], [3, 4]]}]}, ["[[sensor]] 1: calibrate"]),
        (
            {"sensor": [{"driver": "virtual", "calibrate": {"CO2": [[5, 1], [5, 9]]}}]},
            ["[[5, 1], [5, 9]]", "slope of 0"],
        ),
        (
            {"sensor": [{"driver": "virtual", "calibrate": {"CO2": [[1, 2], [3, 4]]}, "offset": {"CO2": 1}}]},
            ["calibrate.CO2: offset or scale is there as well"],
        ),
        (
            {"sensor": [{"driver": "virtual", "derive": ["Dewpoint"]}]},
            ["'Dewpoint' is nothing", "did you mean DewPoint?"],
        ),
        ({"sensor": [{"driver": "virtual", "derive": ["PressureSeaLevel"]}]}, ["set altitude for it"]),
        ({"sensor": [{"driver": "virtual", "derive": "DewPoint"}]}, ["derive", 'a list of texts, like ["DewPoint"]']),
        (
            {"sensor": [{"humidity": False, "dew_point": True}]},
            ["dew_point: DewPoint needs Humidity", "with these options"],
        ),
        ({"sensor": [{"humidity": False, "derive": ["VPD"]}]}, ["derive: VPD needs Humidity"]),
        (
            {"sensor": [{"driver": "virtual", "altitude": 9001}]},
            ["[[sensor]] 1: altitude = 9001: must be metres from -500"],
        ),
        ({"buffer": {"loss_window": "10 parsecs"}}, ["buffer.loss_window", "10 parsecs", "units"]),
        ({"buffer": {"when_full": "explode"}}, ["buffer.when_full", "'explode'", "'thin'"]),
        ({"delivery": {"batch_size": 0}}, ["delivery.batch_size = 0", "1 to 50000"]),
        ({"delivery": {"batch_size": 10**400}}, ["delivery.batch_size = 1000", "1 to 50000"]),
        ({"sensor": [{"driver": "virtual", "altitude": 10**400}]}, ["[[sensor]] 1: altitude: must be a smaller"]),
        ({"sensor": [{"driver": "virtual", "offset": 1}]}, ["[[sensor]] 1: offset: must be a table, with a value for"]),
        ({"sensor": [{"bus": 10**400}]}, ["[[sensor]] 1: option 'bus' is 1000"]),
        ({"sensor": [{"driver": "virtual", "name": "\x1b[2J"}]}, ["[[sensor]] 1 (\ufffd[2J): name = '\\x1b[2J'"]),
        ({"delivery": {"batch_size": True}}, ["delivery.batch_size", "whole number"]),
        ({"status": {"listen": "0.0.0.0:9528"}}, ["status.listen", "public = true"]),
        ({"status": {"listen": "here"}}, ["status.listen", "address:port"]),
        ({"center": {"url": "center.local"}}, ["center.url", "not a URL like http://host:8086"]),
        ({"center": {"url": "http://[::1"}}, ["center.url"]),
        ({"center": {"url": "http://a b"}}, ["center.url", "'http://a b' is not a URL"]),
        ({"center": {"url": "http://c?token=x"}}, ["center.url", "query"]),
        ({"center": {"url": "http://me:pw@c"}}, ["center.url", "user or password"]),
        ({"center": {"url": "http://c", "influx_url": "influx"}}, ["center.influx_url", "http://host:8086"]),
        ({"center": {"url": "http://c", "require_tls": True}}, ["https://"]),
        ({"center": {"url": "http://c/api/devices"}}, ["center.url", "write 'http://c'"]),
        ({"center": {"url": "http://c", "influx_url": "http://i:1/api/v2/"}}, ["center.influx_url", "'http://i:1'"]),
        ({"center": {"url": "http://c", "client_key": "/k"}}, ["center.client_key", "center.client_cert"]),
        ({"center": {}}, ["center.url: missing"]),
        ({"influxdb": {"url": "http://i", "org": "o", "bucket": "b"}}, ["[center] and [influxdb]"]),
        ({"log": {"level": "loud"}}, ["log.level", "'info'"]),
    ],
)
def test_a_wrong_value_names_key_value_and_what_would_be_right(data, words):
    text = problem({**CENTER, **VIRTUAL, **data})
    for word in words:
        assert word in text


def test_a_calibration_and_what_is_derived_are_for_any_driver():
    table = {"driver": "virtual", "offset": {"Temperature": -1}, "scale": {"Temperature": 1.1}, "altitude": 250}
    table |= {"calibrate": {"Humidity": [[11.5, 11.3], [76, 75.3]]}, "derive": ["VPD", "DewPoint"], "dew_point": True}
    (sensor,) = parse_settings({**CENTER, "sensor": [table]}, "agent.toml", {}).sensor
    assert sensor.options == {}
    assert sensor.calibrate == {"Humidity": ((11.5, 11.3), (76.0, 75.3))}
    assert (sensor.offset, sensor.scale) == ({"Temperature": -1.0}, {"Temperature": 1.1})
    assert (sensor.derive, sensor.dew_point, sensor.altitude) == (("VPD", "DewPoint"), True, 250.0)


def test_what_the_file_names_is_known_so_that_the_center_does_not_overrule_it():
    settings = parse_settings(
        {**CENTER, "sensor": [{"driver": "virtual", "interval": "1s"}]}, "agent.toml", {"IOT_DEVICE_ID": "x"}
    )
    assert {"center.url", "sensor[0].interval", "device.id"} <= settings.named
    assert "device.location" not in settings.named


def test_an_address_is_taken_without_the_slash_that_people_put_behind_it():
    assert (
        parse_settings({"center": {"url": "http://c/iot/"}, **VIRTUAL}, "agent.toml", {}).center.url == "http://c/iot"
    )
    for wrong, right in (("http://i:8086", "http://i:8086"), ("https://i/db/", "https://i/db")):
        given = {"url": f"{wrong.rstrip('/')}/api/v2/write", "org": "o", "bucket": "b", "token": "t"}
        assert f"write '{right}'" in problem({**VIRTUAL, "influxdb": given})
    influx = {"url": "http://i/", "org": "o", "bucket": "b", "token": "t"}
    assert parse_settings({"influxdb": influx, **VIRTUAL}, "agent.toml", {}).influxdb.url == "http://i"


def test_nowhere_to_deliver_is_said():
    assert "neither [center] nor [influxdb]" in problem(VIRTUAL)


def test_all_problems_are_told_at_once():
    text = problem({**CENTER, "buffer": {"loss_window": 1, "max_size": 2}, "delivery": {"timeout": "x"}})
    assert text.count("agent.toml: ") == 3


def test_values_of_the_wrong_type_hide_no_other_problem_and_make_none():
    sensors = [{"driver": 5, "interval": "1ms"}, {"driver": "virtual", "heartbeat": "x", "stuck_after": -1}]
    wrong = {"center": {"url": "http://c", "api": "best"}, "buffer": {"max_size": True, "memory_points": 1}}
    text = problem({**wrong, "sensor": sensors, "device": {"id": "a b"}, "log": 3})
    told = [line.partition(" = ")[0].removeprefix("agent.toml: ") for line in text.splitlines()]
    sensor = "[[sensor]] {}: {}".format
    of_sensors = [sensor(1, "driver"), sensor(1, "interval"), sensor(2, "heartbeat"), sensor(2, "stuck_after")]
    others = ["center.api", "buffer.max_size", "buffer.memory_points", "device.id", "log"]
    assert sorted(told) == sorted([*others, *of_sensors])
    text = problem({"center": {"ulr": "http://c"}, "influxdb": {"url": 5, "org": "o", "bucket": "b"}})
    assert len(text.splitlines()) == 3  # not: both are there


def test_a_wrong_key_of_a_sensor_hides_no_wrong_option_of_its_driver():
    wrong = {"interval": "25", "foo": 1, "bus": -3}
    text = problem({**CENTER, "sensor": [{"driver": "bme280", **wrong}, {"driver": 5, "bar": 1}]})
    told = [line.split(": ", 2)[2].split(" = ")[0].split(" is ")[0] for line in text.splitlines()]
    assert [said.partition(": ")[0] for said in told] == ["interval", "driver", "no option 'foo'", "option 'bus'"]


def test_sensors_that_share_no_quantity_need_no_name():
    tables = [{"driver": "sht4x"}, {"driver": "veml7700"}, {"driver": "ds18b20", "name": "roof"}]
    assert len(parse_settings({**CENTER, "sensor": tables[:2]}, "agent.toml", {}).sensor) == 2
    assert "[[sensor]] 1: another (roof" in problem({**CENTER, "sensor": tables})


def test_a_problem_is_told_with_its_line_and_a_sensor_by_number_and_name(tmp_path):
    path = tmp_path / "agent.toml"
    path.write_text(
        '[center]\nurl = "center"\n\n[[sensor]]\ndriver = "virtual"\n[sensor.offset]\nWarmth = 1\n\n'
        '[[ sensor ]]  # the other\nname = "roof"\ndriver = "ds18b20"\n  stuck_after = -1\n[sensr]\n'
        "[buffer]\nmemory_points = 1\n"
    )
    with pytest.raises(ConfigError) as caught:
        load_settings(path, {})
    assert str(caught.value).splitlines()[0] == f"{path}:13: sensr: no such section; did you mean sensor?"
    assert len(str(caught.value).splitlines()) == 6
    path.write_text(path.read_text().replace("[sensr]", ""))
    with pytest.raises(ConfigError) as caught:
        load_settings(path, {})
    told = [line.removeprefix(f"{path}") for line in str(caught.value).splitlines()]
    assert told[:3] == [
        ":12: [[sensor]] 2 (roof): stuck_after = -1: must be 0 (never) to 1000000 readings",
        ":15: buffer.memory_points = 1: must be 100 to 10000000 points",
        ":2: center.url: 'center' is not a URL like http://host:8086",
    ]
    assert told[3].startswith(":6: [[sensor]] 1: offset.Warmth: no quantity that is measured; ")
    assert told[4].startswith(":4: [[sensor]] 1: another (roof, the 2. [[sensor]]) measures Temperature as well")
    assert len(told) == 5


def test_a_wrong_token_is_not_repeated():
    text = problem({**VIRTUAL, "influxdb": {"url": "http://i", "org": "o", "bucket": "b", "token": 987654321}})
    assert "987654321" not in text
    assert "influxdb.token" in text


@pytest.mark.parametrize("token", ["to ken", "to\nken", "tökèn"])
def test_a_token_that_no_header_can_hold_is_refused_and_not_repeated(token):
    text = problem({**VIRTUAL, "influxdb": {"url": "http://i", "org": "o", "bucket": "b", "token": token}})
    assert token not in text
    assert "printable ASCII" in text


@pytest.mark.parametrize("url", ["http://me:hush@c:5000", "ftp://me:hush@c", "http://me:hush@c d"])
def test_promise_7_a_password_in_a_url_is_refused_and_not_repeated(url):
    text = problem({**VIRTUAL, "center": {"url": url}})
    assert "hush" not in text
    assert "center.url" in text


def test_a_file_as_windows_notepad_writes_it_is_read(tmp_path):
    (tmp_path / "agent.toml").write_bytes(b'\xef\xbb\xbf[center]\r\nurl = "http://c"\r\n')
    assert load_settings(tmp_path / "agent.toml", {}).center.url == "http://c"


@pytest.mark.parametrize(
    "content",
    [b"a=" + b"[" * 100_000, b"[log]\nlevel = 1" + b"0" * 5000, b"#" * 2_000_000],
    ids=["nested without end", "a number of 5000 digits", "2 MB"],
)
def test_rubbish_is_said_to_be_so(tmp_path, content):
    (tmp_path / "agent.toml").write_bytes(content)
    with pytest.raises(ConfigError, match=r"not valid TOML|is it a configuration"):
        load_settings(tmp_path / "agent.toml", {})


def test_a_missing_file_and_one_that_is_not_toml_say_so(tmp_path):
    with pytest.raises(ConfigError, match="iot-agent init makes one"):
        load_settings(tmp_path / "agent.toml", {})
    (tmp_path / "agent.toml").write_text("[device\n")
    with pytest.raises(ConfigError, match="not valid TOML"):
        load_settings(tmp_path / "agent.toml", {})
    (tmp_path / "agent.toml").write_bytes(b"\n# \xb0C\n")
    with pytest.raises(ConfigError, match="line 2 is not UTF-8: save it as UTF-8"):
        load_settings(tmp_path / "agent.toml", {})


def test_promise_7_a_token_that_others_can_read_is_a_warning(tmp_path):
    file = tmp_path / "agent.toml"
    file.write_text('[influxdb]\nurl="http://i"\norg="o"\nbucket="b"\ntoken="t0ken"\n[[sensor]]\ndriver="virtual"\n')
    file.chmod(0o644)
    settings = load_settings(file, {})
    assert "chmod 600" in settings.warnings[0]
    assert "t0ken" not in repr(settings)
    assert settings.influxdb.token == Secret("t0ken")
    file.chmod(0o600)
    assert load_settings(file, {}).warnings == ()


def section_class(name):
    named = {"sensor": s.SensorSettings, "influxdb": s.InfluxSettings, "center": s.CenterSettings}
    return {**named, "mqtt": s.MqttSettings}.get(name) or next(
        f.default_factory for f in fields(s.Settings) if f.name == name
    )


def documented():
    """{section: {key: value}} of the example with every comment that shows a key taken as a line."""
    text = re.sub(r"(?m)^# (\[\w+\]|[a-z_]+ = .*)$", r"\1", EXAMPLE.read_text())
    data = tomllib.loads(text)
    data["sensor"] = data["sensor"][0]
    return data


def test_the_example_is_a_right_configuration():
    settings = load_settings(EXAMPLE, {})
    assert settings.center.url == "http://center.local:5000"


def test_the_example_documents_every_section_and_key_and_nothing_else():
    data = documented()
    assert set(data) == {f.name for f in fields(s.Settings)} - {"warnings", "named"}
    for name, table in data.items():
        known = {f.name for f in fields(section_class(name))} - {"options"}
        if name == "sensor":
            assert {"bus", "address"} <= set(table)
            table = {key: table[key] for key in table if key in known}  # noqa: PLW2901
        assert set(table) == known, name


def test_the_defaults_that_the_example_shows_are_the_defaults():
    examples_only = {
        ("device", "id"), ("device", "location"), ("sensor", "name"), ("sensor", "sample_every"),
        ("sensor", "deadband"), ("sensor", "max_rate"), ("sensor", "offset"), ("sensor", "scale"),
        ("sensor", "calibrate"), ("sensor", "altitude"), ("center", "url"), ("center", "enrollment_key_file"),
        ("center", "ca_file"), ("center", "client_cert"), ("center", "client_key"), ("buffer", "max_age"),
        ("center", "influx_url"), ("center", "influx_org"), ("center", "influx_bucket"),
        ("mqtt", "port"), ("mqtt", "username"), ("mqtt", "password_file"),
    }  # fmt: skip
    data = documented()
    del data["influxdb"]
    del data["mqtt"]["ca_file"]  # for tls alone
    settings = parse_settings({**data, "sensor": [data["sensor"]]}, "example", {})
    bare = parse_settings({**CENTER, "mqtt": {"host": "homeassistant.local"}}, "bare", {})
    for name in data:
        shown, default = getattr(settings, name), getattr(bare, name)
        if name == "sensor":
            shown, default = shown[0], default[0]
        assert is_dataclass(shown)
        for f in fields(shown):
            if (name, f.name) not in examples_only and f.name != "options":
                assert getattr(shown, f.name) == getattr(default, f.name), (name, f.name)


def test_a_file_that_is_named_and_not_there_is_a_warning(tmp_path):
    file = tmp_path / "agent.toml"
    file.write_text(
        f'[influxdb]\nurl="http://i"\norg="o"\nbucket="b"\ntoken_file="{tmp_path}/token"\n[[sensor]]\ndriver="virtual"\n'
    )
    settings = load_settings(file, {})
    (found,) = missing_files(settings)
    assert "there is no such file" in found
    (tmp_path / "token").write_text("t")
    assert list(missing_files(settings)) == []
