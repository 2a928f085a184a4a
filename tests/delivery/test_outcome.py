"""Every answer of a server becomes one outcome: recorded answers case by case, and texts nobody knows."""

import gzip
import json
from dataclasses import dataclass
from pathlib import Path

import pytest
from hypothesis import given
from hypothesis import strategies as st

from agent.delivery.bad_lines import (
    as_quoted,
    dropped,
    expired_lines,
    halves,
    head,
    is_whole,
    named_lines,
    others_lines,
    trouble,
)
from agent.delivery.outcome import (
    TOO_LARGE_S,
    Defer,
    Delivered,
    Park,
    Reauthorise,
    Retry,
    Slow,
    Split,
    Wait,
    decide,
    is_own,
    may_be_stored,
)
from agent.util.errors import short
from agent.util.http import Answer
from center.line_protocol import foreign
from center.stores.telemetry import Point

NOW = 1_795_500_567_000_000_000
CASES = {case["name"]: case for case in json.loads(Path("tests/data/influxdb-2.9.1.json").read_text("utf-8"))}
WRITES = {name: case for name, case in CASES.items() if name.startswith("write: ")}
GOOD = b"environment,clientId=pi-1 Temperature=7.25 1795500567859224683"


@dataclass(frozen=True)
class Sent:
    """A batch as far as an outcome looks at one."""

    content: tuple[bytes, ...]
    parked: bool = False
    suspect: bool = False

    @property
    def count(self):
        return len(self.content)

    def lines(self):
        return list(self.content)


def answer(status, body=b"", **headers):
    if isinstance(body, dict):
        body = json.dumps(body).encode()
        headers.setdefault("content_type", "application/json; charset=utf-8")
    return Answer(status, {name.replace("_", "-"): value for name, value in headers.items()}, body)


def refused(status, message, **headers):
    return answer(status, {"code": "invalid", "message": message}, **headers)


def outcome(reply, *lines, parked=False, suspect=False, **options):
    return decide(reply, Sent(lines, parked, suspect) if lines else None, now_ns=NOW, **options)


def unparsable(*pairs):
    return refused(400, "\n".join(f"unable to parse '{line}': {reason}" for line, reason in pairs))


def recorded(name):
    case = CASES[name]
    reply = case["response"]
    body = (case["request"]["body"] or "").encode("latin-1", "replace")
    sent = Sent(tuple(line for line in body.split(b"\n") if line)) if body else None
    headers = {key.lower(): value for key, value in reply["headers"].items()}
    return decide(Answer(reply["status"], headers, reply["body"].encode()), sent, now_ns=NOW), sent


EXPECTED = {204: Delivered, 401: Reauthorise, 403: Reauthorise, 404: Slow, 405: Slow}


@pytest.mark.parametrize("name", [name for name in WRITES if CASES[name]["response"]["status"] in EXPECTED])
def test_recorded_answer(name):
    assert isinstance(recorded(name)[0], EXPECTED[CASES[name]["response"]["status"]])


@pytest.mark.parametrize(
    "name",
    [
        name
        for name in WRITES
        if CASES[name]["response"]["status"] in (400, 422)
        and name not in ("write: bad precision", "write: no org parameter")
    ],
)
def test_recorded_refusal_keeps_exactly_the_bad_lines_as_dead_letters(name):
    result, sent = recorded(name)
    assert isinstance(result, Split)
    if name == "write: one of three lines has a type conflict":
        assert [part.lines for part in result.parts] == [(sent.content[0], sent.content[2]), (sent.content[1],)]
        assert result.dead == ()
    elif name == "write: newline in tag value":
        assert [letter.line for letter in result.dead] == [b"environment,clientId=a"]
    else:
        assert [letter.line for letter in result.dead] == list(sent.content)
        assert result.parts == ()
        assert all(letter.message and letter.time_ns == NOW for letter in result.dead)


@pytest.mark.parametrize("name", ["write: bad precision", "write: no org parameter"])
def test_recorded_refusal_of_the_request_itself_drops_nothing(name):
    assert isinstance(recorded(name)[0], Park)


@pytest.mark.parametrize("name", ["write: header says gzip, body is not", "write: truncated gzip"])
def test_recorded_500_is_tried_three_times_then_halved(name):
    reply = CASES[name]["response"]
    answered = Answer(500, {}, reply["body"].encode())
    assert isinstance(outcome(answered, GOOD, GOOD), Retry)
    assert isinstance(outcome(answered, GOOD, GOOD, again=1), Retry)
    assert outcome(answered, GOOD, GOOD, again=2).parts[0].state == "suspect"
    assert isinstance(outcome(answered, GOOD, again=2, suspect=True), Park)
    assert isinstance(outcome(answered, GOOD, GOOD, again=2, may_halve=False), Retry)


@pytest.mark.parametrize("status", [413, 500])
def test_promise_2_a_point_is_parked_only_if_the_server_takes_others(status):
    def of_one(**options):
        return outcome(answer(status), GOOD, again=2, **options)

    (part,) = of_one().parts
    assert (part.lines, part.state) == ((GOOD,), "suspect")
    assert isinstance(of_one(suspect=True, accepting=False), Defer)
    assert isinstance(of_one(suspect=True), Park)
    assert isinstance(of_one(suspect=True, may_halve=False), Retry if status == 500 else Wait)
    assert isinstance(of_one(parked=True, may_halve=False, accepting=False), Park)


def test_what_is_only_too_large_can_be_joined_again():
    assert [part.state for part in outcome(answer(413), GOOD, GOOD).parts] == ["pending", "pending"]
    waiting = outcome(answer(413), GOOD, GOOD, may_halve=False)
    assert (waiting.kind, waiting.seconds) == ("413", TOO_LARGE_S)
    assert outcome(answer(413, retry_after="7"), GOOD, GOOD, may_halve=False).seconds == 7


@pytest.mark.parametrize(
    ("reply", "kind"),
    [
        (Answer(None, error="timed out"), Retry),
        (answer(200, b"<html>log in to the hotel</html>", content_type="text/html"), Retry),
        (answer(200, b"{}"), Retry),
        (answer(202), Retry),
        (answer(301, location="http://elsewhere/api/v2/write"), Slow),
        (answer(307, location="https://same/api/v2/write"), Slow),
        (answer(400, b"<html>plain HTTP sent to HTTPS port", content_type="text/html"), Slow),
        (answer(402), Slow),
        (answer(408), Retry),
        (answer(413, b"<html>too large</html>", content_type="text/html"), Split),
        (answer(418, b"I'm a teapot"), Slow),
        (answer(429), Retry),
        (answer(429, retry_after="7"), Wait),
        (answer(502), Retry),
        (answer(503, b"\xff\xfe", retry_after="Tue, 24 Nov 2026 06:10:27 GMT"), Wait),
        (answer(504), Retry),
        (answer(599), Retry),
    ],
)
def test_answers_that_say_nothing_about_the_points_keep_all_of_them(reply, kind):
    result = outcome(reply, GOOD, GOOD)
    assert isinstance(result, kind)
    assert not getattr(result, "dead", ())
    if reply.status != 413:
        assert isinstance(outcome(reply), kind)  # the same for an empty write


def test_retry_after_as_a_date_counts_from_the_answers_own_date_when_the_device_clock_is_wrong():
    reply = answer(503, retry_after="Tue, 24 Nov 2026 06:10:27 GMT", date="Tue, 24 Nov 2026 06:10:07 GMT")
    assert decide(reply, None, now_ns=0).seconds == 20


def test_redirect_is_shown_but_not_followed():
    assert "http://evil/" in outcome(answer(302, location="http://evil/")).text


def test_a_portal_page_is_named_as_such():
    assert "captive portal" in outcome(answer(200, b"<html>", content_type="text/html"), GOOD).text


# 400: matching own lines against the message


def test_named_line_goes_and_the_rest_is_sent_again():
    bad = b"environment,clientId=pi-1 Temperature= 5"
    result = outcome(unparsable((bad.decode(), "missing field value")), GOOD, bad, GOOD + b"1")
    assert [(letter.line, letter.reason, letter.message) for letter in result.dead] == [
        (bad, "parse", "missing field value")
    ]
    assert [(part.lines, part.state) for part in result.parts] == [((GOOD, GOOD + b"1"), "pending")]
    assert not result.blind


def test_leading_spaces_and_carriage_returns_do_not_hide_a_line():
    assert named_lines([b"  \tm f= 1\r"], "unable to parse 'm f= 1': missing field value") == {0: "missing field value"}


@pytest.mark.parametrize("shown", ["\ufffd", "\ufffd\ufffd"])
def test_bad_utf8_is_matched_however_often_it_was_replaced(shown):
    assert named_lines([GOOD, b"m,t=\xe2\x82 f= 1"], f"unable to parse 'm,t={shown} f= 1': missing field value") == {
        1: "missing field value"
    }


def test_lines_swallowed_by_an_open_quote_are_not_blamed():
    lines = [GOOD, b'm s="open 1', GOOD + b"1", GOOD + b"2"]
    quoted = b"\n".join(lines[1:]).decode()
    assert list(named_lines(lines, f"unable to parse '{quoted}': unbalanced quotes")) == [1]


def test_a_string_with_a_raw_newline_goes_as_one():
    lines = [GOOD, b'm s="two', b'lines",f= 1', GOOD + b"1"]
    assert list(named_lines(lines, "unable to parse 'm s=\"two\nlines\",f= 1': missing field value")) == [1, 2]


def test_a_line_that_goes_on_after_what_looks_like_its_end_is_taken_whole():
    lines = [b"m f=1 5", b"m f=1 5': x 6"]
    assert list(named_lines(lines, "unable to parse 'm f=1 5': x 6': bad timestamp")) == [1]


def test_a_line_only_quoted_inside_another_is_not_blamed():
    lie = b"m s=\"unable to parse '" + GOOD + b"': x\" oops"
    assert list(named_lines([GOOD, lie], f"unable to parse '{lie.decode()}': bad timestamp")) == [1]


def test_a_message_cut_in_the_middle_of_a_line_blames_no_other_line():
    lines = [b"m f= 1", b"m f= 12"]
    assert named_lines(lines, "unable to parse 'm f= 1") == {}
    assert list(named_lines(lines, "unable to parse 'm f= 12': bad\nunable to parse 'm f= 1")) == [1]


def test_an_answer_cut_short_still_names_what_it_could():
    body = b'{"code":"invalid","message":"unable to parse \'m f= 1\': missing\\nunable to parse \'m \\u00'
    result = decide(Answer(400, {}, body, cut=True), Sent((b"m f= 1", GOOD)), now_ns=NOW)
    assert [letter.line for letter in result.dead] == [b"m f= 1"]


def test_five_thousand_bad_lines_are_told_apart_at_once():
    lines = [b"environment,clientId=pi-1 Temperature= %d" % n for n in range(5000)]
    reply = unparsable(*[(line.decode(), "missing field value") for line in lines])
    result = decide(reply, Sent(tuple(lines)), now_ns=NOW)
    assert len(result.dead) == 5000
    assert result.parts == ()


@given(st.lists(st.binary(min_size=1, max_size=30).filter(lambda line: b"\n" not in line), max_size=5), st.text())
def test_no_text_whatever_blames_lines_it_does_not_name(lines, text):
    named = named_lines(lines, text)
    assert not named or "unable to parse '" in text
    assert trouble(lines, text) is None or "partial write" in text


# 422: partial writes


def conflict(field, measurement, kind, dropped, stored="float"):
    return refused(
        422,
        f'failure writing points to database: partial write: field type conflict: input field "{field}" on measurement '
        f'"{measurement}" is type {kind}, already exists as type {stored} dropped={dropped}',
    )


def test_lines_of_the_named_field_and_type_are_sent_apart():
    bad = GOOD.replace(b"7.25", b"7i")
    result = outcome(conflict("Temperature", "environment", "integer", 1), GOOD, bad, GOOD + b"1")
    assert [(part.lines, part.state) for part in result.parts] == [
        ((GOOD, GOOD + b"1"), "suspect"),
        ((bad,), "suspect"),
    ]


def test_a_part_refused_whole_goes_in_one_step():
    lines = [GOOD.replace(b"7.25", b"7i") + b"%d" % n for n in range(3)]
    result = outcome(conflict("Temperature", "environment", "integer", 3), *lines)
    assert result.parts == ()
    assert {letter.reason for letter in result.dead} == {"type_conflict"}
    assert "already exists as type float" in result.dead[0].message


@pytest.mark.parametrize("parked", [False, True])
def test_promise_2_a_point_of_the_data_models_own_type_is_held_back_and_no_dead_letter(parked):
    """What another wrote where our type belongs can be mended: then these points are delivered."""
    lines = [GOOD + b"%d" % n for n in range(3)]
    message = "partial write: field type conflict: input field {} is type {} dropped=3"
    ours = message.format('"Temperature" on measurement "environment"', "float, already exists as type string")
    result = outcome(refused(422, ours), *lines, parked=parked)
    assert isinstance(result, Park)
    assert "already exists as type string" in result.text
    for other in ('"Temperature" on measurement "room"', '"Mood" on measurement "environment"'):
        field, _, measurement = other.replace('"', "").partition(" on measurement ")
        line = f"{measurement} {field}=1.5 5".encode()
        dead = outcome(refused(422, message.format(other, "float, already exists as type string")), line).dead
        assert [letter.reason for letter in dead] == ["type_conflict"]


def test_promise_2_points_measured_under_another_id_are_held_back_where_a_token_writes_under_its_own_only():
    why = foreign([Point("environment", {"device": "pi-old"}, {"Temperature": 1.0})], "pi-1")
    old, health = GOOD.replace(b"pi-1", b"pi-old"), b"agent,clientId=pi-1,device=pi-1 errors=1i 5"
    result = outcome(refused(403, why), GOOD, old, health)
    assert [(part.lines, part.state) for part in result.parts] == [((GOOD, health), "pending"), ((old,), "parked")]
    assert isinstance(outcome(refused(403, why), old), Park)
    assert isinstance(outcome(refused(403, why), GOOD), Reauthorise)
    assert isinstance(outcome(refused(403, "insufficient permissions for write"), GOOD, old), Reauthorise)
    assert isinstance(outcome(refused(401, why), GOOD, old), Reauthorise)


def test_a_lower_count_than_the_parts_size_rejects_nothing_yet():
    lines = [GOOD.replace(b"7.25", b"7i") + b"%d" % n for n in range(3)]
    result = outcome(conflict("Temperature", "environment", "integer", 1), *lines)
    assert not result.dead
    assert [len(part.lines) for part in result.parts] == [1, 2]


def test_a_field_called_time_is_found_by_its_name():
    text = 'partial write: invalid field name: input field "time" on measurement "m" is invalid dropped=1'
    result = outcome(refused(422, text), b"m time=1 5", GOOD)
    assert [part.lines for part in result.parts] == [(GOOD,), (b"m time=1 5",)]
    assert outcome(refused(422, text), b"m time=1 5").dead[0].reason == "field_name"


@pytest.mark.parametrize("reason", ["type_conflict", "field_name"])
def test_promise_2_a_single_line_that_is_refused_for_a_known_reason_is_a_dead_letter_whatever_was_counted(reason):
    known = 'input field "f" on measurement "m" is ' + {
        "type_conflict": "type integer, already exists as type float",
        "field_name": "invalid",
    }.get(reason)
    result = outcome(refused(422, f"partial write: {known}"), b"m f=1i 5")
    assert isinstance(result, Split)
    assert [(letter.line, letter.reason) for letter in result.dead] == [(b"m f=1i 5", reason)]
    assert result.parts == ()


RETENTION = json.loads(CASES["write: all points older than retention"]["response"]["body"])["message"]
OLD_WORDING = "failure writing points to database: partial write: points beyond retention policy dropped={}"
EXPIRED = b"environment,clientId=pi-1 Temperature=1.5 1700000000000000000"
YOUNGER = b"environment,clientId=pi-1 Temperature=1.5 1795490000000000000"  # older than the bound, and in a good shard


@pytest.mark.parametrize("message", [RETENTION, OLD_WORDING.format(1)])
def test_promise_8_of_expired_points_those_that_were_stored_with_others_are_delivered(message):
    result = outcome(refused(422, message), GOOD, EXPIRED, YOUNGER)
    assert [(letter.line, letter.reason) for letter in result.dead] == [(EXPIRED, "retention")]
    assert (result.parts, result.stored) == ((), 2)


@pytest.mark.parametrize("message", [RETENTION, OLD_WORDING.format(1)])
@pytest.mark.parametrize("sent_before", [{"suspect": True}, {"parked": True}])
def test_promise_8_what_is_refused_for_its_age_after_it_was_sent_with_others_is_expired(message, sent_before):
    assert outcome(refused(422, message), EXPIRED).dead[0].reason == "retention"
    assert outcome(refused(422, message), EXPIRED, **sent_before).dead[0].reason == "expired"


@pytest.mark.parametrize("status", [200, 204, 400, 401, 413, 429, 500, 501, 502, 503, 504, 505])
def test_only_a_gateway_that_heard_nothing_of_the_server_may_have_given_it_the_points(status):
    assert may_be_stored(answer(status, b"")) == (status in {502, 504})


@pytest.mark.parametrize("dropped", [" dropped=0", " dropped=4", ""])
def test_a_number_of_expired_points_that_cannot_be_makes_no_dead_letter(dropped):
    result = outcome(refused(422, OLD_WORDING.removesuffix(" dropped={}") + dropped), GOOD, EXPIRED, YOUNGER)
    assert (result.dead, result.stored) == ((), 0)
    assert sorted(line for part in result.parts for line in part.lines) == sorted([GOOD, EXPIRED, YOUNGER])


def test_expired_points_that_the_message_does_not_tell_apart_are_sent_again():
    other = EXPIRED.replace(b"1.5", b"2")
    for lines in ((EXPIRED, other, GOOD), (YOUNGER, EXPIRED[:-1] + b"1", GOOD)):  # of one time; not the named time
        result = outcome(refused(422, RETENTION), *lines)
        assert (result.dead, result.stored) == ((), 0)
        assert [part.lines for part in result.parts] == [(GOOD,), lines[:2]]
    result = outcome(refused(422, OLD_WORDING.format(1)), EXPIRED, other, GOOD)
    assert [line for part in result.parts for line in part.lines] == [EXPIRED, other, GOOD]
    swallowed = outcome(refused(422, OLD_WORDING.format(1)), b'm s="two', b'lines" 1700000000000000000', GOOD)
    assert (swallowed.dead, swallowed.stored) == ((), 0)


STAMPED = [b"m f=%d %d" % (n, (1_700_000_000 + n) * 10**9) for n in range(5)]
VIOLATES = "dropped because it violates a Retention Policy Lower Bound at 2024-01-01T00:00:00Z"
WORDED = (
    "partial write: dropped 2 points outside retention policy of duration 1h0m0s - "
    f"oldest point m at {{}} {VIOLATES}, newest point m at {{}} {VIOLATES} dropped={{}}"
)


@pytest.mark.parametrize(
    ("message", "found"),
    [
        (OLD_WORDING.format(1), {0}),
        (OLD_WORDING.format(2), {0, 1}),
        (OLD_WORDING.format(5), {0, 1, 2, 3, 4}),
        (OLD_WORDING.format(6), None),
        (OLD_WORDING.format(0), None),
        (OLD_WORDING.format(2).replace("partial write", "write"), None),
        ("partial write: points beyond something dropped=2", None),
        (WORDED.format("2023-11-14T22:13:20Z", "2023-11-14T22:13:21Z", 2), {0, 1}),
        (WORDED.format("2023-11-14T22:13:20Z", "2023-11-14T22:13:21.000000001Z", 2), None),
        (WORDED.format("2023-11-14T22:13:20Z", "2023-11-14T22:13:22Z", 2), None),
        (WORDED.format("2023-99-14T22:13:20Z", "2023-99-14T22:13:22Z", 2), {0, 1}),  # digits, but no date
        (WORDED.format("2023-11-14T22:13:20Z", "2023-11-14T22:13:21Z", 2).replace("Lower", "Upper"), None),
    ],
)
def test_which_lines_the_retention_left_out(message, found):
    assert expired_lines(STAMPED, message) == found
    moved = expired_lines(STAMPED[::-1], message)
    assert moved == (None if found is None else {4 - n for n in found})


def test_lines_of_one_time_are_not_told_apart_but_where_all_of_them_went():
    lines = [*STAMPED[:2], STAMPED[1].replace(b"f=1", b"f=7"), STAMPED[3]]
    assert [expired_lines(lines, OLD_WORDING.format(n)) for n in (1, 2, 3, 4)] == [{0}, None, {0, 1, 2}, {0, 1, 2, 3}]
    assert expired_lines([b"m f=1 -5", b"m f=1 5", b"m f=1 4"], OLD_WORDING.format(2)) == {0, 2}
    assert expired_lines([b"m f=1 5", b"no stamp"], OLD_WORDING.format(1)) is None


def test_a_422_outside_the_retention_means_what_lies_beyond_its_bounds():
    message = "partial write: 3 points outside retention policy: Lower Bound at {}, Upper Bound at {} dropped=9"
    both = message.format("2023-11-14T22:13:21Z", "2023-11-14T22:13:23.000000000Z")
    assert trouble(STAMPED, both) == ("retention", [0, 4], False)
    assert trouble(STAMPED, both.replace("Upper", "upper")) == ("retention", [0], False)
    assert trouble(STAMPED, both.replace("Lower", "lower")) == ("retention", [4], False)
    assert trouble(STAMPED, both + " Lower Bound at 2023-11-14T22:13:22Z") == ("retention", [0, 1, 4], False)
    assert trouble([*STAMPED, b"no stamp"], both).lines == [0, 4]
    assert trouble(STAMPED, "partial write: the moon is full") is None


@pytest.mark.parametrize(
    ("text", "number"),
    [("dropped=7", 7), ("dropped=7 dropped=8", 8), ("dropped=", None), ("dropped=" + "9" * 19, None), ("", None)],
)
def test_how_many_a_partial_write_left_out_is_said_last(text, number):
    assert dropped(text) == number


@pytest.mark.parametrize(
    ("line", "is_so"),
    [
        (b"m f=1 5", True),
        (b"m,t=a f=1 -5", True),
        (b"m\\ x,t=a\\ b f\\=x=1 5 \r", True),
        (b"m f=1", False),
        (b" f=1 5", False),
        (b'lines" 5', False),
        (b"m f= x", False),
        (b'm s="two\n lines" 5', True),
    ],
)
def test_what_looks_like_a_point(line, is_so):
    assert is_whole(line) is is_so


def test_halves_are_two_and_cut_before_a_point_where_there_is_one_soon():
    whole, rest = GOOD, b'lines" 5'
    assert halves([whole] * 2) == ((whole,), (whole,))
    assert halves([whole] * 5) == ((whole,) * 2, (whole,) * 3)
    assert [len(part) for part in halves([whole, whole, rest, whole])] == [3, 1]
    assert [len(part) for part in halves([whole] * 4 + [rest, rest, whole, whole])] == [6, 2]
    assert [len(part) for part in halves([whole] * 4 + [rest, rest, rest, whole])] == [4, 4], "not too far behind"
    assert [len(part) for part in halves([rest] * 3)] == [1, 2]


def test_of_a_conflict_the_measurement_the_field_and_the_type_must_agree():
    message = 'partial write: input field "{}" on measurement "{}" is type {}, already exists as type float'
    lines = [b"m f=1i 5", b"m f=1 5", b"n f=1i 5", b"m g=1i,f=2i 5", b'm f="1i" 5', b"no point"]
    assert trouble(lines, message.format("f", "m", "integer")) == ("type_conflict", [0, 3], False)
    assert trouble(lines, message.format("f", "m", "string")).lines == [4]
    assert trouble(lines, message.format("g", "n", "integer")).lines == []
    assert trouble(lines, message.format("f", "m", "integer").replace("partial write", "write")) is None
    invalid = 'partial write: invalid field name: input field "f" on measurement "m" is invalid'
    assert trouble(lines, invalid) == ("field_name", [0, 1, 3, 4], False)


def test_whose_lines_a_403_means():
    message = "this token writes under its own id only: clientId 'pi-2' is not 'pi-1'"
    own, other = b"m,clientId=pi-1,device=pi-1 f=1 5", b"m,clientId=pi-1,device=pi-2 f=1 5"
    lines = [own, other, b"m f=1 5", b"no point", b"m,device=pi-1 f=1 5", b"m,clientId=x f=1 5"]
    assert others_lines(lines, message) == {1, 5}
    assert others_lines([own], message) == set()
    assert others_lines([other], "forbidden") is None


def test_lines_are_compared_as_the_server_shows_them():
    assert as_quoted(b" \t\0m f=1 \xff\xff\r") == "m f=1 \ufffd"
    assert as_quoted(b"m f=1\r\n") == "m f=1\r\n"


# InfluxDB 3 and Cloud: lines by number

NUMBERED = json.loads(Path("tests/data/influxdb-from-source.json").read_text("utf-8"))


def numbered(case):
    sent = Sent(tuple(case["request"]["body"].encode().split(b"\n")))
    reply = case["response"]
    return decide(Answer(reply["status"], reply["headers"], reply["body"].encode()), sent, now_ns=NOW), sent.content


@pytest.mark.parametrize("case", NUMBERED, ids=[case["name"] for case in NUMBERED])
def test_lines_named_by_number_are_told_apart_at_once(case):
    result, lines = numbered(case)
    expected = case["expected"]
    assert isinstance(result, Split)
    assert not result.blind
    dead = {letter.line: [letter.reason, letter.message] for letter in result.dead}
    assert dead == {lines[int(n)]: told for n, told in expected["dead"].items()}
    parts = {state: [part.lines for part in result.parts if part.state == state] for state in ("parked", "pending")}
    for state, meant in (("parked", expected["parked"]), ("pending", expected["again"])):
        assert parts[state] == ([tuple(lines[n] for n in meant)] if meant else [])
    assert result.stored == expected["stored"]
    assert len(result.dead) + sum(len(part.lines) for part in result.parts) + result.stored == len(lines)


def core(*items, status=400, error="partial write of line protocol occurred"):
    data = [{"line_number": n, "original_line": shown, "error_message": "no"} for n, shown in items]
    return answer(status, {"error": error, "data": data})


def test_a_number_that_names_another_line_than_it_shows_blames_none():
    lines = (GOOD, b"other,clientId=pi-1 x=1 5", GOOD + b"1")
    assert outcome(core((2, "environment,clientId")), *lines).blind
    result = outcome(core((2, "other,clientId=pi-1 "), (3, "another")), *lines)
    assert [letter.line for letter in result.dead] == [lines[1]]
    assert (result.stored, [part.lines for part in result.parts]) == (0, [(lines[0], lines[2])])


@pytest.mark.parametrize("number", [0, -1, 4, True, "2", None, 2.0])
def test_a_number_that_is_none_of_the_batch_blames_none(number):
    assert outcome(core((number, "")), GOOD, GOOD, GOOD).blind


def test_whoever_names_a_hundred_lines_may_have_more_to_name():
    lines = [GOOD + b"%d" % n for n in range(150)]
    result = outcome(core(*((n, "environment,clientId") for n in range(1, 101))), *lines)
    assert len(result.dead) == 100
    assert (result.stored, [len(part.lines) for part in result.parts]) == (0, [50])


def test_numbers_are_not_believed_where_a_string_spans_lines():
    assert outcome(core((2, "environment,clientId")), b'm s="two', b'lines" 5', GOOD).blind


def test_a_limit_that_refuses_all_parks_them():
    assert isinstance(outcome(core((1, ""), (2, ""), status=422), GOOD, GOOD), Park)


@pytest.mark.parametrize("status", [204, 400, 401, 413, 422, 429, 500, 503])
def test_an_answer_is_the_servers_own_where_only_a_write_api_would_say_so(status):
    own = answer(status) if status == 204 else refused(status, "no")
    assert is_own(own)
    assert not is_own(answer(status, b"<html>log in to the hotel</html>", content_type="text/html"))
    assert not is_own(answer(status, {"code": "invalid"}))
    assert not is_own(answer(status, {"message": "no"}))


@pytest.mark.parametrize("status", [None, 200, 302, 403, 404, 407, 502, 504])
def test_an_answer_that_anybody_can_give_is_not_the_servers_own(status):
    assert not is_own(refused(status, "no"))


def test_lines_that_influxdb_3_names_are_its_own_words():
    assert is_own(core((1, "environment,clientId")))
    assert not is_own(answer(400, {"error": "no", "data": "of another kind"}))


@pytest.mark.parametrize(
    ("reply", "may"),
    [
        (Answer(None, error="cut"), True),
        (Answer(None, error="nobody there", sent=False), False),
        (Answer(None, error="nobody there any more", sent=False, lost=True), True),
        (Answer(None, error="no tunnel", tunnel=502), False),
        (Answer(503, lost=True), True),
        (answer(502), True),
        (answer(503), False),
        (answer(504), True),
        (answer(500), False),
        (answer(204), False),
    ],
)
def test_the_server_may_have_what_it_was_sent_where_the_answer_was_lost_or_is_a_gateways(reply, may):
    assert may_be_stored(reply) is may


def test_a_point_that_is_parked_alone_stays_so_and_of_several_the_one_is_looked_for():
    for status in (413, 500):
        reply = refused(status, "too much")
        assert isinstance(outcome(reply, GOOD, parked=True, again=9), Park)
        assert isinstance(outcome(reply, GOOD, GOOD, parked=True, again=9), Split)


@pytest.mark.parametrize(
    ("status", "again", "suspect", "accepting", "expected"),
    [
        (500, 0, False, True, Retry),
        (500, 1, False, True, Retry),
        (500, 2, False, True, Split),
        (500, 0, True, True, Park),
        (500, 1, True, False, Retry),
        (500, 2, True, False, Defer),
        (413, 0, True, True, Park),
        (413, 0, True, False, Defer),
        (413, 0, False, False, Split),
    ],
)
def test_whose_fault_a_500_or_413_is(status, again, suspect, accepting, expected):
    found = outcome(refused(status, "no"), GOOD, suspect=suspect, again=again, accepting=accepting)
    assert type(found) is expected
    assert getattr(found, "server", False) is False
    if expected is Split:
        assert [(part.lines, part.state) for part in found.parts] == [((GOOD,), "suspect")]
        assert found.blind


@pytest.mark.parametrize("status", [408, 500, 501, 502, 504, 599])
def test_a_server_that_is_ill_is_tried_again_and_its_illness_is_no_matter_of_points(status):
    found = outcome(refused(status, "ill"))
    assert (type(found), found.kind, found.server) == (Retry, str(status), True)
    if status != 500:
        assert outcome(refused(status, "ill"), GOOD) == found


def test_a_server_that_takes_nothing_is_asked_again_after_what_it_says():
    found = outcome(refused(413, "no", retry_after="40"), GOOD, GOOD, may_halve=False)
    assert (type(found), found.seconds) == (Wait, 40)
    assert outcome(refused(413, "no"), GOOD, GOOD, may_halve=False).seconds == TOO_LARGE_S
    assert isinstance(outcome(refused(500, "no"), GOOD, GOOD, may_halve=False, again=9), Retry)


def test_an_empty_write_that_influxdb_3_would_take_is_taken():
    taken = answer(400, b"incoming write was empty")
    assert isinstance(outcome(taken), Delivered)
    assert isinstance(outcome(taken, GOOD), Park)
    assert is_own(taken)
    assert not is_own(answer(400, b"incoming write was empty, log in to the hotel"))


# texts nobody knows


@given(
    status=st.sampled_from([400, 413, 422, 500]) | st.integers(100, 599),
    body=st.binary(max_size=200) | st.text(max_size=200).map(lambda text: json.dumps({"message": text}).encode()),
    size=st.integers(1, 9),
    again=st.integers(0, 5),
    told=st.fixed_dictionaries({name: st.booleans() for name in ("may_halve", "accepting", "suspect", "parked")}),
)
def test_promise_2_no_unknown_text_is_a_reason_to_drop(status, body, size, again, told):
    lines = [GOOD + b"%d" % n for n in range(size)]
    result = outcome(Answer(status, {}, body), *lines, again=again, **told)
    if status == 204:
        return
    assert not isinstance(result, Delivered)
    if isinstance(result, Split):
        assert result.dead == ()
        assert [line for part in result.parts for line in part.lines] == lines
        assert len(result.parts) == min(size, 2)


def test_an_unknown_refusal_of_one_line_parks_it():
    assert isinstance(outcome(refused(422, "the moon is full"), GOOD), Park)
    assert isinstance(outcome(refused(400, "the moon is full"), GOOD), Park)


def test_a_limit_of_the_server_refusing_all_is_no_reason_to_drop():
    text = "partial write: max-series-per-database limit exceeded: (1000000) dropped=2"
    assert isinstance(outcome(refused(422, text), GOOD, GOOD + b"1"), Park)


@pytest.mark.parametrize(
    "text",
    [
        "partial write: dropped=" + "9" * 5000,
        "outside retention policy Lower Bound at 2026-13-45T99:99:99Z dropped=1",
        "outside retention policy Lower Bound at 0000-00-00T00:00:00.5Z",
        'partial write: input field "" on measurement "" is invalid dropped=',
        "[" * 100_000,
    ],
)
def test_absurd_messages_are_unknown_ones(text):
    for status in (400, 422):
        assert isinstance(outcome(refused(status, text), GOOD), Park)
        assert outcome(refused(status, text), GOOD, GOOD + b"1").dead == ()
        assert isinstance(decide(Answer(status, {}, text.encode()), Sent((GOOD,)), now_ns=NOW), Park)


def test_some_of_the_points_refused_for_an_unknown_reason_are_looked_for():
    text = "partial write: the moon is full dropped=1"
    assert [part.lines for part in outcome(refused(422, text), GOOD, GOOD + b"1").parts] == [(GOOD,), (GOOD + b"1",)]


def test_a_server_that_accepts_nothing_does_not_have_the_buffer_taken_to_pieces():
    assert isinstance(outcome(refused(400, "no"), GOOD, GOOD, may_halve=False), Park)


def test_the_first_lines_end_where_a_point_ends_if_there_is_such_a_place():
    whole, rest = b"m a=1 5", b'of a text" 5'
    assert [len(head([whole] * 6, most)) for most in (1, 2, 5, 6, 7)] == [1, 2, 5, 6, 6]
    assert len(head([whole] * 4 + [rest, whole], 4)) == 3
    assert len(head([whole, rest, rest, rest, rest, whole], 4)) == 4, "not much shorter"


def test_halves_are_cut_where_a_point_begins():
    lines = [GOOD, b'm s="two', b'lines" 5', GOOD]
    assert halves(lines) == ((GOOD, b'm s="two', b'lines" 5'), (GOOD,))
    assert halves([GOOD, GOOD]) == ((GOOD,), (GOOD,))


def test_texts_are_bounded_and_on_one_line():
    assert len(short("x\n" * 100_000)) == 300
    assert "\n" not in short("a\nb")


def test_recorded_cases_are_all_looked_at():
    assert len(WRITES) > 35
    assert gzip.compress(b"")


def test_what_a_server_says_cannot_steer_the_terminal_that_shows_a_log():
    assert short("a\x1b[2J\nb\x07") == "a\ufffd[2J b\ufffd"
