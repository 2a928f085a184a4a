"""Waiting times: spread, bounded, and as the server asked."""

from random import Random

import pytest
from hypothesis import given
from hypothesis import strategies as st

from agent.util.backoff import RETRY_AFTER_MAX_S, RETRY_AFTER_MIN_S, full_jitter, http_date_ns, retry_after_s

NOW = 1_795_500_567 * 1_000_000_000  # Tue, 24 Nov 2026 06:09:27 GMT


@given(st.integers(0, 10_000), st.integers())
def test_a_wait_is_never_longer_than_its_cap(attempt, seed):
    assert 0 <= full_jitter(attempt, 1.0, 300.0, Random(seed)) <= 300.0


def test_waits_of_a_fleet_are_spread_evenly_over_a_growing_span():
    waits = [full_jitter(5, 1.0, 300.0, Random(device)) for device in range(1000)]
    assert max(waits) > 31
    assert 14 < sum(waits) / len(waits) < 18


@pytest.mark.parametrize(
    ("text", "seconds"),
    [
        ("7", 7.0),
        (" 30 ", 30.0),
        ("0", RETRY_AFTER_MIN_S),
        ("86400", RETRY_AFTER_MAX_S),
        ("9" * 400, RETRY_AFTER_MAX_S),
        ("Tue, 24 Nov 2026 06:10:27 GMT", 60.0),
        ("Tuesday, 24-Nov-26 06:10:27 GMT", 60.0),
        ("Tue Nov 24 06:10:27 2026", 60.0),
        ("Tue, 24 Nov 2020 06:10:27 GMT", RETRY_AFTER_MIN_S),
        ("Tue, 24 Nov 2099 06:10:27 GMT", RETRY_AFTER_MAX_S),
        ("soon", None),
        ("-5", None),
        ("1.5", None),
        ("٣", None),
        ("", None),
        (None, None),
    ],
)
def test_retry_after_is_understood_in_both_forms_and_bounded(text, seconds):
    assert retry_after_s(text, NOW) == seconds


@given(st.text())
def test_no_header_however_strange_raises(text):
    http_date_ns(text)
    retry_after_s(text, NOW)
