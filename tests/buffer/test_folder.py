"""The buffer's folder: what it is made of, what stays of what was set aside, and who holds it."""

import os

import pytest

from agent.buffer import folder as folders


def sets(folder):
    return [(home.name, (home / folders.UNREAD).exists()) for home in folders.damaged_sets(folder)]


def put_aside(folder, *names, size=10, limit=1000):
    for name in names:
        (folder / name).write_bytes(b"x" * size)
    return folders.set_aside(folder, ("one", "two"), limit)


def test_files_that_are_set_aside_go_together_unread_and_for_their_owner_only(tmp_path):
    (tmp_path / "other").write_text("stays")
    home = put_aside(tmp_path, "one", "two")
    assert (home, sets(tmp_path)) == (tmp_path / folders.DAMAGED / "1", [("1", True)])
    assert sorted(path.name for path in home.iterdir()) == ["one", "two", folders.UNREAD]
    assert [oct((home / name).stat().st_mode & 0o777) for name in ("one", "two")] == ["0o600"] * 2
    assert oct((tmp_path / folders.DAMAGED).stat().st_mode & 0o777) == "0o700"
    assert sorted(path.name for path in tmp_path.iterdir()) == [folders.DAMAGED, "other"]
    assert folders.set_aside(tmp_path, ("one", "two"), 1000) is None


def test_what_a_power_cut_left_of_a_set_follows_the_first_of_its_files(tmp_path):
    home = put_aside(tmp_path, "one")
    assert put_aside(tmp_path, "two") == home
    assert put_aside(tmp_path, "two").name == "2"  # it has one by now
    assert put_aside(tmp_path, "one", "two").name == "3"
    folders.mark_read(tmp_path / folders.DAMAGED / "3")
    assert put_aside(tmp_path, "two").name == "4"  # nothing joins what was read


def test_what_is_no_file_is_named_so_and_set_aside(tmp_path):
    (tmp_path / "one").symlink_to(tmp_path / "nowhere")
    (tmp_path / "two").mkdir()
    home = folders.set_aside(tmp_path, ("one", "two"), 1000)
    assert sorted(path.name for path in home.iterdir()) == ["one.no-file", "two.no-file", folders.UNREAD]


def test_a_file_in_the_place_of_the_folder_of_sets_makes_room(tmp_path):
    (tmp_path / folders.DAMAGED).write_text("x")
    assert put_aside(tmp_path, "one").is_dir()


def test_of_what_was_set_aside_the_newest_three_stay_and_all_that_is_not_read(tmp_path):
    for number in range(1, 5):
        put_aside(tmp_path, "one", "two")
        if number > 1:
            folders.mark_read(tmp_path / folders.DAMAGED / str(number))
    assert sets(tmp_path) == [("1", True), ("3", False), ("4", False)]
    put_aside(tmp_path, "one", "two")
    assert [name for name, _ in sets(tmp_path)] == ["1", "4", "5"]


def test_of_what_was_set_aside_no_more_stays_than_so_many_bytes_and_the_newest(tmp_path):
    for number in range(1, 4):
        folders.mark_read(put_aside(tmp_path, "one", "two", limit=60))
        assert len(sets(tmp_path)) == number
    folders.bound(tmp_path, 59)
    assert [name for name, _ in sets(tmp_path)] == ["2", "3"]
    folders.bound(tmp_path, 0)
    assert [name for name, _ in sets(tmp_path)] == ["3"]


def test_sets_are_numbered_and_nothing_else_is_one(tmp_path):
    for name in ("9", "10", "row-7", "x"):
        (tmp_path / folders.DAMAGED / name).mkdir(parents=True)
    assert [home.name for home in folders.damaged_sets(tmp_path)] == ["9", "10"]
    assert put_aside(tmp_path, "one").name == "11"


def test_of_unreadable_rows_no_more_is_kept_than_so_many_bytes(tmp_path):
    for key in (1, 2, 3):
        folders.keep_row(tmp_path, key, b"x" * 50, limit=100)
    assert sorted(path.name for path in (tmp_path / folders.DAMAGED).iterdir()) == ["row-1", "row-2"]
    assert (tmp_path / folders.DAMAGED / "row-1").read_bytes() == b"x" * 50
    assert oct((tmp_path / folders.DAMAGED).stat().st_mode & 0o777) == "0o700"


class Free:
    """As the system tells how much room there is."""

    f_frsize = 1024

    def __init__(self, size):
        self.f_bavail = size // 1024


@pytest.mark.parametrize(("ballasts", "there"), [(5, True), (4, True), (3, False), (0, False)])
def test_the_ballast_is_put_where_there_is_ample_room_only(tmp_path, monkeypatch, ballasts, there):
    monkeypatch.setattr(os, "statvfs", lambda _: Free(ballasts * folders.BALLAST_BYTES))
    folders.fill_ballast(tmp_path)
    path = tmp_path / folders.BALLAST
    assert path.exists() is there
    if there:
        assert (path.stat().st_size, oct(path.stat().st_mode & 0o777)) == (folders.BALLAST_BYTES, "0o600")
        content = path.read_bytes()
        folders.fill_ballast(tmp_path)
        assert path.read_bytes() == content, "written once"
        path.write_bytes(b"cut short")
        folders.fill_ballast(tmp_path)
        assert path.stat().st_size == folders.BALLAST_BYTES
    assert folders.drop_ballast(tmp_path) is there
    assert not folders.drop_ballast(tmp_path)


def test_who_holds_a_folder_is_told_with_its_number_and_command(tmp_path):
    number = folders.lock(tmp_path)
    with pytest.raises(folders.AlreadyRunning, match=f"process {os.getpid()} .*python") as caught:
        folders.lock(tmp_path)
    assert caught.value.exit_code == 3
    os.close(number)
    assert folders.holder(tmp_path) == folders.holder(tmp_path / "nothing") == "another process"
    os.close(folders.lock(tmp_path))


def test_a_hold_follows_the_folder_that_stands_there_now(tmp_path):
    folder = tmp_path / "buffer"
    folders.make(folder)
    hold = folders.Hold(folder)
    hold.take()
    hold.take()
    folder.rename(tmp_path / "gone")
    folders.make(folder)
    hold.take()
    with pytest.raises(folders.AlreadyRunning):
        folders.lock(folder)
    os.close(folders.lock(tmp_path / "gone"))
    hold.release()
    hold.release()
    os.close(folders.lock(folder))


def test_a_folder_is_made_for_its_owner_only_and_what_stands_in_its_place_is_set_aside(tmp_path):
    folder = tmp_path / "above" / "buffer"
    folders.make(folder)
    assert [oct(path.stat().st_mode & 0o777) for path in (folder.parent, folder)] == ["0o700"] * 2
    folder.chmod(0o755)
    folders.make(folder)
    assert oct(folder.stat().st_mode & 0o777) == "0o700"
    for number in ("", "-2", "-3"):
        folder.rmdir()
        folder.write_text(f"a file {number}")
        folders.make(folder)
        assert folder.with_name(f"buffer.damaged{number}").read_text() == f"a file {number}"
    assert folder.is_dir()


@pytest.mark.parametrize("path", ["~/buffer", "$HOME/buffer"])
def test_a_path_that_would_become_another_one_is_refused(path):
    with pytest.raises(ValueError, match=r"must not contain \$NAME or begin with ~"):
        folders.make(folders.Path(path))
