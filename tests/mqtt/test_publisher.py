"""The publisher against a broker that hangs, forgets and refuses: only newest values, bounded, and in words."""

import gc
import json
import logging
import socket
import threading
import weakref
from pathlib import Path

import pytest

from agent.config.parse import parse_settings
from agent.doctor.finding import Patient
from agent.doctor.server import mqtt as examined
from agent.mqtt import broker as connections
from agent.mqtt import publisher as publishers
from agent.mqtt.broker import Broker
from agent.mqtt.kept import Kept
from agent.mqtt.publisher import Publisher
from agent.sensing.sensor_status import Refusal, SensorStatus
from agent.status.health_rules import failing, problems
from agent.status.metrics import exposition
from agent.status.page import render
from agent.status.words import rows
from agent.util.atomic import write_atomic
from agent.util.loops import LoopThread
from drivers.base import boot_ns
from tests.mqtt.brokers import FakeBroker
from tests.snapshots import snapshot
from tests.waiting import wait_for

SECOND = 1_000_000_000
TOPIC = "iot/pi-1/bench"
MEASURED = {"Temperature": 21.5, "Humidity": 44.0}


def settings(port, sensors=("bench",), **mqtt):
    tables = {
        "influxdb": {"url": "http://127.0.0.1:9", "org": "o", "bucket": "b", "token": "token-1"},
        "sensor": [{"driver": "virtual", "name": name} for name in sensors],
        "mqtt": {"host": "127.0.0.1", "port": port, **mqtt},
    }
    return parse_settings(tables, "agent.toml", {})


class World:
    """A publisher at work, and what it is told of its sensors."""

    def __init__(self, folder, port, sensors=("bench",), **mqtt):
        self.sensors = {name: self.status(name) for name in sensors}
        self.clock_good = True
        self.publisher = Publisher(
            settings(port, sensors, **mqtt),
            "pi-1",
            folder,
            told=lambda: {
                "sensors": [{"name": n, "quantities": ["Temperature", "Humidity"], "report": "mean"} for n in sensors]
            },
            sensors=lambda: list(self.sensors.values()),
            snapshot=snapshot,
            date=lambda moment: 1_790_000_000 * SECOND + moment if self.clock_good else None,
        )
        self.thread = LoopThread("mqtt", self.publisher)

    def status(self, name, **changed):
        values = {"values": MEASURED, "boot_ns": boot_ns(), "alive_boot_ns": boot_ns(), **changed}
        return SensorStatus(name, "virtual", "a sensor", 600.0, **values)

    def take(self, temperature, name="bench"):
        self.publisher.take(name, {"Temperature": temperature, "Humidity": 44.0}, boot_ns())

    def state(self):
        return self.publisher.snapshot()["state"]

    def stop(self):
        self.thread.stop()
        self.thread.join(40)
        assert not self.thread.is_alive()


@pytest.fixture
def broker():
    fake = FakeBroker()
    yield fake
    fake.close()


@pytest.fixture
def world(tmp_path, broker):
    worlds = []

    def make(**options):
        worlds.append(World(tmp_path, options.pop("port", broker.port), **options))
        return worlds[-1]

    yield make
    for one in worlds:
        one.stop()


def temperatures(broker):
    return [json.loads(payload).get("Temperature") for payload in broker.of(TOPIC)]


def test_promise_4_online_is_said_last_and_before_the_first_reading_no_value_is(world, broker):
    one = world()
    wait_for(lambda: broker.of("iot/pi-1/status"))
    topics = [topic for topic, _ in broker.published]
    assert topics == ["homeassistant/device/pi-1/config", TOPIC, "iot/pi-1/agent", "iot/pi-1/status"]
    assert json.loads(broker.of(TOPIC)[0]) == {"problem": "no reading yet"}
    one.take(20.0)
    wait_for(lambda: temperatures(broker)[-1] == 20.0)
    assert json.loads(broker.of(TOPIC)[-1])["time"].startswith("20")
    assert broker.of("iot/pi-1/status") == [b"online"]


def test_at_a_clean_end_too_the_broker_publishes_the_will(world, broker):
    one = world()
    wait_for(lambda: broker.of("iot/pi-1/status"))
    one.stop()
    wait_for(lambda: broker.farewells == [0x04])  # MQTT 5.0, 3.14.2.1: Disconnect with Will Message


def test_without_a_right_clock_there_is_no_time(world, broker):
    one = world()
    one.clock_good = False
    one.take(20.0)
    wait_for(lambda: 20.0 in temperatures(broker))
    assert json.loads(broker.of(TOPIC)[-1]) == {"Temperature": 20.0, "Humidity": 44.0}


def test_promise_6_a_broker_that_never_acknowledges_gets_one_message_a_topic_and_then_the_newest(
    world, broker, monkeypatch
):
    one = world()
    wait_for(lambda: broker.of("iot/pi-1/status"))
    broker.acknowledges = False
    for number in range(600):  # a minute at 10 Hz
        one.take(float(number))
    wait_for(lambda: temperatures(broker)[-1] is not None)
    assert len(temperatures(broker)) == 2
    assert len(one.publisher._broker.waiting()) <= publishers.AT_ONCE
    assert len(one.publisher._broker._client._out_messages) <= publishers.AT_ONCE
    assert len(one.publisher._messages) == 4
    broker.published.clear()
    broker.acknowledges = True
    monkeypatch.setattr(connections, "ACKNOWLEDGE_S", 0.0)  # so long has passed
    wait_for(lambda: "does not acknowledge" in one.publisher.snapshot()["error"])
    monkeypatch.setattr(connections, "ACKNOWLEDGE_S", 15.0)
    wait_for(lambda: broker.of("iot/pi-1/status"))
    assert set(temperatures(broker)) == {599.0}


def test_nothing_older_than_the_newest_is_sent_after_an_outage(world, broker):
    one = world()
    one.take(1.0)
    wait_for(lambda: 1.0 in temperatures(broker))
    broker.acknowledges = False
    one.take(2.0)
    wait_for(lambda: 2.0 in temperatures(broker))  # it is on the way when the connection ends
    broker.published.clear()
    broker.acknowledges = True
    one.take(3.0)
    broker.drop()
    wait_for(lambda: broker.of("iot/pi-1/status"))
    assert temperatures(broker) == [3.0]
    assert broker.of("homeassistant/device/pi-1/config")  # and all else is said again


def test_taking_waits_for_nothing_while_the_broker_takes_nothing(world, broker):
    broker.reads.clear()
    one = world()
    wait_for(lambda: broker.open)
    done = threading.Event()

    def measure():
        for number in range(1000):
            one.take(float(number))
        done.set()

    threading.Thread(target=measure, daemon=True).start()
    assert done.wait(40)
    assert len(one.publisher._newest) == 1


def test_a_broker_that_says_nothing_is_named(world, broker, monkeypatch):
    monkeypatch.setattr(connections, "CONNECT_S", 0.05)
    broker.reads.clear()
    one = world()
    wait_for(lambda: "says nothing" in one.publisher.snapshot()["error"])
    assert one.state() == "failing"
    broker.reads.set()
    monkeypatch.setattr(connections, "CONNECT_S", 5.0)
    wait_for(lambda: one.state() == "connected")
    assert one.publisher.snapshot()["error"] == ""


def test_two_clients_with_one_id_are_told_so_and_the_elder_does_not_fight(world, broker, caplog, monkeypatch):
    caplog.set_level(logging.WARNING)
    one = world()
    for times, farewell in enumerate((b"", b"\xe0\x01\x8e", b"", b"")):  # mosquitto says nothing; others: taken over
        wait_for(lambda times=times: len(broker.connects) == times + 1 and one.state() == "connected")
        assert one.publisher._attempts == times  # it waits longer each time
        broker.drop(farewell)
    wait_for(lambda: len(broker.connects) == 5 and one.state() == "connected")
    assert "does another agent have this device id?" in one.publisher.snapshot()["error"]
    assert caplog.text.count("does another agent have this device id?") == 1
    monkeypatch.setattr(publishers, "STEADY_S", 0.0)  # so long has passed
    wait_for(lambda: one.publisher.snapshot()["error"] == "")


def test_what_is_wrong_after_brief_connections_is_said_as_it_is(world, broker):
    one = world()
    for times in range(3):
        wait_for(lambda times=times: len(broker.connects) == times + 1 and one.state() == "connected")
        broker.drop()
    wait_for(lambda: len(broker.connects) == 4 and "another agent" in one.publisher.snapshot()["error"])
    broker.server.shutdown(socket.SHUT_RDWR)
    broker.drop()
    wait_for(lambda: "Connection refused" in one.publisher.snapshot()["error"])


def test_a_broker_that_never_acknowledges_is_not_connected_and_logged_once(world, broker, caplog, monkeypatch):
    monkeypatch.setattr(connections, "ACKNOWLEDGE_S", 0.0)
    caplog.set_level(logging.INFO)
    broker.acknowledges = False
    one = world()
    wait_for(lambda: len(broker.connects) > 4)
    found = one.publisher.snapshot()
    assert (found["state"], found["published"]) == ("failing", 0)
    assert "does not acknowledge what it is sent" in found["error"]
    assert len(caplog.records) == 1


def test_a_broker_without_mqtt_5_is_named(world, broker):
    broker.knows_5 = False
    one = world()
    wait_for(lambda: "it does not know MQTT 5" in one.publisher.snapshot()["error"])


@pytest.mark.parametrize(
    ("reason", "said"),
    [
        (0x84, "(Unsupported protocol version): it does not know MQTT 5"),
        (0x87, "(Not authorized): set mqtt.username and mqtt.password_file"),
        (0x88, "refuses the connection (Server unavailable)"),
    ],
)
def test_a_refusal_is_said_in_words_and_logged_once(world, broker, caplog, reason, said):
    caplog.set_level(logging.WARNING)
    broker.answer = reason
    one = world()
    wait_for(lambda: len(broker.connects) > 2)
    assert said in one.publisher.snapshot()["error"]
    assert caplog.text.count(said) == 1


def test_what_does_not_listen_and_what_is_no_name_are_said_in_words(world):
    with socket.create_server(("127.0.0.1", 0)) as free:
        port = free.getsockname()[1]
    one = world(port=port)
    wait_for(lambda: f"127.0.0.1:{port}: Connection refused: check that" in one.publisher.snapshot()["error"])
    for host, words in (("no-such-host.invalid", "the name of the host cannot be resolved"), ("a" * 70, "too long")):
        other = world(host=host)
        wait_for(lambda words=words, other=other: words in other.publisher.snapshot()["error"])


def test_promise_4_a_sensor_that_fails_has_no_values_until_it_reads_again(world, broker):
    one = world()
    one.take(20.0)
    wait_for(lambda: 20.0 in temperatures(broker))
    why = {"failing_since_boot_ns": boot_ns(), "problem": "nothing at 0x76", "cause": "NotFound"}
    one.sensors["bench"] = one.status("bench", **why)
    wait_for(lambda: json.loads(broker.of(TOPIC)[-1]) == {"problem": "nothing at 0x76"})
    one.sensors["bench"] = one.status("bench")  # and a deadband keeps the same value back
    wait_for(lambda: temperatures(broker)[-1] == 20.0)


def test_promise_4_a_sensor_that_is_silent_has_no_values(world, broker):
    one = world()
    one.take(20.0)
    wait_for(lambda: 20.0 in temperatures(broker))
    one.sensors["bench"] = one.status("bench", boot_ns=boot_ns() - 1801 * SECOND)  # three intervals ago
    wait_for(lambda: json.loads(broker.of(TOPIC)[-1]) == {"problem": "no reading any more"})


def test_promise_4_a_refused_quantity_is_not_shown_as_it_was(world, broker):
    one = world()
    one.take(20.0)
    wait_for(lambda: 20.0 in temperatures(broker))
    refused = {"Humidity": Refusal("out of range", boot_ns())}
    one.sensors["bench"] = one.status("bench", refused=refused)
    wait_for(lambda: json.loads(broker.of(TOPIC)[-1]).keys() == {"Temperature", "time"})
    refused["Temperature"] = Refusal("too fast", boot_ns())
    wait_for(lambda: json.loads(broker.of(TOPIC)[-1]) == {"problem": "out of range"})


def test_twenty_sensors_are_all_said(world, broker):
    names = tuple(f"sensor-{number}" for number in range(20))
    one = world(sensors=names)
    for number, name in enumerate(names):
        one.take(float(number), name)
    wait_for(lambda: broker.of("iot/pi-1/status"))
    found = [json.loads(broker.of(f"iot/pi-1/{name}")[-1])["Temperature"] for name in names]
    assert found == [float(number) for number in range(20)]


def test_without_discovery_home_assistant_is_told_nothing(world, broker):
    world(discovery=False)
    wait_for(lambda: broker.of("iot/pi-1/status"))
    assert not any(topic.startswith("homeassistant") for topic, _ in broker.published)


def test_what_an_earlier_configuration_left_is_removed(world, broker):
    one = world(sensors=("old", "bench"))
    wait_for(lambda: broker.of("iot/pi-1/status"))
    one.stop()
    broker.published.clear()
    world()
    wait_for(lambda: broker.of("iot/pi-1/status"))
    assert broker.of("iot/pi-1/old") == [b""]
    components = json.loads(broker.of("homeassistant/device/pi-1/config")[0])["components"]
    assert components["old_Temperature"] == {"platform": "sensor"}
    assert len(components["bench_Temperature"]) > 1


def test_another_prefix_leaves_nothing_under_the_old_one(world, broker):
    one = world()
    wait_for(lambda: broker.of("iot/pi-1/status"))
    one.stop()
    broker.published.clear()
    world(topic="garden")
    wait_for(lambda: broker.of("garden/pi-1/status"))
    assert [broker.of(f"iot/pi-1/{name}") for name in ("bench", "agent", "status")] == [[b""]] * 3


@pytest.mark.parametrize("damage", [b"", b"{}", b"\xff", b'{"broker": 5}', b"[" * 100_000])
def test_promise_3_a_damaged_record_is_as_good_as_none(world, broker, tmp_path, damage):
    (tmp_path / "mqtt.json").write_bytes(damage)
    world()
    wait_for(lambda: broker.of("iot/pi-1/status"))


def test_a_full_disk_keeps_nothing_from_the_broker(world, broker, monkeypatch, tmp_path):
    monkeypatch.setattr("agent.mqtt.kept.write_atomic", lambda *_: (_ for _ in ()).throw(OSError(28, "No space left")))
    world()
    wait_for(lambda: broker.of("iot/pi-1/status"))
    monkeypatch.setattr("agent.mqtt.kept.write_atomic", write_atomic)
    monkeypatch.setattr(publishers, "TELL_S", 0.0)  # so long has passed, and there is room again
    wait_for(lambda: "iot/pi-1/status" in Kept.of(tmp_path).topics)


def test_a_password_that_is_not_there_is_named_and_no_secret_is_shown(world, tmp_path, caplog):
    one = world(username="iot", password_file=str(tmp_path / "password"))
    wait_for(lambda: "password is not there" in one.publisher.snapshot()["error"])
    (tmp_path / "password").write_text("s3same-open")
    (tmp_path / "password").chmod(0o644)
    wait_for(lambda: "can be read by others" in one.publisher.snapshot()["error"])
    (tmp_path / "password").chmod(0o640)
    wait_for(lambda: one.state() == "connected")
    assert "s3same-open" not in caplog.text + str(one.publisher.snapshot())


@pytest.mark.filterwarnings("ignore:.*SSLSocket")  # paho leaves it to the collector
def test_the_longest_hang_of_a_handshake_is_that_of_the_loop_alone(world, broker, tmp_path):
    """A stop while the connection is being made returns; the thread is left behind and ends by itself."""
    broker.reads.clear()  # a TLS handshake to it never ends
    one = world(tls=True)
    wait_for(lambda: broker.open)
    one.thread.stop()
    one.thread.join(0.1)
    assert one.thread.is_alive()
    broker.drop()
    one.thread.join(40)
    assert not one.thread.is_alive()


def test_promise_6_what_is_closed_is_gone_with_its_sockets_at_once(broker):
    gc.disable()  # which comes by once in hundreds of connections
    try:
        made = [Broker(settings(broker.port).mqtt, "pi-1", listen="homeassistant/status")]
        client = weakref.ref(made[0]._client)
        wait_for(lambda: made[0].open)
        made.pop().close()
        wait_for(lambda: client() is None)
    finally:
        gc.enable()


def test_a_flood_at_the_topic_of_births_wakes_nobody(broker):
    woken = []
    one = Broker(settings(broker.port).mqtt, "pi-1", listen="homeassistant/status", changed=lambda: woken.append(1))
    wait_for(lambda: one.open)
    broker.open[0].sendall(b"\x30\x19\x00\x14homeassistant/status\x00on" * 1000)
    wait_for(lambda: one.heard)
    one.close()
    assert len(woken) == 1  # by the connection


def test_a_will_that_came_late_does_not_stand(world, broker, monkeypatch):
    one = world()
    wait_for(lambda: broker.of("iot/pi-1/status"))
    monkeypatch.setattr(publishers, "TELL_S", 0.0)
    wait_for(lambda: len(broker.of("iot/pi-1/status")) > 2)
    monkeypatch.setattr(publishers, "TELL_S", 60.0)
    assert len(broker.of("homeassistant/device/pi-1/config")) == 1
    assert one.state() == "connected"


@pytest.mark.parametrize(
    "garbage", [b"\x00", b"\xff" * 100, b"\x40\x02\x00", b"\x20\x02\x00\x00", b"\xe0\x7f", b"\x30" * 5000]
)
def test_what_a_broker_should_not_say_ends_the_connection_at_most(world, broker, monkeypatch, garbage):
    monkeypatch.setattr(connections, "ACKNOWLEDGE_S", 0.5)
    monkeypatch.setattr(publishers, "TELL_S", 0.2)
    one = world()
    wait_for(lambda: one.state() == "connected")
    for connection in broker.open:
        connection.sendall(garbage)
    for number in range(5):
        one.take(float(number))
    broker.published.clear()
    wait_for(lambda: broker.of("iot/pi-1/status") and temperatures(broker)[-1:] == [4.0])


def test_status_metrics_and_page_say_how_it_is_and_healthz_does_not_fail_for_it():
    now = boot_ns()
    state = {"broker": "broker:1883", "state": "failing", "since_boot_ns": now - 90 * SECOND, "published": 1234}
    found = snapshot(now, mqtt={**state, "error": "broker:1883 does not answer"})
    assert ("MQTT", "broker:1883, failing for 90 s, 1,234 messages published") in rows(found)
    assert "MQTT: broker:1883 does not answer" in problems(found)
    assert failing(found, 0) == failing(snapshot(now), 0)
    text = exposition(found).decode()
    assert "\niot_agent_mqtt_connected 0.0\n" in text
    assert "\niot_agent_mqtt_published_total 1234.0\n" in text
    page = render(found, {}, 300)
    assert "MQTT: broker:1883 does not answer" in page
    without = snapshot(now, mqtt=None)
    assert "mqtt" not in exposition(without).decode()
    assert "MQTT" not in dict(rows(without))


def test_the_doctor_repeats_what_the_running_agent_has_against_it(broker):
    running = {"device_id": "pi-1", "mqtt": {"error": "the broker does not let iot write"}}
    patient = Patient(Path("agent.toml"), Path("state"), settings=settings(broker.port), running=running)
    (found,) = examined(patient)
    assert (found.verdict, running["mqtt"]["error"] in found.seen) == ("warning", True)
    assert list(examined(Patient(Path("agent.toml"), Path("state"), settings=None, running=running))) == []
