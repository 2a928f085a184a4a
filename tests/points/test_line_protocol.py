"""Line protocol from outside and from the buffer, taken apart."""

import pytest

from agent.points.line_protocol import kind_of, parse


@pytest.mark.parametrize(
    ("line", "measurement", "kinds"),
    [
        (b"m f=1 5", "m", {"f": "float"}),
        (rb"a\ b\,c,t=x\ y f=1i,g=2u,h=t 5", "a b,c", {"f": "integer", "g": "unsigned", "h": "boolean"}),
        (rb'm a\ b\=c="x, y=1 \" z",d=-1e5 5', "m", {"a b=c": "string", "d": "float"}),
        (b"m f=false,g=TRUE 5", "m", {"f": "boolean", "g": "boolean"}),
    ],
)
def test_fields_and_types_are_read_as_the_server_reads_them(line, measurement, kinds):
    point = parse(line)
    assert point.measurement == measurement
    assert {name: kind_of(value) for name, value in point.fields.items()} == kinds


@pytest.mark.parametrize("line", [b"", b"m,t=1", b"m f=1", b'm s="two\nlines",f=false 5', b"m f=nan 5"])
def test_what_is_no_line_is_not_taken_apart(line):
    assert parse(line) is None
