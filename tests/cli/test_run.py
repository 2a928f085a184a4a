"""`iot-agent run` and its log."""

import logging

import pytest
from click.testing import CliRunner

from agent import runner
from agent.cli import main, run

CONFIG = '[log]\nlevel = "{level}"\n[influxdb]\nurl = "http://127.0.0.1:9"\norg = "o"\nbucket = "b"\ntoken = "t"\n'


@pytest.fixture
def urllib3():
    logger = logging.getLogger("urllib3")
    level = logger.level
    yield logging.getLogger("urllib3.connectionpool")
    logger.setLevel(level)


@pytest.mark.parametrize(("level", "said"), [("info", False), ("debug", True)])
def test_the_log_of_a_cut_answer_has_no_traceback_of_urllib3(tmp_path, monkeypatch, urllib3, level, said):
    def cut(*_args, **_more):
        urllib3.warning("Failed to parse headers", exc_info=ValueError("cut"))

    monkeypatch.setattr(runner, "run_service", cut)
    config = tmp_path / "agent.toml"
    config.write_text(CONFIG.format(level=level))
    config.chmod(0o600)
    records = []
    monkeypatch.setattr(urllib3, "handle", records.append)
    monkeypatch.setattr(run, "log_handler", lambda _: logging.NullHandler())  # click's runner has no file for it
    result = CliRunner().invoke(main, ["run", "--config", str(config)])
    assert result.exit_code == 0, result.output
    assert bool(records) == said
