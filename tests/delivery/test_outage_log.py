"""What the log says about points that are refused: each reason once, with counts, however many batches it takes."""

from agent.delivery.outage_log import AGAIN_NS, REASONS, OutageLog


def told(caplog):
    return [record.getMessage().partition(" points")[0] for record in caplog.records]


def test_reasons_that_take_turns_are_each_told_once_and_after_an_hour_with_what_came_meanwhile(caplog):
    outage = OutageLog()
    for number in range(20):
        outage.tell(number, "refused", 3, f"422 dropped {number} points outside retention policy")
        outage.tell(number, "refused", 2, "422 field type conflict")
    assert told(caplog) == ["3", "2"]
    caplog.clear()
    outage.tell(AGAIN_NS + 1, "refused", 1, "422 field type conflict")
    assert told(caplog) == [str(19 * 2 + 1)]


def test_a_server_that_never_says_the_same_twice_does_not_fill_the_memory():
    outage = OutageLog()
    for number in range(3 * REASONS):
        outage.tell(0, "refused", 1, "x" * number)
    assert len(outage._said) == REASONS


HOUR = 3600 * 10**9


def test_a_reason_is_said_again_after_an_hour_and_not_before(caplog):
    outage = OutageLog()
    for now in (5, 6, 5 + HOUR - 1, 5 + HOUR, 5 + 2 * HOUR - 1, 5 + 2 * HOUR):
        outage.tell(now, "parked", 1, "the moon is full")
    assert [record.getMessage().partition(" point")[0] for record in caplog.records] == ["1", "3", "2"]


def test_a_reason_is_forgotten_once_there_are_more_than_are_remembered(caplog):
    outage = OutageLog()
    for number in range(REASONS):
        outage.tell(0, "refused", 1, "x" * number)
    outage.tell(1, "refused", 1, "")  # the first is still known
    assert len(caplog.records) == REASONS
    for text in ("y", "yy", ""):
        outage.tell(1, "refused", 1, text)
    assert len(caplog.records) == REASONS + 2
    outage.tell(1, "refused", 1, "x")  # of the earlier ones two had to go
    assert len(caplog.records) == REASONS + 3


def test_how_long_an_outage_lasted_and_what_it_took_is_said_once_points_go(caplog):
    caplog.set_level("INFO")
    outage = OutageLog(url="http://db")
    outage.begin(10**9, "no answer", "refused")
    outage.begin(2 * 10**9, "no answer", "refused")
    outage.begin(3 * 10**9, "500", "500 broken")
    outage.end(4 * 10**9, went=False)
    assert (outage.kind, outage.text) == (None, None)
    outage.begin(5 * 10**9, "500", "500 broken")
    outage.end(91 * 10**9)
    outage.end(92 * 10**9)
    assert caplog.messages == [
        "delivery to http://db fails: refused; all points are kept",
        "delivery to http://db now fails otherwise: 500 broken (after 2 attempts)",
        "delivery works again after 90 s and 4 attempts",
    ]
    assert outage.changed_ns == 91 * 10**9
    assert [record.levelname for record in caplog.records] == ["WARNING", "WARNING", "INFO"]
    caplog.clear()
    outage.begin(100 * 10**9, "401", "401 unknown token", loud=True)
    assert [record.levelname for record in caplog.records] == ["ERROR"]
    assert (outage.changed_ns, outage.count) == (100 * 10**9, 1)
