"""The center of the demo and of the simulated fleet."""

import socket

import pytest

from agent.fleet.center import CenterProcess, stored
from agent.util.errors import AgentError


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
