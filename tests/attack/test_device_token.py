"""What one device's token can cost: a center as a process of its own, with its memory, time and bytes."""

import concurrent.futures
import contextlib
import gzip
import os
import re
import subprocess
import threading
import time
import zlib
from pathlib import Path

import pytest
import requests

from tests.attack import FULL
from tests.center.test_serve import CENTER, environment

MOST_MB, HEALTH_S = 250, 1.0
WEEK_S = 7 * 86_400
NOW_S = int(time.time())
AT_ONCE = int(os.environ.get("AT_ONCE") or (20 if FULL else 4))


class Attacked:
    """An embedded center on loopback, a device's token, and what the center takes meanwhile."""

    def __init__(self, process, url):
        self.process, self.url = process, url
        self.slowest_s, self.started = 0.0, time.perf_counter()
        self._stop = threading.Event()
        self._thread = threading.Thread(target=self._watch)
        self._thread.start()
        self.device = self.token = ""

    def registered(self, device):
        answer = requests.post(f"{self.url}/api/devices/{device}", timeout=30, headers={"X-Device-Secret": "s" * 32})
        return answer.json()["token"]

    def _watch(self):
        while not self._stop.wait(0.1):
            begun = time.perf_counter()
            with contextlib.suppress(requests.RequestException):
                requests.get(f"{self.url}/health", timeout=600)
            self.slowest_s = max(self.slowest_s, time.perf_counter() - begun)

    def write(self, body, *, packed=False, pack=False, precision="ns", token=None):
        """The answer's status, its message and its bytes. DEVICE stands for the device's id; `packed` it is already."""
        if not packed:
            body = (body.encode() if isinstance(body, str) else body).replace(b"DEVICE", self.device.encode())
        if pack:
            body = zlib.compress(body, 1, wbits=31)
        gzipped = {"Content-Encoding": "gzip"} if packed or pack else {}
        headers = {"Authorization": f"Token {token or self.token}"} | gzipped
        where = f"{self.url}/api/v2/write?org=iot-center&bucket=iot_center&precision={precision}"
        answer = requests.post(where, data=body, headers=headers, timeout=900)
        return answer.status_code, answer.json()["message"] if answer.content else "", len(answer.content)

    def get(self, path):
        begun = time.perf_counter()
        answer = requests.get(self.url + path.replace("DEVICE", self.device), timeout=900)
        return answer.status_code, len(answer.content), time.perf_counter() - begun

    @property
    def peak_mb(self):
        status = Path(f"/proc/{self.process.pid}/status").read_text()
        return int(re.search(r"VmHWM:\s+(\d+) kB", status)[1]) / 1000

    def close(self):
        self._stop.set()
        self._thread.join()

    def figures(self):
        seconds = time.perf_counter() - self.started
        times = Path(f"/proc/{self.process.pid}/stat").read_text().rpartition(")")[2].split()
        used = sum(map(int, times[11:13])) / os.sysconf("SC_CLK_TCK")
        work = f"{used:.1f} s of the processor in {seconds:.1f} s"
        return f"peak {self.peak_mb:,.0f} MB, {work}, slowest /health {self.slowest_s:.2f} s"

    def bounded(self):
        """What a Raspberry Pi with 1 GB has for it."""
        assert self.peak_mb < MOST_MB
        if FULL:
            assert self.slowest_s < HEALTH_S


@pytest.fixture(scope=lambda **_: "function" if FULL else "module")
def process(tmp_path_factory):
    """A center, and what it takes; at full size one for each trial."""
    folder = tmp_path_factory.mktemp("center")
    command = [*CENTER, "serve", "--port", "0", "--embedded", "--data", str(folder)]
    with subprocess.Popen(command, cwd=folder, env=environment(), text=True, stdout=subprocess.PIPE) as process:
        try:
            attacked = Attacked(process, re.search(r"http://\S+", process.stdout.readline())[0])
            with contextlib.closing(attacked):
                yield attacked
                print(attacked.figures())
        finally:
            process.terminate()


@pytest.fixture
def center(process, request):
    """With a device of its own for each trial."""
    process.device = request.node.name.replace("_", "-")[:60]
    process.token = process.registered(process.device)
    return process


def at_once(number, function):
    with concurrent.futures.ThreadPoolExecutor(number) as pool:
        return [future.result() for future in [pool.submit(function) for _ in range(number)]]


def test_24_million_bad_lines_in_47_kilobytes(center):
    body = gzip.compress(b"x\n" * (24_000_000 if FULL else 200_000), 9)
    status, message, size = center.write(body, packed=True)
    print(f"\n{len(body):,} B sent, answered {status} with {size:,} B, {message.count('unable'):,} lines named")
    assert status == 400
    assert message.count("unable to parse 'x': missing fields") == 100
    assert size < 300_000
    center.bounded()


def test_bad_lines_that_are_long_are_quoted_within_bounds(center):
    """InfluxDB 2.8.0 quotes 100,000 bad lines, and one of 200 kB, as they are."""
    body = gzip.compress(b"\n".join([b"x" * 400_000] * (100 if FULL else 5)), 9)
    status, _, size = center.write(body, packed=True)
    print(f"\n{len(body):,} B sent, answered {status} with {size:,} B")
    assert status == 400
    assert size < 300_000
    center.bounded()


def test_gzip_members_by_the_hundred_thousand(center):
    member = gzip.compress(b"", 9)
    body = member * (400_000 if FULL else 60_000)
    answers = at_once(AT_ONCE, lambda: center.write(body, packed=True)[0])
    print(f"\n{len(body):,} B sent {len(answers)} times, answered {sorted(set(answers))}")
    assert set(answers) <= {413, 503}
    center.bounded()


def test_many_points_in_a_small_body(center):
    """8 million points in 120 kB: refused, and not read to the end. Half a million are taken."""
    body = gzip.compress(b"m f=1\n" * 8_000_000 if FULL else b"\n" * 500_001, 9)
    status, message, _ = center.write(body, packed=True)
    print(f"\n{len(body):,} B sent, answered {status} {message}")
    assert status == 413
    lines = b"\n".join(
        b"environment,clientId=DEVICE Temperature=20.5 %d" % n for n in range(500_000 if FULL else 20_000)
    )
    answers = at_once(4 if FULL else 1, lambda: center.write(lines, pack=True)[0])
    assert set(answers) <= {204, 503}
    assert 204 in answers
    center.bounded()


def test_series_times_fields(center):
    """Every page and answer about the device, while it has as many series and fields as it may."""
    number, names = (2000, 900) if FULL else (12, 90)
    fields = ",".join(f"n{n}=1" for n in range(names))
    statuses = {center.write(f"environment,clientId=DEVICE,sensor=s0 {fields} {NOW_S}", precision="s")[0]}
    for first in range(0, number, 500):
        lines = "\n".join(
            f"environment,clientId=DEVICE,sensor=s{n} {'n0=1,Temperature=2.5' if n % 2 else fields} {NOW_S}"
            for n in range(first, min(number, first + 500))
        )
        status, message, _ = center.write(lines, precision="s")
        statuses.add(status)
    print(f"\nwrites answered {sorted(statuses)}: {message}")
    for path in (
        "/devices/DEVICE", "/dashboards/DEVICE", "/dashboards/DEVICE/live.json",
        "/dashboards/DEVICE/series.json?range=24h", "/dashboards/DEVICE/series.json?range=30d",
        "/api/devices/DEVICE/measurements?start=-30d&every=1h",
        "/api/devices/DEVICE/measurements", "/devices", "/",
    ):  # fmt: skip
        status, size, seconds = center.get(path)
        print(f"{path}: {status}, {size:,} B in {seconds:.2f} s")
        assert status in {200, 400, 503}, path
    if FULL:
        assert 422 in statuses
    center.bounded()


def test_series_by_the_ten_thousand(center):
    number = 37_000 if FULL else 1000
    for first in range(0, number, 5000):
        lines = "\n".join(
            f"environment,clientId=DEVICE,sensor=s{n} Temperature=1 {NOW_S}" for n in range(first, first + 5000)
        )
        status, message, _ = center.write(lines, precision="s")
    print(f"\nanswered {status}: {message}")
    for path in ("/devices/DEVICE", "/dashboards/DEVICE/series.json?range=24h", "/api/devices/DEVICE/measurements"):
        status_, size, seconds = center.get(path)
        print(f"{path}: {status_}, {size:,} B in {seconds:.2f} s")
        assert status_ in {200, 400, 503}
    assert status == 422
    center.bounded()


def test_stamps_at_the_edge_and_ranges_as_long_as_time(center):
    edge = 2**63 - 2
    lines = "\n".join(f"environment,clientId=DEVICE Temperature=1.5 {t}" for t in (edge, -edge, NOW_S * 10**9))
    assert center.write(lines)[0] == 204
    statuses = {
        path: center.get(f"/api/devices/DEVICE/measurements?{path}")[0]
        for path in (
            f"start={a}&stop={b}{every}{fn}"
            for a in ("1678-01-01T00:00:00Z", "1970-01-01T00:00:00Z")
            for b in ("now", "2262-04-11T23:47:16Z", "2261-12-31T00:00:00Z")
            for every in ("", "&every=1w", "&every=1y", "&every=292y")
            for fn in ("", "&fn=first")
        )
    }
    print(f"\n{ {status: list(statuses.values()).count(status) for status in set(statuses.values())} }")
    assert set(statuses.values()) <= {200, 400}
    center.bounded()


def test_one_device_cannot_make_the_points_of_others_be_refused(center):
    other = center.registered("another")
    weeks = [(NOW_S // WEEK_S + n) * WEEK_S for n in range(5198 if FULL else 60)]
    center.write("\n".join(f'environment,clientId=DEVICE Temperature="x" {at}' for at in weeks), precision="s")
    for first in range(0, 2000 if FULL else 250, 250):
        fields = ",".join(f"n{n}=1" for n in range(first, first + 250))
        center.write(f"environment,clientId=DEVICE {fields} {NOW_S}", precision="s")
    answers = [
        center.write(f"environment,clientId=another {field} {at}", precision="s", token=other)
        for at in (weeks[1], weeks[-1])
        for field in ("Temperature=20.5", "mine=1", 'n0="mine"', "another=2i")
    ]
    print(f"\nthe other's points: {[(status, message[-120:]) for status, message, _ in answers]}")
    assert {status for status, *_ in answers} == {204}
    center.bounded()


def test_keys_as_long_as_they_may_be(center):
    """Bodies of 12.5 MB whose series are all new, and tags in all their orders."""
    for first in range(0, 800 if FULL else 10, 200):
        numbers = range(first, first + (200 if FULL else 10))
        status, message, _ = center.write(
            b"\n".join(b"environment,clientId=DEVICE,a=%s%d f=1 1" % (b"x" * 60_000, n) for n in numbers)
        )
    print(f"\nlong tags: {status} {message[:100]}")
    tags = [b"t%d=1" % n for n in range(40)]
    for turn in range(5 if FULL else 2):
        lines = b"\n".join(
            b"environment,clientId=DEVICE,%s f=1 %d" % (b",".join(tags[n % 40 :] + tags[: n % 40]), n)
            for n in range(turn * 40_000, turn * 40_000 + (40_000 if FULL else 200))
        )
        status, message, _ = center.write(lines, pack=True)
    print(f"turned tags: {status} {message[:100]}")
    for turn in range(10 if FULL else 2):
        names = [b"n%d=1" % n for n in range(300)]
        lines = b"\n".join(
            b"environment,clientId=DEVICE %s %d" % (b",".join(names[: 300 - n % 300] + names[:turn]), n)
            for n in range(300 if FULL else 60)
        )
        status, message, _ = center.write(lines, pack=True)
    print(f"fields in many groups: {status} {message[:100]}")
    center.bounded()


def test_a_line_without_an_end_and_quotes_without_one(center):
    tags = b"m," + b",".join(b"t%d=1" % n for n in range(9000)) + b" f=1"
    bodies = {
        "one line": b"m f=1,a=" + b"x" * (48_000_000 if FULL else 1_000_000),
        "a quote left open": b'm f="' + b'x\\"\n' * (12_000_000 if FULL else 300_000),
        "tags without number": tags,
        "the same many times": b"\n".join([tags] * (500 if FULL else 2)),
        "nothing": b" \n" * (24_000_000 if FULL else 100_000),
        "comments": b"#\n" * (24_000_000 if FULL else 100_000),
    }  # fmt: skip
    for name, body in bodies.items():
        begun = time.perf_counter()
        status, message, size = center.write(body, pack=True)
        print(f"\n{name}: {status} {message[-80:]!r}, {size:,} B in {time.perf_counter() - begun:.2f} s")
        assert size < 300_000
        assert status in {204, 400, 413}
    center.bounded()
