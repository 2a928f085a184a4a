"""`iot-agent buffer date`."""

import datetime as dt

import pytest
from click.testing import CliRunner

from agent.buffer.buffer import open_buffer
from agent.cli import main
from agent.cli.buffer import parse_time
from agent.clock import manual_times
from agent.clock.backdating import Dating
from agent.clock.boots import Boots
from agent.clock.sources import SECOND
from agent.config.settings import BufferSettings
from agent.points.schema import Line
from agent.util.errors import AgentError
from tests.clock_world import World

BOOT_A, BOOT_B = "aaaa1111-0000-4000-8000-000000000000", "bbbb2222-0000-4000-8000-000000000000"


def a_boot_without_time(tmp_path, boot_id, seconds):
    world = World(boot_id=boot_id, boot_ns=100 * SECOND)
    clock = world.clock(tmp_path)
    buffer = open_buffer(tmp_path / "buffer", BufferSettings(), clock)
    for _ in range(seconds):
        buffer.put([Line(b"environment,device=a Temperature=20", world.boot_ns)])
        world.wait(SECOND)
    buffer.close()


@pytest.fixture
def state(tmp_path):
    a_boot_without_time(tmp_path, BOOT_A, 5)
    a_boot_without_time(tmp_path, BOOT_B, 3)
    return tmp_path


def run(state, *arguments):
    return CliRunner().invoke(main, ["buffer", "date", *arguments, "--state-dir", str(state)])


def test_without_options_the_boots_that_wait_are_listed_oldest_first(state):
    result = run(state)
    assert result.exit_code == 0
    assert result.output.splitlines() == [
        "1  aaaa1111  5 points, taken 0:01:40 to 0:01:44 after that boot began",
        "2  bbbb2222  3 points, taken 0:01:40 to 0:01:42 after that boot began",
    ]


@pytest.mark.parametrize("boot", ["2", "bbbb"])
def test_a_boot_gets_the_time_that_a_person_knows_and_the_next_run_delivers_it(state, boot):
    result = run(state, "--boot", boot, "--at", "2026-05-01T10:00:00+02:00")
    assert result.exit_code == 0, result.output
    assert result.output.startswith("3 points will be dated from ")
    clock = World(boot_id="cccc").clock(state)
    buffer = open_buffer(state / "buffer", BufferSettings(), clock)
    Dating(clock, buffer, "hold").apply()
    buffer.commit_all()
    batch = buffer.take_backlog(100)
    began = round(dt.datetime(2026, 5, 1, 8, tzinfo=dt.UTC).timestamp()) * SECOND
    assert batch.lines() == [
        b"environment,device=a,clock=estimated Temperature=20 %d" % (began + (100 + s) * SECOND) for s in range(3)
    ]
    assert [b.boot_id for b in buffer.undated()] == [BOOT_A]
    assert buffer.snapshot().unaccounted == 0
    buffer.close()


def test_nothing_waits_where_there_is_no_buffer(tmp_path):
    assert run(tmp_path).output == "no points of earlier boots wait for a time\n"


@pytest.mark.parametrize(
    ("arguments", "says"),
    [
        (("--boot", "3", "--at", "2026-05-01T10:00"), "--boot 3 is not one of 1 to 2"),
        (("--boot", "1", "--at", "noon"), "is not a time like 2026-05-01T10:30"),
        (("--boot", "1", "--at", "2999-01-01T00:00"), "is in the future"),
        (("--boot", "1", "--at", "1999-01-01T00:00"), "is before 2020"),
    ],
)
def test_what_cannot_be_is_refused_in_one_line(state, arguments, says):
    result = run(state, *arguments)
    assert result.exit_code == 1
    assert says in result.output
    assert manual_times.read(state) == {}


def test_boot_and_time_go_together(state):
    assert run(state, "--boot", "1").exit_code == 2


def test_a_time_without_a_zone_is_local():
    assert parse_time("2026-05-01T10:00") == round(dt.datetime(2026, 5, 1, 10).astimezone().timestamp()) * SECOND
    with pytest.raises(AgentError):
        parse_time("")


def test_the_present_boot_is_not_listed(tmp_path, monkeypatch):
    a_boot_without_time(tmp_path, BOOT_A, 5)
    monkeypatch.setattr("agent.cli.buffer.current_boot_id", lambda: BOOT_A)
    assert run(tmp_path).output == "no points of earlier boots wait for a time\n"
    assert Boots(tmp_path, BOOT_A).order()[-1].id == BOOT_A
