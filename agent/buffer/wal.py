"""The write-ahead log of a database, without SQLite, which goes on in silence without what is behind a damaged frame.

SQLite file format, section 4.1.
"""

from __future__ import annotations

import contextlib
import os
import struct
from collections import Counter
from collections.abc import Iterator
from pathlib import Path
from typing import NamedTuple

from agent.buffer.database import DATABASE, PAGE_BYTES

LOST_LOG = DATABASE + "-wal.lost"
"""The log as it was, when SQLite would have gone on without part of it."""
SIZES = {2**n for n in range(9, 17)}
"""Of a page, in bytes."""
HEADER, _FRAME_HEADER = 32, 24
_MAGIC = 0x377F0682
_MAX_PAGE = 2**32 - 2
"""SQLite's own limit; 2**32 - 1 is what an erased block of a card says."""


class Frame(NamedTuple):
    """A page in the log. `commits`: a transaction ends here."""

    page: int
    commits: bool
    offset: int


class File:
    """A file that may be large, read where it is asked for: what the card does not give, or is not there, is zeros.

    Not mapped into memory: there, a sector that cannot be read ends the process.
    """

    def __init__(self, path: Path) -> None:
        self._number = -1
        self._size = 0
        with contextlib.suppress(OSError):
            self._number = os.open(path, os.O_RDONLY | os.O_CLOEXEC | os.O_NOFOLLOW | os.O_NONBLOCK)
            self._size = os.fstat(self._number).st_size

    def __del__(self) -> None:
        if self._number >= 0:
            os.close(self._number)

    def __len__(self) -> int:
        return self._size

    def __getitem__(self, part: slice) -> bytes:
        start, stop, _ = part.indices(self._size)
        try:
            data = os.pread(self._number, max(stop - start, 0), start)
        except OSError:
            data = b""
        return data.ljust(max(stop - start, 0), b"\0")


def frames(wal: bytes | File, page_size: int) -> list[Frame]:
    """The frames of the log's present round, up to the last complete transaction. Checksums are not asked for."""
    found: list[Frame] = []
    salts = _salts(wal, page_size)
    for offset, page, size, of in _headers(wal, page_size):
        if of == salts:
            found.append(Frame(page, size != 0, offset + _FRAME_HEADER))
    last = max((n for n, frame in enumerate(found) if frame.commits), default=-1)
    return found[: last + 1]


def _headers(wal: bytes | File, page_size: int) -> Iterator[tuple[int, int, int, bytes]]:
    """Of all that can be a frame: where it is, its page, the size of the database if it commits, and its salts."""
    for offset in range(HEADER, len(wal) - _FRAME_HEADER - page_size + 1, _FRAME_HEADER + page_size):
        head = wal[offset : offset + 16]
        page, size = struct.unpack_from(">II", head)
        if 0 < page <= _MAX_PAGE:
            yield offset, page, size, head[8:]


def _salts(wal: bytes | File, page_size: int) -> bytes:
    """What marks the frames of the present round. Where the header is lost, maybe with what follows it: a round begins
    at the beginning, so the first that stands in two frames; noise repeats nothing.
    """
    if _header_is_sound(wal[:HEADER]):
        return wal[16:24]
    found = Counter(salts for _, _, _, salts in _headers(wal, page_size))
    return next((salts for salts, number in found.items() if number > 1), next(iter(found), b""))


def _header_is_sound(header: bytes) -> bool:
    """Whether the header of a log has the checksum that is written in it."""
    magic = int.from_bytes(header[:4], "big")
    if len(header) < HEADER or magic & ~1 != _MAGIC:
        return False
    first = second = 0
    words = struct.unpack(f"{'>' if magic & 1 else '<'}6I", header[:24])
    for one, other in zip(words[::2], words[1::2], strict=True):
        first = (first + one + second) & 0xFFFFFFFF
        second = (second + other + first) & 0xFFFFFFFF
    return struct.pack(">II", first, second) == header[24:]


def transactions(wal: bytes | File) -> list[int]:
    """By which frame of the log, counted from 1, each of its whole transactions ends.

    A power cut leaves at most the one that was being written behind what SQLite accepts. More means that something in
    the middle was damaged, and SQLite would silently go on without them.
    """
    size = int.from_bytes(wal[8:12], "big")
    size = size if size in SIZES else PAGE_BYTES
    return [frame.offset // (_FRAME_HEADER + size) + 1 for frame in frames(wal, size) if frame.commits]
