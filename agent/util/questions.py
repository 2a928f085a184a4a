"""What `init` of the agent and of the center share: questions where somebody can answer, and where the answers go."""

from __future__ import annotations

import os
import sys
from collections.abc import Callable
from pathlib import Path
from typing import Any

import click


class Checked(click.ParamType):  # type: ignore[type-arg] # click's is no generic before 8.4
    """A text that a function returns as it is to be kept, or refuses by a ValueError: then it is asked for again."""

    name = "text"

    def __init__(self, check: Callable[[str], str]) -> None:
        self._check = check

    def convert(self, value: object, param: click.Parameter | None, ctx: click.Context | None) -> str:
        try:
            return self._check(str(value).strip())
        except ValueError as error:
            self.fail(str(error), param, ctx)


def ask(
    option: str,
    prompt: str,
    default: str | None = None,
    kind: Any = str,
    *,
    hidden: bool = False,
    guessed: bool = False,
) -> Any:
    """The answer, or without anybody to ask the default; where there is none, or it was `guessed`, UsageError."""
    if sys.stdin.isatty():
        return click.prompt(prompt, default=default, type=kind, hide_input=hidden, show_default=bool(default), err=True)
    if default is None or guessed:
        raise click.UsageError(f"{option} is missing, and there is no terminal to ask on")
    return kind(default) if kind is str else kind.convert(default, None, None)


def place(of_service: Path) -> Path:
    """The service's configuration for root, else one of that name in this folder."""
    return of_service if os.geteuid() == 0 and of_service.parent.is_dir() else Path(of_service.name)
