"""Who owns a device id: whatever happens at once, everybody who reads the claims decides alike."""

import random
import string

import pytest
from hypothesis import given
from hypothesis import strategies as st

from agent.util.secret import Secret
from center.influx.claims import Claim, settle
from center.influx.registry import InfluxRegistry
from center.line_protocol import parse

KEYS = st.text("0123456789abcdef", min_size=4, max_size=4)
SECRETS = st.sampled_from(["", "hash-a", "hash-b"])


@st.composite
def histories(draw):
    keys = draw(st.lists(KEYS, min_size=1, max_size=8, unique=True))
    return [Claim(n, key, draw(SECRETS)) for n, key in enumerate(sorted(keys))]


@given(histories(), st.randoms(use_true_random=False))
def test_the_order_in_which_claims_are_read_does_not_matter(claims, chance):
    shuffled = claims[:]
    chance.shuffle(shuffled)
    assert settle(shuffled) == settle(claims)


@given(histories())
def test_one_stays_and_it_is_the_first_owners(claims):
    settled = settle(claims)
    owner = min(claims, key=lambda claim: claim.key).secret_hash
    assert settled.owner_hash == owner
    assert settled.key == max(claim.key for claim in claims if claim.secret_hash == owner)
    assert {claim.key for claim in settled.others} | {settled.key} == {claim.key for claim in claims}
    assert settled.created_ns == 0


@given(histories(), st.integers(0, 8))
def test_whoever_reads_early_never_keeps_what_a_later_reader_deletes_for_another_secret(claims, read):
    """A later claim can end the token of an earlier one only with the same secret: its device renews it."""
    early, late = settle(claims[: read + 1]), settle(claims)
    if early.key != late.key:
        assert early.owner_hash == late.owner_hash


@given(histories(), st.integers(0, 9))
def test_a_tombstone_ends_what_came_before_it(claims, place):
    settled = settle([*claims, Claim(place)])
    alive = [claim for claim in claims if claim.time_ns > place]
    assert settled == settle(alive)
    assert (settled is None) == (not alive)


def test_nothing_is_not_registered():
    assert settle([]) is None


class Shifting:
    """An auth bucket in memory, read as InfluxDB 2.8.0 reads it: what follows an empty text comes a point too early."""

    def __init__(self):
        self.points = []

    def write(self, _, lines):
        for points in parse("\n".join(lines).encode()):
            self.points += points

    def rows(self, *_):
        for field in ("key", "secretHash"):
            values = [value for point in self.points if (value := point.fields[field])]
            for n, point in enumerate(self.points):
                row = {"deviceId": point.tags["deviceId"], "_time": n, "_field": field}
                yield row | ({"_value": values[n]} if n < len(values) else {})


def test_a_removed_device_registers_again_where_influxdb_reads_empty_texts_wrongly(monkeypatch):
    registry = InfluxRegistry(Shifting(), "iot_center", "devices")
    keys = iter("1234")
    monkeypatch.setattr(registry, "authorize", lambda _: (next(keys), Secret("token")))
    monkeypatch.setattr(registry, "delete", lambda _: None)
    mine = Secret("s" * 32)
    assert registry.register("pi-1").new
    assert not registry.device("pi-1").has_secret
    assert registry.remove("pi-1")
    assert registry.device("pi-1") is None
    assert registry.register("pi-1", mine).new
    assert not registry.register("pi-1", mine).new
    assert registry.device("pi-1").key == "3"
    assert registry.remove("pi-1")
    assert not registry.remove("pi-1")
    assert registry.register("pi-1").new


def live_of(registry):
    """The authorizations of its bucket."""
    return {key for key, issued in registry.issued().items() if issued.writes}


@pytest.mark.influxdb
def test_a_center_whose_clock_is_wrong_leaves_one_live_authorization(monkeypatch):
    from center import times
    from center.influx import registry as influx_registry
    from tests.center_helpers import HOUR, influx_settings, stores

    secret = Secret("s" * 32)
    with influx_settings() as settings, stores(settings) as (registry, _):
        for ahead in (-48 * HOUR, 48 * HOUR):
            monkeypatch.setattr(influx_registry, "now_ns", lambda ahead=ahead: times.now_ns() + ahead)
            for _ in range(2):
                made = registry.register("pi-1", secret)
                assert live_of(registry) == {made.device.key}
            assert registry.sweep(older_than_s=-60) == []  # what is in use stays
            registry.authorize("pi-2")  # as another center does in the midst of registering
            assert registry.sweep(older_than_s=600) == []
            assert len(registry.sweep(older_than_s=-60)) == 1
        assert abs(registry.device("pi-1").created_ns - times.now_ns()) < HOUR
        registry.remove("pi-1")
        assert not live_of(registry)


@pytest.mark.influxdb
def test_a_registration_cut_short_at_any_step_is_put_right(monkeypatch):
    """The center dies after each of its calls to InfluxDB; the next call or the sweep leaves one live authorization."""
    from center.influx.client import Influx
    from tests.center_helpers import influx_settings, stores

    class Died(BaseException):
        pass

    secret = Secret("s" * 32)
    with influx_settings() as settings, stores(settings) as (registry, _):
        for step in range(1, 12):
            name = "cut-" + "".join(random.choices(string.ascii_lowercase, k=8))
            calls = [0]

            def counted(original, calls=calls, step=step):
                def call(*args, **kwargs):
                    result = original(*args, **kwargs)
                    calls[0] += 1
                    if calls[0] == step:
                        raise Died
                    return result

                return call

            with monkeypatch.context() as patch:
                patch.setattr(Influx, "rows", counted(Influx.rows))
                patch.setattr(Influx, "write", counted(Influx.write))
                patch.setattr(InfluxRegistry, "authorize", counted(InfluxRegistry.authorize))
                patch.setattr(InfluxRegistry, "delete", counted(InfluxRegistry.delete))
                try:
                    registry.register(name, secret)
                    registry.register(name, secret)
                except Died:
                    pass
            made = registry.register(name, secret)
            registry.sweep(older_than_s=-60)
            live = live_of(registry)
            assert made.device.key in live
            assert registry.device(name).key == made.device.key
        assert live == {device.key for device in registry.devices().devices}
        assert registry.orphans(older_than_s=-60) == []
