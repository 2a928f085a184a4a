"""One suite for the registries of all stores, on InfluxDB also with tokens that the center itself issues."""

import itertools
import re
import threading
import time

import pytest

from agent.util.secret import Secret
from center.errors import ConflictError, EnrollmentError, RefusedError
from center.stores.registry import MAX_DOCUMENT, EnrollmentKey, digest, enrollment_id, matches, new_enrollment_key
from center.times import now_ns
from tests.center.stores.conftest import opened_store
from tests.center_helpers import DAY, SECOND

A, B = Secret("a" * 32), Secret("b" * 32)
ON_INFLUXDB = [pytest.param(name, marks=pytest.mark.influxdb) for name in ("influxdb", "issuing")]


@pytest.fixture(scope="module", params=["embedded", *ON_INFLUXDB])
def opened(request, tmp_path_factory):
    with opened_store(request.param, tmp_path_factory.mktemp(request.param)) as store:
        yield store


def test_a_device_registers_and_is_found_by_its_exact_id_only(registry, device):
    made = registry.register(device, A)
    registry.register(f"{device}0", A)
    assert made.new
    assert len(made.token.reveal().rpartition(".")[2]) in {64, 86, 88}  # 64 random bytes, or 48 after an id
    assert re.fullmatch("[0-9a-f]{16}([0-9a-f]{64})?", made.device.key)
    found = registry.device(device)
    assert found == made.device
    assert found.has_secret
    assert registry.device(device[:-1]) is None
    assert registry.device(device.upper()) is None
    assert registry.owns(device, A)
    assert not registry.owns(device, B)
    assert not registry.owns(device[:-1], A)


def test_a_second_registration_without_the_secret_is_refused(registry, device):
    registry.register(device, A)
    for secret in (None, B):
        with pytest.raises(ConflictError, match="registered already") as refused:
            registry.register(device, secret)
        assert not refused.value.raced


def test_the_device_secret_gets_a_new_token_and_keeps_the_registration_date(registry, device):
    first = registry.register(device, A)
    second = registry.register(device, A)
    assert not second.new
    assert second.token != first.token
    assert second.device.key != first.device.key
    assert second.device.created_ns == first.device.created_ns
    assert registry.device(device).key == second.device.key


def test_only_an_administrator_reissues_a_device_without_a_secret(registry, device):
    registry.register(device)
    assert not registry.device(device).has_secret
    for secret in (None, A):
        with pytest.raises(ConflictError, match="only an administrator"):
            registry.register(device, secret)
    again = registry.register(device, A, administrator=True)
    assert not again.new
    assert not again.device.has_secret


def test_an_administrator_reissues_without_taking_the_device_over(registry, device):
    registry.register(device, A)
    registry.register(device, administrator=True)
    assert registry.owns(device, A)
    assert not registry.register(device, A).new


def test_a_removed_device_is_gone_and_can_register_anew_with_another_secret(registry, device):
    first = registry.register(device, A)
    assert registry.remove(device)
    assert not registry.remove(device)
    assert registry.device(device) is None
    assert not registry.owns(device, A)
    again = registry.register(device, B)
    assert again.new
    assert again.device.created_ns > first.device.created_ns
    assert registry.owns(device, B)
    assert not registry.owns(device, A)


def test_an_id_no_device_can_have_is_refused(registry):
    for bad in ("", ".", "..", "a b", "a/b", "ü", "a" * 65, "a\n", 'a"b'):
        with pytest.raises(ValueError, match="device id"):
            registry.register(bad, A)


def test_devices_are_listed_by_pages_and_found_by_part_of_their_id(registry, device):
    ids = sorted(f"{device}.{n}" for n in range(5))
    for name in reversed(ids):
        registry.register(name, A)
    page = registry.devices(search=f"{device}.".upper())
    assert [found.id for found in page.devices] == ids
    assert page.total == 5
    page = registry.devices(search=f"{device}.", offset=2, limit=2)
    assert [found.id for found in page.devices] == ids[2:4]
    assert page.total == 5
    assert registry.devices(search="%").total == 0


def test_of_many_registrations_at_once_one_authorization_stays(registry, device):
    outcomes = []

    def attempt(secret):
        try:
            outcomes.append(registry.register(device, secret))
        except ConflictError as error:
            outcomes.append(error)

    threads = [threading.Thread(target=attempt, args=(secret,)) for secret in (A, B, A, B, A, B)]
    for thread in threads:
        thread.start()
    for thread in threads:
        thread.join()
    owners = [secret for secret in (A, B) if registry.owns(device, secret)]
    assert len(owners) == 1
    final = registry.register(device, owners[0])
    assert registry.device(device).key == final.device.key
    loser = B if owners[0] == A else A
    with pytest.raises(ConflictError):
        registry.register(device, loser)
    assert len(outcomes) == 6


def test_an_enrollment_key_is_counted_hashed_and_listed_without_its_secret(registry, device):
    key, secret = registry.make_enrollment_key(note="greenhouse", uses=2)
    for n in range(2):
        registry.register(f"{device}-{n}", A, enrollment_key=secret, needs_key=True)
    with pytest.raises(EnrollmentError, match="not valid"):
        registry.register(f"{device}-2", A, enrollment_key=secret, needs_key=True)
    assert registry.device(f"{device}-2") is None
    listed = next(found for found in registry.enrollment_keys() if found.id == key.id)
    assert (listed.used, listed.uses, listed.note, listed.revoked) == (2, 2, "greenhouse", False)
    assert not listed.valid(time.time_ns())
    assert secret.reveal() not in repr(registry.enrollment_keys())


def test_an_enrollment_key_is_not_asked_of_a_registered_device(registry, device):
    _, secret = registry.make_enrollment_key()
    registry.register(device, A, enrollment_key=secret, needs_key=True)
    assert not registry.register(device, A, needs_key=True).new
    with pytest.raises(EnrollmentError):  # and it is for one device, unless said otherwise
        registry.register(f"{device}-other", A, enrollment_key=secret, needs_key=True)


def test_an_enrollment_key_of_one_device_is_good_for_no_other(registry, device):
    key, secret = registry.make_enrollment_key(device_id=device)
    for other in (f"{device}-2", device[:-1]):
        with pytest.raises(EnrollmentError, match="for this device"):
            registry.register(other, A, enrollment_key=secret, needs_key=True)
    assert registry.register(device, A, enrollment_key=secret, needs_key=True).new
    assert next(found for found in registry.enrollment_keys() if found.id == key.id).used == 1


def test_who_does_not_own_a_device_is_told_so_only_with_a_key_that_is_valid(registry, device):
    _, secret = registry.make_enrollment_key(uses=2)
    registry.register(device, A, enrollment_key=secret, needs_key=True)
    with pytest.raises(ConflictError, match="registered already"):
        registry.register(device, B, enrollment_key=secret, needs_key=True)
    for wrong in (None, Secret("nonsense")):
        with pytest.raises(EnrollmentError):
            registry.register(device, B, enrollment_key=wrong, needs_key=True)


def test_a_removed_device_does_not_come_back_with_a_key_that_is_used_up(registry, device):
    _, secret = registry.make_enrollment_key(uses=2)
    for _ in range(2):
        registry.register(device, A, enrollment_key=secret, needs_key=True)
        registry.remove(device)
    with pytest.raises(EnrollmentError, match="not valid"):
        registry.register(device, A, enrollment_key=secret, needs_key=True)
    assert registry.device(device) is None


def test_no_more_devices_than_its_uses_register_with_a_key_at_once(registry, device):
    _, secret = registry.make_enrollment_key(uses=3)
    outcomes = []

    def attempt(n):
        try:
            registry.register(f"{device}-{n}", A, enrollment_key=secret, needs_key=True)
        except EnrollmentError as error:
            outcomes.append(error)

    threads = [threading.Thread(target=attempt, args=(n,)) for n in range(8)]
    for thread in threads:
        thread.start()
    for thread in threads:
        thread.join()
    assert len(outcomes) == 5
    assert registry.devices(search=f"{device}-").total == 3


def test_missing_wrong_expired_and_revoked_enrollment_keys_are_refused(registry, device):
    _, expired = registry.make_enrollment_key(expires_ns=time.time_ns() - 1)
    key, revoked = registry.make_enrollment_key(uses=None)
    assert registry.revoke_enrollment_key(key.id)
    assert not registry.revoke_enrollment_key("no-such")
    wrong = Secret(f"{key.id}.wrong")
    for secret in (None, Secret(""), Secret("nonsense"), expired, revoked, wrong):
        with pytest.raises(EnrollmentError):
            registry.register(device, A, enrollment_key=secret, needs_key=True)
    assert registry.device(device) is None
    assert registry.register(device, A, needs_key=True, administrator=True).new


def test_the_password_hash_is_kept_and_cleared(registry):
    assert registry.password_hash() is None
    registry.set_password_hash("scrypt:…$'\"\\")
    assert registry.password_hash() == "scrypt:…$'\"\\"
    registry.set_password_hash(None)
    assert registry.password_hash() is None


def test_a_token_tells_whose_it_is_until_it_is_replaced_or_the_device_removed(registry, device, monkeypatch):
    if not hasattr(registry, "holder"):
        return  # InfluxDB checks its authorizations itself
    monkeypatch.setattr("center.influx.issuing.LOOK_EVERY_S", 0)
    first = registry.register(device, A).token
    registry.register(f"{device}0", A)
    assert registry.holder(first) == device
    second = registry.register(device, A).token
    assert (registry.holder(first), registry.holder(second)) == (None, device)
    for other in ("", ".", device, f"{device}.", f"{device}.wrong", f"{device}0.{second.reveal().rpartition('.')[2]}"):
        assert registry.holder(Secret(other)) is None
    registry.remove(device)
    assert registry.holder(second) is None


def test_who_holds_a_token_is_told_of_many_requests_from_one_list(registry, device, monkeypatch):
    if not hasattr(registry, "influx") or not hasattr(registry, "holder"):
        return
    tokens = {f"{device}-{n}": registry.register(f"{device}-{n}", A).token for n in range(3)}
    asked, ask = [], registry.influx.rows
    monkeypatch.setattr(registry.influx, "rows", lambda *flux: asked.append(flux) or ask(*flux))
    for look_every_s, wanted in ((0, True), (3600, False)):
        monkeypatch.setattr("center.influx.issuing.LOOK_EVERY_S", look_every_s)
        asked.clear()
        for device_id, token in tokens.items():
            assert registry.holder(token) == device_id
        assert bool(asked) == wanted


def test_a_document_is_kept_replaced_and_forgotten(registry, device):
    odd = '{"name": "Gewächshaus \\"3\\", 苗", "notes": "a\\\\b\\nc=d,e"}'
    registry.keep_document("kept", device, "{}")
    registry.keep_document("kept", f"{device}.2", odd)
    registry.keep_document("other", device, "[]")
    assert {name: text for name, text in registry.documents("kept").items() if name.startswith(device)} == {
        device: "{}",
        f"{device}.2": odd,
    }
    registry.keep_document("kept", device, odd)
    registry.keep_document("kept", f"{device}.2", None)
    registry.keep_document("kept", f"{device}.2", None)
    kept = registry.documents("kept")
    assert kept[device] == registry.document("kept", device) == odd
    assert registry.document("kept", f"{device}.2") is None
    assert f"{device}.2" not in kept
    assert registry.documents("other")[device] == "[]"
    registry.keep_document("kept", f"{device}.2", "{}")
    assert registry.documents("kept")[f"{device}.2"] == "{}"


def test_what_was_listed_before_does_not_change(registry, device):
    registry.keep_document("listed", device, "{}")
    listed = registry.documents("listed")
    registry.keep_document("listed", device, None)
    assert device not in registry.documents("listed")
    assert listed[device] == "{}"


@pytest.mark.parametrize("text", ["", "x" * (MAX_DOCUMENT + 1)])
def test_a_document_of_a_strange_length_is_refused(registry, device, text):
    registry.keep_document("kept", device, "x" * MAX_DOCUMENT)
    with pytest.raises(RefusedError, match="1 to 16000 characters"):
        registry.keep_document("kept", device, text)
    assert registry.documents("kept")[device] == "x" * MAX_DOCUMENT


def test_the_lease_is_held_by_one_until_it_ends_it(registry):
    for holder in ("first", "second"):
        registry.end_lease(holder)
    assert any(registry.hold_lease("first") for _ in range(2))
    assert not registry.hold_lease("second")
    registry.end_lease("second")
    assert not registry.hold_lease("second")
    assert registry.hold_lease("first")
    registry.end_lease("first")
    assert any(registry.hold_lease("second") for _ in range(2))
    assert not registry.hold_lease("first")


def test_a_lease_that_is_not_renewed_for_a_minute_is_free_and_one_of_a_clock_that_was_ahead(registry, monkeypatch):
    if hasattr(registry, "influx"):
        return  # there the server's clock counts: tests/center/influx/test_registry.py
    start, minute = now_ns() + DAY, 60 * SECOND

    def holds(holder, at_ns):
        monkeypatch.setattr("center.embedded.registry.now_ns", lambda: start + at_ns)
        return registry.hold_lease(holder)

    registry.end_lease("second")
    assert holds("first", 0)
    assert not holds("second", minute)
    assert holds("second", minute + 1)
    assert not holds("first", minute + 1)
    assert holds("second", 60 * minute)
    assert holds("first", 59 * minute)
    registry.end_lease("first")


KNOWN = ("a stranger", "with a secret", "without one")


def test_who_may_register_a_device_is_told_by_what_he_shows(registry, device):
    """Every combination of what is known of the device, and who asks with what; on InfluxDB, which is slower, some."""
    key, valid = registry.make_enrollment_key(uses=None)
    _, expired = registry.make_enrollment_key(expires_ns=now_ns() - 1)
    counted = 0
    shows = (True, valid), (True, expired), (True, None), (False, None)
    asked = list(itertools.product(KNOWN, (None, A, B), (True, False), shows))
    for n, (known, secret, administrator, (needs_key, shown)) in enumerate(
        asked[::5] if hasattr(registry, "influx") else asked
    ):
        name, why = f"{device}-{n}", f"{known} {secret is A} {administrator=} {shown is valid} {needs_key=}"
        before = None if known == KNOWN[0] else registry.register(name, A if known == KNOWN[1] else None).device

        def register(name=name, secret=secret, administrator=administrator, shown=shown, needs_key=needs_key):
            return registry.register(
                name, secret, administrator=administrator, enrollment_key=shown, needs_key=needs_key
            )

        if administrator or (before is not None and secret is A and known == KNOWN[1]):
            made = register()
            assert made.new == (before is None), why
        elif needs_key and shown is not valid:
            with pytest.raises(EnrollmentError) as refused:
                register()
            assert ("is missing" if shown is None else "is not valid") in str(refused.value), why
            assert registry.device(name) == before, why
            continue
        elif before is not None:
            with pytest.raises(ConflictError):
                register()
            assert registry.device(name) == before, why
            continue
        else:
            made = register()
            assert made.new, why
            counted += needs_key
        owner = secret if before is None else A if known == KNOWN[1] else None
        assert registry.device(name) == made.device, why
        assert made.device.has_secret == (owner is not None), why
        assert [registry.owns(name, one) for one in (A, B, None)] == [owner is A, owner is B, False], why
        if before is not None:
            assert before.created_ns == made.device.created_ns < made.device.updated_ns, why
            assert before.updated_ns < made.device.updated_ns, why
    listed = next(found for found in registry.enrollment_keys() if found.id == key.id)
    assert (listed.used, listed.uses) == (counted, None)
    assert counted


def test_a_secret_that_could_be_guessed_is_refused(registry, device):
    for secret in (Secret("a"), Secret("a" * 31)):
        with pytest.raises(RefusedError, match="at least 32 characters"):
            registry.register(device, secret)
    assert registry.device(device) is None


def test_what_an_enrollment_key_may_do_is_kept_as_it_was_made_and_the_newest_is_first(registry, device):
    made = [
        registry.make_enrollment_key(note=device)[0],
        registry.make_enrollment_key(note=device, uses=None, expires_ns=now_ns() + 123_456_789)[0],
        registry.make_enrollment_key(note=device, uses=3, expires_ns=now_ns() // SECOND * SECOND)[0],
    ]
    assert [key.uses for key in made] == [1, None, 3]
    assert [key for key in registry.enrollment_keys() if key.note == device] == made[::-1]
    assert registry.revoke_enrollment_key(made[0].id)
    assert registry.revoke_enrollment_key(made[0].id)
    assert [key.revoked for key in registry.enrollment_keys() if key.note == device] == [False, False, True]


def test_a_session_that_was_ended_stays_so_for_as_long_as_its_cookie_can_last(registry, device, monkeypatch):
    """31 days, as Flask takes it."""
    monkeypatch.setattr("center.influx.registry.PASSWORD_CACHED_S", 0)
    assert not registry.session_ended(device)
    ended_ns = now_ns()
    for _ in range(2):
        registry.end_session(device)
    assert registry.session_ended(device)
    assert not registry.session_ended(f"{device}-other")
    for days, ended in ((31, True), (32, False)):
        for store in ("embedded", "influx"):
            later = ended_ns + days * DAY - 60 * SECOND
            monkeypatch.setattr(f"center.{store}.registry.now_ns", lambda later=later: later)
        registry.end_session(f"{device}-later")
        assert registry.session_ended(device) == ended


def test_all_devices_are_listed_and_a_part_of_them_from_any_place_on(registry, device):
    ids = sorted(f"{device}.{n}" for n in range(3))
    for name in ids:
        registry.register(name, A)
    assert [found.id for found in registry.devices(search=device).devices] == ids
    everything = [found.id for found in registry.devices().devices]
    assert registry.devices().total == len(everything)
    assert everything == sorted(everything)
    assert set(ids) <= set(everything)
    assert [found.id for found in registry.devices(search=device, offset=1).devices] == ids[1:]
    assert [found.id for found in registry.devices(search=device, limit=1).devices] == ids[:1]
    assert [found.id for found in registry.devices(search=device, offset=2, limit=5).devices] == ids[2:]
    assert list(registry.devices(search=device, offset=3).devices) == []
    assert list(registry.devices(search=device).devices) == [registry.device(name) for name in ids]


def test_the_embedded_store_knows_where_a_token_may_write(registry, device):
    if not hasattr(registry, "holder_of"):
        return
    token = registry.register(device, A).token
    assert registry.holder_of(token) == (device, registry.bucket)
    assert registry.holder_of(Secret("nonsense")) is None
    key = registry.session_key()
    assert len(key.reveal()) == 64
    assert registry.session_key() == key


def test_an_enrollment_key_is_valid_before_it_ends_and_while_a_use_is_left():
    key = EnrollmentKey("3f9a2c71", "", 0, None, None, 0, False)
    for expires_ns, uses, used, revoked, valid in (
        (None, None, 0, False, True),
        (None, None, 99, False, True),
        (None, None, 0, True, False),
        (1000, None, 0, False, True),
        (999, None, 0, False, False),
        (998, None, 0, False, False),
        (None, 2, 1, False, True),
        (None, 2, 2, False, False),
        (None, 2, 3, False, False),
        (998, 2, 1, False, False),
        (1000, 2, 1, True, False),
    ):
        made = EnrollmentKey(key.id, "", 0, expires_ns, uses, used, revoked)
        assert made.valid(999) == valid, made


def test_an_enrollment_key_begins_with_its_id_and_nothing_matches_none():
    key, secret = new_enrollment_key("", 1, None)
    assert (key.used, key.revoked) == (0, False)
    assert re.fullmatch(r"[0-9a-f]{8}\.[\w-]{32}", secret.reveal())
    assert enrollment_id(secret) == key.id
    assert [enrollment_id(other) for other in (None, Secret(""), Secret("3f9a2c71"))] == ["", "", ""]
    assert enrollment_id(Secret("a.b.c")) == "a"
    assert [digest(None), digest(Secret(""))] == ["", ""]
    assert [matches(A, digest(A)), matches(B, digest(A))] == [True, False]
    assert [matches(one, kept) for one, kept in ((None, ""), (A, ""), (None, digest(A)), (Secret(""), ""))] == [
        False
    ] * 4
