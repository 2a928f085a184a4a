"""A line chart as SVG, without scripts and without styles of its own (the page's policy forbids inline ones)."""

from __future__ import annotations

from html import escape
from itertools import pairwise
from typing import TYPE_CHECKING

if TYPE_CHECKING:
    from collections.abc import Sequence

WIDTH, HEIGHT = 360, 120
LEFT, RIGHT, TOP, BOTTOM = 48, 8, 10, 22
WINDOWS = ((15, "15 min"), (60, "1 h"), (360, "6 h"), (1440, "24 h"))
MOST_POINTS = 360


def svg(points: Sequence[tuple[int, float]], title: str, decimals: int) -> str:
    """Of (minutes ago, value), oldest first. Minutes without a value stay empty: no line is drawn over a gap."""
    oldest = max((ago for ago, _ in points), default=0)
    window, words = next((w for w in WINDOWS if oldest < w[0]), WINDOWS[-1])
    points, step = thinned(points, window)
    low, high = limits([value for _, value in points], 10.0**-decimals)
    width, height = WIDTH - LEFT - RIGHT, HEIGHT - TOP - BOTTOM

    def place(ago: int, value: float) -> tuple[float, float]:
        return LEFT + width * (1 - ago / window), TOP + height * (1 - (value - low) / (high - low))

    parts = [
        f'<svg viewBox="0 0 {WIDTH} {HEIGHT}" role="img" aria-label="{escape(title)}, last {words}">',
        f'<path class="axis" d="M{LEFT} {TOP}V{TOP + height}H{LEFT + width}"/>',
    ]
    for value in (low, (low + high) / 2, high):
        _, y = place(0, value)
        parts.append(f'<path class="grid" d="M{LEFT} {y:.1f}H{LEFT + width}"/>')
        parts.append(f'<text x="{LEFT - 5}" y="{y + 3.5:.1f}" text-anchor="end">{value:.{decimals}f}</text>')
    parts.append(f'<text x="{LEFT}" y="{HEIGHT - 6}">{words} ago</text>')
    parts.append(f'<text x="{LEFT + width}" y="{HEIGHT - 6}" text-anchor="end">now</text>')
    for run in runs(points, 2 * step):
        places = [place(ago, value) for ago, value in run]
        if len(places) == 1:
            parts.append(f'<circle class="line" cx="{places[0][0]:.1f}" cy="{places[0][1]:.1f}" r="1.5"/>')
        else:
            parts.append('<polyline class="line" points="' + " ".join(f"{x:.1f},{y:.1f}" for x, y in places) + '"/>')
    return "".join([*parts, "</svg>"])


def thinned(points: Sequence[tuple[int, float]], window: int) -> tuple[list[tuple[int, float]], int]:
    """At most MOST_POINTS means, and the minutes that each stands for."""
    step = max(1, window // MOST_POINTS)
    groups: dict[int, list[float]] = {}
    for ago, value in points:
        groups.setdefault(ago // step, []).append(value)
    return [(group * step, sum(values) / len(values)) for group, values in groups.items()], step


def limits(values: Sequence[float], least: float) -> tuple[float, float]:
    """What the axis spans: the values, and at least ten times the resolution `least`."""
    if not values:
        return 0.0, 1.0
    low, high = min(values), max(values)
    lacking = max(0.0, 10 * least - (high - low)) / 2
    return low - lacking, high + lacking


def runs(points: Sequence[tuple[int, float]], gap: int) -> list[list[tuple[int, float]]]:
    """Stretches of points that lie at most `gap` minutes apart."""
    found = [[points[0]]] if points else []
    for before, after in pairwise(points):
        if before[0] - after[0] > gap:
            found.append([])
        found[-1].append(after)
    return found
