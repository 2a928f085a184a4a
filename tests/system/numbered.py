"""A sensor whose CO2 numbers its readings, and which notes when each was: what was really measured."""

import os
import signal
import subprocess
import sys
from pathlib import Path

ROOT = Path(__file__).parents[2]
DRIVER = """
import os
from drivers.virtual import Virtual
from drivers.base import Reading, boot_ns
from tests.system.lateness import watch
LOG = os.environ["NUMBERED"]
class Numbered(Virtual):
    sensor = "numbered"
    number = 0
    log = None
    def read(self):
        if Numbered.log is None:
            if "REFERENCE" in os.environ:
                watch(os.environ["REFERENCE"])
            Numbered.log = open(LOG, "ab", 0)
            Numbered.number = sum(1 for _ in open(LOG, "rb"))
        now, Numbered.number = boot_ns(), Numbered.number + 1
        Numbered.log.write(b"%d %d\\n" % (Numbered.number, now))
        return Reading({"CO2": Numbered.number}, now)
"""
CONFIG = """
[device]
id = "pi-1"
[[sensor]]
driver = "numbered"
interval = "{interval}"
[status]
listen = ""
[clock]
trust = "always"
[health]
enabled = false
[buffer]
loss_window = "{window_s:g}s"
{more}
[delivery]
timeout = "1s"
"""


class NumberedAgent:
    """`iot-agent run` with that sensor, started, killed and started again on one state folder. `to` is the TOML
    section that says where points go, `[center]` or `[influxdb]`; `environment` is added to the agent's.
    """

    def __init__(self, folder, to, *, window_s=1.0, interval="50ms", more="", environment=None):
        (folder / "numbered.py").write_text(DRIVER)
        info = folder / "numbered-1.dist-info"
        info.mkdir(exist_ok=True)
        (info / "METADATA").write_text("Metadata-Version: 2.1\nName: numbered\nVersion: 1\n")
        (info / "entry_points.txt").write_text("[iot_agent.drivers]\nnumbered = numbered:Numbered\n")
        self.folder, self.state, self.log, self.readings = folder, folder / "state", folder / "log", folder / "readings"
        self.config = folder / "agent.toml"
        self.config.touch(0o600)
        self.config.write_text(CONFIG.format(interval=interval, window_s=window_s, more=more) + to)
        self.where = ["--config", str(self.config), "--state-dir", str(self.state)]
        self.environment = {
            **os.environ,
            "PYTHONPATH": f"{folder}{os.pathsep}{ROOT}",
            "NUMBERED": str(self.readings),
            **(environment or {}),
        }
        self.process = None

    def start(self):
        with self.log.open("ab") as log:
            self.process = subprocess.Popen(
                [sys.executable, "-m", "agent.cli", "run", *self.where], stdout=log, stderr=log, env=self.environment
            )

    def command(self, *arguments):
        """Another `iot-agent` command on the same state folder."""
        return subprocess.run(
            [sys.executable, "-m", "agent.cli", *arguments, *self.where],
            capture_output=True,
            text=True,
            timeout=60,
            check=False,
            env=self.environment,
        )

    def measured(self):
        """Number of each reading → when it was, boot clock in ns. The last line may be half written."""
        if not self.readings.exists():
            return {}
        rows = self.readings.read_bytes().split(b"\n")[:-1]
        return {int(number): int(at) for number, at in (row.split() for row in rows)}

    def stop(self, number=signal.SIGTERM):
        self.process.send_signal(number)
        return self.process.wait(20)

    def end(self):
        """Whatever happened: no process is left."""
        if self.process is not None and self.process.poll() is None:
            self.process.kill()
            self.process.wait()
