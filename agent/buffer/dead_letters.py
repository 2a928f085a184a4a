"""Points the server will never take: kept with its reason, bounded, and given back by `rejected replay`."""

from __future__ import annotations

import json
from collections.abc import Sequence
from dataclasses import asdict

from agent.buffer.batch import DeadLetter
from agent.buffer.rows import MAX_LINES, DamagedRow, Header, Kind, Row, check, compress, count_health, lines_of

BASE = 1 << 62
"""Keys of dead letters begin here, above those of all points."""
MAX_MESSAGE = 500
"""Characters of the server's message that are kept."""


def pack(letters: Sequence[DeadLetter]) -> list[Row]:
    """Rows of these letters, each a gzip member of one JSON object a line."""
    rows = []
    for start in range(0, len(letters), MAX_LINES):
        some = letters[start : start + MAX_LINES]
        text = b"".join(
            json.dumps(
                asdict(letter)
                | {"line": letter.line.decode("utf-8", "surrogateescape"), "message": letter.message[:MAX_MESSAGE]},
                separators=(",", ":"),
            ).encode()
            + b"\n"
            for letter in some
        )
        value = compress(text)
        times = [letter.time_ns for letter in some]
        health = count_health(letter.line for letter in some)
        header = Header(Kind.DEAD, len(some), health, min(times), max(times), len(text))
        rows.append(Row(header, value))
    return rows


def unpack(tag: object, value: object, key: int) -> list[DeadLetter]:
    """The letters of a row. Raises DamagedRow."""
    check(tag, value, key)
    assert isinstance(value, bytes)
    return letters_of(value)


def letters_of(value: bytes) -> list[DeadLetter]:
    """The letters in the value of a row that was checked. Raises DamagedRow."""
    try:
        return [
            DeadLetter(
                str(row["line"]).encode("utf-8", "surrogateescape"),
                str(row["reason"]),
                str(row["message"]),
                int(row["time_ns"]),
            )
            for row in map(json.loads, lines_of(value))
        ]
    except (KeyError, TypeError, ValueError, RecursionError) as error:
        raise DamagedRow(str(error)) from error
