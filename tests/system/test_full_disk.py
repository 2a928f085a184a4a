"""The whole `iot-agent run` on a disk without room or without files to be made: never a signal, live points delivered,
and the disk is used once there is room.
"""

import itertools
import json
import signal

import pytest

from agent.buffer.database import DATABASE
from agent.buffer.folder import BALLAST
from agent.registration.credentials import CREDENTIALS_FILE, SECRET_FILE
from agent.status.socket import ask
from tests.amounts import first
from tests.disks import KINDS, fill, make_room, of_kind, small_card, use_up
from tests.fake_center import FakeCenter
from tests.servers import InfluxServer
from tests.system.numbered import NumberedAgent
from tests.system.test_sigkill import TO, numbers
from tests.waiting import wait_for

CENTER = """
[center]
url = "{url}"
"""


@pytest.fixture
def agent(tmp_path):
    agents = []

    def make(disk, to):
        one = NumberedAgent(tmp_path, to)
        one.state = disk / "state"
        one.where[-1] = str(one.state)
        agents.append(one)
        one.start()
        return one

    yield make
    for one in agents:
        one.end()


def delivers(agent, server, more=10):
    """Points that were measured after this call arrive."""
    known = max(agent.measured(), default=0)
    wait_for(lambda: agent.process.poll() is not None or max(numbers(server), default=0) >= known + more)
    assert agent.process.poll() is None, agent.log.read_text()


def uses_disk(agent, server):
    """What the server does not take is on the disk."""
    server.always = server.answer(503)
    wait_for(lambda: ((ask(agent.state) or {"buffer": {}})["buffer"].get("pending_disk", 0)) > 0, 60)
    server.always = None


def ends_well(agent, server):
    assert agent.stop() == 0, agent.log.read_text()
    ledger = json.loads(agent.command("status", "--json").stdout)["ledger"]
    assert ledger["unaccounted"] == 0
    assert ledger["delivered"] + ledger["pending"] == ledger["measured"] >= len(agent.measured())
    arrived = numbers(server)
    assert len(arrived) == len(set(arrived)) == ledger["delivered"]
    assert agent.state.stat().st_mode & 0o077 == 0
    assert "Traceback" not in agent.log.read_text()


@pytest.mark.root
@pytest.mark.parametrize(("kind", "folder"), first(1, *itertools.product(KINDS, ["missing", "there"])))
def test_promise_3_it_starts_on_a_full_disk_delivers_and_uses_the_disk_once_there_is_room(
    tmp_path, agent, kind, folder
):
    with of_kind(kind, tmp_path / "disk") as disk, InfluxServer() as server:
        if folder == "there":
            (disk / "state").mkdir(mode=0o700)
        use_up(kind, disk)
        running = agent(disk, TO.format(url=server.url))
        delivers(running, server)
        assert running.stop() == 0, running.log.read_text()
        running.start()
        delivers(running, server)
        make_room(disk)
        delivers(running, server)
        uses_disk(running, server)
        delivers(running, server)
        assert running.stop() == 0
        assert (disk / "state/buffer" / DATABASE).stat().st_size > 0


@pytest.mark.root
@pytest.mark.parametrize("kind", first(1, *reversed(KINDS)))
def test_promise_2_a_disk_that_fills_up_while_it_runs_holds_up_no_live_point(tmp_path, agent, kind):
    with of_kind(kind, tmp_path / "disk") as disk, InfluxServer() as server:
        running = agent(disk, TO.format(url=server.url))
        delivers(running, server)
        use_up(kind, disk)
        server.always = server.answer(503)
        known = len(running.measured())
        wait_for(lambda: len(running.measured()) > known + 40)
        server.always = None
        delivers(running, server)
        make_room(disk)
        uses_disk(running, server)
        delivers(running, server)
        ends_well(running, server)


@pytest.mark.root
@pytest.mark.parametrize(("end", "kind"), first(1, *itertools.product([signal.SIGKILL, signal.SIGTERM], KINDS)))
def test_promise_3_it_starts_again_on_a_disk_that_is_full_by_then(tmp_path, agent, kind, end):
    with of_kind(kind, tmp_path / "disk") as disk, InfluxServer() as server:
        running = agent(disk, TO.format(url=server.url))
        delivers(running, server)
        uses_disk(running, server)
        delivers(running, server)
        assert running.stop(end) == (0 if end == signal.SIGTERM else -end)
        (running.state / "buffer" / BALLAST).unlink()
        use_up(kind, disk)
        running.start()
        delivers(running, server)
        assert running.stop() == 0, running.log.read_text()
        make_room(disk)
        running.start()
        delivers(running, server)
        assert running.stop() == 0
        ledger = json.loads(running.command("status", "--json").stdout)["ledger"]
        assert (ledger["unaccounted"], ledger["dropped"]) == (0, 0)


@pytest.mark.slow
@pytest.mark.root
def test_promise_3_no_signal_with_a_little_room_left(tmp_path, agent):
    """So much that SQLite can extend its index, but not fill the holes in it."""
    with small_card(tmp_path / "disk", 1024) as disk, InfluxServer() as server:
        (disk / "state/buffer").mkdir(parents=True, mode=0o700)
        for leave in (16, 24, 32):
            fill(disk, leave * 1024)
            running = agent(disk, TO.format(url=server.url))
            delivers(running, server)
            assert running.stop() == 0


@pytest.mark.root
@pytest.mark.parametrize("kind", first(1, "ext4-1k", "no-inodes"))
def test_no_secret_that_cannot_be_kept_is_registered_with(tmp_path, agent, httpserver, kind):
    with of_kind(kind, tmp_path / "disk") as disk, InfluxServer() as server:
        center = FakeCenter(httpserver)
        use_up(kind, disk)
        running = agent(disk, CENTER.format(url=center.url.rstrip("/")))
        wait_for(lambda: len(running.measured()) > 40)
        said = running.log.read_text()
        assert f"{SECRET_FILE} cannot be written (No space left on device): is the disk full" in said
        assert "points are kept" in said
        assert center.asked() == []
        center.place["influx_url"] = server.url
        make_room(disk)
        wait_for((running.state / CREDENTIALS_FILE).exists, 60)
        server.token = center.tokens["pi-1"][0]
        delivers(running, server)
        wait_for(lambda: min(numbers(server)) == 1)
        ends_well(running, server)
