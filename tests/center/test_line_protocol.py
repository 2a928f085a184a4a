"""Line protocol: what can be written is read back."""

import pytest
from hypothesis import HealthCheck, example, given, settings
from hypothesis import strategies as st

from center.line_protocol import DEVICE_TAGS, BadLinesError, encode, foreign, lines_of, parse
from center.stores.telemetry import Point

NAMES = st.text(st.characters(exclude_categories=["Cs"]), min_size=1, max_size=30)


VALUES = st.one_of(
    NAMES, st.integers(-(2**63), 2**63 - 1), st.floats(allow_nan=False, allow_infinity=False), st.booleans()
)


@given(
    st.dictionaries(NAMES, NAMES, max_size=4),
    st.dictionaries(NAMES, VALUES, min_size=1, max_size=4),
    NAMES,
    st.integers(0, 2**62),
)
@example({}, {"\t0": "0"}, "0", 0)
@settings(deadline=None, suppress_health_check=list(HealthCheck))
def test_every_point_that_can_be_written_is_read_back_as_it_was(tags, fields, measurement, t):
    point = Point(measurement, tags, fields, t)
    try:
        line = encode(point)
    except ValueError:
        return
    try:
        [(found,)] = parse(line.encode())
    except BadLinesError:  # what the parser cannot hold is refused, and not stored as something else
        return
    assert (found.measurement, found.tags, found.fields, found.time_ns) == (measurement, tags, fields, t)


@given(st.binary(max_size=200) | st.text('m,=" \\\n1', max_size=60).map(str.encode))
@settings(deadline=None)
def test_lines_are_all_there_is_between_newlines(body):
    assert b"\n".join(lines_of(body)) == body


@pytest.mark.parametrize(
    ("line", "message"),
    [
        (b"m,a=%s f=1 1" % (b"v" * 65_527), "max key length exceeded: 65536 > 65535"),
        (b"m,a=%s f=1 1" % (b"v" * 65_532), "max key length exceeded: 65536 > 65535"),
        (b"M" * 65_535 + b" f=1 1", "max key length exceeded: 65540 > 65535"),
        (b"m,a=b %s=1 1" % (b"f" * 65_527), "max key length exceeded: 65536 > 65535"),
        (b"m,a=%s f=1 1" % (b"v" * 199_996), "max key length exceeded: 200000 > 65535"),
    ],
)
def test_a_key_that_is_too_long_is_refused_as_influxdb_2_8_0_does(line, message):
    with pytest.raises(BadLinesError, match=message):
        list(parse(line))


def test_keys_just_short_enough_are_taken_as_by_influxdb_2_8_0():
    for line in (b"m,a=%s f=1 1" % (b"v" * 65_526), b"m,a=b %s=1 1" % (b"f" * 65_526), b'm s="%s" 1' % (b"x" * 10**6)):
        assert [len(points) for points in parse(line)] == [1]


def test_points_come_in_batches_of_bounded_memory_and_none_after_a_bad_line():
    line = b"environment,clientId=pi-1 " + b",".join(b"f%d=1" % n for n in range(100))
    batches = parse(b"\n".join([line] * 2000) + b"\nbad\n" + line)
    sizes = []
    with pytest.raises(BadLinesError, match=r"^unable to parse 'bad': missing fields$"):
        sizes += (len(points) for points in batches)
    assert len(sizes) > 1
    assert max(sizes) < 1000


@given(st.lists(st.dictionaries(st.sampled_from([*DEVICE_TAGS, "sensor"]), st.sampled_from(["pi-1", "pi-10", "x"]))))
@settings(deadline=None)
def test_points_are_foreign_to_a_device_if_one_of_them_names_another(tags):
    named = {text for some in tags for tag, text in some.items() if tag in DEVICE_TAGS}
    why = foreign([Point("environment", some, {"f": 1.0}) for some in tags], "pi-1")
    assert (why is None) == (named <= {"pi-1"})
    assert why is None or any(f"{text!r} is not 'pi-1'" in why for text in named - {"pi-1"})
