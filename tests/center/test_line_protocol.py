"""Line protocol: what can be written is read back."""

from hypothesis import HealthCheck, example, given, settings
from hypothesis import strategies as st

from center.line_protocol import DEVICE_TAGS, encode, foreign, parse
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
    points, errors = parse(line.encode())
    if errors:  # what the parser cannot hold is refused, and not stored as something else
        return
    (found,) = points
    assert (found.measurement, found.tags, found.fields, found.time_ns) == (measurement, tags, fields, t)


@given(st.lists(st.dictionaries(st.sampled_from([*DEVICE_TAGS, "sensor"]), st.sampled_from(["pi-1", "pi-10", "x"]))))
@settings(deadline=None)
def test_points_are_foreign_to_a_device_if_one_of_them_names_another(tags):
    named = {text for some in tags for tag, text in some.items() if tag in DEVICE_TAGS}
    why = foreign([Point("environment", some, {"f": 1.0}) for some in tags], "pi-1")
    assert (why is None) == (named <= {"pi-1"})
    assert why is None or any(f"{text!r} is not 'pi-1'" in why for text in named - {"pi-1"})
