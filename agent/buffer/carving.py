"""Reading rows straight from the pages of a damaged database and its log, where SQLite itself gives up.

SQLite file format, sections 1.6 (b-tree pages) and 2.1 (records). Every row carries a CRC, so a guess that is wrong
does no harm.
"""

from __future__ import annotations

import contextlib
import struct
from bisect import bisect_left, bisect_right
from collections.abc import Iterator
from pathlib import Path
from typing import NamedTuple

from agent.buffer.database import DATABASE, PAGE_BYTES
from agent.buffer.dead_letters import BASE
from agent.buffer.ledger import Saved
from agent.buffer.rows import LAST_KEY, DamagedRow, Header, Kind, check, pack, read_header, recovered
from agent.buffer.wal import LOST_LOG, SIZES, File, frames

_LEAF = 0x0D
_COLUMNS = 12
_KEY, _TAG, _VALUE = 1, 7, 11
_MAX_VALUE = 64 * 2**20
_SLICE = 256
"""Pages that are looked at in one go."""


class Pages:
    """The newest version of each page: from the log, else from the database file."""

    def __init__(self, home: Path) -> None:
        self._data = File(home / DATABASE)
        lost, wal = File(home / LOST_LOG), File(home / (DATABASE + "-wal"))
        wal = lost if len(lost) else wal
        sizes = (int.from_bytes(self._data[16:18], "big"), int.from_bytes(wal[8:12], "big"), PAGE_BYTES)
        self.size = next(size for size in sizes if size in SIZES)
        self._wal = wal
        self._newest = {frame.page: frame.offset for frame in frames(wal, self.size)}
        self._in_file = len(self._data) // self.size
        self._beyond = sorted(number for number in self._newest if number > self._in_file)

    def numbers(self) -> Iterator[int]:
        """Of all pages, rising."""
        yield from range(1, self._in_file + 1)
        yield from self._beyond

    def get(self, number: int) -> bytes:
        """A page, numbered from 1; empty if there is none."""
        if number in self._newest:
            start = self._newest[number]
            return self._wal[start : start + self.size]
        return self._data[(number - 1) * self.size : number * self.size] if number > 0 else b""

    def free(self) -> bytearray:
        """Of each of numbers(), whether the page holds nothing any more, as far as the list of them can be followed."""
        free = bytearray(self._in_file + len(self._beyond))
        trunk = int.from_bytes(self.get(1)[32:36], "big")
        while (at := self._place(trunk)) is not None and not free[at] and (page := self.get(trunk)):
            free[at] = True
            count = min(int.from_bytes(page[4:8], "big"), len(page) // 4 - 2)
            for number in struct.unpack_from(f">{max(count, 0)}I", page, 8) if len(page) >= 8 else ():
                if (leaf := self._place(number)) is not None:
                    free[leaf] = True
            trunk = int.from_bytes(page[:4], "big")
        return free

    def _place(self, number: int) -> int | None:
        """Where a page stands among numbers()."""
        if number <= self._in_file:
            return number - 1 if number > 0 else None
        at = bisect_left(self._beyond, number)
        return self._in_file + at if at < len(self._beyond) and self._beyond[at] == number else None


def _varint(data: bytes, at: int) -> tuple[int, int]:
    number = 0
    for step in range(8):
        byte = data[at + step]
        number = number << 7 | byte & 0x7F
        if byte < 0x80:
            return number, at + step + 1
    return number << 8 | data[at + 8], at + 9


def _payload(pages: Pages, page: bytes, at: int) -> bytes:
    """What a cell of a leaf holds, its overflow pages included. Raises IndexError for what cannot be."""
    length, at = _varint(page, at)
    _, at = _varint(page, at)
    if length > _MAX_VALUE:
        raise IndexError
    most, least = pages.size - 35, (pages.size - 12) * 32 // 255 - 23
    local = length
    if length > most:
        local = least + (length - least) % (pages.size - 4)
        local = local if local <= most else least
    parts = [page[at : at + local]]
    missing = length - len(parts[0])
    following = int.from_bytes(page[at + local : at + local + 4], "big") if missing else 0
    while missing > 0:
        more = pages.get(following)
        if not more:
            raise IndexError
        parts.append(more[4 : 4 + missing])
        missing -= len(parts[-1])
        following = int.from_bytes(more[:4], "big")
    return b"".join(parts)


def _record(payload: bytes) -> list[object]:
    """The columns of a record: numbers, texts and blobs; others are None."""
    end, at = _varint(payload, 0)
    kinds = []
    while at < end:
        kind, at = _varint(payload, at)
        kinds.append(kind)
    if len(kinds) != _COLUMNS:
        raise IndexError
    columns: list[object] = []
    for kind in kinds:
        size = (0, 1, 2, 3, 4, 6, 8, 8, 0, 0, 0, 0)[kind] if kind < 12 else (kind - 12) // 2
        raw = payload[at : at + size]
        at += size
        if 1 <= kind <= 6:
            columns.append(int.from_bytes(raw, "big", signed=True))
        elif kind >= 12:
            columns.append(raw if kind % 2 == 0 else raw.decode("utf-8", "replace"))
        else:
            columns.append(kind - 8 if kind in (8, 9) else None)
    return columns


class Cell(NamedTuple):
    """A row found in a page: where it is, and what stands in it."""

    page: int
    at: int
    key: object
    tag: object
    value: object


def cells(pages: Pages) -> Iterator[Cell | None]:
    """All that looks like a row of the buffer, in the order of the pages; None now and then, for whoever has to do
    something else meanwhile.
    """
    free = pages.free()
    for looked, number in enumerate(pages.numbers()):
        if looked % _SLICE == 0:
            yield None
        page = pages.get(number)
        start = 100 if number == 1 else 0
        if free[looked] or len(page) < pages.size or (page[start] ^ _LEAF).bit_count() > 1:
            continue
        count = min(int.from_bytes(page[start + 3 : start + 5], "big"), (pages.size - start - 8) // 2)
        for cell in range(count):
            (at,) = struct.unpack_from(">H", page, start + 8 + 2 * cell)
            with contextlib.suppress(IndexError):
                yield _cell(pages, number, at)


def _cell(pages: Pages, number: int, at: int) -> Cell:
    columns = _record(_payload(pages, pages.get(number), at))
    return Cell(number, at, columns[_KEY], columns[_TAG], columns[_VALUE])


class Place(NamedTuple):
    """Where the latest version of a row is."""

    key: int
    generation: int
    page: int
    at: int


class Carved:
    """What was found: the places of the rows by rising key, and the ledgers. fill() has to be run first."""

    def __init__(self, home: Path, ledger_key: str) -> None:
        self._pages, self._ledger_key = Pages(home), ledger_key
        self.places: list[Place] = []
        self.ledgers: list[Saved] = []

    def fill(self) -> Iterator[None]:
        """Look at all pages, a slice at each step.

        Of several versions of a row the last one counts, and none whose points are in another row since.
        """
        best: dict[int, tuple[tuple[int, int, int], Place]] = {}
        merged: list[tuple[int, int, int]] = []
        for cell in cells(self._pages):
            if cell is None:
                yield
            elif cell.key == self._ledger_key:
                with contextlib.suppress(ValueError):
                    self.ledgers.append(Saved.decode(cell.value))
            elif (found := sound(cell.key, cell.tag, cell.value)) is not None:
                key, header, _ = found
                rank = header.generation, header.thin, header.count
                if key not in best or rank > best[key][0]:
                    best[key] = rank, Place(key, header.generation, cell.page, cell.at)
                merged += [(first, last, header.generation) for first, last in header.replaced]
        keys = sorted(best)
        for first, last, generation in merged:
            for key in keys[bisect_left(keys, first) : bisect_right(keys, last)]:
                if key in best and best[key][1].generation < generation:
                    del best[key]
        self.places = [place for _, (_, place) in sorted(best.items())]

    def read(self, place: Place) -> tuple[Header, bytes] | None:
        """Header and value of a row."""
        cell = _cell(self._pages, place.page, place.at)
        found = sound(cell.key, cell.tag, cell.value)
        return None if found is None else found[1:]


def sound(key: object, tag: object, value: object) -> tuple[int, Header, bytes] | None:
    """A row as it stands in a record: its key, header and value, or those of the lines that can still be read of it.
    None if it is no row, or of no use.
    """
    try:
        header = read_header(tag)
        found = key if header.key is None else header.key  # by the check, and not by the record
        if type(found) is int and 0 < found % BASE <= LAST_KEY:
            check(tag, value, found)
            assert isinstance(value, bytes)
            return found, header, value
    except DamagedRow:
        pass
    if type(key) is not int or not 0 < key <= LAST_KEY or not isinstance(value, bytes):
        return None
    try:
        row = pack(recovered(value), Kind.PENDING)
    except DamagedRow:
        return None
    return key, row.header, row.value
