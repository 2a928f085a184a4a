"""The lease of an embedded registry ends by itself."""

import time_machine

from center.stores.registry import LEASE_S
from tests.center_helpers import embedded_settings, stores


def test_it_ends_by_itself_and_a_clock_that_was_ahead_holds_nothing(tmp_path):
    with stores(embedded_settings(tmp_path)) as (registry, _), time_machine.travel(1_700_000_000, tick=False) as clock:
        assert registry.hold_lease("a")
        clock.shift(LEASE_S)
        assert not registry.hold_lease("b")
        clock.shift(1)
        assert registry.hold_lease("b")
        assert not registry.hold_lease("a")
        clock.shift(-3600)
        assert registry.hold_lease("a")
