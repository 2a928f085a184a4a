"""The registry on InfluxDB over minutes and seconds that nobody waits for: its points in memory, stamped by a clock."""

import re
from types import SimpleNamespace

import pytest

from agent.util.secret import Secret
from center.errors import EnrollmentError, RefusedError, StoreError
from center.influx import registry as influx_registry
from center.influx.registry import InfluxRegistry
from center.line_protocol import parse

A, B = Secret("a" * 32), Secret("b" * 32)
MINUTE = 60 * 10**9
START = 1_800_000_000 * 10**9


class AuthBucket:
    """The auth bucket of an InfluxDB whose clock shows `now_ns`."""

    def __init__(self):
        self.now_ns, self.points, self.asked, self.refuses = START, [], 0, False

    def needed_bucket(self, name):
        return SimpleNamespace(id=f"id of {name}")

    def write(self, _, lines):
        if self.refuses:
            raise RefusedError("retention")
        for points in parse("\n".join(lines).encode()):
            self.points += [(self.now_ns, point) for point in points]

    def rows(self, flux, values):
        if self.refuses:
            raise RefusedError("syntax")
        self.asked += 1
        measurement = re.search(r'r._measurement == "(\w+)"', flux)[1]
        ago = re.search(r"start: -(\d+)s\)", flux)
        start_ns = self.now_ns - int(ago[1]) * 10**9 if ago else 0
        wanted = {name[1:]: value for name, value in values.items() if name != "_bucket"}
        found = {}
        for t, point in self.points:
            if point.measurement == measurement and wanted.items() <= point.tags.items() and t >= start_ns:
                for name, value in point.fields.items():
                    row = {"_time": t, "_field": name} | ({"_value": value} if value else {}) | point.tags
                    found[(*point.tags.items(), name, 0 if "last()" in flux else t)] = row
        return list(found.values())


class Registry(InfluxRegistry):
    """Its authorizations are numbers, and what was asked to be deleted is noted."""

    def __init__(self, bucket):
        super().__init__(bucket, "series", "auth")
        self.issued_keys, self.deleted, self.fails = 0, [], []

    def authorize(self, device_id):
        self.issued_keys += 1
        return f"{self.issued_keys:016x}", Secret(f"token of {device_id}")

    def delete(self, key):
        if self.fails:
            raise self.fails.pop()
        self.deleted.append(int(key, 16))


@pytest.fixture
def bucket():
    return AuthBucket()


@pytest.fixture
def registry(bucket):
    return Registry(bucket)


@pytest.mark.parametrize(("after_ns", "deleted"), [(15 * MINUTE - 1, [1, 2]), (15 * MINUTE, [2]), (40 * MINUTE, [2])])
@pytest.mark.parametrize("ends", ["registered anew", "removed"])
def test_what_is_older_than_a_quarter_of_an_hour_was_cleared_by_its_time(registry, bucket, ends, after_ns, deleted):
    """But for the one that is replaced, or removed."""
    for minute in (0, 10):
        bucket.now_ns = START + minute * MINUTE
        registry.register("pi-1", A)
    registry.deleted.clear()
    bucket.now_ns = START + after_ns
    if ends == "removed":
        assert registry.remove("pi-1")
    else:
        assert not registry.register("pi-1", A).new
    assert sorted(registry.deleted) == deleted


def away(*_):
    raise StoreError("InfluxDB restarts")


def ends(*_):
    raise SystemExit


@pytest.mark.parametrize("then", ["registered anew", "removed"])
@pytest.mark.parametrize("minutes", [1, 60])
@pytest.mark.parametrize(("fails", "how"), [("_claims", away), ("_clear", away), ("_claims", ends)])
def test_a_renewal_that_was_cut_short_leaves_no_authorization_behind(bucket, fails, how, minutes, then):
    """Its claim is written and cannot be read back, or its process ends there."""
    registry = Registry(bucket)
    registry.register("pi-1", A)
    for _ in range(2):
        bucket.now_ns += 60 * MINUTE
        cut_short = Registry(bucket)
        cut_short.issued_keys, cut_short.deleted = registry.issued_keys, registry.deleted
        cut_short._write = lambda *given, to=cut_short: (Registry._write(to, *given), setattr(to, fails, how))
        with pytest.raises((StoreError, SystemExit)):
            cut_short.register("pi-1", A)
        registry.issued_keys += 1
    bucket.now_ns += minutes * MINUTE
    if then == "removed":
        assert registry.remove("pi-1")
    else:
        assert not registry.register("pi-1", A).new
    assert set(registry.deleted) == {1, 2, 3}


@pytest.mark.parametrize("registered", [True, False])
def test_a_registration_that_cannot_be_written_says_whether_it_ended_a_token(registry, monkeypatch, registered):
    """Also where the new authorization cannot be taken back; a fault that is known stays that."""
    if registered:
        registry.register("pi-1", A)

    def refused(*_):
        registry.fails.append(StoreError("InfluxDB is away"))
        error = StoreError("InfluxDB restarts")
        error.known = True
        raise error

    monkeypatch.setattr(registry, "_write", refused)
    with pytest.raises(StoreError) as failed:
        registry.register("pi-1", A)
    ended = "pi-1 may have no token that works until it gets a new one: try again. "
    assert str(failed.value) == f"{ended if registered else ''}InfluxDB restarts"
    assert failed.value.known
    assert registry.fails == []


def test_a_removal_that_failed_is_done_by_the_next(registry, bucket):
    """Where the authorization could not be deleted the device stays; where what came after failed, no key is left."""
    registry.register("pi-1", A)
    registry.fails.append(StoreError("InfluxDB restarts"))
    with pytest.raises(StoreError):
        registry.remove("pi-1")
    assert registry.device("pi-1") is not None
    assert registry.remove("pi-1")
    assert registry.deleted == [1]
    bucket.now_ns += 60 * MINUTE
    registry.register("pi-1", A)

    def meanwhile(name, lines):
        del bucket.write
        other = Registry(bucket)
        other.issued_keys = 2
        other.register("pi-1", A)
        registry.deleted.clear()
        bucket.now_ns += 1
        bucket.write(name, lines)
        registry.fails.append(StoreError("InfluxDB restarts"))

    bucket.write = meanwhile  # another registration, just before the tombstone
    with pytest.raises(StoreError):
        registry.remove("pi-1")
    assert not registry.remove("pi-1")
    assert 3 in registry.deleted


def test_when_a_device_was_registered_and_renewed_is_what_the_servers_clock_says(registry, bucket):
    registry.register("pi-1", A)
    bucket.now_ns += 7 * MINUTE
    device = registry.register("pi-1", A).device
    assert (device.created_ns, device.updated_ns, device.key) == (START, START + 7 * MINUTE, f"{2:016x}")
    assert registry.device("pi-1") == device


@pytest.fixture
def seconds(monkeypatch):
    now = [1000.0]
    monkeypatch.setattr(influx_registry, "time", SimpleNamespace(monotonic=lambda: now[0]))
    return now


def test_the_password_and_ended_sessions_are_asked_for_every_five_seconds(registry, bucket, seconds):
    there = Registry(bucket)

    def known():
        return registry.password_hash(), registry.session_ended("one"), registry.session_ended("two")

    assert known() == (None, False, False)
    there.set_password_hash("hash")
    there.end_session("one")
    seconds[0] += 5.0
    assert known() == (None, False, False)
    assert bucket.asked == 2
    seconds[0] += 0.1
    assert known() == ("hash", True, False)
    registry.end_session("two")  # what is done here is known at once
    registry.set_password_hash("other")
    assert known() == ("other", True, True)
    there.set_password_hash(None)
    seconds[0] += 5.1
    assert known() == (None, True, True)
    registry.influx.write("auth", ['center,setting=password hash=""'])  # as 0.1.0 cleared it
    seconds[0] += 5.1
    assert registry.password_hash() is None


def test_what_influxdb_refuses_of_the_centers_own_is_no_fault_of_the_caller(registry, bucket):
    bucket.refuses = True
    for call in (lambda: registry.device("pi-1"), lambda: registry.end_session("one")):
        with pytest.raises(StoreError, match=r"refuses the center's own request: (syntax|retention); see iot-center"):
            call()


def test_a_key_of_which_only_the_end_is_known_is_none(registry):
    """Revoked after its bucket was made anew, or by hand."""
    registry.influx.write("auth", ['enrollment,keyId=3f9a2c71 revokedAt="2026-11-24T06:30:00Z"'])
    assert registry.enrollment_keys() == []
    with pytest.raises(EnrollmentError):
        registry.register("pi-1", A, enrollment_key=Secret("3f9a2c71.secret"), needs_key=True)
    key, _ = registry.make_enrollment_key()
    assert registry.enrollment_keys() == [key]


def test_two_that_took_the_last_use_at_once_count_as_one_more_than_the_key_had_and_are_shown_as_all(registry, bucket):
    key, secret = registry.make_enrollment_key(uses=1)
    registry.register("pi-1", A, enrollment_key=secret, needs_key=True)
    bucket.now_ns += 1
    registry.influx.write("auth", [f'enrollment_use,keyId={key.id},deviceId=pi-2 usedAt="now"'])
    [listed] = registry.enrollment_keys()
    assert (listed.used, listed.uses) == (1, 1)
    with pytest.raises(EnrollmentError):  # it came second
        registry.register("pi-2", A, enrollment_key=secret, needs_key=True)
    unlimited, secret = registry.make_enrollment_key(uses=None)
    for n in range(3):
        registry.register(f"many-{n}", A, enrollment_key=secret, needs_key=True)
    assert [found.used for found in registry.enrollment_keys() if found.id == unlimited.id] == [3]


def test_a_lease_that_is_not_renewed_for_a_minute_is_free(registry, bucket):
    assert [registry.hold_lease("first") for _ in range(2)] == [False, True]
    assert not registry.hold_lease("second")
    bucket.now_ns += 60 * 10**9
    assert not registry.hold_lease("second")
    assert registry.hold_lease("first")
    bucket.now_ns += 60 * 10**9 + 1
    assert [registry.hold_lease("second") for _ in range(2)] == [False, True]
    registry.end_lease("first")  # it has it no more
    assert registry.hold_lease("second")
    registry.end_lease("second")
    assert [registry.hold_lease("first") for _ in range(2)] == [False, True]


class Blind(Registry):
    """A replica that looked before anybody had bid, and bids after."""

    def hold_lease(self, holder):
        points, self.influx.points = self.influx.points, []
        assert not super().hold_lease(holder)
        self.influx.points[:0] = points


def test_of_two_replicas_that_claim_at_once_the_first_has_the_lease_and_keeps_it_by_renewing(registry, bucket):
    registry.hold_lease("first")
    bucket.now_ns += 5 * 10**9
    Blind(bucket).hold_lease("second")
    assert registry.hold_lease("first")
    assert not registry.hold_lease("second")
    bucket.now_ns += 58 * 10**9  # the first claim is out of sight, and not the second
    assert registry.hold_lease("first")
    assert not registry.hold_lease("second")


def test_documents_of_another_replica_are_seen_at_the_next_look(registry, bucket):
    there = Registry(bucket)
    assert registry.documents("kept") == {}
    for n, text in enumerate(("one", "two", None, "three")):
        bucket.now_ns += n
        there.keep_document("kept", "a", text)
        there.keep_document("kept", "b", "stays")
        expected = {"b": "stays"} | ({"a": text} if text is not None else {})
        assert registry.documents("kept") == there.documents("kept") == expected
    assert registry.documents("other") == {}
