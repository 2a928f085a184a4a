"""`iot-agent run` as systemd or a person runs it: real processes and signals, a real HTTP server that counts."""

import json
import os
import signal

import pytest

from tests.agents import Agent, cli
from tests.servers import InfluxServer
from tests.waiting import wait_for


@pytest.fixture
def agent(tmp_path):
    agents = []

    def start(url, **more):
        agents.append(Agent(tmp_path, url, **more))
        return agents[-1]

    yield start
    for one in agents:
        if one.process.poll() is None:
            one.process.kill()
            one.process.wait()


def test_it_delivers_and_status_shows_the_equation(agent):
    with InfluxServer() as server:
        running = agent(server.url, window="1s")
        ledger = running.ledger(delivered=10)
        assert ledger["measured"] == ledger["delivered"] + ledger["pending"]
        assert ledger["unaccounted"] == 0
        words = cli("status", *running.where).stdout
        assert "running" in words
        assert "pi-1" in words
        running.stop()
        assert running.process.returncode == 0
        after = running.status()
    assert after["running"] is False
    ledger = after["ledger"]
    assert ledger["measured"] == ledger["delivered"] + ledger["pending"] > 10
    assert "token-1" not in running.log.read_text() + words + json.dumps(after)


@pytest.mark.parametrize("number", [signal.SIGTERM, signal.SIGINT])
def test_promise_1_a_stop_commits_everything_within_2_s_even_if_the_server_hangs(agent, number):
    with InfluxServer() as server:
        server.always = server.hang
        running = agent(server.url, window="1h", more='[delivery]\ntimeout = "1m"\n')
        measured = running.ledger(measured=20)["measured"]
        running.stop(number)  # which waits for less than such a call takes
        assert running.process.returncode == 0
        ledger = running.status()["ledger"]
    assert ledger["measured"] == ledger["pending"] >= measured
    assert ledger["unaccounted"] == 0


def test_a_clean_stop_sends_the_last_points_where_the_server_answers(agent):
    with InfluxServer() as server:
        running = agent(server.url, window="1h")  # the next flush is far away
        running.ledger(delivered=1)
        running.stop()
        ledger = running.status()["ledger"]
    assert ledger["pending"] == 0
    assert ledger["measured"] == ledger["delivered"] == len(server.points)


def test_a_second_agent_on_the_same_folder_says_who_holds_it_and_exits_3(agent):
    running = agent("http://127.0.0.1:9")
    running.ledger(measured=1)
    second = cli("run", *running.where)
    assert second.returncode == 3
    assert str(running.process.pid) in second.stderr
    assert len(second.stderr.strip().splitlines()) == 1


def test_a_wrong_configuration_is_one_line_and_exit_78(tmp_path):
    (tmp_path / "agent.toml").write_text('[center]\nurl = "http://c"\n[bufer]\n')
    for command in ("run", "check"):
        result = cli(command, "--config", tmp_path / "agent.toml", "--state-dir", tmp_path / "s")
        assert result.returncode == 78
        assert result.stderr.strip().splitlines() == [
            f"iot-agent: {tmp_path / 'agent.toml'}:3: bufer: no such section; did you mean buffer?"
        ]


def test_reload_takes_new_settings_without_losing_a_point_and_refuses_bad_ones(agent):
    with InfluxServer() as server:
        running = agent(server.url, window="1s")
        running.ledger(delivered=5)
        running.config.write_text("rubbish = 1")
        refused = cli("reload", *running.where)
        assert refused.returncode == 78
        running.process.send_signal(signal.SIGHUP)
        wait_for(lambda: "the old one stays" in running.log.read_text())
        before = running.ledger(delivered=8)["measured"]
        running.write(server.url, window="1s", **{'"100ms"': '"50ms"'})
        assert cli("reload", *running.where).returncode == 0
        wait_for(lambda: "new configuration" in running.log.read_text())
        running.ledger(delivered=before + 20)
        assert running.asked()["sensors"][0]["interval"] == pytest.approx(0.05)
        running.stop()
        ledger = running.status()["ledger"]
        assert ledger["measured"] == ledger["delivered"] + ledger["pending"]
        assert len(server.points) == ledger["delivered"]


def test_with_nothing_there_status_says_that_no_agent_ran(tmp_path):
    result = cli("status", "--json", "--state-dir", tmp_path / "none", env=dict(os.environ, HOME=str(tmp_path)))
    assert json.loads(result.stdout)["running"] is False
    assert "no agent ran here" in result.stdout
    assert not (tmp_path / "none").exists()


def test_a_file_where_the_state_folder_should_be_is_said_to_be_one(tmp_path):
    (tmp_path / "state").write_text("x")
    result = cli("status", "--state-dir", tmp_path / "state")
    assert (result.returncode, "is not a folder" in result.stderr) == (1, True)


def test_backfill_beside_a_running_agent_is_delivered_and_counted(agent):
    with InfluxServer() as server:
        running = agent(server.url, window="1s")
        before = running.ledger(delivered=3)["measured"]
        result = cli("backfill", "--since", "1d", "--every", "1m", *running.where)
        assert result.returncode == 0, result.stderr
        assert "1,440 points" in result.stdout
        ledger = running.ledger(delivered=before + 1440)
        assert ledger["measured"] >= before + 1440
        running.stop()
        ledger = running.status()["ledger"]
        assert ledger["unaccounted"] == 0
        assert len(server.points) == ledger["delivered"]


def test_backfill_is_for_the_virtual_sensor_only(tmp_path):
    (tmp_path / "agent.toml").write_text('[center]\nurl = "http://c"\n')
    result = cli("backfill", "--config", tmp_path / "agent.toml", "--state-dir", tmp_path / "s")
    assert result.returncode == 78
    assert "virtual" in result.stderr
    assert cli("backfill", "--since", "7 parsecs").returncode == 2
