"""Waiting times: spread, bounded, and as the server asked."""

from random import Random

from hypothesis import given
from hypothesis import strategies as st

from agent.util.backoff import full_jitter


@given(st.integers(0, 10_000), st.integers())
def test_a_wait_is_never_longer_than_its_cap(attempt, seed):
    assert 0 <= full_jitter(attempt, 1.0, 300.0, Random(seed)) <= 300.0


def test_waits_of_a_fleet_are_spread_evenly_over_a_growing_span():
    waits = [full_jitter(5, 1.0, 300.0, Random(device)) for device in range(1000)]
    assert max(waits) > 31
    assert 14 < sum(waits) / len(waits) < 18
