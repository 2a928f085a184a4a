"""What is kept of boots: the form of the file, its limits, and a disk that fails."""

import ctypes
import json
import os
import sys
import uuid
from dataclasses import replace
from types import SimpleNamespace

import pytest

from agent.clock.boots import FILE, Boot, Boots, current_boot_id
from agent.util.checked import seal
from tests.clock_world import HOUR, NOW_NS

NUMBERS = (
    "offset_ns",
    "error_ns",
    "since_boot_ns",
    "saved_boot_ns",
    "until_boot_ns",
    "given_ns",
    "first_offset_ns",
    "first_error_ns",
    "placed_ns",
    "first_lane",
    "lane",
)
UNKNOWN = {"id": "a", "evidence": None} | dict.fromkeys(NUMBERS, 0)
GOOD = Boot("a", "kernel", NOW_NS, saved_boot_ns=HOUR, given_ns=NOW_NS + HOUR, first_offset_ns=NOW_NS)


def left(folder, *boots, **more):
    """A file as an earlier run has left it."""
    (folder / FILE).write_bytes(seal({"version": 2, "boots": boots, "lanes": {}} | more))


def saved(folder):
    return json.loads((folder / FILE).read_text())


def test_of_a_boot_whose_time_was_never_known_the_file_has_its_id_and_zeros(tmp_path):
    Boots(tmp_path, "a").begin()
    assert saved(tmp_path)["boots"] == [UNKNOWN]
    left(tmp_path, UNKNOWN)
    assert Boots(tmp_path, "a").order() == (Boot("a"),)


@pytest.mark.parametrize("name", NUMBERS)
def test_a_number_that_no_time_can_be_makes_a_damaged_file(tmp_path, name):
    for number in (2**63 - 1, 1 - 2**63):
        left(tmp_path, UNKNOWN | {name: number})
        assert getattr(Boots(tmp_path, "a").order()[0], name) == number
    for number in (2**63, -(2**63), 2**64, 1.5, True, None):
        left(tmp_path, UNKNOWN | {name: number})
        assert Boots(tmp_path, "b").order() == (Boot("b"),)
        assert (tmp_path / f"{FILE}.damaged").exists()


@pytest.mark.parametrize(
    "content",
    [
        {"boots": [UNKNOWN | {"evidence": "moon"}]},
        {"boots": [UNKNOWN | {"id": 7}]},
        {"boots": [UNKNOWN], "lanes": {"first": 1}},
        {"boots": [UNKNOWN], "lanes": {"1": None}},
        {"boots": [UNKNOWN], "lanes": [1]},
        {"lanes": {}},
        {"boots": 7},
    ],
)
def test_a_file_with_something_else_in_it_is_set_aside(tmp_path, content):
    (tmp_path / FILE).write_bytes(seal({"version": 2} | content))
    assert Boots(tmp_path, "b").order() == (Boot("b"),)
    assert (tmp_path / f"{FILE}.damaged").exists()
    assert not (tmp_path / FILE).exists()


def test_the_latest_512_boots_are_kept(tmp_path):
    names = [f"boot-{n}" for n in range(600)]
    left(tmp_path, *(UNKNOWN | {"id": name} for name in names))
    boots = Boots(tmp_path, "now")
    assert [b.id for b in boots.order()] == [*names[-512:], "now"]
    boots.begin()
    assert [b["id"] for b in saved(tmp_path)["boots"]] == [*names[-511:], "now"]


def test_a_disk_that_fails_again_is_told_again(tmp_path, caplog):
    folder = tmp_path / "state"
    boots = Boots(folder, "a")
    for said in (1, 1):
        boots.begin()
        assert caplog.text.count("cannot be written") == said
    folder.mkdir()
    boots.begin()
    (folder / FILE).unlink()
    boots.begin()
    assert not (folder / FILE).exists()  # it has been saved, and that is enough
    folder.rmdir()
    boots.remember(replace(GOOD, saved_boot_ns=HOUR))
    assert caplog.text.count("cannot be written") == 2
    folder.mkdir()
    boots.remember(GOOD)  # what failed is due, though nothing has changed
    assert saved(folder)["boots"][0]["evidence"] == "kernel"


def test_a_file_that_cannot_be_read_is_left_for_the_next_save(tmp_path, caplog, monkeypatch):
    left(tmp_path, UNKNOWN)

    def broken(*_, **__):
        raise OSError(5, "Input/output error")

    with monkeypatch.context() as patch:
        patch.setattr("agent.clock.boots.read_regular", broken)
        patch.setattr(os, "stat", broken)
        boots = Boots(tmp_path, "b")
    assert "cannot be read (Input/output error): earlier boots are not known" in caplog.text
    assert boots.order() == (Boot("b"),)
    assert (tmp_path / FILE).exists()
    boots.begin()
    assert [b["id"] for b in saved(tmp_path)["boots"]] == ["b"]


def test_a_damaged_file_that_cannot_be_moved_is_told_and_the_clock_starts(tmp_path, caplog, monkeypatch):
    (tmp_path / FILE).write_bytes(b"{")

    def refused(*_):
        raise OSError(30, "Read-only file system")

    monkeypatch.setattr("agent.clock.boots.set_aside", refused)
    assert Boots(tmp_path, "b").order() == (Boot("b"),)
    assert "cannot be moved: Read-only file system" in caplog.text


def test_without_a_folder_all_is_known_and_nothing_is_saved():
    boots = Boots(None, "a")
    boots.begin()
    boots.remember(GOOD)
    assert boots.order() == (replace(GOOD, until_boot_ns=HOUR + 900 * 10**9),)
    boots.close(GOOD)
    assert boots.order() == (replace(GOOD, until_boot_ns=HOUR),)


def test_a_boot_is_known_by_the_later_of_its_offset_and_what_points_were_given():
    for given_ns, until in ((NOW_NS + HOUR + 7, 7), (NOW_NS, 0)):
        known = replace(GOOD, until_boot_ns=2 * HOUR, given_ns=given_ns)
        assert known.known_until_ns == NOW_NS + 2 * HOUR + until


def test_lanes_that_ended_before_this_boot_became_good_are_free_again(tmp_path):
    boots = Boots(tmp_path, "a")
    boots.used(0, NOW_NS - 1)
    boots.used(1, NOW_NS)
    boots.remember(GOOD)
    assert saved(tmp_path)["lanes"] == {"1": NOW_NS}
    assert [boots.free_lane(at) for at in (NOW_NS - 1, NOW_NS, NOW_NS + 1)] == [0, 0, 0]
    boots.used(0, NOW_NS)
    assert [boots.free_lane(at) for at in (NOW_NS, NOW_NS + 1)] == [2, 0]
    assert Boots(tmp_path, "b").free_lane(NOW_NS + 2 * HOUR) == 0


def test_a_boot_without_a_time_takes_no_lane(tmp_path):
    Boots(tmp_path, "a").begin()
    boots = Boots(tmp_path, "b")
    assert boots.free_lane(-1) == 0
    boots.doubt("a")
    boots.forget(["a"])
    assert boots.free_lane(-1) == 0
    assert boots.known_ns == 1_767_225_600 * 10**9  # when this program was written


def test_where_earlier_boots_were_put_is_saved_and_only_what_changes(tmp_path):
    for name in ("a", "b"):
        Boots(tmp_path, name).begin()
    boots = Boots(tmp_path, "c")
    boots.place({"a": NOW_NS, "z": 7})
    assert [b["placed_ns"] for b in saved(tmp_path)["boots"]] == [NOW_NS, 0, 0]
    (tmp_path / FILE).unlink()
    boots.place({"a": NOW_NS})
    assert not (tmp_path / FILE).exists()


@pytest.mark.parametrize("fails", [False, True])
def test_macos_names_its_boot_by_a_sysctl(monkeypatch, fails):
    """Of Darwin's libc nothing is here but what it answers: 0 and the text, or -1."""
    name = "2F3C4A5B-0000-4000-8000-0123456789AB"

    def sysctlbyname(key, text, size, new, new_size):
        room = ctypes.cast(size, ctypes.POINTER(ctypes.c_size_t)).contents.value
        assert (key, room >= len(name), new, new_size) == (b"kern.bootsessionuuid", True, None, 0)
        ctypes.memmove(text, name.encode(), len(name))
        return -1 if fails else 0

    monkeypatch.setattr(sys, "platform", "darwin")
    monkeypatch.setattr(ctypes, "CDLL", lambda _: SimpleNamespace(sysctlbyname=sysctlbyname))
    monkeypatch.setattr("agent.clock.boots._BOOT_ID", SimpleNamespace(read_text=lambda: ""))
    found = uuid.UUID(current_boot_id())
    assert (str(found) == name.lower()) == (not fails)
