"""The center as a process: started, asked, stopped; and its commands."""

import contextlib
import gzip
import logging
import os
import pwd
import re
import shutil
import signal
import sqlite3
import subprocess
import sys
import tempfile
import threading
import time
from pathlib import Path

import pytest
import requests
from click.testing import CliRunner
from pytest_httpserver import HTTPServer

from agent.registration.secret_files import read_secret_file
from agent.util.logs import LogLine
from agent.util.secret import Secret
from center.alerts import kept
from center.app import FILE, create_app, serve
from center.cli import main
from center.context import EXTENSION
from center.errors import StoreError
from center.settings import InfluxSettings, ServerSettings, Settings
from tests.center_helpers import embedded_settings, influx_settings, jobs_wait, stores
from tests.waiting import wait_for

CENTER = [str(Path(sys.executable).with_name("iot-center"))]
TIMEOUT = 20


def environment(**more):
    kept = {key: value for key, value in os.environ.items() if not key.startswith(("INFLUX_", "IOT_CENTER"))}
    return kept | {"PYTHONWARNINGS": "error"} | more


@contextlib.contextmanager
def running(folder, *args, env=None):
    """`iot-center serve` on a free port: its process and address."""
    command = [*CENTER, "serve", "--port", "0", *args]
    with subprocess.Popen(
        command, cwd=folder, env=env or environment(), text=True, stdout=subprocess.PIPE, stderr=subprocess.PIPE
    ) as process:
        try:
            line = process.stdout.readline()
            yield process, re.search(r"http://\S+", line)[0]
        finally:
            if process.poll() is None:
                process.terminate()
                process.communicate(timeout=TIMEOUT)


def run(folder, *args, text="", env=None):
    """A command that ends, in this process: its exit code and what it printed."""
    with contextlib.chdir(folder):
        cleared = dict.fromkeys(os.environ.keys() - (env or environment()).keys())
        ended = CliRunner().invoke(main, args, input=text, env=cleared | (env or environment()), prog_name="iot-center")
    return subprocess.CompletedProcess(args, ended.exit_code, ended.stdout, ended.stderr)


@pytest.mark.parametrize("number", [signal.SIGTERM, signal.SIGINT])
def test_it_says_its_address_answers_and_stops_cleanly(tmp_path, number):
    with running(tmp_path, "--embedded", "--data", str(tmp_path / "data")) as (process, url):
        assert requests.get(f"{url}/health", timeout=40).json()["status"] == "pass"
        assert requests.post(f"{url}/api/devices/pi-1", timeout=40).status_code == 201
        process.send_signal(number)
        out, err = process.communicate(timeout=TIMEOUT)
        assert process.returncode == 0
        assert (out, err) == ("", "")
    with running(tmp_path, "--embedded", "--data", str(tmp_path / "data")) as (_, url):
        assert [found["deviceId"] for found in requests.get(f"{url}/api/devices", timeout=40).json()] == ["pi-1"]


def test_in_a_thread_it_is_up_at_once_and_gone_after_close(tmp_path):
    with serve(embedded_settings(tmp_path), port=0) as center:
        assert requests.get(f"{center.url}/ping", timeout=40).status_code == 204
        assert center.port
    center.close()
    with pytest.raises(requests.ConnectionError):
        requests.get(f"{center.url}/ping", timeout=40)
    with serve(embedded_settings(tmp_path), "127.0.0.1", center.port) as again:
        assert again.port == center.port


def test_what_was_asked_before_the_stop_is_answered(tmp_path):
    with serve(embedded_settings(tmp_path), port=0) as center:
        database = center.app.extensions["iot-center"].registry.database
        begun, gate, answers = threading.Event(), threading.Event(), []
        holder = threading.Thread(target=database.run, args=(lambda _: begun.set() or gate.wait(40),))
        holder.start()
        begun.wait(40)
        asker = threading.Thread(
            target=lambda: answers.append(requests.post(f"{center.url}/api/devices/pi-1", timeout=40))
        )
        asker.start()
        jobs_wait(database, 1)
        closer = threading.Thread(target=center.close)
        closer.start()
        time.sleep(0.2)
        gate.set()
        for thread in (closer, asker, holder):
            thread.join(40)
    assert [answer.status_code for answer in answers] == [201]


def test_alerts_that_nobody_judges_are_said_on_every_page_and_to_who_watches(tmp_path, monkeypatch):
    monkeypatch.setattr("center.alerts.watch.Watch.step", lambda _: 1 / 0)
    with serve(embedded_settings(tmp_path), port=0) as center:
        until = time.monotonic() + TIMEOUT
        while (health := requests.get(f"{center.url}/health", timeout=40)).status_code == 200:
            assert time.monotonic() < until
        words = "judging alerts fails in a way that was not foreseen (ZeroDivisionError): see the log"
        assert health.json()["message"] == words
        assert words in requests.get(f"{center.url}/help", timeout=40).text


def test_alerts_that_a_store_keeps_from_being_judged_are_said_as_well(tmp_path, monkeypatch):
    def full(*_):
        raise StoreError("disk is full")

    settings = embedded_settings(tmp_path)
    with stores(settings) as (registry, _):
        kept.keep_rule(registry, "r", {"name": "Frost", "what": "below", "field": "Temperature", "threshold": 2})
    monkeypatch.setattr("center.embedded.registry.EmbeddedRegistry.hold_lease", full)
    monkeypatch.setattr("center.alerts.watch.FAILING_S", 0.0)
    with serve(settings, port=0) as center:
        until = time.monotonic() + TIMEOUT
        while (health := requests.get(f"{center.url}/health", timeout=40)).status_code == 200:
            assert time.monotonic() < until
        assert health.json()["message"] == "judging alerts fails: disk is full"


def test_a_taken_port_is_one_line(tmp_path):
    with serve(embedded_settings(tmp_path), port=0) as center:
        answer = run(tmp_path, "serve", "--embedded", "--data", str(tmp_path / "b"), "--port", str(center.port))
    assert answer.returncode == 69
    assert re.fullmatch(rf"iot-center: cannot listen on 127.0.0.1 port {center.port}: .*in use.*\n", answer.stderr)


@pytest.mark.parametrize("host", ["no.such.host.invalid", "198.51.100.7"])
def test_an_address_of_no_interface_here_is_not_taken_for_a_port_in_use(tmp_path, host):
    common = ["--embedded", "--data", str(tmp_path)]
    assert run(tmp_path, "password", *common, text="correct horse battery\n").returncode == 0
    answer = run(tmp_path, "serve", *common, "--host", host, "--port", "5000")
    assert answer.returncode == 69
    assert "server.host is an address of this machine" in answer.stderr
    assert "running already" not in answer.stderr


def test_a_store_that_cannot_be_opened_is_said_in_words(tmp_path):
    (tmp_path / "file").write_text("")
    for data in ("file", "file/below"):
        answer = run(tmp_path, "serve", "--embedded", "--data", data)
        words = f"iot-center: {data} cannot be a folder, a file is in its place: name another by --data\n"
        assert (answer.returncode, answer.stderr) == (69, words)
    answer = run(tmp_path, "check", "--embedded", "--data", "/proc/none")
    assert answer.stderr == "iot-center: /proc/none: No such file or directory\n"


def test_the_command_that_sets_the_password_is_for_the_store_that_would_be_served(tmp_path):
    answer = run(tmp_path, "serve", "--embedded", "--data", "my data", "--host", "0.0.0.0")
    assert answer.returncode == 78
    assert "`iot-center password --embedded --data 'my data'`" in answer.stderr


def test_flask_run_works_too(tmp_path):
    flask = [str(Path(sys.executable).with_name("flask")), "--app", "center.app", "routes"]
    env = environment(IOT_CENTER_EMBEDDED="1", STATE_DIRECTORY=str(tmp_path))
    answer = subprocess.run(
        flask, cwd=Path(__file__).parents[2], env=env, text=True, capture_output=True, timeout=TIMEOUT, check=False
    )
    assert answer.returncode == 0, answer.stderr
    assert "/api/devices/<device_id>" in answer.stdout


def test_a_write_over_the_wire_packed_and_too_large(tmp_path):
    with serve(embedded_settings(tmp_path, max_body=100_000), port=0) as center:
        told = requests.post(f"{center.url}/api/devices/pi-1", timeout=40).json()
        url = f"{told['influx_url']}/api/v2/write?org={told['influx_org']}&bucket={told['influx_bucket']}"
        headers = {"Authorization": f"Token {told['token']}"}
        body = gzip.compress(b"environment,clientId=pi-1 Temperature=20.5")
        answer = requests.post(url, body, headers=headers | {"Content-Encoding": "gzip"}, timeout=40)
        assert answer.status_code == 204
        assert "Date" in answer.headers
        for size in (120_000, 400_000):  # refused by the application, and by the server before it
            answer = requests.post(url, b"x" * size, headers=headers, timeout=40)
            assert answer.status_code == 413
        assert requests.get(f"{center.url}/api/devices/pi-1/measurements/count", timeout=40).json() == {"count": 1}


def test_no_acknowledged_point_is_lost_when_the_center_is_killed(tmp_path):
    data = ("--embedded", "--data", str(tmp_path / "data"))
    acknowledged = []
    with running(tmp_path, *data) as (process, url):
        told = requests.post(f"{url}/api/devices/pi-1", timeout=40).json()
        path = f"{url}/api/v2/write?org={told['influx_org']}&bucket={told['influx_bucket']}"
        headers = {"Authorization": f"Token {told['token']}"}

        def write(first):
            with contextlib.suppress(requests.RequestException):
                for n in range(first, 10**9, 4):
                    line = f"environment,clientId=pi-1 Temperature={n}.5 {n}"
                    if requests.post(path, line, headers=headers, timeout=40).status_code == 204:
                        acknowledged.append(n)

        writers = [threading.Thread(target=write, args=(first,)) for first in range(1, 5)]
        for thread in writers:
            thread.start()
        wait_for(lambda: len(acknowledged) >= 100)
        process.kill()
        for thread in writers:
            thread.join()
        process.communicate(timeout=TIMEOUT)
    with running(tmp_path, *data) as (_, url):
        answer = requests.get(f"{url}/api/devices/pi-1/measurements?start=0&stop=9999", timeout=40).json()
    stored = {round(value - 0.5) for value in answer["series"][0]["values"]}
    assert set(acknowledged) <= stored


def test_beyond_loopback_without_a_password_it_ends_with_78(tmp_path):
    answer = run(tmp_path, "serve", "--embedded", "--data", str(tmp_path / "data"), "--host", "0.0.0.0", "--port", "0")
    assert answer.returncode == 78
    assert "iot-center password" in answer.stderr
    assert answer.stderr.count("\n") == 1


def test_password_and_enroll_make_a_center_for_others(tmp_path):
    common = ("--embedded", "--data", str(tmp_path / "data"))
    assert run(tmp_path, "password", *common, text="short\n").returncode == 78
    answer = run(tmp_path, "password", *common, text="correct horse battery\n")
    assert answer.returncode == 0, answer.stderr
    with running(tmp_path, *common, "--host", "0.0.0.0") as (process, everywhere):
        url = everywhere.replace("0.0.0.0", "127.0.0.1")
        key = run(tmp_path, "enroll", *common, "--note", "greenhouse", "--expires", "1h").stdout.strip()
        headers = {"X-Enrollment-Key": key, "X-Device-Secret": "s" * 32}
        assert requests.post(f"{url}/api/devices/pi-1", timeout=40).status_code == 401
        assert requests.post(f"{url}/api/devices/pi-1", headers=headers, timeout=40).status_code == 201
        listed = run(tmp_path, "enroll", *common, "--list").stdout
        assert re.search(r"over +used 1 of 1 times, ends \S+ +greenhouse", listed)
        assert key not in listed
        assert run(tmp_path, "enroll", *common, "--revoke", key.split(".")[0]).returncode == 0
        assert run(tmp_path, "enroll", *common, "--revoke", "none").returncode == 78
        assert "over at once" in run(tmp_path, "enroll", *common, "--expires", "0d").stderr
        process.terminate()
        log = process.communicate(timeout=TIMEOUT)[1]
    assert re.match(r"\d{4}-\d\d-\d\d \d\d:\d\d:\d\d,\d+ WARNING center.security: 1 wrong", log), log
    assert run(tmp_path, "check", *common).stdout.startswith("✓")


def test_a_mistake_in_the_settings_is_one_line_and_78(tmp_path):
    (tmp_path / "center.toml").write_text("[server]\nprt = 1\n")
    answer = run(tmp_path, "serve", "--embedded")
    assert (answer.returncode, answer.stderr.count("\n")) == (78, 1)
    assert "did you mean port?" in answer.stderr
    (tmp_path / "center.toml").unlink()
    answer = run(tmp_path, "serve")
    assert answer.returncode == 78
    assert "--embedded" in answer.stderr


def test_check_says_what_the_embedded_store_would_fail_at(tmp_path):
    (tmp_path / "center.toml").write_text('[embedded]\nenabled = true\ndata = "."\nretention = "1h"\n')
    answer = run(tmp_path, "check")
    assert (answer.returncode, answer.stderr) == (0, "")
    assert re.fullmatch(r"✓ the embedded store in . opens; 0 devices\n", answer.stdout)
    with contextlib.closing(sqlite3.connect(tmp_path / FILE)) as file, file:
        file.execute("DROP TABLE hours")
        file.execute("CREATE VIEW hours AS SELECT 1 AS series, 1 AS field, 1 AS hour")
        file.execute("INSERT INTO series (n, bucket, measurement, tags) VALUES (1, 1, 'environment', '{}')")
        file.execute("INSERT INTO points (series, t) VALUES (1, 1)")
    answer = run(tmp_path, "check")
    assert answer.returncode == 1
    assert re.search(r"✗ deleting what is older than the retention fails: .*view.*\n  → see .*log", answer.stdout)


def test_a_key_goes_into_a_new_file_that_only_its_owner_can_read(tmp_path):
    file = tmp_path / "key"
    command = ["enroll", "--embedded", "--data", str(tmp_path / "data"), "--output", str(file)]
    answer = CliRunner().invoke(main, command)
    assert (answer.exit_code, answer.stdout) == (0, "")
    assert file.stat().st_mode & 0o777 == 0o600
    key = read_secret_file(str(file), "unused").reveal()
    listed = CliRunner().invoke(main, [*command[:4], "--list"]).stdout
    assert listed.startswith(key.partition(".")[0])
    again = CliRunner().invoke(main, command)
    assert again.exit_code == 78
    other = tmp_path / "other"
    failed = CliRunner().invoke(main, [*command[:3], str(file), "--output", str(other)])
    assert (failed.exit_code, other.exists()) == (69, False)  # so that it can be called again
    assert f"--output {file}: File exists: name a file that is not there yet" in again.stderr
    assert len(CliRunner().invoke(main, [*command[:4], "--list"]).stdout.splitlines()) == 1


def test_nobody_writes_lines_of_the_log_by_a_path():
    record = logging.makeLogRecord({"msg": "disconnected: %s", "args": ("/\nWARNING center.security: x\x1b[31m",)})
    assert LogLine("%(message)s").format(record) == "disconnected: /\ufffdWARNING center.security: x\ufffd[31m"


@pytest.mark.skipif(os.geteuid() != 0, reason="needs root")
def test_by_sudo_the_key_is_its_caller_s_and_the_store_the_service_s(monkeypatch, request):
    top = Path(tempfile.mkdtemp())  # pytest's are closed to others
    request.addfinalizer(lambda: shutil.rmtree(top))
    top.chmod(0o755)
    data, folder, nobody = top / "data", top / "mine", pwd.getpwnam("nobody")
    data.mkdir()
    folder.mkdir(mode=0o700)
    os.chown(data, nobody.pw_uid, nobody.pw_gid)
    monkeypatch.setattr("os.initgroups", lambda *_: os.setgroups([]))
    monkeypatch.setattr("agent.util.service.user_of", lambda _: nobody)
    monkeypatch.setenv("STATE_DIRECTORY", "/var/lib/iot-center")
    monkeypatch.setenv("SUDO_UID", "1234")
    monkeypatch.setenv("SUDO_GID", "1235")
    command = ["enroll", "--embedded", "--data", str(data), "--output", str(folder / "key")]
    answer = CliRunner().invoke(main, command)
    assert answer.exit_code == 0, answer.output
    found = (folder / "key").stat()
    assert (found.st_uid, found.st_gid, found.st_mode & 0o777) == (1234, 1235, 0o600)
    assert {file.stat().st_uid for file in data.iterdir()} == {nobody.pw_uid}
    assert os.geteuid() == 0


def test_a_server_thread_that_fails_ends_the_command_with_69(tmp_path, monkeypatch, caplog):
    def fail(**_):
        raise MemoryError("no room")

    monkeypatch.setattr("waitress.wasyncore.loop", fail)
    monkeypatch.setattr(signal, "signal", lambda *_: None)  # as pytest has them
    answer = CliRunner().invoke(main, ["serve", "--embedded", "--data", str(tmp_path), "--port", "0"])
    assert answer.exit_code == 69
    assert "nothing was answered any more: no room" in answer.output
    (record,) = [record for record in caplog.records if record.name == "center.app"]
    assert record.exc_info[0] is MemoryError


def test_an_agent_installed_without_the_centers_packages_says_what_to_install(tmp_path):
    start = (
        "import sys; sys.modules['flask'] = sys.modules['influxdb_client'] = None; from center.cli import main; main()"
    )
    for command in ("serve", "check"):
        answer = subprocess.run(
            [sys.executable, "-c", start, command, "--embedded"], cwd=tmp_path, env=environment(), text=True,
            capture_output=True, timeout=TIMEOUT, check=False,
        )  # fmt: skip
        assert answer.returncode == 69
        assert re.fullmatch(
            r"iot-center: flask is not installed: .*pip install 'iot-edge-agent\[center\]'\n", answer.stderr
        )


def test_an_influxdb_that_is_not_there_is_one_line(tmp_path):
    env = environment(INFLUX_URL="http://127.0.0.1:9", INFLUX_TOKEN="t", INFLUX_ORG="o")
    for command in (("setup",), ("enroll",)):
        answer = run(tmp_path, *command, env=env)
        assert (answer.returncode, answer.stderr.count("\n")) == (69, 1), answer.stderr
        assert "does not answer at http://127.0.0.1:9" in answer.stderr


@pytest.mark.parametrize(("host", "password"), [("127.0.0.1", None), ("0.0.0.0", "a hash"), ("0.0.0.0", None)])
def test_a_center_starts_while_influxdb_is_away_says_so_and_recovers(monkeypatch, caplog, host, password):
    from center.influx.registry import InfluxRegistry

    influx = InfluxSettings(url="http://127.0.0.1:9", token=Secret("t"), org="o")
    app = create_app(Settings(influxdb=influx, server=ServerSettings(host=host, session_key=Secret("k"))))
    client = app.test_client()
    for _ in range(2):
        page = client.get("/", headers={"Host": "localhost"})
        assert page.status_code == 503
        assert "InfluxDB does not answer at http://127.0.0.1:9" in page.text
        assert "data-retry" in page.text  # it looks by itself whether that is over
    assert client.get("/api/devices", headers={"Host": "localhost"}).status_code == 503
    monkeypatch.setattr(InfluxRegistry, "password_hash", lambda _: password)
    answer = client.get("/help", headers={"Host": "localhost"})
    if host == "0.0.0.0" and not password:
        assert answer.status_code == 503
        assert "without a login" in answer.text
    else:
        assert answer.status_code == (302 if password else 200)
    app.extensions[EXTENSION].close()


# --- with InfluxDB


@pytest.fixture
def influx():
    with influx_settings() as settings:
        names = settings.influxdb
        yield environment(
            INFLUX_URL=names.url, INFLUX_TOKEN=names.token.reveal(), INFLUX_ORG=names.org, INFLUX_BUCKET=names.bucket,
            INFLUX_BUCKET_AUTH=names.bucket_auth, IOT_CENTER_SESSION_KEY="k",
        )  # fmt: skip


@pytest.mark.influxdb
def test_two_centers_at_one_influxdb_leave_one_live_authorization(tmp_path, influx):
    """Eight requests at once, half of them with another secret, at two processes; round after round."""
    from concurrent.futures import ThreadPoolExecutor

    with running(tmp_path, env=influx) as (_, one), running(tmp_path, env=influx) as (_, two):

        def register(n, name):
            url = (one, two)[n % 2]
            headers = {"X-Device-Secret": "ab"[n // 2 % 2] * 32}
            return requests.post(f"{url}/api/devices/{name}", headers=headers, timeout=30)

        for round_ in range(6):
            name = f"race-{round_}"
            with ThreadPoolExecutor(8) as pool:
                answers = list(pool.map(register, range(8), [name] * 8))
            assert {answer.status_code for answer in answers} <= {200, 201, 409}
            told = [answer.json() for answer in answers if answer.ok]
            assert told
            live = [answer for answer in told if writes(answer) == 204]
            assert len(live) <= 1
            key = requests.get(f"{one}/api/devices/{name}", timeout=40).json()["key"]
            assert key == requests.get(f"{two}/api/devices/{name}", timeout=40).json()["key"]
            assert [answer["key"] for answer in live] in ([key], [])
    answer = run(tmp_path, "check", "--sweep", env=influx)
    assert answer.returncode == 0, answer.stdout
    assert "6 devices are registered" in answer.stdout


def writes(told):
    path = f"/api/v2/write?org={told['influx_org']}&bucket={told['influx_bucket']}"
    headers = {"Authorization": f"Token {told['token']}"}
    return requests.post(told["influx_url"] + path, headers=headers, timeout=40).status_code


@pytest.mark.influxdb
def test_the_least_permissions_are_enough(tmp_path, influx):
    from influxdb_client.client.influxdb_client import InfluxDBClient
    from influxdb_client.domain.authorization import Authorization
    from influxdb_client.domain.permission import Permission
    from influxdb_client.domain.permission_resource import PermissionResource

    from center.influx.client import find_org

    with InfluxDBClient(influx["INFLUX_URL"], influx["INFLUX_TOKEN"], org=influx["INFLUX_ORG"]) as client:
        org = find_org(client, influx["INFLUX_ORG"])
        names = (influx["INFLUX_BUCKET"], influx["INFLUX_BUCKET_AUTH"])
        wanted = [("buckets", client.buckets_api().find_bucket_by_name(name).id, org) for name in names]
        wanted += [("authorizations", None, org), ("users", client.users_api().me().id, None)]
        permissions = [
            Permission(action=action, resource=PermissionResource(type=kind, id=id_, org_id=org_))
            for kind, id_, org_ in wanted
            for action in ("read", "write")
        ]
        made = client.authorizations_api().create_authorization(
            authorization=Authorization(org_id=org, description="test center", permissions=permissions)
        )
        try:
            env = influx | {"INFLUX_TOKEN": made.token}
            answer = run(tmp_path, "check", env=env)
            assert answer.returncode == 0, answer.stdout
            with running(tmp_path, env=env) as (_, url):
                told = requests.post(f"{url}/api/devices/pi-1", timeout=40).json()
                assert writes(told) == 204
                assert requests.get(f"{url}/api/devices/pi-1/measurements", timeout=40).status_code == 200
                assert {bucket["name"] for bucket in requests.get(f"{url}/api/buckets", timeout=40).json()} == {*names}
                assert requests.delete(f"{url}/api/devices/pi-1", timeout=40).status_code == 204
                assert writes(told) == 401
        finally:
            client.authorizations_api().delete_authorization(made.id)


@pytest.mark.influxdb
def test_setup_makes_what_is_missing_and_check_says_what_is(tmp_path, influx):
    answer = run(tmp_path, "check", env=influx)
    assert answer.returncode == 0, answer.stdout
    missing = influx | {"INFLUX_BUCKET_AUTH": influx["INFLUX_BUCKET_AUTH"] + "_2"}
    answer = run(tmp_path, "check", env=missing)
    assert answer.returncode == 1
    assert "✗ there is no bucket" in answer.stdout
    assert "iot-center setup" in answer.stdout
    wrong = run(tmp_path, "check", env=influx | {"INFLUX_TOKEN": "wrong-token-0001"})
    assert wrong.returncode == 1
    assert "wrong-token-0001" not in wrong.stdout + wrong.stderr
    assert "401" in wrong.stdout
    same = run(tmp_path, "setup", env=influx | {"INFLUX_BUCKET_AUTH": influx["INFLUX_BUCKET"]})
    assert same.returncode == 78
    made = run(tmp_path, "setup", "--retention", "30d", env=influx)
    assert made.returncode == 0
    assert "is there" in made.stdout


def test_setup_without_a_terminal_takes_no_empty_password(tmp_path):
    """Asked of an InfluxDB that waits for its onboarding: nothing is sent to it."""
    with HTTPServer(host="127.0.0.1") as server:
        server.expect_request("/api/v2/setup", method="GET").respond_with_json({"allowed": True})
        env = environment(INFLUX_URL=server.url_for(""), INFLUX_ORG="my-org")
        for text in ("", "\n", "\r\n"):
            answer = run(tmp_path, "setup", text=text, env=env)
            assert answer.returncode == 78
            assert "no terminal" in answer.stderr
            assert answer.stderr.count("\n") == 1
        assert {request.method for request, _ in server.log} == {"GET"}


@pytest.mark.parametrize("mode", ["embedded", pytest.param("influxdb", marks=pytest.mark.influxdb)])
def test_an_agent_registers_and_its_points_arrive(tmp_path, request, mode):
    """The whole chain: a center, an agent with a virtual sensor; removed in between, the agent registers again."""
    env = request.getfixturevalue("influx") if mode == "influxdb" else environment()
    args = ("--embedded", "--data", str(tmp_path / "data")) if mode == "embedded" else ()
    (tmp_path / "agent").mkdir()
    with running(tmp_path, *args, env=env) as (_, url):
        (tmp_path / "agent" / "agent.toml").write_text(
            f'[device]\nid = "chain-1"\n[[sensor]]\ndriver = "virtual"\ninterval = "200ms"\n[center]\nurl = "{url}"\n'
            '[delivery]\nflush_interval = "500ms"\n[status]\nlisten = "127.0.0.1:0"\n[clock]\ntrust = "always"\n'
        )
        agent = [str(Path(CENTER[0]).with_name("iot-agent")), "run", "--state-dir", str(tmp_path / "state")]
        with subprocess.Popen(
            agent,
            cwd=tmp_path / "agent",
            env=environment(),
            stdout=subprocess.PIPE,
            stderr=subprocess.STDOUT,
            text=True,
        ) as process:
            try:
                seen = counted(url, 1)
                key = requests.get(f"{url}/api/devices/chain-1", timeout=40).json()["key"]
                assert requests.delete(f"{url}/api/devices/chain-1", timeout=40).status_code == 204
                counted(url, seen + 10)
                assert requests.get(f"{url}/api/devices/chain-1", timeout=40).json()["key"] != key
            finally:
                process.terminate()
                out, _ = process.communicate(timeout=TIMEOUT)
        assert process.returncode == 0, out


def counted(url, wanted, deadline_s=40):
    """The points of the agent, once they are as many as that."""
    end = time.monotonic() + deadline_s
    while time.monotonic() < end:
        count = requests.get(f"{url}/api/devices/chain-1/measurements/count", timeout=40).json()["count"]
        if count >= wanted:
            return count
        time.sleep(0.2)
    raise AssertionError(f"{count} points instead of {wanted} after {deadline_s} s")
