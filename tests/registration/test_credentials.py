"""The token and the device secret at rest: private, whole or not there, put back, never shown."""

import json
import logging
import os
import pickle
import re
import stat
import tarfile
from pathlib import Path

import pytest
from hypothesis import given
from hypothesis import strategies as st

from agent.config.settings import Location
from agent.registration.credentials import Credentials, CredentialStore, HeldError
from agent.registration.remote_config import RemoteConfiguration
from agent.registration.secret_files import CredentialsError, read_secret_file
from agent.util import atomic
from agent.util.atomic import sweep_temporaries, write_atomic
from agent.util.secret import Secret

TOKEN = "k1m6Jb4Cc00pR7la70BVXRZMVvd_dLv-g6BLW_q2D35C=="


def credentials(**changes):
    fields = {
        "center": "http://c:5000",
        "device_id": "pi-7",
        "dialect": "iot-center",
        "token": Secret(TOKEN),
        "url": "http://db:8086",
        "org": "my-org",
        "bucket": "sly's Bucket",
        "remote": RemoteConfiguration(measurement_interval=60.0, location=Location(50.0, 14.0)),
    }
    return Credentials(**fields | changes)


@pytest.fixture
def store(tmp_path):
    return CredentialStore(tmp_path / "state")


def test_what_is_saved_is_loaded(store):
    store.save(credentials())
    assert store.load() == credentials()
    store.save(credentials(url=None, org=None, bucket=None, remote=RemoteConfiguration()))
    assert store.load().url is None


def test_credentials_of_the_first_version_are_loaded(store):
    store.folder.mkdir(mode=0o700)
    with tarfile.open(Path(__file__).parents[1] / "data" / "state-0.1.0.tar.gz") as archive:
        store.path.write_bytes(archive.extractfile("state/credentials.json").read())
    store.path.chmod(0o600)
    found = store.load()
    assert (found.device_id, found.dialect, found.bucket) == ("pi-7", "iot-center", "iot_center")
    assert found.remote == RemoteConfiguration(measurement_interval=10.0, configuration_refresh=3600.0)
    before = json.loads(store.path.read_bytes())
    del before["key"]  # nobody read it
    assert json.loads(found.encode()) == before


def test_files_and_folder_are_private_whatever_the_umask(store):
    old = os.umask(0)
    try:
        store.save(credentials())
        store.device_secret()
    finally:
        os.umask(old)
    assert stat.S_IMODE(store.path.stat().st_mode) == 0o600
    assert stat.S_IMODE(store.secret_path.stat().st_mode) == 0o600
    assert stat.S_IMODE(store.folder.stat().st_mode) == 0o700


def test_the_device_secret_is_made_once_and_kept(store):
    first = store.device_secret()
    assert CredentialStore(store.folder).device_secret() == first
    assert len(first.reveal()) >= 43  # 256 bits


@pytest.mark.parametrize("mode", [0o640, 0o604, 0o666])
def test_files_that_others_can_read_are_refused_with_the_remedy(store, mode):
    store.save(credentials())
    store.device_secret()
    for path, use in ((store.path, store.load), (store.secret_path, store.device_secret)):
        path.chmod(mode)
        with pytest.raises(CredentialsError, match=f"chmod 600 {re.escape(str(path))}"):
            use()
        path.chmod(0o600)
        assert use()


DAMAGE = {
    "empty": b"",
    "zeros": b"\0" * 512,
    "cut": credentials().encode()[:100],
    "list": b"[]",
    "token gone": json.dumps(json.loads(credentials().encode()) | {"token": ""}).encode(),
    "token wrong": json.dumps(json.loads(credentials().encode()) | {"token": "a b"}).encode(),
    "token a number": json.dumps(json.loads(credentials().encode()) | {"token": 5}).encode(),
    "url a number": json.dumps(json.loads(credentials().encode()) | {"url": 5}).encode(),
    "remote a string": json.dumps(json.loads(credentials().encode()) | {"remote": "x"}).encode(),
    "bad utf-8": b"\xff\xfe{}",
    "deep": b"[" * 50_000,
}


@pytest.mark.parametrize("damage", DAMAGE)
def test_a_damaged_credentials_file_is_set_aside_and_kept(store, damage, caplog):
    store.save(credentials())
    store.path.write_bytes(DAMAGE[damage])
    assert store.load() is None
    assert not store.path.exists()
    assert store.path.with_name("credentials.json.damaged").read_bytes() == DAMAGE[damage]
    assert "set aside" in caplog.text
    assert TOKEN not in caplog.text


@given(st.binary(max_size=300))
def test_no_bytes_in_the_file_keep_the_agent_from_starting(tmp_path_factory, data):
    store = CredentialStore(tmp_path_factory.mktemp("state"))
    write_atomic(store.path, data)
    write_atomic(store.secret_path, data)
    store.load()
    assert store.device_secret()


def test_a_damaged_device_secret_is_set_aside_and_a_new_one_made(store):
    store.device_secret()
    store.secret_path.write_bytes(b"\0\0\0")
    fresh = CredentialStore(store.folder)
    assert fresh.device_secret()
    assert store.secret_path.with_name("device.secret.damaged").exists()


def test_a_device_secret_wiped_while_running_is_put_back(store):
    secret = store.device_secret()
    store.secret_path.unlink()
    assert not store.secret_is_lost()
    assert CredentialStore(store.folder).device_secret() == secret


def a_link(path):
    path.symlink_to("/proc/self/mounts")


def a_link_to_a_good_one(path):
    """Of another device, where nobody else can read it."""
    other = CredentialStore(path.parent.parent / "other")
    other.device_secret()
    other.save(credentials(token=Secret("another-token")))
    path.symlink_to(other.folder / path.name)


def a_strangers(path):
    path.touch(0o600)
    path.write_bytes(b"A" * 43)
    os.chown(path, 12345, -1)


def too_large(path):
    path.touch(0o600)
    path.write_bytes(b"x" * 100_000)


@pytest.mark.parametrize(
    "make",
    [
        Path.mkdir,
        os.mkfifo,
        a_link,
        a_link_to_a_good_one,
        pytest.param(a_strangers, marks=pytest.mark.root),
        too_large,
    ],
)
def test_promise_3_what_is_no_file_of_ours_is_set_aside_however_often(store, make, caplog):
    store.folder.mkdir(exist_ok=True)
    for before in (None, Path.mkdir, Path.touch):
        for path in (store.path, store.secret_path):
            aside = path.with_name(f"{path.name}.damaged")
            if before is not None:
                atomic.remove(aside)
                before(aside)
            path.unlink(missing_ok=True)
            make(path)
        assert store.load() is None
        assert store.device_secret()
        store.save(credentials())
        assert store.load() == credentials()
        assert CredentialStore(store.folder).device_secret() == store.device_secret()
    assert caplog.text.count("set aside as device.secret.damaged") == 3
    assert "another-token" not in caplog.text


def test_a_secret_that_a_person_put_somewhere_may_be_behind_a_link(tmp_path):
    """As container platforms mount them."""
    (tmp_path / "..data").write_text("a-key\n")
    (tmp_path / "..data").chmod(0o640)
    (tmp_path / "key").symlink_to(tmp_path / "..data")
    assert read_secret_file(str(tmp_path / "key"), "unused") == Secret("a-key")


def test_a_disk_that_cannot_be_written_is_an_error_with_the_files_name(store, monkeypatch):
    def full(*_):
        raise OSError(28, "No space left on device")

    monkeypatch.setattr(os, "fsync", full)
    with pytest.raises(CredentialsError, match=r"credentials.json cannot be written \(No space left"):
        store.save(credentials())
    assert list(store.folder.iterdir()) == []  # nothing half written stays


def test_two_processes_never_register_at_once(store):
    with store.exclusive(), pytest.raises(HeldError), CredentialStore(store.folder).exclusive():
        pass
    with CredentialStore(store.folder).exclusive():
        pass


# -- atomic files


class Killed(BaseException):
    """The power goes: nothing after this runs, not even what cleans up."""


def power_cuts(monkeypatch, cut_at):
    """Stops at the n-th call that changes the disk. Returns the list of calls made."""
    calls = []

    def wrap(name):
        real = getattr(os, name)

        def call(*arguments, **options):
            calls.append(name)
            if len(calls) == cut_at:
                raise Killed
            return real(*arguments, **options)

        monkeypatch.setattr(atomic.os, name, call)

    for name in ("open", "write", "fchmod", "fsync", "replace"):
        wrap(name)
    return calls


def test_a_crash_at_any_step_of_writing_leaves_the_old_or_the_new_file_whole(tmp_path, monkeypatch):
    path, seen = tmp_path / "file", set()
    write_atomic(path, b"old")
    for cut_at in range(1, 20):
        with monkeypatch.context() as patched:
            calls = power_cuts(patched, cut_at)
            try:
                write_atomic(path, b"new")
            except Killed:
                seen.add((calls[-1], path.read_bytes()))
            else:
                break
        assert path.read_bytes() in (b"old", b"new")
        sweep_temporaries(path)
        assert [item.name for item in tmp_path.iterdir()] == ["file"]
        write_atomic(path, b"old")
    assert seen >= {("write", b"old"), ("fsync", b"old"), ("replace", b"old"), ("fsync", b"new")}


def test_a_file_is_synced_before_it_is_renamed_and_its_folder_after(tmp_path, monkeypatch):
    calls = power_cuts(monkeypatch, 0)
    write_atomic(tmp_path / "file", b"data")
    assert calls == ["open", "fchmod", "write", "fsync", "replace", "open", "fsync"]


# -- secrets that people put in files


def test_a_token_file_may_be_read_by_its_group_but_not_by_everybody(tmp_path):
    path = tmp_path / "token"
    path.write_text(f"{TOKEN}\n")
    path.chmod(0o640)
    assert read_secret_file(str(path), "x", {}) == Secret(TOKEN)
    path.chmod(0o644)
    with pytest.raises(CredentialsError, match="chmod o-rwx"):
        read_secret_file(str(path), "x", {})


def test_a_credential_of_systemd_is_found_by_its_name(tmp_path):
    path = tmp_path / "influxdb.token"
    path.write_text(TOKEN)
    path.chmod(0o440)
    environ = {"CREDENTIALS_DIRECTORY": str(tmp_path)}
    assert read_secret_file(None, "influxdb.token", environ) == Secret(TOKEN)
    assert read_secret_file(None, "enrollment.key", environ) is None
    assert read_secret_file(None, "influxdb.token", {}) is None


@pytest.mark.parametrize("content", [b"", b"\n", b"two lines\nof it", b"a b", b"\xff\xfe", b"t\0", b"x" * 70_000])
def test_a_file_that_holds_no_secret_is_named_and_not_quoted(tmp_path, content):
    path = tmp_path / "token"
    path.write_bytes(content)
    path.chmod(0o600)
    with pytest.raises(CredentialsError, match=str(path)) as caught:
        read_secret_file(str(path), "x", {})
    assert "two lines" not in str(caught.value)


@pytest.mark.parametrize("name", ["none", "no\0ne"])
def test_a_missing_token_file_says_what_to_do(tmp_path, name):
    with pytest.raises(CredentialsError, match="is not there: put the secret in it"):
        read_secret_file(str(tmp_path / name), "x", {})


# -- the type


def test_promise_7_a_secret_shows_in_no_repr_format_json_or_pickle(caplog):
    secret = Secret(TOKEN)
    record = credentials()
    logging.getLogger("t").warning("%s %r %s", secret, record, [secret])
    shown = [repr(secret), str(secret), f"{secret}", f"{secret!r:>40}", repr(record), caplog.text, repr({"t": secret})]
    assert not any(TOKEN in text for text in shown)
    with pytest.raises(TypeError):
        json.dumps(secret)
    assert json.dumps(secret, default=str) == '"***"'
    with pytest.raises(TypeError):
        pickle.dumps(secret)


def test_a_disk_that_refuses_even_the_lock_does_not_stop_a_renewal(store, monkeypatch):
    def read_only(*_, **__):
        raise OSError(30, "Read-only file system")

    monkeypatch.setattr(os, "open", read_only)
    entered = False
    with store.exclusive():
        entered = True
    assert entered
