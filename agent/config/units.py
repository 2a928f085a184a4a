"""Durations and sizes as people write them in agent.toml: "10s", "200ms", "7d", "64MB"; and times."""

from __future__ import annotations

import re
from datetime import UTC, datetime
from typing import NewType

Seconds = NewType("Seconds", float)
Bytes = NewType("Bytes", int)

_SECONDS = {"ms": 0.001, "s": 1, "m": 60, "h": 3600, "d": 86_400, "w": 604_800}
_BYTES = {"B": 1, "kB": 1000, "KB": 1000, "MB": 1000**2, "GB": 1000**3, "KiB": 1024, "MiB": 1024**2, "GiB": 1024**3}
_QUANTITY = re.compile(r"(\d+(?:\.\d+)?)\s*([A-Za-z]+)")


def _parse(text: object, units: dict[str, float] | dict[str, int], kind: str, example: str) -> float:
    match = _QUANTITY.fullmatch(text.strip()) if isinstance(text, str) else None
    if match is None or match[2] not in units:
        raise ValueError(f"a {kind} with its unit in quotes, like {example} (units: {', '.join(units)})")
    return float(match[1]) * units[match[2]]


def parse_duration(text: object) -> Seconds:
    """Seconds of `10s`, `200ms`, `5m`, `7d`. Raises ValueError saying what would be right."""
    return Seconds(_parse(text, _SECONDS, "duration", '"10s"'))


def parse_size(text: object) -> Bytes:
    """Bytes of `64MB`. Raises ValueError saying what would be right."""
    return Bytes(round(_parse(text, _BYTES, "size", '"64MB"')))


def format_duration(seconds: float) -> str:
    """The shortest writing, to 12 digits, that parse_duration takes: 0.2 → `200ms`, 604800 → `7d`."""
    if seconds and (seconds < 1 or seconds % 1):
        return f"{round(seconds * 1000, 6):.12g}ms"
    for unit, size in (("d", 86_400), ("h", 3600), ("m", 60)):
        if seconds and seconds % size == 0:
            return f"{seconds / size:.12g}{unit}"
    return f"{seconds:.12g}s"


def rough_duration(seconds: float) -> str:
    """For people, to two digits or the unit: `2.5 s`, `90 s`, `12 min`, `5 h`, `40 days`."""
    seconds = max(0.0, seconds)
    unit, size = next((u for u in (("days", 86_400), ("h", 3600), ("min", 60)) if seconds >= 2 * u[1]), ("s", 1))
    number = seconds / size
    return f"{number:.{int(number < 10)}f}".removesuffix(".0") + f" {unit}"


def megabytes(size: float) -> str:
    """For people: `0.1 MB`."""
    return f"{size / 1e6:,.1f} MB"


def counted(count: int, noun: str) -> str:
    """For people: `1 point`, `1,200 points`."""
    return f"{count:,} {noun}{'' if count == 1 else 's'}"


def format_time(time_ns: int) -> str:
    """RFC 3339 in UTC, to the millisecond, of Unix ns."""
    when = datetime.fromtimestamp(time_ns // 1_000_000_000, UTC)
    return f"{when:%Y-%m-%dT%H:%M:%S}.{time_ns // 1_000_000 % 1000:03}Z"
