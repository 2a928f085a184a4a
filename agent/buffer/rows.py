"""A row of the buffer: a header, kept in the database beside the value, and a gzip member of newline-terminated lines.

Rows are compressed once (level 6, no time in the header) and joined into a request as they are: InfluxDB takes several
members one after another, but one damaged member fails the whole request, so a CRC over header and value is checked
before a row is used.
"""

from __future__ import annotations

import re
import struct
import uuid
import zlib
from collections.abc import Iterable, Sequence
from dataclasses import dataclass
from enum import IntEnum

MAX_LINES = 5000
"""Lines in a row, at most, when rows are merged or imported."""
LAST_KEY = 2**53
"""No greater key is ever given out."""
MAX_RAW = 256 * 2**20
"""Bytes of lines in a row that is believed, and lines: a forged header must not exhaust the memory."""
EARLIEST_NS = 10**17
"""March 1973: no boot clock ever shows as much, no point is older."""
HEALTH_PREFIXES = (b"agent,", b"agent ")

_MAGIC, _VERSION = 0xB5, 2
_HEADER = struct.Struct("<BBBBIIqqI")
_PLACE = struct.Struct("<qQ")
"""Version 2: key and generation follow; version 1 (0.1.0) has neither, nor what it replaced."""
_CRC = struct.Struct("<I")
_BOOT = 16
Ranges = tuple[tuple[int, int], ...]
"""Keys, as first and last of each run of them, ascending."""
_STAMP = re.compile(rb" (-?\d{1,19})(?=\n)")


class Kind(IntEnum):
    PENDING = 1
    """Waits to be delivered."""
    SUSPECT = 2
    """Part of a refused batch: delivered alone."""
    PARKED = 3
    """Refused for a reason nobody knows: tried again slowly."""
    UNDATED = 4
    """Waits for the clock; the trailing integer of a line is its boot-clock time."""
    DEAD = 5
    """Dead letters."""


class DamagedRow(ValueError):  # noqa: N818 - says what it is
    """A row that is not what was written."""


class MisplacedRow(DamagedRow):
    """A sound row that belongs under another key: the index that led to it is damaged."""


@dataclass(frozen=True, slots=True)
class Header:
    """What a row holds. `first_ns` and `last_ns` are Unix (undated: boot-clock) nanoseconds, the least and greatest.

    `thin` counts how often every second point was dropped; `raw` is the size of the lines in bytes; `boot` is the
    boot id of undated lines, else empty. `key` is where it was written, `generation` by which transaction; `replaced`
    are the keys of rows whose points it holds since: so that of several versions that are found in a damaged file each
    point is taken once.
    """

    kind: Kind
    count: int
    health: int = 0
    first_ns: int = 0
    last_ns: int = 0
    raw: int = 0
    thin: int = 0
    boot: str = ""
    key: int | None = None
    generation: int = 0
    replaced: Ranges = ()

    def encode(self, value: bytes, key: int, generation: int) -> bytes:
        """The tag of a row that is stored under this key by this transaction."""
        parts = [
            _HEADER.pack(
                _MAGIC, _VERSION, self.kind, self.thin, self.count, self.health, self.first_ns, self.last_ns, self.raw
            ),
            _PLACE.pack(key, generation),
            uuid.UUID(self.boot).bytes if self.boot else b"",
        ]
        before = key
        for first, last in self.replaced:
            parts += [_varint(first - before), _varint(last - first)]
            before = last
        parts.append(_CRC.pack(zlib.crc32(value)))
        body = b"".join(parts)
        return body + _CRC.pack(zlib.crc32(body))


@dataclass(frozen=True, slots=True)
class Row:
    """A row ready to be stored: `value` is the gzip member."""

    header: Header
    value: bytes


def read_header(tag: object) -> Header:
    """The header, checked by itself (version 1, of 0.1.0, has one check for header and value). Raises DamagedRow."""
    if not isinstance(tag, bytes) or len(tag) < _HEADER.size + _CRC.size:
        raise DamagedRow("no header")
    magic, version, number, thin, count, health, first, last, raw = _HEADER.unpack_from(tag)
    if magic != _MAGIC or version not in (1, _VERSION) or not health <= count <= MAX_RAW or raw > MAX_RAW:
        raise DamagedRow("not a header of this version")
    rest, key, generation = tag[_HEADER.size : -_CRC.size], None, 0
    if version == _VERSION and _CRC.pack(zlib.crc32(tag[: -_CRC.size])) != tag[-_CRC.size :]:
        raise DamagedRow("wrong checksum of the header")
    try:
        kind = Kind(number)
        if version == _VERSION:
            key, generation = _PLACE.unpack_from(rest)
            rest = rest[_PLACE.size : -_CRC.size]
        boot = str(uuid.UUID(bytes=rest[:_BOOT])) if kind == Kind.UNDATED else ""
        replaced = _ranges(key or 0, rest[_BOOT:] if boot else rest)
    except (ValueError, IndexError, struct.error) as error:
        raise DamagedRow(f"no header: {error}") from error
    return Header(kind, count, health, first, last, raw, thin, boot, key, generation, replaced)


def _varint(number: int) -> bytes:
    """Seven bits a byte, the lowest first; the highest bit says that another follows."""
    out = bytearray()
    while number > 0x7F:
        out.append(number & 0x7F | 0x80)
        number >>= 7
    return bytes((*out, number))


def _ranges(before: int, data: bytes) -> Ranges:
    numbers: list[int] = []
    number = shift = 0
    for byte in data:
        number |= (byte & 0x7F) << shift
        shift += 7
        if byte < 0x80:
            numbers.append(number)
            number = shift = 0
    if shift or len(numbers) % 2:
        raise ValueError("cut short")
    found = []
    for gap, length in zip(numbers[::2], numbers[1::2], strict=True):
        found.append((before + gap, before + gap + length))
        before = found[-1][1]
    return tuple(found)


def joined(ranges: Iterable[tuple[int, int]]) -> Ranges:
    """The same keys in as few ranges as can be."""
    found: list[tuple[int, int]] = []
    for first, last in sorted(ranges):
        if found and first <= found[-1][1] + 1:
            found[-1] = found[-1][0], max(found[-1][1], last)
        else:
            found.append((first, last))
    return tuple(found)


def check(tag: object, value: object, key: int) -> Header:
    """The header of a row whose CRC is right, as it was found under this key.

    Raises DamagedRow, or MisplacedRow where all but the key is right.
    """
    header = read_header(tag)
    assert isinstance(tag, bytes)
    if header.key is None:
        start, end = zlib.crc32(tag[: -_CRC.size]), tag[-_CRC.size :]
    else:
        start, end = 0, tag[-2 * _CRC.size : -_CRC.size]
    if not isinstance(value, bytes) or _CRC.pack(zlib.crc32(value, start)) != end:
        raise DamagedRow("wrong checksum")
    if header.key not in (None, key):
        raise MisplacedRow(f"row {header.key} was found as row {key}")
    return header


def compress(data: bytes) -> bytes:
    """One gzip member."""
    packer = zlib.compressobj(6, zlib.DEFLATED, 31)
    return packer.compress(data) + packer.flush()


def decompress(data: bytes, limit: int = MAX_RAW) -> bytes:
    """The content of one or more gzip members, up to `limit` bytes. Raises DamagedRow."""
    parts: list[bytes] = []
    while data:
        unpacker = zlib.decompressobj(31)
        try:
            parts.append(unpacker.decompress(data, limit))
        except zlib.error as error:
            raise DamagedRow(str(error)) from error
        limit -= len(parts[-1])
        if not unpacker.eof:
            raise DamagedRow("cut short, or longer than its header says")
        data = unpacker.unused_data
    return b"".join(parts)


def lines_of(data: bytes) -> list[bytes]:
    """The lines of a row or a request, without their newlines. Raises DamagedRow."""
    return decompress(data).split(b"\n")[:-1]


def recovered(value: bytes) -> list[bytes]:
    """The lines of a row whose header is lost, one at least, if they are points with a time.

    Undated lines end in the boot clock, which would be a wrong time, and dead letters are no points. Raises DamagedRow.
    """
    lines = lines_of(value)
    if not lines:
        raise DamagedRow("no line")
    for line in lines:
        stamp = line.rpartition(b" ")[2]
        if line.startswith(b"{") or not stamp.isdigit() or int(stamp) < EARLIEST_NS:
            raise DamagedRow("without its header nobody knows what this was")
    return lines


def is_health(line: bytes) -> bool:
    """A point of the agent about itself (measurement `agent`): counted apart."""
    return line.startswith(HEALTH_PREFIXES)


def count_health(lines: Iterable[bytes]) -> int:
    return sum(map(is_health, lines))


def pack(lines: Sequence[bytes], kind: Kind, *, boot: str = "", thin: int = 0, replaced: Ranges = ()) -> Row:
    """A row of these lines."""
    text = b"\n".join(lines) + b"\n"
    stamps = list(map(int, _STAMP.findall(text))) or [0]
    header = Header(
        kind,
        len(lines),
        count_health(lines),
        min(stamps),
        max(stamps),
        len(text),
        thin,
        boot if kind == Kind.UNDATED else "",
        replaced=replaced,
    )
    return Row(header, compress(text))


def unpack(tag: object, value: object, key: int) -> tuple[Header, list[bytes]]:
    """A checked row: its header and its lines. Raises DamagedRow."""
    header = check(tag, value, key)
    assert isinstance(value, bytes)
    lines = decompress(value, header.raw + 1).split(b"\n")[:-1]
    if len(lines) != header.count:
        raise DamagedRow(f"{len(lines)} lines instead of {header.count}")
    return header, lines
