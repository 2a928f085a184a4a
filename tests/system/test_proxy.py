"""A whole agent whose only way out is a real proxy (tinyproxy): its network has nothing else."""

import json
import os
import shutil
import subprocess
import sys
import time
from contextlib import contextmanager

import pytest
from pytest_httpserver import HTTPServer

from agent.buffer.offline import OfflineBuffer
from agent.status.socket import ask
from agent.util.proxy import VARIABLES
from tests.certificates import make_certificate, server_context
from tests.fake_center import FakeCenter
from tests.proxies import PASSWORD, seen_from_there, tinyproxy
from tests.servers import InfluxServer

pytestmark = [pytest.mark.root, pytest.mark.tinyproxy]

CONFIG = """
[device]
id = "pi-7"
[[sensor]]
driver = "virtual"
interval = "200ms"
[center]
url = "{url}"
{more}
timeout = "2s"
[delivery]
flush_interval = "300ms"
timeout = "2s"
[buffer]
loss_window = "1s"
[status]
listen = ""
"""


@pytest.fixture
def network():
    """(name of a network namespace, this side's address): of all networks it reaches that address only."""
    if not shutil.which("ip"):
        pytest.skip("install Debian's package iproute2")
    name, here, there = f"iot{os.getpid()}", f"ioth{os.getpid()}", f"iota{os.getpid()}"
    base = f"198.18.{os.getpid() % 250}"  # RFC 2544: for such trials

    def ip(*words):
        return subprocess.run(["ip", *words], capture_output=True, text=True, check=False)

    if ip("netns", "add", name).returncode:
        pytest.skip("network namespaces are not allowed here")
    try:
        for words in (
            f"link add {here} type veth peer name {there} netns {name}",
            f"addr add {base}.1/30 dev {here}",
            f"link set {here} up",
            f"-n {name} addr add {base}.2/30 dev {there}",
            f"-n {name} link set {there} up",
            f"-n {name} link set lo up",
        ):
            done = ip(*words.split())
            if done.returncode:
                pytest.skip(f"ip {words}: {done.stderr.strip()}")
        yield name, f"{base}.1"
    finally:
        ip("link", "del", here)
        ip("netns", "del", name)


class Agent:
    """`iot-agent run` and other commands in the namespace, with this proxy in their environment."""

    def __init__(self, folder, network, proxy, url, more=""):
        self.network, self.proxy = network, proxy
        self.config, self.state, self.log = folder / "agent.toml", folder / "state", folder / "agent.log"
        self.config.write_text(CONFIG.format(url=url, more=more))
        self.config.chmod(0o600)

    def environment(self):
        clean = {name: value for name, value in os.environ.items() if name.lower() not in VARIABLES}
        return clean | ({"HTTP_PROXY": self.proxy, "HTTPS_PROXY": self.proxy} if self.proxy else {})

    def command(self, *words):
        where = ["--config", str(self.config), "--state-dir", str(self.state)]
        return ["ip", "netns", "exec", self.network, sys.executable, "-m", "agent.cli", *words, *where]

    @contextmanager
    def running(self):
        with self.log.open("ab") as log:
            process = subprocess.Popen(self.command("run", "--debug"), stdout=log, stderr=log, env=self.environment())
        try:
            yield self
        finally:
            process.terminate()
            assert process.wait(30) == 0

    def run(self, *words):
        command = self.command(*words)
        return subprocess.run(command, capture_output=True, text=True, check=False, env=self.environment(), timeout=60)

    def status(self):
        try:
            return ask(self.state)
        except Exception:  # noqa: BLE001 - not yet there
            return None

    def wait(self, condition, seconds=40):
        until = time.monotonic() + seconds
        while not condition():
            assert time.monotonic() < until, (self.status(), self.log.read_text()[-3000:])
            time.sleep(0.1)


def no_secret(*texts):
    assert all(PASSWORD not in text for text in texts)


@pytest.fixture
def center():
    with HTTPServer(host="127.0.0.1", port=0) as server:
        yield FakeCenter(server)


class Influx(InfluxServer):
    """Takes the token that the center has issued last."""

    def take(self, center):
        self.token = center.tokens["pi-7"][-1]


@pytest.mark.slow
def test_the_agent_registers_and_delivers_through_it_and_survives_its_refusals(tmp_path, network, center):
    name, address = network
    with tinyproxy(tmp_path, address) as proxy, Influx() as influx:
        center.place["influx_url"] = seen_from_there(influx.url)
        direct = Agent(tmp_path, name, None, seen_from_there(center.url))
        refused = direct.run("register")
        assert refused.returncode == 1
        assert center.requests == []  # the direct way is cut
        agent = Agent(tmp_path, name, proxy, seen_from_there(center.url))
        with agent.running():
            agent.wait(lambda: center.tokens.get("pi-7"))
            influx.take(center)
            agent.wait(lambda: len(influx.points) > 10)
            assert all("tinyproxy" in request.headers["Via"] for request in center.requests)
            assert all("tinyproxy" in request.headers["via"] for request in influx.requests)
            found = agent.run("doctor", "--json")
            findings = {finding["check"]: finding for finding in json.loads(found.stdout)["findings"]}
            assert findings["token and bucket"]["verdict"] == "ok"
            assert findings["registration"]["verdict"] == "ok"
            assert findings["proxy"]["verdict"] == "ok"
            assert f"through {proxy.replace(f'garden:{PASSWORD}@', '')}, as" in findings["proxy"]["seen"]
            assert findings[f"connection to {address}:{proxy.rpartition(':')[2]}"]["verdict"] == "ok"
            other = Agent(tmp_path, name, None, seen_from_there(center.url)).run("doctor", "--json")
            assert "of the running agent are not those of this command" in other.stdout
            assert "/etc/default/iot-agent; iot-agent doctor" in other.stdout  # where the unit has them from
            no_secret(found.stdout, found.stderr, agent.run("status").stdout, json.dumps(agent.status()))
            tokens, renewals = center.tokens["pi-7"], agent.status()["registration"]["renewals"]
        no_secret(agent.log.read_text())
        wrong = Agent(tmp_path, name, proxy.replace(PASSWORD, "not-that-one"), seen_from_there(center.url))
        with wrong.running():
            wrong.wait(lambda: (wrong.status() or {}).get("delivery", {}).get("last_error"))
            assert "asks for a user and a password" in wrong.status()["delivery"]["last_error"]
            said = wrong.run("doctor").stdout
            assert "put them into HTTP_PROXY" in said
            assert "not-that-one" not in said + wrong.log.read_text()
            assert (center.tokens["pi-7"], wrong.status()["registration"]["renewals"]) == (tokens, renewals)
        with agent.running():  # and all of it comes, each once
            agent.wait(lambda: agent.status() and agent.status()["buffer"]["pending_disk"] == 0)
        with OfflineBuffer(agent.state / "buffer", write=False) as buffer:
            counters = buffer.counters().points
    assert counters.delivered == sum(series.startswith(b"environment") for series, _ in influx.points) > 0
    assert (counters.rejected, dict(counters.dropped)) == (0, {})


@pytest.mark.slow
def test_an_influxdb_with_tls_is_reached_through_it_and_its_outage_is_no_fault_of_the_points(tmp_path, network, center):
    name, address = network
    cert, key = make_certificate(tmp_path)
    context = server_context(cert, key)
    more = f'ca_file = "{cert}"'
    with tinyproxy(tmp_path, address) as proxy, Influx(tls=context) as influx:
        center.place["influx_url"] = seen_from_there(influx.url)
        agent = Agent(tmp_path, name, proxy, seen_from_there(center.url), more)
        with agent.running():
            agent.wait(lambda: center.tokens.get("pi-7"))
            influx.take(center)
            agent.wait(lambda: len(influx.points) > 5)
            influx.always = influx.cut  # what is open, too
            influx.__exit__(None, None, None)
            agent.wait(lambda: (agent.status()["delivery"]["last_error"] or "").startswith("the proxy "))
            assert "does not reach the server" in agent.status()["delivery"]["last_error"]
            again = Influx(tls=context, port=influx.port, token=influx.token)
            with again:
                agent.wait(lambda: len(again.points) > 5)
                status = agent.status()
                assert status["buffer"]["parked"] == status["buffer"]["dead_letters"] == 0
                assert "via" not in again.requests[0].headers
                found = json.loads(agent.run("doctor", "--json").stdout)["findings"]
                assert {f["check"]: f["verdict"] for f in found}["TLS of 127.1"] in ("ok", "warning")
        no_secret(agent.log.read_text())
