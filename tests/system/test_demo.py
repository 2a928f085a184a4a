"""`iot-agent demo` as a newcomer or a script runs it: real processes, a real outage, nothing left behind."""

import json
import os
import signal
import socket
import subprocess
import sys
import time

import pytest

DEMO = [sys.executable, "-m", "agent.cli", "demo", "--no-browser"]


def free_port():
    with socket.socket() as probe:
        probe.bind(("127.0.0.1", 0))
        return probe.getsockname()[1]


def listens(port):
    with socket.socket() as probe:
        return probe.connect_ex(("127.0.0.1", port)) == 0


def test_promise_8_with_an_outage_in_the_middle_all_is_stored_nothing_left_running_and_what_was_kept_goes_on(tmp_path):
    port = free_port()
    command = [*DEMO, "--duration", "7", "--outage", "2.5", "--json", "--port", str(port), "--keep", str(tmp_path)]
    run = subprocess.run(command, capture_output=True, text=True, timeout=60, check=False)
    assert run.returncode == 0, run.stdout + run.stderr
    result = json.loads(run.stdout.splitlines()[-1])
    assert result["measured"] >= 1440 + 6
    assert result["delivered"] == result["stored"] == result["measured"]
    assert (result["pending"], result["rejected"], result["dropped"], result["unaccounted"]) == (0, 0, 0, 0)
    assert "outage" in run.stderr
    assert not listens(port)
    log = (tmp_path / "agent.log").read_text()
    token = json.loads((tmp_path / "agent" / "credentials.json").read_text())["token"]
    assert token not in log + run.stdout + run.stderr
    with socket.create_server(("127.0.0.1", port)):
        command[command.index("--duration") : command.index("--json")] = ["--duration", "1"]
        again = subprocess.run(command, capture_output=True, text=True, timeout=60, check=False)
    assert again.returncode == 0, again.stdout + again.stderr
    assert f"port {port} is taken" in again.stderr
    assert json.loads(again.stdout.splitlines()[-1])["stored"] > result["stored"]


def test_ctrl_c_stops_both_prints_the_ledger_and_leaves_no_file(tmp_path):
    port, environment = free_port(), dict(os.environ, TMPDIR=str(tmp_path))
    command = [*DEMO, "--port", str(port)]
    run = subprocess.Popen(command, stdout=subprocess.PIPE, stderr=subprocess.STDOUT, text=True, env=environment)
    deadline = time.monotonic() + 30
    while not listens(port) and time.monotonic() < deadline:
        time.sleep(0.05)
    time.sleep(2)
    run.send_signal(signal.SIGINT)
    out, _ = run.communicate(timeout=30)
    assert run.returncode == 0, out
    assert "accounted for" in out
    assert "stored" in out
    assert not listens(port)
    assert not list(tmp_path.iterdir())


@pytest.mark.parametrize(
    ("arguments", "words"),
    [(["--outage", "5"], "--duration"), (["--duration", "3", "--outage", "3"], "shorter"), (["--port", "0"], "--port")],
)
def test_arguments_that_make_no_sense_are_refused(arguments, words):
    run = subprocess.run([*DEMO, *arguments], capture_output=True, text=True, timeout=30, check=False)
    assert run.returncode == 2
    assert words in run.stderr
