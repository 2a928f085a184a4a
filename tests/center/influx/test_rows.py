"""Rows of InfluxDB's answers."""

import itertools

import pytest

from center.errors import RefusedError
from tests.center_helpers import DAY, HOUR


def test_a_range_is_cut_at_the_midnight_at_which_types_change():
    from center.influx.rows import uniform

    asked = []

    def ends(span):
        """Integers until day 100, floats from then on."""
        asked.append(span)
        kinds = [1 if t < 100 * DAY else 1.5 for t in (span[0], span[1] - 1)]
        return [{"_field": "f", "result": name, "_value": v} for name, v in zip(("first", "last"), kinds, strict=True)]

    whole = (3 * HOUR, 365 * DAY + HOUR)
    parts = uniform(whole, ends)
    assert (parts[0][0], parts[-1][1]) == whole
    assert all(before[1] == after[0] for before, after in itertools.pairwise(parts))
    assert not any(start < 100 * DAY < stop for start, stop in parts)
    assert len(asked) < 25
    asked.clear()
    assert uniform((100 * DAY - HOUR, 100 * DAY + HOUR), ends) == [
        (100 * DAY - HOUR, 100 * DAY), (100 * DAY, 100 * DAY + HOUR)
    ]  # fmt: skip
    asked.clear()
    assert uniform((100 * DAY, 101 * DAY), ends) == [(100 * DAY, 101 * DAY)]
    assert asked == []


def test_an_error_in_the_midst_of_influxdbs_answer_is_an_error():
    """As InfluxDB 2.9.1 sends it: after status 200 and the first rows, as a table of its own."""
    from center.influx.rows import decode

    good = "#datatype,string,long,double\r\n,result,table,_value\r\n,_result,0,1.5\r\n\r\n"
    bad = "#datatype,string,string\r\n,error,reference\r\n,runtime error: schema collision,897\r\n"
    assert list(decode(good)) == [{"result": "_result", "_value": 1.5}]
    with pytest.raises(RefusedError, match="schema collision"):
        list(decode(good + bad))
