"""What is drawn again and again: on a screen of its own, so that nothing of it is left but the last."""

from __future__ import annotations

import contextlib
from collections.abc import Callable, Iterator
from dataclasses import dataclass

from rich.console import Console, ConsoleOptions, RenderableType, RenderResult
from rich.control import Control
from rich.screen import Screen
from rich.segment import Segment
from rich.text import Text

Draw = Callable[[RenderableType], None]


@dataclass(frozen=True, slots=True)
class Fitted:
    """As many lines as the screen has, the last of them saying how many more there are."""

    whole: RenderableType

    def __rich_console__(self, console: Console, options: ConsoleOptions) -> RenderResult:
        lines = console.render_lines(self.whole, options.update(height=None), pad=False)
        room = options.height or console.height
        if len(lines) > room:
            yield from (part for line in lines[: room - 1] for part in (*line, Segment.line()))
            yield Text(f"… {len(lines) - room + 1} more rows: a taller window has room for them", "dim")
        else:
            yield self.whole


@contextlib.contextmanager
def live(console: Console | None = None) -> Iterator[Draw]:
    """A function that draws in the place of what it drew before; where that is no terminal, below it.

    The last one stays, whole.
    """
    console = console or Console()
    if not console.is_terminal:
        yield console.print
        return
    last: list[RenderableType] = []

    def draw(shown: RenderableType) -> None:
        if not last:  # not before there is something to see
            last.append(shown)
            console.set_alt_screen(True)
            console.show_cursor(False)
        last[:] = [shown]
        console.control(Control.home())
        console.print(Screen(Fitted(shown)), end="")

    try:
        yield draw
    finally:
        if last:  # a Ctrl-C may come at any of these
            console.set_alt_screen(False)
            console.show_cursor(True)
            console.print(*last)
