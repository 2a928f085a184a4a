"""center.toml, config.ini and the environment."""

import dataclasses
import re
from pathlib import Path

import pytest

from agent.config.units import format_duration
from center.errors import SettingsError
from center.settings import Settings, check
from center.settings_files import load

EXAMPLE = Path(__file__).parents[2] / "center" / "center.toml.example"
INI = "[APP]\nINFLUX_URL = http://ini:8086\nINFLUX_TOKEN = t%1\nINFLUX_ORG = my-org\nINFLUX_BUCKET = readings\n"


def loaded(folder, toml=None, ini=None, **environ):
    if toml is not None:
        (folder / "center.toml").write_text(toml)
    if ini is not None:
        (folder / "config.ini").write_text(ini)
    return load(environ=environ, folder=folder)


def test_the_tutorials_config_ini_is_enough(tmp_path):
    settings = loaded(tmp_path, ini=INI + "INFLUX_BUCKET_AUTH = devices\n")
    check(settings)
    influx = settings.influxdb
    assert (influx.url, influx.token.reveal(), influx.org) == ("http://ini:8086", "t%1", "my-org")
    assert (influx.bucket, influx.bucket_auth) == ("readings", "devices")


@pytest.mark.parametrize(
    ("ini", "words"),
    [
        ("INFLUX_TOKEN = top-secret\n", "config.ini:1: the line [APP] is missing above this one"),
        ("[APP]\nINFLUX_URL = http://i\nINFLUX_TOKEN top-secret\n", "config.ini:3: this line is no NAME = value"),
        ("[APP]\nINFLUX_TOKEN = top-secret\nINFLUX_TOKEN = top-secret\n", "config.ini:3: this name is there twice"),
    ],
)
def test_promise_7_what_is_wrong_in_config_ini_is_said_in_one_line_without_what_it_holds(tmp_path, ini, words):
    with pytest.raises(SettingsError) as refused:
        loaded(tmp_path, ini=ini)
    assert str(refused.value) == f"{tmp_path}/{words}"


@pytest.mark.parametrize(
    ("encoding", "words"), [("utf-16", "it is UTF-16: save it"), ("latin-1", "line 3 is not UTF-8")]
)
def test_files_that_an_editor_saved_in_another_encoding_say_so(tmp_path, encoding, words):
    for name, text in (("center.toml", "[server]\nport = 1\n# 20 °C\n"), ("config.ini", f"{INI}# 20 °C\n")):
        file = tmp_path / name
        file.write_text(text, encoding="utf-8-sig")
        load(environ={}, folder=tmp_path)
        file.write_text(text, encoding=encoding)
        with pytest.raises(SettingsError, match=rf"{name}: {words if name == 'center.toml' else ''}"):
            load(environ={}, folder=tmp_path)
        file.unlink()


def test_center_toml_wins_over_config_ini_and_the_environment_over_both(tmp_path):
    toml = '[influxdb]\nurl = "http://toml:8086"\norg = "toml-org"\n'
    influx = loaded(tmp_path, toml, INI, INFLUX_ORG="env-org").influxdb
    assert (influx.url, influx.org, influx.bucket) == ("http://toml:8086", "env-org", "readings")


def test_the_environment_alone_is_enough(tmp_path):
    settings = loaded(tmp_path, INFLUX_URL="http://e:1", INFLUX_TOKEN="t", INFLUX_ORG="o", TRUSTED_HOSTS="a.example, b")
    check(settings)
    assert settings.server.trusted_hosts == ("a.example", "b")


def test_a_token_may_be_in_a_file_and_is_never_shown(tmp_path):
    (tmp_path / "token").write_text("top-secret\n")
    toml = f'[influxdb]\nurl = "http://x"\norg = "o"\ntoken_file = "{tmp_path}/token"\n'
    settings = loaded(tmp_path, toml)
    assert settings.influxdb.token.reveal() == "top-secret"
    assert "top-secret" not in repr(settings)
    with pytest.raises(SettingsError, match=r"token_file = '/no/such'"):
        loaded(tmp_path, '[influxdb]\ntoken_file = "/no/such"\n')


@pytest.mark.parametrize(
    ("toml", "message"),
    [
        ("prot = 1", "prot: no such section; known are"),
        ("embeded = true", "embeded: no such section; did you mean embedded?"),
        ("[server]\nprt = 1", "server.prt: no such key; did you mean port?"),
        ('[server]\nport = "x"', "server.port = 'x': must be a whole number"),
        ("[server]\nhost = 3", "server.host = 3: must be text in quotes"),
        ('[server]\nmax_body = "12"', "server.max_body = '12': must be a size with its unit"),
        ('[embedded]\nretention = "7x"', "embedded.retention = '7x': must be a duration"),
        ("[influxdb]\ntoken = 12345", "influxdb.token = ***: must be text"),
        ("server = 1", "server = 1: must be a table"),
        ('[server]\ntrusted_hosts = "pi.local"', "server.trusted_hosts = 'pi.local': must be a list of texts"),
        ('[devices]\ndefault_lat = "50"', "devices.default_lat = '50': must be a number"),
        ("[server", "center.toml: "),
    ],
)
def test_a_mistake_is_one_line_with_file_key_value_and_what_would_be_right(tmp_path, toml, message):
    with pytest.raises(SettingsError, match=re.escape(message)) as refused:
        loaded(tmp_path, toml)
    assert "center.toml" in str(refused.value)
    assert "\n" not in str(refused.value) or "[server" in toml
    assert "12345" not in str(refused.value)


def test_all_mistakes_are_told_at_once(tmp_path):
    with pytest.raises(SettingsError) as refused:
        loaded(tmp_path, '[server]\nport = "x"\nhost = 3\n[devices]\nsilent_after = 3\n')
    assert len(str(refused.value).splitlines()) == 3


@pytest.mark.parametrize(
    ("environ", "message"),
    [
        ({}, "INFLUX_URL, INFLUX_TOKEN, INFLUX_ORG not set"),
        ({"INFLUX_BUCKET": "a", "INFLUX_BUCKET_AUTH": "a"}, "need a bucket of their own"),
        ({"INFLUX_URL": "localhost:8086"}, "influxdb.url: 'localhost:8086' is not a URL like http"),
        ({"INFLUX_URL": "http://me:password@x"}, "influxdb.url: a URL with a user or password in it"),
        ({"INFLUX_TOKEN": "two\nlines"}, "influxdb.token: should be one line"),
    ],
)
def test_settings_no_center_can_run_with(tmp_path, environ, message):
    base = {"INFLUX_URL": "http://x", "INFLUX_TOKEN": "t", "INFLUX_ORG": "o"} if environ else {}
    with pytest.raises(SettingsError, match=message):
        check(loaded(tmp_path, **(base | environ)))


def test_the_example_documents_every_setting_with_its_default(tmp_path):
    """Uncommented, it loads; and what it says are the defaults are the defaults, but for the ones without one."""
    text = EXAMPLE.read_text()
    keys = re.findall(r"^# (\w+) = ", text, re.MULTILINE)
    sections = {"server": "server", "influxdb": "influxdb", "victoria": "victoria", "registry": "registry",
                "embedded": "store", "devices": "devices"}  # fmt: skip
    wanted = [
        field.name
        for name in sections.values()
        for field in dataclasses.fields(type(getattr(Settings(), name)))
    ]  # fmt: skip
    assert sorted(keys) == sorted([*wanted, "enabled"])
    live = re.sub(r"^# (\w+ = )", r"\1", text, flags=re.MULTILINE)
    for name in ("influxdb.token", "victoria.token"):
        (tmp_path / name).write_text("t")
        live = live.replace(f"/etc/iot-center/{name}", str(tmp_path / name))
    settings = loaded(tmp_path, live)
    invented = {"public_url", "session_key", "token", "token_file", "url", "org", "device_url", "ca_file", "data",
                "retention", "default_lat", "default_lon", "write_url"}  # fmt: skip
    for name in sections.values():
        given, default = getattr(settings, name), getattr(Settings(), name)
        for field in dataclasses.fields(given):
            if field.name not in invented and name != "registry":
                assert getattr(given, field.name) == getattr(default, field.name), f"{name}.{field.name}"
    assert format_duration(Settings().devices.silent_after) == "5m"
    assert Settings().server.max_body == 50_000_000


def test_a_file_with_a_token_that_others_can_read_is_said_once_and_never_shown(tmp_path, caplog):
    toml = '[influxdb]\nurl = "http://x"\ntoken = "top-secret"\n'
    (tmp_path / "center.toml").write_text(toml)
    (tmp_path / "center.toml").chmod(0o644)
    loaded(tmp_path)
    assert len(caplog.messages) == 1
    assert "center.toml holds a token and others can read it: chmod 600" in caplog.text
    assert "top-secret" not in caplog.text
    caplog.clear()
    (tmp_path / "center.toml").chmod(0o600)
    loaded(tmp_path)
    assert not caplog.messages
    (tmp_path / "center.toml").chmod(0o644)
    (tmp_path / "token").write_text("top-secret\n")
    (tmp_path / "token").chmod(0o640)
    loaded(tmp_path, f'[influxdb]\ntoken_file = "{tmp_path}/token"\n')
    assert "token holds a token and others" in caplog.text
    caplog.clear()
    loaded(tmp_path, "[server]\nport = 1\n", INI)
    assert "config.ini holds a token" in caplog.text


@pytest.mark.parametrize(
    ("toml", "series", "registry"),
    [
        ('[influxdb]\nurl = "http://i:1"', "influxdb", "influxdb"),
        ('[victoria]\nurl = "http://v:1"', "victoria", "embedded"),
        (
            '[victoria]\nurl = "http://v:1"\n[influxdb]\nurl = "http://i:1"\ntoken = "t"\norg = "o"',
            "victoria",
            "influxdb",
        ),
        (
            '[victoria]\nurl = "http://v:1"\n[influxdb]\nurl = "http://i:1"\n[registry]\nstore = "embedded"',
            "victoria",
            "embedded",
        ),
        ('[embedded]\nenabled = true\n[victoria]\nurl = "http://v:1"', "embedded", "embedded"),
    ],
)
def test_registrations_may_be_elsewhere_than_series_on_victoriametrics(tmp_path, toml, series, registry):
    settings = loaded(tmp_path, toml)
    assert (settings.series_on, settings.registry_on) == (series, registry)
    if series != "influxdb":
        check(settings)


@pytest.mark.parametrize(
    ("toml", "message"),
    [
        ('[registry]\nstore = "embedded"\n[influxdb]\nurl = "http://i:1"\ntoken = "t"\norg = "o"', "registry.store"),
        ('[embedded]\nenabled = true\n[registry]\nstore = "influxdb"', "with series on embedded registrations are"),
        ('[victoria]\nurl = "v:1"', "victoria.url"),
        ('[victoria]\nwrite_url = "http://v:1"', "victoria.url"),
        ('[victoria]\nurl = "http://v:1"\nbucket = ""', "victoria.org and bucket"),
        ('[victoria]\nurl = "http://v:1"\nwrite_url = "v"', "victoria.write_url"),
        ('[victoria]\nurl = "http://v:1"\ntoken = "a b"', "victoria.token: should be one line"),
        ('[victoria]\nurl = "http://v:1"\n[registry]\nstore = "influxdb"', "INFLUX_URL, INFLUX_TOKEN"),
        ('[registry]\nstore = "etcd"', "registry.store"),
    ],
)
def test_stores_that_do_not_go_together_are_refused(tmp_path, toml, message):
    with pytest.raises(SettingsError, match=message):
        check(loaded(tmp_path, toml))
