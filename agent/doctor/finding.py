"""What a check of the doctor finds, and the doctor's patient: what the checks look at."""

from __future__ import annotations

import re
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any, Literal

from agent.config.settings import Settings
from agent.registration.target import Target

Verdict = Literal["ok", "warning", "failed", "skipped"]
_REFUSAL = re.compile(r"[A-Z]+ \S+: (?:\d{3} (?P<quote>['\"]).*(?P=quote)|(?:(?!: ).)*)", re.DOTALL)
"""A request and how it ended, in the server's words: nothing of it is what to do."""


@dataclass(frozen=True, slots=True)
class Finding:
    """One line of the doctor: what was checked, how it is, what was seen, what to do. `skipped`: could not be looked
    at, and `seen` says why.
    """

    check: str
    verdict: Verdict
    seen: str
    remedy: str = ""


def ok(check: str, seen: str) -> Finding:
    return Finding(check, "ok", seen)


def warning(check: str, seen: str, remedy: str = "") -> Finding:
    return Finding(check, "warning", seen, remedy)


def failed(check: str, seen: str, remedy: str) -> Finding:
    return Finding(check, "failed", seen, remedy)


def failed_by(check: str, error: Exception, otherwise: str) -> Finding:
    """Of an error whose text ends with a colon and what to do; `otherwise` is to be done where it does not."""
    text = str(error)
    seen, _, remedy = text.rpartition(": ")
    return failed(check, text, otherwise) if not seen or _REFUSAL.fullmatch(text) else failed(check, seen, remedy)


def skipped(check: str, why: str) -> Finding:
    return Finding(check, "skipped", why)


@dataclass(slots=True)
class Patient:
    """What the checks look at. Checks fill in what later ones need: `settings`, `running`, `target`, `dialect`.

    `running` is the running agent's snapshot; `hidden` says why it could not be asked, None where there is none.
    `root` and `timeout_s` are for tests.
    """

    config: Path
    state_dir: Path
    settings: Settings | None = None
    running: dict[str, Any] | None = None
    hidden: str | None = None
    target: Target | None = None
    dialect: str | None = None
    unreachable: set[tuple[str, int]] = field(default_factory=set)
    root: Path = Path("/")
    timeout_s: float = 10.0
