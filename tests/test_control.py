"""The socket through which `iot-agent status` sees the running agent."""

import socket

import pytest

from agent.control import NAME, ControlServer, ask


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
