"""The registrar against this project's own center, over HTTP, with tokens that really write."""

import signal
import subprocess
import sys
from dataclasses import replace

import pytest
import requests

from agent.config.units import Seconds
from agent.util.secret import Secret
from center.app import serve
from center.context import EXTENSION
from center.security import hash_password
from center.settings import DeviceDefaults, EmbeddedSettings, Settings
from tests.registering import FakeClock, maker, settle

LINE = "environment,clientId=pi-7,device=pi-7,TemperatureSensor=bme280 Temperature=21.5 1795501860000000000"


class RealCenter:
    api = "auto"

    def __init__(self, running):
        self.url, self.registry = running.url, running.app.extensions[EXTENSION].registry
        self.app = running.app
        self.requests = []


@pytest.fixture
def center(tmp_path):
    settings = Settings(
        embedded=True,
        store=EmbeddedSettings(data=str(tmp_path / "center")),
        devices=DeviceDefaults(Seconds(7), Seconds(100), 50.5, 14.5),
    )
    with serve(settings, port=0) as running:
        yield RealCenter(running)


@pytest.fixture
def clock():
    return FakeClock()


@pytest.fixture
def registrar(tmp_path, clock):
    return maker(tmp_path, clock)


def write(target, line=LINE):
    return requests.post(
        f"{target.url}/api/v2/write",
        params={"org": target.org, "bucket": target.bucket},
        headers={"Authorization": f"Token {target.token.reveal()}"},
        data=line,
        timeout=5,
    ).status_code


def test_a_device_registers_and_its_token_writes(center, registrar):
    told = []
    device = registrar(center, on_remote=told.append, observe=lambda *_, **__: None)
    device.step()
    assert device.snapshot().dialect == "iot-center"
    assert write(device.target()) == 204
    assert told[0].measurement_interval == 7
    assert told[0].location.lat == 50.5


def test_a_renewal_leaves_one_token_that_writes(center, registrar, clock):
    device = registrar(center)
    device.step()
    old = device.target()
    clock.now += 3600
    device.renew()
    device.step()
    assert write(device.target()) == 204
    assert write(old) == 401


def test_a_device_removed_at_the_center_is_refused_and_registers_again(center, registrar, clock):
    device = registrar(center)
    device.step()
    center.registry.remove("pi-7")
    assert write(device.target()) == 401
    clock.now += 3600
    device.renew()
    device.step()
    assert write(device.target()) == 204


def test_a_wiped_token_file_is_mended_with_the_device_secret(center, registrar, tmp_path):
    registrar(center).step()
    (tmp_path / "state" / "credentials.json").unlink()
    device = registrar(center)
    device.step()
    assert write(device.target()) == 204


def test_a_wiped_state_folder_needs_the_administrator_who_is_told_what_to_do(center, registrar, clock, tmp_path):
    registrar(center).step()
    for item in (tmp_path / "state").iterdir():
        item.unlink()
    device = registrar(center)
    device.step()
    assert device.target() is None
    assert "An administrator of the center must remove pi-7 there" in device.snapshot().error
    center.registry.remove("pi-7")
    assert write(settle(device, clock)) == 204


def test_the_first_registration_with_a_guarded_center_takes_its_enrollment_key(center, registrar, clock, tmp_path):
    center.registry.set_password_hash(hash_password(Secret("a long password of the administrator")))
    device = registrar(center)
    device.step()
    assert "enrollment key" in device.snapshot().error
    _, key = center.registry.make_enrollment_key(note="for pi-7")
    (tmp_path / "enrollment.key").write_text(key.reveal())
    (tmp_path / "enrollment.key").chmod(0o600)
    enrolled = registrar(center, enrollment_key_file=str(tmp_path / "enrollment.key"))
    enrolled.step()
    assert write(enrolled.target()) == 204
    (tmp_path / "enrollment.key").unlink()  # used up: renewals prove themselves by the device secret
    clock.now += 3600
    enrolled.renew()
    enrolled.step()
    assert write(enrolled.target()) == 204


def test_a_changed_configuration_at_the_center_arrives_at_the_next_refresh(center, registrar, clock):
    told = []
    device = registrar(center, on_remote=told.append)
    device.step()
    extension = center.app.extensions[EXTENSION]
    changed = replace(extension.settings, devices=replace(extension.settings.devices, measurement_interval=Seconds(3)))
    center.app.extensions[EXTENSION] = replace(extension, settings=changed)
    clock.now += 120
    device.step()
    assert told[-1].measurement_interval == 3
    assert device.snapshot().error is None


def test_iot_center_v2s_api_is_spoken_with_it_too(center, registrar, clock):
    device = registrar(center, api="iot-center-v2")
    device.step()
    assert write(device.target()) == 204
    clock.now += 3600
    device.renew()
    device.step()
    assert write(device.target()) == 204


KILLED_AT = """
import functools, os, random, signal, sys
from pathlib import Path
import requests
from agent.util import atomic
from agent.registration.registrar import Registrar
from agent.config.settings import CenterSettings

left = int(sys.argv[1])

def step():
    global left
    left -= 1
    if left == 0:
        os.kill(os.getpid(), signal.SIGKILL)

def before(real, *arguments, **options):
    step()
    return real(*arguments, **options)

def around(self, *arguments, _real=requests.Session.request, **options):
    step()
    answer = _real(self, *arguments, **options)
    answer.content
    step()
    return answer

for name in ("open", "write", "fchmod", "fsync", "replace"):
    setattr(atomic.os, name, functools.partial(before, getattr(os, name)))
requests.Session.request = around
device = Registrar(CenterSettings(url=sys.argv[2], timeout=5), "pi-7", Path(sys.argv[3]))
if "renew" in sys.argv:
    device.step()
    device.renew()
    device._due = 0
device.step()
sys.exit(0 if device.target() else 9)
"""


def authorizations(center):
    rows = center.registry.database.read().execute("SELECT count(*) FROM authorization WHERE device = 'pi-7'")
    return rows.fetchone()[0]


@pytest.mark.slow
@pytest.mark.parametrize("life", ["first", "renew"])
def test_a_kill_at_any_step_never_loses_the_device_or_leaves_two_tokens(center, registrar, clock, tmp_path, life):
    killed = 0
    for cut_at in range(1, 60):
        if life == "first":
            center.registry.remove("pi-7")
            for item in (tmp_path / "state").glob("*"):
                item.unlink()
        arguments = [sys.executable, "-c", KILLED_AT, str(cut_at), center.url, str(tmp_path / "state"), life]
        ended = subprocess.run(arguments, timeout=60, capture_output=True, check=False)
        if ended.returncode == 0:
            break
        assert ended.returncode == -signal.SIGKILL, ended.stderr
        killed += 1
        device = registrar(center)
        target = settle(device, clock)
        if write(target) == 401:
            clock.now += 3600
            device.renew()
            target = settle(device, clock)
        assert write(target) == 204
        assert authorizations(center) == 1
    assert killed >= (12 if life == "first" else 8)
    assert ended.returncode == 0
