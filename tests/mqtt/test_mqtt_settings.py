"""[mqtt] of agent.toml: what is wrong gets a clear error; without paho-mqtt a clear sentence."""

import importlib.util
import subprocess
import sys

import pytest
from click.testing import CliRunner

from agent.cli.run import check
from agent.config.parse import parse_settings
from agent.doctor.finding import Patient
from agent.doctor.server import mqtt as examined
from agent.mqtt.broker import Broker, MqttError
from agent.util.errors import ConfigError

TABLES = {"influxdb": {"url": "http://127.0.0.1:9", "org": "o", "bucket": "b", "token": "token-1"}}


def settings(sensor=None, **mqtt):
    sensors = [{"driver": "virtual", **(sensor or {})}]
    return parse_settings({**TABLES, "sensor": sensors, "mqtt": {"host": "broker.local", **mqtt}}, "agent.toml", {})


def test_the_port_is_the_usual_one_unless_it_is_given():
    assert settings().mqtt.place == ("broker.local", 1883)
    assert settings(tls=True).mqtt.place == ("broker.local", 8883)
    assert settings(tls=True, port=1).mqtt.place == ("broker.local", 1)


@pytest.mark.parametrize("host", ["192.168.1.5", "fe80::1%eth0", "::1", "broker", "my_broker.lan", "core-mosquitto"])
def test_hosts_are_names_and_addresses(host):
    assert settings(host=host).mqtt.place[0] == host


@pytest.mark.parametrize("topic", ["iot", "house/garden", "Küche", "my house", "a" * 100])
def test_topics_are_levels(topic):
    assert settings(topic=topic).mqtt.topic == topic


@pytest.mark.parametrize(
    ("wrong", "said"),
    [
        ({"host": "mqtt://broker"}, "mqtt.host = 'mqtt://broker': must be a name or an address alone"),
        ({"host": ""}, "mqtt.host"),
        ({"host": "a b"}, "mqtt.host"),
        ({"host": "user:geheim@broker"}, "mqtt.host"),
        ({"host": 5}, "mqtt.host = 5: must be text in quotes"),
        ({"port": 0}, "mqtt.port = 0: must be 1 to 65535"),
        ({"port": 65536}, "mqtt.port"),
        ({"port": "1883"}, "must be a whole number"),
        ({"topic": "iot/#"}, "mqtt.topic = 'iot/#': must be levels"),
        ({"topic": "+"}, "mqtt.topic"),
        ({"topic": "$SYS"}, "mqtt.topic"),
        ({"topic": ""}, "mqtt.topic"),
        ({"topic": "/iot"}, "mqtt.topic"),
        ({"topic": "iot/"}, "mqtt.topic"),
        ({"topic": "a//b"}, "mqtt.topic"),
        ({"topic": "a\0b"}, "mqtt.topic = 'a\\x00b': must be printable"),
        ({"topic": "a" * 101}, "mqtt.topic"),
        ({"username": ""}, 'mqtt.username = ""'),
        ({"password_file": "/p"}, "mqtt.password_file is there without mqtt.username"),
        ({"ca_file": "/ca"}, "mqtt.ca_file is there without mqtt.tls = true"),
        ({"tls": "yes"}, "must be true or false"),
        ({"discovery": 1}, "must be true or false"),
        ({"password": "geheim"}, "mqtt.password: no such key; did you mean password_file?"),
        ({"qos": 2}, "mqtt.qos: no such key"),
        ({"sensor": {"name": "status"}}, "name = 'status': [mqtt] has a topic of this name"),
        ({"sensor": {"name": "agent"}}, "name = 'agent': [mqtt] has a topic of this name"),
        ({"sensor": {"name": "a+b"}}, "name = 'a+b'"),
    ],
)
def test_what_is_wrong_gets_a_clear_error(wrong, said):
    with pytest.raises(ConfigError) as raised:
        settings(**wrong)
    assert said in str(raised.value)
    assert "Traceback" not in str(raised.value)


def test_a_host_is_needed():
    with pytest.raises(ConfigError, match=r"mqtt\.host: missing"):
        parse_settings({**TABLES, "mqtt": {}}, "agent.toml", {})


def test_a_sensor_may_be_called_status_where_there_is_no_mqtt():
    assert parse_settings({**TABLES, "sensor": [{"driver": "virtual", "name": "status"}]}, "agent.toml", {})


def test_without_paho_everybody_is_told_what_to_install(monkeypatch):
    find = importlib.util.find_spec
    monkeypatch.setattr("agent.config.parse.find_spec", lambda name: None if name == "paho" else find(name))
    for name in [name for name in sys.modules if name.split(".")[0] == "paho"]:
        monkeypatch.delitem(sys.modules, name)
    monkeypatch.setitem(sys.modules, "paho", None)  # an import of it fails from here on
    found = settings()
    assert any("pip install 'iot-edge-agent[mqtt]'" in text for text in found.warnings)  # check, doctor, status
    with pytest.raises(MqttError, match="pip install"):  # the log, and `status` again
        Broker(found.mqtt, "id")
    (finding,) = examined(Patient("agent.toml", "state", settings=found, running={"device_id": "pi-1"}))
    assert (finding.verdict, "pip install" in finding.remedy) == ("failed", True)


def test_without_mqtt_paho_is_not_imported():
    program = "import sys, agent.service, agent.doctor.doctor, agent.cli.register; sys.exit('paho' in sys.modules)"
    subprocess.run([sys.executable, "-c", program], check=True)


@pytest.mark.parametrize(
    ("text", "mode", "said"),
    [
        ("s3same-open", 0o644, "mqtt.password_file: {} can be read by others: chmod o-rwx"),
        ("", 0o640, "mqtt.password_file: {} does not hold a secret"),
        (None, 0, "mqtt.password_file = '{}': there is no such file (yet)"),
        ("s3same-open", 0o640, "is right"),
    ],
)
def test_check_looks_at_the_passwords_file_and_shows_nothing_of_it(tmp_path, text, mode, said):
    password, config = tmp_path / "mqtt.password", tmp_path / "agent.toml"
    if text is not None:
        password.write_text(text)
        password.chmod(mode)
    config.write_text(
        '[[sensor]]\ndriver = "virtual"\n[influxdb]\nurl = "http://i"\norg = "o"\nbucket = "b"\ntoken = "t1"\n'
        f'[mqtt]\nhost = "broker.local"\nusername = "iot"\npassword_file = "{password}"\n'
    )
    config.chmod(0o600)
    done = CliRunner().invoke(check, ["--config", str(config)])
    assert said.format(password) in done.output
    assert done.exit_code == (78 if "password_file: " in said else 0)
    assert "s3same-open" not in done.output
