"""Errors that end a command with one line on stderr and an exit code."""

from __future__ import annotations

EXIT_FAILED = 1
EXIT_ALREADY_RUNNING = 3
EXIT_CONFIG = 78  # EX_CONFIG of sysexits.h; the systemd unit does not restart on it
MAX_TEXT = 300


def printable(text: str) -> str:
    """What others wrote, for a terminal or a log: those act on control characters, which become U+FFFD."""
    return text if text.isprintable() else "".join(c if c.isprintable() else "\ufffd" for c in text)


def short(text: str) -> str:
    """One printable line of at most MAX_TEXT characters, for a log or a dead letter."""
    text = printable(" ".join(text[: 4 * MAX_TEXT].split()))
    return text if len(text) <= MAX_TEXT else text[: MAX_TEXT - 1] + "…"


class AgentError(Exception):
    """Says what was tried, what came back and what to do next, in one line."""

    exit_code = EXIT_FAILED


class ConfigError(AgentError):
    """Something in agent.toml, or the file itself, is not right."""

    exit_code = EXIT_CONFIG
