"""Times and durations as the API and the pages write them. Inside the center a time is Unix nanoseconds."""

from __future__ import annotations

import re
import time
from datetime import UTC, datetime

from agent.config.units import parse_duration

_RFC3339 = re.compile(r"(\d{4}-\d\d-\d\d)[Tt ](\d\d:\d\d:\d\d)(?:\.(\d{1,9})\d*)?([Zz]|[+-]\d\d:\d\d)?")
_RELATIVE = re.compile(r"-\s*(\d+(?:\.\d+)?\s*[a-z]+)")
_EPOCH = re.compile(r"\d{1,19}")
YEAR_S = 365 * 86_400
MAX_TIME = 9_223_372_036_854_775_806  # nanoseconds before and after 1970: what InfluxDB takes for a time


def now_ns() -> int:
    return time.time_ns()


def iso(time_ns: int) -> str:
    """RFC 3339 in UTC, with as many digits after the second as the time has (0, 3, 6 or 9)."""
    seconds, rest = divmod(time_ns, 1_000_000_000)
    digits = f"{rest:09d}"
    while digits.endswith("000"):
        digits = digits[:-3]
    text = datetime.fromtimestamp(seconds, UTC).strftime("%Y-%m-%dT%H:%M:%S")
    return f"{text}.{digits}Z" if digits else f"{text}Z"


def parse_time(text: str, now: int) -> int:
    """Nanoseconds of `now`, `-24h` (before now), RFC 3339 (UTC unless it says so) or Unix seconds. Else ValueError,
    also for a time that 64 bits cannot hold.
    """
    text = text.strip()
    if text in {"now", "now()"}:
        return now
    if match := _RELATIVE.fullmatch(text):
        time_ns = now - parse_every(match[1])
    elif _EPOCH.fullmatch(text):
        number = int(text)
        time_ns = number if number > 10**12 else number * 1_000_000_000
    elif match := _RFC3339.fullmatch(text):
        zone = (match[4] or "Z").upper().replace("Z", "+00:00")
        whole = datetime.fromisoformat(f"{match[1]}T{match[2]}{zone}")
        time_ns = round(whole.timestamp()) * 1_000_000_000 + int((match[3] or "0").ljust(9, "0"))
    else:
        raise ValueError(f"{text!r} is not a time: write now, -24h, 2026-11-24T06:30:00Z or Unix seconds")
    if not -MAX_TIME <= time_ns <= MAX_TIME:
        raise ValueError(f"{text!r} is too far away: the years 1678 to 2261 can be told apart")
    return time_ns


def parse_every(text: str) -> int:
    """Nanoseconds of a duration like `10s`, `5m`, `1h`, `30d`, `1w`, `1y`, of 292 years at most. Else ValueError."""
    match = re.fullmatch(r"(\d{1,4})\s*y", text.strip())
    try:
        seconds = int(match[1]) * YEAR_S if match else parse_duration(text)
    except ValueError:
        raise ValueError(f"{text!r} is not a duration: write 10s, 5m, 1h, 30d, 1w or 1y") from None
    if seconds * 1e9 > MAX_TIME:
        raise ValueError(f"{text!r} is too long: at most 292y")
    return round(seconds * 1_000_000_000)
