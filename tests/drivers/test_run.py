"""The whole agent on the unmodified Linux stack: what pulling the sensor out and plugging it in again costs."""

import gzip
import json
import signal
import subprocess
import sys
import time
from itertools import pairwise
from pathlib import Path

import pytest
from werkzeug import Response

from drivers.chip import Chip, Image
from tests.fake_i2c_bus import FakeI2C, environment
from tests.system.lateness import beside
from tests.waiting import wait_for

CASE = json.loads((Path(__file__).parents[1] / "data/bme280-bosch.json").read_text())[0]
INTERVAL_S = 0.2
pytestmark = pytest.mark.umockdev


class Database:
    """An InfluxDB that takes everything."""

    def __init__(self, httpserver):
        self.lines = []
        httpserver.expect_request("/api/v2/write").respond_with_handler(self.take)
        self.url = httpserver.url_for("")

    def take(self, request):
        body = request.get_data()
        body = gzip.decompress(body) if request.headers.get("Content-Encoding") == "gzip" else body
        self.lines += body.decode().splitlines()
        return Response(status=204)

    def points(self):
        """(seconds, line without its stamp) of each point, in order."""
        lines = [line.rpartition(" ") for line in self.lines if line.startswith("environment")]
        return sorted({int(stamp) / 1e9: head for head, _, stamp in lines}.items())

    def wait_for(self, count):
        wait_for(lambda: len(self.points()) >= count)


def test_unplugged_and_plugged_in_again_only_the_readings_between_are_lost(httpserver, tmp_path):
    database = Database(httpserver)
    config = tmp_path / "agent.toml"
    config.write_text(f"""
[[sensor]]
interval = "{INTERVAL_S * 1000:.0f}ms"
[influxdb]
url = "{database.url}"
org = "o"
bucket = "b"
token = "t"
[delivery]
flush_interval = "200ms"
[clock]
trust = "always"
[status]
listen = "127.0.0.1:0"
[health]
enabled = false
""")
    config.chmod(0o600)
    state = ["--state-dir", str(tmp_path / "state")]
    command = [sys.executable, "-m", "agent.cli", "run", "--config", str(config), *state]
    with FakeI2C({0x77: Chip(Image.of(CASE))}) as bus, beside(tmp_path / "reference") as machine_s:
        agent = subprocess.Popen(command, env=environment(bus), stderr=subprocess.PIPE, text=True)
        try:
            database.wait_for(5)
            chip = bus.chips.pop(0x77)
            unplugged = time.time()
            time.sleep(2)
            chip.power_on()
            bus.chips[0x77] = chip
            plugged_in = time.time()
            database.wait_for(len(database.points()) + 10)
        finally:
            agent.send_signal(signal.SIGTERM)
            _, log = agent.communicate(timeout=40)
        late_s = machine_s()
    moments = [moment for moment, _ in database.points()][3:]  # the first ones compete with imports for a processor
    gaps = list(pairwise(moments))
    (hole,) = [(before, after) for before, after in gaps if before < unplugged + 1 < after]
    assert hole[0] > unplugged - 2 * INTERVAL_S - late_s
    assert hole[1] < plugged_in + 0.9 + 10 * INTERVAL_S + late_s  # the longest back-off, and the next moment
    assert max(after - before for before, after in gaps if (before, after) != hole) <= 1 + late_s
    fields = {head.rpartition(" ")[2] for _, head in database.points()}
    assert fields == {"Humidity=39.31,Pressure=1045.43,Temperature=14.14"}
    assert "reads again after" in log
