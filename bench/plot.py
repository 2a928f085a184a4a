"""The growth of cost as an SVG: small panels on logarithmic axes, no library needed."""

from __future__ import annotations

import math
from dataclasses import dataclass
from html import escape
from typing import TYPE_CHECKING

if TYPE_CHECKING:
    from collections.abc import Mapping, Sequence

    from bench.measure import Sample

WIDTH, HEIGHT, COLUMNS = 360, 250, 2
LEFT, RIGHT, TOP, BOTTOM = 56, 16, 34, 40
COLOURS = ("#1b6ca8", "#c2571a")


@dataclass(frozen=True, slots=True)
class Panel:
    """Curves by name, each a sample by number of points; from the least to the greatest run as a bar."""

    title: str
    unit: str
    curves: Mapping[str, Mapping[int, Sample]]


def svg(panels: Sequence[Panel]) -> str:
    """The whole picture. Both axes are logarithmic: proportional growth is a line that rises one decade in one."""
    rows = -(-len(panels) // COLUMNS)
    width, height = WIDTH * COLUMNS, HEIGHT * rows
    head = (
        f'<svg xmlns="http://www.w3.org/2000/svg" viewBox="0 0 {width} {height}" width="{width}" height="{height}" '
        'font-family="system-ui, sans-serif" font-size="12" role="img" '
        'aria-label="Cost by the number of waiting points, on logarithmic axes">'
    )
    parts = [head, '<rect width="100%" height="100%" fill="#fff"/>']
    for number, panel in enumerate(panels):
        x, y = number % COLUMNS * WIDTH, number // COLUMNS * HEIGHT
        parts += [f'<g transform="translate({x} {y})">', *_panel(panel), "</g>"]
    return "\n".join([*parts, "</svg>\n"])


def _panel(panel: Panel) -> list[str]:
    counts = sorted({count for curve in panel.curves.values() for count in curve})
    samples = [sample for curve in panel.curves.values() for sample in curve.values()]
    low, high = decades([value for sample in samples for value in (sample.low, sample.high)])
    first, last = math.log10(counts[0]), math.log10(counts[-1])

    def x(count: float) -> float:
        return LEFT + (math.log10(count) - first) / max(last - first, 1e-9) * (WIDTH - LEFT - RIGHT)

    def y(value: float) -> float:
        share = (math.log10(max(value, 10.0**low)) - low) / (high - low)
        return HEIGHT - BOTTOM - share * (HEIGHT - TOP - BOTTOM)

    parts = [f'<text x="{LEFT}" y="20" font-weight="600">{escape(panel.title)} ({escape(panel.unit)})</text>']
    for power in range(low, high + 1):
        at = y(10.0**power)
        parts.append(f'<path d="M{LEFT} {at:.1f}H{WIDTH - RIGHT}" stroke="#ddd"/>')
        parts.append(f'<text x="{LEFT - 6}" y="{at + 4:.1f}" text-anchor="end" fill="#444">{10.0**power:g}</text>')
    parts += [_label(x(count), HEIGHT - BOTTOM + 18, short(count)) for count in counts]
    parts.append(_label((LEFT + WIDTH - RIGHT) / 2, HEIGHT - 6, "waiting points"))
    for number, (name, curve) in enumerate(panel.curves.items()):
        colour = COLOURS[number % len(COLOURS)]
        line = " ".join(f"{x(count):.1f},{y(sample.median):.1f}" for count, sample in sorted(curve.items()))
        parts.append(f'<polyline points="{line}" fill="none" stroke="{colour}" stroke-width="2"/>')
        for count, sample in curve.items():
            parts.append(f'<circle cx="{x(count):.1f}" cy="{y(sample.median):.1f}" r="3" fill="{colour}"/>')
            parts.append(f'<path d="M{x(count):.1f} {y(sample.low):.1f}V{y(sample.high):.1f}" stroke="{colour}"/>')
        if len(panel.curves) > 1:
            parts.append(f'<text x="{LEFT + 8}" y="{TOP + 14 + 15 * number}" fill="{colour}">{escape(name)}</text>')
    return parts


def _label(x: float, y: float, text: str) -> str:
    return f'<text x="{x:.1f}" y="{y:.1f}" text-anchor="middle" fill="#444">{escape(text)}</text>'


def decades(values: Sequence[float]) -> tuple[int, int]:
    """The powers of ten around these values, at least one decade; what is not above zero is left out."""
    known = [value for value in values if value > 0] or [1.0]
    low, high = math.floor(math.log10(min(known))), math.ceil(math.log10(max(known)))
    return low, max(high, low + 1)


def short(count: int) -> str:
    """10 k, 1 M."""
    for size, unit in ((1_000_000, " M"), (1000, " k")):
        if count >= size:
            return f"{count / size:g}{unit}"
    return str(count)
