"""A state folder as 0.1.0 left it, killed in the midst of trouble, goes on under this version."""

import os
import subprocess
import sys
import tarfile
import time
from pathlib import Path

import pytest

from agent.buffer.offline import OfflineBuffer
from agent.status.snapshot import from_disk
from agent.status.socket import ask
from tests.servers import InfluxServer

FOLDER = Path(__file__).parents[1] / "data" / "state-0.1.0.tar.gz"
# What its ledger and rows hold: 79 pending, 10 suspect, 1 parked, 40 undated; 3 dead letters; 26 were delivered.
MEASURED, DELIVERED, WAITING, UNDATED, REJECTED = 159, 26, 130, 40, 3


@pytest.fixture
def state(tmp_path):
    with tarfile.open(FOLDER) as archive:
        archive.extractall(tmp_path, **({"filter": "tar"} if hasattr(tarfile, "tar_filter") else {}))  # not in 3.11.2
    return tmp_path / "state"


@pytest.fixture
def server():
    with InfluxServer() as server:
        yield server


def configuration(folder, url):
    path = folder / "agent.toml"
    path.write_text(
        f'[device]\nid = "pi-7"\n[[sensor]]\ndriver = "virtual"\ninterval = "1h"\n[clock]\ntrust = "always"\n'
        f'[influxdb]\nurl = "{url}"\norg = "my-org"\nbucket = "iot_center"\ntoken = "token-1"\n'
        f'[status]\nlisten = ""\n[health]\nenabled = false\n'
    )
    path.chmod(0o600)
    return path


def test_what_waits_in_it_is_seen_by_the_commands(state):
    with OfflineBuffer(state / "buffer", write=False) as buffer:
        assert sum(header.count for header in buffer.headers()) == WAITING
        assert len(list(buffer.letters())) == REJECTED
        assert buffer.counters().points.measured == MEASURED


def test_its_backlog_of_every_kind_is_delivered_once_and_accounted_for(state, tmp_path, server):
    config = configuration(tmp_path, server.url)
    command = [sys.executable, "-m", "agent.cli", "run", "-c", config, "--state-dir", state]
    environment = {key: value for key, value in os.environ.items() if not key.startswith("IOT_")}
    with (tmp_path / "log").open("wb") as log:
        process = subprocess.Popen(command, env=environment, stderr=log)
    try:
        until = time.monotonic() + 30
        while time.monotonic() < until:
            found = ask(state)
            if found and found["ledger"]["delivered"] >= DELIVERED + WAITING:
                break
            time.sleep(0.1)
    finally:
        process.terminate()
        process.wait(20)
    log = (tmp_path / "log").read_text()
    assert process.returncode == 0, log
    assert "ERROR" not in log
    ledger = from_disk(state)["ledger"]  # as it was saved at the end: the last points go out after it was asked
    assert ledger["measured"] >= MEASURED
    assert ledger["delivered"] - DELIVERED >= WAITING
    assert (ledger["rejected"], ledger["dropped"], ledger["unaccounted"]) == (REJECTED, 0, 0)
    old = [key for key in server.points if b"clock=estimated" in key[0]]
    assert len(old) == UNDATED, "the points of the boot without a clock carry the tag"
    assert len(server.points) == ledger["delivered"] - DELIVERED, "each is stored once"
    with OfflineBuffer(state / "buffer", write=False) as buffer:
        assert len(list(buffer.letters())) == REJECTED


def test_its_registration_is_taken_up(state):
    from agent.registration.credentials import CredentialStore

    found = CredentialStore(state).load()
    assert (found.device_id, found.dialect, found.bucket) == ("pi-7", "iot-center", "iot_center")
    assert found.token.reveal() == "token-of-a-test"
