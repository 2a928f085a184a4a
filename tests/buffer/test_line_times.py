"""Lines get their time, and lose one that was wrong."""

import pytest

from agent.buffer.line_times import dated, withdrawn
from agent.clock.timeline import Stretch
from tests.buffers import UNIX_NS

MS = 1_000_000


def test_points_get_their_time_and_say_where_it_was_guessed():
    lines = [b'm,t=a\\ b f=1,s="x y" 5', b"m f=1 7"]
    assert dated(lines, 100) == [b'm,t=a\\ b f=1,s="x y" 105', b"m f=1 107"]
    assert dated(lines, -3, estimated=True) == [b'm,t=a\\ b,clock=estimated f=1,s="x y" 2', b"m,clock=estimated f=1 4"]


def test_a_time_is_taken_back_from_the_points_that_were_dated_so_and_no_others():
    wrong = Stretch(UNIX_NS, UNIX_NS + 10 * MS, UNIX_NS - 500 * MS)
    at = [UNIX_NS - MS, UNIX_NS, UNIX_NS + 10 * MS, UNIX_NS + 11 * MS, UNIX_NS + MS + 1]
    stay, back = withdrawn([b"m f=1 %d" % stamp for stamp in at], [wrong])
    assert stay == [b"m f=1 %d" % stamp for stamp in (at[0], at[3], at[4])]
    assert back == [b"m f=1 %d" % (500 * MS), b"m f=1 %d" % (510 * MS)]
    other = Stretch(UNIX_NS + 11 * MS, UNIX_NS + 11 * MS, UNIX_NS)
    assert withdrawn([b"m f=1 %d" % at[3]], [wrong, other]) == ([], [b"m f=1 %d" % (11 * MS)])


@pytest.mark.parametrize(("before", "after"), [(True, True), (True, False), (False, True)])
def test_a_time_that_is_taken_back_leaves_no_trace_of_how_it_was_known(before, after):
    lines = [rb"m,a=x\ y f=1 5000000", b"m f=2 6000000"]
    _, back = withdrawn(dated(lines, 7 * MS, estimated=before), [Stretch(0, 10**9, 7 * MS)])
    assert back == lines
    assert dated(back, MS, estimated=after) == dated(lines, MS, estimated=after)
