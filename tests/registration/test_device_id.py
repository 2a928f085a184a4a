"""Who the device is: named, or derived once from the board; and what an id may hold."""

import os
import re
import stat
from pathlib import Path
from urllib.parse import quote, unquote, urlsplit

import pytest
from hypothesis import given
from hypothesis import strategies as st
from line_protocol_parser import parse_line

from agent.config.limits import check_id
from agent.points.schema import line_for
from agent.registration.device_id import derive, device_id, state_folder_warning
from center.stores.registry import check_device_id
from tests.unsearchable import hide

IDS = st.from_regex(r"[A-Za-z0-9._-]{1,64}", fullmatch=True).filter(lambda text: text not in (".", ".."))


@pytest.fixture
def board(tmp_path):
    serial, machine = tmp_path / "serial", tmp_path / "machine-id"
    serial.write_bytes(b"10000000abcdef01\0")
    machine.write_bytes(b"0123456789abcdef0123456789abcdef\n")
    return [serial, machine]


def test_a_folder_that_may_not_be_searched_is_no_reason_to_have_no_id(tmp_path, board, monkeypatch, caplog):
    hide(monkeypatch, tmp_path / "state")
    assert device_id(None, tmp_path / "state", board_files=board) == derive(board)
    assert "device.id is not usable ([Errno 13] Permission denied" in caplog.text


@pytest.mark.timeout(10)
def test_promise_3_a_pipe_in_the_place_of_the_kept_id_is_not_waited_for(tmp_path, board):
    os.mkfifo(tmp_path / "device.id")
    assert device_id(None, tmp_path, board_files=board) == derive(board)


def test_promise_7_a_link_in_the_place_of_the_kept_id_tells_nothing_of_another_file(tmp_path, board, caplog):
    """The id is sent: what a link leads to would be."""
    (tmp_path / "other").write_text("somebody-elses")
    (tmp_path / "device.id").symlink_to(tmp_path / "other")
    assert device_id(None, tmp_path, board_files=board) == derive(board)
    assert "device.id is not usable ([Errno 40] a link, not a file" in caplog.text
    assert (tmp_path / "other").read_text() == "somebody-elses"
    assert stat.S_IMODE((tmp_path / "device.id").lstat().st_mode) == 0o600


def test_promise_3_a_folder_in_the_place_of_the_kept_id_is_set_aside_so_that_the_id_stays_the_same(tmp_path):
    """A board without a number has a random one: what is not kept would be another device after each start."""
    (tmp_path / "device.id").mkdir()
    assert device_id(None, tmp_path, board_files=[]) == device_id(None, tmp_path, board_files=[])
    assert (tmp_path / "device.id.damaged").is_dir()


def test_the_configured_id_wins(tmp_path, board):
    assert device_id("greenhouse-3", tmp_path, board_files=board) == "greenhouse-3"
    assert not (tmp_path / "device.id").exists()


def test_a_derived_id_stays_the_same_when_the_card_moves_to_another_board(tmp_path, board):
    first = device_id(None, tmp_path, board_files=board)
    board[0].write_bytes(b"2000000099999999\0")
    assert device_id(None, tmp_path, board_files=board) == first


def test_a_derived_id_shows_neither_serial_nor_machine_id(tmp_path, board):
    derived = device_id(None, tmp_path, board_files=board)
    assert re.fullmatch(r"device-[0-9a-f]{12}", derived)
    assert "abcdef01" not in derived
    assert derive(board[1:]) not in (derived, "device-0123456789ab")
    assert derive(board) == derived  # a new card in the same board: the same id


@pytest.mark.parametrize("raw", [b"", b"\0", b"0000000000000000\0", b"uninitialized\n"])
def test_a_board_without_a_number_falls_to_the_next_source(tmp_path, board, raw):
    board[0].write_bytes(raw)
    assert derive(board) == derive(board[1:])


def test_without_any_number_the_id_is_random_and_kept(tmp_path):
    first = device_id(None, tmp_path, board_files=[])
    assert device_id(None, tmp_path, board_files=[]) == first
    assert derive([]) != derive([])


@pytest.mark.parametrize("content", [b"", b"\xff\xff", b"no id at all", b"../../etc", b"\0" * 100])
def test_a_damaged_id_file_is_derived_again(tmp_path, board, content, caplog):
    first = device_id(None, tmp_path, board_files=board)
    (tmp_path / "device.id").write_bytes(content)
    assert device_id(None, tmp_path, board_files=board) == first
    assert "derived again" in caplog.text


def test_a_folder_that_cannot_be_written_does_not_keep_the_agent_from_starting(tmp_path, board, caplog):
    blocked = tmp_path / "file"
    blocked.write_text("not a folder")
    assert device_id(None, blocked / "state", board_files=board) == derive(board)
    assert "could not be kept" in caplog.text


BAD = ["", ".", "..", "a b", "a/b", "a\n", "ä", "a" * 65, "a,b", "a=b", "a%2Fb", "a\0", "a\\"]


@pytest.mark.parametrize("text", BAD)
def test_what_is_no_id_is_a_clear_error(tmp_path, text):
    with pytest.raises(ValueError, match="no device id: 1 to 64 of"):
        check_id(text)
    with pytest.raises(ValueError, match="no device id"):
        device_id(text, tmp_path)


@given(st.one_of(st.text(max_size=70), IDS))
def test_configuration_agent_and_center_agree_on_what_an_id_is(text):
    try:
        check_id(text)
    except ValueError:
        with pytest.raises(ValueError):
            check_device_id(text)
    else:
        assert check_device_id(text) == text


@given(IDS)
def test_an_id_is_one_path_segment_and_one_tag_value(text):
    url = urlsplit(f"http://c:5000/api/devices/{quote(text, safe='')}")
    assert unquote(url.path).split("/") == ["", "api", "devices", text]
    assert not url.query
    line = line_for(text, "bme280", {"Temperature": 21.5}, boot_ns=1, time_ns=1).encode().decode()
    assert parse_line(line)["tags"]["clientId"] == text


PRINTABLE = st.text(st.characters(exclude_categories=("C", "Z"), include_characters=' ,="\\'), min_size=1, max_size=40)


@given(PRINTABLE)
def test_a_sensors_name_comes_out_of_the_line_as_it_went_in_or_is_refused(text):
    try:
        line = line_for("pi", "bme280", {"Temperature": 21.5}, boot_ns=1, time_ns=1, sensor_name=text).encode()
    except ValueError:
        assert text.endswith("\\")
        return
    parsed = parse_line(line.decode())
    assert parsed["tags"]["sensor"] == text
    assert parsed["fields"] == {"Temperature": 21.5}
    assert parsed["time"] == 1


def mounts(tmp_path, kind):
    """A listing in which the file system of `tmp_path` is of this kind, and others are not."""
    device, path = tmp_path.stat().st_dev, tmp_path / "mountinfo"
    ours, other = f"{os.major(device)}:{os.minor(device)}", "4095:1"
    lines = [(other, "ext4"), (ours, kind), (other, "tmpfs")]
    path.write_text("".join(f"{i} 1 {d} / /m rw,relatime shared:1 - {k} none rw\n" for i, (d, k) in enumerate(lines)))
    return path


def test_a_state_folder_that_a_restart_empties_is_warned_about(tmp_path):
    for kind in ("tmpfs", "overlay", "ramfs"):
        warning = state_folder_warning(tmp_path, mounts(tmp_path, kind))
        assert kind in warning
        assert str(tmp_path) in warning
    assert state_folder_warning(tmp_path, mounts(tmp_path, "ext4")) is None
    assert state_folder_warning(tmp_path, tmp_path / "none") is None


@pytest.mark.skipif(not Path("/proc/self/mountinfo").exists(), reason="needs Linux's /proc")
def test_the_kernels_own_listing_is_understood(monkeypatch):
    shown = Path("/proc")
    monkeypatch.setattr("agent.registration.device_id._VOLATILE", ("proc",))
    assert "is on a proc" in state_folder_warning(shown)
