"""The first reading and the first delivery come at the same moment: neither is lost to the other's import."""

import subprocess
import sys

import pytest

TOGETHER = """
import sys, threading, time
from agent.schema import line_for
from agent.secret import Secret
from agent.target import Target
from agent.writer import Writer

both, wrong = threading.Barrier(2), []

def measure():
    both.wait()
    line_for("pi-7", "bme280", {"Temperature": 1.0}, boot_ns=1)

def deliver():
    both.wait()
    time.sleep(float(sys.argv[1]))
    Writer(Target("http://127.0.0.1:1", "o", "b", Secret("t")), 1.0)._open("t")

threading.excepthook = lambda found: wrong.append(repr(found.exc_value))
threads = [threading.Thread(target=job) for job in (measure, deliver)]
for thread in threads:
    thread.start()
for thread in threads:
    thread.join()
sys.exit("; ".join(wrong) or 0)
"""


@pytest.mark.parametrize("delay", ["0", "0.05"])
def test_the_first_reading_and_the_first_delivery_may_meet(delay):
    done = subprocess.run([sys.executable, "-c", TOGETHER, delay], capture_output=True, text=True, check=False)
    assert done.returncode == 0, done.stderr
