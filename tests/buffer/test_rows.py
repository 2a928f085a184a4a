"""Rows: what is packed comes out again, what cannot be one is refused, and times are given and taken back."""

import struct
import uuid
import zlib

import pytest
from hypothesis import given
from hypothesis import strategies as st

from agent.buffer.rows import (
    EARLIEST_NS,
    MAX_RAW,
    DamagedRow,
    Header,
    Kind,
    check,
    compress,
    decompress,
    joined,
    lines_of,
    pack,
    read_header,
    recovered,
    unpack,
)
from tests.buffers import BOOT

MS = 1_000_000


def tag_of(header, value=b"", key=5, generation=3):
    return header.encode(value, key, generation)


@given(
    st.sampled_from(list(Kind)),
    st.integers(0, MAX_RAW),
    st.integers(0, MAX_RAW),
    st.integers(-(2**63), 2**63 - 1),
    st.integers(-(2**63), 2**63 - 1),
    st.integers(0, MAX_RAW),
    st.integers(0, 255),
    st.integers(1, 2**62),
    st.integers(0, 2**63),
)
def test_a_header_reads_back_as_it_was_written(kind, count, health, first, last, raw, thin, key, generation):  # noqa: PLR0917
    header = Header(kind, max(count, health), health, first, last, raw, thin, BOOT if kind == Kind.UNDATED else "")
    found = read_header(tag_of(header, b"value", key, generation))
    assert found == Header(*(getattr(header, name) for name in list(Header.__slots__)[:8]), key, generation)


@pytest.mark.parametrize(
    ("header", "good"),
    [
        (Header(Kind.PENDING, 2, 2), True),
        (Header(Kind.PENDING, 2, 3), False),
        (Header(Kind.PENDING, 2, raw=MAX_RAW), True),
        (Header(Kind.PENDING, 2, raw=MAX_RAW + 1), False),
        (Header(Kind.PENDING, MAX_RAW), True),
        (Header(Kind.PENDING, MAX_RAW + 1), False),
        (Header(6, 2), False),
        (Header(0, 2), False),
    ],
)
def test_a_header_that_cannot_be_is_refused_though_its_checksum_is_right(header, good):
    if good:
        assert read_header(tag_of(header)).count == header.count
    else:
        with pytest.raises(DamagedRow):
            read_header(tag_of(header))


def with_checksum(body):
    return body + struct.pack("<I", zlib.crc32(body))


@pytest.mark.parametrize(
    "change",
    [
        lambda tag: with_checksum(b"\xb4" + tag[1:-4]),
        lambda tag: with_checksum(tag[:1] + b"\x03" + tag[2:-4]),
        lambda tag: with_checksum(tag[:1] + b"\x00" + tag[2:-4]),
        lambda tag: with_checksum(tag[:-8]),  # without the check of the value
        lambda tag: with_checksum(tag[:-8] + b"\x80" + tag[-8:-4]),  # a range that is cut short
        lambda tag: with_checksum(tag[:-8] + b"\x01" + tag[-8:-4]),  # half of one
        lambda tag: tag[:36],
        lambda tag: b"",
        lambda tag: None,
        lambda tag: "text",
    ],
)
def test_what_is_no_header_is_refused(change):
    tag = tag_of(Header(Kind.PENDING, 2), b"value")
    assert with_checksum(tag[:-4]) == tag
    with pytest.raises(DamagedRow):
        check(change(tag), b"value", 5)


def test_points_without_a_time_name_their_boot_and_no_others_do():
    lines = [b"m a=1 5"]
    assert read_header(tag_of(pack(lines, Kind.UNDATED, boot=BOOT).header)).boot == BOOT
    assert pack(lines, Kind.PENDING, boot=BOOT).header.boot == ""
    boot = str(uuid.UUID(int=0))
    assert read_header(tag_of(pack(lines, Kind.UNDATED, boot=boot).header)).boot == boot


def test_a_row_says_what_is_in_it():
    row = pack(
        [b"m a=1 9", b"agent,x=1 a=1 -5", b"agent a=1 7", b"agents a=1 8"], Kind.SUSPECT, thin=2, replaced=((8, 9),)
    )
    text = b"m a=1 9\nagent,x=1 a=1 -5\nagent a=1 7\nagents a=1 8\n"
    assert row.header == Header(Kind.SUSPECT, 4, 2, -5, 9, len(text), 2, replaced=((8, 9),))
    assert decompress(row.value) == text
    assert row.value[:10] == compress(b"")[:10], "no time in it: the same points are the same bytes"
    assert pack([b"no stamp"], Kind.PENDING).header.last_ns == 0


def test_a_row_with_other_lines_than_its_header_says_is_damaged():
    value = compress(b"m a=1 5\nm a=1 6\n")
    for count, raw, good in ((2, 16, True), (1, 16, False), (3, 16, False), (2, 15, True), (2, 14, False)):
        tag = tag_of(Header(Kind.PENDING, count, raw=raw), value)
        if good:
            assert unpack(tag, value, 5)[1] == [b"m a=1 5", b"m a=1 6"]
        else:
            with pytest.raises(DamagedRow):
                unpack(tag, value, 5)


def test_what_is_unpacked_has_a_bound_over_all_members():
    value = compress(b"x" * 10) + compress(b"y" * 10)
    assert decompress(value, 21) == b"x" * 10 + b"y" * 10
    for limit in (5, 15):
        with pytest.raises(DamagedRow, match="cut short, or longer"):
            decompress(value, limit)
    for broken in (value[:-1], value + b"z", b"no gzip"):
        with pytest.raises(DamagedRow):
            decompress(broken)
    assert decompress(b"") == b""
    assert lines_of(compress(b"a\nb\n")) == [b"a", b"b"]


@pytest.mark.parametrize(
    ("lines", "good"),
    [
        ([b"m a=1 %d" % EARLIEST_NS], True),
        ([b"m a=1 %d" % (EARLIEST_NS - 1)], False),
        ([b"m a=1 %d" % EARLIEST_NS, b"m a=1 5"], False),
        ([b"m a=1"], False),
        ([b'{"line":"m a=1 %d' % EARLIEST_NS], False),
        ([b"m a=1 -%d" % EARLIEST_NS], False),
        ([], False),
    ],
)
def test_of_a_row_without_its_header_lines_are_believed_that_have_a_time_of_this_age(lines, good):
    value = compress(b"".join(line + b"\n" for line in lines))
    if good:
        assert recovered(value) == lines
    else:
        with pytest.raises(DamagedRow):
            recovered(value)


@pytest.mark.parametrize(
    ("ranges", "found"),
    [
        ([], ()),
        ([(3, 5), (1, 2)], ((1, 5),)),
        ([(1, 2), (4, 5)], ((1, 2), (4, 5))),
        ([(1, 9), (2, 3), (9, 12)], ((1, 12),)),
        ([(7, 7), (7, 7)], ((7, 7),)),
    ],
)
def test_keys_are_told_in_as_few_ranges_as_can_be(ranges, found):
    assert joined(ranges) == found
