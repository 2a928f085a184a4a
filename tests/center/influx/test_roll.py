"""The list of registrations: each claim is read once, and what InfluxDB lost is not remembered for ever."""

import threading
from types import SimpleNamespace

import pytest
from hypothesis import given
from hypothesis import strategies as st

from center.errors import StoreError
from center.influx import roll
from center.influx.claims import settle
from center.influx.roll import OVERLAP_NS, Claims, Roll
from tests.center.influx.test_claims import histories

SECOND = 1_000_000_000


class Bucket:
    """Claims in an auth bucket. `read` holds the rows that each question got."""

    def __init__(self):
        self.id, self.claims, self.read, self.down, self.whole_down = "b1", [], [], False, False
        self.askers = set()

    def write(self, device_id, time_ns, key="", secret_hash=""):
        self.claims.append((device_id, time_ns, key, secret_hash))

    def rows(self, since_ns):
        self.askers.add(threading.current_thread())
        if self.down or (self.whole_down and since_ns is None):
            raise StoreError("down")
        found = [
            {"deviceId": device_id, "_time": t, "_field": field, "_value": value}
            for device_id, t, *values in self.claims
            if since_ns is None or t >= since_ns
            for field, value in zip(("key", "secretHash"), values, strict=True)
        ]
        self.read.append(len(found))
        return found


@pytest.fixture
def bucket():
    return Bucket()


@pytest.fixture
def listed(bucket):
    return Roll(bucket.rows, lambda: bucket.id, Claims)


def ids(listed):
    return [device.id for device in listed.look().devices]


def test_only_what_is_new_is_read_again(bucket, listed):
    for n in range(1000):
        bucket.write(f"pi-{n:04}", n * SECOND, f"{n:04x}", "hash")
    assert len(ids(listed)) == 1000
    bucket.write("pi-2000", 2000 * SECOND, "ffff", "hash")
    assert "pi-2000" in ids(listed)
    assert bucket.read[1] <= 2 * (OVERLAP_NS // SECOND + 3)
    bucket.write("pi-0005", 2001 * SECOND)
    assert "pi-0005" not in ids(listed)
    bucket.write("pi-0005", 2002 * SECOND, "fffff", "other")
    assert next(device for device in listed.look().devices if device.id == "pi-0005").key == "fffff"
    assert bucket.read[-1] <= 8


def test_half_a_point_that_was_seen_first_is_no_tombstone(bucket, listed):
    bucket.write("pi-1", SECOND, "aa", "hash")
    assert ids(listed) == ["pi-1"]
    bucket.write("pi-1", 2 * SECOND, "", "hash")
    assert ids(listed) == []
    bucket.claims[-1] = ("pi-1", 2 * SECOND, "bb", "hash")
    assert [device.key for device in listed.look().devices] == ["bb"]


def test_a_bucket_that_was_made_anew_has_its_own_registrations(bucket, listed):
    bucket.write("pi-1", SECOND, "aa")
    assert ids(listed) == ["pi-1"]
    bucket.id, bucket.claims = "b2", []
    bucket.write("pi-2", SECOND, "bb")
    assert ids(listed) == ["pi-2"]


def test_what_was_deleted_by_hand_is_forgotten_with_the_next_whole_reading(bucket, listed, monkeypatch):
    bucket.write("pi-1", SECOND, "aa")
    bucket.write("pi-2", SECOND, "bb")
    assert ids(listed) == ["pi-1", "pi-2"]
    del bucket.claims[0]
    assert ids(listed) == ["pi-1", "pi-2"]
    monkeypatch.setattr(roll, "WHOLE_EVERY_S", 0)
    ids(listed)
    for thread in rereading():
        thread.join()
    monkeypatch.undo()
    assert ids(listed) == ["pi-2"]
    bucket.down = True
    with pytest.raises(StoreError):
        ids(listed)
    bucket.down = False
    assert ids(listed) == ["pi-2"]


def rereading():
    return [thread for thread in threading.enumerate() if thread.name == "center-registrations"]


def test_what_becomes_visible_ten_seconds_late_is_seen_and_all_is_read_again_after_minutes_only(bucket, listed):
    bucket.write("pi-1", 20 * SECOND, "aa")
    assert ids(listed) == ["pi-1"]
    bucket.write("pi-2", 10 * SECOND, "bb")
    bucket.write("pi-3", 10 * SECOND - 1, "cc")
    for _ in range(3):
        assert ids(listed) == ["pi-1", "pi-2"]
        assert not rereading()
    assert bucket.read == [2, 4, 4, 4]


@pytest.mark.parametrize("after_s", [299.9, 300.0])
def test_all_is_read_again_after_five_minutes_and_a_reading_that_fails_is_tried_at_the_next(
    bucket, listed, monkeypatch, caplog, after_s
):
    caplog.set_level("DEBUG", "center")
    now, again = [1000.0], after_s == 300.0
    monkeypatch.setattr(roll, "time", SimpleNamespace(monotonic=lambda: now[0]))
    bucket.write("pi-1", SECOND, "aa")
    bucket.write("pi-2", SECOND, "bb")
    assert ids(listed) == ["pi-1", "pi-2"]
    del bucket.claims[0]
    now[0] += after_s
    bucket.whole_down = True
    for tries in (1, 2):
        assert ids(listed) == ["pi-1", "pi-2"]
        for thread in rereading():
            thread.join()
        assert caplog.messages == ["down"] * tries * again
    bucket.whole_down = False
    ids(listed)
    for thread in rereading():
        thread.join()
    assert ids(listed) == (["pi-2"] if again else ["pi-1", "pi-2"])
    others = bucket.askers - {threading.current_thread()}
    assert bool(others) == again
    assert all(thread.daemon for thread in others)  # none of them holds a process that ends


@given(histories(), st.lists(st.integers(0, 9), max_size=4), st.lists(st.integers(0, 8), max_size=4))
def test_read_in_pieces_it_says_what_all_claims_say(claims, tombstones, looks):
    bucket = Bucket()
    listed = Roll(bucket.rows, lambda: bucket.id, Claims)
    written = []
    for claim in claims:
        bucket.write("pi-1", claim.time_ns * 2 * SECOND, claim.key, claim.secret_hash)
        written.append(claim)
        if claim.time_ns in tombstones:
            bucket.write("pi-1", claim.time_ns * 2 * SECOND + 1)
        if claim.time_ns in looks:
            ids(listed)
    from center.influx.claims import Claim

    settled = settle([Claim(t, key, secret) for _, t, key, secret in bucket.claims])
    assert [device.key for device in listed.look().devices] == ([settled.key] if settled else [])


def test_many_who_ask_at_once_get_the_same(bucket, listed):
    for n in range(100):
        bucket.write(f"pi-{n:04}", n * SECOND, f"{n:04x}", "hash")
    found = []
    threads = [threading.Thread(target=lambda: found.append(len(ids(listed)))) for _ in range(8)]
    for thread in threads:
        thread.start()
    for thread in threads:
        thread.join()
    assert found == [100] * 8
