"""A whole agent in this process: start, reload and stop where something around it is broken."""

import logging
import signal
import threading
from types import SimpleNamespace

import pytest

from agent import runner
from agent.buffer import recovery
from agent.config.parse import parse_settings
from agent.service import Service
from agent.status.socket import ask
from agent.util.errors import AgentError
from agent.util.loops import end
from drivers.base import Reading, boot_ns
from drivers.virtual import Virtual
from tests.buffers import pending_after
from tests.servers import InfluxServer
from tests.unsearchable import hide
from tests.waiting import wait_for

SECOND = 1_000_000_000
SHOWN = {"ledger": {"delivered": 3, "pending": 1}, "sensors": [], "delivery": {"state": "delivering"}}


def settings(**changed):
    tables = {
        "device": {"id": "pi-1"},
        "sensor": [{"driver": "virtual", "interval": "50ms"}],
        "influxdb": {"url": "http://127.0.0.1:9", "org": "o", "bucket": "b", "token": "token-1"},
        "clock": {"trust": "always"},
        "status": {"listen": ""},
    }
    given = {name: table for name, table in {**tables, **changed}.items() if table is not None}
    return parse_settings(given, "agent.toml", {})


@pytest.fixture
def service(tmp_path):
    agent = Service(settings(), tmp_path)
    yield agent
    agent.stop()


def measured(service):
    return service.ledger()["measured"]


def test_a_snapshot_that_fails_does_not_keep_points_from_the_disk_at_stop(service, tmp_path, monkeypatch):
    service.start()
    wait_for(lambda: measured(service) > 2)
    monkeypatch.setattr(service, "snapshot", lambda: 1 / 0)
    service.stop()
    again = Service(settings(), tmp_path)
    again.start()
    try:
        wait_for(lambda: again.snapshot()["buffer"]["disk_ok"])
        assert again.ledger()["pending"] > 2
        assert again.ledger()["unaccounted"] == 0
    finally:
        again.stop()


@pytest.mark.parametrize("reloaded", [False, True])
def test_promise_1_what_was_sampled_is_on_disk_after_a_stop_in_the_middle_of_a_slow_reading(
    tmp_path, monkeypatch, reloaded
):
    slow, done, read = threading.Event(), threading.Event(), iter(range(3))

    def reading(_):
        if next(read, None) is None:
            slow.set()
            assert done.wait(40)
        return Reading({"Temperature": 7.25}, boot_ns())

    monkeypatch.setattr(Virtual, "read", reading)
    sampling = settings(sensor=[{"driver": "virtual", "interval": "60s", "sample_every": "50ms"}])
    agent = Service(sampling, tmp_path)
    agent.start()
    assert slow.wait(40)
    if reloaded:
        agent.reload(sampling)
    waits = []

    def ends(loops, seconds):
        waits.append(loops)
        end(loops, seconds if waits[1:] else 0)
        if len(waits) == 2:
            done.set()  # only once all others have ended

    monkeypatch.setattr("agent.service.end", ends)
    agent.stop()
    assert (agent.ledger()["measured"], agent.ledger()["pending"]) == (1, 1)
    assert pending_after(tmp_path / "buffer") == 1


def test_a_reload_does_not_stop_measuring_for_as_long_as_the_disk_takes(service):
    service.start()
    wait_for(lambda: service.snapshot()["buffer"]["disk_ok"])
    with service._core.buffer._disk_lock:  # a commit that hangs
        reloading = threading.Thread(target=service.reload, args=(settings(buffer={"loss_window": "1s"}),))
        reloading.start()
        reloading.join(40)
        assert not reloading.is_alive()
        before = measured(service)
        wait_for(lambda: measured(service) > before + 2)


def test_after_a_reload_during_a_slow_reading_its_sensor_goes_on_once_it_has_ended_and_the_others_at_once(
    tmp_path, monkeypatch
):
    """A VEML7700 in the dark reads for 3.6 s: longer than a reload waits for the sensors that go."""
    reading, goes_on, opened = threading.Event(), threading.Event(), []
    read, start = Virtual.read, Virtual.open

    def opens(self):
        opened.append(self.options.seed)
        start(self)

    def slowly(self):
        if self.options.seed == 1:
            reading.set()
            assert goes_on.wait(40)
        return read(self)

    monkeypatch.setattr(Virtual, "open", opens)
    monkeypatch.setattr(Virtual, "read", slowly)
    both = settings(
        sensor=[
            {"driver": "virtual", "interval": "50ms", "name": name, "seed": seed} for seed, name in ((1, "a"), (2, "b"))
        ]
    )
    agent = Service(both, tmp_path)
    try:
        agent.start()
        assert reading.wait(40)
        agent.reload(both)
        wait_for(lambda: agent.snapshot()["sensors"][1]["readings"])
        assert opened.count(1) == 1
        goes_on.set()
        wait_for(lambda: agent.snapshot()["sensors"][0]["readings"])
        assert opened.count(1) == 2
        assert agent.snapshot()["sensors"][0]["errors"] == 0
    finally:
        goes_on.set()
        agent.stop()


def test_a_file_that_was_missing_is_no_warning_any_more_once_it_is_there(tmp_path):
    influx = {"url": "http://127.0.0.1:9", "org": "o", "bucket": "b", "token_file": str(tmp_path / "token")}
    agent = Service(settings(influxdb=influx), tmp_path / "state")
    agent.start()
    try:
        assert any("there is no such file" in text for text in agent.snapshot()["warnings"])
        (tmp_path / "token").write_text("token-1")
        assert agent.snapshot()["warnings"] == []
    finally:
        agent.stop()


def test_a_file_that_may_not_be_looked_at_is_a_warning_and_ends_no_agent(tmp_path, monkeypatch):
    """Its folder is closed to the service, from the start or later, or lies where ProtectHome hides it."""
    secrets = tmp_path / "private"
    secrets.mkdir()
    (secrets / "token").write_text("token-1")
    (secrets / "token").chmod(0o600)
    influx = {"url": "http://127.0.0.1:9", "org": "o", "bucket": "b", "token_file": str(secrets / "token")}
    agent = Service(settings(influxdb=influx), tmp_path / "state")
    with monkeypatch.context() as patched:
        hide(patched, secrets)
        agent.start()
    try:
        with monkeypatch.context() as patched:
            hide(patched, secrets)
            (warning,) = agent.snapshot()["warnings"]
            assert warning == f"influxdb.token_file = '{secrets}/token': cannot be looked at (Permission denied)"
        assert agent.snapshot()["warnings"] == []
    finally:
        agent.stop()


def test_a_state_folder_that_may_not_be_searched_any_more_ends_no_agent_at_a_reload(tmp_path, monkeypatch):
    tables = {"influxdb": None, "center": {"url": "http://127.0.0.1:9"}, "mqtt": {"host": "127.0.0.1", "port": 9}}
    here = settings(**tables)
    agent = Service(here, tmp_path / "state")
    agent.start()
    try:
        wait_for(lambda: agent.snapshot()["buffer"]["disk_ok"])
        with monkeypatch.context() as patched:
            hide(patched, tmp_path / "state")
            agent.reload(here)
            before = measured(agent)
            wait_for(lambda: measured(agent) > before + 2)
            said = wait_for(lambda: agent.snapshot()["registration"]["error"])
            assert "device.secret cannot be read (Permission denied)" in said
    finally:
        agent.stop()


def test_what_goes_wrong_in_the_background_shows_in_the_status(service, monkeypatch):
    monkeypatch.setattr("agent.buffer.buffer.Buffer.notice", lambda _: 1 / 0)
    monkeypatch.setattr("agent.buffer.committer.NOTICE_S", 0)
    service.start()
    wait_for(lambda: any("committer fails" in text for text in service.snapshot()["warnings"]))


def test_a_driver_that_cannot_be_made_leaves_the_old_settings_at_work(service, monkeypatch):
    service.start()

    def broken(self, options=None):
        raise RuntimeError("no such library")

    with monkeypatch.context() as patched:
        patched.setattr(Virtual, "__init__", broken)
        with pytest.raises(AgentError, match=r"sensor\[0\].*'virtual'.*no such library"):
            service.reload(settings())
    before = measured(service)
    wait_for(lambda: measured(service) > before + 2)


def test_promise_1_the_last_points_need_no_disk_soon_after_a_reload_either(tmp_path, monkeypatch):
    with InfluxServer() as server:
        target = {"url": server.url, "org": server.org, "bucket": server.bucket, "token": server.token}
        here = settings(influxdb=target)
        agent = Service(here, tmp_path)
        agent.start()
        try:
            wait_for(agent.registered)
            agent.stop_measuring()
            assert agent.drain(5)
            last, once = iter([Reading({"Temperature": 7.25}, boot_ns())]), threading.Event()
            # The new delivery begins with nothing.
            monkeypatch.setattr(Virtual, "read", lambda self: next(last) if once.is_set() else 1 / 0)
            agent.reload(here)
            began = boot_ns()
            wait_for(lambda: agent.alive_boot_ns()["delivery"] > began)
            before = agent.ledger()["measured"]
            once.set()
            wait_for(lambda: agent.ledger()["measured"] > before)
        finally:
            agent.stop()
        assert agent.ledger()["pending"] == 0
        assert agent.ledger()["delivered"] == agent.ledger()["measured"] == len(server.points)


def test_who_asks_an_agent_that_cannot_answer_is_told_so_and_the_next_one_is_answered(service, tmp_path, monkeypatch):
    service.start()
    with monkeypatch.context() as patched:
        patched.setattr("agent.service.build", lambda **_: 1 / 0)
        with pytest.raises(AgentError, match="broke off"):
            ask(tmp_path)
    assert ask(tmp_path)["device_id"] == "pi-1"


def test_promise_3_saving_a_damaged_buffer_may_take_longer_than_the_watchdog_waits(service, monkeypatch):
    begun, goes_on, real = threading.Event(), threading.Event(), recovery.open_store

    def slowly(*arguments):
        begun.set()
        goes_on.wait(40)
        return real(*arguments)

    monkeypatch.setattr(recovery, "open_store", slowly)
    service.start()
    assert begun.wait(40)
    then = boot_ns()
    wait_for(lambda: measured(service) > 2)
    assert service.alive_boot_ns()["committer"] > then
    goes_on.set()
    wait_for(lambda: service.snapshot()["buffer"]["disk_ok"])


def test_a_request_with_a_long_timeout_is_not_taken_for_a_thread_that_is_stuck(tmp_path):
    agent = Service(settings(delivery={"timeout": "5m"}), tmp_path)
    agent.start()
    try:
        assert agent.alive_boot_ns()["delivery"] - boot_ns() > 500e9
    finally:
        agent.stop()


@pytest.mark.parametrize("verbose", [False, True])
def test_verbose_says_once_a_minute_what_went_and_what_waits(caplog, monkeypatch, verbose):
    monkeypatch.setattr(runner, "VERBOSE_EVERY_S", 0)
    caplog.set_level(logging.INFO)
    agent = SimpleNamespace(alive_boot_ns=dict, snapshot=lambda: SHOWN)
    came = iter([set(), {signal.SIGTERM}])
    runner._loop(agent, None, SimpleNamespace(wait=lambda _: next(came)), debug=False, verbose=verbose)
    assert ("delivering, 3 delivered, 1 pending" in caplog.text) is verbose


def test_a_board_that_slept_is_not_taken_for_one_whose_loops_are_stuck_and_one_that_is_stuck_is_found(monkeypatch):
    """The boot clock counts the sleep, and the main loop may be the first to look at it."""
    now, told = [1000 * SECOND], []
    alive = {"sampler": now[0], "delivery": now[0]}
    monkeypatch.setattr(runner, "boot_ns", lambda: now[0])
    monkeypatch.setattr(runner.systemd, "notify", lambda *words: told.extend(words))
    monkeypatch.setattr(runner.systemd, "watchdog_s", lambda: 180.0)

    def wait(_):
        slept, sampling = next(rounds)
        now[0] += slept * SECOND
        if slept == 1:  # else the loops see it after the main loop
            alive["delivery"] = now[0]
            alive["sampler"] = now[0] if sampling else alive["sampler"]
        return set() if slept else {signal.SIGTERM}

    agent = SimpleNamespace(alive_boot_ns=lambda: alive, snapshot=lambda: SHOWN)
    rounds = iter([(1, True), (3600, True), *[(1, True)] * 200, *[(1, False)] * 150, (0, False)])
    runner._loop(agent, None, SimpleNamespace(wait=wait), debug=False, verbose=False)
    assert "WATCHDOG=trigger" not in told
    rounds = iter([(3600, False), *[(1, False)] * 151, (0, False)])
    told.clear()
    runner._loop(agent, None, SimpleNamespace(wait=wait), debug=False, verbose=False)
    assert [word for word in told if "WATCHDOG" in word][-2:] == ["WATCHDOG=1", "WATCHDOG=trigger"]
    assert told.count("WATCHDOG=trigger") == 1, "a limit later, and not before"
