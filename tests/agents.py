"""`iot-agent run` as a process on a folder of its own, as systemd or a person runs it."""

import json
import signal
import subprocess
import sys

from agent.status.socket import ask
from tests.waiting import wait_for

AGENT = [sys.executable, "-m", "agent.cli"]
CONFIG = """
[device]
id = "pi-1"
[[sensor]]
driver = "virtual"
interval = "100ms"
[influxdb]
url = "{url}"
org = "my-org"
bucket = "iot_center"
token = "token-1"
[status]
listen = ""
[clock]
trust = "always"
[buffer]
loss_window = "{window}"
"""


def cli(*arguments, **more):
    return subprocess.run(
        [*AGENT, *map(str, arguments)], capture_output=True, text=True, timeout=30, check=False, **more
    )


class Agent:
    """`iot-agent run` on a folder of its own."""

    def __init__(self, folder, url, window="10s", more=""):
        self.config, self.state, self.log = folder / "agent.toml", folder / "state", folder / "log"
        self.write(url, window, more)
        self.where = ["--config", self.config, "--state-dir", self.state]
        self.start()

    def write(self, url, window="10s", more="", **replaced):
        text = CONFIG.format(url=url, window=window) + more
        for old, new in replaced.items():
            text = text.replace(old, new)
        self.config.write_text(text)
        self.config.chmod(0o600)

    def start(self):
        with self.log.open("ab") as log:
            self.process = subprocess.Popen([*AGENT, "run", *map(str, self.where)], stdout=log, stderr=log)

    def status(self):
        """What the command says, also of an agent that has ended."""
        return json.loads(cli("status", "--json", *self.where).stdout)

    def asked(self):
        """What the running agent itself says, once it does."""
        return wait_for(lambda: ask(self.state))

    def ledger(self, **at_least):
        """The ledger once it has at least these numbers."""

        def reached():
            ledger = self.asked()["ledger"]
            return ledger if all(ledger[key] >= value for key, value in at_least.items()) else None

        return wait_for(reached)

    def stop(self, number=signal.SIGTERM):
        self.process.send_signal(number)
        self.process.wait(20)
