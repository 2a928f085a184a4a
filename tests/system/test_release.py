"""`make release-check`: the Debian packages on Debian 12 and 13 of each architecture, in folders, under emulation.

Each is what a user does on an empty board: install, look, a minute of measuring without a server, an upgrade over what
waits, delivery, remove, purge. The table at the end is for the notes of a release.
"""

import json
import os
import re
import shutil
import subprocess
import time
from pathlib import Path

import pytest

from tests.servers import InfluxServer

pytestmark = [pytest.mark.release, pytest.mark.slow, pytest.mark.timeout(7200)]

REPOSITORY = Path(__file__).parents[2]
DEBIAN = REPOSITORY / "deploy" / "debian"
WORK = Path(os.environ.get("WORK", REPOSITORY / "build" / "debian"))
DIST = Path(os.environ.get("OUT", REPOSITORY / "dist"))
CASES = [(suite, arch) for suite in ("bookworm", "trixie") for arch in ("arm64", "armhf", "amd64")]
NEXT = "9.9.1"
MINUTE = 60
TURNS = 10
CONFIG = """
[device]
id = "pi-1"
[[sensor]]
name = "weather"
driver = "virtual"
interval = "1s"
[[sensor]]
name = "chip"
driver = "emulated"
interval = "1s"
[influxdb]
url = "{url}"
org = "my-org"
bucket = "iot_center"
token = "token-1"
[clock]
trust = "always"
[health]
enabled = false
[status]
listen = ""
"""
SERVE = """
iot-center serve --config /etc/iot-center/center.toml >/tmp/log 2>&1 & pid=$!
while ! python3 -c '
import urllib.request
answer = urllib.request.urlopen("http://127.0.0.1:5098/health")
print(answer.read(), answer.status, sep="\\n")' 2>/dev/null; do
  kill -0 $pid || { cat /tmp/log; exit 1; }
  sleep 1
done
kill $pid
wait $pid || cat /tmp/log
"""
MEASURE = """
iot-agent run >/tmp/log 2>&1 & pid=$!
until grep -q "measuring with" /tmp/log; do kill -0 $pid || break; sleep 0.2; done
sleep $1
kill -TERM $pid
wait $pid
tail -n 3 /tmp/log
"""
OWN = {  # as pip --target leaves a package
    "mine.py": "from drivers.virtual import Virtual\n\n\nclass Mine(Virtual):\n    pass\n",
    "mine-1.dist-info/METADATA": "Metadata-Version: 2.1\nName: mine\nVersion: 1\n",
    "mine-1.dist-info/entry_points.txt": "[iot_agent.drivers]\nmine = mine:Mine\n",
}
ROWS = []


@pytest.fixture(scope="module", autouse=True)
def table():
    yield
    if ROWS:
        head = list(ROWS[0])
        lines = [head, ["---"] * len(head), *([str(row[name]) for name in head] for row in ROWS)]
        print("\n\n" + "\n".join(f"| {' | '.join(line)} |" for line in lines))


class Folder:
    """A Debian in a folder, as minimal as it comes; what is done in it is done as root, with this machine's network."""

    def __init__(self, folder, suite, arch):
        self.root = folder / f"{suite}-{arch}-trial"
        subprocess.run([DEBIAN / "roots", WORK, suite, arch], check=True)
        self.root.mkdir()
        subprocess.run(["tar", "-C", self.root, "--exclude=./dev/*", "-xf", WORK / f"{suite}-{arch}.tar"], check=True)

    def __call__(self, *command, check=True, binds=()):
        done = subprocess.run(
            [DEBIAN / "inside", self.root, *binds, *command],
            stdin=subprocess.DEVNULL,
            stdout=subprocess.PIPE,
            stderr=subprocess.STDOUT,
            text=True,
            check=False,
        )
        own = (
            "Attempted to remove disk file system",
            "(Reading database",
        )  # nspawn's, where /run is on a disk; dpkg's dots
        said = "".join(line for line in done.stdout.splitlines(keepends=True) if not line.startswith(own))
        print(f"$ {' '.join(map(str, command))}\n{said}", flush=True)
        assert not check or done.returncode == 0, said
        return said

    def apt(self, *arguments, **options):
        return self("env", "DEBIAN_FRONTEND=noninteractive", "apt-get", "-qq", "-y", *arguments, **options)

    def status(self):
        said = self("iot-agent", "status", "--json")
        return json.loads(said[said.index("{") :])

    def measure(self, seconds):
        """As the service does, by hand: there is no systemd in it. From when it measures: emulation starts slowly."""
        self("sh", "-c", MEASURE, "sh", str(seconds))


def newer(deb, folder, version):
    """The same package as a later version, repacked."""
    stage = folder / "stage"
    subprocess.run(["dpkg-deb", "-R", deb, stage], check=True)
    for path in (stage / "DEBIAN" / "control", *stage.glob("opt/*/lib/python3.*/site-packages/agent/__init__.py")):
        text = path.read_text()
        path.write_text(re.sub(r'(?m)^(Version: |__version__ = ")[^"\n]*', rf"\g<1>{version}", text))
    made = folder / f"iot-edge-agent_{version}.deb"
    subprocess.run(["dpkg-deb", "--root-owner-group", "-Zzstd", "-z1", "--build", stage, made], check=True)
    shutil.rmtree(stage)
    return made


each = pytest.mark.parametrize(("suite", "arch"), CASES, ids=["-".join(case) for case in CASES])


@each
def test_the_center_installs_and_serves(tmp_path, suite, arch):
    (deb,) = DIST.glob(f"iot-center_*_{arch}.deb")
    debian = Folder(tmp_path, suite, arch)
    shutil.copy(deb, debian.root / "center.deb")
    debian.apt("update")
    begin = time.monotonic()
    assert "Next: sudo iot-center init" in debian.apt("install", "--no-install-recommends", "/center.deb")
    print(f"{suite} {arch}: the center is installed in {time.monotonic() - begin:.0f} s")
    assert debian("iot-center", "--version").strip().endswith(deb.name.split("_")[1])
    debian("iot-center", "init", "--embedded", "--host", "127.0.0.1", "--port", "5098")
    said = debian("sh", "-c", SERVE)
    assert said.splitlines()[-1] == "200"
    debian.apt("purge", "iot-center")
    assert (debian.root / "var/lib/iot-center/iot-center.sqlite3").exists()


@each
def test_install_measure_upgrade_over_what_waits_deliver_and_remove(tmp_path, suite, arch):
    (deb,) = DIST.glob(f"iot-edge-agent_*_{arch}.deb")
    version = deb.name.split("_")[1]
    debian = Folder(tmp_path, suite, arch)
    (debian.root / "debs").mkdir()
    shutil.copy(deb, debian.root / "debs" / "agent.deb")
    shutil.copy(newer(deb, tmp_path, NEXT), debian.root / "debs" / "newer.deb")

    debian.apt("update")
    begin = time.monotonic()
    said = debian.apt("install", "--no-install-recommends", "/debs/agent.deb")
    installed = time.monotonic() - begin
    assert "Next: sudo iot-agent init" in said
    assert debian("iot-agent", "--version").strip().endswith(version)
    assert "Temperature" in debian("iot-agent", "init", "--center", "http://127.0.0.1:9", "--sensor", "virtual")
    config = debian.root / "etc/iot-agent/agent.toml"
    assert config.stat().st_mode & 0o777 == 0o640

    for name, text in OWN.items():
        file = debian.root / "usr/local/lib/iot-agent" / name
        file.parent.mkdir(parents=True, exist_ok=True)
        file.write_text(text)

    with InfluxServer() as server:
        config.write_text(CONFIG.format(url="http://127.0.0.1:9"))
        doctor = debian("iot-agent", "doctor", check=False)
        assert re.search(r"failed +connection to 127.0.0.1:9: refused", " ".join(doctor.split()))
        assert "ok       chip" in doctor
        debian.measure(MINUTE)
        before = debian.status()["ledger"]
        assert before["measured"] == before["pending"] > 0
        assert before["unaccounted"] == 0

        debian.apt("install", "/debs/newer.deb")
        assert debian("iot-agent", "--version").strip().endswith(NEXT)
        after = debian.status()["ledger"]
        assert "Temperature" in debian("iot-agent", "read", "--driver", "mine", "--count", "1")
        assert (after["measured"], after["pending"]) == (before["measured"], before["pending"])
        config.write_text(CONFIG.format(url=server.url))
        for _ in range(TURNS):  # on a busy machine, under emulation, one may be over before it has begun
            debian.measure(MINUTE / 3)
            end = debian.status()["ledger"]
            if end["delivered"] >= before["pending"]:
                break
        assert end["delivered"] >= before["pending"]
        assert end["unaccounted"] == end["dropped"] == end["rejected"] == 0
        assert len(server.points) == end["delivered"]

    assert debian("stat", "-c", "%U %a", "/var/lib/iot-agent/buffer").split()[0] == "iot-agent"
    debian.apt("purge", "iot-edge-agent")
    assert not (debian.root / "opt/iot-agent").exists()
    assert not (debian.root / "usr/bin/iot-agent").exists()
    assert (debian.root / "var/lib/iot-agent/buffer/cache.db").exists()
    assert config.exists()
    debian.apt("install", "/debs/newer.deb")
    assert debian.status()["ledger"]["measured"] == end["measured"]
    debian("env", "IOT_PURGE=data", "DEBIAN_FRONTEND=noninteractive", "apt-get", "-qq", "-y", "purge", "iot-edge-agent")
    assert not (debian.root / "var/lib/iot-agent").exists()
    assert not (debian.root / "etc/iot-agent").exists()
    ROWS.append(
        {
            "Debian": f"{suite} {arch}",
            "installed in": f"{installed:.0f} s",
            "version": version,
            "doctor": f"{len(re.findall(r'(?m)^ok ', doctor))} ok, {len(re.findall(r'(?m)^failed ', doctor))} failed",
            "measured in 60 s": before["measured"],
            f"after the upgrade to {NEXT} wait": after["pending"],
            "then delivered": f"{end['delivered']} of {end['measured']}",
            "after purge": "data kept",
        }
    )
