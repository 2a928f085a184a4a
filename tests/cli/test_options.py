"""How commands end that the system refuses something: in one line, as `iot-agent: …`."""

import errno
import os

import click
import pytest
from click.testing import CliRunner

from agent.cli import main
from agent.cli.options import Duration, common_options, since_option
from agent.util.questions import Checked


def test_a_state_folder_that_cannot_be_looked_at_is_a_line():
    result = CliRunner().invoke(main, ["status", "--state-dir", "x" * 300])
    assert result.exit_code == 1
    assert isinstance(result.exception, SystemExit)
    assert result.stderr.startswith("iot-agent: xxx")
    assert len(result.stderr.splitlines()) == 1


def test_a_duration_of_any_length_is_no_traceback():
    with pytest.raises(click.BadParameter, match="a duration like 2h"):
        since_option(None, None, f"{'9' * 400}d")


@pytest.mark.parametrize("kind", [Duration, Checked])
def test_a_kind_of_option_is_one_for_a_click_that_knows_no_generic_kinds(kind):
    """Those before 8.4, which pyproject.toml allows: there no command would start."""
    assert "__orig_bases__" not in vars(kind)


@pytest.mark.parametrize(
    ("number", "said"),
    [(errno.ENOSPC, "iot-agent: No space left on device\n"), (errno.EPIPE, "")],
)
def test_output_that_finds_no_room_is_a_line_and_one_that_nobody_reads_is_none(number, said):
    @click.command()
    @common_options
    def writes(_context):
        raise OSError(number, os.strerror(number))

    result = CliRunner().invoke(writes)
    assert (result.exit_code, result.stderr) == (1, said)
