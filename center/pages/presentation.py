"""How values, fields and times look on a page: labels, units, decimals, relative times, sparklines. All pure."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from datetime import UTC, datetime
from ipaddress import IPv4Address
from itertools import pairwise

from markupsafe import Markup, escape

from drivers.base import QUANTITIES

# Colours of their own (static/app.css), by field in small letters; other fields share one.
_COLOURS = {
    *("temperature", "humidity", "pressure", "co2", "tvoc"),
    *("pressuresealevel", "dewpoint", "absolutehumidity", "heatindex", "vpd"),
}
_UNITS = ((86400 * 365, "year"), (86400 * 30, "month"), (86400, "day"), (3600, "h"), (60, "min"))
_WORDS = {"year", "month", "day"}  # written out, and so with a plural


# What an agent's health points hold (agent/status/self_telemetry.py): label and kind, in the page's order.
_HEALTH = {
    "measured": ("Measured", "points"),
    "delivered": ("Delivered", "points"),
    "pending": ("Waiting to be delivered", "points"),
    "oldest_age": ("Oldest that waits", "seconds"),
    "rejected": ("Refused by the server", "points"),
    "dropped": ("Dropped", "points"),
    "unaccounted": ("Unaccounted for", "points"),
    "buffer_bytes": ("Buffer on disk", "bytes"),
    "disk_free": ("Free on disk", "bytes"),
    "memory_process": ("Memory of the agent", "bytes"),
    "memory_available": ("Free memory", "bytes"),
    "cpu_temperature": ("Processor", "°C"),
    "load": ("Load", ""),
    "uptime": ("Agent running for", "seconds"),
    "board_uptime": ("Board running for", "seconds"),
    "clock_good": ("Clock synchronised", "yes"),
    "clock_error_s": ("Clock right within", "s"),
    "throttled": ("Power or heat trouble", "yes"),
    "refused": ("Quantities refused", ""),
    "stuck": ("Quantities that seem stuck", ""),
    "interval": ("Reports every", "span"),
    "sensors": ("Sensors", ""),
    "version": ("Version", "version"),
    "address": ("Address", "address"),
}


@dataclass(frozen=True, slots=True)
class Look:
    """How a field is shown. `low` and `high` are a gauge's ends in `unit`, None where a gauge says nothing."""

    field: str
    label: str
    unit: str
    decimals: int
    colour: str
    low: float | None
    high: float | None


def look(field: str) -> Look:
    """How this field is shown; a field that the data model does not know keeps its name and has no unit."""
    stem, suffix = field, ""
    for ending, words in (("_min", " minimum"), ("_max", " maximum")):
        if field.endswith(ending):
            stem, suffix = field.removesuffix(ending), words
    quantity = QUANTITIES.get(stem)
    if quantity is None:
        return Look(field, stem + suffix, "", 3, "other", None, None)
    label = quantity.shown + suffix
    colour = quantity.field.lower()
    low, high = quantity.gauge or (None, None)
    return Look(
        field,
        label,
        quantity.unit,
        min(quantity.decimals, 5),
        colour if colour in _COLOURS else "other",
        low,
        high,
    )


def unit(field: str) -> str:
    return look(field).unit


def charted(field: str) -> bool:
    """Whether a field gets a chart of its own: not the location, nor a minimum or maximum that shades another's."""
    return field not in {"Lat", "Lon"} and not (field.endswith(("_min", "_max")) and field[:-4] in QUANTITIES)


def number(value: float | str | bool | None, field: str = "") -> str:
    """The value with its field's decimals, a true minus sign, narrow spaces between thousands; a dash for none."""
    if value is None:
        return "\N{EN DASH}"
    if isinstance(value, bool):
        return "true" if value else "false"
    if isinstance(value, str):
        return value
    shape = look(field)
    whole = shape.decimals == 0 or (isinstance(value, int) and not shape.unit)
    if by_powers(value, shape.unit):
        text = f"{value:.3e}".replace("e+", "e")
    else:
        text = f"{value:,.{0 if whole else shape.decimals}f}"
        if not shape.unit and "." in text:
            text = text.rstrip("0").rstrip(".")
    return text.replace(",", "\N{NARROW NO-BREAK SPACE}").replace("-", "\N{MINUS SIGN}")


def by_powers(value: float, unit: str = "") -> bool:
    """Whether it is written with a power of ten: too long otherwise, or nothing but noughts at three decimals in a
    field that the data model does not know. As static/prefs.js.
    """
    return abs(value) >= 1e16 or (not unit and 0 < abs(value) < 0.001)


def with_unit(value: float | str | bool | None, field: str) -> Markup:
    """The value and its unit, the unit set apart: `23.41 °C`."""
    unit = look(field).unit
    shown = escape(number(value, field))
    if not unit:
        attributes = measured(value, field)
        return Markup("<span{}>{}</span>").format(attributes, shown) if attributes else shown
    space = "" if unit == "°" else " "
    return Markup('<span class="num"{}>{}<span class="unit">{}{}</span></span>').format(
        measured(value, field), shown, space, unit
    )


def measured(value: float | str | bool | None, field: str) -> Markup:
    """The attributes by which the script on the page shows a number in the visitor's units and language."""
    if value is None or isinstance(value, (bool, str)):
        return Markup("")
    shape = look(field)
    decimals = 0 if isinstance(value, int) and not shape.unit else shape.decimals
    return Markup(' data-v="{}" data-u="{}" data-d="{}"').format(value, shape.unit, decimals)


def size(count: float) -> str:
    """Bytes in the unit that keeps the figure short: `34.1 MB`."""
    for factor, unit in ((10**9, "GB"), (10**6, "MB"), (10**3, "kB")):
        if count >= factor:
            return f"{count / factor:.1f} {unit}"
    return f"{count:.0f} B"


def health(values: Mapping[str, float | str | bool]) -> list[tuple[str, str]]:
    """Label and text of what an agent says of itself; what is not known here comes last, by its name. Nothing of the
    oldest point that waits where none does.
    """
    said = [
        (label, _counted(value, kind))
        for name, (label, kind) in _HEALTH.items()
        if (value := values.get(name)) is not None
        and not isinstance(value, str)
        and (name != "oldest_age" or value > 0)
    ]
    return said + [(name, number(v)) for name, v in sorted(values.items()) if name not in _HEALTH]


def _counted(value: float, kind: str) -> str:
    if kind == "bytes":
        return size(value)
    if kind == "seconds":
        return ago(max(value, 2)).removesuffix(" ago")
    if kind == "span":
        return span(value)
    if kind == "version":
        return f"{value // 1_000_000:.0f}.{value // 1000 % 1000:.0f}.{value % 1000:.0f}"
    if kind == "address":
        return str(IPv4Address(int(value))) if 0 <= value < 2**32 else number(value)
    if kind == "yes":
        return "yes" if value else "no"
    if kind == "points":
        return points(value)
    return f"{number(value)} {kind}".strip()


def points(count: float) -> str:
    """`1 point`, `1,200 points`."""
    return f"{number(count)} {'point' if count == 1 else 'points'}"


def ago(seconds: float) -> str:
    """`just now`, `12 s ago`, `3 days ago`, `in 5 min`."""
    ahead = seconds < -1
    seconds = abs(seconds)
    if seconds < 2:
        return "just now"
    for size, name in _UNITS:
        if seconds >= size:
            count = round(seconds / size) if ahead else int(seconds // size)
            plural = "s" if count > 1 and name in _WORDS else ""
            return f"in {count} {name}{plural}" if ahead else f"{count} {name}{plural} ago"
    return f"in {int(seconds)} s" if ahead else f"{int(seconds)} s ago"


def span(seconds: float) -> str:
    """A length of time in its largest even unit: `10 s`, `5 min`, `7 days`."""
    for size, name in ((86400, "day"), (3600, "h"), (60, "min")):
        if seconds >= size and seconds % size == 0:
            count = int(seconds // size)
            return f"{count} {name}{'s' if name == 'day' and count > 1 else ''}"
    return f"{seconds:g} s"


def exact(unix: float) -> Markup:
    """A time to the second for tables whose head names the zone; the script on the page puts it into the reader's."""
    text = f"{datetime.fromtimestamp(unix, UTC):%Y-%m-%d %H:%M:%S}"
    return Markup('<span data-exact="{}" data-plain>{}</span>').format(int(unix * 1000), text)


def moment(unix: float | None, now: float, *, absolute: bool = True) -> Markup:
    """A time as people read it, relative first; the script on the page keeps it fresh and in the reader's zone."""
    if unix is None:
        return Markup('<span class="muted">never</span>')
    at = datetime.fromtimestamp(unix, UTC)
    exact = f"{at:%Y-%m-%d %H:%M:%S} UTC"
    relative = Markup('<time datetime="{}" title="{}" data-ago>{}</time>').format(
        at.isoformat(timespec="milliseconds").replace("+00:00", "Z"), exact, ago(now - unix)
    )
    if not absolute:
        return relative
    return Markup('{} · <span class="muted nowrap" data-exact="{}">{}</span>').format(relative, int(unix * 1000), exact)


def sparkline(points: Sequence[tuple[float, float]], field: str, start: float, stop: float) -> Markup:
    """The course of a field as inline SVG: (unix seconds, value) pairs within start … stop; a gap breaks the line."""
    shape = look(field)
    if len(points) < 2 or stop <= start:
        return Markup('<span class="muted small">no course yet</span>')
    values = [v for _, v in points]
    low, high = min(values), max(values)
    # A flat course is drawn flat, not as noise blown up to the full height.
    least = 10 ** -min(shape.decimals, 1) if shape.unit else max(abs(low), abs(high)) / 100
    room = max(high - low, least, abs(high) * 1e-9) or 1
    middle = (low + high) / 2
    steps = sorted(b[0] - a[0] for a, b in pairwise(points))
    gap = max(steps[len(steps) // 2] * 3, (stop - start) / 50)
    runs: list[list[str]] = [[]]
    last = points[0][0]
    for at, value in points:
        if at - last > gap:
            runs.append([])
        last = at
        x = (at - start) / (stop - start) * 100
        y = 15 - (value - middle) / room * 26
        runs[-1].append(f"{x:.1f} {y:.1f}")
    lines = "".join(f"M{run[0]}L{' '.join(run[1:] or run)}" for run in runs)
    areas = "".join(f"M{run[0].split()[0]} 30L{' '.join(run)} {run[-1].split()[0]} 30Z" for run in runs if len(run) > 1)
    said = f"{shape.label} from {number(low, field)} to {number(high, field)} {shape.unit}".strip()
    return Markup(
        '<span class="spark f-{}"><svg viewBox="0 0 100 30" preserveAspectRatio="none" role="img" aria-label="{}">'
        '<path class="area" d="{}"/><path class="line" d="{}"/></svg></span>'
    ).format(shape.colour, said, areas, lines)
