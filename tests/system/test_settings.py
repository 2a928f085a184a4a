"""A running agent and a running center: an interval and an offset from a device's page, seen in the stored points."""

import contextlib
import dataclasses
import itertools

import pytest

from agent.config.parse import parse_settings
from agent.service import Service
from agent.status import health_rules
from center.app import serve
from center.context import EXTENSION
from center.profiles import told
from drivers.base import Transient, boot_ns
from drivers.emulated import Emulated
from tests.center_helpers import embedded_settings, influx_settings, points_of, text_of
from tests.waiting import wait_for

STORES = ["embedded", pytest.param("influxdb", marks=pytest.mark.influxdb)]


@pytest.fixture(params=STORES)
def running(request, tmp_path):
    with contextlib.ExitStack() as stack:
        embedded = request.param == "embedded"
        settings = embedded_settings(tmp_path / "center") if embedded else stack.enter_context(influx_settings())
        yield stack.enter_context(serve(settings, port=0))


def agent(running, folder, remote="local", **sensor):
    tables = {
        "device": {"id": "pi-7"},
        "sensor": [{"driver": "emulated", **sensor}],
        "center": {"url": running.url, "remote": remote},
        "buffer": {"loss_window": "100ms"},
        "clock": {"trust": "always"},
        "status": {"listen": ""},
        "health": {"enabled": False},
    }
    return Service(parse_settings(tables, "agent.toml", {}), folder, control=False)


def hasten(service):
    """Have it ask for its configuration now, not in some minutes."""
    registrar = service._parts.registrar
    registrar._refresh.soon(0, 0)
    registrar.wakeup.set()


def stored(running):
    """Temperature by Unix ns."""
    points = points_of(running.app.extensions[EXTENSION].telemetry, "pi-7")
    return {at: values["Temperature"] for at, values in points.items() if "Temperature" in values}


def test_an_interval_and_an_offset_from_the_page_are_in_the_stored_points(running, tmp_path):
    center = running.app.extensions[EXTENSION]
    running.app.config["WTF_CSRF_ENABLED"] = False
    page = running.app.test_client()
    first = agent(running, tmp_path / "agent")
    first.start()
    try:
        ((_, raw),) = wait_for(lambda: list(stored(running).items()))
        form = {"settings.interval": "200ms", "settings.offset.Temperature": "-0.8"}
        assert page.post("/devices/pi-7/settings", data=form).status_code == 302
        hasten(first)
        after = wait_for(lambda: found if len(found := list(stored(running).items())[1:]) > 3 else None)
        assert {round(value - raw, 2) for _, value in after} == {-0.8}
        gaps = [(later - earlier) / 1e9 for (earlier, _), (later, _) in itertools.pairwise(after)]
        assert min(gaps) < 5  # not the ten seconds that it began with, whatever else the machine does
        hasten(first)
        wait_for(lambda: told(center.registry))
    finally:
        first.stop()
    assert first.ledger()["unaccounted"] == 0
    away = dataclasses.replace(first.settings, center=dataclasses.replace(first.settings.center, timeout=0.2))
    running.close()
    again = Service(away, tmp_path / "agent", control=False)
    again.start()  # without its center, and from the first reading on
    try:
        (sensor,) = wait_for(lambda: found if (found := again.snapshot()["sensors"])[0]["values"] else None)
        assert sensor["values"]["Temperature"] == pytest.approx(raw - 0.8, abs=0.011)
        wait_for(lambda: again.snapshot()["sensors"][0]["interval"] == 0.2)
        assert sensor["remote"] == {"interval": 0.2, "offset.Temperature": -0.8}
    finally:
        again.stop()


def test_a_sensor_that_fails_for_a_while_is_told_as_quiet(running, tmp_path, monkeypatch):
    """By the name that its other entries have, if it has none."""

    def pulled(_):
        raise Transient("a wire is loose")

    monkeypatch.setattr(health_rules, "QUIET_S", 0.0)
    monkeypatch.setattr(Emulated, "read", pulled)
    center = running.app.extensions[EXTENSION]
    service = agent(running, tmp_path / "agent", interval="100ms")
    service.start()
    try:
        wait_for(service.registered)
        wait_for(lambda: health_rules.quiet(service.snapshot()["sensors"][0], boot_ns()))

        def heard():
            hasten(service)  # a center does not keep at once what is told again
            return [found for found in told(center.registry).values() if found.quiet]

        (found,) = wait_for(heard)
        assert found.quiet == tuple(sensor.name for sensor in found.sensors) == ("emulated",)
    finally:
        service.stop()


def test_what_agent_toml_names_stays_and_the_page_says_so(running, tmp_path):
    center = running.app.extensions[EXTENSION]
    service = agent(running, tmp_path / "agent", interval="100ms", offset={"Temperature": 1.0})
    service.start()
    try:
        wait_for(lambda: stored(running))
        running.app.config["WTF_CSRF_ENABLED"] = False
        page = running.app.test_client()
        page.post("/devices/pi-7/settings", data={"settings.interval": "30s", "settings.offset.Temperature": "-0.8"})
        hasten(service)
        wait_for(lambda: told(center.registry))
        wait_for(lambda: service.snapshot()["registration"]["remote"]["measurement_interval"] == 30)
        shown = text_of(page.get("/devices/pi-7"))
        assert "In use: 0.1 s, as its agent.toml says" in shown
        assert "In use: 1.00 °C, as its agent.toml says" in shown
        assert service.snapshot()["sensors"][0]["interval"] == 0.1
    finally:
        service.stop()
    assert len(set(stored(running).values())) == 1
