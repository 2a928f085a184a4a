"""The local page: a snapshot and the last 24 h as HTML and SVG. Everything that comes from outside is escaped here.

The charts need no scripts and no styles of their own: the page's policy forbids inline ones.
"""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from functools import cache
from html import escape
from itertools import pairwise
from pathlib import Path
from string import Template
from typing import Any

from agent.config.units import rough_duration
from agent.status.health_rules import failing, problems
from agent.status.words import number, rows
from drivers.base import QUANTITIES

HERE = Path(__file__).parent
WIDTH, HEIGHT = 360, 120
LEFT, RIGHT, TOP, BOTTOM = 48, 8, 10, 22
WINDOWS = ((15, "15 min"), (60, "1 h"), (360, "6 h"), (1440, "24 h"))
MOST_POINTS = 360


@cache
def _template() -> Template:
    return Template((HERE / "templates/page.html").read_text("utf-8"))


def render(
    snapshot: Mapping[str, Any],
    series: Mapping[tuple[str, str], Sequence[tuple[int, float]]],
    unhealthy_after_s: float,
) -> str:
    """The whole page."""
    wrong = failing(snapshot, unhealthy_after_s)
    known = problems(snapshot)
    return _template().substitute(
        device=escape(str(snapshot.get("device_id", ""))),
        version=escape(str(snapshot.get("version", ""))),
        state="failing" if wrong else "ok",
        verdict="failing" if wrong else "works, with something to look at" if known else "works",
        problems=_problems(known or wrong),
        values=_values(snapshot.get("sensors", []), snapshot.get("boot_ns", 0)),
        charts=_charts(series),
        rows="".join(f"<dt>{escape(name)}</dt><dd>{escape(text)}</dd>" for name, text in rows(snapshot)),
    )


def _problems(texts: Sequence[str]) -> str:
    if not texts:
        return ""
    items = "".join(f"<li>{escape(text)}</li>" for text in texts)
    return f'<section class="problems" aria-labelledby="wrong"><h2 id="wrong">To look at</h2><ul>{items}</ul></section>'


def _values(sensors: Sequence[Mapping[str, Any]], now: int) -> str:
    parts = []
    for place, sensor in enumerate(sensors):
        parts.append(f'<section aria-labelledby="sensor{place}">')
        parts.append(f'<h2 id="sensor{place}">{escape(sensor["name"])}: {escape(_freshness(sensor, now))}</h2>')
        stale = sensor.get("failing_since_boot_ns") is not None
        parts.append(f'<dl class="values{" stale" if stale else ""}">')
        for field, value in sensor.get("values", {}).items():
            text, unit = number(field, value)
            parts.append(f"<div><dt>{escape(_shown(field)[0])}</dt><dd>{text} <small>{escape(unit)}</small></dd></div>")
        parts.append("</dl></section>")
    return "".join(parts)


def _shown(field: str) -> tuple[str, str, int]:
    """Its name, unit and decimals; a driver of somebody else's may have fields of its own."""
    quantity = QUANTITIES.get(field)
    return (quantity.shown, quantity.unit, quantity.decimals) if quantity else (field, "", 2)


def _freshness(sensor: Mapping[str, Any], now: int) -> str:
    read = sensor["boot_ns"]
    when = "not read yet" if read is None else f"{rough_duration((now - read) / 1e9)} ago"
    return f"{sensor['description']}, {when}"


def _charts(series: Mapping[tuple[str, str], Sequence[tuple[int, float]]]) -> str:
    figures = []
    several = len({sensor for sensor, _ in series}) > 1
    for (sensor, field), points in series.items():
        if not points or field in ("Lat", "Lon"):
            continue
        name, unit, decimals = _shown(field)
        title = f"{name} in {unit}" + (f", {sensor}" if several else "")
        figures.append(
            f"<figure><figcaption>{escape(title)}</figcaption>{svg(points, title, min(decimals, 1))}</figure>"
        )
    if not figures:
        return ""
    return (
        '<section aria-labelledby="day"><h2 id="day">The last 24 hours, as far as the agent has run</h2>'
        f'<div class="charts">{"".join(figures)}</div></section>'
    )


def svg(points: Sequence[tuple[int, float]], title: str, decimals: int) -> str:
    """Of (minutes ago, value), oldest first. Minutes without a value stay empty: no line is drawn over a gap."""
    oldest = max((minutes for minutes, _ in points), default=0)
    window, words = next((w for w in WINDOWS if oldest < w[0]), WINDOWS[-1])
    points, step = thinned(points, window)
    low, high = limits([value for _, value in points], 10.0**-decimals)
    width, height = WIDTH - LEFT - RIGHT, HEIGHT - TOP - BOTTOM

    def place(minutes: int, value: float) -> tuple[float, float]:
        return LEFT + width * (1 - minutes / window), TOP + height * (1 - (value - low) / (high - low))

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
        places = [place(minutes, value) for minutes, value in run]
        if len(places) == 1:
            parts.append(f'<circle class="line" cx="{places[0][0]:.1f}" cy="{places[0][1]:.1f}" r="1.5"/>')
        else:
            parts.append('<polyline class="line" points="' + " ".join(f"{x:.1f},{y:.1f}" for x, y in places) + '"/>')
    return "".join([*parts, "</svg>"])


def thinned(points: Sequence[tuple[int, float]], window: int) -> tuple[list[tuple[int, float]], int]:
    """At most MOST_POINTS means, and the minutes that each stands for."""
    step = max(1, window // MOST_POINTS)
    groups: dict[int, list[float]] = {}
    for minutes, value in points:
        groups.setdefault(minutes // step, []).append(value)
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
