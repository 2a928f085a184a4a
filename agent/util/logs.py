"""How a line of the log looks: one printable line, with the time where nobody adds it."""

from __future__ import annotations

import logging
import os
from collections.abc import Mapping
from typing import TextIO

from agent.util.errors import printable

LOG_FORMAT = "%(asctime)s %(levelname)s %(name)s: %(message)s"


class LogLine(logging.Formatter):
    """One line, whatever line breaks and control characters a path or a name has in it."""

    def formatMessage(self, record: logging.LogRecord) -> str:  # noqa: N802 - logging's name
        return printable(super().formatMessage(record))


class JournalLine(LogLine):
    """Lines as journald wants them: it adds the time, and `<4>` in front tells it the priority (sd-daemon(3))."""

    PRIORITIES = ((logging.ERROR, 3), (logging.WARNING, 4), (logging.INFO, 6), (logging.DEBUG, 7))

    def format(self, record: logging.LogRecord) -> str:
        priority = next((number for level, number in self.PRIORITIES if record.levelno >= level), 7)
        return f"<{priority}>{super().format(record)}"


def log_handler(stream: TextIO, environ: Mapping[str, str] = os.environ) -> logging.Handler:
    """A handler that writes for journald where `stream` leads there (systemd.exec(5)), else for people."""
    handler = logging.StreamHandler(stream)
    try:
        status = os.fstat(stream.fileno())
        journal = environ.get("JOURNAL_STREAM") == f"{status.st_dev}:{status.st_ino}"
    except OSError:  # no file at all
        journal = False
    handler.setFormatter(JournalLine("%(name)s: %(message)s") if journal else LogLine(LOG_FORMAT))
    return handler
