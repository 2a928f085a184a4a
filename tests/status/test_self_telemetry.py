"""Measurement `agent`: types that never change, nothing that the board does not have, off with one key."""

import errno
import socket
from dataclasses import replace

import pytest
from line_protocol_parser import parse_line

from agent import __version__
from agent.config.settings import HealthSettings
from agent.config.units import Seconds
from agent.status import board
from agent.status.board import Board
from agent.status.health_rules import CAUSES
from agent.status.self_telemetry import Health, health_line, trouble_lines, version_number
from drivers import base
from tests.snapshots import in_trouble, sensor, snapshot


def point(**board_values):
    line = health_line("greenhouse-3", snapshot(), Board(**board_values), 5)
    return parse_line(replace(line, time_ns=1).encode().decode())


def test_counters_and_the_board_stand_in_one_point_of_measurement_agent():
    found = point(cpu_temperature=51.2, disk_free=10**9, throttled=0x50000, memory_available=2**28, uptime=60.0)
    assert found["measurement"] == "agent"
    assert found["tags"] == {"clientId": "greenhouse-3", "device": "greenhouse-3"}
    fields = found["fields"]
    assert (fields["measured"], fields["delivered"], fields["pending"]) == (10_000, 8_790, 1202)
    assert (fields["rejected"], fields["dropped"], fields["unaccounted"]) == (4, 4, 0)
    assert (fields["cpu_temperature"], fields["disk_free"], fields["throttled"]) == (51.2, 10**9, 0x50000)


def test_a_field_keeps_its_type_so_that_influxdb_never_refuses_it():
    whole = health_line("d", snapshot(uptime_s=60.0), Board(cpu_temperature=50.0, load=0.0), 5).head.decode()
    assert "cpu_temperature=50," in whole or "cpu_temperature=50.0," in whole  # without an i: a float
    assert "uptime=60i" not in whole
    assert "load=0i" not in whole
    assert "measured=10000i" in whole
    assert "clock_good=1i" in whole


def test_what_the_board_does_not_have_is_left_out():
    assert "cpu_temperature" not in point()["fields"]
    assert "throttled" not in point()["fields"]


def test_the_oldest_point_that_waits_has_an_age_and_none_has_none():
    def told(**changes):
        taken = snapshot(**changes)
        return parse_line(replace(health_line("d", taken, Board(), 5), time_ns=1).encode().decode())["fields"]

    buffer = snapshot()["buffer"]
    assert told(at=1000.0, buffer=buffer | {"oldest_ns": 400 * 10**9})["oldest_age"] == 600
    assert told(at=1000.0, buffer=buffer | {"oldest_ns": None})["oldest_age"] == 0  # else the last one would stay
    assert told(at=1000.0, buffer=buffer | {"oldest_ns": 1001 * 10**9})["oldest_age"] == 0


def test_the_point_is_dated_later_by_its_boot_clock():
    line = health_line("d", snapshot(), Board(), 77)
    assert (line.boot_ns, line.time_ns) == (77, None)
    assert line.series.startswith(b"agent,")  # by which the ledger counts it apart


def test_a_sensor_with_which_something_is_wrong_has_a_point_of_its_own_at_the_same_moment():
    boot = 10**15
    wrong = [sensor(boot), *in_trouble(boot)]
    lines = trouble_lines("d", snapshot(boot, sensors=wrong), 5)
    assert {line.boot_ns for line in lines} == {5}
    found = [parse_line(replace(line, time_ns=1).encode().decode()) for line in lines]
    assert {point["measurement"] for point in found} == {"agent"}
    fields = {point["tags"]["sensor"]: point["fields"] for point in found}
    assert fields == {
        "attic": {"failing": 90, "cause": 1},
        "cellar": {"refused_Pressure": 600, "stuck_Humidity": 7200},
        "roof": {"silent": 300},
    }
    assert trouble_lines("d", snapshot(boot), 5) == []


def test_the_interval_of_the_sensor_that_reports_least_often_is_told_unless_a_deadband_holds_reports_back():
    def interval(*sensors):
        line = health_line("d", snapshot(10**15, sensors=list(sensors)), Board(), 5)
        return parse_line(replace(line, time_ns=1).encode().decode())["fields"].get("interval")

    assert interval(sensor(10**15), sensor(10**15, interval=60.0)) == 60.0
    assert interval(sensor(10**15), sensor(10**15, suppressed=3)) is None
    assert interval() is None


def test_the_point_says_in_numbers_what_runs_there():
    line = health_line("d", snapshot(10**15), Board(address=0xC0A80114), 5)
    fields = parse_line(replace(line, time_ns=1).encode().decode())["fields"]
    assert (fields["interval"], fields["sensors"]) == (10.0, 1)
    assert fields["address"] == 0xC0A80114
    assert fields["version"] == version_number(__version__)
    assert isinstance(fields["version"], int)
    assert (version_number("0.2.0"), version_number("1.12.3rc1"), version_number("unknown")) == (2000, 1_012_003, None)


def test_the_address_is_that_of_the_way_out_and_none_where_there_is_no_way(monkeypatch):
    class Out(socket.socket):
        def connect(self, _):
            super().connect(("127.0.0.1", 9))

    class NoWay(socket.socket):
        def connect(self, _):
            raise OSError(errno.ENETUNREACH, "Network is unreachable")

    monkeypatch.setattr(socket, "socket", Out)
    assert board.read_board().address == 0x7F000001
    monkeypatch.setattr(socket, "socket", NoWay)
    assert board.read_board().address is None


def test_a_point_every_interval_but_none_at_the_start():
    put = []
    health = Health(HealthSettings(interval=Seconds(60)), snapshot, put.extend, "d")
    assert [health.step() for _ in range(3)] == [60, 60, 60]
    assert len(put) == 2


class TestBoard:
    @pytest.fixture
    def root(self, tmp_path):
        def write(path, text):
            (tmp_path / path).parent.mkdir(parents=True, exist_ok=True)
            (tmp_path / path).write_text(text)

        write("sys/class/thermal/thermal_zone0/type", "gpu-thermal\n")
        write("sys/class/thermal/thermal_zone0/temp", "99000\n")
        write("sys/class/thermal/thermal_zone1/type", "cpu-thermal\n")
        write("sys/class/thermal/thermal_zone1/temp", "48312\n")
        write("proc/meminfo", "MemTotal:  442000 kB\nMemAvailable:  300000 kB\n")
        write("proc/uptime", "812.34 3000.1\n")
        write("proc/loadavg", "0.15 0.1 0.0 1/100 5\n")
        write("proc/self/statm", "9000 4000 1 1 0 1 0\n")
        write(board.THROTTLED, "50005\n")
        return tmp_path

    def test_what_a_raspberry_pi_says(self, root):
        found = board.read_board(root, root)
        assert found.cpu_temperature == 48.312
        assert found.memory_available == 300_000 * 1024
        assert (found.uptime, found.load) == (812.34, 0.15)
        assert found.disk_free > 0
        assert found.throttled == 0x50005
        assert board.throttling(found.throttled) == [
            "under-voltage now",
            "throttled now",
            "under-voltage since boot",
            "throttled since boot",
        ]

    def test_a_board_that_says_nothing_gives_nothing(self, tmp_path):
        assert replace(board.read_board(None, tmp_path), address=None) == Board()


def test_every_error_of_the_drivers_contract_has_a_number_that_stays():
    assert list(CAUSES) == ["NotFound", "NoPermission", "WrongChip", "Busy", "Transient", "NotReady"]
    errors = base.SensorError.__subclasses__()
    assert set(CAUSES) == {error.__name__ for error in errors if error.__module__ == "drivers.base"}
