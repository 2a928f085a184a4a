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
