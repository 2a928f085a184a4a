"""Bad lines that a server names by number: what is believed of it, and what is not."""

import json

import pytest

from agent.delivery.numbered_lines import MOST_NAMED, document, is_refusal_of_lines, numbered_lines
from agent.util.http import Answer

LINES = [b"m,t=a f=%d 5" % n for n in range(4)]


def answer(body):
    return Answer(400, {}, body if isinstance(body, bytes) else json.dumps(body).encode())


def core(*items, error="partial write of line protocol occurred"):
    return answer({"error": error, "data": list(items)})


def item(number, shown="", words="bad"):
    return {"line_number": number, "original_line": shown, "error_message": words}


def cloud(message, **more):
    return answer({"code": "invalid", "message": message, **more})


@pytest.mark.parametrize(
    ("body", "found"),
    [
        (b'{"a":1}', {"a": 1}),
        (b"", {}),
        (b"[1]", {}),
        (b' {"a":1}', {"a": 1}),
        (b"5", {}),
        (b"<html>", {}),
        (b"{", {}),
        (b'{"a":' * 50_000, {}),
        (b'{"a":"\xff"}', {}),
    ],
)
def test_an_answer_is_a_document_or_nothing(body, found):
    assert document(answer(body)) == found


@pytest.mark.parametrize(
    ("said", "is_so"),
    [
        ({"error": "no", "data": [item(1)]}, True),
        ({"error": "no", "data": item(1)}, True),
        ({"error": "no", "data": [1, item(1)]}, True),
        ({"error": "no", "data": [{"line": 1}]}, False),
        ({"error": "no", "data": []}, False),
        ({"error": "no"}, False),
        ({"error": 5, "data": [item(1)]}, False),
        ({"data": [item(1)]}, False),
    ],
)
def test_what_is_influxdb_3s_own_refusal_of_lines(said, is_so):
    assert is_refusal_of_lines(said) is is_so


def test_a_line_is_named_by_its_number_where_what_is_shown_of_it_fits():
    for shown, fits in (
        ("", True),
        ("m,t=a f=2", True),
        ("m,t=a f=1", False),
        ("m,t=a f=2 5 and more than is compared", False),
    ):
        found = numbered_lines(LINES, core(item(3, shown)))
        assert (found.lines if found else None) == ({2: "bad"} if fits else None), shown
    quoted = [b'  m,t=a\\ b s="x\\"y" 5']
    assert numbered_lines(quoted, core(item(1, "m,t=a b s=xy 5"))).lines == {0: "bad"}
    long = [b"measurement,tag=value field=1 5"]
    assert numbered_lines(long, core(item(1, "measurement,tag=valu and what is not compared"))).lines == {0: "bad"}
    assert numbered_lines(long, core(item(1, "measurement,tag=valX"))) is None


def test_the_others_are_stored_where_the_server_says_that_only_part_was_refused_and_names_all():
    assert numbered_lines(LINES, core(item(1), item(2))).others_stored
    assert not numbered_lines(LINES, core(item(1), error="write refused")).others_stored
    assert not numbered_lines(LINES, core(item(1), item(9))).others_stored
    assert not numbered_lines(LINES, core(item(1), item(1))).others_stored
    many = [b"m f=1 %d" % n for n in range(200)]
    for count, all_named in ((MOST_NAMED - 1, True), (MOST_NAMED, False)):
        found = numbered_lines(many, core(*(item(n + 1) for n in range(count))))
        assert (len(found.lines), found.others_stored) == (count, all_named)
    assert numbered_lines(LINES, answer({"error": "partial write", "data": item(4)})).lines == {3: "bad"}


def test_words_that_are_missing_are_those_of_the_whole_answer():
    assert numbered_lines(LINES, core(item(1, words=None), error="partial write: why")).lines == {
        0: "partial write: why"
    }


@pytest.mark.parametrize(
    ("message", "more", "found"),
    [
        ("errors encountered on line(s): error parsing line 2 (1-based): Bad field", {}, {1: "Bad field"}),
        ("on line(s):\nerror parsing line 1 (1-based): a\nerror parsing line 4 (1-based):  b ", {}, {0: "a", 3: "b"}),
        ("on line(s): error parsing line 5 (1-based): a", {}, None),
        ("on line(s): error parsing line 0 (1-based): a", {}, None),
        ("error parsing line 2 (1-based): a", {}, None),
        ("on line(s): who knows", {"line": 3}, {2: "on line(s): who knows"}),
        ("on line(s): who knows", {"line": "3"}, None),
        ("on line(s): who knows", {"line": True}, None),
        ("on line(s): who knows", {}, None),
        ("who knows", {"line": 3}, None),
        ("on line(s): error parsing line 2 (1-based): a", {"code": "internal error"}, None),
    ],
)
def test_influxdb_cloud_names_lines_in_its_message(message, more, found):
    said = numbered_lines(LINES, cloud(message, **more))
    assert (said.lines if said else None) == found
    assert said is None or not said.others_stored


def test_no_number_is_believed_where_a_string_may_span_lines():
    for line, believed in ((b's="a" 5', True), (b's="a\\" 5', False), (b's="a\\"b" 5', True), (b'b" 5', False)):
        assert (numbered_lines([*LINES, line], core(item(1))) is not None) is believed
    assert numbered_lines([], core(item(1))) is None
