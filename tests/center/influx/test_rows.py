"""Rows of InfluxDB's answers."""

import itertools

import pytest
from hypothesis import given
from hypothesis import strategies as st

from center.errors import RefusedError
from center.influx.claims import Claim, claims_of
from center.influx.rows import decode, numbers_of, tags_of, uniform
from tests.center_helpers import DAY, HOUR


def test_a_range_is_cut_at_the_midnight_at_which_types_change():
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
    good = "#datatype,string,long,double\r\n,result,table,_value\r\n,_result,0,1.5\r\n\r\n"
    bad = "#datatype,string,string\r\n,error,reference\r\n,runtime error: schema collision,897\r\n"
    assert list(decode(good)) == [{"result": "_result", "_value": 1.5}]
    with pytest.raises(RefusedError, match="schema collision"):
        list(decode(good + bad))


def test_every_value_is_what_its_column_says_and_an_empty_one_has_no_entry():
    kinds = "string,long,double,long,unsignedLong,boolean,boolean,dateTime:RFC3339,dateTime:RFC3339Nano,string,duration"
    values = '1.5,-7,18446744073709551615,true,false,2026-11-24T06:30:00Z,2026-11-24T06:30:00.000000001Z,"a\r\nb",5s'
    text = (
        f"#datatype,{kinds}\r\n,result,table,a,b,c,d,e,f,g,h,i\r\n,last,0,{values}\r\n,,1,,8,,,,,,,\r\n\r\n"
        "#datatype,string,long,string,string\r\n,result,table,error,\r\n,first,0,none,x\r\n"
    )
    moment = 1_795_501_800 * 10**9
    first, second, third = decode(text)
    assert first == {
        "result": "last", "a": 1.5, "b": -7, "c": 2**64 - 1, "d": True, "e": False, "f": moment, "g": moment + 1,
        "h": "a\nb", "i": "5s",
    }  # fmt: skip
    assert [type(first[name]) for name in "abcde"] == [float, int, int, bool, bool]
    assert second == {"b": 8}
    assert third == {"result": "first", "error": "none"}
    assert list(decode("")) == []


@pytest.mark.parametrize("letter", ["x", "\n"])
def test_a_text_may_be_as_long_as_influxdb_stores_one(letter):
    text = letter * 2**20
    sent = '#datatype,string,long,string\r\n,result,table,_value\r\n,_result,0,"{}"\r\n'
    assert list(decode(sent.format(text.replace("\n", "\r\n")))) == [{"result": "_result", "_value": text}]


def ends(*rows):
    """Rows of the first and last values of series: name of the end, field, value, and perhaps the series."""
    return [
        {"result": end, "_field": name, "_time": 7, "table": 0} | ({"_value": value} if value != "" else {}) | more
        for end, name, value, more in ((*row, {})[:4] for row in rows)
    ]


B = {"device": "b"}


@pytest.mark.parametrize(
    ("rows", "cut"),
    [
        ([], False),
        ([("first", "f", 1.5), ("last", "f", 2.5)], False),
        ([("first", "f", 1), ("last", "f", 2.5)], True),
        ([("first", "f", 1), ("last", "f", True)], True),
        ([("first", "f", 1.5)], True),
        ([("last", "f", 1.5)], True),
        ([("first", "f", 1.5), ("last", "f", 2.5), ("first", "g", 1), ("last", "g", 2)], False),
        ([("first", "f", 1.5), ("last", "f", 2.5), ("first", "f", 1, B), ("last", "f", 2, B)], True),
        ([("first", "f", 1.5), ("last", "f", 2.5), ("first", "f", 1.5, B), ("last", "f", 2.5, B)], False),
        ([("first", "f", 1.5), ("last", "f", 2.5), ("last", "f", 2.5, B)], True),
        ([("first", "f", ""), ("last", "f", "")], False),
        ([("first", "f", ""), ("last", "f", "a")], False),
        ([("first", "f", ""), ("last", "f", 1.5)], True),
    ],
)
def test_types_differ_where_one_field_has_two_or_a_series_has_one_end_only(rows, cut):
    span = (DAY - 1, DAY + 1)
    assert uniform(span, lambda _: ends(*rows)) == ([(DAY - 1, DAY), (DAY, DAY + 1)] if cut else [span])


@pytest.mark.parametrize("span", [(3 * DAY - 2, 3 * DAY + 1), (2 * DAY, 3 * DAY + 1), (-4 * DAY - 2, 1 - 4 * DAY)])
def test_a_range_with_one_midnight_is_cut_there_wherever_it_lies(span):
    mixed = ends(("first", "f", 1), ("last", "f", 1.5))
    assert uniform(span, lambda asked: mixed if asked == span else [])[0] == (span[0], span[1] // DAY * DAY)


@given(st.integers(-9 * DAY, 9 * DAY), st.integers(1, 9 * DAY), st.integers(-9, 9))
def test_any_range_is_cut_at_midnights_until_no_part_has_two_types(start, length, day):
    asked = []

    def changes(span):
        asked.append(span)
        kinds = [1 if t < day * DAY else 1.5 for t in (span[0], span[1] - 1)]
        return ends(("first", "f", kinds[0]), ("last", "f", kinds[1]))

    parts = uniform((start, start + length), changes)
    assert (parts[0][0], parts[-1][1]) == (start, start + length)
    assert all(before[1] == after[0] and before[1] % DAY == 0 for before, after in itertools.pairwise(parts))
    assert not any(begin < day * DAY < end for begin, end in parts)
    assert len(parts) == 1 or start < day * DAY < start + length
    assert all(begin // DAY != (end - 1) // DAY for begin, end in asked)
    assert len(asked) <= 1 + 2 * 4  # halved so often, ten days are single ones


def test_numbers_are_fields_all_of_whose_values_are():
    rows = [
        {"_field": name, "_value": value}
        for name, value in (("b", 1.5), ("a", 1), ("text", "x"), ("mixed", 1), ("mixed", "x"), ("flag", True))
    ]
    rows += [{"_field": "mixed", "_value": 2}, {"_field": "empty"}, {"_field": "a", "_value": 2.5}]
    assert numbers_of(rows) == ["a", "b"]


def test_the_series_of_a_row_are_its_tags():
    row = {"result": "last", "_time": 1, "_value": 2, "_field": "f", "_measurement": "m", "b": "2", "a": "1"}
    row |= {"_start": 0, "_stop": 9}
    assert tags_of(row) == (("a", "1"), ("b", "2"))
    assert tags_of(row, "_field") == (("_field", "f"), ("a", "1"), ("b", "2"))


def test_claims_are_points_of_devices_whatever_the_order_of_their_fields():
    def row(device, t, name, **value):
        return {"deviceId": device, "_time": t, "_field": name} | value

    rows = [
        row("a", 2, "secretHash", _value="-"),
        row("a", 1, "key", _value="k1"),
        {"_time": 5, "_field": "key", "_value": "nobody's"},
        row("b", 1, "key", _value="k2"),
        row("a", 1, "secretHash", _value="h1"),
        row("a", 2, "key"),
    ]
    assert claims_of(rows) == {"a": [Claim(2, "", ""), Claim(1, "k1", "h1")], "b": [Claim(1, "k2", "")]}
