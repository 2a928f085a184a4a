"""sd_notify messages as a service manager receives them."""

import logging
import os
import socket

from agent.util import systemd
from agent.util.logs import log_handler


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


def test_the_journal_is_told_the_priority_and_a_terminal_the_time(tmp_path):
    record = logging.LogRecord("agent.x", logging.WARNING, "", 0, "the %s is full", ("disk",), None)
    with (tmp_path / "log").open("w") as stream:
        status = os.fstat(stream.fileno())
        journal = log_handler(stream, {"JOURNAL_STREAM": f"{status.st_dev}:{status.st_ino}"})
        assert journal.format(record) == "<4>agent.x: the disk is full"
        for environ in ({}, {"JOURNAL_STREAM": "8:1"}):
            assert log_handler(stream, environ).format(record).endswith("WARNING agent.x: the disk is full")
