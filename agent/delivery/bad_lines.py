"""Finding the bad lines of a refused batch. Pure: own lines are matched against what the server says.

The server's message is never cut up to get lines out of it (InfluxDB 2.9.1, recorded): lines are quoted as they are,
raw newlines in strings included, but without leading spaces, with U+FFFD for bad UTF-8, and a quote that is not closed
swallows the lines after it. InfluxDB 3 names lines by number (numbered_lines.py).

Cost, in requests, of a batch of n lines with k bad ones. The message names lines (400), or field and type (422): 2, or
3 for each kind of trouble; the retention: 1. It helps nothing: 1 for the question whether the request as such is
refused, then halving: at most 1 + 2k (⌈log₂(n / k)⌉ + 2); 28 for one among 5,000.
"""

from __future__ import annotations

import re
from collections.abc import Iterator, Sequence
from datetime import datetime
from math import inf
from typing import NamedTuple

from agent.points.line_protocol import kind_of, parse
from agent.points.schema import MEASUREMENT, quantity_of

_MARK = "unable to parse '"
_END = "': "
_MAX_ENDS = 100
_BAD_UTF8 = re.compile("\ufffd+")  # one for each byte or one for a run of them, as each JSON library likes
_WHOLE = re.compile(rb"(?:[^\\, ]|\\.)+(?:,(?:[^\\ ]|\\.)+)? (?:[^\\=]|\\.)+=.* -?\d+\s*$", re.DOTALL)
_STAMP = re.compile(rb" (-?\d{1,19})\s*$")
_CONFLICT = re.compile(
    r'input field "(?P<field>.*?)" on measurement "(?P<measurement>.*?)" is '
    r"(?:type (?P<kind>\w+), already exists as type \w+|(?P<name>invalid))",
    re.DOTALL,
)
_OWN_ID = re.compile(r"writes under its own id only: .* is not '([A-Za-z0-9._-]{1,64})'$", re.DOTALL)
_MOMENT = r"(\d{4}-\d\d-\d\dT\d\d:\d\d:\d\d)(?:\.(\d{1,9}))?Z"
_BOUND = re.compile("(Lower|Upper) Bound at " + _MOMENT)
_NEWEST = re.compile("()newest point .* at " + _MOMENT + " dropped because", re.DOTALL)
_DROPPED = re.compile(r"dropped=(\d{1,18})\b")
_OLD = "points beyond retention policy"  # up to about 2.7.11: without a bound and without times


class Trouble(NamedTuple):
    """What a 422 names. `reason` is the dead letter's short code, `lines` the indexes of own lines it applies to.

    `theirs`: the type sent is the data model's, so what is stored there is wrong; somebody can mend that.
    """

    reason: str
    lines: list[int]
    theirs: bool = False


def as_quoted(line: bytes) -> str:
    """A line as the server would quote it."""
    return _comparable(line.decode("utf-8", "replace").lstrip(" \t\0").rstrip("\r"))


def _comparable(text: str) -> str:
    return _BAD_UTF8.sub("\ufffd", text)


def is_whole(line: bytes) -> bool:
    """Whether a line looks like a point with a time stamp, and not like the rest of a string with a raw newline."""
    return _WHOLE.match(line) is not None


def named_lines(lines: Sequence[bytes], message: str) -> dict[int, str]:
    """Index → reason of the own lines that a 400's message says it cannot parse. Never a line only quoted in passing.

    A line counts when it stands right after the mark and ends at `': ` or, where it swallowed what follows, at a
    newline; then lines that continue it and are no points of their own go with it.
    """
    index: dict[str, list[int]] = {}
    for number, line in enumerate(lines):
        index.setdefault(as_quoted(line), []).append(number)
    text = _comparable(message)
    found: dict[int, str] = {}
    at = text.find(_MARK)
    while at >= 0:
        start = at + len(_MARK)
        stop = text.find("\n", start)
        stop = len(text) if stop < 0 else stop
        end = next((end for end in _ends(text, start, stop) if text[start:end].rstrip("\r") in index), None)
        if end is not None:
            reason = text[end + len(_END) : stop] if end < stop else "swallows the lines after it"
            for number in index[text[start:end].rstrip("\r")]:
                found[number] = reason
                if end == stop:
                    found.update(dict.fromkeys(_continuation(lines, number, text, stop), reason))
        at = text.find(_MARK, start if end is None else end)
    return found


def _ends(text: str, start: int, stop: int) -> Iterator[int]:
    """Where the quoted line can end, the longest first: at the line's end, or before one of its `': `."""
    if stop < len(text):  # not where a message was cut short: a piece of one line can equal another
        yield stop
    ends: list[int] = []
    end = text.find(_END, start, stop)
    while end >= 0 and len(ends) < _MAX_ENDS:
        ends.append(end)
        end = text.find(_END, end + 1, stop)
    yield from reversed(ends)


def _continuation(lines: Sequence[bytes], number: int, text: str, at: int) -> Iterator[int]:
    for follower in range(number + 1, len(lines)):
        quoted = as_quoted(lines[follower])
        if is_whole(lines[follower]) or not text.startswith(quoted, at + 1):
            return
        yield follower
        at += 1 + len(quoted)


def trouble(lines: Sequence[bytes], message: str) -> Trouble | None:
    """What a 422's message names and the own lines that can be meant; None for a text that is not known.

    Only the first of several kinds of trouble is named: what remains has to be sent again.
    """
    match = _CONFLICT.search(message)
    if match and "partial write" in message:
        wanted = _comparable(match["measurement"]), _comparable(match["field"]), match["kind"]
        reason = "field_name" if match["name"] else "type_conflict"
        quantity = quantity_of(match["field"]) if match["measurement"] == MEASUREMENT else None
        theirs = quantity is not None and quantity.kind == match["kind"]
        return Trouble(reason, [n for n, line in enumerate(lines) if _conflicts(line, *wanted)], theirs)
    if is_retention(message):
        bounds = _moments(_BOUND, message)
        lower = [at for side, at in bounds if side == "Lower"]
        upper = [at for side, at in bounds if side == "Upper"]
        first, last = max(lower, default=-inf), min(upper, default=inf)
        stamps = ((n, found[1]) for n, line in enumerate(lines) if (found := _STAMP.search(line)))
        return Trouble("retention", [n for n, stamp in stamps if not first <= int(stamp) <= last])
    return None


def others_lines(lines: Sequence[bytes], message: str) -> set[int] | None:
    """The indexes of own lines that the center's 403 means: those that name another device than the token's (the agent
    had another id when they were measured). None: the 403 is about something else.
    """
    own = _OWN_ID.search(message)
    if own is None:
        return None
    named = ((n, point.tags) for n, line in enumerate(lines) if (point := parse(line)) is not None)
    return {n for n, tags in named if {tags.get("clientId", own[1]), tags.get("device", own[1])} != {own[1]}}


def is_retention(message: str) -> bool:
    """Whether a 422 is about points older than the bucket keeps them, in either wording."""
    return "partial write" in message and ("outside retention policy" in message or _OLD in message)


def dropped(message: str) -> int | None:
    """How many points a partial write left out, as its message ends: of one kind of trouble."""
    found = _DROPPED.findall(message)
    return int(found[-1]) if found else None


def expired_lines(lines: Sequence[bytes], message: str) -> set[int] | None:
    """The indexes of exactly the own lines that the retention left out; the server has all others. None: not known.

    Source: InfluxDB's coordinator/points_writer.go (MapShards, WritePointsPrivileged). An expired point is stored all
    the same where the request has a good one for its shard, so those left out are the oldest ones, `dropped` in number;
    and no other point was refused, or that would have been said instead.
    """
    count = dropped(message)
    if not is_retention(message) or "Upper Bound" in message or not count or count > len(lines):
        return None
    stamps = [int(found[1]) if is_whole(line) and (found := _STAMP.search(line)) else None for line in lines]
    known = [(stamp, n) for n, stamp in enumerate(stamps) if stamp is not None]
    if len(known) < len(lines):  # a string with a raw newline: these are not lines as the server counts them
        return None
    known.sort()
    newest = known[count - 1][0]
    if count < len(known) and known[count][0] == newest:
        return None
    if any(said != newest for _, said in _moments(_NEWEST, message)):
        return None
    return {n for _, n in known[:count]}


def _conflicts(line: bytes, measurement: str, field: str, kind: str | None) -> bool:
    point = parse(line)
    if point is None:
        return False
    kinds = {_comparable(name): kind_of(value) for name, value in point.fields.items()}
    return _comparable(point.measurement) == measurement and field in kinds and kind in (None, kinds[field])


def _moments(pattern: re.Pattern[str], message: str) -> list[tuple[str, int]]:
    """What stands before each moment, and the moment in Unix nanoseconds."""
    bounds = []
    for side, time, fraction in pattern.findall(message):
        try:
            seconds = int(datetime.fromisoformat(time + "+00:00").timestamp())
        except ValueError:  # digits, but no date
            continue
        bounds.append((side, seconds * 1_000_000_000 + int(fraction.ljust(9, "0"))))
    return bounds


def head(lines: Sequence[bytes], most: int) -> Sequence[bytes]:
    """The first lines, at most so many, up to where a point begins if there is such a place in their second half."""
    if len(lines) <= most:
        return lines
    return lines[: next((n for n in range(most, most // 2, -1) if is_whole(lines[n])), most)]


def halves(lines: Sequence[bytes]) -> tuple[tuple[bytes, ...], tuple[bytes, ...]]:
    """Two parts of two lines or more, cut where a point begins if there is such a place after the middle."""
    middle = len(lines) // 2
    cut = next((n for n in range(middle, middle + len(lines) // 4 + 1) if is_whole(lines[n])), middle)
    return tuple(lines[:cut]), tuple(lines[cut:])
