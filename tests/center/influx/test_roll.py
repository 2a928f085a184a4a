"""The list of registrations: each claim is read once, and what InfluxDB lost is not remembered for ever."""

import threading

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
        self.id, self.claims, self.read, self.down = "b1", [], [], False

    def write(self, device_id, time_ns, key="", secret_hash=""):
        self.claims.append((device_id, time_ns, key, secret_hash))

    def rows(self, since_ns):
        if self.down:
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
    listed._rereading.join()
    monkeypatch.undo()
    assert ids(listed) == ["pi-2"]
    bucket.down = True
    with pytest.raises(StoreError):
        ids(listed)
    bucket.down = False
    assert ids(listed) == ["pi-2"]


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
