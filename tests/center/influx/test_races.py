"""Two centers, or two requests, at one device in the same moment: which authorization stays, and what is said."""

import time

import pytest

from agent.util.secret import Secret
from center.errors import ConflictError, EnrollmentError, RefusedError, StoreError
from center.influx.issuing import IssuingRegistry
from center.influx.registry import InfluxRegistry
from center.times import now_ns
from tests.center.stores.conftest import opened_store

A, B = Secret("a" * 32), Secret("b" * 32)
pytestmark = pytest.mark.influxdb


@pytest.fixture(scope="module")
def opened(tmp_path_factory):
    with opened_store("influxdb", tmp_path_factory.mktemp("influxdb")) as store:
        yield store


@pytest.fixture
def registry(opened):
    return opened[0]


@pytest.fixture
def meanwhile(registry, monkeypatch):
    """Have something done once, after the next claim or tombstone is written and before what stands there is read."""

    def do(call):
        write, waiting = registry.influx.write, [call]

        def written(*points):
            write(*points)
            if waiting:
                waiting.pop()()

        monkeypatch.setattr(registry.influx, "write", written)

    return do


def other(registry):
    return InfluxRegistry(registry.influx, registry.bucket, registry.bucket_auth)


def live_of(registry, device):
    """The authorizations that InfluxDB has for it, by their ids: the earlier first."""
    live = registry.influx.client.authorizations_api().find_authorizations()
    return sorted(found.id for found in live if found.description == f"IoT Center: {device}")


def test_of_two_registrations_with_one_secret_the_later_stays_and_the_earlier_may_try_again(registry, meanwhile):
    won = []
    meanwhile(lambda: won.append(other(registry).register("twice", A)))
    with pytest.raises(ConflictError, match="another registration of twice won at the same moment") as lost:
        registry.register("twice", A)
    assert lost.value.raced
    assert live_of(registry, "twice") == [won[0].device.key]
    assert not registry.register("twice", A).new


def test_a_registration_whose_device_is_removed_meanwhile_leaves_no_authorization(registry, meanwhile):
    meanwhile(lambda: other(registry).remove("gone"))
    with pytest.raises(ConflictError, match="won at the same moment") as lost:
        registry.register("gone", A)
    assert lost.value.raced
    assert registry.device("gone") is None
    assert live_of(registry, "gone") == []


def test_a_device_that_registers_while_it_is_removed_keeps_its_new_authorization(registry, meanwhile):
    registry.register("again", A)
    new = []
    meanwhile(lambda: new.append(other(registry).register("again", B)))
    assert registry.remove("again")
    assert registry.device("again") == new[0].device
    assert live_of(registry, "again") == [new[0].device.key]
    assert registry.owns("again", B)


class Blind:
    """InfluxDB as a center sees it whose first look came before anything was there."""

    def __init__(self, influx):
        self._influx, self._blind = influx, True

    def __getattr__(self, name):
        return getattr(self._influx, name)

    def rows(self, *asked):
        blind, self._blind = self._blind, False
        return [] if blind else self._influx.rows(*asked)


@pytest.mark.parametrize(("secret", "said"), [(A, "registered already"), (None, "only an administrator")])
def test_the_first_of_two_secrets_owns_the_device_and_the_other_is_told_so(
    registry, meanwhile, monkeypatch, secret, said
):
    """Both have read that there is no such device. The lower key is the earlier one."""
    late, device = InfluxRegistry(Blind(registry.influx), registry.bucket, registry.bucket_auth), f"both-{bool(secret)}"
    key, token = registry.authorize(device)
    monkeypatch.setattr(registry, "authorize", lambda _: (key, token))

    def second():
        with pytest.raises(ConflictError, match=said) as lost:
            late.register(device, B)
        assert not lost.value.raced

    meanwhile(second)
    assert registry.register(device, secret).device.key == key
    assert registry.owns(device, secret) == (secret is not None)
    assert live_of(registry, device) == [key]


def cut_short(registry, monkeypatch, device, **how):
    """A registration that ends when the authorization should be made: the use of its key is counted."""

    def refused(_):
        raise StoreError("InfluxDB is away")

    with monkeypatch.context() as patch:
        patch.setattr(registry, "authorize", refused)
        with pytest.raises(StoreError):
            registry.register(device, A, needs_key=True, **how)


def used(registry, key):
    return next(found.used for found in registry.enrollment_keys() if found.id == key.id)


@pytest.mark.parametrize("ahead_s", [None, 3600])
def test_a_registration_that_was_cut_short_goes_on_with_its_use_of_the_key(registry, monkeypatch, ahead_s):
    device = f"cut-short-{ahead_s}"
    expires_ns = now_ns() + ahead_s * 1_000_000_000 if ahead_s else None
    key, secret = registry.make_enrollment_key(uses=1, expires_ns=expires_ns)
    cut_short(registry, monkeypatch, device, enrollment_key=secret)
    assert used(registry, key) == 1
    with pytest.raises(EnrollmentError):
        registry.register(f"{device}-other", A, needs_key=True, enrollment_key=secret)
    assert registry.register(device, A, needs_key=True, enrollment_key=secret).new
    assert used(registry, key) == 1


@pytest.mark.parametrize("ends", ["revoked", "expired"])
def test_a_registration_that_was_cut_short_does_not_go_on_with_a_key_that_ended_since(registry, monkeypatch, ends):
    expires_ns = now_ns() + 3600 * 1_000_000_000
    key, secret = registry.make_enrollment_key(uses=1, expires_ns=expires_ns)
    cut_short(registry, monkeypatch, f"ended-{ends}", enrollment_key=secret)
    if ends == "revoked":
        registry.revoke_enrollment_key(key.id)
    else:
        monkeypatch.setattr("center.influx.enrollment.now_ns", lambda: expires_ns)
    with pytest.raises(EnrollmentError):
        registry.register(f"ended-{ends}", A, needs_key=True, enrollment_key=secret)
    assert registry.device(f"ended-{ends}") is None


def test_what_another_center_sets_is_known_here_once_what_is_remembered_is_old(registry, monkeypatch):
    there = other(registry)
    assert (registry.session_ended("one"), registry.password_hash()) == (False, None)
    there.end_session("one")
    there.set_password_hash("hash")
    assert (registry.session_ended("one"), registry.password_hash()) == (False, None)
    monkeypatch.setattr("center.influx.registry.PASSWORD_CACHED_S", 0)
    assert (registry.session_ended("one"), registry.password_hash()) == (True, "hash")
    assert not registry.session_ended("two")
    there.set_password_hash(None)
    assert registry.password_hash() is None


def test_what_was_cleared_long_ago_is_not_asked_for_again_and_what_this_one_replaces_is(registry, monkeypatch):
    monkeypatch.setattr("center.influx.registry.UNSETTLED_NS", 0)
    deleted = []
    delete = registry.delete
    monkeypatch.setattr(registry, "delete", lambda key: deleted.append(key) or delete(key))
    keys = [registry.register("renews", A).device.key for _ in range(3)]
    assert deleted == keys[:2]
    assert live_of(registry, "renews") == keys[2:]


def test_keys_that_the_center_makes_follow_those_that_influxdb_makes_in_time_and_the_other_way_round(registry):
    issuing = IssuingRegistry(registry.influx, registry.bucket, registry.bucket_auth)
    keys = []
    for maker in (registry, issuing, registry, issuing, registry):
        keys.append(maker.authorize("turns")[0])
        time.sleep(0.003)  # the ids count milliseconds
    assert keys == sorted(keys)
    for key in keys[::2]:
        registry.delete(key)


def test_of_a_renewal_that_ended_before_it_cleared_anything_only_its_own_authorization_is_left(registry, monkeypatch):
    registry.register("left", A)
    with monkeypatch.context() as patch:
        patch.setattr(registry, "_clear", lambda *_: None)
        second = registry.register("left", A).device.key
    assert live_of(registry, "left") == [second]
    third = registry.register("left", A).device.key
    assert live_of(registry, "left") == [third]


def test_an_authorization_that_is_gone_is_deleted_and_what_influxdb_refuses_is_said(registry):
    key, _ = registry.authorize("gone-already")
    for _ in range(2):
        registry.delete(key)
    with pytest.raises((StoreError, RefusedError)):
        registry.delete("no id")


def test_of_authorizations_that_were_changed_by_hand_it_is_told_what_they_may(registry):
    """Inactive ones, those that may more or less, and none of another name."""
    from influxdb_client.domain.permission import Permission
    from influxdb_client.domain.permission_resource import PermissionResource

    api, bucket = registry.influx.client.authorizations_api(), registry.influx.needed_bucket(registry.bucket)

    def permission(action):
        resource = PermissionResource(type="buckets", id=bucket.id, org_id=bucket.org_id)
        return Permission(action=action, resource=resource)

    mine, _ = registry.authorize("by-hand")
    ended = api.find_authorization_by_id(mine)
    ended.status = "inactive"
    api.update_authorization(ended)
    made = {}
    for name, actions in (("read", ["read"]), ("both", ["write", "read"])):
        found = api.create_authorization(bucket.org_id, [permission(action) for action in actions])
        found.description = f"IoT Center: {name}"
        api.update_authorization(found)
        made[name] = found.id
    other = api.create_authorization(bucket.org_id, [permission("write")]).id
    try:
        issued = registry.issued()
        assert (issued[mine].writes, issued[mine].active) == (True, False)
        assert abs(issued[mine].created_ns - now_ns()) < 60 * 10**9
        assert [(issued[key].writes, issued[key].active) for key in made.values()] == [(False, True)] * 2
        assert other not in issued
        swept = registry.sweep(older_than_s=-60)
        assert mine in swept
        assert not {other, *made.values()} & set(swept)
        assert registry.issued().keys() >= set(made.values())
    finally:
        for key in (mine, other, *made.values()):
            registry.delete(key)
