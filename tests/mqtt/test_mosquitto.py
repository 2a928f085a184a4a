"""Agents and a real mosquitto: values, the will, a broker that goes and comes back, logins, TLS, reload, unregister."""

import json
import signal
import subprocess
from datetime import datetime
from itertools import pairwise

import pytest

from agent.config.parse import parse_settings
from agent.doctor.finding import Patient
from agent.doctor.server import mqtt as examined
from agent.mqtt import broker as connections
from agent.mqtt import publisher as publishers
from agent.mqtt.broker import Broker
from agent.mqtt.kept import Kept, withdraw
from agent.service import Service
from agent.status.health_rules import failing
from tests.agents import Agent, cli
from tests.certificates import make_certificate
from tests.mqtt.brokers import Mosquitto, listening
from tests.servers import InfluxServer
from tests.system.lateness import beside
from tests.waiting import wait_for

pytestmark = pytest.mark.mosquitto
STATUS, STATE, CONFIG = "iot/pi-1/status", "iot/pi-1/bench", "homeassistant/device/pi-1/config"
PASSWORD = "s3same-open"


@pytest.fixture
def broker(tmp_path):
    (tmp_path / "broker").mkdir()
    one = Mosquitto(tmp_path / "broker")
    yield one
    one.stop()


def settings(port, sensor=None, server=None, **mqtt):
    target = {"url": "http://127.0.0.1:9", "org": "o", "bucket": "b", "token": "token-1"}
    if server:
        target = {"url": server.url, "org": server.org, "bucket": server.bucket, "token": server.token}
    tables = {
        "device": {"id": "pi-1"},
        "sensor": [{"driver": "virtual", "interval": "100ms", "name": "bench", **(sensor or {})}],
        "influxdb": target,
        "delivery": {"flush_interval": "200ms"},
        "clock": {"trust": "always"},
        "status": {"listen": ""},
    }
    if port:
        tables["mqtt"] = {"host": "localhost", "port": port, **mqtt}
    return parse_settings(tables, "agent.toml", {})


@pytest.fixture
def service(tmp_path):
    made = []

    def start(*arguments, **options):
        made.append(Service(settings(*arguments, **options), tmp_path / "state"))
        made[-1].start()
        return made[-1]

    yield start
    for one in made:
        one.stop()


def mqtt(service):
    return service.snapshot()["mqtt"]


def of(seen, topic):
    return [payload for found, payload, _ in list(seen) if found == topic]


def test_ten_readings_a_second_arrive_each_and_a_stop_says_offline(service, broker, tmp_path):
    with listening(broker.port) as seen, beside(tmp_path / "reference") as machine_s:
        agent = service(broker.port)
        wait_for(lambda: len(of(seen, STATE)) > 30)
        agent.stop()
        wait_for(lambda: of(seen, STATUS)[-1:] == [b"offline"])
        late_s = machine_s()
    times = [found["time"] for found in map(json.loads, of(seen, STATE)) if "time" in found]
    assert len(times) <= agent.ledger()["measured"]
    assert times == sorted(set(times))
    gaps = [(after - before).total_seconds() for before, after in pairwise(map(datetime.fromisoformat, times))]
    assert max(gaps) < 0.19 + late_s  # at 0.2 s one is missing, as where the machine has no time to publish it
    assert of(seen, STATUS)[0] == b"online"


def test_promise_2_without_a_broker_all_else_goes_on_and_it_is_no_failure_of_the_agent(service, broker):
    with InfluxServer() as server:
        broker.stop()
        agent = service(broker.port, server=server)
        wait_for(lambda: "Connection refused" in mqtt(agent)["error"])
        before = len(server.points)
        wait_for(lambda: len(server.points) > before + 5)
        assert not [text for text in failing(agent.snapshot(), 0) if "MQTT" in text]


def test_after_an_outage_the_newest_value_and_discovery_are_said_again(service, broker):
    agent = service(broker.port)
    wait_for(lambda: mqtt(agent)["published"] > 3)
    broker.stop()
    wait_for(lambda: mqtt(agent)["state"] == "failing")
    before = agent.ledger()["measured"]
    wait_for(lambda: agent.ledger()["measured"] > before + 10)
    agent.stop_measuring()
    broker.start()
    with listening(broker.port) as seen:
        wait_for(lambda: of(seen, STATUS)[-1:] == [b"online"])
    assert of(seen, CONFIG)
    (state,) = [found for found in map(json.loads, of(seen, STATE)) if "time" in found]
    newest = agent._parts.mqtt._newest["bench"]
    assert state.items() >= newest[0].items()
    assert "ended" not in mqtt(agent)["error"]


def test_a_frozen_broker_stops_neither_measuring_nor_the_agent(service, broker, monkeypatch):
    agent = service(broker.port)
    wait_for(lambda: mqtt(agent)["published"] > 3)
    broker.process.send_signal(signal.SIGSTOP)
    monkeypatch.setattr(connections, "ACKNOWLEDGE_S", 0.3)
    before = agent.ledger()["measured"]
    wait_for(lambda: "does not acknowledge" in mqtt(agent)["error"])
    monkeypatch.setattr(connections, "ACKNOWLEDGE_S", 15.0)
    wait_for(lambda: agent.ledger()["measured"] > before + 10)
    broker.process.send_signal(signal.SIGCONT)
    wait_for(lambda: mqtt(agent)["state"] == "connected" and mqtt(agent)["error"] == "")
    wait_for(lambda: f"{STATUS} online" in broker.retained())


def test_home_assistants_birth_repeats_everything_once_in_a_while(service, broker, monkeypatch):
    monkeypatch.setattr(publishers, "REPEAT_S", 0.0)
    with listening(broker.port) as seen:
        agent = service(broker.port)
        wait_for(lambda: of(seen, STATUS))
        birth = ["mosquitto_pub", "-p", str(broker.port), "-t", "homeassistant/status", "-m"]
        subprocess.run([*birth, "online"], check=True)
        wait_for(lambda: len(of(seen, CONFIG)) == 2 and len(of(seen, STATUS)) > 1)
        monkeypatch.setattr(publishers, "REPEAT_S", 3600.0)
        began = len(of(seen, STATE))
        for rubbish in ("online", "offline", "{" * 1000, "\x00\xff", "x" * 60_000, "x" * 100_000):
            command = ["mosquitto_pub", "-p", str(broker.port), "-t", "homeassistant/status", "-s"]
            subprocess.run(command, input=rubbish.encode("latin1"), check=True)
        wait_for(lambda: len(of(seen, STATE)) > began + 5)
        assert len(of(seen, CONFIG)) == 2
        assert mqtt(agent)["state"] == "connected"


@pytest.fixture
def guarded(tmp_path):
    """With a login, and an access list by which iot writes below iot/ alone."""
    folder = tmp_path / "guarded"
    folder.mkdir()
    subprocess.run(["mosquitto_passwd", "-b", "-c", folder / "passwords", "iot", PASSWORD], check=True)
    (folder / "acl").write_text("user iot\ntopic readwrite iot/#\n")
    for name in ("passwords", "acl"):
        (folder / name).chmod(0o644)
    folder.chmod(0o755)
    one = Mosquitto(
        folder, "allow_anonymous false", f"password_file {folder}/passwords", f"acl_file {folder}/acl", "user root"
    )
    yield one
    one.stop()


def password(folder, text):
    file = folder / "mqtt.password"
    file.write_text(f"{text}\n")
    file.chmod(0o600)
    return str(file)


def examine(port, **options):
    (found,) = examined(Patient("agent.toml", "state", settings=settings(port, **options), timeout_s=5))
    return found


def test_promise_7_a_wrong_password_is_said_in_words_and_the_right_one_is_taken_up(service, guarded, tmp_path, caplog):
    login = {"username": "iot", "password_file": password(tmp_path, "wrong")}
    agent = service(guarded.port, **login)
    refused = f"localhost:{guarded.port} refuses the connection (Not authorized)"
    wait_for(lambda: refused in mqtt(agent)["error"])
    found = examine(guarded.port, **login)
    assert (found.verdict, found.seen) == ("failed", refused)
    assert found.remedy == "set mqtt.username and mqtt.password_file as the broker knows them"
    assert examine(guarded.port).remedy == found.remedy
    password(tmp_path, PASSWORD)
    wait_for(lambda: mqtt(agent)["state"] == "connected")
    found = examine(guarded.port, **login)
    assert (found.verdict, found.seen) == ("ok", f"localhost:{guarded.port} takes the connection and the login of iot")
    assert not {"wrong", PASSWORD} & set(caplog.text.split())
    assert PASSWORD not in json.dumps(agent.snapshot(), default=str)


def test_what_the_access_list_forbids_is_said_and_the_rest_is_published(service, guarded, tmp_path, caplog):
    agent = service(guarded.port, username="iot", password_file=password(tmp_path, PASSWORD))
    wait_for(lambda: f"does not let iot write to {CONFIG}" in mqtt(agent)["error"])
    login = ("-u", "iot", "-P", PASSWORD)
    wait_for(lambda: any(line == f"{STATUS} online" for line in guarded.retained(*login)))
    agent.reload(settings(guarded.port, topic="other", username="iot", password_file=str(tmp_path / "mqtt.password")))
    wait_for(lambda: f"does not let iot write to {CONFIG}" in mqtt(agent)["error"])
    wait_for(lambda: mqtt(agent)["published"] == 3)  # the empty ones below iot/, as everything else is refused
    before = agent.ledger()["measured"]
    wait_for(lambda: agent.ledger()["measured"] > before + 20)
    assert mqtt(agent)["published"] == 3
    assert caplog.text.count("does not let iot write") == 2  # once each, and not with each reading


def test_what_the_access_list_forbade_is_published_once_it_is_allowed(service, guarded, tmp_path, monkeypatch):
    monkeypatch.setattr(publishers, "TELL_S", 0.2)
    agent = service(guarded.port, username="iot", password_file=password(tmp_path, PASSWORD))
    wait_for(lambda: f"does not let iot write to {CONFIG}" in mqtt(agent)["error"])
    (guarded.folder / "acl").write_text("user iot\ntopic readwrite #\n")
    guarded.process.send_signal(signal.SIGHUP)
    wait_for(lambda: mqtt(agent)["error"] == "")
    login = ("-u", "iot", "-P", PASSWORD)
    wait_for(lambda: any(line.startswith(CONFIG) for line in guarded.retained(*login)))


def test_what_may_not_be_removed_stays_kept(service, guarded, tmp_path, monkeypatch):
    login = {"username": "iot", "password_file": password(tmp_path, PASSWORD)}
    (tmp_path / "state").mkdir()
    Kept.of(tmp_path / "state").change(["other/pi-1/bench"], [])
    monkeypatch.setattr(publishers, "TELL_S", 0.0)
    agent = service(guarded.port, discovery=False, **login)
    wait_for(lambda: "does not let iot write to other/pi-1/bench" in mqtt(agent)["error"])
    before = mqtt(agent)["published"]
    wait_for(lambda: mqtt(agent)["published"] > before + 50)
    assert "other/pi-1/bench" in Kept.of(tmp_path / "state").topics


def test_unregister_leaves_no_will_of_a_connection_that_the_broker_still_believes_in(broker, tmp_path):
    """As after a power cut: the broker hears nothing, and says offline later."""
    lost = Broker(settings(broker.port).mqtt, "pi-1", will=(STATUS, b"offline"))
    wait_for(lambda: lost.open)
    (tmp_path / "state").mkdir()
    withdraw(settings(broker.port), "pi-1", tmp_path / "state")
    wait_for(lost.trouble)
    lost.close()
    assert broker.retained() == []


@pytest.mark.filterwarnings("ignore:.*SSLSocket")  # paho leaves it to the collector
def test_tls_with_an_authority_of_ones_own(service, tmp_path):
    folder = tmp_path / "tls"
    folder.mkdir()
    cert, key = make_certificate(folder)
    other, _ = make_certificate(folder, "other")
    options = f"cafile {cert}", f"certfile {cert}", f"keyfile {key}", "allow_anonymous true", "user root"
    broker = Mosquitto(folder, *options)
    try:
        agent = service(broker.port, tls=True, ca_file=str(cert))
        wait_for(lambda: mqtt(agent)["published"] > 3)
        assert examine(broker.port, tls=True, ca_file=str(cert)).verdict == "ok"
        found = examine(broker.port, tls=True, ca_file=str(other))
        assert found.seen.startswith(f"localhost:{broker.port} with TLS: TLS failed (SSLCertVerificationError")
        assert "ca_file" in found.remedy
        named = examine(broker.port, tls=True, ca_file=str(cert), host="127.0.0.1")
        assert named.remedy == "the address must be the name that the certificate was made for"
        assert "as mqtt.tls says" in examine(broker.port).remedy
        missing = examine(broker.port, tls=True, ca_file=str(tmp_path / "none.pem"))
        assert (missing.verdict, "mqtt.ca_file" in missing.seen) == ("failed", True)
    finally:
        broker.stop()


@pytest.mark.filterwarnings("ignore:.*SSLSocket")
def test_tls_to_a_port_without_is_said(broker):
    assert "with TLS" in examine(broker.port, tls=True).seen  # it resets the connection, or what it says is no TLS


def test_a_reload_adds_changes_and_takes_it_out(service, broker):
    agent = service(None)
    assert agent.snapshot()["mqtt"] is None
    agent.reload(settings(broker.port))
    wait_for(lambda: f"{STATUS} online" in broker.retained())
    agent.reload(settings(broker.port, topic="garden", sensor={"name": "roof"}))
    wait_for(lambda: "garden/pi-1/status online" in broker.retained())
    topics = {line.split()[0] for line in broker.retained()}
    assert topics == {CONFIG, "garden/pi-1/roof", "garden/pi-1/agent", "garden/pi-1/status"}
    agent.reload(settings(broker.port, topic="garden", sensor={"name": "roof"}, discovery=False))
    wait_for(lambda: not any(line.startswith(CONFIG) for line in broker.retained()))
    agent.reload(settings(None))
    assert agent.snapshot()["mqtt"] is None
    wait_for(lambda: "garden/pi-1/status offline" in broker.retained())


MQTT = """
[mqtt]
host = "127.0.0.1"
port = {}
"""


def test_a_whole_agent_from_start_over_kill_to_unregister(broker, tmp_path):
    with InfluxServer() as server, listening(broker.port) as seen:
        agent = Agent(tmp_path, server.url, more=MQTT.format(broker.port))
        try:
            wait_for(lambda: len(of(seen, "iot/pi-1/virtual")) > 5)
            status = cli("status", *agent.where)
            assert f"127.0.0.1:{broker.port}, connected for" in " ".join(status.stdout.split())
            assert "the agent runs" in cli("unregister", *agent.where).stderr
        finally:
            agent.stop(signal.SIGKILL)
        wait_for(lambda: of(seen, STATUS)[-1:] == [b"offline"])
    assert len(broker.retained()) == 4
    agent.write(server.url, more=MQTT.format(9))  # nothing listens there
    away = cli("unregister", *agent.where)
    assert away.returncode == 1
    assert "stays at the MQTT broker" in away.stderr
    assert "call unregister again" in away.stderr
    agent.write(server.url, more=MQTT.format(broker.port))
    done = cli("unregister", *agent.where)
    assert (done.returncode, "removed pi-1 at the MQTT broker" in done.stdout) == (0, True)
    assert broker.retained() == []
    assert cli("unregister", *agent.where).returncode == 0  # again, although nothing is there


def test_unregister_removes_what_an_earlier_configuration_left_also_without_a_center(broker, service, tmp_path):
    agent = service(broker.port, sensor={"name": "attic"})
    wait_for(lambda: f"{STATUS} online" in broker.retained())
    agent.stop()
    config = tmp_path / "agent.toml"
    config.write_text(f'[device]\nid = "pi-1"\n[center]\nurl = "http://127.0.0.1:9"\n{MQTT.format(broker.port)}')
    done = cli("unregister", "--config", config, "--state-dir", tmp_path / "state")
    assert "removed pi-1 at the MQTT broker" in done.stdout
    assert "127.0.0.1:9" in done.stderr  # the center is not reached, and that is said as well
    assert broker.retained() == []
