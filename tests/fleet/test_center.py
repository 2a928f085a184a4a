"""The center of the demo and of the simulated fleet."""

import os
import select
import signal
import socket
import subprocess
import sys

import pytest
from click.testing import CliRunner

import agent.fleet.center
from agent.cli import main
from agent.fleet.center import CenterProcess, stored
from agent.fleet.scratch import scratch
from agent.util.errors import AgentError
from agent.util.secret import Secret


def test_a_port_that_another_program_took_is_named_and_its_answers_are_not_taken_for_the_center_s(tmp_path, httpserver):
    httpserver.expect_request("/health").respond_with_json({"status": "ok"})
    with pytest.raises(AgentError, match=f"port {httpserver.port} was taken by another program"):
        CenterProcess(httpserver.port, tmp_path).start()
    with socket.create_server(("127.0.0.1", 0)) as other, pytest.raises(AgentError, match="was taken"):
        CenterProcess(other.getsockname()[1], tmp_path).start()


@pytest.mark.parametrize("strange", [5, None, [], {}, {"count": None}, {"count": "many"}])
def test_an_answer_that_is_no_count_is_an_error(httpserver, strange):
    httpserver.expect_request("/api/devices/demo/measurements/count").respond_with_json(strange)
    with pytest.raises(AgentError, match="its answer is no count"):
        stored(httpserver.url_for("").rstrip("/"), "demo")


def test_a_device_is_counted_by_its_own_secret_and_one_that_is_not_registered_has_nothing(httpserver):
    path, url = "/api/devices/pi-1/measurements/count", httpserver.url_for("").rstrip("/")
    httpserver.expect_oneshot_request(path, headers={"X-Device-Secret": "own"}).respond_with_json({"count": 7})
    assert stored(url, "pi-1", Secret("own")) == 7
    httpserver.expect_request(path).respond_with_json({"code": "unauthorized"}, 401)
    assert stored(url, "pi-1", Secret("own")) == 0
    with pytest.raises(AgentError, match="401 UNAUTHORIZED"):
        stored(url, "pi-1")


def test_this_very_machine_is_asked_past_the_proxy_and_another_through_it(httpserver, monkeypatch):
    path = "/api/devices/pi-1/measurements/count"
    httpserver.expect_request(path).respond_with_json({"count": 7})
    with socket.create_server(("127.0.0.1", 0)) as nobody:
        monkeypatch.setenv("HTTP_PROXY", f"http://127.0.0.1:{nobody.getsockname()[1]}")
    for name in ("http_proxy", "no_proxy", "NO_PROXY"):
        monkeypatch.delenv(name, raising=False)
    assert stored(httpserver.url_for("").rstrip("/"), "pi-1", Secret("own")) == 7
    monkeypatch.setenv("HTTP_PROXY", httpserver.url_for(""))
    httpserver.expect_request(path, headers={"Host": "center.example"}).respond_with_json({"count": 8})
    assert stored("http://center.example", "pi-1") == 7


STARTED = """
import sys, time
from pathlib import Path
from agent.fleet.center import CenterProcess, free_port
center = CenterProcess(free_port(20000), Path(sys.argv[1]))
center.start()
print(center.process.pid, flush=True)
time.sleep(600)
"""


def test_a_center_ends_with_the_process_that_started_it_also_when_that_is_killed(tmp_path):
    with subprocess.Popen([sys.executable, "-c", STARTED, tmp_path], stdout=subprocess.PIPE, text=True) as starter:
        center = os.pidfd_open(int(starter.stdout.readline()))
        starter.send_signal(signal.SIGKILL)
    ended, _, _ = select.select([center], [], [], 60)
    os.close(center)
    assert ended


@pytest.mark.parametrize("command", [("demo", "--json", "--no-browser"), ("simulate", "--devices", "1", "--json")])
def test_without_what_the_center_needs_it_says_what_to_install(monkeypatch, command):
    monkeypatch.setattr(agent.fleet.center, "find_spec", lambda _: None)
    said = CliRunner().invoke(main, command)
    assert said.exit_code == 1
    assert "an IoT Center, which is not installed: pip install 'iot-edge-agent[center]'" in said.stderr
    assert ".log" not in said.stderr


def test_a_center_that_does_not_start_says_its_last_words_and_names_no_file_that_goes_with_it(tmp_path):
    (tmp_path / "iot-center.sqlite3").mkdir()
    with pytest.raises(AgentError, match=r"(?s)did not start on .*last words:\n.*iot-center.*sqlite3") as caught:
        CenterProcess(agent.fleet.center.free_port(20000), tmp_path).start()
    assert "center.log" not in str(caught.value)


def test_a_folder_that_a_killed_demo_left_goes_and_one_in_use_stays(tmp_path, monkeypatch):
    monkeypatch.setattr("tempfile.tempdir", str(tmp_path))
    left = tmp_path / "iot-demo-left"
    (left / "center").mkdir(parents=True)
    with scratch("iot-demo-") as first:
        assert not left.exists()
        with scratch("iot-demo-") as second:
            assert {first, second} == set(tmp_path.iterdir())
    assert not list(tmp_path.iterdir())
