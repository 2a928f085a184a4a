"""Line protocol in and out. Reading is line-protocol-parser's work; the words for what it refuses are InfluxDB's.

Compared with the recorded answers of InfluxDB 2.9.1 in tests/center/embedded/test_write_api.py.
"""

from __future__ import annotations

import json
import re
from collections.abc import Callable, Iterable, Iterator, Sequence

from line_protocol_parser import LineFormatError, parse_line

from center.errors import RefusedError
from center.stores.telemetry import Point, Value
from center.times import MAX_TIME

MAX_INTEGER = 2**63 - 1
DEVICE_TAGS = ("clientId", "device")
MAX_ID = 64
_UNSIGNED = re.compile(r"=\d{19,}u")
_OUTSIDE = f"time outside range -{MAX_TIME} - {MAX_TIME}"
_HEAD = re.compile(r"(?:[^\\ ]|\\.|\\$)*")
_MEASUREMENT = re.compile(r"([, ])")
_KEY = re.compile(r"([,= ])")
_AMBIGUOUS = re.compile(r"\n|\\[,= ]|\\$")
_STRING = re.compile(r'([\\"])')


def split(text: str) -> Iterator[str]:
    """Lines; a newline inside a quoted field value does not end one (InfluxDB's scanLine)."""
    if '"' not in text:
        yield from text.split("\n")
        return
    start = place = 0
    fields = quoted = False
    equals = commas = 0
    for match in re.finditer(r'\\.|[ "=,\n]', text, re.DOTALL):
        mark, place = match[0], match.start()
        if mark == " ":
            fields = True
        elif mark == "\n" and not quoted:
            yield text[start:place]
            start, fields, equals, commas = match.end(), False, 0, 0
        elif fields and mark == '"' and equals > commas:
            quoted = not quoted
        elif fields and not quoted:
            equals += mark == "="
            commas += mark == ","
    yield text[start:]


def parse(
    body: bytes, precision: int = 1, refused: Callable[[Point], str] = lambda _: ""
) -> tuple[Sequence[Point], Sequence[str]]:
    """The points of a body, and InfluxDB's message for each line it would refuse. `precision`: nanoseconds of one unit
    of its stamps. `refused` says why a point is refused besides; empty for one that is not.

    InfluxDB stores invalid UTF-8 as it comes; here such bytes become U+FFFD.
    """
    text = body.decode("utf-8", "replace")
    points: list[Point] = []
    errors: list[str] = []
    for raw in split(text):
        line = raw.strip(" \t\r")
        if line and not line.startswith("#"):
            try:
                point = _parsed(line, precision)
                why = refused(point)
            except ValueError as error:
                why = str(error)
            if why:
                errors.append(f"unable to parse '{raw.lstrip(' ')}': {why}")
            else:
                points.append(point)
    return points, errors


def _parsed(line: str, precision: int) -> Point:
    """ValueError says in InfluxDB's words why it is refused."""
    try:
        found = parse_line(line)
    except (LineFormatError, ValueError, OverflowError) as error:
        raise ValueError(reason(line, str(error))) from error
    if _UNSIGNED.search(line) and any(type(v) is int and v > MAX_INTEGER for v in found["fields"].values()):
        raise ValueError("value out of range for this store")
    time_ns = found["time"]
    if time_ns is not None:
        time_ns *= precision
        if not -MAX_TIME <= time_ns <= MAX_TIME:
            raise ValueError(_OUTSIDE)
    if "time" in found["tags"]:
        raise ValueError('cannot use reserved tag key "time"')
    series = line.partition(" ")[0] if "\\" not in line else ""
    return Point(found["measurement"], found["tags"], found["fields"], time_ns, series)


def reason(line: str, error: str) -> str:
    """Why a line is refused, in InfluxDB's words, from what the parser says about it."""
    head = _HEAD.match(line)
    end = head.end() if head else 0
    if line.startswith(","):
        return "missing measurement"
    if not line[end:].strip():
        return "missing fields"
    if "value of tag" in error:
        return "missing tag value"
    if "key of tag" in error:
        keys = re.findall(r",((?:[^\\,= ]|\\.)*)=", line[:end])
        return "duplicate tags" if len(set(keys)) < len(keys) else "missing tag key"
    if "key of field" in error:
        return "missing field key"
    if "value of field" in error and "type" not in error:
        return "unbalanced quotes" if line.count('"') % 2 else "missing field value"
    if "type of field" in error:
        values = re.findall(r'=("(?:[^"\\]|\\.)*"|[^, ]*)', line[end:])
        bad = next((v for v in values if not _good(v)), "")
        return "invalid number" if bad[:1] in {*"0123456789-.Nn"} else "invalid boolean"
    if "timestamp" in error:
        return _OUTSIDE if re.search(r" -?\d{19,}$", line) else "bad timestamp"
    return error.rstrip(".")


def _good(value: str) -> bool:
    try:
        parse_line(f"m f={value}")
    except (LineFormatError, ValueError):
        return False
    return True


def foreign(points: Iterable[Point], device_id: str) -> str | None:
    """Why a device's token may not write these points, in words for it: the first that names another device. None if
    it may: a point that names no device is anybody's.
    """
    for point in points:
        for tag in DEVICE_TAGS:
            named = point.tags.get(tag)
            if named is not None and named != device_id:
                return f"a device's token writes under its own id only: {tag} {named[:MAX_ID]!r} is not {device_id!r}"
    return None


def series_of(point: Point) -> str:
    """One text for one series; as it was sent or, in whatever order its tags came, JSON, which no line starts with by
    chance.
    """
    return point.series or json.dumps(
        [point.measurement, sorted(point.tags.items())], ensure_ascii=False, separators=(",", ":")
    )


def _escaped(pattern: re.Pattern[str], text: str) -> str:
    return pattern.sub(r"\\\1", text)


def _value(value: Value) -> str:
    if isinstance(value, bool):
        return "true" if value else "false"
    if isinstance(value, int):
        return f"{value}i"
    if isinstance(value, float):
        return repr(value)
    return '"' + _escaped(_STRING, value) + '"'


def encode(point: Point) -> str:
    """A line of line protocol. RefusedError for what no line can hold: nothing to store, a name or tag with a newline,
    or with a backslash where it would escape what follows (elsewhere it stands for itself).
    """
    names = [point.measurement, *point.tags, *point.tags.values(), *point.fields]
    if point.measurement[:1] in {*"#\t\r\0"} or next(iter(point.fields), "").startswith("\t"):
        raise RefusedError("a line with # first is a comment; white space before measurement or fields is skipped")
    if not point.fields or any(not name or _AMBIGUOUS.search(name) for name in names):
        raise RefusedError(
            "a point needs a field; its names and tags have no newline, and no backslash before , = or space"
        )
    head = _escaped(_MEASUREMENT, point.measurement)
    tags = "".join(f",{_escaped(_KEY, key)}={_escaped(_KEY, text)}" for key, text in sorted(point.tags.items()))
    fields = ",".join(f"{_escaped(_KEY, key)}={_value(value)}" for key, value in point.fields.items())
    return f"{head}{tags} {fields}" + ("" if point.time_ns is None else f" {point.time_ns}")
