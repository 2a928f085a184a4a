"""Line protocol that comes from outside: checked before it may wait, taken apart for a table."""

from __future__ import annotations

import re
from collections.abc import Iterable, Iterator
from dataclasses import dataclass

# Possessive quantifiers: a line that is not one is refused in one pass. Not of groups: Python 3.11.2, as in Debian 12,
# matches too much with those, and here a group can be repeated in one way only.
_CHARS = rb"[^,= \\\x00-\x1f\x7f]*+"
_NAME = rb"(?=[^,= ])" + _CHARS + rb"(?:\\[^\x00-\x1f]" + _CHARS + b")*"
_MCHARS = rb"[^, \\\x00-\x1f\x7f]*+"
_MEASUREMENT = rb"(?=[^, #])" + _MCHARS + rb"(?:\\[^\x00-\x1f]" + _MCHARS + b")*"
_VALUE = (
    rb"(?:[-+]?(?:\d++(?:\.\d*+)?|\.\d++)(?:[eE][-+]?\d++)?[iu]?"
    rb"|[tTfF](?![a-zA-Z])|[tT]rue|TRUE|[fF]alse|FALSE"
    rb'|"[^"\\\n]*+(?:\\.[^"\\\n]*+)*")'
)
_FIELD = _NAME + b"=" + _VALUE
_SERIES = _MEASUREMENT + b"(?:," + _NAME + b"=" + _NAME + b")*"
_REST = re.compile(b"(" + _FIELD + b"(?:," + _FIELD + b")*) (-?\\d{1,19}+)")
_LINE = re.compile(b"(" + _SERIES + b") " + _REST.pattern)
_LINE_START = re.compile(b"(" + _SERIES + b")( " + _FIELD + b"(?:," + _FIELD + b")*)?")
_PAIR = re.compile(b"(" + _NAME + b")=(" + _NAME + b")")
_FIELD_PAIR = re.compile(b"(" + _NAME + b")=(" + _VALUE + b")")
_ESCAPED = re.compile(rb"\\([,= \\])")
_STRING = re.compile(rb'"[^"\\\n]*+(?:\\.[^"\\\n]*+)*"')
_BAD_NUMBER = re.compile(rb"=(?:[^\",]*[.eE][^\",]*[iu]|-\d+u)(?:,|$)")
NANOSECONDS = {"ns": 1, "us": 1000, "ms": 1_000_000, "s": 1_000_000_000}
_PLAUSIBLE_NS = range(10**17, 2**63)
"""1973 to 2262: what is given in another unit lies outside."""


@dataclass(frozen=True, slots=True)
class BadLine:
    """`number` counts from 1."""

    number: int
    line: bytes
    reason: str


@dataclass(frozen=True, slots=True)
class Point:
    """A line taken apart, unescaped. Field values as they are written: `20.5`, `4i`, `"text"`."""

    measurement: str
    tags: dict[str, str]
    fields: dict[str, str]
    stamp: int


class Checker:
    """Checks lines as InfluxDB would; remembers the series that were right."""

    def __init__(self, precision: str = "ns") -> None:
        self._factor = NANOSECONDS[precision]
        self._good: set[bytes] = set()

    def check(self, line: bytes) -> str | None:
        """Why the line cannot be taken; None if it can."""
        space = line.find(b" ")
        if line[:space] in self._good:  # nearly every line: its series is known
            match = _REST.fullmatch(line, space + 1)
            if match is None:
                return _why(line)
            fields, stamp = match.groups()
        else:
            match = _LINE.fullmatch(line)
            if match is None:
                return _why(line)
            series, fields, stamp = match.groups()
            reason = _wrong_tags(series)
            if reason:
                return reason
            if len(self._good) < 10_000:
                self._good.add(series)
        if not fields.isascii():
            try:
                fields.decode()
            except UnicodeDecodeError:
                return "not UTF-8"
        if b"time=" in fields and any(key == b"time" for key, _ in _FIELD_PAIR.findall(fields)):
            return "a field cannot be named time"
        if (b"i" in fields or b"u" in fields) and _BAD_NUMBER.search(_STRING.sub(b'""', fields)):
            return "not an integer where one is written"
        if int(stamp) * self._factor not in _PLAUSIBLE_NS:
            return f"the time {stamp.decode()} lies before 1973 or after 2262 in this precision: see --precision"
        return None

    def split(self, lines: Iterable[bytes], first: int = 1) -> tuple[list[bytes], list[BadLine], int]:
        """The good lines, in nanoseconds, the bad ones, and the number of the next line. Empty lines and comments are
        neither.
        """
        good: list[bytes] = []
        bad: list[BadLine] = []
        number = first - 1
        for number, raw in enumerate(lines, first):
            line = raw.rstrip(b"\r")
            if not line or line.startswith(b"#"):
                continue
            reason = self.check(line)
            if reason is not None:
                bad.append(BadLine(number, line, reason))
            elif self._factor == 1:
                good.append(line)
            else:
                head, _, stamp = line.rpartition(b" ")
                good.append(b"%s %d" % (head, int(stamp) * self._factor))
        return good, bad, number + 1


def _wrong_tags(series: bytes) -> str:
    """What is wrong with the tags of a series; empty if nothing is."""
    keys = [key for key, _ in _PAIR.findall(series)]
    try:
        series.decode()
    except UnicodeDecodeError:
        return "not UTF-8"
    if len(set(keys)) != len(keys):
        return "a tag is given twice"
    if b"time" in keys:
        return "a tag cannot be named time"
    if series.endswith(b"\\"):
        return "a backslash at the end of a tag"
    return ""


def _why(line: bytes) -> str:
    match = _LINE_START.match(line)
    if match is None:
        return "no measurement and tags that could be read"
    if match[2] is None:
        return "no field that could be read"
    rest = line[match.end() :]
    if not rest.strip():
        return "no time: the server would take the time of its arrival"
    return "something that is neither a field nor a time after the fields"


def _plain(text: bytes) -> str:
    return _ESCAPED.sub(rb"\1", text).decode(errors="replace")


def parse(line: bytes) -> Point | None:
    """A checked line, taken apart; None if it is no line protocol."""
    match = _LINE.fullmatch(line)
    if match is None:
        return None
    series, fields, stamp = match.groups()
    measurement = re.match(_MEASUREMENT, series)
    assert measurement is not None
    tags = {_plain(key): _plain(value) for key, value in _PAIR.findall(series[measurement.end() :])}
    values = {_plain(key): value.decode(errors="replace") for key, value in _FIELD_PAIR.findall(fields)}
    return Point(_plain(measurement.group()), tags, values, int(stamp))


def value_of(text: str) -> float | int | bool | str:
    """A field's value in Python's types."""
    if text.startswith('"'):
        return text[1:-1].replace('\\"', '"').replace("\\\\", "\\")
    if text[0] in "tTfF":
        return text[0] in "tT"
    return int(text[:-1]) if text[-1] in "iu" else float(text)


def kind_of(text: str) -> str:
    """A field's type as InfluxDB calls it: float, integer, unsigned, string or boolean."""
    if text.startswith('"'):
        return "string"
    if text[0] in "tTfF":
        return "boolean"
    return {"i": "integer", "u": "unsigned"}.get(text[-1], "float")


def blocks(data: Iterator[bytes]) -> Iterator[list[bytes]]:
    """Lines of a file that is read in pieces."""
    rest = b""
    for piece in data:
        *lines, rest = (rest + piece).split(b"\n")
        yield lines
    if rest:
        yield [rest]
