"""Line protocol in and out. Reading is line-protocol-parser's work; the words for what it refuses are InfluxDB's.

Compared with the recorded answers of InfluxDB 2.9.1 in tests/center/embedded/test_write_api.py.
"""

from __future__ import annotations

import json
import re
from collections.abc import Callable, Iterable, Iterator

from line_protocol_parser import LineFormatError, parse_line

from center.errors import RefusedError
from center.stores.telemetry import Point, Value
from center.times import MAX_TIME

MAX_INTEGER = 2**63 - 1
DEVICE_TAGS = ("clientId", "device")
MAX_ID = 64
MAX_LINES = 500_000  # of a request
MAX_LINE = 2**21  # bytes; InfluxDB bounds strings (1 MiB) and keys, not lines
MAX_KEY = 65_535  # bytes
MAX_TAGS = 256
MAX_ERRORS = 100  # as InfluxDB Cloud; InfluxDB 2 names all, without a bound
MAX_QUOTED, MAX_TOLD = 65_536, 200_000  # of one bad line, of all
MAX_WEIGHT = 8_000_000  # bytes of memory that points take, about, before they are handed on
_UNSIGNED = re.compile(r"=\d{19,}u")
_OUTSIDE = f"time outside range -{MAX_TIME} - {MAX_TIME}"
_HEAD = re.compile(r"(?:[^\\ ]|\\.|\\$)*")
_MEASUREMENT = re.compile(r"([, ])")
_KEY = re.compile(r"([,= ])")
_AMBIGUOUS = re.compile(r"\n|\\[,= ]|\\$")
_STRING = re.compile(r'([\\"])')
_MARKS = re.compile(rb'\\.|[ "=,\n]', re.DOTALL)
_KEY_BYTES = re.compile(rb"(?:[^\\ ]|\\.|\\$)*")


class BadLinesError(RefusedError):
    """InfluxDB's message for each line it would refuse, up to a bound: a 400, and nothing is stored."""


class TooManyLinesError(RefusedError):
    """More than one request may have: a 413, which says to send less at once."""


def lines_of(body: bytes) -> Iterator[bytes]:
    """Lines, empty ones too; a newline inside a quoted field value does not end one (InfluxDB's scanLine)."""
    place = 0
    while place <= len(body):
        stop = body.find(b"\n", place)
        stop = len(body) if stop < 0 else stop
        if body.find(b'"', place, stop) >= 0:
            stop = _end_of(body, place)
        yield body[place:stop]
        place = stop + 1


def _end_of(body: bytes, start: int) -> int:
    """Where the line ends that begins there and has quotes; of one that is too long for any store, the body's end."""
    fields = quoted = False
    equals = commas = 0
    for match in _MARKS.finditer(body, start):
        mark = match[0]
        if mark == b" ":
            fields = True
        elif mark == b"\n" and not quoted:
            return match.start()
        elif match.start() > start + MAX_LINE:
            break
        elif fields and mark == b'"' and equals > commas:
            quoted = not quoted
        elif fields and not quoted:
            equals += mark == b"="
            commas += mark == b","
    return len(body)


def parse(body: bytes, precision: int = 1, refused: Callable[[Point], str] = lambda _: "") -> Iterator[list[Point]]:
    """The points of a body, some megabytes of memory at a time. `precision`: nanoseconds of one unit of its stamps.
    `refused` says why a point is refused besides; empty for one that is not.

    Raises BadLinesError after the last line, or after MAX_ERRORS bad ones; TooManyLinesError. No points come after a
    bad line. InfluxDB stores invalid UTF-8 as it comes; here such bytes become U+FFFD.
    """
    points: list[Point] = []
    weight = 0
    told: list[str] = []
    for number, raw in enumerate(lines_of(body), 1):
        if number > MAX_LINES:
            raise TooManyLinesError(f"more than {MAX_LINES} lines: send fewer at once")
        line = raw.strip(b" \t\r")
        if not line or line.startswith(b"#"):
            continue
        try:
            point = _parsed(line, precision)
            why = refused(point)
        except ValueError as error:
            why = str(error)
        if why:
            points.clear()
            told.append(f"unable to parse '{_quoted(raw.lstrip(b' '))}': {why}")
            if len(told) == MAX_ERRORS or sum(map(len, told)) > MAX_TOLD:
                told.append("the lines after these were not looked at")
                break
        elif not told:
            points.append(point)
            weight += 400 + 2 * len(line) + 100 * (len(point.tags) + len(point.fields))
            if weight > MAX_WEIGHT:
                yield points
                points, weight = [], 0
    if told:
        raise BadLinesError("\n".join(told))
    if points:
        yield points


def _quoted(line: bytes) -> str:
    """InfluxDB quotes a line as it is, however long."""
    if len(line) <= MAX_QUOTED:
        return line.decode("utf-8", "replace")
    return line[:MAX_QUOTED].decode("utf-8", "ignore") + "…"


def _parsed(raw: bytes, precision: int) -> Point:
    """ValueError says in InfluxDB's words why it is refused."""
    if len(raw) > MAX_LINE:
        raise ValueError(f"longer than {MAX_LINE} bytes")
    if raw.count(b",") > MAX_TAGS:
        _check_tags(raw)
    line = raw.decode("utf-8", "replace")
    try:
        found = parse_line(line)
    except (LineFormatError, ValueError, OverflowError) as error:
        raise ValueError(reason(line, str(error))) from error
    if len(raw) > MAX_KEY and (why := _long_key(raw, found["fields"])):
        raise ValueError(why)
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


def _check_tags(raw: bytes) -> None:
    """The parser's time for a line is quadratic in its tags."""
    head = _KEY_BYTES.match(raw)
    if head and head[0].count(b",") - head[0].count(b"\\,") > MAX_TAGS:
        raise ValueError(f"more than {MAX_TAGS} tags")


def _long_key(raw: bytes, fields: Iterable[str]) -> str | None:
    """As InfluxDB 2.8.0 says it: measurement and tags as they are sent, 4 bytes and the name of a field are a key."""
    head = _KEY_BYTES.match(raw)
    key = head.end() if head else 0
    longest = key + 4 + max(len(name.encode()) for name in fields)
    size = key if key > MAX_KEY else longest
    return f"max key length exceeded: {size} > {MAX_KEY}" if size > MAX_KEY else None


def reason(line: str, error: str) -> str:
    """Why a line is refused, in InfluxDB's words, from what the parser says about it."""
    if "exceeds max key length" in error:
        return _long_key(line.encode(), [""]) or error
    if len(line) > MAX_QUOTED:  # its parts are not looked at one by one
        return error.rstrip(".")
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


def value_text(value: Value) -> str:
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
    fields = ",".join(f"{_escaped(_KEY, key)}={value_text(value)}" for key, value in point.fields.items())
    return f"{head}{tags} {fields}" + ("" if point.time_ns is None else f" {point.time_ns}")
