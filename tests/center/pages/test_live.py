"""What open pages ask for every two seconds is asked of the store once for all of them."""

import time
from types import SimpleNamespace

import pytest

from center.errors import StoreError
from center.pages import live
from center.pages.states import Patience
from center.settings import Settings
from center.stores.registry import Device, DevicePage
from center.stores.telemetry import LastValue, Sensor
from tests.center_helpers import DAY

LONG_AGO = time.time_ns() - 30 * DAY


@pytest.fixture
def clock(monkeypatch):
    now = [1000.0]
    monkeypatch.setattr(live.time, "monotonic", lambda: now[0])
    monkeypatch.setattr(live, "patiences", lambda _, device_ids: {i: Patience(now[0], 30.0) for i in device_ids})
    return now


class Store:
    """Values and registrations; `asked` holds the devices of each query for values."""

    def __init__(self):
        self.asked, self.listed, self.down = [], 0, False
        self.registered = ["pi-0"]
        self.center = SimpleNamespace(telemetry=self, registry=self, settings=Settings())

    def last_values(self, device_ids, *, since_ns):
        self.asked.append(sorted(device_ids))
        if self.down:
            raise StoreError("down")
        last = LastValue("Temperature", Sensor(), live.time.monotonic(), since_ns)
        if since_ns < LONG_AGO and "long ago" in device_ids:
            return {"long ago": [LastValue("Temperature", Sensor(), 1.0, LONG_AGO)]}
        return {i: [last] for i in device_ids if i not in {"silent", "long ago"}}

    def devices(self):
        self.listed += 1
        return DevicePage([Device(i, "k", 0, 0, True) for i in self.registered], len(self.registered))


def test_fifty_pages_are_one_query_every_two_seconds(clock):
    store, looked = Store(), live.Live()
    ids = sorted(f"pi-{n}" for n in range(50))
    for device_id in ids:
        looked.look(store.center, device_id)
    opened = len(store.asked)
    assert opened == 50
    for tick in range(100):  # each asks every two seconds, at any moment
        clock[0] += 2 / 5
        for device_id in ids[tick % 5 :: 5]:
            found = looked.look(store.center, device_id)
            assert found.seen == found.values[0].time_ns
            assert clock[0] - found.values[0].value < 2
            assert found.registered == (device_id == "pi-0")
    assert len(store.asked) - opened <= 100 * 2 / 5 / 2 + 1
    assert all(asked == ids for asked in store.asked[opened:])
    assert store.listed <= 3


def test_a_page_that_is_closed_is_asked_for_no_longer_and_silence_is_no_old_value(clock):
    store, looked = Store(), live.Live()
    looked.look(store.center, "pi-0")
    for _ in range(10):
        clock[0] += 2
        looked.look(store.center, "pi-1")
    assert store.asked[-1] == ["pi-1"]
    assert looked.look(store.center, "silent").values == ()


def test_a_device_that_is_silent_for_long_is_told_from_one_that_never_wrote(clock):
    """Its last point is looked for once, and remembered while the page is open."""
    store, looked = Store(), live.Live()
    for _ in range(5):
        clock[0] += 2
        for device_id, seen in (("long ago", LONG_AGO), ("silent", None)):
            found = looked.look(store.center, device_id)
            assert (found.values, found.seen) == ((), seen)
    assert [asked for asked in store.asked if asked == ["long ago"]] == [["long ago"]] * 2  # recent, and ever


def test_a_fault_is_everybodys_and_asked_about_once_every_two_seconds(clock):
    store, looked = Store(), live.Live()
    looked.look(store.center, "pi-0")
    store.down = True
    clock[0] += 2
    for n in range(20):
        with pytest.raises(StoreError):
            looked.look(store.center, f"pi-{n}")
    assert len(store.asked) == 2
    store.down = False
    clock[0] += 2
    assert looked.look(store.center, "pi-3").values[0].value == clock[0]
    assert looked.look(store.center, "pi-0").values[0].value == clock[0]
    assert len(store.asked) == 3


def test_a_device_that_registered_a_moment_ago_is_known_when_its_page_is_opened(clock):
    store, looked = Store(), live.Live()
    store.registered = []
    looked.look(store.center, live.NOBODY)
    store.registered = ["pi-0"]
    for device_id in ("stranger", "pi-0"):
        clock[0] += live.EVERY_S
        assert looked.look(store.center, device_id).registered == (device_id == "pi-0")
    listed = store.listed
    for _ in range(5):
        clock[0] += 2
        looked.look(store.center, "stranger")  # who stays one is not looked for each time
    assert store.listed == listed


def test_a_page_that_is_made_anew_is_not_contradicted_by_what_was_known_before(clock):
    store, looked = Store(), live.Live()
    for age in (0, 0.5, 1.5):  # of what the page before was told
        looked.look(store.center, "pi-0")
        clock[0] += age
        looked.opened("pi-0")
        found = looked.look(store.center, "pi-0")
        assert (found.patience.silent_after_s, found.values[0].value) == (clock[0], clock[0])
        assert found.registered


def test_every_open_page_judges_by_what_holds_now_however_many_others_are_opened(clock):
    store, looked = Store(), live.Live()
    for tick in range(200):
        clock[0] += 1
        looked.look(store.center, f"new {tick}")
        found = looked.look(store.center, "pi-0")
        assert clock[0] - found.patience.silent_after_s <= live.KNOWN_EVERY_S + live.EVERY_S
