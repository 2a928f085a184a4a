"""sd_notify messages as a service manager receives them."""

import os
import socket

from agent import systemd


def test_messages_arrive_at_the_socket_that_systemd_names(tmp_path):
    with socket.socket(socket.AF_UNIX, socket.SOCK_DGRAM) as manager:
        manager.bind(str(tmp_path / "n"))
        environ = {"NOTIFY_SOCKET": str(tmp_path / "n")}
        assert systemd.notify("READY=1", "STATUS=measuring", environ=environ)
        assert manager.recv(1000) == b"READY=1\nSTATUS=measuring"
        assert systemd.reloading(environ=environ)
        assert manager.recv(1000).startswith(b"RELOADING=1\nMONOTONIC_USEC=")


def test_an_abstract_socket_is_understood_too():
    with socket.socket(socket.AF_UNIX, socket.SOCK_DGRAM) as manager:
        manager.bind(f"\0iot-agent-test-{os.getpid()}")
        assert systemd.notify("WATCHDOG=1", environ={"NOTIFY_SOCKET": f"@iot-agent-test-{os.getpid()}"})
        assert manager.recv(100) == b"WATCHDOG=1"


def test_without_a_service_manager_nothing_is_sent_and_nothing_breaks(tmp_path):
    assert not systemd.notify("READY=1", environ={})
    assert not systemd.notify("READY=1", environ={"NOTIFY_SOCKET": str(tmp_path / "gone")})


def test_the_watchdog_is_ours_only_if_its_pid_is():
    assert systemd.watchdog_s({"WATCHDOG_USEC": "90000000", "WATCHDOG_PID": str(os.getpid())}) == 90
    assert systemd.watchdog_s({"WATCHDOG_USEC": "90000000", "WATCHDOG_PID": "1"}) is None
    assert systemd.watchdog_s({}) is None
    assert systemd.watchdog_s({"WATCHDOG_USEC": "soon"}) is None
