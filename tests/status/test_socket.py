"""The socket through which `iot-agent status` sees the running agent."""

import socket
import threading
import time

import pytest

from agent.status import socket as status_socket
from agent.status.socket import NAME, ControlServer, NotOurs, ask
from agent.util.errors import AgentError


@pytest.fixture
def folder(tmp_path):
    deep = tmp_path / ("d" * 60) / ("e" * 60)
    deep.mkdir(parents=True)
    return deep


def test_the_running_agent_answers_also_from_a_folder_with_a_long_path(folder):
    server = ControlServer(folder, lambda: {"measured": 3})
    try:
        assert ask(folder) == {"measured": 3}
        assert ask(folder) == {"measured": 3}
        assert (folder / NAME).stat().st_mode & 0o777 == 0o600
    finally:
        server.close()
    assert ask(folder) is None
    assert not (folder / NAME).exists()


def test_none_runs_is_told_apart_from_one_that_was_killed_only_by_the_file(tmp_path):
    assert ask(tmp_path) is None
    assert ask(tmp_path / "not-there") is None
    assert ask(tmp_path / ("deep" * 25) / "not-there") is None
    left = socket.socket(socket.AF_UNIX)
    left.bind(str(tmp_path / NAME))
    left.close()
    assert ask(tmp_path) is None
    ControlServer(tmp_path, dict).close()


def test_it_ends_at_once_and_does_not_wait_for_its_next_look(tmp_path):
    ControlServer(tmp_path, dict).close()
    assert "control" not in {thread.name for thread in threading.enumerate()}


@pytest.mark.parametrize("strange", [5, None, ["x"]])
def test_what_is_no_agent_s_answer_is_an_error(tmp_path, strange):
    server = ControlServer(tmp_path, lambda: strange)
    try:
        with pytest.raises(AgentError, match="does not answer as an agent does"):
            ask(tmp_path)
    finally:
        server.close()


@pytest.fixture
def server(tmp_path, monkeypatch):
    monkeypatch.setattr(status_socket, "LOOK_S", 0.05)
    servers = []

    def start(snapshot=lambda: {"measured": 3}):
        servers.append(ControlServer(tmp_path / "state", snapshot))
        return servers[-1]

    (tmp_path / "state").mkdir()
    yield start
    for one in servers:
        one.close()


def answers(folder):
    until = time.monotonic() + 30
    while (found := ask(folder)) is None and time.monotonic() < until:
        time.sleep(0.02)
    return found


def test_promise_3_a_folder_in_the_sockets_place_is_moved_away(server, tmp_path):
    (tmp_path / "state" / NAME).mkdir()
    server()
    assert ask(tmp_path / "state") == {"measured": 3}


def test_promise_3_where_no_socket_can_be_made_the_agent_runs_and_answers_once_it_can(server, tmp_path, caplog):
    (tmp_path / "state").rmdir()
    server()
    assert "sees no agent" in caplog.text
    (tmp_path / "state").mkdir()
    assert answers(tmp_path / "state") == {"measured": 3}


def test_a_socket_that_somebody_removed_is_made_again(server, tmp_path):
    server()
    (tmp_path / "state" / NAME).unlink()
    assert answers(tmp_path / "state") == {"measured": 3}


def test_a_snapshot_that_fails_once_is_not_the_end_of_answers(server, tmp_path):
    snapshots = iter([None])

    def snapshot():
        if next(snapshots, "more") is None:
            raise RuntimeError("changed while it was read")
        return {"measured": 3}

    server(snapshot)
    with pytest.raises(AgentError, match="broke off"):
        ask(tmp_path / "state")
    assert ask(tmp_path / "state") == {"measured": 3}


def test_an_agent_that_hangs_is_said_to(tmp_path, monkeypatch):
    monkeypatch.setattr(status_socket, "_TIMEOUT_S", 0.05)
    with socket.socket(socket.AF_UNIX) as silent:
        silent.bind(str(tmp_path / NAME))
        silent.listen()
        with pytest.raises(AgentError, match="gives no answer"):
            ask(tmp_path)


def test_a_folder_of_another_user_is_said_to_be_one(tmp_path, monkeypatch):
    def refuse(*_):
        raise PermissionError

    monkeypatch.setattr(socket.socket, "connect", refuse)
    with pytest.raises(NotOurs, match="belongs to another user: run this as that user, or with sudo"):
        ask(tmp_path)
