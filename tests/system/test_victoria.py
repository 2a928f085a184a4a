"""The whole run: an agent process, a center that passes on, VictoriaMetrics: stopped, started, and nothing lost."""

import contextlib
import json
import shutil
import socket
import subprocess
import sys
import time

import pytest
import requests

from center.app import serve
from center.context import EXTENSION
from center.settings import EmbeddedSettings, Settings, VictoriaSettings
from center.stores.telemetry import SeriesQuery
from tests.center_helpers import HOUR, SECOND, answers, environment, stores, victoria
from tests.system.test_registration_service import Agent
from tests.waiting import wait_for

pytestmark = [pytest.mark.victoria, pytest.mark.slow]


@pytest.fixture
def store(tmp_path):
    """Starts it, on the same port and folder each time, and stops it."""

    class Store:
        def start(self):
            self.running = contextlib.ExitStack()
            self.url = self.running.enter_context(victoria(tmp_path, port=getattr(self, "port", None)))
            self.port = int(self.url.rpartition(":")[2])

        def stop(self):
            self.running.close()

    store = Store()
    store.start()
    yield store
    store.stop()


@pytest.fixture
def center(tmp_path, store):
    settings = Settings(victoria=VictoriaSettings(url=store.url), store=EmbeddedSettings(data=str(tmp_path / "center")))
    with serve(settings, port=0) as running:
        yield running


def test_promise_8_a_store_that_was_away_has_each_point_exactly_once(tmp_path, store, center):
    agent = Agent(tmp_path, center.url)
    try:
        agent.delivered(20)
        assert requests.get(f"{center.url}/health", timeout=40).status_code == 200
        store.stop()
        away = agent.when(lambda found: found["ledger"]["pending"] >= 15)
        assert away["registration"]["state"] == "registered"  # its token is good: nothing to renew
        assert requests.get(f"{center.url}/health", timeout=40).status_code == 503
        store.start()
        agent.when(lambda found: found["ledger"]["pending"] <= 3)
        assert agent.delivered(5)["registration"]["renewals"] == 0
    finally:
        agent.stop()
    command = [sys.executable, "-m", "agent.cli", "status", "--json", "-c", agent.config, "--state-dir", agent.state]
    ledger = json.loads(subprocess.run(command, capture_output=True, check=True, timeout=30).stdout)["ledger"]
    print({name: ledger[name] for name in ("measured", "delivered", "pending", "rejected", "dropped", "unaccounted")})
    assert (ledger["rejected"], ledger["dropped"], ledger["unaccounted"]) == (0, 0, 0)
    assert answers(f"{store.url}/internal/force_flush")
    telemetry = center.app.extensions[EXTENSION].telemetry
    assert telemetry.count("pi-7") == ledger["delivered"] >= 40
    page = requests.get(f"{center.url}/devices/pi-7", timeout=40)
    assert "pi-7" in page.text
    assert "VictoriaMetrics" in page.text


def test_a_removed_device_is_refused_and_registers_again(tmp_path, center):
    agent = Agent(tmp_path, center.url)
    try:
        agent.delivered()
        assert requests.delete(f"{center.url}/api/devices/pi-7", timeout=40).status_code == 204
        agent.when(lambda found: found["registration"]["renewals"] == 1)
        agent.delivered()
    finally:
        agent.stop()
    wait_for(lambda: requests.get(f"{center.url}/api/devices/pi-7", timeout=40).status_code == 200)


CLUSTER = ("vmstorage", "vminsert", "vmselect")


def free_ports(number):
    with contextlib.ExitStack() as stack:
        probes = [stack.enter_context(socket.create_server(("127.0.0.1", 0))) for _ in range(number)]
        return [probe.getsockname()[1] for probe in probes]


@pytest.mark.skipif(
    not all(map(shutil.which, CLUSTER)),
    reason="vminsert, vmselect and vmstorage are not on PATH: Debian packages the single node only",
)
def test_a_cluster_is_one_more_address(tmp_path):
    """Two vmstorage that both keep each point, as docs/scale.md describes it."""
    ports = free_ports(8)
    nodes = [dict(zip(("http", "insert", "select"), ports[n : n + 3], strict=True)) for n in (0, 3)]
    commands = [
        [
            "vmstorage", f"-storageDataPath={tmp_path / str(n)}", "-retentionPeriod=100y",
            "-dedup.minScrapeInterval=1ms",
            *(f"-{name}=127.0.0.1:{node[key]}" for name, key in (
                ("httpListenAddr", "http"), ("vminsertAddr", "insert"), ("vmselectAddr", "select"))),
        ]
        for n, node in enumerate(nodes)
    ]  # fmt: skip
    for name, key, port, options in (
        ("vminsert", "insert", ports[6], ["-replicationFactor=2"]),
        ("vmselect", "select", ports[7], ["-replicationFactor=2", "-dedup.minScrapeInterval=1ms"]),
    ):
        storages = ",".join(f"127.0.0.1:{node[key]}" for node in nodes)
        commands.append([name, f"-httpListenAddr=127.0.0.1:{port}", f"-storageNode={storages}", *options])
    settings = Settings(
        victoria=VictoriaSettings(
            url=f"http://127.0.0.1:{ports[7]}/select/0/prometheus",
            write_url=f"http://127.0.0.1:{ports[6]}/insert/0/influx",
        ),
        store=EmbeddedSettings(data=str(tmp_path / "center")),
    )
    with contextlib.ExitStack() as stack:
        for command in commands:
            stack.callback(stack.enter_context(subprocess.Popen(command)).terminate)
        wait_for(lambda: all(answers(f"http://127.0.0.1:{ports[n]}/health") for n in (0, 3, 6, 7)))
        with stores(settings) as (_, telemetry):
            now = time.time_ns() // HOUR * HOUR - HOUR
            points = [environment("pi-7", now + n * SECOND, Temperature=float(n), Humidity=40.0) for n in range(100)]
            for _ in range(2):
                telemetry.write(points)
            wait_for(lambda: telemetry.count("pi-7") == 100)
            (curve,) = telemetry.series(SeriesQuery("pi-7", now, now + HOUR, ("Temperature",), HOUR, "count"))
            assert list(curve.values) == [100]
