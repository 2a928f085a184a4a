"""Tokens of the center's own, told by a list that is read for all requests together."""

from types import SimpleNamespace

import pytest

from center.errors import StoreError
from center.influx import issuing
from center.influx.issuing import IssuingRegistry


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
    now[0] += 2.1
    assert [registry.holder(token) for _ in range(3)] == ["pi-7"] * 3
    assert asked == [1000.0, 1032.1]
