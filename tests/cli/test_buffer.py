"""`iot-agent buffer` and `iot-agent rejected`, with and without a running agent."""

import csv
import io
import json
import os

import pytest
from click.testing import CliRunner

from agent.buffer.batch import DeadLetter, Part
from agent.cli.buffer import buffer as buffer_command
from agent.cli.rejected import rejected as rejected_command
from tests.buffers import UNIX_NS, HandClock, accounted, drain, measure, open_at

GOOD = b"environment,device=a Temperature=1.5 1700000000000000000"


@pytest.fixture
def state(tmp_path):
    return tmp_path / "state"


def run(command, state, *arguments, code=0):
    result = CliRunner().invoke(command, [arguments[0], "--state-dir", str(state), *arguments[1:]])
    assert result.exit_code == code, result.output
    return result.output


def lines_file(path, *lines):
    path.write_bytes(b"\n".join(lines) + b"\n")
    return str(path)


def with_points(state, count=5):
    clock = HandClock()
    buffer = open_at(state / "buffer", clock)
    measure(buffer, clock, count)
    buffer.close()
    return clock


def with_letters(state):
    clock = HandClock()
    buffer = open_at(state / "buffer", clock)
    measure(buffer, clock, 4)
    batch = buffer.take_live(10)
    first, second, third, fourth = batch.lines()
    dead = [
        DeadLetter(first, "parse", "unable to parse 'x': bad", UNIX_NS),
        DeadLetter(second, "type_conflict", "is type integer", UNIX_NS),
        DeadLetter(third, "type_conflict", "is type integer", UNIX_NS),
    ]
    buffer.replace(batch, [], dead, delivered=1)
    buffer.close()
    return first, second, third, fourth


def test_imported_points_are_delivered_by_the_running_agent(state, tmp_path):
    clock = HandClock()
    buffer = open_at(state / "buffer", clock)
    measure(buffer, clock, 3)
    buffer.commit_all()
    file = lines_file(tmp_path / "f.lp", GOOD, b"# a comment", b"", GOOD.replace(b"=a", b"=b"))
    assert "2 points imported" in run(buffer_command, state, "import", file)
    assert buffer.notice(), "the agent sees that another process wrote"
    assert buffer.snapshot().pending == 5
    accounted(buffer)
    measure(buffer, clock, 1)
    buffer.commit_all()
    assert len(drain(buffer)) == 6
    buffer.close()
    assert buffer.snapshot().counters.points.measured == 6


def test_the_agent_also_sees_an_import_that_came_right_before_its_own_commit(state, tmp_path):
    clock = HandClock()
    buffer = open_at(state / "buffer", clock)
    measure(buffer, clock, 3)
    run(buffer_command, state, "import", lines_file(tmp_path / "f.lp", GOOD))
    buffer.commit_all()
    assert buffer.snapshot().pending == 4
    accounted(buffer)
    buffer.close()


def test_bad_lines_are_reported_with_number_and_reason_and_the_rest_is_taken(state, tmp_path):
    bad = [
        (b"rubbish", "no field"),
        (b"environment,device=a Temperature=1.5", "no time"),
        (b"environment,device=a Temperature=1.5 1700000000", "--precision"),
        (b"environment,device=a,device=b Temperature=1.5 1700000000000000000", "given twice"),
        (b"environment,device= Temperature=1.5 1700000000000000000", "no field"),
        (b"environment,device=a Temperature=NaN 1700000000000000000", "no field"),
        (b"environment,device=a time=1 1700000000000000000", "named time"),
        (b"environment,device=a CO2=1.5i 1700000000000000000", "not an integer"),
        (b"environment,device=\xff CO2=1i 1700000000000000000", "not UTF-8"),
    ]
    output = run(buffer_command, state, "import", lines_file(tmp_path / "f", GOOD, *(b for b, _ in bad)), code=1)
    for number, (_, reason) in enumerate(bad, 2):
        (said,) = [text for text in output.splitlines() if text.startswith(f"line {number}:")]
        assert reason in said
    assert "1 point imported" in output


def test_a_bad_line_cannot_steer_the_terminal(state, tmp_path):
    output = run(buffer_command, state, "import", lines_file(tmp_path / "f", b"\x1b]0;owned\x07\x1b[2J"), code=1)
    assert "line 1" in output
    assert "\x1b" not in output
    assert "\x07" not in output


def test_a_dry_run_takes_nothing(state, tmp_path):
    run(buffer_command, state, "import", "--dry-run", lines_file(tmp_path / "f", GOOD))
    assert json.loads(run(buffer_command, state, "show", "--json"))["measured"] == 0


def test_seconds_are_taken_when_the_precision_says_so(state, tmp_path):
    run(buffer_command, state, "import", "--precision", "s", lines_file(tmp_path / "f", b"m a=1 1700000000"))
    assert run(buffer_command, state, "export") == "m a=1 1700000000000000000\n"


def test_show_says_what_waits_from_when_to_when(state):
    with_points(state)
    facts = json.loads(run(buffer_command, state, "show", "--json"))
    assert facts["waiting"]["pending"] == 5
    assert facts["oldest"] == "2023-11-14T22:30:00.000Z"
    assert facts["newest"] == "2023-11-14T22:30:04.000Z"
    assert "pending" in run(buffer_command, state, "show")


def test_what_waits_is_exported_as_lines_table_and_json(state):
    with_points(state)
    since = ("--since", "2023-11-14T22:30:02Z")
    assert len(run(buffer_command, state, "export").splitlines()) == 5
    assert len(run(buffer_command, state, "export", *since).splitlines()) == 3
    table = list(csv.DictReader(io.StringIO(run(buffer_command, state, "export", "--format", "csv", *since))))
    assert table[0] == {
        "time": "2023-11-14T22:30:02.000Z",
        "measurement": "environment",
        "clientId": "pi-1",
        "device": "pi-1",
        "Temperature": "2.0",
    }
    rows = [json.loads(text) for text in run(buffer_command, state, "export", "--format", "jsonl").splitlines()]
    assert rows[0]["fields"] == {"Temperature": 0.0}
    assert rows[0]["tags"] == {"clientId": "pi-1", "device": "pi-1"}


def test_without_a_buffer_it_says_so_in_one_line(state):
    assert "there is no buffer in" in run(buffer_command, state, "show", code=1)
    assert "there is no buffer in" in run(rejected_command, state, "list", code=1)


def test_a_damaged_buffer_is_left_to_the_agent(state):
    (state / "buffer").mkdir(parents=True)
    (state / "buffer" / "cache.db").write_bytes(b"x" * 5000)
    assert "starting the agent repairs" in run(buffer_command, state, "show", code=1)


def test_refused_points_are_listed_by_reason_and_shown_in_full(state):
    first, second, _, _ = with_letters(state)
    rows = json.loads(run(rejected_command, state, "list", "--json"))
    assert [(r["reason"], r["points"]) for r in rows] == [("parse", 1), ("type_conflict", 2)]
    assert "type_conflict" in run(rejected_command, state, "list")
    shown = run(rejected_command, state, "show", "1.2")
    assert second.decode() in shown
    assert first.decode() not in shown
    assert len(run(rejected_command, state, "export").splitlines()) == 3
    assert json.loads(run(rejected_command, state, "export", "--format", "jsonl", "1.1"))["line"] == first.decode()


def test_promise_2_refused_points_are_delivered_once_their_cause_is_mended(state):
    _, second, third, _ = with_letters(state)
    assert "2 points to be delivered again" in run(rejected_command, state, "replay", "--reason", "type_conflict")
    buffer = open_at(state / "buffer")
    accounted(buffer)
    assert buffer.snapshot().counters.points.rejected == 1
    assert buffer.take_backlog(10).lines() == [second, third]
    buffer.close()
    assert len(run(rejected_command, state, "export").splitlines()) == 1


def test_of_points_that_are_held_back_it_says_how_they_are_tried_at_once(state):
    clock = HandClock()
    buffer = open_at(state / "buffer", clock)
    measure(buffer, clock, 2)
    batch = buffer.take_live(10)
    buffer.replace(batch, [Part(tuple(batch.lines()), "parked")], [])
    buffer.close()
    for command, said in (("list", "No point was refused."), ("replay", "0 points to be delivered again")):
        first, second = run(rejected_command, state, command).splitlines()
        assert first == said
        assert second.startswith("2 points held back and tried again by themselves, at once by `iot-agent reload`")


def test_purged_points_stay_counted(state):
    with_letters(state)
    assert "3 points removed" in run(rejected_command, state, "purge", "--yes")
    assert run(rejected_command, state, "export") == ""
    buffer = open_at(state / "buffer")
    assert buffer.snapshot().counters.points.rejected == 3
    assert buffer.snapshot().dead_letters == 0
    accounted(buffer)
    buffer.close()


def contents(state):
    """What stands in the database and its log. The log's index is no content."""
    files = [state / "buffer" / name for name in ("cache.db", "cache.db-wal")]
    return [path.read_bytes() if path.exists() else b"" for path in files]


def test_looking_writes_nothing_beside_a_running_agent_or_without_one(state):
    clock = HandClock()
    buffer = open_at(state / "buffer", clock)
    measure(buffer, clock, 5)
    buffer.commit_all()
    for _ in range(2):
        before = {
            path.name: path.read_bytes() for path in (state / "buffer").glob("cache.db*") if "shm" not in path.name
        }
        assert json.loads(run(buffer_command, state, "show", "--json"))["waiting"]["pending"] == 5
        assert len(run(buffer_command, state, "export").splitlines()) == 5
        run(rejected_command, state, "list")
        after = {
            path.name: path.read_bytes() for path in (state / "buffer").glob("cache.db*") if "shm" not in path.name
        }
        assert {k: v for k, v in after.items() if v} == {k: v for k, v in before.items() if v}
        buffer.close()


def test_purging_asks_first(state):
    with_letters(state)
    result = CliRunner().invoke(rejected_command, ["purge", "--state-dir", str(state)], input="n\n")
    assert result.exit_code == 1
    assert len(run(rejected_command, state, "export").splitlines()) == 3


def test_promise_3_a_state_folder_that_cannot_be_read_is_no_mistake_on_the_command_line(tmp_path, monkeypatch):
    """`run` measures and delivers from memory then."""
    access = os.access
    monkeypatch.setattr(os, "access", lambda path, mode, **more: path != str(tmp_path) and access(path, mode, **more))
    result = CliRunner().invoke(buffer_command, ["show", "--state-dir", str(tmp_path)])
    assert "Invalid value" not in result.output
