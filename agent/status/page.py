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
from agent.status.health_rules import failing, problems, standing
from agent.status.words import rows
from drivers.base import QUANTITIES, label

HERE = Path(__file__).parent
WIDTH, HEIGHT = 360, 120
RIGHT, TOP, BOTTOM = 8, 10, 22
WINDOWS = ((20, "20 min", "10 min"), (60, "1 h", "30 min"), (360, "6 h", "3 h"), (1440, "24 h", "12 h"))
"""Minutes, in words, and half of it."""
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
        current = standing(sensor, now)
        parts.append('<dl class="values">')
        for field, value in sensor.get("values", {}).items():
            text = f"{grouped(value, _decimals(field))} <small>{escape(_unit(field))}</small>"
            stale = "" if field in current else ' class="stale"'
            parts.append(f"<div{stale}><dt>{escape(label(field))}</dt><dd>{text}</dd></div>")
        parts.append("</dl></section>")
    return "".join(parts)


def _decimals(field: str) -> int:
    quantity = QUANTITIES.get(field)
    return quantity.decimals if quantity else 2


def _unit(field: str) -> str:
    return QUANTITIES[field].unit if field in QUANTITIES else ""


def grouped(value: float, decimals: int) -> str:
    """As the center writes numbers: a true minus sign, narrow spaces between thousands."""
    return f"{value:,.{decimals}f}".replace(",", "\N{NARROW NO-BREAK SPACE}").replace("-", "\N{MINUS SIGN}")


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
        unit, decimals = _unit(field), min(_decimals(field), 2)
        title = f"{label(field)} in {unit}" if unit else label(field)
        title += f", {sensor}" if several else ""
        low, high = (grouped(end([value for _, value in points]), decimals) for end in (min, max))
        figures.append(
            f"<figure><figcaption>{escape(title)} <span>min {low}, max {high}</span></figcaption>"
            f"{svg(points, title, decimals, unit)}</figure>"
        )
    if not figures:
        return ""
    return (
        '<section aria-labelledby="day"><h2 id="day">The last 24 hours by the minute, as far as the agent has run</h2>'
        f'<div class="charts">{"".join(figures)}</div></section>'
    )


def svg(points: Sequence[tuple[int, float]], title: str, decimals: int, unit: str = "") -> str:
    """Of (minutes ago, value), oldest first. Minutes without a value stay empty: no line is drawn over a gap.

    page.js shows the value under the pointer: `data-values` are those of the line's points.
    """
    oldest = max((minutes for minutes, _ in points), default=0)
    window, words, half = next((w for w in WINDOWS if oldest < w[0]), WINDOWS[-1])
    points, step = thinned(points, window)
    low, high = limits([value for _, value in points], 10.0**-decimals)
    labels = {value: grouped(value, decimals) for value in (low, (low + high) / 2, high)}
    left = 12 + 6 * max(map(len, labels.values()))
    width, height = WIDTH - left - RIGHT, HEIGHT - TOP - BOTTOM

    def place(minutes: int, value: float) -> str:
        y = TOP + height * (1 - (value - low) / (high - low))
        return f"{left + width * (1 - minutes / window):.1f},{y:.1f}"

    scale = f'data-left="{left}" data-width="{width}" data-minutes="{window}" data-unit="{escape(unit)}"'
    parts = [
        f'<svg viewBox="0 0 {WIDTH} {HEIGHT}" role="img" aria-label="{escape(title)}, last {words}" {scale}>',
        f'<path class="axis" d="M{left} {TOP}V{TOP + height}H{left + width}"/>',
    ]
    for part, text in zip((1, 0.5, 0), labels.values(), strict=False):
        y = TOP + height * part
        parts.append(f'<path class="grid" d="M{left} {y:.1f}H{left + width}"/>')
        parts.append(f'<text x="{left - 5}" y="{y + 3.5:.1f}" text-anchor="end">{text}</text>')
    for part, text, anchor in ((0, f"{words} ago", "start"), (0.5, f"{half} ago", "middle"), (1, "now", "end")):
        parts.append(f'<text x="{left + width * part:g}" y="{HEIGHT - 6}" text-anchor="{anchor}">{text}</text>')
    for run in runs(points, 2 * step):
        places = [
            place(*point) for point in (run if len(run) > 1 else run * 2)
        ]  # one alone is a dot: its ends are round
        shown = " ".join(f"{value:.{decimals}f}" for _, value in run)
        parts.append(f'<polyline class="line" points="{" ".join(places)}" data-values="{shown}"/>')
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
