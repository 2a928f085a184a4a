"""Adding a device: its name, the command and the file that connect it, and waiting for it."""

from __future__ import annotations

import html
import os
import re
import subprocess
import tomllib
from urllib.parse import unquote

import pytest

from agent.config.parse import load_settings
from agent.util.secret import Secret
from center.errors import EnrollmentError
from center.pages.adding import KEY_NS, suggested_id
from center.profiles import profiles
from center.times import now_ns
from tests.center_helpers import PASSWORD, measured, text_of

SECRET = Secret("s" * 43)
GREENHOUSE = {"name": " Gewächshaus 3 ", "group": "Greenhouses", "sensor": "virtual"}


@pytest.fixture
def administrator(guarded):
    guarded.post("/login", data={"password": PASSWORD})
    return guarded


def command_of(answer):
    return html.unescape(re.search(r"<pre[^>]*><code>(.*?)</code>", answer.text, re.DOTALL)[1])


@pytest.mark.parametrize(
    ("name", "suggested"),
    [("Greenhouse 3", "greenhouse-3"), ("Gewächshaus №3!", "gewachshaus-no3"), ("  ..a  b.. ", "a-b"), ("温室", "")],
)
def test_an_id_is_suggested_that_looks_like_the_name(name, suggested):
    assert suggested_id(name) == suggested


def test_a_device_that_is_named_gets_a_key_that_is_good_once_for_an_hour_and_for_it_alone(administrator, center):
    before = now_ns()
    answer = administrator.post("/add", data=GREENHOUSE)
    assert answer.status_code == 201
    assert answer.headers["Cache-Control"] == "no-store"
    assert (profiles(center.registry)["gewachshaus-3"].name, center.registry.devices().total) == ("Gewächshaus 3", 0)
    command = command_of(answer)
    key = Secret(re.match(r"echo (\S+) \| ", command)[1])
    (kept,) = center.registry.enrollment_keys()
    assert (kept.note, kept.uses) == ("Device gewachshaus-3", 1)
    assert before + KEY_NS <= kept.expires_ns <= now_ns() + KEY_NS
    with pytest.raises(EnrollmentError):
        center.registry.register("other", SECRET, enrollment_key=key, needs_key=True)
    assert center.registry.register("gewachshaus-3", SECRET, enrollment_key=key, needs_key=True).new
    for path in ("/add/gewachshaus-3", "/enrollment-keys", "/devices"):
        assert key.reveal() not in administrator.get(path).text


def test_promise_7_the_command_gives_the_key_through_the_shell_alone_and_configures_the_agent(administrator, tmp_path):
    """As pasted, with the arguments that sudo and iot-agent got noted."""
    command = command_of(administrator.post("/add", data=GREENHOUSE | {"device_id": "gh"}))
    for name, then in (("sudo", 'exec "$@"'), ("iot-agent", "cat > key")):
        (tmp_path / name).write_text(f'#!/bin/sh\necho "$0 $*" >> arguments\n{then}\n')
        (tmp_path / name).chmod(0o755)
    for shell in ("dash", "bash"):
        subprocess.run(
            [shell, "-c", command],
            cwd=tmp_path,
            check=True,
            env=os.environ | {"PATH": f"{tmp_path}:{os.environ['PATH']}"},
        )
    arguments, key = (tmp_path / "arguments").read_text(), (tmp_path / "key").read_text().strip()
    assert "iot-agent init --center http://localhost --device-id gh --sensor virtual --key-file -" in arguments
    assert key in command
    assert key not in arguments


def test_the_file_for_the_boot_partition_is_a_configuration_that_joins_the_center(administrator, tmp_path):
    answer = administrator.post("/add", data=GREENHOUSE)
    data = html.unescape(re.search(r'download="iot-agent.toml" href="data:[^,]*,([^"]*)"', answer.text)[1])
    (tmp_path / "agent.toml").write_text(unquote(data))
    key = re.match(r"echo (\S+) ", command_of(answer))[1]
    assert f"# enrollment key: {key}\n" in unquote(data)
    assert "influxdb" not in tomllib.loads(unquote(data))
    settings = load_settings(tmp_path / "agent.toml", {})
    assert (settings.device.id, settings.sensor[0].driver) == ("gewachshaus-3", "virtual")
    assert (settings.center.url, settings.center.enrollment_key_file) == (
        "http://localhost",
        "/etc/iot-agent/enrollment.key",
    )


def test_the_page_waits_offers_another_key_once_it_has_expired_and_then_is_the_device(administrator, center):
    assert "--force" not in command_of(administrator.post("/add", data=GREENHOUSE))
    assert "Waiting for it" in text_of(administrator.get("/add/gewachshaus-3"))
    (first,) = center.registry.enrollment_keys()
    center.registry.make_enrollment_key(note="Device gewachshaus-3", expires_ns=now_ns() - 1)  # newer, and over
    waiting = administrator.get("/add/gewachshaus-3")
    assert "The key has expired" in text_of(waiting)
    assert "Make another key" in text_of(waiting)
    another = administrator.post("/add/gewachshaus-3", data={"sensor": "virtual"})
    assert another.status_code == 201
    assert "--sensor virtual --force --key-file -" in command_of(another)  # where the first wrote its agent.toml
    keys = {key.id: key for key in center.registry.enrollment_keys()}
    assert sum(key.valid(now_ns()) for key in keys.values()) == 1
    assert keys[first.id].revoked
    center.registry.register("gewachshaus-3", SECRET, administrator=True)
    assert "waiting for its first point" in text_of(administrator.get("/add/gewachshaus-3"))
    assert "waiting for its first point" in text_of(administrator.post("/add/gewachshaus-3"))  # no key is needed
    measured(center, "gewachshaus-3", minutes=1)
    answer = administrator.get("/add/gewachshaus-3")
    assert (answer.status_code, answer.location) == (302, "/devices/gewachshaus-3")


def test_on_open_loopback_no_key_is_made(client, center):
    answer = client.post("/add", data=GREENHOUSE)
    assert (
        command_of(answer) == "sudo iot-agent init --center http://localhost --device-id gewachshaus-3 --sensor virtual"
    )
    assert "answers this machine only" in text_of(answer)
    assert not center.registry.enrollment_keys()


@pytest.mark.parametrize(
    ("data", "said"),
    [
        ({"name": "  "}, "Give the device a name"),
        ({"name": "x", "device_id": "a b"}, "Use 1 to 64 letters"),
        ({"name": "x", "device_id": "pi-7"}, "pi-7 is registered already"),
        ({"name": "Pi 7"}, "pi-7 is registered already"),
        ({"name": "x" * 65}, "more than 64"),
        ({"name": "x", "group": "\x1b"}, "cannot be shown"),
        ({"name": "x", "sensor": "; rm"}, "Not a valid choice"),
    ],
)
def test_what_cannot_be_a_device_is_said_beside_its_field_and_nothing_is_kept(client, center, pi_7, data, said):
    answer = client.post("/add", data={"sensor": ""} | data)
    assert answer.status_code == 400
    assert said in text_of(answer)
    assert "aria-invalid" in answer.text
    assert not profiles(center.registry)


def test_whoever_opened_the_page_as_localhost_is_told_that_devices_reach_the_center_by_another_name(
    app, administrator, center
):
    from dataclasses import replace

    from center.context import EXTENSION

    server = replace(center.settings.server, host="0.0.0.0", public_url=None)
    app.extensions[EXTENSION] = replace(center, settings=replace(center.settings, server=server))
    assert "which other machines do not reach" in text_of(administrator.post("/add", data=GREENHOUSE))
    known = {"base_url": "http://center.lan:5000"}
    administrator.post("/login", data={"password": PASSWORD}, **known)
    answer = administrator.post("/add", data=GREENHOUSE, **known)
    assert "other machines" not in text_of(answer)
    assert "--center http://center.lan:5000 " in command_of(answer)
