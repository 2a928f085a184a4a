"""A center as a process of its own, and what it costs it to be attacked: memory, temporary files, how soon /health is
answered. It is that of this interpreter's environment: run by another's, the trials tell what was before.
"""

import contextlib
import re
import socket
import subprocess
import sys
import threading
import time
from pathlib import Path

import requests

CENTER = str(Path(sys.executable).with_name("iot-center"))
PASSWORD = "correct horse battery"
MB = 1_000_000
BOUND_MB, BOUND_S = 250, 1.0  # what a board with 1 GB has for it, and how long a balancer waits


class Victim:
    def __init__(self, process, url, log):
        self.process, self.url, self.log_file = process, url, log
        self.port = int(url.rpartition(":")[2])
        self.begin()

    def begin(self):
        """Figures from here on."""
        Path(f"/proc/{self.process.pid}/clear_refs").write_text("5")
        self.spooled = 0
        self.slowest_s = 0.0

    @property
    def memory_mb(self):
        """Resident at most since begin()."""
        with contextlib.suppress(FileNotFoundError):  # it has ended
            status = Path(f"/proc/{self.process.pid}/status").read_text()
            self._memory_mb = int(re.search(r"VmHWM:\s+(\d+)", status)[1]) * 1024 // MB
        return self._memory_mb

    @property
    def log(self):
        return self.log_file.read_text()

    def look(self):
        """The bytes of temporary files now; how long /health takes."""
        size = 0
        for link in Path(f"/proc/{self.process.pid}/fd").iterdir():
            with contextlib.suppress(OSError):
                if str(link.readlink()).endswith("(deleted)"):
                    size += link.stat().st_size
        self.spooled = max(self.spooled, size)
        assert self.memory_mb
        began = time.monotonic()
        with contextlib.suppress(requests.RequestException):
            requests.get(f"{self.url}/health", timeout=40)
        self.slowest_s = max(self.slowest_s, time.monotonic() - began)

    @contextlib.contextmanager
    def watched(self):
        """Looked at all the time in between."""
        self.begin()
        over = threading.Event()

        def look():
            while not over.wait(0.1):
                self.look()

        thread = threading.Thread(target=look)
        thread.start()
        try:
            yield
        finally:
            over.set()
            thread.join()
            self.look()

    def connect(self, source="127.0.0.1"):
        return socket.create_connection(("127.0.0.1", self.port), timeout=10, source_address=(source, 0))

    def told(self, trial, **more):
        """A line of figures."""
        figures = {"memory MB": self.memory_mb, "spooled MB": self.spooled // MB, "health s": round(self.slowest_s, 2)}
        print(f"\n{trial}: " + ", ".join(f"{name} {value}" for name, value in (figures | more).items()), flush=True)

    def stood(self):
        return self.memory_mb < BOUND_MB and self.slowest_s < BOUND_S


def command(folder, *args, text=""):
    arguments = [CENTER, *args, "--embedded", "--data", str(folder / "data")]
    return subprocess.run(arguments, cwd=folder, input=text, text=True, capture_output=True, timeout=30, check=True)


@contextlib.contextmanager
def victim(folder, *, password=True, options=""):
    (folder / "center.toml").write_text(f"[server]\nport = 0\n{options}")
    if password:
        command(folder, "password", text=f"{PASSWORD}\n")
    log = folder / "log"
    arguments = [CENTER, "serve", "--embedded", "--data", str(folder / "data")]
    with (
        log.open("w") as errors,
        subprocess.Popen(arguments, cwd=folder, text=True, stdout=subprocess.PIPE, stderr=errors) as process,
    ):
        try:
            url = re.search(r"http://\S+", process.stdout.readline())[0]
            yield Victim(process, url, log)
        finally:
            process.terminate()
