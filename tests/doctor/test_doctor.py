"""`iot-agent doctor`: a sound set-up, ten broken ones each with the right remedy, and that it changes nothing."""

import json
import os
import shutil
import socket
import subprocess
import sys
import tempfile
import threading
from pathlib import Path

import pytest
from click.testing import CliRunner
from pytest_httpserver import HTTPServer

from agent.buffer.buffer import open_buffer
from agent.cli import main
from agent.config.settings import BufferSettings, SensorSettings
from agent.doctor import config, device, doctor, network
from agent.doctor.finding import Patient
from agent.points.schema import Line
from agent.sensing.treatment import Treatment
from drivers.base import Reading, boot_ns
from drivers.chip import Chip, Image
from tests.buffers import store
from tests.certificates import make_certificate, server_context
from tests.fake_center import FakeCenter, answer
from tests.fake_i2c_bus import FakeI2C, environment
from tests.servers import InfluxServer
from tests.snapshots import SECOND, sensor, snapshot
from tests.unsearchable import hide
from tests.waiting import wait_for
from tests.wallclock import WallClock

CASE = json.loads((Path(__file__).parents[1] / "data/bme280-bosch.json").read_text())[0]
NOW = 10**15
AS_NOBODY = """
import json, os, sys
from dataclasses import asdict
from pathlib import Path
from agent.doctor.doctor import examine
from agent.doctor.finding import Patient
where = Path(sys.argv[1]), Path(sys.argv[2])
list(examine(Patient(*where)))  # imports all that is needed: another user may not be able to read it
os.setgroups([]); os.setgid(65534); os.setuid(65534)
print(json.dumps([asdict(finding) for finding in examine(Patient(*where))]))
"""


@pytest.fixture
def influx():
    with InfluxServer() as server:
        yield server


class Setup:
    """A device with a token of its own; `doctor()` runs the command as a process and gives the findings by check."""

    def __init__(self, folder):
        self.folder, self.config, self.state = folder, folder / "agent.toml", folder / "state"
        self.token = folder / "token"
        self.token.write_text("token-1\n")
        self.token.chmod(0o600)
        self.state.mkdir(mode=0o700)
        self.code = None

    def write(self, url, driver="virtual", bucket="iot_center", extra="", influx_extra=""):
        self.config.write_text(
            f'[device]\nid = "pi-7"\n[[sensor]]\ndriver = "{driver}"\n{extra}\n'
            f'[influxdb]\nurl = "{url}"\norg = "my-org"\nbucket = "{bucket}"\n'
            f'token_file = "{self.token}"\n{influx_extra}'
        )

    @property
    def where(self):
        return ["--config", str(self.config), "--state-dir", str(self.state)]

    def run(self, *more, env=None):
        """The command's output: of a call, or of a process where it needs an environment of its own."""
        if env is None:
            result = CliRunner().invoke(main, ["doctor", *self.where, *more], catch_exceptions=False)
            self.code = result.exit_code
            return result.output
        command = [sys.executable, "-W", "error", "-m", "agent.cli", "doctor", *self.where, *more]
        done = subprocess.run(command, capture_output=True, text=True, timeout=60, check=False, env=env)
        assert done.stderr == ""
        self.code = done.returncode
        return done.stdout

    def doctor(self, **options):
        return json.loads(self.run("--json", **options))["findings"]

    def as_nobody(self, env=None):
        """Findings by check, of a process that gave up its rights after it had imported everything."""
        self.config.chmod(0o644)
        command = [sys.executable, "-c", AS_NOBODY, self.config, self.state]
        done = subprocess.run(command, capture_output=True, text=True, timeout=60, check=False, env=env)
        return {finding["check"]: finding for finding in json.loads(done.stdout)}

    def only_failure(self, **options):
        """The finding that failed, when it is the only one; the exit code says so too."""
        found = [finding for finding in self.doctor(**options) if finding["verdict"] == "failed"]
        assert self.code == 1
        assert len(found) == 1, found
        return found[0]


@pytest.fixture
def setup(tmp_path):
    return Setup(tmp_path)


@pytest.fixture
def for_others():
    """In a folder that other users may enter: those of pytest are its own user's."""
    with tempfile.TemporaryDirectory(prefix="doctor-") as folder:
        Path(folder).chmod(0o755)
        yield Setup(Path(folder))


def tree(folder):
    return {
        str(path.relative_to(folder)): (
            path.stat().st_mtime_ns,
            path.stat().st_mode,
            path.is_file() and path.read_bytes(),
        )
        for path in [folder, *folder.rglob("*")]
    }


def test_a_sound_setup_is_ok_from_the_configuration_to_the_bucket(setup, influx):
    setup.write(influx.url)
    said = setup.run(env=dict(os.environ))
    assert setup.code == 0, said
    for words in ("is right: 1 sensor(s)", "Temperature", "open after", "the token may write to bucket 'iot_center'"):
        assert words in said
    assert "failed" not in said
    assert influx.points == {}  # the empty write stores nothing


def test_the_checks_come_in_the_order_of_the_chain(setup, influx):
    setup.write(influx.url)
    order = [finding["check"].split()[0] for finding in setup.doctor()]
    chain = ["configuration", "state", "secrets", "disk", "board", "chip", "reading", "clock", "name", "connection"]
    assert order == [*chain, "token", "buffer", "service"]


class TestTenBrokenSetups:
    def test_1_no_bus(self, setup, influx):
        setup.write(influx.url, "bme280", extra="bus = 250")
        found = setup.only_failure()
        assert found["seen"] == "no I2C bus /dev/i2c-250"
        assert "raspi-config nonint do_i2c 0" in found["remedy"] or "there is" in found["remedy"]

    @pytest.mark.umockdev
    @pytest.mark.root
    def test_2_no_permission(self, for_others, influx):
        setup = for_others
        setup.write(influx.url, "bme280")
        with FakeI2C({0x77: Chip(Image.of(CASE))}) as bus:
            bus.node.chmod(0o600)
            bad = setup.as_nobody(environment(bus))["I2C bus of bme280"]
        assert (bad["verdict"], bad["seen"]) == ("failed", "no permission to open /dev/i2c-1")
        assert "usermod -aG i2c" in bad["remedy"]

    @pytest.mark.umockdev
    def test_3_wrong_chip(self, setup, influx):
        setup.write(influx.url, "bme280")
        with FakeI2C({0x77: Chip(Image.of(CASE), chip_id=0x58)}) as bus:
            found = setup.only_failure(env=environment(bus))
        assert found["check"] == "chip of bme280"
        assert "BMP280" in found["seen"]
        assert "humidity = false" in found["remedy"]

    def test_4_no_dns(self, setup):
        setup.write("http://influx.no-such-host.invalid:8086")
        found = setup.only_failure()
        assert found["check"] == "name influx.no-such-host.invalid"
        assert "cannot be resolved" in found["seen"]
        assert "resolv.conf" in found["remedy"]

    def test_5_refused(self, setup):
        with socket.create_server(("127.0.0.1", 0)) as closed:
            port = closed.getsockname()[1]
        setup.write(f"http://127.0.0.1:{port}")
        found = setup.only_failure()
        assert found["seen"] == "refused: nothing listens there"
        assert f"does the server run, and is {port} its port?" in found["remedy"]

    def test_6_bad_tls(self, setup, https):
        setup.write(https.url_for("").rstrip("/"))
        found = setup.only_failure()
        assert found["check"] == "TLS of localhost"
        assert "self-signed" in found["seen"]
        assert "set ca_file" in found["remedy"]

    def test_7_revoked_token(self, setup, influx):
        setup.write(influx.url)
        influx.token = "another"
        found = setup.only_failure()
        assert found["check"] == "token and bucket"
        assert "(401): it was revoked or mistyped" in found["seen"]
        assert found["remedy"] == f"make a token that may write there and put it into {setup.token}"

    def test_8_missing_bucket(self, setup, influx):
        setup.write(influx.url, bucket="cellar")
        found = setup.only_failure()
        assert "there is no bucket 'cellar' of organization 'my-org'" in found["seen"]
        assert "make the bucket, or mend its name" in found["remedy"]

    def test_8_missing_organization(self, setup, influx):
        influx.org = "another"
        setup.write(influx.url)
        found = setup.only_failure()
        assert "there is no organization 'my-org'" in found["seen"]

    def test_8_missing_path(self, setup, influx):
        setup.write(f"{influx.url}/garden")
        found = setup.only_failure()
        assert found["seen"] == f"there is no /garden/api/v2/write at {influx.url} (404)"
        assert found["remedy"] == f"correct the url: is it {influx.url} without the path?"

    def test_9_wrong_clock(self, setup, influx, tmp_path):
        setup.write(influx.url)
        wrong = WallClock(tmp_path, shift_s=-40 * 86_400)
        found = setup.only_failure(env={**os.environ, **wrong.environment})
        assert found["check"] == "clock"
        assert "40 days behind the server's" in found["seen"]
        assert "timedatectl set-ntp true" in found["remedy"]

    @pytest.mark.root
    def test_10_full_disk(self, setup, influx):
        setup.write(influx.url)
        subprocess.run(["mount", "-t", "tmpfs", "-o", "size=64k,mode=700", "tmpfs", setup.state], check=True)
        try:
            with (setup.state / "fill").open("wb", 0) as file, pytest.raises(OSError):  # noqa: PT012
                while True:
                    file.write(bytes(4096))
            found = setup.only_failure()
        finally:
            subprocess.run(["umount", setup.state], check=True)
        assert found["check"] == "disk"
        assert "the disk is full: 0 of 0 MB free" in found["seen"]
        assert "journalctl --vacuum-size" in found["remedy"]


@pytest.fixture
def https(tmp_path):
    cert, key = make_certificate(tmp_path, days=5)
    context = server_context(cert, key)
    with HTTPServer(host="localhost", port=0, ssl_context=context) as server:
        server.certificate = cert
        server.expect_request("/api/v2/write").respond_with_data(status=204)
        yield server


class TestTls:
    def test_days_left_are_told_and_few_are_a_warning(self, setup, https):
        setup.write(https.url_for("").rstrip("/"), influx_extra=f'ca_file = "{https.certificate}"')
        found = next(finding for finding in setup.doctor() if finding["check"] == "TLS of localhost")
        assert (found["verdict"], found["seen"]) == ("warning", "the certificate is good for 5 more days")

    def test_a_certificate_of_the_future_points_to_the_clock(self, setup, https, tmp_path):
        setup.write(https.url_for("").rstrip("/"), influx_extra=f'ca_file = "{https.certificate}"')
        wrong = WallClock(tmp_path, shift_s=-40 * 86_400)
        found = {f["check"]: f for f in setup.doctor(env={**os.environ, **wrong.environment})}
        assert "40 days behind" in found["clock"]["seen"]  # asked for without checking the certificate
        assert "this board's clock is wrong" in found["TLS of localhost"]["remedy"]

    def test_a_client_certificate_is_shown_and_its_key_is_a_secret(self, setup, tmp_path):
        cert, key = make_certificate(tmp_path)
        ca_file, shown = f'ca_file = "{cert}"\n', f'client_cert = "{cert}"\nclient_key = "{key}"\n'
        with InfluxServer(tls=server_context(cert, key, asks_for=cert)) as influx:
            setup.write(influx.url, influx_extra=ca_file + shown)
            found = {finding["check"]: finding for finding in setup.doctor()}
            assert found["token and bucket"]["verdict"] == "ok"
            key.chmod(0o644)
            assert setup.only_failure()["remedy"] == f"chmod o= {key}"
            key.write_text("rubbish")
            key.chmod(0o600)
            found = setup.only_failure()
            assert found["check"] == "TLS of localhost"
            assert "a readable certificate and its key in PEM" in found["remedy"]
            setup.write(influx.url, influx_extra=ca_file)
            assert "set client_cert and client_key" in setup.only_failure()["seen"]

    def test_https_where_only_http_is_spoken(self, setup, influx):
        setup.write(influx.url.replace("http:", "https:"))
        assert "is its url http://?" in setup.only_failure()["remedy"]


class TestConfiguration:
    def test_a_wrong_one_is_named_and_the_rest_is_still_looked_at(self, setup):
        setup.config.write_text("[sensr]\n")
        found = setup.doctor()
        assert found[0]["verdict"] == "failed"
        assert "sensr" in found[0]["seen"]
        assert {"disk", "clock", "service"} <= {finding["check"] for finding in found}
        assert setup.code == 1

    def test_one_that_is_not_there_is_to_be_made_and_not_mended(self, setup):
        found = setup.doctor()[0]
        assert (found["verdict"], found["seen"]) == ("failed", f"there is no {setup.config}")
        assert found["remedy"].startswith("make one: iot-agent init")

    def test_a_state_folder_open_to_others_is_failed(self, setup, influx):
        setup.write(influx.url)
        setup.state.chmod(0o755)
        assert setup.only_failure()["remedy"] == f"chmod 700 {setup.state}"

    def test_a_state_folder_that_is_a_file_is_not_told_to_be_opened(self, setup, influx):
        setup.write(influx.url)
        setup.state.rmdir()
        setup.state.write_text("")
        assert setup.only_failure()["seen"] == f"{setup.state} is not a folder"

    def test_a_token_file_open_to_others_is_failed(self, setup, influx):
        setup.write(influx.url)
        setup.token.chmod(0o644)
        found = setup.only_failure()
        assert found["check"] == "secrets"
        assert "can be read by others" in found["seen"]

    def test_promise_7_the_token_is_in_no_output(self, setup, influx):
        setup.token.write_text("t0ps3cret\n")
        setup.write(influx.url)
        for arguments in ([], ["--json"]):
            assert "t0ps3cret" not in setup.run(*arguments)


class TestCenter:
    @pytest.fixture
    def center(self):
        with HTTPServer(port=0) as server:
            yield FakeCenter(server)

    def point_to(self, setup, center):
        setup.config.write_text(
            f'[device]\nid = "pi-7"\n[[sensor]]\ndriver="virtual"\n[center]\nurl = "{center.url}"\n'
        )

    def test_a_device_that_has_not_registered_yet_is_told_how_and_is_not_registered_by_it(self, setup, center):
        self.point_to(setup, center)
        found = {finding["check"]: finding for finding in setup.doctor()}
        assert found["registration"]["verdict"] == "warning"
        assert "does not know pi-7 yet" in found["registration"]["seen"]
        assert "iot-agent register" in found["registration"]["remedy"]
        assert center.secrets == {}
        assert list(setup.state.iterdir()) == []  # no secret is made by looking

    def test_a_center_that_tells_of_a_device_to_that_device_alone_does_not_know_this_one_yet(self, setup, center):
        center.scripted = [None, answer(401, {"message": "for the device, with its secret, and for administrators"})]
        self.point_to(setup, center)
        found = {finding["check"]: finding for finding in setup.doctor()}["registration"]
        assert found["verdict"] == "warning", found
        assert "pi-7 has not registered from here" in found["seen"]
        assert "iot-agent register" in found["remedy"]

    def test_a_refusal_is_shown_in_the_centers_words_where_there_is_no_secret_to_hide(self, setup, center):
        center.scripted = [None, answer(500, {"message": "the disk: it is full"})]
        self.point_to(setup, center)
        found = {finding["check"]: finding for finding in setup.doctor()}["registration"]
        assert "500 'the disk: it is full'" in found["seen"]
        assert found["remedy"] == "is this the address of the center?"

    def test_a_registered_device_is_known_and_its_token_tried(self, setup, center, influx):
        center.place["influx_url"] = influx.url
        self.point_to(setup, center)
        subprocess.run([sys.executable, "-m", "agent.cli", "register", *setup.where], check=True, capture_output=True)
        influx.token = center.tokens["pi-7"][0]
        before = tree(setup.state)
        found = {finding["check"]: finding for finding in setup.doctor()}
        assert found["registration"]["seen"].endswith("knows pi-7")
        assert found["token and bucket"]["verdict"] == "ok"
        assert tree(setup.state) == before
        influx.token = "revoked"
        assert setup.only_failure()["remedy"] == "iot-agent register --force gets a new one"

    def test_a_device_that_another_board_registered_is_failed_where_nothing_of_it_is_here(self, setup, center, influx):
        self.point_to(setup, center)
        subprocess.run([sys.executable, "-m", "agent.cli", "register", *setup.where], check=True, capture_output=True)
        shutil.rmtree(setup.state)
        setup.state.mkdir(mode=0o700)
        found = {finding["check"]: finding for finding in setup.doctor()}["registration"]
        assert found["verdict"] == "failed"
        assert "another board has the same id" in found["remedy"]

    def test_a_web_server_that_is_no_center_is_not_called_well(self, setup, httpserver):
        httpserver.expect_request("/").respond_with_data("<html>welcome", content_type="text/html")
        httpserver.expect_request("/api/env/pi-7").respond_with_data("not found", status=404)
        setup.config.write_text(
            f'[device]\nid = "pi-7"\n[[sensor]]\ndriver="virtual"\n[center]\nurl = "{httpserver.url_for("")}"\n'
        )
        found = {finding["check"]: finding for finding in setup.doctor()}["registration"]
        assert found["verdict"] == "warning"
        assert "nothing says that it is a center" in found["seen"]

    def test_a_center_that_cannot_tell_it_from_another_device_is_failed_as_by_register(self, setup):
        with HTTPServer(port=0) as server:
            center = FakeCenter(server, "iot-center-v2")
            center.tokens["pi-70"] = ["theirs"]
            self.point_to(setup, center)
            refused = CliRunner().invoke(main, ["register", *setup.where])
            assert refused.exit_code == 1
            shutil.rmtree(setup.state)
            setup.state.mkdir(mode=0o700)
            found = setup.only_failure()
            assert found["check"] == "registration"
            assert found["seen"] in refused.output
            assert found["remedy"] == "Choose another [device] id"
            assert center.tokens == {"pi-70": ["theirs"]}

    def test_a_token_that_works_and_cannot_be_renewed_is_a_warning(self, setup, influx):
        with HTTPServer(port=0) as server:
            center = FakeCenter(server, "iot-center-v2")
            center.place["influx_url"] = influx.url
            self.point_to(setup, center)
            assert CliRunner().invoke(main, ["register", *setup.where]).exit_code == 0
            influx.token = center.tokens["pi-7"][0]
            center.tokens["pi-70"] = ["theirs"]
            found = {finding["check"]: finding for finding in setup.doctor()}
            assert found["registration"]["verdict"] == "warning"
            assert "cannot be renewed" in found["registration"]["seen"]
            assert found["token and bucket"]["verdict"] == "ok"

    def test_the_token_of_another_device_is_none_for_the_doctor_either(self, setup, center, influx):
        self.point_to(setup, center)
        CliRunner().invoke(main, ["register", *setup.where])
        setup.config.write_text(setup.config.read_text().replace('"pi-7"', '"pi-8"'))
        found = {finding["check"]: finding for finding in setup.doctor()}
        assert found["secrets"]["seen"] == "there is no token for this center yet"
        assert "does not know pi-8 yet" in found["registration"]["seen"]

    def test_a_lost_device_secret_is_failed_before_the_token_is(self, setup, center, influx):
        self.point_to(setup, center)
        subprocess.run([sys.executable, "-m", "agent.cli", "register", *setup.where], check=True, capture_output=True)
        (setup.state / "device.secret").unlink()
        bad = [f for f in setup.doctor() if f["verdict"] == "failed"]
        assert "is gone, by which the center knows this board" in bad[0]["seen"]
        assert not (setup.state / "device.secret").exists()


class StoppedClock:
    boot_id = "00000000-0000-0000-0000-000000000001"

    def boot_ns(self):
        return boot_ns()

    def date(self, _):
        return None


class TestBuffer:
    def fill(self, setup, points=100):
        buffer = open_buffer(setup.state / "buffer", BufferSettings(), StoppedClock())
        store(buffer, [Line(b"environment,clientId=pi-7 Temperature=1.5", 0, n + 1) for n in range(points)])
        return buffer

    def test_what_waits_is_counted_and_nothing_is_changed(self, setup, influx):
        setup.write(influx.url)
        self.fill(setup).close()
        before = tree(setup.state)
        found = next(finding for finding in setup.doctor() if finding["check"] == "buffer")
        assert found["verdict"] == "ok"
        assert found["seen"].startswith("100 points in 1 row on disk")
        assert tree(setup.state) == before

    def test_a_damaged_one_is_failed_and_left_as_it_is(self, setup, influx):
        setup.write(influx.url)
        self.fill(setup).close()
        database = setup.state / "buffer/cache.db"
        database.write_bytes(b"rubbish" + database.read_bytes()[7:])
        before = tree(setup.state)
        found = setup.only_failure()
        assert found["check"] == "buffer"
        assert "is damaged" in found["seen"]
        assert "the next start saves what can be read" in found["remedy"]
        assert tree(setup.state) == before

    def test_one_left_by_a_killed_agent_is_not_called_damaged(self, setup, influx):
        setup.write(influx.url)
        code = (
            "import os\nfrom tests.doctor.test_doctor import *\nfrom types import SimpleNamespace\n"
            f"TestBuffer().fill(SimpleNamespace(state=Path({str(setup.state)!r})))\nos._exit(9)"
        )
        subprocess.run([sys.executable, "-c", code], check=False)
        before = tree(setup.state)
        found = next(finding for finding in setup.doctor() if finding["check"] == "buffer")
        assert found["verdict"] == "ok"
        assert "a log of" in found["seen"]
        assert tree(setup.state) == before


class TestWhileTheAgentRuns:
    @pytest.fixture
    def setup(self, for_others):
        return for_others

    @pytest.fixture
    def running(self, setup, influx):
        setup.write(influx.url, extra='interval = "100ms"', influx_extra='[status]\nlisten = ""\n')
        with (setup.folder / "log").open("wb") as log:
            process = subprocess.Popen([sys.executable, "-m", "agent.cli", "run", *setup.where], stdout=log, stderr=log)
        wait_for(lambda: influx.points)
        yield process
        process.terminate()
        assert process.wait(20) == 0

    def test_sensor_and_buffer_are_the_running_agents_words(self, setup, running):
        found = {finding["check"]: finding for finding in setup.doctor()}
        assert f"process {running.pid}" in found["state folder"]["seen"]
        assert found["sensor virtual_bme280"]["seen"].endswith("(by the running agent)")
        assert "delivered" in found["buffer"]["seen"]
        assert all(finding["verdict"] != "failed" for finding in found.values())
        assert running.poll() is None

    @pytest.mark.parametrize("changed", [{}, {"boot_ns": None, "alive_boot_ns": NOW - 3 * 3600 * SECOND}])
    def test_a_sensor_whose_driver_hangs_is_not_called_well(self, setup, changed):
        silent = sensor(NOW, **{"boot_ns": NOW - 3 * 3600 * SECOND, **changed})
        patient = Patient(setup.config, setup.state, running=snapshot(NOW, sensors=[sensor(NOW, name="well"), silent]))
        well, found = device.sensors(patient)
        assert (well.verdict, found.verdict) == ("ok", "failed")
        assert found.seen.startswith("no reading for 3 h")

    @pytest.mark.root
    def test_another_user_is_told_what_could_not_be_seen_and_sees_the_rest(self, setup, running):
        found = setup.as_nobody()
        assert "belongs to root, and this is nobody" in found["state folder"]["seen"]
        assert "sudo iot-agent doctor" in found["state folder"]["remedy"]
        assert "may not be read by nobody" in found["secrets"]["seen"]
        assert found["buffer"]["verdict"] == "skipped"
        assert found["name 127.0.0.1"]["verdict"] == "ok"
        assert running.poll() is None


class TestPieces:
    def test_a_token_in_a_folder_that_may_not_be_searched_is_a_warning(self, setup, tmp_path, monkeypatch):
        setup.token = tmp_path / "private" / "token"
        setup.token.parent.mkdir()
        setup.write("http://127.0.0.1:9")
        hide(monkeypatch, setup.token.parent)
        patient = Patient(setup.config, setup.state)
        assert [finding.verdict for finding in config.configuration(patient)] == ["ok"]
        (found,) = config.secrets(patient)
        assert (found.verdict, found.remedy) == ("warning", config.SUDO)
        assert f"{setup.token} may not be read by" in found.seen

    def test_a_check_that_breaks_is_a_finding_and_takes_no_other_with_it(self, monkeypatch, tmp_path):
        def broken(_):
            raise RuntimeError("boom")
            yield

        monkeypatch.setattr(doctor, "CHECKS", (("a", broken), *doctor.CHECKS[3:4]))
        found = list(doctor.examine(Patient(tmp_path / "x", tmp_path)))
        assert [finding.verdict for finding in found] == ["failed", "ok"]
        assert "RuntimeError: boom" in found[0].seen

    @pytest.mark.parametrize("values", [{"Temperature": 199.0}, {"Temperature": float("nan")}, {"Radon": 1.0}, {}])
    def test_what_the_agent_would_not_deliver_is_a_reading_that_failed(self, values):
        from agent.doctor import device

        def verdict(values):
            return device.judged("reading of roof", Treatment(SensorSettings()).of(Reading(values, 0))).verdict

        assert verdict(values) == "failed"
        assert verdict({"Temperature": 20.0}) == "ok"

    def test_a_resolver_that_hangs_is_not_waited_for(self, monkeypatch):
        hold = threading.Event()
        monkeypatch.setattr(socket, "getaddrinfo", lambda *_, **__: hold.wait(20) and [])
        assert network.resolved("x", 0.05) == "x cannot be resolved: no answer within 0.05 s"
        hold.set()

    @pytest.mark.parametrize(
        ("state", "verdict", "words"),
        [
            ({"LoadState": "not-found"}, "ok", "is not installed"),
            ({"LoadState": "loaded", "ActiveState": "active", "StatusText": "measuring"}, "ok", "runs: measuring"),
            ({"LoadState": "loaded", "ActiveState": "active", "NRestarts": "4"}, "warning", "restarted 4 times"),
            ({"LoadState": "loaded", "ActiveState": "failed", "ExecMainStatus": "78"}, "failed", "configuration"),
            ({"LoadState": "loaded", "ActiveState": "activating", "SubState": "auto-restart"}, "failed", "activating"),
            ({"LoadState": "loaded", "ActiveState": "inactive"}, "warning", "does not run"),
        ],
    )
    def test_the_unit_s_state_in_words(self, monkeypatch, tmp_path, state, verdict, words):
        from agent.doctor import device

        monkeypatch.setattr(device, "_systemctl", lambda _: state)
        (found,) = device.service(Patient(tmp_path / "agent.toml", tmp_path))
        assert (found.verdict, words in found.seen) == (verdict, True)

    def test_errors_of_the_card_and_under_voltage_are_warnings(self, tmp_path):
        from agent.doctor import device
        from agent.status.board import THROTTLED

        number = tmp_path.stat().st_dev
        block = tmp_path / "sys/devices/mmcblk0/mmcblk0p2"
        block.mkdir(parents=True)
        (tmp_path / "sys/dev/block").mkdir(parents=True)
        (tmp_path / f"sys/dev/block/{os.major(number)}:{os.minor(number)}").symlink_to(block)
        for path, text in (
            ("sys/fs/ext4/mmcblk0p2/errors_count", "3"),
            ("sys/devices/mmcblk0/device/life_time", "0x02 0x0a"),
            (THROTTLED, "50005"),
        ):
            (tmp_path / path).parent.mkdir(parents=True, exist_ok=True)
            (tmp_path / path).write_text(text)
        patient = Patient(tmp_path / "agent.toml", tmp_path, root=tmp_path)
        seen = [finding.seen for finding in (*device.disk(patient), *device.board(patient))]
        assert "the file system on mmcblk0p2 has counted 3 errors" in seen
        assert "mmcblk0 states 100 % of its life used" in seen
        assert any("under-voltage now" in text for text in seen)


@pytest.mark.parametrize(("mode", "warned"), [(0o640, False), (0o600, False), (0o644, True)])
def test_a_configuration_with_a_token_that_everybody_can_read_is_a_warning(setup, mode, warned):
    setup.write("http://127.0.0.1:9")
    setup.config.write_text(setup.config.read_text().replace(f'token_file = "{setup.token}"', 'token = "token-1"'))
    setup.config.chmod(mode)
    found = [f["seen"] for f in setup.doctor() if f["check"] == "configuration" and f["verdict"] == "warning"]
    assert [("others can read it" in text) for text in found] == [True] * warned
