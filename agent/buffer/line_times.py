"""The time of lines: given, taken back, and read. An undated line ends in the boot clock instead of Unix time. Pure."""

from __future__ import annotations

from collections.abc import Iterable, Sequence

from agent.clock.timeline import Stretch
from agent.points.schema import series_of

_ESTIMATED = b",clock=estimated"


def dated(lines: Iterable[bytes], offset_ns: int, *, estimated: bool = False) -> list[bytes]:
    """Undated lines with Unix time instead of the boot clock's; guessed ones carry the tag clock=estimated."""
    result = []
    for line in lines:
        head, _, stamp = line.rpartition(b" ")
        if estimated:
            series = series_of(head)
            head = series + _ESTIMATED + head[len(series) :]
        result.append(b"%s %d" % (head, int(stamp) + offset_ns))
    return result


def withdrawn(lines: Iterable[bytes], stretches: Sequence[Stretch]) -> tuple[list[bytes], list[bytes]]:
    """The lines that none of these stretches holds, and the others with the boot clock again instead of Unix time, and
    no longer guessed.
    """
    stay, back = [], []
    for line in lines:
        head, _, text = line.rpartition(b" ")
        stamp = int(text)
        stretch = next((s for s in stretches if s.holds(stamp)), None)
        if stretch is None:
            stay.append(line)
        else:
            series = series_of(head)
            head = series.removesuffix(_ESTIMATED) + head[len(series) :]
            back.append(b"%s %d" % (head, stamp - stretch.offset_ns))
    return stay, back


def span_of(lines: Sequence[bytes]) -> tuple[int, int]:
    """From when to when lines in their order are, by the stamps of the first and the last."""
    first, last = (int(lines[at].rpartition(b" ")[2]) for at in (0, -1))
    return min(first, last), max(first, last)
