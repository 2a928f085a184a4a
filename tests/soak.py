"""A whole agent and a whole center for as long as one likes, with faults by a seed: do all counts agree?

`python -m tests.soak`, as `make soak` runs it. Between them is a proxy that cuts, hangs, trickles and answers for the
server; both are killed; the agent's clock steps, its disk fills up and fails, its state folder is damaged, its token
revoked. What was really measured is in a log of the sensor. Every few faults the agent is stopped, and then
  measured = delivered + pending + rejected + dropped; what is delivered is stored, once each, at its right time;
  what is stored nowhere was measured within the loss window before a kill; and what is not counted is no more than what
  was measured in the seconds that the ledger says are uncounted.
Prints a line a minute and a summary; exits with 1 if anything differed, and leaves the folder.
"""

import argparse
import bisect
import collections
import errno
import json
import mmap
import random
import shutil
import socket
import subprocess
import sys
import tempfile
import time
from datetime import datetime
from pathlib import Path

import requests

from agent.status.socket import ask
from agent.util.errors import AgentError
from drivers.base import boot_ns
from tests.disk_faults import Faults
from tests.preloads import compiled
from tests.system.lateness import lateness_s
from tests.system.numbered import NumberedAgent
from tests.system.test_damaged_state import damage
from tests.unruly_proxy import MODES, UnrulyProxy
from tests.wallclock import UNSYNCHRONISED_US, WallClock

WINDOW_S, EVERY_S = 1.0, 0.1
RIGHT_S = 1.5
"""Servers vouch for the time to the second."""
CONFIG = """
[device]
id = "soak-1"
[[sensor]]
driver = "numbered"
interval = "100ms"
[center]
url = "{url}"
timeout = "3s"
[buffer]
loss_window = "1s"
[delivery]
flush_interval = "500ms"
timeout = "3s"
[status]
listen = ""
"""


def free_port():
    with socket.create_server(("127.0.0.1", 0)) as probe:
        return probe.getsockname()[1]


class Center:
    """`iot-center serve` on the embedded store, always at the same port."""

    def __init__(self, folder):
        self.folder, self.port, self.process = folder, free_port(), None
        self.url = f"http://127.0.0.1:{self.port}"
        self.start()

    def start(self):
        command = [Path(sys.executable).with_name("iot-center"), "serve", "--embedded", "--port", str(self.port)]
        with (self.folder / "center.log").open("ab") as log:
            self.process = subprocess.Popen([*command, "--data", self.folder / "center"], stdout=log, stderr=log)
        until = time.monotonic() + 60
        while True:
            try:
                return requests.get(f"{self.url}/ping", timeout=2)
            except requests.RequestException:
                if time.monotonic() > until:
                    raise
                time.sleep(0.1)

    def kill(self):
        self.process.kill()
        self.process.wait()

    def revoke(self):
        requests.delete(f"{self.url}/api/devices/soak-1", timeout=30)

    def count(self):
        return requests.get(f"{self.url}/api/devices/soak-1/measurements/count", timeout=60).json()["count"]

    def stored(self):
        """Number of the reading → the moments it is stored at, Unix seconds."""
        query = {"field": "CO2", "start": "2000-01-01T00:00:00Z", "stop": "2100-01-01T00:00:00Z"}
        answer = requests.get(f"{self.url}/api/devices/soak-1/measurements", query, timeout=120).json()
        found = collections.defaultdict(list)
        for curve in answer["series"]:
            for at, value in zip(curve["times"], curve["values"], strict=True):
                found[round(value)].append(datetime.fromisoformat(at).timestamp())
        return found


class Soak:
    """`excused` are readings that may be stored nowhere: lost, and as is promised. `differences` is what may not be."""

    def __init__(self, folder, seed):
        self.folder, self.rng, self.began = folder, random.Random(seed), time.monotonic()
        self.faults, self.differences = collections.Counter(), []
        self.excused, self.misdated, self.told = set(), set(), collections.defaultdict(set)
        self.kills, self.damaged, self.unsaved, self.last = 0, 0, False, None
        self.disk_until = 0.0
        self.boot_offset_s = time.time() - boot_ns() / 1e9
        self.center = Center(folder)
        self.proxy = UnrulyProxy(self.center.port, seed)
        (folder / "faults").write_bytes(bytes(mmap.PAGESIZE))
        self.wall, self.disk = WallClock(folder), Faults(folder / "faults")
        self.wall.synchronise()
        libraries = f"{compiled('wallclock')} {compiled('diskfaults')}"
        environment = {
            **self.wall.environment, "LD_PRELOAD": libraries, "DISK_FAULTS": str(folder / "faults"),
            "REFERENCE": str(folder / "reference"),
        }  # fmt: skip
        self.agent = NumberedAgent(folder, "", environment=environment)
        self.agent.config.write_text(CONFIG.format(url=self.proxy.url))

    # what happens

    def pause(self, longest):
        time.sleep(self.rng.uniform(0.3, longest))

    def unruly(self):
        mode = self.rng.choice(MODES[1:])
        self.faults[f"proxy: {mode}"] += 1
        self.proxy.set(mode)
        self.pause(8)
        self.proxy.set("pass")

    def kill_agent(self):
        self.faults["agent killed"] += 1
        self.end_agent()
        self.pause(1)
        self.agent.start()

    def end_agent(self):
        at = boot_ns()
        self.agent.end()
        self.kills += 1
        if time.monotonic() < self.disk_until:  # it had them in memory only, and could not save that it ran at all
            self.excuse_all()
            self.unsaved = True
        span = (WINDOW_S + lateness_s(self.folder / "reference", at - 2e9 * WINDOW_S, at)) * 1e9
        self.excused |= {number for number, moment in self.agent.measured().items() if moment >= at - span}

    def excuse_all(self):
        self.excused |= self.agent.measured().keys()

    def kill_center(self):
        self.faults["center killed"] += 1
        self.center.kill()
        self.pause(5)
        self.center.start()

    def step_clock(self):
        """Where the kernel vouches for it, what is delivered before the servers say otherwise has that time: also what
        waited, since whatever was not sent is dated by what is known last.
        """
        shift = self.rng.choice([-7200, -30, -3, 3, 30, 7200, 40 * 86_400, -40 * 86_400])
        vouched = self.rng.random() < 0.4
        self.faults["clock stepped, vouched for" if vouched else "clock stepped"] += 1
        before = self.center.stored().keys() if vouched else {}
        self.wall.set(shift, 2_000 if vouched else UNSYNCHRONISED_US)
        self.pause(6)
        self.wall.synchronise()
        if vouched:
            time.sleep(3)
            self.misdated |= self.agent.measured().keys() - before

    def spoil_disk(self):
        fault, number = self.rng.choice([("full", errno.ENOSPC), ("failing", errno.EIO), ("slow", 0)])
        self.faults[f"disk {fault}"] += 1
        if number:
            self.disk.set(write=(number, 0), sync=(number, 0))
            self.disk_until = time.monotonic() + 90  # it is tried again within 30 s, and then opened anew
        else:
            self.disk.set(delay_ms=700)
            self.disk_until = time.monotonic() + 20
        self.proxy.set(self.rng.choice(["pass", "503"]))
        self.pause(8)
        self.disk.set()
        self.proxy.set("pass")

    def damage_state(self):
        self.faults["state damaged"] += 1
        self.end_agent()
        self.excuse_all()
        self.damaged = 2  # comparisons: the ledger and rows of what was set aside come back beside the running agent
        done = damage(self.agent.state, self.rng, ())
        print("  damaged:", done, flush=True)
        self.center.revoke()  # the administrator's word, where its secret is lost
        self.agent.start()

    def revoke(self):
        self.faults["token revoked"] += 1
        self.center.revoke()
        self.pause(4)

    ACTS = {unruly: 8, kill_agent: 3, kill_center: 2, step_clock: 2, spoil_disk: 2, revoke: 1, damage_state: 1}

    def one_fault(self):
        self.rng.choices(list(self.ACTS), list(self.ACTS.values()))[0](self)
        self.pause(3)

    # what must be so

    def differs(self, text):
        self.differences.append(f"{time.monotonic() - self.began:.0f} s: {text}")
        print("  DIFFERENCE", self.differences[-1], flush=True)

    def ledger(self):
        """The running agent's; None while it does not answer."""
        try:
            found = ask(self.agent.state)
        except AgentError:
            return None
        return found["ledger"] if found else None

    def adds_up(self, ledger):
        total = sum(ledger[name] for name in ("delivered", "pending", "rejected", "dropped"))
        if ledger["unaccounted"] or total != ledger["measured"]:
            self.differs(f"the ledger does not add up: {ledger}")
        if ledger["rejected"]:
            self.differs(f"points were rejected: {ledger}")

    def settle(self, seconds=180):
        """All is well, everything arrives, the agent ends: the counts are compared. Then it starts again."""
        until = time.monotonic() + seconds
        while (found := self.ledger()) is None or found["pending"] > 3 / EVERY_S:
            if time.monotonic() > until:
                self.differs(f"after {seconds} s without a fault it still has not delivered: {found}")
                break
            if self.agent.process.poll() is not None:
                self.differs(f"the agent ended by itself: {self.agent.process.returncode}")
                return
            time.sleep(0.2)
        try:
            if self.agent.stop():
                self.differs(f"the agent ended with {self.agent.process.returncode}")
        except subprocess.TimeoutExpired:
            self.differs("the agent does not end")
        self.compare(json.loads(self.agent.command("status", "--json").stdout)["ledger"])
        self.agent.start()

    def compare(self, ledger):
        self.adds_up(ledger)
        log, stored = self.agent.measured(), self.center.stored()
        if (count := self.center.count()) != sum(map(len, stored.values())):
            self.differs(f"the center counts {count} and has {sum(map(len, stored.values()))}")
        now = {
            "measured and not counted": len(log) - ledger["measured"],
            "stored and not counted as delivered": count - ledger["delivered"],
        }
        allowed = ledger["pending"]
        if self.last is not None and not self.damaged:
            uncounted = ledger["uncounted_s"] - self.last[1]
            allowed += uncounted / EVERY_S * 1.1 + 5 * self.kills if self.kills else 0
            if self.unsaved:
                allowed = float("inf")
            for name, value in now.items():
                change = value - self.last[0][name]
                if not -ledger["pending"] - self.last[2] <= change <= allowed + self.last[2]:
                    self.differs(f"{change} more {name}, allowed are {allowed:.0f}: {ledger}")
        self.last = now, ledger["uncounted_s"], ledger["pending"]
        self.kills, self.damaged, self.unsaved = 0, max(0, self.damaged - 1), False
        kept = sorted(log.keys() - self.excused)  # what a kill took is newer than what waits
        waiting = set(kept[-ledger["pending"] - 1 :]) if ledger["pending"] else set()
        missing = log.keys() - stored.keys() - self.excused - waiting
        if missing:
            self.differs(f"measured and stored nowhere: {spans(missing)}")
            self.excused |= missing  # once is enough
        if invented := stored.keys() - log.keys():
            self.differs(f"stored and never measured: {spans(invented)}")
        twice = {number for number, moments in stored.items() if len(moments) > 1}
        if fresh := twice - self.said("twice", twice):
            self.differs(f"stored at two times: {spans(fresh)}")
        known = {n: at[0] for n, at in stored.items() if n in log and n not in self.misdated}
        wrong = {n for n, at in known.items() if abs(at - log[n] / 1e9 - self.boot_offset_s) > RIGHT_S}
        if fresh := wrong - self.said("wrong", wrong):
            self.differs(f"stored at a wrong time: {spans(fresh)}")

    def said(self, what, numbers):
        """Those that were said before."""
        before = set(self.told[what])
        self.told[what] |= numbers
        return before

    # the whole

    def run(self, minutes):
        end, line = self.began + 60 * minutes, self.began + 60
        self.agent.start()
        self.settle()
        while time.monotonic() < end:
            for _ in range(self.rng.randrange(3, 8)):
                self.one_fault()
                if time.monotonic() > line:
                    line += 60
                    self.say()
                if time.monotonic() > end:
                    break
            self.settle()

    def say(self):
        ledger = self.ledger()
        if ledger:
            self.adds_up(ledger)
        names = ("measured", "delivered", "pending", "dropped")
        shown = {name: ledger[name] for name in names} if ledger else "starting"
        minute, faults = (time.monotonic() - self.began) / 60, sum(self.faults.values())
        print(f"{minute:5.1f} min: {shown}, {faults} faults, {len(self.differences)} differences", flush=True)

    def close(self):
        self.agent.end()
        self.center.kill()


def spans(numbers):
    """7 to 9, 12: how many."""
    ordered, found = sorted(numbers), []
    while ordered:
        first = ordered[0]
        length = bisect.bisect_left(range(len(ordered)), True, key=lambda i: ordered[i] - i > first)
        found.append(f"{first} to {ordered[length - 1]}" if length > 1 else str(first))
        ordered = ordered[length:]
    return f"{', '.join(found[:20])}: {len(numbers)} readings"


def main():
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--minutes", type=float, default=60)
    parser.add_argument("--seed", type=int, default=random.randrange(10**6))
    asked = parser.parse_args()
    folder = Path(tempfile.mkdtemp(prefix="soak-"))
    print(f"seed {asked.seed}, in {folder}", flush=True)
    soak = Soak(folder, asked.seed)
    with soak.proxy:
        try:
            soak.run(asked.minutes)
            log, stored = soak.agent.measured(), soak.center.stored()
        finally:
            soak.close()
    lost = len(log.keys() - stored.keys())
    print(
        f"\nseed {asked.seed}, {asked.minutes:g} min: {len(log)} readings, {len(stored)} stored, {lost} lost as allowed"
    )
    for name, count in sorted(soak.faults.items()):
        print(f"  {count:4} {name}")
    print(f"{len(soak.differences)} differences", *soak.differences, sep="\n  ")
    if soak.differences:
        print(f"repeat it by SEED={asked.seed}; what is left of it: {folder}")
        return 1
    shutil.rmtree(folder)
    return 0


if __name__ == "__main__":
    raise SystemExit(main())
