"""What `init` of the agent and of the center share: questions where somebody can answer, and where the answers go."""

from __future__ import annotations

import os
import sys
from pathlib import Path
from typing import Any

import click


def ask(option: str, prompt: str, default: str | None = None, kind: Any = str, *, hidden: bool = False) -> Any:
    """The answer, or without anybody to ask the default; where there is none, UsageError."""
    if sys.stdin.isatty():
        return click.prompt(prompt, default=default, type=kind, hide_input=hidden, show_default=bool(default), err=True)
    if default is None:
        raise click.UsageError(f"{option} is missing, and there is no terminal to ask on")
    return kind(default) if kind is str else kind.convert(default, None, None)


def place(of_service: Path) -> Path:
    """The service's configuration for root, else one of that name in this folder."""
    return of_service if os.geteuid() == 0 and of_service.parent.is_dir() else Path(of_service.name)
