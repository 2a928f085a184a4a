"""Tokens of the center's own, told by a list that is read for all requests together."""

from types import SimpleNamespace

import pytest

from center.errors import StoreError
from center.influx import issuing
from center.influx.issuing import IssuingRegistry
from center.stores.registry import digest


def test_an_influxdb_that_does_not_answer_is_asked_once_in_two_seconds_for_all_requests(monkeypatch):
    now, asked = [1000.0], []
    monkeypatch.setattr(issuing, "time", SimpleNamespace(monotonic=lambda: now[0], time_ns=lambda: 2 * 10**18))
    registry = IssuingRegistry(None, "series", "auth")
    key, token = registry.authorize("pi-7")
    answers = [StoreError("no answer"), SimpleNamespace(devices=[SimpleNamespace(id="pi-7", key=key)])]

    def devices():
        asked.append(now[0])
        now[0] += 30.0  # its timeout
        answer = answers.pop(0)
        if isinstance(answer, StoreError):
            raise answer
        return answer

    monkeypatch.setattr(registry, "devices", devices)
    for known in (None, True, True):  # None: this one is to be said in the log
        with pytest.raises(StoreError, match="no answer") as raised:
            registry.holder(token)
        assert raised.value.known is known
    assert asked == [1000.0]
    now[0] += 2.0
    with pytest.raises(StoreError, match="no answer"):
        registry.holder(token)
    now[0] += 0.1
    assert [registry.holder(token) for _ in range(3)] == ["pi-7"] * 3
    assert asked == [1000.0, 1032.1]


def test_a_key_tells_when_it_was_made_and_the_hash_of_its_token(monkeypatch):
    """As InfluxDB's ids do: milliseconds since 9 April 2017 before 22 bits of chance."""
    monkeypatch.setattr(issuing, "time", SimpleNamespace(time_ns=lambda: 2 * 10**18))
    registry = IssuingRegistry(None, "series", "auth")
    made = [registry.authorize("pi-7") for _ in range(8)]
    for key, token in made:
        assert len(key) == 16 + 64
        assert int(key[:16], 16) >> 22 == 2 * 10**12 - 1_491_696_000_000
        assert key[16:] == digest(token)
        assert token.reveal().startswith("pi-7.")
    assert len({key[:16] for key, _ in made}) > 1
    assert registry.orphans(older_than_s=0) == ()
    registry.delete(made[0][0])
