"""A quantity that is refused or stuck is named wherever somebody looks, not in the doctor alone."""

import pytest
from line_protocol_parser import parse_line
from prometheus_client.parser import text_string_to_metric_families

from agent.cli.status import lines
from agent.doctor.device import sensors
from agent.doctor.finding import Patient
from agent.status.board import Board
from agent.status.health_rules import failing, problems, quiet, stuck
from agent.status.metrics import exposition
from agent.status.page import render
from agent.status.self_telemetry import health_line
from tests.snapshots import SECOND, in_trouble, sensor, snapshot

NOW = 10**13
DEAD = {"Humidity": {"why": "the element is <dead>", "since_boot_ns": NOW - 400 * SECOND}}


@pytest.fixture
def taken():
    values = {"Temperature": 21.5, "Pressure": 1013.2}
    applied = {"Temperature": "1 * measured - 0.8 °C"}
    found = sensor(NOW, refused=DEAD, stuck={"Pressure": NOW - 9000 * SECOND}, values=values, calibration=applied)
    return snapshot(NOW, sensors=[found])


def test_healthz_fails_for_a_quantity_that_is_refused_for_too_long(taken):
    assert failing(taken, 300) == ["Sensor bme280: Humidity refused for 6.7 min: the element is <dead>"]
    assert failing(taken, 600) == []


def test_healthz_warns_of_one_that_is_stuck_which_may_be_true(taken):
    assert ["Pressure" in text for text in stuck(taken)] == [True]
    assert not any("Pressure" in text for text in failing(taken, 0))


def test_the_page_lists_both(taken):
    assert len(problems(taken)) == 2
    page = render(taken, {}, 300)
    assert "Humidity refused for 6.7 min: the element is &lt;dead&gt;" in page
    assert "Pressure has the very same raw value again and again" in page


def test_metrics_have_both_by_quantity(taken):
    samples = {
        (s.name, s.labels.get("quantity")): s.value
        for family in text_string_to_metric_families(exposition(taken).decode())
        for s in family.samples
    }
    for quantity, refused, held in (("Temperature", 0, 0), ("Humidity", 1, 0), ("Pressure", 0, 1)):
        assert samples["iot_agent_sensor_refused", quantity] == refused
        assert samples["iot_agent_sensor_stuck", quantity] == held
    assert ("iot_agent_humidity_percent", None) not in samples


def test_a_sensor_that_gives_nothing_since_something_is_wrong_with_it_is_quiet():
    boot = 10**15
    refused = {"since_boot_ns": boot - 61 * SECOND, "why": "nonsense"}
    late = {"since_boot_ns": boot - 59 * SECOND, "why": "nonsense"}
    told = [
        sensor(boot, name="well"),
        *in_trouble(boot),
        sensor(boot, name="all refused", refused={"": refused}),
        sensor(boot, name="each refused", refused=dict.fromkeys(("Temperature", "Humidity", "Pressure"), refused)),
        sensor(boot, name="not read yet", values={}, boot_ns=None),
        sensor(boot, name="failing from the start", values={}, boot_ns=None, failing_since_boot_ns=boot - 61 * SECOND),
        sensor(boot, name="not for long", refused={"": late}, failing_since_boot_ns=boot - 59 * SECOND),
        sensor(boot, name="three intervals", interval=30.0, failing_since_boot_ns=boot - 89 * SECOND),
        sensor(boot, name="more than that", interval=30.0, failing_since_boot_ns=boot - 91 * SECOND),
    ]
    found = [section["name"] for section in told if quiet(section, boot)]
    assert found == ["attic", "roof", "all refused", "each refused", "failing from the start", "more than that"]


def test_the_health_measurement_counts_both(taken):
    line = health_line("d", taken, Board(), 5).head + b" 1"
    fields = parse_line(line.decode())["fields"]
    assert (fields["refused"], fields["stuck"]) == (1, 1)
    assert b"refused=1i" in line


def test_status_names_both_and_the_calibration(taken):
    text = "\n".join(text for _, text in lines(taken))
    assert "Humidity refused for 6.7 min: the element is <dead>" in text
    assert "Pressure has the very same raw value again and again" in text
    assert "Temperature = 1 * measured - 0.8 °C" in text


def test_status_names_what_is_the_center_s():
    found = sensor(NOW, remote={"interval": 30.0, "offset.Temperature": -0.8})
    text = "\n".join(text for _, text in lines(snapshot(NOW, sensors=[found])))
    assert "from the center: interval = 30.0, offset.Temperature = -0.8" in text
    assert "from the center" not in "\n".join(text for _, text in lines(snapshot(NOW, sensors=[sensor(NOW)])))


def test_the_doctor_names_what_is_refused_and_then_what_is_stuck(taken, tmp_path):
    (status,) = taken["sensors"]
    both = [status, status | {"refused": {}}]
    refused, stuck = sensors(Patient(tmp_path, tmp_path, running={"sensors": both}))
    assert "Humidity: the element is <dead>" in refused.seen
    assert "again of Pressure" in stuck.seen
