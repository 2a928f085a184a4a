"""The state folder: nobody else can put files there that the agent takes for its own."""

import os
import stat

import pytest

from agent.buffer import folder as folders
from agent.clock import boots, manual_times
from agent.config.parse import parse_settings
from agent.registration.credentials import CREDENTIALS_FILE, LOCK_FILE, SECRET_FILE, CredentialStore
from agent.registration.device_id import ID_FILE, derive
from agent.service import Service
from agent.util.atomic import read_regular
from agent.util.errors import AgentError
from agent.util.state_folder import prepare

STRANGER = 12345


def mode(path):
    return stat.S_IMODE(path.lstat().st_mode)


@pytest.mark.parametrize("bits", [0o777, 0o770, 0o702])
def test_promise_7_a_folder_that_others_can_write_to_is_closed(tmp_path, bits, caplog):
    folder = tmp_path / "state"
    folder.mkdir()
    folder.chmod(bits)
    prepare(folder)
    assert mode(folder) == 0o700
    assert "others could write to the state folder" in caplog.text


def test_a_folder_that_cannot_be_looked_at_is_a_sentence(tmp_path):
    with pytest.raises(AgentError, match="cannot be made"):
        prepare(tmp_path / ("x" * 300))


def test_promise_7_an_agent_closes_its_folder_and_reads_nothing_through_what_was_planted_there(tmp_path):
    """A folder of mode 0777, with links in the places of all that is read from it."""
    folder, other = tmp_path / "state", tmp_path / "somebodys-file"
    folder.mkdir()
    folder.chmod(0o777)
    other.write_text("somebody-elses")
    for name in (ID_FILE, boots.FILE, manual_times.FILE, CREDENTIALS_FILE, SECRET_FILE, LOCK_FILE):
        (folder / name).symlink_to(other)
    center = {"url": "http://127.0.0.1:9", "timeout": "100ms"}
    quiet = {"status": {"listen": ""}, "sensor": [{"driver": "virtual"}]}
    agent = Service(parse_settings({"center": center, **quiet}, "agent.toml", {}), folder)
    agent.start()
    try:
        assert mode(folder) == 0o700
        assert agent.device_id == derive()
        assert CredentialStore(folder).device_secret()
        assert mode(folder / ID_FILE) == 0o600
        assert not (folder / ID_FILE).is_symlink()
    finally:
        agent.stop()
    assert other.read_text() == "somebody-elses"


def test_a_new_folder_is_its_owners_alone_whatever_the_umask(tmp_path):
    old = os.umask(0)
    try:
        prepare(tmp_path / "new")
    finally:
        os.umask(old)
    assert mode(tmp_path / "new") == 0o700


def test_a_folder_that_others_can_only_look_into_stays_as_it_is(tmp_path):
    tmp_path.chmod(0o755)
    prepare(tmp_path)
    assert mode(tmp_path) == 0o755


def test_a_file_in_its_place_is_said_to_be_one(tmp_path):
    (tmp_path / "state").touch()
    with pytest.raises(AgentError, match=r"state is a file: name a folder with --state-dir"):
        prepare(tmp_path / "state")


def test_a_shared_folder_is_refused_and_stays_shared(tmp_path):
    tmp_path.chmod(0o1777)
    with pytest.raises(AgentError, match=r"others can write to the state folder .*drwxrwxrwt.*--state-dir"):
        prepare(tmp_path)
    assert mode(tmp_path) == 0o1777


@pytest.mark.root
def test_somebody_elses_folder_that_all_can_write_to_is_refused(tmp_path):
    tmp_path.chmod(0o777)
    os.chown(tmp_path, STRANGER, -1)
    with pytest.raises(AgentError, match="user 12345"):
        prepare(tmp_path)
    assert mode(tmp_path) == 0o777


@pytest.mark.root
def test_what_a_stranger_left_in_the_folder_is_not_read_and_what_its_owner_or_root_left_is(tmp_path):
    path = tmp_path / "file"
    path.write_bytes(b"content")
    for owner, of_folder, good in ((0, STRANGER, True), (STRANGER, STRANGER, True), (STRANGER, 0, False)):
        os.chown(path, owner, -1)
        os.chown(tmp_path, of_folder, -1)
        if good:
            assert read_regular(path) == b"content"
        else:
            with pytest.raises(OSError, match="a file of user 12345"):
                read_regular(path)


@pytest.mark.root
@pytest.mark.parametrize("planted", ["folder", "link"])
def test_a_buffer_that_a_stranger_planted_is_set_aside(tmp_path, planted):
    there, elsewhere = tmp_path / "buffer", tmp_path / "elsewhere"
    elsewhere.mkdir(mode=0o755)
    if planted == "link":
        there.symlink_to(elsewhere)
    else:
        there.mkdir()
    os.chown(there, STRANGER, -1, follow_symlinks=False)
    folders.make(there)
    assert (tmp_path / "buffer.damaged").lstat().st_uid == STRANGER
    assert there.lstat().st_uid == 0
    assert mode(there) == 0o700
    assert mode(elsewhere) == 0o755


def test_a_buffer_behind_a_link_of_ones_own_is_taken(tmp_path):
    """Somebody moved it to another disk."""
    (tmp_path / "disk").mkdir()
    (tmp_path / "buffer").symlink_to(tmp_path / "disk")
    folders.make(tmp_path / "buffer")
    assert (tmp_path / "buffer").is_symlink()
