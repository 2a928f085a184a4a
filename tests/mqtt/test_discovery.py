"""What is said over MQTT, by Home Assistant's own rules (tests/data/home-assistant.json names their source)."""

import contextlib
import itertools
import json
import re
import unicodedata
from pathlib import Path

import jinja2
import pytest

from agent.mqtt.discovery import Topics, config, plain, rfc3339, state, written
from agent.sensing.sensor_status import Refusal, SensorStatus
from drivers.base import QUANTITIES

RULES = json.loads((Path(__file__).parents[1] / "data" / "home-assistant.json").read_text("utf-8"))
TOPICS = Topics("iot", "greenhouse-3")


def told(name="bench", quantities=tuple(QUANTITIES), report="mean"):
    return {"name": name, "quantities": list(quantities), "report": report}


def check(message, topics=TOPICS):
    """As Home Assistant would: what it refuses, or would only warn of, is an AssertionError."""
    assert re.fullmatch(RULES["topic"], topics.config)
    message = json.loads(written(message))
    assert not set(RULES["required"]) - message.keys()
    assert not message.keys() - set(RULES["message"])
    assert not message["device"].keys() - set(RULES["device"])
    assert message["device"]["identifiers"]
    assert not message["origin"].keys() - set(RULES["origin"])
    assert message["origin"]["name"]
    ids = []
    for key, entity in message["components"].items():
        assert re.fullmatch(r"[a-zA-Z0-9_-]+", key)  # it becomes a part of an id that is split at spaces
        platform = entity["platform"]
        if len(entity) == 1:
            continue
        ids.append(entity["unique_id"])
        assert not entity.keys() - {*RULES["entity"], *RULES[platform]}
        assert entity["name"]
        assert entity.get("entity_category") in {*RULES["entity_category"], None}
        assert entity.get("availability_mode", "all") in RULES["availability_mode"]
        for place in (*message["availability"], *entity.get("availability", ())):
            assert not place.keys() - set(RULES["availability"])
            check_topic(place["topic"])
        check_topic(entity["state_topic"])
        kind, unit, course = (entity.get(k) for k in ("device_class", "unit_of_measurement", "state_class"))
        assert course in {*RULES["state_class"], None}
        if kind is not None:
            assert unit in RULES["units"][kind]
            assert course is None or course in RULES["state_classes"][kind]
        if unit is not None:
            assert unicodedata.normalize("NFC", unit) == unit
            assert "μ" not in unit  # but the micro sign, as Home Assistant
        assert isinstance(entity.get("suggested_display_precision", 0), int)
    assert len(ids) == len(set(ids))
    return message["components"]


def check_topic(topic):
    assert topic
    assert topic.isprintable()
    assert not set(topic) & {"+", "#"}
    assert len(topic.encode()) < 65_536


@pytest.mark.parametrize("report", ["mean", "mean_min_max"])
def test_every_quantity_and_statistic_of_the_table_keeps_home_assistants_rules(report):
    found = check(config(TOPICS, [told(report=report)]))
    for name, quantity in QUANTITIES.items():
        entity = found[f"bench_{name}"]
        assert entity["name"] == quantity.shown
        assert entity.get("device_class", "") == quantity.device_class
        assert entity["enabled_by_default"] is True
        if report == "mean_min_max":
            assert found[f"bench_{name}_min"]["enabled_by_default"] is False


def test_any_two_quantities_of_any_two_sensors_keep_them_too():
    for pair in itertools.combinations(QUANTITIES, 2):
        check(config(TOPICS, [told("a", pair), told("b.c", pair, "mean_min_max")]))


def test_twenty_sensors_are_told_apart_by_name_and_the_message_stays_small():
    message = config(TOPICS, [told(f"sensor-{n}", ("Temperature", "Humidity", "Pressure")) for n in range(20)])
    found = check(message)
    assert found["sensor-7_Humidity"]["name"] == "sensor-7 Humidity"
    assert len(written(message)) < 65_536


def test_the_agents_own_state_is_diagnostic():
    found = check(config(TOPICS, []))
    assert {key: entity["entity_category"] for key, entity in found.items()} == dict.fromkeys(
        ("agent_pending", "agent_last_delivery", "agent_clock_good"), "diagnostic"
    )


def test_an_entity_of_an_earlier_configuration_is_removed_and_a_present_one_is_not():
    found = check(config(TOPICS, [told(quantities=("Temperature",))], known=("old_CO2", "bench_Temperature")))
    assert found["old_CO2"] == {"platform": "sensor"}
    assert found["bench_Temperature"]["device_class"] == "temperature"


@pytest.mark.parametrize("device", ["a.b", "a_b", "-", "a-b", "A" * 64, "1.2.3"])
@pytest.mark.parametrize("sensor", ["x.y", "x_y", "my sensor", "Küche", "a+b#/c", "..", "x" * 64])
def test_ids_with_odd_characters_keep_the_rules(device, sensor):
    topics = Topics("iot", device)
    check(config(topics, [told(sensor)]), topics)
    assert topics.of(sensor).count("/") == 2


def test_ids_that_differ_stay_different():
    assert len({plain(text) for text in ("a.b", "a_b", "a b", "a/b", "a+b", "ab")}) == 6
    assert len({Topics("iot", text).config for text in ("a.b", "a_b")}) == 2
    assert TOPICS.of("bench") == "iot/greenhouse-3/bench"
    assert TOPICS.config == "homeassistant/device/greenhouse-3/config"


def rendered(template, payload):
    """As Home Assistant renders it: `value_json` where the payload is JSON."""
    variables = {"value": payload}
    with contextlib.suppress(ValueError):
        variables["value_json"] = json.loads(payload)
    return jinja2.Environment(undefined=jinja2.StrictUndefined).from_string(template).render(variables)


@pytest.mark.parametrize(
    ("payload", "available", "value"),
    [
        ('{"Temperature":21.5,"time":"2026-11-30T21:25:31.687Z"}', "online", "21.5"),
        ('{"Temperature":0.0}', "online", "0.0"),
        ('{"Humidity":44.0}', "offline", "None"),
        ('{"problem":"nothing answers"}', "offline", "None"),
        ("", "offline", "None"),
    ],
)
def test_a_quantity_is_available_while_its_sensors_message_has_it(payload, available, value):
    entity = config(TOPICS, [told()])["components"]["bench_Temperature"]
    assert [place["topic"] for place in entity["availability"]] == ["iot/greenhouse-3/status", entity["state_topic"]]
    assert entity["availability_mode"] == "all"
    assert rendered(entity["availability"][1]["value_template"], payload) == available
    assert rendered(entity["value_template"], payload) == value  # None: unknown


@pytest.mark.parametrize(
    ("key", "payload", "value"),
    [
        ("pending", '{"pending":0,"clock_good":false,"last_delivery":null}', "0"),
        ("clock_good", '{"pending":0,"clock_good":false,"last_delivery":null}', "OFF"),
        ("clock_good", '{"pending":0,"clock_good":true,"last_delivery":null}', "ON"),
        ("last_delivery", '{"pending":0,"clock_good":false,"last_delivery":null}', "None"),
        ("last_delivery", '{"last_delivery":"2026-11-30T21:25:31.687Z"}', "2026-11-30T21:25:31.687Z"),
    ],
)
def test_the_agents_own_state_is_read_as_it_is_meant(key, payload, value):
    entity = config(TOPICS, [])["components"][f"agent_{key}"]
    assert entity["state_topic"] == "iot/greenhouse-3/agent"
    assert rendered(entity["value_template"], payload) == value


MEASURED = {"Temperature": 21.5, "Humidity": 44.0, "Humidity_min": 43.0, "DewPoint": 8.7}
NOW = 5000 * 1_000_000_000


def said(present, time_ns=None, values=MEASURED, **changed):
    """Of a sensor whose last reading has these quantities."""
    status = {"values": dict.fromkeys(present, 0.0), "boot_ns": NOW, **changed}
    return state(SensorStatus("bench", "virtual", "a sensor", 10.0, **status), values, time_ns, NOW)


@pytest.mark.parametrize(
    ("present", "left"),
    [
        ({"Temperature", "Humidity", "DewPoint"}, {"Temperature", "Humidity", "Humidity_min", "DewPoint"}),
        ({"Temperature"}, {"Temperature"}),  # with humidity go its statistics, and what was derived from it
        ({"DewPoint"}, {"problem"}),  # of an earlier reading: nothing is measured any more
        (set(), {"problem"}),
    ],
)
def test_promise_4_what_is_no_longer_measured_is_not_shown_as_it_was(present, left):
    assert said(present).keys() == left


@pytest.mark.parametrize(
    ("changed", "why"),
    [
        ({"failing_since_boot_ns": NOW, "problem": "nothing at 0x76"}, "nothing at 0x76"),
        ({"failing_since_boot_ns": NOW, "problem": "a\x1b[2J\n" + "b" * 1000}, "a\ufffd[2J " + "b" * 293 + "…"),
        ({"boot_ns": NOW - 31_000_000_000}, "no reading any more"),
        ({"refused": {name: Refusal("out of range", NOW) for name in ("Temperature", "Humidity")}}, "out of range"),
        ({"refused": {"reading": Refusal("it is empty", NOW)}, "values": {}}, "it is empty"),
    ],
)
def test_promise_4_where_no_value_holds_the_problem_is_said(changed, why):
    assert said(MEASURED, **changed) == {"problem": why}


def test_a_place_that_is_measured_is_a_value():
    assert said({"Lat", "Lon"}, values={"Lat": 50.0, "Lon": 14.4}) == {"Lat": 50.0, "Lon": 14.4}


def test_promise_5_without_a_right_clock_no_time_is_said():
    assert "time" not in said({"Temperature"})
    found = said({"Temperature"}, 1_790_000_000_123_456_789)
    assert found == {"Temperature": 21.5, "time": "2026-09-21T14:13:20.123Z"}
    assert rfc3339(1_790_000_000_999_999_999) == "2026-09-21T14:13:20.999Z"
