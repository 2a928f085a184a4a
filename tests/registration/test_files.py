"""What happens to the registration when its files are wiped, damaged, replaced, or the power goes at any step."""

import functools
import json
import os

import pytest

from agent.registration.credentials import CredentialStore, stored_remote
from agent.registration.remote_config import RemoteConfiguration
from agent.registration.secret_files import CredentialsError
from agent.util import atomic
from agent.util.secret import Secret
from tests.fake_center import FakeCenter
from tests.registering import APIS, settle
from tests.unsearchable import hide


def stored(tmp_path):
    return json.loads((tmp_path / "state" / "credentials.json").read_text())


def secret_of(tmp_path):
    return (tmp_path / "state" / "device.secret").read_text()


class Killed(BaseException):
    """The power goes: nothing after this runs, not even what cleans up."""


def cut_power(monkeypatch, center, cut_at):
    """Stops the device at its n-th step: a call that changes the disk, or just before or after a request is served."""
    steps = []

    def step(name):
        steps.append(name)
        if len(steps) == cut_at:
            raise Killed

    for name in ("open", "write", "fchmod", "fsync", "replace"):

        def call(real, name, *arguments, **options):
            step(name)
            return real(*arguments, **options)

        monkeypatch.setattr(atomic.os, name, functools.partial(call, getattr(os, name), name))

    import requests

    real_request = requests.Session.request

    def request(*arguments, **options):
        step("before " + arguments[1])
        answer = real_request(*arguments, **options)
        answer.content  # noqa: B018 - read to its end, then the power goes
        step("after " + arguments[1])
        return answer

    monkeypatch.setattr(requests.Session, "request", request)
    return steps


@pytest.mark.parametrize("start", ["first registration", "lost token", "renewal"])
@pytest.mark.parametrize("api", APIS)
def test_a_power_cut_at_any_step_leaves_one_authorization_and_its_token_once_it_settles(
    *, httpserver, registrar, clock, tmp_path, monkeypatch, api, start
):
    reached = set()
    for cut_at in range(1, 60):
        httpserver.clear()
        center = FakeCenter(httpserver, api)
        for item in (tmp_path / "state").glob("*"):
            item.unlink()
        device = registrar(center, api=api)
        if start != "first registration":
            device.step()
        if start == "lost token":
            (tmp_path / "state" / "credentials.json").unlink()
            device = registrar(center, api=api)
        if start == "renewal":
            device.renew()
            clock.now += 400
            center.tokens["pi-7"] = ["tok-revoked-" + "y" * 40]
        with monkeypatch.context() as patched:
            steps = cut_power(patched, center, cut_at)
            try:
                device.step()
            except Killed:
                reached.add(steps[-1])
            else:
                break
        after = registrar(center, api=api)  # the next boot: real files, the same server
        target = settle(after, clock)
        if target.token.reveal() not in center.tokens.get("pi-7", []):  # a 401: delivery asks for another
            clock.now += 3600
            after.renew()
            target = settle(after, clock)
        assert center.tokens["pi-7"] == [target.token.reveal()], f"cut at {steps}"
        assert stored(tmp_path)["token"] == target.token.reveal()
        left = {item.name for item in (tmp_path / "state").iterdir()}
        assert left == {"credentials.json", "device.secret", "registration.lock"}
    else:
        pytest.fail("the device never came through")
    assert {"fsync", "replace"} <= reached
    assert any(step.startswith("after") for step in reached)


def test_the_token_is_on_the_disk_before_it_is_used(httpserver, registrar, monkeypatch):
    device = registrar(FakeCenter(httpserver), api="iot-center")
    seen = []
    real = CredentialStore.save

    def save(self, credentials):
        real(self, credentials)
        seen.append(device.target())

    monkeypatch.setattr(CredentialStore, "save", save)
    device.step()
    assert seen == [None]
    assert device.target()


def test_a_token_file_wiped_while_running_is_put_back_without_asking(httpserver, registrar, tmp_path):
    center = FakeCenter(httpserver)
    device = registrar(center, api="iot-center")
    device.step()
    before = stored(tmp_path)
    (tmp_path / "state" / "credentials.json").unlink()
    device.step()
    assert stored(tmp_path) == before
    assert len(center.requests) == 1


def test_the_whole_state_folder_wiped_while_running_is_put_back(httpserver, registrar, tmp_path):
    import shutil

    center = FakeCenter(httpserver)
    device = registrar(center, api="iot-center")
    device.step()
    before, secret = stored(tmp_path), secret_of(tmp_path)
    shutil.rmtree(tmp_path / "state")
    device.step()
    assert stored(tmp_path) == before
    assert secret_of(tmp_path) == secret


def test_a_token_file_damaged_while_running_is_set_aside_and_written_anew(httpserver, registrar, tmp_path):
    device = registrar(FakeCenter(httpserver), api="iot-center")
    device.step()
    before = stored(tmp_path)
    (tmp_path / "state" / "credentials.json").write_text("{")
    device.step()
    assert stored(tmp_path) == before
    assert (tmp_path / "state" / "credentials.json.damaged").exists()


def test_a_damaged_token_file_at_start_is_mended_by_registering_again(httpserver, registrar, tmp_path):
    center = FakeCenter(httpserver)
    registrar(center, api="iot-center").step()
    (tmp_path / "state" / "credentials.json").write_bytes(b"\0" * 300)
    again = registrar(center, api="iot-center")
    again.step()
    assert center.tokens["pi-7"] == [again.target().token.reveal()]


def test_a_lost_device_secret_locks_out_until_an_administrator_removes_the_device(
    httpserver, registrar, clock, tmp_path
):
    center = FakeCenter(httpserver)
    registrar(center, api="iot-center").step()
    for item in (tmp_path / "state").iterdir():
        item.unlink()
    device = registrar(center, api="iot-center")
    device.step()
    status = device.snapshot()
    assert status.state == "failing"
    assert "An administrator of the center must remove pi-7 there" in status.error
    center.secrets.clear()  # which they do
    center.tokens.clear()
    assert settle(device, clock).token.reveal() == center.tokens["pi-7"][0]


def test_a_lost_secret_beside_a_good_token_is_said_and_the_token_goes_on(httpserver, registrar, tmp_path, caplog):
    center = FakeCenter(httpserver)
    registrar(center, api="iot-center").step()
    (tmp_path / "state" / "device.secret").unlink()
    device = registrar(center, api="iot-center")
    device.step()
    assert device.target().token.reveal() in center.tokens["pi-7"]
    assert "an administrator of the center must remove pi-7" in caplog.text


def test_files_that_others_can_read_stop_registration_with_the_remedy_until_it_is_done(
    httpserver, registrar, clock, tmp_path
):
    center = FakeCenter(httpserver)
    registrar(center, api="iot-center").step()
    path = tmp_path / "state" / "credentials.json"
    path.chmod(0o644)
    device = registrar(center, api="iot-center")
    device.step()
    assert device.target() is None
    assert f"chmod 600 {path}" in device.snapshot().error
    path.chmod(0o600)
    assert settle(device, clock)
    assert len(center.requests) == 1


def test_a_folder_that_may_not_be_searched_is_said_until_it_may_be(httpserver, registrar, clock, tmp_path, monkeypatch):
    center = FakeCenter(httpserver)
    registrar(center, api="iot-center").step()
    device, folder = registrar(center, api="iot-center"), tmp_path / "state"
    with monkeypatch.context() as patched:
        hide(patched, folder)
        assert stored_remote(device._settings, "pi-7", folder) == RemoteConfiguration()
        device.step()
        said = f"{folder}/device.secret cannot be read (Permission denied): who owns it? See ls -l"
        assert said in device.snapshot().error
        assert device.target() is None
    assert settle(device, clock)
    assert device.snapshot().error is None
    assert len(center.requests) == 1


def test_a_file_opened_to_others_while_running_is_said_until_it_is_closed_again(httpserver, registrar, clock, tmp_path):
    center = FakeCenter(httpserver)
    device = registrar(center, api="iot-center")
    device.step()
    target = device.target()
    path = tmp_path / "state" / "credentials.json"
    path.chmod(0o644)
    os.utime(path, ns=(1, 1))
    device.step()
    assert f"chmod 600 {path}" in device.snapshot().error
    assert device.target() == target
    path.chmod(0o600)
    device.step()
    assert device.snapshot().state == "registered"
    assert device.snapshot().error is None
    assert len(center.requests) == 1


def test_a_file_that_others_could_read_and_that_is_removed_is_put_back_and_no_failure_any_more(
    httpserver, registrar, tmp_path
):
    center = FakeCenter(httpserver)
    device = registrar(center, api="iot-center")
    device.step()
    path = tmp_path / "state" / "credentials.json"
    path.chmod(0o644)
    os.utime(path, ns=(1, 1))
    device.step()
    assert device.snapshot().state == "failing"
    path.unlink()
    device.step()
    assert stored(tmp_path)["token"] == device.target().token.reveal()
    assert (device.snapshot().state, device.snapshot().error) == ("registered", None)
    assert len(center.requests) == 1


def test_a_folder_that_may_not_be_searched_for_a_while_is_said_only_so_long(
    httpserver, registrar, tmp_path, monkeypatch
):
    device = registrar(FakeCenter(httpserver), api="iot-center")
    device.step()
    target = device.target()
    with monkeypatch.context() as patched:
        hide(patched, tmp_path / "state")
        device.step()
        assert "device.secret cannot be read (Permission denied)" in device.snapshot().error
        assert device.target() == target
    device.step()
    assert (device.snapshot().state, device.snapshot().error) == ("registered", None)


def test_a_token_that_cannot_be_stored_is_used_and_stored_when_the_disk_is_back(
    httpserver, registrar, tmp_path, monkeypatch, caplog
):
    center = FakeCenter(httpserver)
    CredentialStore(tmp_path / "state").device_secret()

    def full(self, _):
        raise CredentialsError(f"{self.path} cannot be written")

    with monkeypatch.context() as patched:
        patched.setattr(CredentialStore, "save", full)
        device = registrar(center, api="iot-center")
        device.step()
        device.step()
        assert device.target().token.reveal() in center.tokens["pi-7"]
        assert caplog.text.count("is used but not kept") == 1
    device.step()
    assert stored(tmp_path)["token"] == device.target().token.reveal()


def test_a_device_secret_that_cannot_be_stored_is_never_registered_with(httpserver, registrar, monkeypatch):
    center = FakeCenter(httpserver)

    def full(*_):
        raise OSError(28, "No space left on device")

    monkeypatch.setattr(os, "fsync", full)
    device = registrar(center, api="iot-center")
    device.step()
    assert center.requests == []
    assert "No space left" in device.snapshot().error


def test_what_another_command_stored_is_taken_up_while_running(httpserver, registrar, tmp_path):
    center = FakeCenter(httpserver)
    device, command = registrar(center, api="iot-center"), registrar(center, api="iot-center")
    device.step()
    old = device.target().token
    command.step()
    command.renew()
    CredentialStore(tmp_path / "state").forget()
    registrar(center, api="iot-center").step()  # as `register --force` does
    device.step()
    assert device.target().token != old
    assert device.target().token == Secret(center.tokens["pi-7"][0])


def test_another_center_or_id_in_the_settings_registers_anew(httpserver, registrar):
    center = FakeCenter(httpserver)
    registrar(center, api="iot-center").step()
    other = registrar(center, "pi-8", api="iot-center")
    other.step()
    assert other.target().token.reveal() == center.tokens["pi-8"][0]


def test_another_process_that_registers_just_now_is_waited_for(httpserver, registrar, clock, tmp_path):
    device = registrar(FakeCenter(httpserver), api="iot-center")
    with CredentialStore(tmp_path / "state").exclusive():
        device.step()
    assert "another process is registering" in device.snapshot().error
    assert settle(device, clock)
