"""Bad lines that a server names by their number, as InfluxDB 3 and InfluxDB Cloud do. Pure.

InfluxDB 3 Core (its public source, influxdb3_server and influxdb3_write): `error`, and in `data` for each refused line
`line_number`, counted from 1, `error_message` and `original_line`. That is cut to 20 bytes, or whole in older versions,
and rendered anew, without quotes and escapes: it only confirms the own line of that number.

Cloud Serverless, Dedicated and Clustered (their documentation, "Troubleshoot issues writing data"): `message` has a
line for each of at most 100 refused points, `line` is the number of the first. Whether the others are stored is a
matter of the cluster's configuration: they are sent again, which overwrites what is there.
"""

from __future__ import annotations

import json
import re
from collections.abc import Iterator, Mapping, Sequence
from typing import Any, NamedTuple

from agent.util.http import Answer

EMPTY_WRITE = b"incoming write was empty"
"""What InfluxDB 3 Core answers to an empty write that it would take, with status 400."""
MOST_NAMED = 100
"""Whoever names so many can have more to name."""
_SHOWN = 20
_PARTIAL = "partial write"
_CLOUD = re.compile(r"(?:^|on line\(s\):)[ \t]*error parsing line (\d{1,9}) \(1-based\): *(.*)", re.MULTILINE)


class Numbered(NamedTuple):
    """Index → the server's words, of own lines. `others_stored`: it has all others, and says so."""

    lines: Mapping[int, str]
    others_stored: bool


def document(answer: Answer) -> dict[str, Any]:
    """The answer's JSON object; empty if it is none."""
    try:
        found = json.loads(answer.body)
    except (ValueError, RecursionError):
        return {}
    return found if isinstance(found, dict) else {}


def is_refusal_of_lines(said: Mapping[str, Any]) -> bool:
    """Whether it is InfluxDB 3's own JSON about lines."""
    return isinstance(said.get("error"), str) and any("line_number" in item for item in _items(said))


def numbered_lines(lines: Sequence[bytes], answer: Answer) -> Numbered | None:
    """What the answer says about these lines; None where it names none of them by number."""
    if not lines or any(line.replace(rb"\"", b"").count(b'"') % 2 for line in lines):
        return None  # a string with a raw newline: these are not lines as the server counts them
    said = document(answer)
    named = dict(_of_core(lines, said) if is_refusal_of_lines(said) else _of_cloud(said))
    found = {number - 1: words for number, words in named.items() if 1 <= number <= len(lines)}
    if not found:
        return None
    items = len(list(_items(said)))
    sure = str(said.get("error")).startswith(_PARTIAL) and len(found) == items < MOST_NAMED
    return Numbered(found, sure)


def _items(said: Mapping[str, Any]) -> Iterator[Mapping[str, Any]]:
    """Of InfluxDB 3: an array, or one object where all was refused."""
    data = said.get("data")
    return (item for item in (data if isinstance(data, list) else [data]) if isinstance(item, dict))


def _of_core(lines: Sequence[bytes], said: Mapping[str, Any]) -> Iterator[tuple[int, str]]:
    for item in _items(said):
        number, shown = item.get("line_number"), str(item.get("original_line") or "")
        if type(number) is int and 1 <= number <= len(lines) and _begins(lines[number - 1], shown):
            yield number, str(item.get("error_message") or said["error"])


def _begins(line: bytes, shown: str) -> bool:
    """Whether a line can be the one that is shown, as far as that says anything."""
    head = _plain(shown.encode()[:_SHOWN].decode("utf-8", "ignore"))
    return _plain(line.decode("utf-8", "replace").lstrip()).startswith(head)


def _plain(text: str) -> str:
    return text.replace("\\", "").replace('"', "")


def _of_cloud(said: Mapping[str, Any]) -> Iterator[tuple[int, str]]:
    message, first = str(said.get("message") or ""), said.get("line")
    if said.get("code") != "invalid" or "on line(s)" not in message:
        return
    found = [(int(number), words.strip()) for number, words in _CLOUD.findall(message)]
    if not found and type(first) is int:
        found = [(first, message)]
    yield from found
